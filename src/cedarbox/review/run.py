"""Runs test cases against real Cedar, and tells which mutants of a bundle no case notices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cedarbox.policy import Decision, PolicyEngine
from cedarbox.review.cases import Case, Suite
from cedarbox.review.mutants import Mutant, mutants_of

__all__ = ["Outcome", "run_suite", "survivors"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case.

    Attributes:
        case: The case.
        decision: The answer; None when the request has no canonical form, which is a denial too.
        problem: What was otherwise than expected; empty for a case that passed.
    """

    case: Case
    decision: Decision | None
    problem: str

    @property
    def passed(self) -> bool:
        """All was as expected."""
        return not self.problem


def run_suite(suite: Suite) -> tuple[Outcome, ...]:
    """Decide every case of a suite."""
    engine = PolicyEngine(suite.bundle)
    return tuple(_outcome(engine, case) for case in suite.cases)


def survivors(suite: Suite) -> tuple[tuple[Mutant, ...], int]:
    """Change the bundle step by step and keep the changes that every case passes with.

    Args:
        suite: A suite whose cases all pass.

    Returns:
        The changes that no case notices, and how many were made.
    """
    alive, total = [], 0
    for mutant in mutants_of(suite.bundle):
        total += 1
        engine = PolicyEngine(mutant.bundle)
        asked = (case for case in suite.cases if case.action in mutant.policy.actions)
        if all(_outcome(engine, case).passed for case in asked):
            alive.append(mutant)
    return tuple(alive), total


def _outcome(engine: PolicyEngine, case: Case) -> Outcome:
    if case.request is None:
        return Outcome(case, None, _unlike(case, allowed=False, by=(), errors=(case.refusal,)))
    decision = engine.decide(case.principal, case.request)
    problem = _unlike(case, allowed=decision.allowed, by=decision.policies, errors=decision.errors)
    return Outcome(case, decision, problem)


def _unlike(case: Case, *, allowed: bool, by: Sequence[str], errors: Sequence[str]) -> str:
    got = f"got {_told(allowed, by)}{''.join(f', with the error: {error}' for error in errors[:1])}"
    if case.error is not None:
        met = not allowed and any(case.error in error for error in errors)
        return "" if met else f"expected a deny with an error about {case.error!r}, {got}"
    met = allowed is case.allowed and frozenset(by) == case.by and not errors
    return "" if met else f"expected {_told(case.allowed, sorted(case.by))}, {got}"


def _told(allowed: bool, by: Sequence[str]) -> str:
    return f"{'allow' if allowed else 'deny'} by {' and '.join(by) or 'no policy'}"
