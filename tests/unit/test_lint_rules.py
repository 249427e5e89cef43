"""More of what each rule finds and does not find, beside the examples of its page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.bundles import agents, write_bundle
from tests.unit.linting import NOW, found, lint_bundle, lint_text, permit

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.lint.agents import OUTSIDER
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.options import LintConfig, Options
from cedarbox.review.lint.proving import Wanted
from cedarbox.review.lint.run import Chosen, lint, report_of
from cedarbox.review.subject import Subject

TLS = 'when { context.proto == Sandbox::Proto::"tls" && context.port == 443 }'
PUBLIC = 'when { context.ipClass == Sandbox::IpClass::"public" }'
WITHIN = 'when {{ context has ip && context.ip.isInRange(ip("{}")) }}'
GROUPS = ", ".join(f'Sandbox::Action::"{group}"' for group in sorted(set(ACTION_GROUPS.values())))
FQDN = "when {{ resource is Sandbox::Host && resource.fqdn like {} }}"


def _everybody(text: str) -> str:
    return text.replace('principal in Sandbox::AgentGroup::"agents"', "principal")


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("S001", '@id("p") permit (principal, action, resource) when { true || context.base.backend == "x" };'),
        ("S001", '@id("p") permit (principal, action, resource) unless { !(principal == principal) };'),
        ("S001", '@id("p") permit (principal is Sandbox::Agent, action, resource);'),
        ("S001", f'@id("p") permit (principal, action in [{GROUPS}], resource) when {{ true }};'),
        ("S002", '@id("p") permit (principal in Sandbox::AgentGroup::"agents", action, resource);'),
        ("S003", '@id("p") permit (principal is Sandbox::Agent, action == Sandbox::Action::"exec", resource);'),
        ("S010", permit("p", "connect", resource='resource in Sandbox::Domain::"co.uk"')),
        ("S010", permit("p", "connect", resource='resource in Sandbox::Domain::"github.io"')),
        ("S010", permit("p", "connect", resource='resource in Sandbox::Domain::"com"')),
        ("S010", permit("p", "connect", FQDN.format('"*"'))),
        ("S010", permit("p", "connect", FQDN.format('"mirror.*"'))),
        ("S010", permit("p", "connect", FQDN.format('"*.s3.amazonaws.com"'))),
        ("S010", permit("p", "connect", FQDN.format('"*.*.corp.example"'))),
        ("S010", permit("p", "useSecret", 'when { context.host in Sandbox::Domain::"com" }')),
        ("S010", permit("p", "connect", 'unless { !(resource in Sandbox::Domain::"com") }')),
        ("S010", permit("p", "connect", FQDN.format('"*.ads.example"'), effect="forbid")),
        ("S011", permit("p", "mountRead", resource='resource in Sandbox::HostPath::"/srv/data/"')),
        ("S011", permit("p", "mountRead", resource='resource in Sandbox::HostPath::"srv"')),
        ("S011", permit("p", "readFile", 'when { resource.path == "/workspace/../etc" }')),
        ("S011", permit("p", "connect", resource='resource == Sandbox::Host::"10.0.0.1"')),
        ("S011", permit("p", "connect", resource='resource == Sandbox::Host::"*.corp.example"')),
        ("S011", permit("p", "connect", 'when { resource is Sandbox::Host && ["A.example"].contains(resource.fqdn) }')),
        ("S011", permit("p", "connect", FQDN.format('"*.Corp.example"'))),
        ("S011", permit("p", "useModel", resource='resource == Sandbox::ModelEndpoint::"LLM.corp.example"')),
        ("S011", permit("p", "exec", 'when { context has user && context.user == "0" }')),
        ("S012", permit("p", "connect", "when { context.port > 1 }", PUBLIC)),
        ("S014", permit("p", "connect", TLS, 'when { context has ip && context.ip.isInRange(ip("2000::/16")) }')),
        (
            "S014",
            permit("p", "connect", 'when { context has ip && context.ip.isInRange(ip("1.2.3.4/8")) }', effect="forbid"),
        ),
        ("S015", permit("p", "connect", "when { context.port == 443 }", PUBLIC)),
        ("S020", permit("p", "mountWrite", resource='resource in Sandbox::HostPath::"/srv/checkout/.git"')),
        ("S023", permit("p", "mountRead", 'when { resource.path like "*/.ssh" }')),
        ("S032", permit("p", "invokeTool", 'unless { resource in Sandbox::Toolset::"bad" }')),
        ("S050", permit("p", "exec").replace('@reason("a reason") ', "")),
        ("S050", permit("p", "exec", effect="forbid").replace("@advice", "@advise")),
        ("S050", permit("p", "exec").replace("@reason", '@expires("2026-11-26") @reason')),
        ("S050", permit("p", "exec").replace("@reason", '@expires("2026-11-27T11:59:59Z") @reason')),
        ("S050", permit("p", "exec").replace("@reason", '@expires("soon") @reason')),
        ("S050", permit("p", "exec").replace("@reason", '@expires("2026-02-30") @reason')),
        ("S060", permit("p", "exec", "when { false }")),
        ("S060", permit("p", "connect", 'when { context.ipClass == Sandbox::IpClass::"public" }', "unless { true }")),
        ("S060", permit("p", "connect", resource='resource in Sandbox::Domain::"Nothing..example"')),
        ("S063", permit("p", "exec", 'when { context.base.at.durationSince(context.base.at) < duration("1h") }')),
        ("S064", permit("p", "exec", "when { principal.tenant has name }", effect="forbid")),
        ("S091", permit("p", "exec").replace("a reason", "a r\u0435ason")),
    ],
)
def test_found(rule: str, text: str, tmp_path: Path) -> None:
    assert rule in {name for name, _ in found(lint_text(tmp_path, text, rule))}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("S001", '@id("p") permit (principal, action, resource) when { context.base.backend == "x" };'),
        ("S001", '@id("p") permit (principal is Sandbox::Agent, action, resource is Sandbox::Tool);'),
        ("S001", '@id("p") permit (principal, action in Sandbox::Action::"network", resource);'),
        ("S002", '@id("p") forbid (principal, action in Sandbox::Action::"network", resource);'),
        ("S003", _everybody(permit("p", "exec", 'when { principal in Sandbox::AgentGroup::"staff" }'))),
        ("S003", _everybody(permit("p", "exec", effect="forbid"))),
        ("S004", permit("p", "exec", "unless { context.shell }", effect="forbid")),
        ("S010", permit("p", "connect", resource='resource in Sandbox::Domain::"corp.example"')),
        ("S010", permit("p", "connect", FQDN.format('"*.corp.example"'))),
        ("S010", permit("p", "connect", FQDN.format('"*ads*"'), effect="forbid")),
        ("S010", permit("p", "connect", FQDN.format('"a\\*b.corp.example"'))),
        ("S010", permit("p", "connect", effect="forbid", resource='resource in Sandbox::Domain::"com"')),
        ("S010", permit("p", "resolve", effect="forbid", resource='resource in Sandbox::Domain::"."')),
        ("S011", permit("p", "resolve", resource='resource in Sandbox::Domain::"."')),
        ("S011", permit("p", "connect", resource='resource == Sandbox::Address::"10.0.0.1"')),
        ("S011", permit("p", "connect", resource='resource == Sandbox::Host::"xn--bcher-kva.example"')),
        ("S012", permit("p", "connect", "when { context.port < 10 }", PUBLIC)),
        ("S012", permit("p", "connect", TLS, 'when { context has ip && context.ip.isInRange(ip("10.0.0.0/8")) }')),
        ("S012", permit("p", "connect", TLS, f"unless {{ !({PUBLIC[7:-2]}) }}")),
        ("S013", permit("p", "connect", TLS, PUBLIC)),
        ("S013", permit("p", "connect", TLS, 'when { context.ipClass == Sandbox::IpClass::"private" }')),
        (
            "S014",
            permit("p", "connect", 'when { context has ip && context.ip.isInRange(ip("0.0.0.0/0")) }', effect="forbid"),
        ),
        ("S015", permit("p", "connect", TLS, PUBLIC)),
        ("S050", permit("p", "exec").replace("@reason", '@expires("2026-11-28") @reason')),
        ("S060", permit("p", "connect", "when { context.port == 443 || context.port == 80 }")),
        ("S061", permit("p", "exec") + permit("q", "exec", effect="forbid")),
        ("S063", permit("p", "fork", "when { context.copies <= 2 + 2 }")),
        ("S064", permit("p", "useSecret", 'when { context.host.fqdn == "a.example" }', effect="forbid")),
        ("S091", permit("p", "exec").replace("a reason", "Grüße, привет")),
    ],
)
def test_not_found(rule: str, text: str, tmp_path: Path) -> None:
    assert found(lint_text(tmp_path, text, rule)) == []


@pytest.mark.parametrize(("ports", "port"), [("context.port >= 80", 443), ("context.port > 1024", 1025)])
def test_a_port_that_is_advised_is_one_of_the_permit(tmp_path: Path, ports: str, port: int) -> None:
    (told,) = lint_text(tmp_path, permit("p", "connect", f"when {{ {ports} }}", PUBLIC), "S012").findings
    assert f"context.port == {port} " in told.hint


def test_a_group_that_a_parent_lacks_and_one_that_no_policy_names_are_told(tmp_path: Path) -> None:
    entities = json.loads(agents("agent"))
    entities[2]["parents"].append({"type": "Sandbox::AgentGroup", "id": "ghosts"})
    entities.append({"uid": {"type": "Sandbox::AgentGroup", "id": "idle"}, "attrs": {}, "parents": []})
    # The agent is in the fifth line, and the group in the sixth.
    text = "[\n\n" + ",\n".join(map(json.dumps, entities)) + "\n]"
    linted = lint_text(tmp_path, permit("p", "exec"), "S070", entities=text)
    told = sorted((finding.severity, finding.message) for finding in linted.findings)
    assert [severity for severity, _ in told] == ["note", "warning"]
    assert "idle" in told[0][1]
    assert "ghosts" in told[1][1]
    lines = {finding.severity: finding.place.line for finding in linted.findings if finding.place}
    assert lines == {"warning": 5, "note": 6}


def test_findings_stand_at_the_part_that_they_are_about(tmp_path: Path) -> None:
    text = '@id("p")\n@reason("a")\npermit (\n  principal,\n  action == Sandbox::Action::"connect",\n  resource\n)\n'
    text += "when\n{\n"
    text += '  resource is Sandbox::Host &&\n  resource.fqdn like "*corp.example"\n};\n'
    (finding,) = lint_text(tmp_path, text, "S010").findings
    place = finding.place
    assert place is not None
    assert (place.line, place.column, place.end_line, place.end_column) == (11, 3, 11, 37)


def test_fingerprints_do_not_change_when_lines_move(tmp_path: Path) -> None:
    text = permit("p", "connect", FQDN.format('"*corp.example"'))
    write_bundle(tmp_path, text)
    before = [finding.fingerprint for finding in lint_bundle(tmp_path, "S010", "S012").findings]
    (tmp_path / "policies.cedar").write_text("// Something new.\n\n" + text)
    after = [finding.fingerprint for finding in lint_bundle(tmp_path, "S010", "S012").findings]
    assert sorted(before) == sorted(after)
    assert len(set(before)) == len(before) > 1


PROVED = [
    ("S060", permit("p", "fork", "when { context.copies > 8 && context.copies < 5 }")),
    ("S061", permit("p", "fork", "when { context.copies < 5 }") + permit("q", "fork", "when { context.copies < 8 }")),
    (
        "S062",
        permit("p", "fork", "when { context.copies < 5 }")
        + permit("q", "fork", "when { context.copies < 8 }", effect="forbid"),
    ),
    ("S063", permit("p", "fork", "when { context.copies * 2 < 5 }")),
]


@pytest.mark.parametrize(("rule", "text"), PROVED)
def test_what_only_a_proof_shows_is_found_with_the_prover(rule: str, text: str, tmp_path: Path) -> None:
    write_bundle(tmp_path, text)
    linted = lint_bundle(tmp_path, rule, prover=True)
    assert found(linted) == [(rule, "p")]
    assert linted.undecided == 0


def test_a_policy_that_is_proved_never_to_fail_is_no_finding(tmp_path: Path) -> None:
    write_bundle(
        tmp_path, permit("p", "fork", "when { context.copies < 9 && context.copies > 0 && context.copies * 2 < 9 }")
    )
    assert found(lint_bundle(tmp_path, "S063")) == [("S063", "p")]
    assert found(lint_bundle(tmp_path, "S063", prover=True)) == []


def test_a_question_for_which_there_was_no_time_is_told_and_is_no_success_when_the_prover_is_needed(
    tmp_path: Path,
) -> None:
    subject = Subject.load(write_bundle(tmp_path, PROVED[0][1]))
    chosen = Chosen(frozenset({"S060"}))
    linted = lint(subject, LintConfig(), now=NOW, chosen=chosen, prover=Wanted(limit_s=0))
    assert found(linted) == []
    assert linted.notes == ("not decided: S060 p: whether any request matches it: the time was over",)
    assert report_of(linted).exit_code == 0
    assert report_of(linted, prover_needed=True).exit_code == 3


def test_agents_that_no_policy_can_tell_apart_are_asked_about_once(tmp_path: Path) -> None:
    declared = json.loads(agents("one", "two", "three"))
    for number, entity in enumerate(declared[2:]):
        entity["parents"].append({"type": "Sandbox::AgentGroup", "id": f"of nobody's interest {number}"})
    by_trust = permit("p", "resolve", 'when { principal.trust == Sandbox::Trust::"untrusted" }')
    subject = Subject.load(write_bundle(tmp_path, by_trust, entities=json.dumps(declared)))
    assert [agent.id for agent in Context(subject, Options(), NOW).agents] == ["one", OUTSIDER]
