"""Which policies the test cases of a bundle show at work, and which they show at rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cedarbox.policy.bundle import Policy, PolicyBundle
from cedarbox.review.run import Outcome

__all__ = ["PolicyCoverage", "measure", "percent"]


@dataclass(frozen=True, slots=True)
class PolicyCoverage:
    """What the cases show of one policy.

    Attributes:
        policy: The policy.
        decides: In some case it is among the policies that determine the answer.
        abstains: Some other case with the same action is decided without it.
    """

    policy: Policy
    decides: bool
    abstains: bool

    @property
    def always(self) -> bool:
        """It has neither a scope nor a condition but its actions, so no case can be decided without it."""
        est = self.policy.est
        return est["principal"]["op"] == est["resource"]["op"] == "All" and not est.get("conditions")

    @property
    def both_ways(self) -> bool:
        """The cases tell it from a policy that never decides, and from one that always does, unless it is one."""
        return self.decides and (self.abstains or self.always)


def measure(bundle: PolicyBundle, outcomes: Sequence[Outcome]) -> tuple[PolicyCoverage, ...]:
    """Return the coverage of every policy of a bundle. Only cases that passed count.

    Args:
        bundle: The bundle.
        outcomes: What came of its cases.
    """
    # A case that ended in an error says nothing about any policy.
    counted = [
        (outcome.case.action, frozenset(outcome.decision.policies))
        for outcome in outcomes
        if outcome.passed and outcome.decision is not None and not outcome.decision.errors
    ]
    found = []
    for policy in bundle.policies:
        with_it = {action for action, ids in counted if policy.id in ids}
        without = any(action in with_it and policy.id not in ids for action, ids in counted)
        found.append(PolicyCoverage(policy, bool(with_it), without))
    return tuple(found)


def percent(coverage: Sequence[PolicyCoverage]) -> float:
    """Return how many of the policies are covered both ways, in per cent; 100 when there is no policy."""
    if not coverage:
        return 100.0
    return 100.0 * sum(covered.both_ways for covered in coverage) / len(coverage)
