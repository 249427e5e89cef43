"""Finds the changes of policies that no test notices, without making an engine for each of them.

What a change of one policy does to a decision follows from what the other policies say, which is asked once, and from
what the changed policy says, which is asked for all changes at once (see :mod:`cedarbox.review.satisfied`). A change is
first tried on a few cases that its policy has a part in, where most are noticed; what is left is tried on every case.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from cedarbox.policy.bundle import Policy
from cedarbox.review.mutants import Mutant
from cedarbox.review.satisfied import Candidates, Query, Results

__all__ = ["Asked", "unnoticed"]

_FIRST: Final = 2
"""On how many of the cases that its policy has a part in a change is tried first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A case that policies can answer.

    Attributes:
        group: Which policies it is asked of: those that have it among their actions.
        query: Makes what Cedar is asked.
        passes: Whether the case passes when these policies are satisfied and these errors occur.
    """

    group: str
    query: Callable[[], Query]
    passes: Callable[[Sequence[Policy], Sequence[str]], bool]


def unnoticed(policies: Sequence[Policy], mutants: Sequence[Mutant], cases: Sequence[Asked]) -> list[Mutant]:
    """Return the mutants that every case passes with, in their order.

    Args:
        policies: The policies.
        mutants: Changes of them.
        cases: Cases that all pass with the policies as they are.
    """
    trial = _Trial(policies, mutants)
    by_group: dict[str, list[Asked]] = defaultdict(list)
    for case in cases:
        by_group[case.group].append(case)
    for group, asked in by_group.items():
        trial.run(group, asked)
    return [mutant for number, mutant in enumerate(mutants) if number in trial.alive]


class _Trial:
    def __init__(self, policies: Sequence[Policy], mutants: Sequence[Mutant]) -> None:
        self._policies, self._mutants = policies, mutants
        self.alive = set(range(len(mutants)))
        index = {id(policy): number for number, policy in enumerate(policies)}
        # Which policy each mutant is of, and the mutants of each policy.
        self._owner = [index[id(mutant.policy)] for mutant in mutants]
        self._own: dict[int, list[int]] = defaultdict(list)
        for number, owner in enumerate(self._owner):
            self._own[owner].append(number)

    def run(self, group: str, cases: Sequence[Asked]) -> None:
        """Try the mutants of one group of policies on its cases."""
        members = [number for number, policy in enumerate(self._policies) if group in policy.actions]
        candidates = Candidates((number, self._policies[number]) for number in members)
        # A request that does not fit the schema is decided by no policy, so no change of one is noticed by it.
        base: list[tuple[Asked, Results]] = []
        tried: dict[int, int] = defaultdict(int)
        for case in cases:
            query = case.query()
            if (found := candidates.results(query)) is not None:
                base.append((case, found))
                self._first(case, query, found, tried)
        own = {number for member in members for number in self._own[member]}
        own &= self.alive
        changed = self._candidates(own)
        for case, found in base:
            for number in self._try(case, case.query(), found, changed, own):
                changed.forget(number)

    def _first(self, case: Asked, query: Query, found: Results, tried: dict[int, int]) -> None:
        """Try each mutant on the first cases that its policy has a part in."""
        mutants: set[int] = set()
        for policy in (*found.satisfied, *found.failed):
            if tried[policy] < _FIRST:
                tried[policy] += 1
                mutants.update(self.alive.intersection(self._own[policy]))
        if mutants:
            self._try(case, query, found, self._candidates(mutants), mutants)

    def _candidates(self, mutants: Iterable[int]) -> Candidates:
        chosen = ((number, self._mutants[number].mutated) for number in mutants)
        return Candidates((number, mutated) for number, mutated in chosen if mutated is not None)

    def _try(self, case: Asked, query: Query, found: Results, changed: Candidates, mutants: Set[int]) -> set[int]:
        new = changed.results(query)
        if new is None:  # cannot be: the request fitted the schema before
            raise RuntimeError("a request stopped to fit the schema")
        # Only a mutant that this request tells from its policy can change the answer, or whose annotations differ.
        touched = {*found.satisfied, *found.failed}
        told_apart = {*new.satisfied, *new.failed}
        told_apart.update(number for policy in touched for number in self._own[policy])
        tried = told_apart & mutants & self.alive
        noticed = {number for number in tried if not self._passes(case, found, new, number)}
        self.alive -= noticed
        return noticed

    def _passes(self, case: Asked, found: Results, new: Results, number: int) -> bool:
        owner = self._owner[number]
        satisfied = [self._policies[each] for each in found.satisfied if each != owner]
        mutated = self._mutants[number].mutated
        if number in new.satisfied and mutated is not None:
            satisfied.append(mutated)
        failed: Mapping[int, str] = found.failed
        errors = [text for each, text in failed.items() if each != owner]
        if number in new.failed:
            errors.append(new.failed[number])
        return case.passes(satisfied, errors)
