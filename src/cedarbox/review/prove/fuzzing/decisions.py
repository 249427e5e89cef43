"""What the formulas say of one request, held against what Cedar says of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import cedarpy

from cedarbox.review.prove.evaluate import Model, evaluate
from cedarbox.review.prove.goals import Fails, Matches, Side
from cedarbox.review.prove.problem import Problem
from cedarbox.review.prove.terms import reachable

__all__ = ["Tally", "compare"]

_FAILED: Final = re.compile(r"error while evaluating policy `p(\d+)`")


@dataclass
class Tally:
    """What came of comparisons.

    Attributes:
        cases: How many requests were decided by both.
        allowed: How many of them Cedar allowed.
        errors: In how many of them a policy could not be evaluated.
        satisfied: How many policies were satisfied.
        failed: How many policies could not be evaluated.
        skipped: How many policies were left out because something in them is not encoded.
        refused: How many requests Cedar did not take.
        unlike: The cases in which they differ, for the one who repairs it.
    """

    cases: int = 0
    allowed: int = 0
    errors: int = 0
    satisfied: int = 0
    failed: int = 0
    skipped: int = 0
    refused: int = 0
    unlike: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.cases} cases, {len(self.unlike)} disagreements; {self.allowed} allowed, {self.errors} with errors; "
            f"{self.satisfied} policies satisfied, {self.failed} failed, {self.skipped} not encoded; "
            f"{self.refused} requests refused"
        )


def compare(
    tally: Tally,
    problem: Problem,
    side: Side,
    model: Model,
    *,
    request: Mapping[str, Any],
    handles: tuple[cedarpy.PolicySet, cedarpy.Entities, cedarpy.Schema],
) -> None:
    """Decide a request twice.

    Args:
        tally: Where what comes of it is counted.
        problem: The encoded policies, of the one side ``side``. Their ids are ``p0``, ``p1`` and so on.
        side: The policies.
        model: What the formulas are to be about.
        request: The same in Cedar's JSON form.
        handles: The policies, the entities and the schema for Cedar.
    """
    result = cedarpy.is_authorized(dict(request), *handles)
    if result.decision is cedarpy.Decision.NoDecision:
        tally.refused += 1
        return
    tally.cases += 1
    failed = {f"p{found[1]}" for error in result.diagnostics.errors if (found := _FAILED.match(str(error)))}
    if len(failed) != len(result.diagnostics.errors):
        tally.unlike.append(f"an error of another kind: {result.diagnostics.errors}")
    reasons = set(result.diagnostics.reasons)
    allowed = result.decision is cedarpy.Decision.Allow
    tally.allowed += allowed
    tally.errors += bool(failed)
    tally.failed += len(failed)
    terms = {name: (problem.term(Matches("it", name)), problem.term(Fails("it", name))) for name in side.slot_policies}
    free = problem.skipped()
    left_out = {
        name
        for name, both in terms.items()
        if free and any(term.op == "var" and term.value in free for term in reachable(both))
    }
    tally.skipped += len(left_out)
    known = evaluate([term for both in terms.values() for term in both], model)
    told = {name: (bool(known[holds]), bool(known[fails])) for name, (holds, fails) in terms.items()}
    satisfied = {
        effect: {name for name, (holds, _) in told.items() if holds and _effect(side, name) == effect}
        for effect in ("permit", "forbid")
    }
    tally.satisfied += sum(map(len, satisfied.values()))
    wrong = []
    if {name for name, (_, fails) in told.items() if fails} - left_out != failed - left_out:
        wrong.append("errors")
    if not left_out:
        expected = bool(satisfied["permit"]) and not satisfied["forbid"]
        if expected != allowed:
            wrong.append("the decision")
        if (satisfied["permit"] if allowed else satisfied["forbid"]) != reasons:
            wrong.append("the determining policies")
    if wrong:
        story = {
            "unlike": wrong,
            "told": told,
            "cedar": [result.decision.value, sorted(reasons), list(result.diagnostics.errors)],
            "policies": dict(side.slot_policies),
            "request": request,
        }
        tally.unlike.append(json.dumps(story, ensure_ascii=False))


def _effect(side: Side, name: str) -> str:
    return str(side.slot_policies[name]["effect"])
