"""The entities that come with policies, and what the policies can see of the agents among them.

Three parts of a review ask which agents are alike. The linter and the prover ask what the policies at hand can see, as
told here. A comparison of two versions asks what any policy could see, see :mod:`cedarbox.review.diff.agents`: what it
finds for a class of agents is accepted for these agents, and must not depend on what the policies happen to look at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.reach import reached

__all__ = ["AGENT", "Declared", "Named", "Uid", "uid_of", "uid_text"]

AGENT: Final = f"{NAMESPACE}::Agent"
"""The type of the principals of a bundle."""

Uid = tuple[str, str]
"""An entity: its type and its id."""


def uid_of(given: Mapping[str, Any]) -> Uid:
    """Return an entity uid in Cedar's JSON form, with or without ``__entity``, as type and id."""
    inner = given.get("__entity", given)
    return str(inner["type"]), str(inner["id"])


def uid_text(kind: str, name: str) -> str:
    """Return an entity in the one spelling by which actions are told apart here, such as ``A::Action::"view"``.

    Args:
        kind: Its qualified type.
        name: Its id.
    """
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'{kind}::"{escaped}"'


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

    @classmethod
    def by(cls, nodes: Iterable[Mapping[str, Any]]) -> Named:
        """Return what policies and expressions in Cedar's JSON form look at."""
        found = cls()
        waiting: list[Any] = list(nodes)
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting += node
            elif isinstance(node, Mapping):
                # More is noted than is meant: a record with these names, too. Then more agents are told apart than
                # need be.
                if isinstance(node.get("type"), str) and isinstance(node.get("id"), str):
                    found.entities.add((node["type"], node["id"]))
                attr = node.get("attr")
                found.attributes.update([attr] if isinstance(attr, str) else attr if isinstance(attr, list) else [])
                found.tags = found.tags or "hasTag" in node or "getTag" in node
                waiting += node.values()
        return found


class Declared:
    """Entities.

    Attributes:
        entities: Each in Cedar's JSON form, by type and id.

    Args:
        entities: In Cedar's JSON form.
    """

    def __init__(self, entities: Sequence[Mapping[str, Any]]) -> None:
        self.entities: Mapping[Uid, Mapping[str, Any]] = {uid_of(item["uid"]): item for item in entities}

    @cached_property
    def agents(self) -> tuple[str, ...]:
        """The ids of the agents."""
        return tuple(name for kind, name in self.entities if kind == AGENT)

    def above(self, uid: Uid) -> frozenset[Uid]:
        """Return all that an entity is in, without itself."""
        return reached(uid, lambda each: map(uid_of, self.entities.get(each, {}).get("parents") or ()))

    def seen(self, agent: str, named: Named) -> str:
        """Return what policies can see of an agent, as a text; the same for agents that look the same."""
        uid = (AGENT, agent)
        known = self.entities.get(uid)
        if known is None:
            return "undeclared"
        attrs = {name: value for name, value in (known.get("attrs") or {}).items() if name in named.attributes}
        tags = (known.get("tags") or {}) if named.tags else {}
        groups = sorted(self.above(uid) & named.entities)
        return json.dumps([agent if uid in named.entities else None, attrs, tags, groups], sort_keys=True)
