"""Sentences about policies: what they mean in Cedar, and what is none."""

from __future__ import annotations

import json

import cedarpy
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cedarbox.errors import ConfigurationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.schema import schema_text
from cedarbox.review.properties.sentences import Meaning, meaning
from cedarbox.review.properties.vocabulary import BARE, FLAGS, KEYS, VERBS

_VALUES = {
    "a name": "x",
    "text": "x",
    "an absolute path": "/srv/data",
    "an address": "10.0.0.1",
    "a network such as 10.0.0.0/8": "10.0.0.0/8",
    "the name of a host": "a.corp.example",
    "a domain: itself and every name below it": "corp.example",
    "a whole number, or a range such as 1-1023": "1-1023",
}


def _validated(meant: Meaning) -> Meaning:
    policies = [
        f'permit (principal, action == Sandbox::Action::"{action}", resource) when {{ {told} }};'
        for action, told in meant.conditions.items()
    ]
    result = cedarpy.validate_policies("\n".join(policies), schema_text())
    assert result.validation_passed, (policies, [str(error.error) for error in result.errors])
    return meant


@pytest.mark.parametrize(
    ("sentence", "means"),
    [
        (
            'agent in AgentGroup::"untrusted" connects to ipClass private',
            {
                "connect": 'principal in Sandbox::AgentGroup::"untrusted"'
                ' && context.ipClass == Sandbox::IpClass::"private"'
            },
        ),
        (
            "anyone writes /etc",
            {
                "writeFile": '(resource in Sandbox::GuestPath::"/etc" || ([Sandbox::FileOperation::"remove", '
                'Sandbox::FileOperation::"move"].contains(context.operation) && '
                '(resource == Sandbox::GuestPath::"/")))',
                "mountWrite": '(resource in Sandbox::HostPath::"/etc" || resource == Sandbox::HostPath::"/")',
            },
        ),
        (
            "anyone mounts writable not /srv/data",
            {"mountWrite": '!(resource in Sandbox::HostPath::"/srv/data")'},
        ),
        (
            "anyone connects to not domain Corp.Example. on port 22, 80 or 8000-8999",
            {
                "connect": '!(resource in Sandbox::Domain::"corp.example") && ((context.port == 22) ||'
                " (context.port == 80) || (context.port >= 8000 && context.port <= 8999))"
            },
        ),
        (
            'agent "ci" not in group build with trust internal of tenant "a\\"b" uses tool "x y"',
            {
                "invokeTool": 'principal == Sandbox::Agent::"ci" && !(principal in Sandbox::AgentGroup::"build")'
                ' && principal.trust == Sandbox::Trust::"internal" && principal.tenant == Sandbox::Tenant::"a\\"b"'
                ' && resource == Sandbox::Tool::"x y"'
            },
        ),
        ("any agent connects anywhere", {"connectAnywhere": "true"}),
        (
            "anyone mounts writable not under /srv symlink",
            {"mountWrite": '!(resource in Sandbox::HostPath::"/srv") && context.isSymlink'},
        ),
        ("anyone connects to ip class not public", {"connect": '!(context.ipClass == Sandbox::IpClass::"public")'}),
    ],
)
def test_what_a_sentence_means(sentence: str, means: dict[str, str]) -> None:
    assert _validated(meaning(sentence)).conditions == means


def test_every_verb_and_every_key_means_something_that_fits_the_schema() -> None:
    for verb, actions in VERBS.items():
        assert tuple(meaning(f"anyone {' '.join(verb)}").conditions) == actions
    assert {action for actions in VERBS.values() for action in actions} == set(ACTION_GROUPS) == set(KEYS)
    whole: dict[str, list[str]] = {}
    for action, keys in KEYS.items():
        for name, key in keys.items():
            value = _VALUES.get(key.expects) or key.expects.removeprefix("one of ").split(",")[0]
            for words in (f"{name} {value}", f"not {name} {value}", f"{name} not {value} or {value}"):
                (told,) = meaning(f"anyone {action} {words}").conditions.values()
                whole.setdefault(action, []).append(f"({told})")
        for flag in FLAGS.get(action, ()):
            (told,) = meaning(f"anyone {action} {flag}").conditions.values()
            whole.setdefault(action, []).append(f"({told})")
        if action in BARE:
            assert BARE[action] in keys
    _validated(Meaning({action: " || ".join(told) or "true" for action, told in whole.items()}))


