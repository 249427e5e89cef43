"""What parts of a ``connect`` policy are, for one principal: a value, or something that the connection decides."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.reach import reached
from cedarbox.policy.request import ACTION_GROUPS

__all__ = ["Asked", "Known", "Network", "Uid", "Values", "uid_of"]


@dataclass(frozen=True, slots=True)
class Uid:
    """A Cedar entity: its type without the namespace, and its id."""

    type: str
    id: str


# Members of the context by the dimension that they are; what is not here becomes a condition.
_CONTEXT: Final = {"port": "port", "proto": "proto", "hello": "hello", "ipClass": "class", "ip": "ip"}
_CONNECT: Final = Uid("Action", "connect")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the connection decides: its port, protocol, class, address, target, or the context itself."""

    name: str


@dataclass(frozen=True, slots=True)
class Network:
    """An address as Cedar writes one, maybe with the length of its prefix."""

    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class Known:
    """A value: a :class:`Uid`, a :class:`Network`, a set of :class:`Known`, or plain."""

    value: Any


class Values:
    """Tells what expressions are.

    Attributes:
        principal: The agent.

    Args:
        principal: Id of the agent.
        entities: What ``entities.json`` declares.
    """

    def __init__(self, principal: str, entities: Sequence[Mapping[str, Any]]) -> None:
        self.principal = Uid("Agent", principal)
        self._entities: dict[Uid, Mapping[str, Any]] = {uid_of(item["uid"]): item for item in entities}
        group = {"type": "Action", "id": ACTION_GROUPS[_CONNECT.id]}
        self._entities[_CONNECT] = {"parents": [group]}

    def of(self, node: Mapping[str, Any]) -> Asked | Known | None:  # noqa: PLR0911  # one return for each operator
        """Return what an expression is; None for what is neither."""
        (operator, given), *_ = node.items()
        match operator:
            case "Value":
                return _literal(given)
            case "Var" | "unknown":
                name = given if operator == "Var" else given[0].get("Value")
                known = {"principal": self.principal, "action": _CONNECT}.get(name)
                return Asked(name) if known is None else Known(known)
            case "Set":
                members = [self.of(member) for member in given]
                if all(isinstance(member, Known) for member in members):
                    return Known(frozenset(member for member in members if isinstance(member, Known)))
            case "ip" if isinstance(given[0].get("Value"), str):
                return _network(given[0]["Value"])
            case ".":
                return self._attribute(self.of(given["left"]), given["attr"])
            case "hasTag" | "getTag":
                left, right = self.of(given["left"]), self.of(given["right"])
                if isinstance(left, Known) and isinstance(right, Known) and left.value in self._entities:
                    tags = self._entities[left.value].get("tags", {})
                    if operator == "hasTag":
                        return Known(right.value in tags)
                    return _literal(tags[right.value]) if right.value in tags else None
        return None

    def _attribute(self, left: Asked | Known | None, name: str) -> Asked | Known | None:
        if left == Asked("context") and name in _CONTEXT:
            return Asked(_CONTEXT[name])
        if left == Asked("context"):
            return Asked("context.base") if name == "base" else None
        if left == Asked("resource"):
            return {"ip": Asked("resource.ip"), "fqdn": Asked("fqdn")}.get(name)
        if isinstance(left, Known) and left.value in self._entities:
            attrs = self._entities[left.value].get("attrs", {})
            return _literal(attrs[name]) if name in attrs else None
        return None

    def attributes(self, value: Any) -> Mapping[str, Any] | None:
        """Return the attributes of an entity that is declared; None for anything else."""
        found = self._entities.get(value) if isinstance(value, Uid) else None
        return None if found is None else found.get("attrs", {})

    def needs(self, node: Any, name: str) -> bool:
        """Whether an expression has a value only where the context has an attribute."""
        if isinstance(node, list):
            return any(self.needs(item, name) for item in node)
        if not isinstance(node, Mapping):
            return False
        match node:
            case {"Value": _}:
                return False
            case {".": {"left": left, "attr": attr}} if attr == name and self.of(left) == Asked("context"):
                return True
            # What comes after is not always evaluated.
            case {"&&": {"left": first}} | {"||": {"left": first}} | {"if-then-else": {"if": first}}:
                return self.needs(first, name)
        return any(self.needs(item, name) for item in node.values())

    def above(self, uid: Uid) -> frozenset[Uid]:
        """Return an entity and all that it is in."""
        return reached(uid, lambda each: map(uid_of, self._entities.get(each, {}).get("parents", ()))) | {uid}


def uid_of(given: Mapping[str, Any]) -> Uid:
    """Return the entity that Cedar's JSON form names."""
    inner = given.get("__entity", given)
    return Uid(str(inner["type"]).removeprefix(f"{NAMESPACE}::"), str(inner["id"]))


def _network(text: str) -> Known | None:
    try:
        return Known(Network(ipaddress.ip_interface(text)))
    except ValueError:
        return None


def _literal(value: Any) -> Known | None:
    if isinstance(value, Mapping):
        if "__entity" in value:
            return Known(uid_of(value))
        if value.get("__extn", {}).get("fn") == "ip":
            return _network(value["__extn"]["arg"])
        return Known(uid_of(value)) if value.keys() == {"type", "id"} else None
    if isinstance(value, list):
        members = [_literal(member) for member in value]
        return Known(frozenset(members)) if None not in members else None
    return Known(value)
