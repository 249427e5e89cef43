"""Explanations of decisions, held against Cedar."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, write_bundle

from cedarbox.policy import PolicyEngine
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.arguments import build
from cedarbox.review.cases import Case, Suite
from cedarbox.review.explain import smaller as solving
from cedarbox.review.explain.backward import _BACK
from cedarbox.review.explain.decision import Explained, explain, report_of
from cedarbox.review.explain.flips import changed
from cedarbox.review.explain.records import Facts, of_record
from cedarbox.review.explain.requests import of_arguments, of_case
from cedarbox.review.prove import available
from cedarbox.review.subject import Subject

BUNDLES = sorted(path.parent.name for path in SHIPPED.glob("*/bundle.toml"))
EVERY = 1 if os.environ.get("CEDARBOX_LONG") else 200
CONNECT = 'principal, action == Sandbox::Action::"connect"'


def cases(name: str, every: int) -> Iterator[tuple[Subject, Suite, Case]]:
    subject = Subject.load(SHIPPED / name)
    assert subject.bundle is not None
    suite = Suite.load(subject.bundle)
    for case in suite.cases[::every]:
        yield subject, suite, case


def told_of(tmp_path: Path, policies: str, action: str, *given: str, solver: bool = False) -> Explained:
    subject = Subject.load(write_bundle(tmp_path / "bundle", policies))
    request = of_arguments(action, given, default_principal="agent")
    if not solver:
        assert request.made is not None
    return explain(subject, request)


@pytest.mark.parametrize("name", BUNDLES)
def test_each_change_that_is_told_turns_the_decision_around(name: str) -> None:
    turned = 0
    for subject, suite, case in cases(name, EVERY):
        request = of_case(suite.cases, f"{case.file.name}:{case.line}:{case.title}")
        assert case.request is None or request.made == case.request
        told = explain(subject, request, bundle=suite.bundle)
        engine = PolicyEngine(suite.bundle)
        for flip in () if told.found is None else told.found.flips:
            assert request.made is not None
            values = {**request.values, **{name: value for name, value in flip.change.items() if name != "principal"}}
            principal = str(flip.change.get("principal", request.principal))
            made = build(request.action, values)
            again = engine.decide(principal, made)
            assert (again.allowed, again.errors) == (not told.decision.allowed, ()), (case, flip.change)
            assert changed(request.principal, request.made, principal, made) == flip.seen
            turned += 1
    assert turned


@pytest.mark.parametrize("name", BUNDLES)
def test_a_policy_applies_when_all_its_parts_hold_and_cedar_says_so(name: str) -> None:
    for subject, suite, case in cases(name, max(1, EVERY // 3)):
        told = explain(subject, of_case(suite.cases, f"{case.file.name}:{case.line}"), bundle=suite.bundle, flips=False)
        for each in told.parts:
            assert each.applies is all(part.status == "held" for part in each.parts), (case, each.policy.id)
        applying = {each.policy.id for each in told.parts if each.applies}
        assert set(told.decision.policies) <= applying or not told.parts


@pytest.mark.parametrize("name", BUNDLES)
def test_each_request_of_the_tests_is_read_back_from_its_cedar_form(name: str) -> None:
    seen = set()
    for _, suite, case in cases(name, max(1, EVERY // 20)):
        if case.request is not None:
            request = of_case([case], f"{case.file.name}:{case.line}")
            assert build(case.action, request.values) == request.made == case.request or case.action == "exec"
            seen.add(case.action)
        assert suite.bundle is not None
    assert seen


def test_every_action_can_be_read_back() -> None:
    assert _BACK.keys() == ACTION_GROUPS.keys()


def test_a_port_that_is_wrong() -> None:
    subject = Subject.load(SHIPPED / "internal-mirror")
    given = ("principal=agent", "target=mirror.corp.example", "port=8443", "proto=tls", "ip=10.0.0.5")
    told = explain(subject, of_arguments("connect", given, default_principal=None))
    report = report_of(told)
    assert report.summary == "deny by no policy; permitted if port were 443 (it is 8443), by mirror-packages"
    (packages,) = (each for each in told.parts if each.policy.id == "mirror-packages")
    (failed,) = packages.failed
    assert (failed.text, failed.values, str(failed.words)) == (
        "context.port == 443",
        ("context.port is 8443",),
        "the port is 443",
    )
    line = (SHIPPED / "internal-mirror" / "network.cedar").read_text().split("\n")[failed.place.line - 1]
    assert line[(failed.place.column or 0) - 1 :].startswith("context.port == 443")


def test_conditions_behind_one_that_fails_are_not_reached(tmp_path: Path) -> None:
    policies = f'permit ({CONNECT}, resource) when {{ context has http && context.http.method == "GET" }};'
    told = told_of(tmp_path, policies, "connect", "target=a.example", "port=80", "proto=tls")
    assert [part.status for part in told.parts[0].parts] == ["failed", "unreached"]


def test_unless_holds_when_its_condition_does_not(tmp_path: Path) -> None:
    policies = f"permit ({CONNECT}, resource) unless {{ context.port == 25 || context.port == 587 }};"
    told = told_of(tmp_path, policies, "connect", "target=a.example", "port=587", "proto=tcp")
    assert [(part.kind, part.status) for part in told.parts[0].parts] == [("unless", "held"), ("unless", "failed")]
    assert told.found is not None
    assert told.found.flips[0].decision.allowed


def test_an_error_is_named_and_denies(tmp_path: Path) -> None:
    policies = f"""
        @id("yes") permit ({CONNECT}, resource);
        @id("sum") forbid ({CONNECT}, resource) when {{ context.port * 9223372036854775807 == 1 }};
    """
    told = told_of(tmp_path, policies, "connect", "target=a.example", "port=443", "proto=tls")
    (wrong,) = (each for each in told.parts if each.policy.id == "sum")
    assert not told.decision.allowed
    assert "overflow" in wrong.error
    assert [part.status for part in wrong.parts] == ["error"]
    assert told.found is not None
    assert {flip.change["port"] for flip in told.found.flips if "port" in flip.change} <= {1}


def test_a_request_without_a_canonical_form() -> None:
    subject = Subject.load(SHIPPED / "developer")
    given = ("principal=agent", "target=0xA9FEA9FE", "port=443", "proto=tls")
    told = explain(subject, of_arguments("connect", given, default_principal=None))
    assert (told.decision.allowed, told.parts, told.found) == (False, (), None)
    assert "numeric" in told.decision.errors[0]


def test_an_agent_that_is_not_declared(tmp_path: Path) -> None:
    told = told_of(
        tmp_path, f"permit ({CONNECT}, resource);", "connect", "principal=b", "target=a.example", "port=1", "proto=tcp"
    )
    assert told.found is not None
    assert [flip.change for flip in told.found.flips] == [{"principal": "agent"}]


TWO = """
    @id("high") permit (principal, action == Sandbox::Action::"fork", resource)
        when { context.copies >= 5 && context.copies * 7 == 777 };
