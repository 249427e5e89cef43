"""Changes that no case can notice are told from those that a case is missing for."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tests.unit.bundles import agents, write_bundle
from tests.unit.commands import Run, in_process
from tests.unit.test_review_mutation import METADATA, policies, request

from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.entities import Entity
from cedarbox.policy.schema import schema_text
from cedarbox.review.equivalents import Looked, look
from cedarbox.review.mutants import mutants_of

LONG = os.environ.get("CEDARBOX_LONG") == "1"
SEEDS = range(60 if LONG else 2)
MUTANTS = 400 if LONG else 25
LIMIT_S = 300.0

SCOPE = 'principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect"'
WEB = f"""\
@id("web") permit ({SCOPE}, resource is Sandbox::Host)
when {{ context.port <= 65535 && context.port >= 65535 && context has ip && context.ip.isInRange(ip("10.0.0.0/8")) }};
"""
NEVER = (
    '@id("never") forbid (principal, action == Sandbox::Action::"connect", resource) '
    'when { [Sandbox::IpClass::"metadata"].contains(context.ipClass) };\n'
)
CASES = """\
agents: {outsider: {}}
connect:
  defaults: {target: a.example, port: 65535, proto: tls, ip: 10.0.0.5}
  allow:
    - {case: ends, principal: agent, ip: [10.0.0.0, 10.255.255.255], by: web}
  deny:
    - {case: another, principal: outsider}
    - {case: below, principal: agent, port: 65534}
    - {case: outside, principal: agent, ip: [9.255.255.255, 11.0.0.0, 203.0.113.1]}
    - {case: "no name", principal: agent, target: 10.0.0.5, ip: null}
    - {case: metadata, principal: agent, ip: 169.254.169.254, by: never}
