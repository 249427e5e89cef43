"""The encoder, the facts and the solvers held against Cedar by chance; ``CEDARBOX_LONG=1`` for the full size."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from tests.unit.bundles import SHIPPED

import cedarbox.review.prove.prepared as preparing
from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.addresses import ip_class
from cedarbox.policy.canonical import canonical_host, canonical_path
from cedarbox.policy.schema import schema_text
from cedarbox.policy.wire import http_request
from cedarbox.review.prove import environments
from cedarbox.review.prove.canonical import ABSENT, HOST, HTTP_PATH, PATH, class_of
from cedarbox.review.prove.evaluate import evaluate
from cedarbox.review.prove.facts import say_facts
from cedarbox.review.prove.fuzz import main
from cedarbox.review.prove.fuzzing.bundle_pairs import run_bundle_pairs
from cedarbox.review.prove.fuzzing.pairs import run_pairs
from cedarbox.review.prove.fuzzing.random_actions import RandomActions, noted
from cedarbox.review.prove.fuzzing.runs import absent, run_bundle, run_free
from cedarbox.review.prove.fuzzing.schemas import NASTY
from cedarbox.review.prove.fuzzing.tables import Table
from cedarbox.review.prove.patterns import Pattern
from cedarbox.review.prove.payloads import IpParts
from cedarbox.review.prove.terms import Terms, reachable
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values
from cedarbox.review.syntax import schema_json

LONG: Final = os.environ.get("CEDARBOX_LONG") == "1"

# The full sizes take minutes.
pytestmark = [pytest.mark.timeout(1800), pytest.mark.long] if LONG else []


def _cases(few: int, many: int) -> int:
    return many if LONG else few


def test_the_encoder_agrees_with_cedar_under_a_schema_of_every_kind() -> None:
    tally = run_free(NASTY, schema_json(NASTY), _cases(4_000, 100_000), seed=7, each=20)
    assert tally.unlike == []
    # It is no use to agree on nothing: each kind of outcome comes up.
    assert min(tally.allowed, tally.errors, tally.satisfied, tally.failed) > tally.cases / 20
    assert tally.skipped < tally.cases / 10


def test_the_encoder_agrees_with_cedar_on_requests_of_cedarbox_and_every_fact_holds() -> None:
    tally = run_bundle(schema_text(), schema_json(schema_text()), _cases(6_000, 50_000), seed=7, each=20)
    assert tally.unlike == []
    assert min(tally.allowed, tally.errors, tally.satisfied, tally.failed) > tally.cases / 20


def test_the_solvers_agree_and_no_request_contradicts_a_none() -> None:
    tally = run_pairs(NASTY, schema_json(NASTY), _cases(6, 400), seed=3, tries=_cases(20, 400))
    assert tally.wrong == []
    assert tally.verdicts["cvc5 found"] > 0


def test_changes_of_bundles_are_answered_alike_without_simplification_and_by_requests() -> None:
    bundles = sorted(SHIPPED.iterdir())
    tally = run_bundle_pairs(bundles, _cases(10, 400), seed=2, solvers=("cvc5", "z3"), whole=0.5 if LONG else 0.3)
    assert tally.wrong == []
    # Both answers came up, solvers were asked the whole, and requests that are allowed were held against a none.
    assert tally.verdicts["found by solver"] > 0
    assert tally.both > 0
    assert tally.tried > tally.allowed > 0


@pytest.mark.parametrize("name", sorted(ACTION_GROUPS))
def test_each_fact_is_true_of_what_the_builders_make(name: str) -> None:
    """All the facts of an action, not only those that some policy would use."""
    schema = schema_json(schema_text())
    types, chance = SchemaTypes(schema), random.Random(name)
    builder = RandomActions(types, chance)
    made = 0
    for environment in environments(schema):
        if environment.action_id != name:
            continue
        values = Values(Terms(), types)
        say_facts(values, environment)
        values.unknown(types.context((environment.action_type, name)), "context")
        for _ in range(_cases(20, 1_000)):
            action = builder.action(name)
            if action is None or action.resource.uid["type"] != environment.resource_type:
                continue
            made += 1
            brought = (action.resource, *action.others)
            request: dict[str, Any] = {
                "principal": {"type": "Sandbox::Agent", "id": "agent"},
                "action": {"type": environment.action_type, "id": name},
                "resource": action.resource.uid,
                "context": dict(action.context),
            }
            table = noted(Table(types, [each.to_json() for each in brought]).with_request(request), action)
            said = [relation() for relation in values.relations.values()]
            for function, guards in list(values.guards.items()):
                about = [
                    entity
                    for entity in brought
                    if function.startswith((f"{entity.uid['type']}!", f"{entity.uid['type']}^"))
                ]
                keys = [(values.terms.string(entity.id),) for entity in about] if about else [()]
                said += [guard(key) for guard in list(guards.values()) for key in keys if about or "::" not in function]
            known = evaluate(said, table)
            for fact in said:
                if not known[fact] and not any(absent(table, term, known) for term in reachable([fact])):
                    pytest.fail(f"{str(fact)[:600]} is not so of {request}")
    assert made > 3


def _hosts(text: str) -> list[str]:
    return [str(canonical_host(f"a{text}b.example"))]


def _paths(text: str) -> list[str]:
    return [canonical_path(path) for path in (f"/{text}", f"/a{text}b/c", f"/{text}/..")]


def _requested(text: str) -> list[str]:
    return [str((http_request("http", "GET", f"/a{text}b", None) or {})["path"])]


@pytest.mark.parametrize(
    ("language", "made", "least"), [(HOST, _hosts, 1_000), (PATH, _paths, 80), (HTTP_PATH, _requested, 70)]
)
def test_no_text_of_a_language_has_in_it_what_is_said_to_be_in_none(
    language: Pattern, made: Callable[[str], list[str]], least: int
) -> None:
    tried = [*map(chr, (*range(0x300), *range(0x2000, 0x2070), *range(0x300, 0x110000, 331)))]
    said = [
        text for text in (*tried, "//", "/./", "x/../", "/../x", "/a//b", ".", "/.a/", "..") if ABSENT[language](text)
    ]
    assert len(said) > least
    assert not {".", ".."} & {*said}
    for text in said:
        with suppress(CanonicalizationError):
            assert not any(text in each for each in made(text))


def test_the_class_of_an_address_is_that_of_the_policies() -> None:
    terms, builder = Terms(), RandomActions(SchemaTypes(schema_json(schema_text())), random.Random(1))
    for _ in range(_cases(300, 20_000)):
        ip = builder.ip()
        parts = IpParts(terms.truth(ip.version == 4), terms.bv(int(ip)), terms.bv(ip.max_prefixlen))
        assert class_of(terms, parts) is terms.string(ip_class(ip)), ip


def test_the_fuzzer_is_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cases", "40", "--pairs", "1", "--seed", "3"]) == 0
    told = capsys.readouterr().out
    assert "any schema: " in told
    assert "bundles: " in told
    assert " 0 disagreements" in told


def test_a_wrong_simplification_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken for false without a solver is contradicted by the solvers."""
    monkeypatch.setattr(preparing, "simplified", lambda terms, _: terms.false)
    tally = run_bundle_pairs(sorted(SHIPPED.iterdir()), 3, seed=2, solvers=("cvc5",), whole=1.0)
    assert any("without simplification found" in each for each in tally.wrong)


def test_a_wrong_encoder_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail: here `<` is taken for `<=`."""
    monkeypatch.setattr(Terms, "less", Terms.at_most)
    tally = run_free(NASTY, schema_json(NASTY), 1_200, seed=7, each=20)
    assert tally.unlike
