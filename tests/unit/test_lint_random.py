"""Whatever loads can be linted: no bundle makes a rule fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.linting import NOW, lint_text, permit

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.formatting import Layout, format_policies
from cedarbox.review.lint.options import LintConfig
from cedarbox.review.lint.run import lint, report_of
from cedarbox.review.subject import Subject

TESTS = [
    "true",
    "1 == 1",
    'principal in Sandbox::AgentGroup::"agents"',
    'principal.trust == Sandbox::Trust::"untrusted"',
    'principal.hasTag("team") && principal.getTag("team") == "a"',
    'context.base has tool && context.base.tool like "a*"',
    'context.base.at > datetime("2027-01-01")',
    'context.base.at.durationSince(datetime("2027-01-01")) < duration("1h")',
    'context.base.backend == "boxlite"',
]
ABOUT = {
    "connect": [
        "context.port == 443",
        "context.port < 1024",
        "context.port + 1 == 444",
        'context.ipClass == Sandbox::IpClass::"public"',
        'context has ip && context.ip.isInRange(ip("10.0.0.1/7"))',
        'context has http && context.http.path like "/a/*"',
        'resource is Sandbox::Host && resource.fqdn like "*.co.uk"',
        'resource in Sandbox::Domain::"Bad..Name"',
        "context has hello",
    ],
    "mountWrite": ["context.isSymlink", 'resource in Sandbox::HostPath::"/"', 'resource.path like "*"'],
    "invokeTool": ['resource.kind == Sandbox::ToolKind::"mcp"', 'resource.name == "a/b"', 'resource.name like "*\\*"'],
    "create": ["resource has digest", 'context has lifetime && context.lifetime < duration("1h")'],
    "exec": ['context.commandLine like "*"', "context.shell"],
    "useSecret": ['context.host in Sandbox::Domain::"corp.example"', "context.port == 443"],
    "exposePort": ["context.public", "resource.number == 80"],
}


def _conditions(action: str) -> st.SearchStrategy[str]:
    leaf = st.sampled_from([*TESTS, *ABOUT.get(action, [])])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds("({} && {})".format, inner, inner),
            st.builds("({} || {})".format, inner, inner),
            st.builds("!({})".format, inner),
            st.builds("(if {} then {} else {})".format, inner, inner, inner),
        ),
        max_leaves=5,
    )


@st.composite
def _policies(draw: st.DrawFn) -> str:
    made = []
    for number in range(draw(st.integers(1, 4))):
        action = draw(st.sampled_from(sorted(ACTION_GROUPS)))
        kinds = draw(st.lists(st.sampled_from(["when", "unless"]), max_size=2))
        tests = [f"{kind} {{ {draw(_conditions(action))} }}" for kind in kinds]
        made.append(permit(f"p{number}", action, *tests, effect=draw(st.sampled_from(["permit", "forbid"]))))
    return "".join(made)


@settings(
    max_examples=200 if os.environ.get("CEDARBOX_LONG") == "1" else 10,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(_policies())
def test_every_bundle_that_loads_can_be_linted(tmp_path_factory: pytest.TempPathFactory, policies: str) -> None:
    report = report_of(lint_text(tmp_path_factory.mktemp("random"), policies))
    assert report.summary
    for finding in report.findings:
        assert finding.place is not None
        assert finding.message.isprintable()


SCHEMA = "entity User; entity Doc { owner: User }; action read appliesTo { principal: [User], resource: [Doc] };"
PLAIN = """
@id("a") permit (principal, action, resource);
@id("b") forbid (principal, action == Action::"read", resource) when { resource.owner == User::"x" };
@id("b") forbid (principal, action == Action::"read", resource) when { resource.owner == User::"x" };
permit (principal == ?principal, action, resource);
// A usual way to write it, where users are no agents in bundles of their own.
@id("owner") forbid (principal, action == Action::"read", resource) unless { principal == resource.owner };
"""


def test_cedar_with_a_schema_of_its_own_is_linted_by_the_rules_that_know_nothing_of_sandboxes(tmp_path: Path) -> None:
    subject = Subject.of_cedar("plain", tmp_path, {"a.cedar": PLAIN.encode()}, schema=SCHEMA)
    linted = lint(subject, LintConfig(), now=NOW)
    assert {finding.rule for finding in linted.findings} == {"S001", "S002", "S003", "S050", "S061", "S064", "S090"}
    said = {(finding.rule, finding.severity) for finding in linted.findings if "declared" not in finding.message}
    # Whoever keeps a policy in a file of its name, and supplies what is asked about, has done nothing wrong.
    assert {("S050", "note"), ("S064", "note"), ("S003", "warning")} <= said


def test_a_type_can_be_whom_a_permit_is_for_and_cedars_own_layout_is_one(tmp_path: Path) -> None:
    schema = """entity Staff; entity Guest; entity Doc;
    action read appliesTo { principal: [Staff, Guest], resource: Doc };
    action write appliesTo { principal: Staff, resource: Doc };"""
    when = 'resource == Doc::"a-rather-long-name" || resource == Doc::"another-long-name"'
    text = f'@id("read") permit (principal is Staff, action == Action::"read", resource) when {{ {when} }};'
    text += '@id("write") permit (principal is Staff, action == Action::"write", resource);'
    policies = format_policies(text, Layout(80, 2))
    assert policies != format_policies(text)
    subject = Subject.of_cedar("plain", tmp_path, {"a.cedar": policies.encode()}, schema=schema)
    assert [(each.rule, each.policy) for each in lint(subject, LintConfig(), now=NOW).findings] == [("S003", "write")]


def test_of_dates_only_what_can_become_too_large_can_fail(tmp_path: Path) -> None:
    schema = "entity User; action read appliesTo { principal: User, resource: User, context: { at: datetime } };"
    policy = 'forbid (principal is User, action, resource) when {{ context.at.{} > duration("22h") }};\n'
    policies = policy.format("toTime()") + policy.format('offset(duration("1h")).toTime()')
    subject = Subject.of_cedar("plain", tmp_path, {"a.cedar": policies.encode()}, schema=schema)
    told = [each.message for each in lint(subject, LintConfig(), now=NOW).findings if each.rule == "S063"]
    assert told == ["can fail to evaluate: offset on values that are too large, and Cedar skips the forbid then"]


def test_a_policy_as_deep_as_bundles_can_be_is_linted(tmp_path: Path) -> None:
    deep = f"when {{ {'!(' * 30}context.public{')' * 30} }}"
    chain = f"when {{ {' && '.join(f'resource.number != {n}' for n in range(25))} }}"
    linted = lint_text(tmp_path, permit("deep", "exposePort", deep) + permit("long", "exposePort", chain))
    assert ("S018", "deep") in [(finding.rule, finding.policy) for finding in linted.findings]
