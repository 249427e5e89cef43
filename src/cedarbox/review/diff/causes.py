"""What could be behind a widening: every part of a change that can let a request through by itself.

A request that goes through now and did not before is matched by a permit that is new, or it was not permitted by one
that is as before, because a forbid that is gone matched it, because a policy that is gone could not be evaluated, or
because its agent is seen otherwise. So the parts below leave nothing out, and each is searched by itself: a widening
cannot hide behind another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cedarbox.review.diff.compared import Compared
from cedarbox.review.diff.effects import Effect
from cedarbox.review.diff.texts import TextChange
from cedarbox.review.finding import Place
from cedarbox.review.prove import And, Environment, Fails, Goal, Matches, Not, Or, PrincipalIs

__all__ = ["AGENTS", "Cause", "causes"]

AGENTS = "entities.json"
"""Stands in place of a policy for what a change of the agents does."""


@dataclass(frozen=True)
class Cause:
    """One part of a change.

    Attributes:
        policy: Id of the policy, in the new version, or in the old when it is gone; :data:`AGENTS`.
        digest: Digest of its effect; of nothing for the agents, whose states are in the digests of the whole.
        told: What was done, in words, such as ``permit added``.
        goal: The request is one that it is about.
        text: What changed in its text; None for the agents.
        place: Where it stands in the new version; None where it does not.
    """

    policy: str
    digest: str
    told: str
    goal: Goal
    text: TextChange | None = None
    place: Place | None = None


def causes(compared: Compared, environment: Environment) -> tuple[Cause, ...]:
    """Return the parts of a change that could widen a kind of request.

    Args:
        compared: The change.
        environment: The kind of request.
    """
    before = compared.before(environment)
    old, new = before.on(environment.action), compared.new.on(environment.action)
    by_new = {change.new.id: change for change in compared.texts if change.new is not None}
    by_old = {change.old.id: change for change in compared.texts if change.old is not None}
    found: dict[str, Cause] = {}

    def add(name: str, cause: Cause) -> None:
        known = found.get(name)
        if known is not None:
            goal, text = Or(known.goal, cause.goal), known.text or cause.text
            cause = Cause(known.policy, known.digest, known.told, goal, text, known.place or cause.place)
        found[name] = cause

    for name, effect in _without(new, old):
        if effect.policy.effect == "permit":
            matched = Or(*(Matches("new", each) for each in compared.new.instances(name)))
            text = by_new.get(name)
            what = "changed" if text is not None and text.old is not None else "added"
            # Without a change of its text, the schema has requests for it that it had not.
            told = f"permit {what}" if text is not None else "permit as before, of requests that are new in the schema"
            add(name, Cause(name, effect.digest, told, matched, text, effect.policy.place))
    for name, effect in _without(old, new):
        text = by_old.get(name)
        after = text.new if text is not None else None
        told = f"{effect.policy.effect} {'changed' if after is not None else 'removed'}"
        goals: list[Goal] = []
        for each in before.instances(name):
            if effect.policy.effect == "forbid" or effect.approving is not None:
                goals.append(Matches("old", each))
            goals.append(Fails("old", each))
        digest = compared.new.policies[after.id].digest if after is not None else effect.digest
        known = after.id if after is not None else name
        add(known, Cause(known, digest, told, Or(*goals), text))
    if compared.changed_agents:
        chosen = [PrincipalIs(name) for each in compared.changed_agents for name in each.ids[:1]]
        # What a policy does for these agents is that policy's; only the rest is for them alone.
        rest = Not(Or(*(each.goal for each in found.values())))
        add(AGENTS, Cause(AGENTS, "", "the agents changed", And(Or(*chosen), rest)))
    return tuple(found.values())


def _without(these: Mapping[str, Effect], those: Mapping[str, Effect]) -> Iterator[tuple[str, Effect]]:
    """Yield the policies of the one side that the other does not have, whatever their ids."""
    left = Counter(effect.digest for effect in those.values())
    # One that has kept its id too is matched first: of two alike, that is the one that stayed.
    kept = {name for name, effect in these.items() if name in those and those[name].digest == effect.digest}
    for name in kept:
        left[these[name].digest] -= 1
    for name, effect in these.items():
        if name in kept:
            continue
        if left[effect.digest] > 0:
            left[effect.digest] -= 1
        else:
            yield name, effect
