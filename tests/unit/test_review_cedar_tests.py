"""The tests of ``cedar run-tests``: judged as that command does, and written so that it answers the same."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.suites import load_suite

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.review.cases import Suite
from cedarbox.review.cedar_export import cedar_tests, cedar_text
from cedarbox.review.cedar_tests import CedarSuite
from cedarbox.review.coverage import measure, percent
from cedarbox.review.kinds import RequestKinds
from cedarbox.review.mutants import mutants_of
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json

SCHEMA = (
    "entity User in [Group] { level: Long }; entity Group; entity Photo { owner: User };\n"
    "action view, edit appliesTo { principal: User, resource: Photo, context: { mfa?: Bool } };\n"
)
POLICIES = (
    '@id("own") permit (principal, action, resource) when { resource.owner == principal };\n'
    'permit (principal in Group::"staff", action == Action::"view", resource);\n'
    '@id("mfa") forbid (principal, action == Action::"edit", resource) unless { context has mfa && context.mfa };\n'
    '@id("odd") forbid (principal, action, resource) when { principal.level + 9223372036854775807 < 0 };\n'
)


def entity(kind: str, name: str, *parents: str, **attrs: Any) -> dict[str, Any]:
    return {
        "uid": {"type": kind, "id": name},
        "attrs": attrs,
        "parents": [{"type": "Group", "id": parent} for parent in parents],
    }


def entities(level: int = 0) -> list[dict[str, Any]]:
    owner = {"__entity": {"type": "User", "id": "ann"}}
    return [
        entity("User", "ann", level=level),
        entity("User", "bob", "staff", level=level),
        entity("Photo", "p", owner=owner),
    ]


def a_test(who: str, what: str, decision: str, reason: list[str], **more: Any) -> dict[str, Any]:
    request = {
        "principal": f'User::"{who}"',
        "action": f'Action::"{what}"',
        "resource": 'Photo::"p"',
        "context": more.pop("context", {}),
    }
    base = {"name": f"{who} {what}", "request": request, "entities": entities(), "decision": decision}
    return base | {"reason": reason, "num_errors": 0} | more


def subject(policies: str = POLICIES, **more: Any) -> Subject:
    return Subject.of_cedar("plain", Path("plain"), {"a.cedar": policies.encode()}, schema=SCHEMA, **more)


def run(directory: Path, *tests: Mapping[str, Any], about: Subject | None = None) -> list[str]:
    path = directory / "tests.json"
    path.write_text(json.dumps(tests))
    return [outcome.problem for outcome in CedarSuite.load(about or subject(), path).run()]


def test_the_decision_and_a_part_of_the_reasons_and_the_number_of_errors_must_be_met(tmp_path: Path) -> None:
    with_mfa = {"context": {"mfa": True}}
    assert (
        run(
            tmp_path,
            a_test("ann", "view", "allow", ["own"]),
            a_test("bob", "view", "allow", ["policy1"]),
            a_test("bob", "view", "allow", []),  # a part of the reasons is enough
            a_test("bob", "edit", "deny", ["mfa"]),
            a_test("ann", "edit", "allow", ["own"], **with_mfa),
            a_test("bob", "edit", "deny", [], **with_mfa),
        )
        == [""] * 6
    )
    told = run(
        tmp_path,
        a_test("ann", "view", "deny", []),
        a_test("ann", "view", "allow", ["own", "policy1"]),
        a_test("ann", "view", "allow", ["own"], num_errors=1),
        a_test("ann", "view", "allow", ["nobody"], num_errors=2),
    )
    assert told == [
        "expected deny, got allow by own",
        "expected policy1 among the reasons, got own",
        "expected 1 errors, got 0",
        "expected nobody among the reasons, got own; expected 2 errors, got 0",
    ]


def test_a_policy_that_cannot_be_evaluated_is_passed_over_and_counted(tmp_path: Path) -> None:
    failing = {"entities": entities(level=5)}
    one, two = run(
        tmp_path,
        a_test("ann", "view", "allow", ["own"], num_errors=1, **failing),
        a_test("ann", "view", "allow", ["own"], **failing),
    )
    assert one == ""
    assert two.startswith("expected 0 errors, got 1: error while evaluating policy `odd`: integer overflow")


def test_a_test_that_does_not_fit_the_schema_fails(tmp_path: Path) -> None:
    bad = a_test("ann", "view", "allow", [])
    told = run(
        tmp_path,
        bad | {"entities": [entity("User", "ann", level="high")]},
        bad | {"entities": [{"uid": 5}]},
        bad | {"request": bad["request"] | {"action": 'Action::"remove"'}},
        bad | {"request": bad["request"] | {"principal": "not an entity"}},
        bad | {"request": bad["request"] | {"context": {"other": 1}}},
        bad | {"request": bad["request"] | {"context": {"mfa": 1.5}}},
    )
    assert len(told) == 6
    assert all(problem.startswith("the test cannot be run: ") and "\n" not in problem for problem in told), told


def test_links_of_templates_are_policies_of_their_own(tmp_path: Path) -> None:
    template = '@id("t") permit (principal == ?principal, action == Action::"view", resource in ?resource);'
    link = {
        "templateId": "t",
        "newId": "bob-p",
        "values": {
            "?principal": {"__entity": {"type": "User", "id": "bob"}},
            "?resource": {"__entity": {"type": "Photo", "id": "p"}},
        },
    }
    about = subject(template, links=[link])
    assert run(tmp_path, a_test("bob", "view", "allow", ["bob-p"]), a_test("ann", "view", "deny", []), about=about) == [
        "",
        "",
    ]
    with pytest.raises(BundleError, match="which is no template"):
        CedarSuite(subject(template, links=[link | {"templateId": "u"}]), [])
    with pytest.raises(BundleError, match="without a value"):
        CedarSuite(subject(template, links=[link | {"values": {}}]), [])


def test_changes_that_no_test_notices_are_found(tmp_path: Path) -> None:
    path = tmp_path / "tests.json"
    path.write_text(json.dumps([a_test("ann", "view", "allow", ["own"]), a_test("bob", "view", "allow", ["policy1"])]))
    suite = CedarSuite.load(subject(), path)
    alive, made = suite.survivors()
    assert made > len(alive) > 0
    told = {(mutant.policy.id, mutant.change) for mutant in alive}
    assert {("mfa", "deleted"), ("odd", "deleted"), ("policy1", "any principal")} <= told
    assert not {("own", "deleted"), ("policy1", "deleted"), ("odd", "its condition dropped")} & told
    covered = {each.policy.id: each.both_ways for each in measure(suite.policies, suite.run())}
    assert covered == {"own": True, "policy1": True, "mfa": False, "odd": False}


def test_a_type_is_not_left_out_where_the_schema_knows_no_other(tmp_path: Path) -> None:
    schema = (
        "entity User; entity Robot; entity Photo { owner: User }; entity Album; action look; action all in [look];\n"
        "action view in [all] appliesTo { principal: User, resource: Photo };\n"
        "action list in [look] appliesTo { principal: [User, Robot], resource: [Photo, Album] };\n"
    )
    scopes = {
        'principal is User, action == Action::"view", resource is Photo': set(),
        'principal is User, action in [Action::"all"], resource is Photo': set(),
        'principal is User, action in Action::"look", resource is Photo': {"any principal", "any resource"},
        "principal is Robot, action, resource is Photo": {"any principal", "any resource"},
        'principal == User::"ann", action == Action::"view", resource is Photo': {"any principal"},
        'principal is User, action == Action::"list", resource': {"any principal"},
    }
    for scope, wanted in scopes.items():
        about = Subject.of_cedar("plain", tmp_path, {"a.cedar": f"permit ({scope});".encode()}, schema=schema)
        made = mutants_of(CedarSuite(about, []).policies, RequestKinds.of(schema_json(schema)))
        assert {mutant.change for mutant in made} - {"deleted"} == wanted, scope


def test_a_pattern_loses_what_keeps_its_star_within_a_name(tmp_path: Path) -> None:
    schema = "entity User; action view appliesTo { principal: User, resource: User, context: { s: String } };"
    changed = {
        "*.a.example": {"*a.example"},
        "/srv/*": {"/srv*"},
        "*/keys/*.pem": {"*keys/*.pem", "*/keys*.pem", "*/keys/*pem"},
        "*.*": set(),
        "a.example": set(),
        r"\*.x": set(),
    }
    for pattern, wanted in changed.items():
        text = f'permit (principal, action, resource) when {{ context.s like "{pattern}" }};'
        about = Subject.of_cedar("plain", tmp_path, {"a.cedar": text.encode()}, schema=schema)
        told = {mutant.change for mutant in mutants_of(CedarSuite(about, []).policies) if "like" in mutant.change}
        assert told == {f'its condition with context.s like "{each}"' for each in wanted}, pattern


GOOD = a_test("ann", "view", "allow", ["own"])


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("", ":1:1", "no array"),
        ('{"wrong-format": true}', ":1:1", "no array"),
        ("[", ":1:2", "not JSON"),
        (f"[\n{json.dumps(GOOD)},\n]", ":3:1", "a comma after the last test"),
        ("[] x", ":1:4", "more after the array"),
        ("[\n\n{}]", ":3", "test 1: no request"),
        (json.dumps([GOOD, 5]), ":1", "test 2: no object"),
        ('[{"request": {}, "request": {}}]', ":1:2", "'request' is there twice"),
        ("[" * 100_000, ":1:2", "nested too deeply"),
        (json.dumps([GOOD | {"request": []}]), ":1", "request is no object"),
        (json.dumps([GOOD | {"request": {"principal": "x"}}]), ":1", "no action in the request"),
        (json.dumps([GOOD | {"request": GOOD["request"] | {"context": None}}]), ":1", "no context"),
        (json.dumps([GOOD | {"decision": "Allow"}]), ":1", "decision is 'Allow'"),
        (json.dumps([GOOD | {"reason": "own"}]), ":1", "reason is no list"),
        (json.dumps([GOOD | {"num_errors": True}]), ":1", "num_errors is no number"),
        (json.dumps([GOOD | {"num_errors": -1}]), ":1", "num_errors is no number"),
        (json.dumps([GOOD | {"entities": {}}]), ":1", "entities is no list"),
        (json.dumps([{key: value for key, value in GOOD.items() if key != "reason"}]), ":1", "no reason"),
        ("[NaN]", ":1:2", "NaN is no number"),
    ],
)
def test_what_is_not_of_the_format_is_one_line_with_its_place(tmp_path: Path, text: str, place: str, said: str) -> None:
    path = tmp_path / "tests.json"
    path.write_text(text)
    with pytest.raises(BundleError) as caught:
        CedarSuite.load(subject(), path)
    assert str(caught.value).startswith(f"{path}{place}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "tests.json"
    with pytest.raises(BundleError, match="cannot read it"):
        CedarSuite.load(subject(), path)
    path.write_bytes(b"[\xff]")
    with pytest.raises(BundleError, match="not UTF-8"):
        CedarSuite.load(subject(), path)


@pytest.mark.parametrize("name", ["internal-mirror", "regulated-data"])
def test_the_cases_of_a_bundle_go_out_and_come_in_unchanged(tmp_path: Path, name: str) -> None:
    suite = Suite.load(PolicyBundle.load(SHIPPED / name))
    told, left_out = cedar_tests(suite)
    assert len(told) + left_out == len(suite.cases)
    assert left_out == sum(case.error is not None for case in suite.cases)
    path = tmp_path / "tests.json"
    path.write_bytes(cedar_text(told))
    read = CedarSuite.load(Subject.load(SHIPPED / name), path)
    outcomes = read.run()
    assert [outcome.problem for outcome in outcomes if not outcome.passed] == []
    assert percent(measure(read.policies, outcomes)) == 100
    assert cedar_text([case.to_json() for case in read.cases]) == path.read_bytes()


def test_names_that_need_quoting_and_policies_without_an_id_go_out_as_cedar_knows_them(tmp_path: Path) -> None:
    text = (
        'agents: {"o\\"\\u00e9\\n": {}}\n'
        'exec:\n  allow:\n    - {principal: "o\\"\\u00e9\\n", command: ls, by: "policies.cedar#1"}\n'
        '    - {principal: agent, command: [a, \'b "\\ c\'], by: "policies.cedar#1"}\n'
    )
    suite = load_suite(tmp_path, "permit (principal, action, resource);", text)
    told, left_out = cedar_tests(suite)
    assert (left_out, [each["reason"] for each in told]) == (0, [["policy0"], ["policy0"]])
    assert told[0]["request"]["principal"] == 'Sandbox::Agent::"o\\"é\\n"'
    path = tmp_path / "tests.json"
    path.write_bytes(cedar_text(told))
    assert [outcome.problem for outcome in CedarSuite.load(Subject.load(tmp_path), path).run()] == ["", ""]
