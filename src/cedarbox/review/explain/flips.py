"""The smallest change of a request that turns its decision around.

A change counts by what policies see: the agent, the resource, each attribute of the context. Every candidate is made by
the typed builders and decided by Cedar, so nothing is told that cannot be asked or that would not be so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.review.arguments import Value, arguments_of, build
from cedarbox.review.explain.backward import plain
from cedarbox.review.explain.candidates import Change, dials, literals_of

__all__ = ["Flip", "Search", "changed", "search"]

_MOST: Final = 4
"""Arguments that are changed together."""
_BUDGET: Final = 3_000
"""Requests that are decided at most with the constants of all policies: half a second on an idle machine."""
_NEAR: Final = 1_000
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
    """

    flips: tuple[Flip, ...]
    tried: int
    whole: bool

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
    base, other_base = mine["base"], theirs["base"]
    seen |= {f"context.base.{name}" for name in {*base, *other_base} if base.get(name) != other_base.get(name)}
    return frozenset(seen)


def search(engine: PolicyEngine, principal: str, action: str, values: Mapping[str, Value], *, allowed: bool) -> Search:
    """Look for the smallest changes of a request that turn its decision around.

    Args:
        engine: Decides.
        principal: The agent that asks.
        action: The action.
        values: The arguments of the request, which has a canonical form.
        allowed: The decision as it is.
    """
    bundle = engine.bundle
    policies = [policy for policy in bundle.policies if action in policy.actions]
    hunt = _Hunt(engine, principal, action, values, allowed=allowed)
    if not allowed:
        # With the constants of one permit alone, few candidates are left and all of them are likely.
        for policy in (policy for policy in policies if policy.effect == "permit"):
            near = dials(action, values, principal, bundle.principals, literals_of([policy.est]), near=True)
            hunt.through(near, _NEAR)
    every = dials(action, values, principal, bundle.principals, literals_of(policy.est for policy in policies))
    whole = hunt.through(every, _BUDGET)
    return Search(_chosen(hunt.flips, every), len(hunt.tried), whole)


class _Hunt:
    """Collects the smallest flips."""

    def __init__(
        self, engine: PolicyEngine, principal: str, action: str, values: Mapping[str, Value], *, allowed: bool
    ) -> None:
        self._engine, self._principal, self._action, self._values = engine, principal, action, values
        self._allowed, self._made = allowed, build(action, values)
        self.flips: list[Flip] = []
        self.tried: set[Any] = set()

    def through(self, turned: Mapping[str, Sequence[Change]], budget: int) -> bool:
        """Try the changes of some dials, the smallest first; return whether none was left out for the budget."""
        spent = 0
        for together in range(1, _MOST + 1):
            smallest = len(self.flips[0].seen) if self.flips else _MOST + 1
            # What is seen of one dial can be more than one thing, and then fewer dials may do as well.
            if together > smallest:
                break
            for change in _together(turned, together):
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


def _together(turned: Mapping[str, Sequence[Change]], count: int) -> Iterator[Change]:
    sets = sorted(combinations(turned, count), key=lambda names: _size(turned, names))
    for names in sets:
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
    new = {**values, **change}
    asking = str(new.pop("principal", principal))
    known = arguments_of(action)
    # A value of the policies may be of no use as this argument, a host for a number for example.
    if any(
        known[name].members and value is not None and value not in known[name].members for name, value in new.items()
    ):
        return None
    try:
        made = build(action, new)
    except (CanonicalizationError, ValueError, OverflowError):
        return None
    if action == "connect" and not 1 <= int(str(new["port"])) <= 65535:
        return None
    return Flip(asking, new, made, change, frozenset(), engine.decide(asking, made))


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
