"""The smallest change of a request that turns its decision around.

A change counts by what policies see: the agent, the resource, each attribute of the context. Every candidate is made by
the typed builders and decided by Cedar, so nothing is told that cannot be asked or that would not be so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.review.arguments import Value, arguments_of, build
from cedarbox.review.explain.backward import plain
from cedarbox.review.explain.candidates import Change, dials, literals_of
from cedarbox.review.explain.parts import PolicyParts

__all__ = ["Flip", "Search", "changed", "search"]

_MOST: Final = 4
"""Arguments that are changed together."""
_BUDGET: Final = 800
"""Requests that are decided at most with the constants of all policies: a sixth of a second on an idle machine."""
_NEAR: Final = 300
"""Those with the constants of one permit."""


@dataclass(frozen=True)
class Flip:
    """A change that turns the decision around.

    Attributes:
        principal: Id of the agent that would ask.
        values: All arguments of the changed request.
        made: The changed request.
        change: The new values of what is different, by argument; ``principal`` for the agent.
        seen: What policies see of the change, such as ``context.port``.
        decision: The answer then.
    """

    principal: str
    values: Mapping[str, Value]
    made: Action
    change: Change
    seen: frozenset[str]
    decision: Decision


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        flips: The smallest changes that were found, the likeliest first; empty when none was.
        tried: Requests that were decided.
        whole: Every candidate was tried that could have been smaller than, or as small as, what was found.
        least_is_proved: No smaller change exists: not among the candidates, and not among any others.
        none_is_proved: No request with this action can be decided otherwise.
    """

    flips: tuple[Flip, ...]
    tried: int
    whole: bool
    least_is_proved: bool = False
    none_is_proved: bool = False

    @property
    def size(self) -> int:
        """How much the smallest changes change; 0 when none was found."""
        return len(self.flips[0].seen) if self.flips else 0


def changed(principal: str, made: Action, other_principal: str, other: Action) -> frozenset[str]:
    """Return what policies see of the difference of two requests with one action.

    An address and its class are one thing.
    """
    seen = {"principal"} if principal != other_principal else set()
    if plain(made.resource.to_json()) != plain(other.resource.to_json()):
        seen.add("resource")
    mine, theirs = dict(plain(dict(made.context))), dict(plain(dict(other.context)))
    for name in {*mine, *theirs} - {"base"}:
        if mine.get(name) != theirs.get(name):
            seen.add("context.ip" if name == "ipClass" else f"context.{name}")
    # What the context refers to and the request brings along.
    if [plain(entity.to_json()) for entity in made.others] != [plain(entity.to_json()) for entity in other.others]:
        seen.add("context.host" if made.name == "useSecret" else "context.endpoint")
    base, other_base = mine["base"], theirs["base"]
    seen |= {f"context.base.{name}" for name in {*base, *other_base} if base.get(name) != other_base.get(name)}
    return frozenset(seen)


def search(
    engine: PolicyEngine,
    principal: str,
    action: str,
    values: Mapping[str, Value],
    *,
    allowed: bool,
    parts: Sequence[PolicyParts],
) -> Search:
    """Look for the smallest changes of a request that turn its decision around.

    Args:
        engine: Decides.
        principal: The agent that asks.
        action: The action.
        values: The arguments of the request, which has a canonical form.
        allowed: The decision as it is.
        parts: The parts of every policy of the action, evaluated for the request.
    """
    agents = engine.bundle.principals
    hunt = _Hunt(engine, principal, action, values, allowed=allowed)
    least = 1 if allowed else _least(parts)
    if least is None:
        return Search((), 0, whole=True, none_is_proved=True)
    permits = [told for told in parts if told.policy.effect == "permit"]
    for told in [] if allowed else sorted(permits, key=lambda told: len(_needed(told))):
        # Each of these must change for this permit to apply, and its own constants are the likely ones.
        near = dials(action, values, principal, agents, literals_of([told.policy.est]), near=True)
        hunt.through(_Sets.covering(near, _needed(told), hunt.seen_by(near)), near, _NEAR)
    every = dials(action, values, principal, agents, literals_of(told.policy.est for told in parts))
    whole = True
    if not hunt.flips or hunt.size > least or allowed:
        whole = hunt.through(_Sets.all_of(every), every, _BUDGET)
    return Search(_chosen(hunt.flips, every), len(hunt.tried), whole, least_is_proved=hunt.size == least)


def _needed(told: PolicyParts) -> frozenset[str]:
    """Return what must change for a policy to apply: what a part of it that failed depends on alone."""
    alone = (part.about for part in told.failed if part.status == "failed" and part.about is not None)
    return frozenset(name for about in alone if len(about) == 1 for name in about)


def _least(parts: Sequence[PolicyParts]) -> int | None:
    """Return how much must change at least for some permit to apply; None when none ever can.

    An allow needs a permit all of whose parts hold. A part that depends on one thing alone, and does not hold, can only
    hold when that thing changes.
    """
    permits = [told for told in parts if told.policy.effect == "permit"]
    # A part that depends on nothing of the request never holds for another.
    possible = [told for told in permits if not any(part.about == frozenset() for part in told.failed)]
    return min((max(1, len(_needed(told))) for told in possible), default=None)


