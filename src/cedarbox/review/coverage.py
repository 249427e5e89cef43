"""Which policies the test cases show at work, and which they show at rest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cedarbox.policy.bundle import Policy

__all__ = ["Answered", "PolicyCoverage", "measure", "percent"]


class Answered(Protocol):
    """What came of a case, of whatever format."""

    @property
    def case(self) -> Any:
        """The case; it has an ``action``."""

    @property
    def determined(self) -> frozenset[str] | None:
        """Ids of the policies that determined the answer; None when it says nothing about any policy."""

    @property
    def passed(self) -> bool:
        """All was as expected."""


@dataclass(frozen=True, slots=True)
class PolicyCoverage:
    """What the cases show of one policy.

    Attributes:
        policy: The policy.
        with_it: How many cases it is among the policies that determine the answer of.
        without_it: How many other cases with an action of those are decided without it.
    """

    policy: Policy
    with_it: int
    without_it: int

    @property
    def decides(self) -> bool:
        """In some case it is among the policies that determine the answer."""
        return self.with_it > 0

    @property
    def abstains(self) -> bool:
        """Some other case with the same action is decided without it."""
        return self.without_it > 0

    @property
    def always(self) -> bool:
        """It has neither a scope nor a condition but its actions, so no case can be decided without it."""
        est = self.policy.est
        return est["principal"]["op"] == est["resource"]["op"] == "All" and not est.get("conditions")

    @property
    def both_ways(self) -> bool:
        """The cases tell it from a policy that never decides, and from one that always does, unless it is one."""
        return self.decides and (self.abstains or self.always)


def measure(policies: Sequence[Policy], outcomes: Sequence[Answered]) -> tuple[PolicyCoverage, ...]:
    """Return the coverage of every policy. Only cases that passed count.

    Args:
        policies: The policies.
        outcomes: What came of the cases.
    """
    of_action: dict[str, int] = defaultdict(int)
    by_policy: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for outcome in outcomes:
        if not outcome.passed or outcome.determined is None:
            continue
        of_action[outcome.case.action] += 1
        for policy_id in outcome.determined:
            by_policy[policy_id][outcome.case.action] += 1
    found = []
    for policy in policies:
        counts = by_policy.get(policy.id, {})
        without = sum(of_action[action] - number for action, number in counts.items())
        found.append(PolicyCoverage(policy, sum(counts.values()), without))
    return tuple(found)


def percent(coverage: Sequence[PolicyCoverage]) -> float:
    """Return how many of the policies are covered both ways, in per cent; 100 when there is no policy."""
    if not coverage:
        return 100.0
    return 100.0 * sum(covered.both_ways for covered in coverage) / len(coverage)
