"""Attacks on the linter: findings that are talked away, hidden, or avoided by writing the same thing in another way."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle
from tests.unit.differing import entities
from tests.unit.linting import found, lint_bundle, lint_text, permit

from cedarbox.errors import BundleError
from cedarbox.review.lint.agents import OUTSIDER
from cedarbox.review.lint.options import LintConfig, read_config
from cedarbox.review.lint.rulebook import RULES
from cedarbox.review.lint.run import report_of

WIDE = '@id("all") @reason("{reason}") permit (principal, action, resource);\n'
TALK = "// cedarbox-lint: ignore S001, S002, S003 -- reviewed by the security desk"
SEVERITIES = {rule.id: rule.severity for rule in RULES}
TLS = 'when { context.proto == Sandbox::Proto::"tls" && context.port == 443 }'
PUBLIC = 'context.ipClass == Sandbox::IpClass::"public"'


@pytest.mark.parametrize(
    "text",
    [
        WIDE.format(reason=TALK),
        WIDE.format(reason=f"fine\n{TALK}\n"),
        WIDE.format(reason=f'\\"\n{TALK}\n\\"'),
        WIDE.format(reason=f'\\\\\\"{TALK}'),
        WIDE.format(reason="fine").replace("resource)", f'resource) unless {{ context.base.backend == "{TALK}" }}'),
        WIDE.format(reason="fine").replace(";", f' unless {{ context.base.backend == "\n{TALK}\n" }};'),
    ],
)
def test_a_suppression_in_a_string_suppresses_nothing(text: str, tmp_path: Path) -> None:
    """A suppression is written into a reason, or into a string of a condition, with line ends and quotes around it.

    It is text of a policy and no comment, so the permit for everybody is found all the same, and nothing is suppressed.
    """
    linted = lint_text(tmp_path, text.replace("(principal, action,", '(principal, action == Sandbox::Action::"exec",'))
    assert ("S003", "all") in found(linted)
    assert linted.suppressed == ()


def test_a_suppression_of_another_policy_does_not_reach_over(tmp_path: Path) -> None:
    """A comment behind one policy, one on a shared line and one in the policy before are tried on the next policy.

    Each is for the policy that it stands at, so the wide permit is found in every case.
    """
    first = permit("first", "exec").strip()
    talk = "// cedarbox-lint: ignore S003 -- reviewed by the security desk"
    wide = WIDE.format(reason="fine").replace("action,", 'action == Sandbox::Action::"exec",')
    for number, text in enumerate(
        (f"{first} {talk}\n{wide}", f"{wide.strip()} {first} {talk}\n", first.replace(";", f"{talk}\n;\n") + wide)
    ):
        linted = lint_text(tmp_path / str(number), text, "S003")
        assert found(linted) == [("S003", "all")]


def test_a_carriage_return_does_not_end_the_comment_for_the_eye_alone(tmp_path: Path) -> None:
    """A single carriage return makes a policy of what looks like the rest of a comment, suppression and all.

    Cedar reads the policy, so does the linter, and the carriage return is an error that no comment suppresses.
    """
    hidden = WIDE.format(reason="fine").replace("action,", 'action == Sandbox::Action::"exec",')
    linted = lint_text(tmp_path, f"// nothing here\r{hidden}", "S003", "S091")
    assert found(linted) == [("S091", ""), ("S003", "all")]


@pytest.mark.parametrize(
    "mark", ["\u202e", "\u2066", "\u200b", "\u2028", "\u00a0", "\U000e0041", "\ufe0f", "\x0b", "\x85"]
)
def test_characters_that_deceive_the_reader_are_told_wherever_they_stand(mark: str, tmp_path: Path) -> None:
    """Characters that turn the writing, end a line for the eye, or are not seen are put into a comment and a reason.

    Each is an error with its place, and a comment that tries to suppress it is an error too.
    """
    text = f"// cedarbox-lint: ignore S091 -- reviewed by the desk\n// fine{mark}\n" + permit("run", "exec")
    linted = lint_text(tmp_path, text, "S091", "S093")
    assert found(linted) == [("S093", ""), ("S091", "")]
    assert report_of(linted).failed
    assert linted.findings[1].place is not None
    assert linted.findings[1].place.line == 2


@pytest.mark.parametrize(
    "host",
    [
        "mirror.c\u043erp.example",
        "\u043c\u0456rr\u043er.corp.example",
        "mirror.corp.example\u200b",
        "\uff4dirror.corp.example",
        "mirror.corp.example.",
    ],
)
def test_a_host_that_looks_like_another_one_is_told(host: str, tmp_path: Path) -> None:
    """Hosts with letters of another script, of full width, with a character that nobody sees, or with a last dot.

    None is what requests are spelt like, so each is an error, and no safe fix makes another host of it.
    """
    linted = lint_text(tmp_path, permit("m", "connect", TLS, resource=f'resource == Sandbox::Host::"{host}"'), "S011")
    assert found(linted) == [("S011", "m")]
    assert all(finding.edits == () for finding in linted.findings)


@pytest.mark.parametrize(
    "condition",
    [
        f"when {{ !(!({PUBLIC}) && {PUBLIC}) }}",
        f"unless {{ {PUBLIC} && !({PUBLIC}) }}",
        f"when {{ if {PUBLIC} then true else true }}",
        'unless { [Sandbox::IpClass::"reserved"].contains(context.ipClass) }',
        'when { context.ipClass in [Sandbox::IpClass::"public", Sandbox::IpClass::"metadata"] }',
        'when { (context.ipClass == Sandbox::IpClass::"public") == false }',
        'when { context has ip && !context.ip.isInRange(ip("127.0.0.0/8")) }',
        'when { context.ipClass != Sandbox::IpClass::"loopback" || context.base.backend == "never" }',
    ],
)
def test_a_way_to_the_metadata_service_is_found_however_it_is_written(condition: str, tmp_path: Path) -> None:
    """A permit that lets metadata addresses through is written with De Morgan, unless, if, and sets.

    Regions and requests that are put to Cedar do not look at the writing: each is an error, without a solver.
    """
    linted = lint_text(tmp_path, permit("way", "connect", TLS, condition), "S013")
    assert found(linted) == [("S013", "way")]
    assert "metadata" in linted.findings[0].message or "link_local" in linted.findings[0].message


@pytest.mark.parametrize(
    "condition",
    [
        'when { resource in Sandbox::HostPath::"/" }',
        'unless { !(resource in Sandbox::HostPath::"/etc") }',
        'when { [Sandbox::HostPath::"/etc", Sandbox::HostPath::"/srv"].contains(resource) }',
        'when { if resource in Sandbox::HostPath::"/srv" then false else true }',
        'when { resource.path like "/e*" }',
        'when { resource.path like "*/docker.sock" }',
        'when { context.base has tool && context.base.tool == "helper" }',
        'when { context.guestPath == "/host" }',
        'when { context.base.at > datetime("2031-01-01") }',
        'when { context.base.backend like "*x" && principal in Sandbox::AgentGroup::"tomorrow" }',
    ],
)
def test_a_writable_mount_of_the_host_is_found_however_it_is_written(condition: str, tmp_path: Path) -> None:
    """A permit for /etc by a pattern, a set, a negation, for one tool, from a day on, for a group of tomorrow.

    Mounts are put to Cedar with what the policies ask for, so each is an error, without a solver.
    """
    text = permit("way", "mountWrite", condition).replace('principal in Sandbox::AgentGroup::"agents"', "principal")
    assert ("S020", "way") in found(lint_text(tmp_path, text, "S020"))


@pytest.mark.parametrize(
    "condition",
    [
        'unless { resource.kind == Sandbox::ToolKind::"function" }',
        'when { resource.name like "web_*" }',
        'when { ["search"].contains(resource.name) }',
        'when { !(resource.kind in [Sandbox::ToolKind::"hosted_mcp"]) }',
    ],
)
def test_a_hosted_tool_is_found_however_it_is_permitted(condition: str, tmp_path: Path) -> None:
    """Tools that run at a vendor are permitted by leaving one kind out, or by a name with no word about the kind.

    Calls of every kind are put to Cedar by the names that the policies know: each is an error, without a solver.
    """
    assert found(lint_text(tmp_path, permit("way", "invokeTool", condition), "S030")) == [("S030", "way")]


@pytest.mark.parametrize(
    ("action", "condition", "rule"),
    [
        ("mountWrite", 'when { context.guestPath like "/a*b*c" && context.guestPath like "*q*" }', "S020"),
        ("mountRead", 'when { context.guestPath like "/d*" && context.guestPath like "*zz" }', "S021"),
        ("invokeTool", 'when { resource.name like "a*" && resource.name like "*b" }', "S030"),
        ("create", "when { context has vcpus && context.vcpus > 1000 }", "S040"),
        ("exposePort", "when { resource.number > 2000 && resource.number < 3000 }", "S018"),
        ("useCapability", 'when { context.base.backend like "q*" && context.base.backend like "*y" }', "S031"),
        (
            "connect",
            f'{TLS} when {{ context.base.backend like "q*" && context.base.backend like "*y" }}',
            "S013",
        ),
    ],
)
def test_what_no_tried_request_meets_is_found_by_the_prover(
    action: str, condition: str, rule: str, tmp_path: Path
) -> None:
    """Conditions that none of the tried requests meets: two patterns at once, sizes out of the ordinary.

    Without the prover they are not found; with it each is found, with a request that Cedar allowed.
    """
    write_bundle(tmp_path, permit("way", action, condition))
    assert found(lint_bundle(tmp_path, rule)) == []
    proved = lint_bundle(tmp_path, rule, prover=True)
    assert found(proved)[:1] == [(rule, "way")]
    assert "witness" in proved.findings[0].details


def test_a_permit_for_all_whose_condition_is_always_met_is_found_by_the_prover(tmp_path: Path) -> None:
    """A permit for everything gets a condition that looks like one and holds for every request.

    The text does not show it; the prover shows for every kind of request that it is met, and it is an error.
    """
    text = '@id("all") @reason("a") permit (principal, action, resource) when { context.base.backend like "*" };'
    write_bundle(tmp_path, text)
    assert found(lint_bundle(tmp_path, "S001")) == []
    assert found(lint_bundle(tmp_path, "S001", prover=True)) == [("S001", "all")]


def test_a_permit_for_everybody_that_only_mentions_the_principal_is_found_by_the_prover(tmp_path: Path) -> None:
    """A permit without a group gets a condition about the principal that an agent in no group meets.

    The text mentions the principal; the prover finds an agent in no group that is permitted, and it is told.
    """
    text = permit("way", "exec", 'when { principal.trust == Sandbox::Trust::"untrusted" }')
    write_bundle(tmp_path, text.replace('principal in Sandbox::AgentGroup::"agents"', "principal"))
    assert found(lint_bundle(tmp_path, "S003")) == []
    proved = lint_bundle(tmp_path, "S003", prover=True)
    assert found(proved) == [("S003", "way")]
    assert "in no group" in proved.findings[0].message


def test_an_agent_with_the_name_of_one_of_the_linter(tmp_path: Path) -> None:
    """The bundle declares an agent with the name of the one in no group that the linter asks about, and puts it into a
    group that is excepted from a permit for everybody; or its tenant is excepted. For that one it is no permit. Such
    names are refused.
    """
    group = 'principal in Sandbox::AgentGroup::"x"'
    text = permit("way", "exec", f"unless {{ {group} }}")
    text = text.replace('principal in Sandbox::AgentGroup::"agents"', "principal")
    write_bundle(tmp_path, text, entities=entities({"coder": ("x",)}))
    assert found(lint_bundle(tmp_path, "S003", prover=True)) == [("S003", "way")]
    tenant = text.replace(group, 'principal.tenant == Sandbox::Tenant::"cedarbox-lint"')
    for policies, agent in ((text, OUTSIDER), (tenant, "coder")):
        write_bundle(tmp_path, policies, entities=entities({agent: ("x",)}))
        with pytest.raises(BundleError, match="a name that the linter gives to its own"):
            lint_bundle(tmp_path, "S003", prover=True)


def test_a_configuration_cannot_silence_a_rule_without_a_reason(tmp_path: Path) -> None:
    """lint.toml switches rules off, makes them milder, names rules that there are not, and has unknown keys.

    Without a reason nothing is made milder: it is refused. With one, every report tells it and counts it.
    """
    path = tmp_path / "lint.toml"
    for text in (
        '[rules]\nS013 = "off"',
        '[rules]\nS013 = {severity = "note", reason = " "}',
        '[rules]\nS013 = {severity = "off", reason = "x\\u202ey"}',
        '[rules]\nS999 = "error"',
        '[rules]\nS013 = {severity = "off", reason = "a", until = "b"}',
        'ignore = ["S013"]',
        '[options]\nsensitive_capabilities = ["nothing"]',
    ):
        path.write_text(text)
        with pytest.raises(BundleError, match=r"lint\.toml"):
            read_config(path, SEVERITIES, missing_ok=True)
    config = '[rules]\nS003 = {severity = "off", reason = "agents are checked elsewhere"}\n'
    report = report_of(lint_text(tmp_path, WIDE.format(reason="fine"), config=config))
    assert "1 rule switched off" in report.summary
    assert any(
        "agents are checked elsewhere" in cell for section in report.sections for row in section.rows for cell in row
    )


def test_a_second_finding_of_a_kind_is_not_hidden_by_the_baseline(tmp_path: Path) -> None:
    """A baseline knows one finding of a policy; a second one with the same fingerprint is put beside it.

    An entry takes one finding away and no more, so the second is told.
    """
    from cedarbox.review.lint.baseline import read_baseline, write_baseline

    directory = write_bundle(tmp_path, permit("a", "mountRead", resource='resource in Sandbox::HostPath::"/srv/a"'))
    write_baseline(directory / "baseline.json", lint_bundle(directory, "S021").findings)
    assert found(lint_bundle(directory, "S021")) == []
    baseline = read_baseline(directory / "baseline.json")
    (directory / "baseline.json").unlink()
    (finding,) = lint_bundle(directory, "S021").findings
    new, old, stale = baseline.split([finding, finding])
    assert (len(new), len(old), stale) == (1, 1, [])


def test_defaults_are_what_an_empty_configuration_is(tmp_path: Path) -> None:
    """The configuration is removed, so that its stricter options are gone.

    What is left are the defaults, which fail at a warning.
    """
    assert read_config(tmp_path / "lint.toml", SEVERITIES, missing_ok=True) == LintConfig()
    assert LintConfig().fail_level == "warning"