"""


def test_a_change_that_only_a_solver_finds(tmp_path: Path) -> None:
    if available():
        pytest.fail("the tests need a solver")
    told = told_of(tmp_path, TWO, "fork", "snapshot_id=a", "copies=3")
    assert told.found is not None
    assert [flip.change for flip in told.found.flips] == [{"copies": 111}]


def test_without_a_solver_nothing_more_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solving, "available", lambda: "pip install 'cedarbox[prove]'")
    told = told_of(tmp_path, TWO, "fork", "snapshot_id=a", "copies=3")
    assert told.found is not None
    assert (told.found.flips, told.found.none_is_proved) == ((), False)
    assert "not exhaustive" in told.least


def test_that_nothing_turns_it_is_proved(tmp_path: Path) -> None:
    policies = '@id("all") permit (principal, action == Sandbox::Action::"fork", resource);'
    told = told_of(tmp_path, policies, "fork", "snapshot_id=a", "copies=3")
    assert told.found is not None
    assert (told.found.flips, told.found.none_is_proved) == ((), True)


def test_no_smaller_change_than_the_smallest(tmp_path: Path) -> None:
    # By hand: three things are wrong for the one permit.
    policies = f"""
        @id("a") permit ({CONNECT}, resource == Sandbox::Host::"a.example")
            when {{ context.port == 443 && context.ipClass == Sandbox::IpClass::"private" }};
    """
    told = told_of(tmp_path, policies, "connect", "target=b.example", "port=80", "proto=tcp", "ip=1.1.1.1")
    assert told.found is not None
    assert (told.found.size, told.found.least_is_proved) == (3, True)
    assert told.found.flips[0].seen == {"resource", "context.port", "context.ip"}


@pytest.mark.parametrize("name", BUNDLES)
def test_what_a_record_holds_makes_the_request_again(name: str) -> None:
    checked = 0
    for _, _, case in cases(name, max(1, EVERY // 10)):
        made = case.request
        if made is None:
            continue
        request = of_case([case], f"{case.file.name}:{case.line}")
        base = made.context["base"]
        facts = Facts(
            7, made.name, str(made.resource), made.summary, base["at"]["__extn"]["arg"], "agent", base.get("tool")
        )
        # What a record lacks is given from the case; what it holds must agree with it.
        known = of_case([case], f"{case.file.name}:{case.line}").values
        given = [f"{key}={_text(value)}" for key, value in known.items() if key not in {"at", "tool", "agent"}]
        given = [item for item in given if not item.startswith("command=")] + (
            [f"command={made.context['commandLine']}", "shell=true"] if made.name in {"exec", "openTerminal"} else []
        )
        if made.name in {"exec", "openTerminal"} and not made.context["shell"]:
            continue
        given = list(dict.fromkeys(given))
        again = of_record(facts, given)
        assert again.made is not None
        assert (
            (again.made.resource, dict(again.made.context)) == (request.made.resource, dict(made.context))
            if request.made
            else False
        )
        checked += 1
    assert checked


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    return (
        {True: "true", False: "false", None: "null"}[value] if value is None or isinstance(value, bool) else str(value)
    )
