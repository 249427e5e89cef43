"""Policies in words: nothing of a policy is lost, and what has no words is quoted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.cedar_text import CedarText

from cedarbox.policy import PolicyBundle
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.mutants import mutants_of
from cedarbox.review.phrases import condition_words
from cedarbox.review.pieces import Words
from cedarbox.review.vocabulary import ACTIONS, ENUM_WORDS
from cedarbox.review.words import sentence_of
from cedarbox.review.written import cedar_text

BUNDLES = sorted(path.parent.name for path in SHIPPED.glob("*/bundle.toml"))
DIALLED = "the address that would be dialled"


def est(text: str) -> Mapping[str, Any]:
    document = json.loads(cedarpy.policies_to_json_str(text))
    found: Mapping[str, Any] = next(iter(document["staticPolicies"].values()))
    return found


def body(condition: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = est(f"permit (principal, action, resource) when {{ {condition} }};")["conditions"][0][
        "body"
    ]
    return found


def constants(node: Any) -> Iterator[str]:
    """Every constant of a policy, as it may be told."""
    if isinstance(node, list):
        for item in node:
            yield from constants(item)
    elif isinstance(node, dict):
        if node.keys() == {"type", "id"}:
            kind = node["type"].removeprefix("Sandbox::")
            if kind != "Action":
                yield ENUM_WORDS.get((kind, node["id"]), node["id"])
            return
        if "pattern" in node:
            yield from "".join(part["Literal"] if isinstance(part, dict) else "\0" for part in node["pattern"]).split(
                "\0"
            )
        if isinstance(node.get("Value"), str | int) and not isinstance(node["Value"], bool):
            yield str(node["Value"])
        for key, item in node.items():
            if key != "annotations":
                yield from constants(item)


@pytest.mark.parametrize("name", BUNDLES)
def test_each_constant_of_each_policy_is_in_its_sentence(name: str) -> None:
    for policy in PolicyBundle.load(SHIPPED / name).policies:
        told = str(sentence_of(policy.est))
        assert [text for text in constants(policy.est) if text not in told] == [], policy.id


@pytest.mark.parametrize("name", BUNDLES)
def test_each_small_change_of_a_policy_changes_its_sentence(name: str) -> None:
    bundle = PolicyBundle.load(SHIPPED / name)
    told = {policy.id: str(sentence_of(policy.est)) for policy in bundle.policies}
    seen = 0
    for mutant in mutants_of(bundle.policies, approvals=False):
        if mutant.mutated is not None:
            seen += 1
            assert str(sentence_of(mutant.mutated.est)) != told[mutant.policy.id], (mutant.policy.id, mutant.change)
    assert seen > len(bundle.policies)


def test_what_ships_needs_no_cedar_to_be_told() -> None:
    quoted = [
        policy.id
        for name in BUNDLES
        for policy in PolicyBundle.load(SHIPPED / name).policies
        if sentence_of(policy.est).words.quoted
    ]
    assert quoted == []


def test_conditions_that_hold_an_or_of_their_own_are_kept_apart() -> None:
    told = sentence_of(
        est(
            'permit (principal, action == Sandbox::Action::"connect", resource) '
            "when { context.port > 0 && (context.port < 80 || context.port > 90) };"
        )
    )
    # Without the semicolon it reads as if every port above 90 were permitted whatever comes first.
    assert str(told).endswith("when the port is more than 0; and the port is less than 80 or the port is more than 90.")


def test_a_sentence() -> None:
    bundle = PolicyBundle.load(SHIPPED / "internal-mirror")
    told = {policy.id: str(sentence_of(policy.est)) for policy in bundle.policies}
    assert told["mirror-packages"] == (
        "Agents in the group agents may connect to mirror.corp.example (this name exactly) over TLS on port 443 "
        "when the address that would be dialled is private."
    )
    assert told["mirror-never-here"].startswith("Nobody may connect to any host or address when ")


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("context.port >= 1024", "the port is at least 1024"),
        ("1024 > context.port", "the port is less than 1024"),
        ("!(context.port >= 1024)", "the port is less than 1024"),
        ("context.port != 25", "the port is not 25"),
        ('resource.path like "/srv/*"', "the path begins with /srv/"),
        ('!(resource.fqdn like "*.example")', "the name of the host does not end with .example"),
        ('context.http.path like "*secret*"', "the path of the request has secret in it"),
        ('context.ip.isInRange(ip("10.0.0.0/8"))', "the address that would be dialled is in 10.0.0.0/8"),
        ("!context.ip.isLoopback()", "the address that would be dialled is not a loopback address"),
        ("context.isSymlink == false", "the path as configured goes through no link"),
        ('context.base.at < datetime("2027-01-01")', "the time of the request is before 2027-01-01 UTC"),
        ('context.base.at.toTime() >= duration("8h")', "the time of day in UTC is at or after 8h"),
        ('context.lifetime <= duration("8h")', "the lifetime is at most 8h"),
        # Something that must not be read as "not known" of what is known.
        ('context.ipClass != Sandbox::IpClass::"unresolved"', f"{DIALLED} is not one that nobody looked up"),
        ('!(resource in Sandbox::Domain::"a.example")', "the resource is neither a.example nor any name below it"),
        ('resource in Sandbox::Domain::"a.example"', "the resource is a.example or any name below it"),
        # Two policies that are not the same must not be told alike.
        ('context.commandLine like "git *"', 'the command line begins with "git "'),
        ('context.user == "a or the port is 1"', 'the user of the guest is "a or the port is 1"'),
        ("!(context.base has tool)", "it is not the call of a tool"),
        ('principal.getTag("team") == "blue"', "the tag team of the agent is blue"),
        ('principal.hasTag("team")', "the agent has the tag team"),
        ('principal in Sandbox::AgentGroup::"a"', "the agent is in the group a"),
        ('principal.trust == Sandbox::Trust::"trusted"', "the trust in the agent is trusted"),
        ("resource is Sandbox::Address", "the resource is of the type Address"),
        ("!(context has user)", "the user of the guest is not known"),
        (
            "context.port == 1 || context.port == 2 && context has ip",
            "the port is 1 or (the port is 2 and the address that would be dialled is known)",
        ),
        ("!(context.port == 1 && context.port == 2)", "the port is not 1 or the port is not 2"),
        ('!(["GET", "PUT"].contains(context.http.method))', "the method of the request is neither GET nor PUT"),
    ],
)
def test_a_condition_in_words(condition: str, words: str) -> None:
    assert str(condition_words(body(condition))) == words


@pytest.mark.parametrize(
    "condition",
    [
        "context.port + 1 == 443",
        "if context has ip then context.port == 443 else false",
        'resource.path like "/a*b*c"',
        'context.http == {method: "GET", path: "/"}',
        "[context.port].containsAll([443])",
        'context.commandLine like "*"',
        "(context.port == 1) == (context.shell && context.group)",
        'principal has trust && principal.trust == Sandbox::Trust::"trusted" && context.port * 2 == 4',
    ],
)
@pytest.mark.parametrize("want", [True, False])
def test_what_has_no_words_is_quoted_as_cedar_that_says_the_same(condition: str, want: bool) -> None:
    told = condition_words(body(condition), want=want)
    quoted = [piece.text for piece in told.pieces if piece.kind == "cedar"]
    assert len(quoted) == 1
    expected = body(condition) if want else {"!": {"arg": body(condition)}}
    assert body(quoted[0]) == expected


@pytest.mark.parametrize("seed", range(4))
def test_an_expression_is_written_so_that_cedar_reads_the_same(seed: int) -> None:
    maker = CedarText(seed)
    read = 0
    for _ in range(100):
        try:
            made = body(maker.expression(4))
        except ValueError:  # the maker writes a few that are none
            continue
        read += 1
        assert body(cedar_text(made)) == made
    assert read > 80


@pytest.mark.parametrize(
    "written",
    [
        "context.port >= 443 && (context.shell || !context.public)",
        'resource.fqdn like "*.corp.example" && resource is Sandbox::Host',
        'context.ip.isInRange(ip("10.0.0.0/8")) == true',
        "1 + 2 * 3 - (4 - 5) < -1",
        'context.user == "a) || (b\\n\\""',
    ],
)
def test_an_expression_has_no_more_parentheses_than_a_person_writes(written: str) -> None:
    assert cedar_text(body(written)) == written


@pytest.mark.parametrize(
    ("scope", "lead"),
    [
        ("permit (principal, action, resource)", "Every declared agent may do anything that there is an action for"),
        ('forbid (principal == Sandbox::Agent::"a", action, resource)', "The agent a may not do anything"),
        ('forbid (principal in Sandbox::AgentGroup::"g", action, resource)', "No agents in the group g may do"),
        (
            'permit (principal, action in Sandbox::Action::"network", resource)',
            "Every declared agent may do anything of the group network",
        ),
        (
            'permit (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"a.example")',
            "Every declared agent may connect to a.example and every name below it",
        ),
        (
            'forbid (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"a.example")',
            "Nobody may connect to a.example or any name below it",
        ),
        (
            'permit (principal is Sandbox::Agent in Sandbox::AgentGroup::"g", action, resource is Sandbox::Tool)',
            "Agents in the group g may do anything that there is an action for, with any resource of the type",
        ),
    ],
)
def test_a_scope_in_words(scope: str, lead: str) -> None:
    assert str(sentence_of(est(f"{scope};"))).startswith(lead)


def test_every_action_has_words() -> None:
    assert ACTIONS.keys() == ACTION_GROUPS.keys()
    assert Words.of("a ", Words.value("b")).pieces[1].kind == "value"
