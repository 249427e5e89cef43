"""Who the principals of a bundle are: the entities that it declares, and which agents look the same to the policies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cedarbox.review.declared import AGENT, Declared, Named, Uid, uid_of
from cedarbox.review.prove.goals import Goal, Holds, PrincipalIs, Side, parts
from cedarbox.review.prove.patterns import UnsupportedError, checked
from cedarbox.review.prove.payloads import Listed, Member
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import STRING, EntityOf, SetOf, Type
from cedarbox.review.prove.values import Values

__all__ = ["Principals", "classes_of", "named_in"]


class Principals(Declared):
    """The entities that a bundle declares, as terms: all that there is of the types of principals."""

    def attribute(self, values: Values, entity_type: str, entity: str, name: str) -> Member | None:
        """Return an attribute; None when there is none."""
        held = (self.entities.get((entity_type, entity), {}).get("attrs") or {}).get(name)
        given = values.types.entities[entity_type].attributes.get(name)
        if held is None or given is None:
            return None
        return Member(given.type, _payload(values, given.type, held), values.terms.true)

    def tag(self, values: Values, entity_type: str, entity: str, key: Term) -> Member | None:
        """Return a tag; None when there is none."""
        terms = values.terms
        kind = values.types.entities[entity_type].tags
        tags = self.entities.get((entity_type, entity), {}).get("tags") or {}
        if kind is None or not tags:
            return None
        found = [(terms.eq(key, terms.string(checked(name))), _payload(values, kind, tags[name])) for name in tags]
        payload = found[-1][1]
        for is_it, each in found[:-1]:
            payload = values.choose(is_it, kind, each, payload)
        return Member(kind, payload, terms.or_(*(is_it for is_it, _ in found)))

    def within(self, values: Values, uid: Uid, above: str, y: Term) -> Term:
        """Return whether an entity is another one, or in it."""
        terms = values.terms
        reached = [name for kind, name in (uid, *self.above(uid)) if kind == above]
        if y.constant:
            return terms.truth(y.value in reached)
        return terms.or_(*(terms.eq(y, terms.string(checked(name))) for name in reached))


def _payload(values: Values, kind: Type, given: Any) -> Any:
    """Return a value of Cedar's JSON form as a value of terms."""
    terms = values.terms
    if isinstance(kind, EntityOf):
        return terms.string(checked(uid_of(given)[1]))
    if isinstance(kind, SetOf) and kind.element is not None:
        element = kind.element
        return Listed(tuple((element, _payload(values, element, each)) for each in given))
    if kind == STRING and isinstance(given, str):
        return terms.string(checked(given))
    raise UnsupportedError("an attribute of a principal that is neither text nor an entity")


def named_in(sides: Iterable[Side], goal: Goal) -> Named:
    """Return what policies and a goal look at."""
    asked = list(parts(goal))
    expressions = [part.expression for part in asked if isinstance(part, Holds)]
    found = Named.by([*expressions, *(est for side in sides for est in side.slot_policies.values())])
    found.entities |= {(AGENT, part.id) for part in asked if isinstance(part, PrincipalIs)}
    return found


def classes_of(declared: Sequence[Declared], named: Named) -> tuple[str, ...]:
    """Return one agent of each class of those that look the same on every side.

    Args:
        declared: The principals of each side.
        named: What the policies look at.
    """
    found: dict[tuple[str, ...], str] = {}
    for agent in dict.fromkeys(agent for each in declared for agent in each.agents):
        found.setdefault(tuple(each.seen(agent, named) for each in declared), agent)
    return tuple(found.values())
