"""Trying all changes of a bundle at once tells what trying each with an engine of its own tells."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tests.unit.bundles import agents, write_bundle
from tests.unit.suites import large_bundle

from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.review.arguments import Value, build
from cedarbox.review.case import Case
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import measure, percent
from cedarbox.review.mutants import Mutant, mutants_of
from cedarbox.review.run import outcome_of, run_suite, survivors

LONG = os.environ.get("CEDARBOX_LONG") == "1"
SEEDS = range(300 if LONG else 5)
METADATA = (
    'name = "test"\nschema = 1\n[approvers]\n'
    'desk = "xWg+FfYw5REpZroy7QQUu+b/EziNHKc1B4UVlaeCG+c="\n'
    'boss = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="\n'
)
HOSTS = ["a.example", "b.a.example", "c.example", "10.0.0.1", "127.0.0.1", "169.254.169.254"]
PATHS = ["/workspace/a", "/workspace/a/b", "/etc/passwd"]
TOOLS = ["wire", "view"]
PORTS = [22, 443, 8443]
PRINCIPALS = ["", '== Sandbox::Agent::"agent"', 'in Sandbox::AgentGroup::"agents"', '== Sandbox::Agent::"other"']
RESOURCES = {
    "connect": ["", '== Sandbox::Host::"a.example"', 'in Sandbox::Domain::"a.example"', "is Sandbox::Address"],
    "readFile": ["", 'in Sandbox::GuestPath::"/workspace"', '== Sandbox::GuestPath::"/workspace/a"'],
    "invokeTool": ["", '== Sandbox::Tool::"wire"'],
}
CONDITIONS = {
    "connect": [
        "context.port >= 443",
        'context.proto == Sandbox::Proto::"tls" && context.port < 8443',
        '[Sandbox::IpClass::"metadata", Sandbox::IpClass::"loopback"].contains(context.ipClass)',
        "context.port + 9223372036854775000 > 0",  # an error for ports above 807
        'context.port == 22 || context.port * 9000000000000000 > 7 || context.proto != Sandbox::Proto::"udp"',
    ],
    "readFile": ['principal.trust == Sandbox::Trust::"untrusted"', 'context.base.backend == "boxlite"'],
    "invokeTool": ['context.base.backend != "docker"', "context.base has tool"],
}
APPROVALS = ["", '@requires_approval("desk")', '@requires_approval("desk,boss") @approval_expires("5m")']


def policies(random: Random) -> str:
    parts = []
    for number in range(random.randint(3, 7)):
        action = random.choice(sorted(RESOURCES))
        effect = random.choice(["permit", "permit", "forbid"])
        approval = random.choice(APPROVALS) if (action, effect) == ("invokeTool", "permit") else ""
        scope = f'action == Sandbox::Action::"{action}"'
        if action == "readFile" and random.random() < 0.3:
            scope = 'action in [Sandbox::Action::"readFile", Sandbox::Action::"writeFile"]'
        conditions = "".join(
            f" {random.choice(['when', 'when', 'unless'])} {{ {random.choice(CONDITIONS[action])} }}"
            for _ in range(random.choice([0, 1, 1, 2]))
        )
        parts.append(
            f'@id("p{number}") {approval} {effect} (principal {random.choice(PRINCIPALS)}, {scope}, '
            f"resource {random.choice(RESOURCES[action])}){conditions};\n"
        )
    return "".join(parts)


def request(random: Random) -> tuple[str, Action]:
    action = random.choice(["connect", "connect", "readFile", "writeFile", "invokeTool"])
    if action == "connect":
        values: dict[str, Value] = {
            "target": random.choice(HOSTS),
            "port": random.choice(PORTS),
            "proto": random.choice(["tls", "tcp"]),
        }
        return action, build(action, values)
    if action == "invokeTool":
        return action, build(action, {"name": random.choice(TOOLS), "kind": "function"})
    operation = "read" if action == "readFile" else "write"
    return action, build(action, {"path": random.choice(PATHS), "operation": operation})


def passing_case(engine: PolicyEngine, random: Random, number: int) -> Case:
    """A case by chance that states what is so; sometimes only a part of it."""
    principal = random.choice(["agent", "agent", "other", "nobody"])
    action, asked = request(random)
    decision = engine.decide(principal, asked)
    approvers, seconds = None, None
    if decision.allowed and random.random() < 0.5:
        approvers = frozenset(decision.approval.approvers if decision.approval else ())
        seconds = decision.approval.expires_s if decision.approval and random.random() < 0.5 else None
    error = random.choice([decision.errors[0], "error", ""]) if decision.errors else None
    if error is not None and error not in decision.errors[0]:
        error = decision.errors[0][:5]
    by = frozenset() if decision.errors else frozenset(decision.policies)
    case = Case(Path("x.yaml"), number, action, str(number), principal, asked, "", decision.allowed, by, error)
    return replace(case, approvers=approvers, approval_s=seconds)


def one_by_one(suite: Suite) -> list[Mutant]:
    """What :func:`survivors` must find, with an engine for each change."""
    alive = []
    for mutant in mutants_of(suite.bundle.policies):
        engine = PolicyEngine(mutant.within(suite.bundle))
        asked = [case for case in suite.cases if case.action in mutant.policy.actions]
        if all(outcome_of(engine, case).passed for case in asked):
            alive.append(mutant)
    return alive


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_changes_go_unnoticed_as_with_an_engine_for_each(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    bundle = PolicyBundle.load(
        write_bundle(tmp_path, policies(random), entities=agents("agent", "other"), metadata=METADATA)
    )
    engine = PolicyEngine(bundle)
    cases = tuple(passing_case(engine, random, number) for number in range(random.randint(4, 25)))
    suite = Suite(bundle, cases)
    assert [outcome.problem for outcome in run_suite(suite) if not outcome.passed] == []
    alive, made = survivors(suite)
    assert made == len(list(mutants_of(bundle.policies)))
    assert [(m.policy.id, m.change) for m in alive] == [(m.policy.id, m.change) for m in one_by_one(suite)]


def test_a_large_bundle_is_covered_and_what_its_cases_leave_out_is_found(tmp_path: Path) -> None:
    suite = Suite.load(PolicyBundle.load(large_bundle(tmp_path, 120 if LONG else 11)))
    outcomes = run_suite(suite)
    assert [outcome.problem for outcome in outcomes if not outcome.passed] == []
    assert percent(measure(suite.bundle.policies, outcomes)) == 100
    alive, _ = survivors(suite)
    assert [(m.policy.id, m.change) for m in alive] == [(m.policy.id, m.change) for m in one_by_one(suite)]
    assert ("p1", "any principal") in {(mutant.policy.id, mutant.change) for mutant in alive}
    assert ("p0", "any principal") not in {(mutant.policy.id, mutant.change) for mutant in alive}


def test_the_spread_of_chance_reaches_errors_approvals_and_both_answers(tmp_path: Path) -> None:
    """Guards the test above against becoming one that tries nothing."""
    seen = set()
    for seed in range(8):
        random = Random(seed)
        place = tmp_path / str(seed)
        bundle = PolicyBundle.load(
            write_bundle(place, policies(random), entities=agents("agent", "other"), metadata=METADATA)
        )
        engine = PolicyEngine(bundle)
        for number in range(15):
            case = passing_case(engine, random, number)
            seen.add("error" if case.error is not None else "allow" if case.allowed else "deny")
            seen.add("approved" if case.approvers else "")
    assert seen >= {"error", "allow", "deny", "approved"}
