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
from cedarbox.review.prove.terms import Term, reachable

__all__ = ["Encoded", "Tally", "compare"]

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


@dataclass(frozen=True)
class Encoded:
    """Policies as formulas, for as many requests as wanted.

    Attributes:
        side: The policies. Their ids are ``p0``, ``p1`` and so on.
        terms: Whether each is satisfied, and whether it fails.
        left_out: The policies that are not looked at because something in them is not encoded.
        order: All terms, each after what it is made of.
    """

    side: Side
    terms: Mapping[str, tuple[Term, Term]]
    left_out: frozenset[str]
    order: tuple[Term, ...]

    @classmethod
    def of(cls, problem: Problem, side: Side) -> Encoded:
        """Encode them.

        Args:
            problem: What encodes policies, with the one side ``it``.
            side: That side.
        """
        terms = {
            name: (problem.term(Matches("it", name)), problem.term(Fails("it", name))) for name in side.slot_policies
        }
        free = problem.skipped()
        left_out = frozenset(
            name
            for name, both in terms.items()
            if free and any(term.op == "var" and term.value in free for term in reachable(both))
        )
        order = reachable([term for both in terms.values() for term in both], inside=False)
        return cls(side, terms, left_out, tuple(order))


def compare(
    tally: Tally, encoded: Encoded, model: Model, *, request: Mapping[str, Any], result: cedarpy.AuthzResult
) -> bool:
    """Hold what the formulas say of a request against what Cedar said of it.

    Args:
        tally: Where what comes of it is counted.
        encoded: The policies.
        model: What the formulas are to be about.
        request: The same in Cedar's JSON form.
        result: What Cedar said.

    Returns:
        Whether Cedar took the request.
    """
    if result.decision is cedarpy.Decision.NoDecision:
        tally.refused += 1
        return False
    tally.cases += 1
    failed = {f"p{found[1]}" for error in result.diagnostics.errors if (found := _FAILED.match(str(error)))}
    if len(failed) != len(result.diagnostics.errors):
        tally.unlike.append(f"an error of another kind: {result.diagnostics.errors}")
    reasons = set(result.diagnostics.reasons)
    allowed = result.decision is cedarpy.Decision.Allow
    tally.allowed += allowed
    tally.errors += bool(failed)
    tally.failed += len(failed)
    side, left_out = encoded.side, encoded.left_out
    tally.skipped += len(left_out)
    known = evaluate((), model, order=encoded.order)
    told = {name: (bool(known[holds]), bool(known[fails])) for name, (holds, fails) in encoded.terms.items()}
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
    return True


def _effect(side: Side, name: str) -> str:
    return str(side.slot_policies[name]["effect"])