class _Sets:
    """Which dials are turned together, the fewest candidates first."""

    @staticmethod
    def all_of(turned: Mapping[str, Sequence[Change]]) -> Iterator[tuple[str, ...]]:
        for together in range(1, _MOST + 1):
            yield from sorted(combinations(turned, together), key=lambda names: _size(turned, names))

    @staticmethod
    def covering(
        turned: Mapping[str, Sequence[Change]], needed: frozenset[str], seen_by: Mapping[str, frozenset[str]]
    ) -> Iterator[tuple[str, ...]]:
        choices = [[name for name in turned if key in seen_by[name]] for key in sorted(needed)]
        sets = {tuple(sorted(set(chosen))): None for chosen in product(*choices)} if all(choices) else {}
        plain_sets = sorted(sets, key=lambda names: _size(turned, names))
        yield from (names for names in plain_sets if names)
        for names in plain_sets:
            yield from (tuple(sorted((*names, name))) for name in turned if name not in names)


class _Hunt:
    """Collects the smallest flips."""

    def __init__(
        self, engine: PolicyEngine, principal: str, action: str, values: Mapping[str, Value], *, allowed: bool
    ) -> None:
        self._engine, self._principal, self._action, self._values = engine, principal, action, values
        self._allowed, self._made = allowed, build(action, values)
        self.flips: list[Flip] = []
        self.tried: set[Any] = set()

    @property
    def size(self) -> int:
        """How much the smallest flips change; 0 when there is none."""
        return len(self.flips[0].seen) if self.flips else 0

    def seen_by(self, turned: Mapping[str, Sequence[Change]]) -> Mapping[str, frozenset[str]]:
        """Return what policies can see of each dial."""
        found = {}
        for name, changes in turned.items():
            seen: frozenset[str] = frozenset()
            for change in changes:
                made = _made(self._principal, self._action, self._values, change)
                if made is not None:
                    seen |= changed(self._principal, self._made, made[0], made[2])
            found[name] = seen
        return found

    def through(self, sets: Iterable[tuple[str, ...]], turned: Mapping[str, Sequence[Change]], budget: int) -> bool:
        """Try the changes of sets of dials; return whether none was left out for the budget."""
        spent = 0
        for names in sets:
            # What is seen of one dial can be more than one thing, and then fewer things may do as well.
            if self.flips and len(names) > self.size:
                continue
            for change in _together(turned, names):
                key = tuple(sorted(change.items(), key=lambda item: item[0]))
                if key in self.tried:
                    continue
                if spent >= budget:
                    return False
                self.tried.add(key)
                spent += 1
                self._keep(change)
        return True

    def _keep(self, change: Change) -> None:
        flip = _flip(self._engine, self._principal, self._action, self._values, change)
        if flip is None or flip.decision.allowed is self._allowed or _failed(flip.decision):
            return
        seen = changed(self._principal, self._made, flip.principal, flip.made)
        if not seen or (self.flips and len(seen) > len(self.flips[0].seen)):
            return
        if self.flips and len(seen) < len(self.flips[0].seen):
            self.flips.clear()
        self.flips.append(replace(flip, seen=seen))


def _failed(decision: Decision) -> bool:
    """Whether nothing was decided: to make a request fail is no way to have it denied."""
    return bool(decision.errors)


def _together(turned: Mapping[str, Sequence[Change]], names: Sequence[str]) -> Iterator[Change]:
    for chosen in product(*(turned[name] for name in names)):
        merged: dict[str, Value] = {}
        for change in chosen:
            if any(merged.get(name, value) != value for name, value in change.items()):
                break
            merged |= change
        else:
            yield merged


def _size(turned: Mapping[str, Sequence[Change]], names: Sequence[str]) -> int:
    size = 1
    for name in names:
        size *= len(turned[name])
    return size


def _flip(
    engine: PolicyEngine, principal: str, action: str, values: Mapping[str, Value], change: Change
) -> Flip | None:
    made = _made(principal, action, values, change)
    if made is None:
        return None
    asking, new, request = made
    return Flip(asking, new, request, change, frozenset(), engine.decide(asking, request))


def _made(
    principal: str, action: str, values: Mapping[str, Value], change: Change
) -> tuple[str, Mapping[str, Value], Action] | None:
    """Return the changed request; None when there is no such request."""
    new = {**values, **change}
    asking = str(new.pop("principal", principal))
    known = arguments_of(action)
    # A constant of the policies may be of no use as this argument, a text for a member of a closed set for example.
    if any(known[name].members and value not in {None, *known[name].members} for name, value in new.items()):
        return None
    if action in {"connect", "useSecret", "exposePort"} and not 1 <= int(str(new["port"])) <= 65535:
        return None
    try:
        return asking, new, build(action, new)
    except (CanonicalizationError, ValueError, OverflowError):
        return None


def _chosen(flips: Sequence[Flip], turned: Mapping[str, Sequence[Change]]) -> tuple[Flip, ...]:
    """Return one change for each set of what is seen of it: the one with the fewest arguments, the likeliest first."""
    order = {name: number for number, name in enumerate(turned)}
    by_seen: dict[frozenset[str], Flip] = {}
    for flip in sorted(flips, key=lambda flip: len(flip.change)):
        by_seen.setdefault(flip.seen, flip)
    late = {"principal", "at", "backend", "agent", "tool"}
    return tuple(
        sorted(
            by_seen.values(),
            key=lambda flip: (
                any(name in late for name in flip.change),
                len(flip.change),
                min(order.get(name, 0) for name in flip.change),
            ),
        )
    )
