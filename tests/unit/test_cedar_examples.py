"""Policies of other projects than cedarbox go through the review: they are checked, formatted, compared and proved.

Set CEDARBOX_CEDAR_EXAMPLES to a directory with more of them, and all that is below it goes through as well.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cedar_sets import ELSEWHERE, OWN, CedarSet, sets_below
from typer.testing import CliRunner, Result

from cedarbox.cli import app
from cedarbox.errors import BundleError, CedarboxError
from cedarbox.review.prove import Allows, And, Fails, Not, Prover, Query, Side, environments
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json

_LONG = os.environ.get("CEDARBOX_LONG") == "1"
_OWN = list(sets_below(OWN))
_NAMES = [each.policies.parent.name for each in _OWN]


def _cli(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["policy", *map(str, arguments)])
    # Whatever is wrong with the policies is told; nothing else comes out of a command.
    if result.exception is not None and not isinstance(result.exception, SystemExit | CedarboxError):
        raise result.exception
    return result


def _changed(est: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a policy with each of its conditions turned around, and with each left out."""
    conditions = est.get("conditions", [])
    for number, condition in enumerate(conditions):
        turned = {**condition, "kind": "unless" if condition["kind"] == "when" else "when"}
        yield {**est, "conditions": [*conditions[:number], turned, *conditions[number + 1 :]]}
        yield {**est, "conditions": [*conditions[:number], *conditions[number + 1 :]]}


def _queries(subject: Subject, every: int) -> Iterator[Query]:
    """Yield what is asked of a set: whether anything is allowed, what fails, and what each change of it does."""
    whole = Side({policy.id: policy.est for policy in subject.policies}, subject.entities, subject.links)
    changes = []
    for name, est in whole.policies.items():
        changes.append(
            Side(
                {key: each for key, each in whole.policies.items() if key != name},
                whole.entities,
                tuple(link for link in whole.links if link["templateId"] != name),
                deny_on_error=False,
            )
        )
        changes += [
            Side({**whole.policies, name: changed}, whole.entities, whole.links, deny_on_error=False)
            for changed in _changed(est)
        ]
    deciding = [policy.id for policy in subject.policies if not policy.template]
    deciding += [str(link["newId"]) for link in subject.links]
    number = 0
    for environment in environments(schema_json(subject.schema)):
        sides = {"old": whole, "new": whole}
        yield Query(Allows("old"), environment, sides, "allowed")
        yield Query(And(Allows("new"), Not(Allows("old"))), environment, {**sides}, "the same")
        yield from (Query(Fails("old", name), environment, sides, "fails") for name in deciding[:: every // 2 or 1])
        for side in changes:
            number += 1
            if number % every == 0:
                sides = {"old": whole, "new": side}
                yield Query(And(Allows("new"), Not(Allows("old"))), environment, sides, "wider")
                yield Query(And(Allows("old"), Not(Allows("new"))), environment, sides, "narrower")


def _answers(subject: Subject, every: int) -> Counter[tuple[str, str]]:
    """Ask all of it; every answer that finds a request was replayed through Cedar by the prover."""
    counted: Counter[tuple[str, str]] = Counter()
    with Prover(subject.schema, time_limit_s=5) as prover:
        queries = list(_queries(subject, every))
        for query, answer in zip(queries, prover.search_all(queries), strict=True):
            counted[query.label, answer.verdict] += 1
            assert (answer.witness is not None) is (answer.verdict == "found")
            # What is not decided says why.
            assert answer.verdict != "undecided" or answer.why
    assert counted["the same", "found"] == 0
    return counted


def test_what_is_written_here_has_what_cedar_has() -> None:
    text = "".join(path.read_text() for each in _OWN for path in (each.policies, each.schema))
    assert len(_OWN) >= 6
    assert sum(each.links is not None for each in _OWN) >= 3
    for construct in (
        "?principal", "?resource", "tags ", "hasTag", "getTag", "datetime(", "duration(", "toTime()", "durationSince",
        "decimal(", "ip(", "isInRange", "containsAll", "containsAny", "isEmpty", "like", "enum [", "if ", " is ",
        "namespace", "* ", "offset(", "toDate()", 'principal["',
    ):  # fmt: skip
        assert construct in text, construct


@pytest.mark.parametrize("chosen", _OWN, ids=_NAMES)
def test_sets_of_plain_cedar_are_checked_and_formatted(chosen: CedarSet, tmp_path: Path) -> None:
    assert _cli("check", chosen.policies, *chosen.options).exit_code == 0
    copy = tmp_path / "policies.cedar"
    shutil.copy(chosen.policies, copy)
    assert _cli("fmt", copy).exit_code == 0
    assert _cli("fmt", "--check", copy).exit_code == 0
    # What was formatted means the same; the links of templates are not part of a file.
    for name in ("entities.json", "policies.cedarschema"):
        shutil.copy(chosen.policies.parent / name, tmp_path / name)
    same = _cli("diff", chosen.policies.parent, tmp_path, "--schema", chosen.schema)
    assert same.exit_code == (3 if chosen.links else 0), same.output
    assert "widened" not in same.output


@pytest.mark.parametrize("chosen", _OWN, ids=_NAMES)
def test_every_kind_of_request_of_plain_cedar_is_decided(chosen: CedarSet) -> None:
    counted = _answers(chosen.load(), 1 if _LONG else 24)
    print(f"\n{chosen.policies.parent.name}: {dict(counted)}")
    assert counted["allowed", "found"] > 0
    assert not [key for key in counted if key[1] == "undecided"], counted


@pytest.mark.skipif(not ELSEWHERE, reason="CEDARBOX_CEDAR_EXAMPLES names no directory")
@pytest.mark.timeout(3600)
def test_policies_of_others_go_through_the_review() -> None:
    counted: Counter[object] = Counter()
    for chosen in sets_below(Path(ELSEWHERE)):
        counted["check", _cli("check", chosen.policies, *chosen.options).exit_code] += 1
        counted["fmt", _cli("fmt", "--check", chosen.policies).exit_code] += 1
        try:
            subject = chosen.load()
        except BundleError:
            counted["not whole"] += 1
            continue
        counted["sets"] += 1
        counted["policies"] += sum(not policy.template for policy in subject.policies)
        counted["templates"] += sum(policy.template for policy in subject.policies)
        counted["links"] += len(subject.links)
        counted["kinds of request"] += len(environments(schema_json(subject.schema)))
        counted.update(_answers(subject, 1))
    print(f"\n{dict(counted)}")
    assert counted["sets"] > 0