def test_the_third_person_and_little_words_change_nothing() -> None:
    for one, other in (
        ("anyone connects to the host a.example on port 1", "anyone connect host a.example port 1"),
        ("anyone publishes port 80", "anyone exposePort 80"),
        ("anyone does anything in network", "anyone do anything in network"),
        ("anyone starts a sandbox with isolation none", "anyone start sandbox isolation none"),
        ("any agent reads file under /w", "anybody read under /w"),
    ):
        assert meaning(one) == meaning(other)
    assert meaning("write /etc", who=False) == meaning("anyone writes /etc")


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("", "begins with the end"),
        ("nobody connects", "begins with 'nobody'"),
        ("anyone", "the end is no verb"),
        ("anyone frobs", "'frobs' is no verb"),
        ("agent ci connects", "'ci' is no verb"),
        ("anyone connects to port abc", "port: 'abc' is no whole number"),
        ("anyone connects to port", "the end stands where"),
        ("anyone connects on port 22 or host a.example", "port: 'host'"),
        ("anyone connects to ipClass intranet", "one of cgnat"),
        ("anyone connects to host 10.0.0.1", "is an address"),
        ("anyone connects to address a.example", "is a name"),
        ("anyone connects to network 10.0.0.1/8", "host bits set"),
        ("anyone connects to 0xA9FEA9FE", "host:"),
        ("anyone connects on port 443-80", "write 80-443"),
        ("anyone connects to metadata", "write ipClass metadata, or host metadata"),
        ("anyone calls shell", "write kind shell, or tool shell"),
        ('agent "a" and "b" connects', "nobody is two agents"),
        ("anyone mounts ../etc", "not absolute"),
        ('anyone connects to host "a', "quotation mark"),
        ("anyone writes operation create", "mountWrite has no operation"),
        ("anyone connects without approval", "only a call of a tool"),
        ("anyone connects to hots mirror.corp.example x", "cannot be said of connect"),
        ('agent in Tenant::"x" connects', "no group of agents"),
        ("agent with trust high connects", "no trust"),
        ("anyone connects not", "ends too early"),
        ("anyone connects " + "x" * 2000, "longer than"),
    ],
)
def test_what_is_no_sentence(sentence: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        meaning(sentence)
    assert said in str(error.value)
    assert str(error.value).isprintable()


_WORDS = st.sampled_from(
    [
        *sorted({word for verb in VERBS for word in verb} | {key for keys in KEYS.values() for key in keys}),
        *("anyone", "agent", "not", "or", ",", "in", "to", "/etc", "443", '"x"', 'AgentGroup::"x"', "private", '"'),
    ]
)


@settings(max_examples=40)
@given(st.lists(_WORDS, max_size=8).map(" ".join) | st.text(max_size=30))
@example('anyone connects to host "\\')
def test_any_text_means_something_valid_or_is_refused(text: str) -> None:
    try:
        meant = meaning(text)
    except ConfigurationError as error:
        assert str(error).isprintable()  # noqa: PT017 - any error of another kind fails
    else:
        _validated(meant)


def test_a_value_stays_a_value() -> None:
    for name in ('x" || true || "', "\\", "\\u{41}", "a\nb", "\u202e", "*"):
        told = name.replace("\\", "\\\\").replace('"', '\\"')
        (condition,) = _validated(meaning(f'anyone calls tool "{told}"')).conditions.values()
        source = f"permit (principal, action, resource) when {{ {condition} }};"
        (policy,) = json.loads(cedarpy.policies_to_json_str(source))["staticPolicies"].values()
        right = policy["conditions"][0]["body"]["=="]["right"]
        assert right == {"Value": {"__entity": {"type": "Sandbox::Tool", "id": name}}}
