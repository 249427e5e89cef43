"""Who the principals of a bundle are: the entities that it declares, and which agents look the same to the policies."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.prove.goals import Goal, Holds, PrincipalIs, Side, parts
from cedarbox.review.prove.patterns import UnsupportedError, checked
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import STRING, EntityOf, SetOf, Type
from cedarbox.review.prove.values import Listed, Member, Values

__all__ = ["Declared", "Named", "classes_of", "named_in"]

_AGENT = f"{NAMESPACE}::Agent"

Uid = tuple[str, str]


def _uid(given: Mapping[str, Any]) -> Uid:
    inner = given.get("__entity", given)
    return str(inner["type"]), str(inner["id"])


class Declared:
    """The entities that a bundle declares: all that there is of the types of principals.

    Args:
        entities: In Cedar's JSON form.
    """

    def __init__(self, entities: Sequence[Mapping[str, Any]]) -> None:
        self._entities = {_uid(item["uid"]): item for item in entities}

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """The ids of the agents."""
        return tuple(name for kind, name in self._entities if kind == _AGENT)

    def above(self, uid: Uid) -> frozenset[Uid]:
        """Return all that an entity is in, without itself."""
        seen: set[Uid] = set()
        waiting = [uid]
        while waiting:
            for parent in self._entities.get(waiting.pop(), {}).get("parents") or ():
                if (above := _uid(parent)) not in seen:
                    seen.add(above)
                    waiting.append(above)
        return frozenset(seen)

    def seen(self, agent: str, named: Named) -> str:
        """Return what policies can see of an agent, as a text; the same for agents that look the same."""
        uid = (_AGENT, agent)
        known = self._entities.get(uid)
        if known is None:
            return "undeclared"
        attrs = {name: value for name, value in (known.get("attrs") or {}).items() if name in named.attributes}
        tags = (known.get("tags") or {}) if named.tags else {}
        groups = sorted(self.above(uid) & named.entities)
        return json.dumps([agent if uid in named.entities else None, attrs, tags, groups], sort_keys=True)

    def attribute(self, values: Values, entity_type: str, entity: str, name: str) -> Member | None:
        """Return an attribute; None when there is none."""
        held = (self._entities.get((entity_type, entity), {}).get("attrs") or {}).get(name)
        given = values.types.entities[entity_type].attributes.get(name)
        if held is None or given is None:
            return None
        return Member(given.type, _payload(values, given.type, held), values.terms.true)

    def tag(self, values: Values, entity_type: str, entity: str, key: Term) -> Member | None:
        """Return a tag; None when there is none."""
        terms = values.terms
        kind = values.types.entities[entity_type].tags
        tags = self._entities.get((entity_type, entity), {}).get("tags") or {}
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
        return terms.string(checked(_uid(given)[1]))
    if isinstance(kind, SetOf) and kind.element is not None:
        element = kind.element
        return Listed(tuple((element, _payload(values, element, each)) for each in given))
    if kind == STRING and isinstance(given, str):
        return terms.string(checked(given))
    raise UnsupportedError("an attribute of a principal that is neither text nor an entity")


@dataclass
class Named:
    """What policies look at.

    Attributes:
        entities: The entities that they name.
        attributes: The attributes that they read.
        tags: They read tags.
    """

    entities: set[Uid] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    tags: bool = False


def named_in(sides: Iterable[Side], goal: Goal) -> Named:
    """Return what policies and a goal look at."""
    found = Named()
    for side in sides:
        for est in side.slot_policies.values():
            _note(est, found)
    for part in parts(goal):
        if isinstance(part, Holds):
            _note(part.expression, found)
        elif isinstance(part, PrincipalIs):
            found.entities.add((_AGENT, part.id))
    return found


def _note(root: Any, found: Named) -> None:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += node
        elif isinstance(node, Mapping):
            # More is noted than is meant: a record with these names, too. Then more agents are told apart than need be.
            if isinstance(node.get("type"), str) and isinstance(node.get("id"), str):
                found.entities.add((node["type"], node["id"]))
            attr = node.get("attr")
            found.attributes.update([attr] if isinstance(attr, str) else attr if isinstance(attr, list) else [])
            found.tags = found.tags or "hasTag" in node or "getTag" in node
            waiting += node.values()


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