"""


def looked(directory: Path, text: str, *names: str) -> dict[tuple[str, str], Looked]:
    bundle = PolicyBundle.load(write_bundle(directory, text, entities=agents(*names), metadata=METADATA))
    found = look(
        bundle.policies,
        list(mutants_of(bundle.policies)),
        schema=schema_text(),
        entities=bundle.entities,
        limit_s=LIMIT_S,
    )
    return {(each.mutant.policy.id, each.mutant.change): each for each in found}


def test_what_is_proved_to_make_no_difference_is_told_from_what_a_case_is_missing_for(tmp_path: Path) -> None:
    found = looked(tmp_path, WEB + NEVER, "agent")
    first = "its condition without context.port <= 65535"
    assert found["web", first].told == "proved: no request tells it apart"
    guard = "its condition without context has ip"
    assert found["web", guard].told == "the schema refuses it: it is never loaded"
    same = {change for (policy, change), each in found.items() if policy == "web" and each.verdict == "equivalent"}
    assert {first, guard} <= same
    # The only declared agent is in the group, and a case can declare another.
    other = found["web", "any principal"]
    assert other.verdict == "noticeable"
    assert other.told.startswith('Agent::"outsider" connect Host::')
    assert found["web", 'its condition with context.ip.isInRange(ip("10.0.0.0/7"))'].verdict == "noticeable"
    assert found["web", 'its condition with context.ip.isInRange(ip("10.0.0.0/9"))'].verdict == "noticeable"
    assert found["never", "deleted"].verdict == "noticeable"


def test_a_permit_that_differs_only_where_a_policy_forbids_makes_no_difference(tmp_path: Path) -> None:
    permit = (
        f'@id("p") permit ({SCOPE}, resource) when {{ context.ipClass != Sandbox::IpClass::"metadata" }};\n'
    )  # fmt: skip
    change = ("p", "its condition dropped")
    assert looked(tmp_path / "one", permit + NEVER, "agent")[change].verdict == "equivalent"
    assert looked(tmp_path / "two", permit, "agent")[change].verdict == "noticeable"
    # What can fail may be noticed by its error, so nothing is said to be the same.
    failing = permit.replace("context.ipClass !=", "context.port + 9223372036854775807 > 0 || context.ipClass !=")
    found = looked(tmp_path / "three", failing + NEVER, "agent")
    assert all(each.verdict != "equivalent" for (policy, _), each in found.items() if policy == "p")


def test_an_approval_of_what_is_never_permitted_makes_no_difference(tmp_path: Path) -> None:
    tool = (
        '@id("t") @requires_approval("desk") permit (principal, action == Sandbox::Action::"invokeTool", resource) '
        'when { resource.kind == Sandbox::ToolKind::"function" };\n'
    )
    none = '@id("none") forbid (principal, action == Sandbox::Action::"invokeTool", resource);\n'
    change = ("t", "without its approval")
    assert looked(tmp_path / "one", tool, "agent")[change].verdict == "noticeable"
    assert looked(tmp_path / "two", tool + none, "agent")[change].verdict == "equivalent"


GROUPS = " || ".join(f'principal in Sandbox::AgentGroup::"{number}"' for number in range(12))
SOMEBODY = 'principal == Sandbox::Agent::"nobody", action == Sandbox::Action::"connect"'


@pytest.mark.parametrize(
    ("scope", "condition"),
    [
        (SCOPE, GROUPS),  # 4096 kinds of members
        (SOMEBODY, "context.port <= 65535"),  # whom a case may declare in any group, or with another trust
        (SCOPE, 'Sandbox::Agent::"agent" in Sandbox::AgentGroup::"x"'),
    ],
    ids=["groups", "undeclared", "looked into"],
)
def test_where_agents_could_be_more_than_are_tried_nothing_is_proved(
    tmp_path: Path, scope: str, condition: str
) -> None:
    found = looked(tmp_path, f'@id("web") permit ({scope}, resource) when {{ {condition} }};', "agent")
    assert {each.verdict for each in found.values()} <= {"open", "noticeable"}
    assert any("in other ways" in each.told for each in found.values())


def test_what_the_time_is_too_short_for_is_not_proved(tmp_path: Path) -> None:
    bundle = PolicyBundle.load(write_bundle(tmp_path, WEB))
    mutants = [each for each in mutants_of(bundle.policies) if each.change.endswith("without context.port <= 65535")]
    found = look(bundle.policies, mutants, schema=schema_text(), entities=bundle.entities, limit_s=1e-9)
    assert [(each.verdict, each.told) for each in found] == [("open", "the time was over")]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_request_by_anybody_tells_apart_what_is_proved_to_be_the_same(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    bundle = PolicyBundle.load(
        write_bundle(tmp_path, policies(random), entities=agents("agent", "other"), metadata=METADATA)
    )
    mutants = list(mutants_of(bundle.policies))
    mutants = random.sample(mutants, min(MUTANTS, len(mutants)))
    found = look(bundle.policies, mutants, schema=schema_text(), entities=bundle.entities, limit_s=LIMIT_S)
    same = [each.mutant for each in found if each.verdict == "equivalent"]
    tenant, group = Entity("Tenant", "tests"), Entity("AgentGroup", "agents")
    more = [
        Entity(
            "Agent",
            f"{trust} {number}",
            {"tenant": tenant.ref, "trust": Entity("Trust", trust).ref},
            parents,
        ).to_json()
        for trust in ("untrusted", "internal", "trusted")
        for number, parents in enumerate([(), (group,)])
    ]
    whole = replace(bundle, entities=(*bundle.entities, tenant.to_json(), *more))
    names = [str(each["uid"]["id"]) for each in more] + ["agent", "other"]
    asked = [(random.choice(names), request(random)[1]) for _ in range(150)]
    engine = PolicyEngine(whole)
    said = [engine.decide(*each) for each in asked]
    for mutant in same:
        # One that the schema refuses decides as it should, too.
        changed = PolicyEngine(mutant.within(whole))
        for each, before in zip(asked, said, strict=True):
            after = changed.decide(*each)
            told = (before.allowed, before.policies, before.errors, before.approval)
            assert (after.allowed, after.policies, after.errors, after.approval) == told, mutant.change


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "test")


def write_suite(directory: Path, text: str, cases: str) -> Path:
    bundle = write_bundle(directory, text)
    (bundle / "tests").mkdir()
    (bundle / "tests" / "a.yaml").write_text(cases)
    return bundle


def test_the_command_tells_them_apart_and_names_the_case_that_is_missing(tmp_path: Path, run: Run) -> None:
    bundle = write_suite(tmp_path / "good", WEB + NEVER, CASES)
    code, out, _ = run(bundle)
    assert code == 0, out
    assert "changes noticed, " in out
    assert " cannot be" in out
    assert "Equivalent changes, which no case can notice" in out
    code, out, _ = run(bundle, "--no-prover")
    assert code == 1
    assert "no case notices when it is changed: its condition without context.port <= 65535" in out
    assert "Equivalent" not in out
    bundle = write_suite(tmp_path / "bad", WEB + NEVER, CASES.replace("9.255.255.255, 11.0.0.0, ", ""))
    code, out, _ = run(bundle, "--json")
    told = json.loads(out)
    assert code == 1
    (finding,) = told["findings"]
    assert finding["details"]["change"] == 'its condition with context.ip.isInRange(ip("10.0.0.0/7"))'
    assert finding["details"]["proof"] == "noticeable"
    assert "ip=11." in finding["hint"]
    assert {each["policy"] for each in told["mutants"]["equivalent"]} == {"web"}
    assert told["mutants"]["unnoticed"][0]["change"] == finding["details"]["change"]
    # Nothing is said of a form that looks only at a part of it.
    for form in ("junit", "tap", "sarif", "github", "gitlab", "markdown"):
        code, out, _ = run(bundle, "--format", form)
        assert code == 1
        # What stands between is written as the form writes quotes.
        assert "no case notices when it is changed: its condition with context.ip.isInRange(ip(" in out
        assert "10.0.0.0/7" in out


def test_many_are_looked_into_only_when_that_is_asked_for(tmp_path: Path, run: Run) -> None:
    few = "connect:\n  allow: [{principal: agent, target: a.example, port: 65535, proto: tls, ip: 10.0.0.5, by: web}]\n"
    bundle = write_suite(tmp_path, WEB, few)
    code, out, _ = run(bundle)
    assert code == 1
    assert "more than 5 changes went unnoticed: --prover tells which of them no case can notice" in out
    assert "Equivalent" not in out
    code, out, _ = run(bundle, "--prover")
    assert code == 1
    assert "Equivalent changes" in out


def test_without_a_solver_nothing_is_told_to_be_the_same(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cedarbox.review.prove.available", lambda: "pip install 'cedarbox[prove]'")
    code, out, _ = run(write_suite(tmp_path, WEB + NEVER, CASES), "--prover")
    assert code == 1
    assert "which changes no case can notice is not known: pip install 'cedarbox[prove]'" in out
    assert "Equivalent" not in out


@pytest.mark.parametrize(("asked", "same"), [("context.open", True), ("resource.open", False)])
def test_plain_cedar_is_looked_into_for_any_entities_there_or_not(
    tmp_path: Path, run: Run, asked: str, same: bool
) -> None:
    (tmp_path / "a.cedar").write_text(
        f'permit (principal in Team::"t", action, resource) when {{ principal in Team::"t" && {asked} }};'
    )
    (tmp_path / "s.cedarschema").write_text(
        "entity Team; entity User in [Team]; entity Photo {open: Bool};"
        "action view appliesTo { principal: User, resource: Photo, context: {open: Bool} };"
    )
    team, photo = {"type": "Team", "id": "t"}, {"type": "Photo", "id": "p"}

    def case(user: str, shown: bool, allow: bool) -> dict[str, object]:
        entities = [
            {"uid": {"type": "User", "id": user}, "attrs": {}, "parents": [team] if user == "ann" else []},
            {"uid": team, "attrs": {}, "parents": []},
            {"uid": photo, "attrs": {"open": shown}, "parents": []},
        ]
        of = {"principal": f'User::"{user}"', "action": 'Action::"view"', "resource": 'Photo::"p"'}
        decision, reason = ("allow", ["policy0"]) if allow else ("deny", [])
        return {"name": f"{user} {shown}", "request": {**of, "context": {"open": shown}}, "entities": entities,
                "decision": decision, "reason": reason, "num_errors": 0}  # fmt: skip

    tests = [case("ann", True, True), case("ann", False, False), case("bob", True, False)]
    (tmp_path / "t.json").write_text(json.dumps(tests))
    code, out, _ = run(tmp_path, "--schema", tmp_path / "s.cedarschema", "--tests", tmp_path / "t.json")
    # Each of the two that say the same can be left out. One that looks into the photo fails where there is none.
    assert (code, "2 cannot be" in out) == ((0, True) if same else (1, False)), out
