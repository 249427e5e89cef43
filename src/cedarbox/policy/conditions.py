"""What the conditions of ``connect`` policies say about a connection, as regions.

The principal is known, so everything about it is worked out here. What is said about port, protocol, address, class and
target becomes a region. All else becomes a condition, as text in Cedar: it is kept, never guessed.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.canonical import Address, canonical_host
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.regions import (
    ADDRESSES,
    ANY_HOST,
    ANYWHERE,
    CLASSES,
    NO_TARGET,
    PORTS,
    PRESENT,
    PROTOS,
    Box,
    Ranges,
    Region,
    Targets,
    complement,
    intersection,
    network_range,
    place,
    union,
)

__all__ = ["Reader", "Uid"]


@dataclass(frozen=True, slots=True)
class Uid:
    """A Cedar entity: its type without the namespace, and its id."""

    type: str
    id: str


_ALL: Final[Region] = (ANYWHERE,)
_NONE: Final[Region] = ()
# Members of the context by the dimension that they are; what is not here becomes a condition.
_CONTEXT: Final = {"port": "port", "proto": "proto", "ipClass": "class", "ip": "ip"}
_ALWAYS: Final = frozenset({"base", "port", "proto", "ipClass"})
# What a checked policy may fail to evaluate: whole numbers and dates that become too large.
_FALLIBLE: Final = frozenset({"+", "-", "*", "neg", "offset", "durationSince", "toDate", "toTime"})
_KINDS: Final = {
    "isLoopback": ("127.0.0.0/8", "::1/128"),
    "isMulticast": ("224.0.0.0/4", "ff00::/8"),
    "isIpv4": ("0.0.0.0/0",),
    "isIpv6": ("::/0",),
}
_CONNECT: Final = Uid("Action", "connect")
_MIRRORED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_OPPOSITE: Final = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the connection decides: its port, protocol, class, address, target, or the context itself."""

    name: str


@dataclass(frozen=True, slots=True)
class _Network:
    interface: ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class _Known:
    value: Any


class Reader:
    """Reads policies for one principal.

    Attributes:
        fallible: Something was read that can fail when it is evaluated, and then denies.
        notes: What can never match, because no name is spelt like that.

    Args:
        principal: Id of the agent.
        entities: What ``entities.json`` declares.
    """

    def __init__(self, principal: str, entities: Sequence[Mapping[str, Any]]) -> None:
        self.principal = Uid("Agent", principal)
        self.fallible = False
        self.notes: list[str] = []
        self._entities: dict[Uid, Mapping[str, Any]] = {_uid(item["uid"]): item for item in entities}
        group = {"type": "Action", "id": ACTION_GROUPS[_CONNECT.id]}
        self._entities[_CONNECT] = {"parents": [group]}

    def policy(self, est: Mapping[str, Any]) -> Region:
        """Return the connections that a policy is about; its scope matches the action already.

        Args:
            est: The policy in Cedar's JSON form, as written or as what partial evaluation left of it.

        Raises:
            TooLargeError: It has too many cases.
        """
        region = intersection(
            self._scope(_Known(self.principal), est["principal"]), self._scope(_Asked("resource"), est["resource"])
        )
        for condition in est["conditions"]:
            region = intersection(region, self._read(condition["body"], want=condition["kind"] == "when"))
        return region

    def scope(self, est: Mapping[str, Any]) -> Region:
        """Return what the scope of a policy is about, without its conditions."""
        return intersection(
            self._scope(_Known(self.principal), est["principal"]), self._scope(_Asked("resource"), est["resource"])
        )

    def _scope(self, subject: _Asked | _Known, scope: Mapping[str, Any]) -> Region:
        match scope["op"]:
            case "All":
                return _ALL
            case "==":
                region = self._equal(subject, _Known(_uid(scope["entity"])))
            case "in":
                region = self._inside(subject, _Known(_uid(scope["entity"])))
            case "is":
                region = self._is(subject, scope["entity_type"])
                if region is not None and "in" in scope:
                    inside = self._inside(subject, _Known(_uid(scope["in"]["entity"])))
                    region = None if inside is None else intersection(region, inside)
            case _:
                region = None
        if region is None:
            raise ValueError(f"a scope that no bundle has: {scope}")
        return region

    def _read(self, node: Mapping[str, Any], *, want: bool) -> Region:  # noqa: PLR0911  # as in _atom
        """Return where an expression is what is wanted: true, or false."""
        (operator, given), *_ = node.items()
        match operator:
            case "&&" | "||":
                left, right = self._read(given["left"], want=want), self._read(given["right"], want=want)
                return intersection(left, right) if (operator == "&&") is want else union(left, right)
            case "!":
                return self._read(given["arg"], want=not want)
            case "if-then-else":
                yes = intersection(self._read(given["if"], want=True), self._read(given["then"], want=want))
                no = intersection(self._read(given["if"], want=False), self._read(given["else"], want=want))
                return union(yes, no)
            case "==" | "!=":
                for side, other in (("left", "right"), ("right", "left")):
                    known = self._value(given[side])
                    if isinstance(known, _Known) and isinstance(known.value, bool):
                        return self._read(given[other], want=(known.value is want) is (operator == "=="))
        known = self._value(node)
        if isinstance(known, _Known) and isinstance(known.value, bool):
            return _ALL if known.value is want else _NONE
        region = self._atom(operator, given)
        if region is None:
            return self._told(node, want=want)
        return region if want else complement(region)

    def _atom(self, operator: str, given: Any) -> Region | None:  # noqa: PLR0911  # one return for each operator
        match operator:
            case "==":
                return self._equal(self._value(given["left"]), self._value(given["right"]))
            case "!=":
                equal = self._equal(self._value(given["left"]), self._value(given["right"]))
                return None if equal is None else complement(equal)
            case "<" | "<=" | ">" | ">=":
                return _compared(operator, self._value(given["left"]), self._value(given["right"]))
            case "in":
                return self._inside(self._value(given["left"]), self._value(given["right"]))
            case "contains":
                return self._contains(self._value(given["left"]), self._value(given["right"]))
            case "is":
                region = self._is(self._value(given["left"]), given["entity_type"])
                if region is not None and "in" in given:
                    inside = self._inside(self._value(given["left"]), self._value(given["in"]))
                    return None if inside is None else intersection(region, inside)
                return region
            case "has":
                return self._has(self._value(given["left"]), given["attr"])
            case "like":
                return self._like(self._value(given["left"]), given["pattern"])
            case "isInRange":
                return _in_range(*map(self._value, given))
            case _ if operator in _KINDS:
                return _in_networks(self._value(given[0]), _KINDS[operator])
        return None

    def _value(self, node: Mapping[str, Any]) -> _Asked | _Known | None:  # noqa: PLR0911  # as in _atom
        (operator, given), *_ = node.items()
        match operator:
            case "Value":
                return _literal(given)
            case "Var" | "unknown":
                name = given if operator == "Var" else given[0].get("Value")
                known = {"principal": self.principal, "action": _CONNECT}.get(name)
                return _Asked(name) if known is None else _Known(known)
            case "Set":
                members = [self._value(member) for member in given]
                if all(isinstance(member, _Known) for member in members):
                    return _Known(frozenset(member for member in members if isinstance(member, _Known)))
            case "ip" if isinstance(given[0].get("Value"), str):
                return _network(given[0]["Value"])
            case ".":
                return self._attribute(self._value(given["left"]), given["attr"])
            case "hasTag" | "getTag":
                left, right = self._value(given["left"]), self._value(given["right"])
                if isinstance(left, _Known) and isinstance(right, _Known) and left.value in self._entities:
                    tags = self._entities[left.value].get("tags", {})
                    if operator == "hasTag":
                        return _Known(right.value in tags)
                    return _literal(tags[right.value]) if right.value in tags else None
        return None

    def _attribute(self, left: _Asked | _Known | None, name: str) -> _Asked | _Known | None:
        if left == _Asked("context") and name in _CONTEXT:
            return _Asked(_CONTEXT[name])
        if left == _Asked("context"):
            return _Asked("context.base") if name == "base" else None
        if left == _Asked("resource"):
            return {"ip": _Asked("resource.ip"), "fqdn": _Asked("fqdn")}.get(name)
        if isinstance(left, _Known) and left.value in self._entities:
            attrs = self._entities[left.value].get("attrs", {})
            return _literal(attrs[name]) if name in attrs else None
        return None

    def _equal(  # noqa: PLR0911  # as in _atom
        self, left: _Asked | _Known | None, right: _Asked | _Known | None
    ) -> Region | None:
        if isinstance(left, _Known) and isinstance(right, _Known):
            if isinstance(left.value, _Network) or isinstance(right.value, _Network):
                return None
            return _ALL if (type(left.value), left.value) == (type(right.value), right.value) else _NONE
        if isinstance(left, _Known):
            left, right = right, left
        if not isinstance(left, _Asked) or not isinstance(right, _Known):
            return None
        value = right.value
        match left.name:
            case "port":
                return (Box(ports=Ranges.of([(value, value)]) & PORTS),)
            case "proto" | "class" | "resource" if not isinstance(value, Uid):
                return None
            case "proto":
                return (Box(protos=PROTOS & {value.id}),)
            case "class":
                return (Box(classes=CLASSES & {value.id}),)
            case "ip" | "resource.ip" if isinstance(value, _Network):
                # A network is equal to no address.
                single, at = value.interface.network.num_addresses == 1, place(value.interface.ip)
                return _of_ip(left, [(at, at)] if single else [])
            case "fqdn" if isinstance(value, str):
                return self._target(Uid("Host", value), below=False)
            case "resource":
                return self._target(value, below=False)
        return None

    def _inside(self, left: _Asked | _Known | None, right: _Asked | _Known | None) -> Region | None:
        if not isinstance(right, _Known):
            return None
        members = right.value if isinstance(right.value, frozenset) else frozenset({right})
        if not all(isinstance(member.value, Uid) for member in members):
            return None
        if isinstance(left, _Known):
            above = self._above(left.value)
            return _ALL if any(member.value in above for member in members) else _NONE
        if left == _Asked("resource"):
            return union(*(self._target(member.value, below=True) for member in members))
        # Nothing is above a member of an enumeration but itself.
        found = [self._equal(left, member) for member in members]
        return union(*(region for region in found if region is not None)) if None not in found else None

    def _contains(self, left: _Asked | _Known | None, right: _Asked | _Known | None) -> Region | None:
        if not isinstance(left, _Known) or not isinstance(left.value, frozenset):
            return None
        found = [self._equal(right, member) for member in left.value]
        return union(*(region for region in found if region is not None)) if None not in found else None

    def _above(self, uid: Uid) -> frozenset[Uid]:
        seen, waiting = {uid}, [uid]
        while waiting:
            for parent in self._entities.get(waiting.pop(), {}).get("parents", ()):
                if (above := _uid(parent)) not in seen:
                    seen.add(above)
                    waiting.append(above)
        return frozenset(seen)

    def _target(self, uid: Uid, *, below: bool) -> Region:
        if uid.type not in {"Host", "Domain", "Address"} or (uid.type == "Domain" and not below):
            return _NONE
        try:
            found = canonical_host(uid.id)
        except CanonicalizationError:
            found = None
        if found is None or str(found) != uid.id or isinstance(found, Address) is not (uid.type == "Address"):
            self.notes.append(f'{uid.type}::"{uid.id}" matches nothing: no target is spelt like that')
            return _NONE
        if isinstance(found, Address):
            at = place(found.ip)
            return (Box(targets=ADDRESSES, ips=Ranges.of([(at, at)])),)
        return (Box(targets=Targets.domain(uid.id) if uid.type == "Domain" else Targets.host(uid.id)),)

    def _is(self, left: _Asked | _Known | None, kind: str) -> Region | None:
        name = kind.removeprefix(f"{NAMESPACE}::")
        if isinstance(left, _Known):
            return _ALL if isinstance(left.value, Uid) and left.value.type == name else _NONE
        if left == _Asked("resource"):
            return (Box(targets={"Host": ANY_HOST, "Address": ADDRESSES}.get(name, NO_TARGET)),)
        return None

    def _has(self, left: _Asked | _Known | None, name: str) -> Region | None:
        if left == _Asked("context") and name in _ALWAYS:
            return _ALL
        if left == _Asked("context") and name == "ip":
            return (Box(ips=PRESENT),)
        if left == _Asked("context.base") and name in {"at", "backend"}:
            return _ALL
        if left == _Asked("resource"):
            return (Box(targets={"fqdn": ANY_HOST, "ip": ADDRESSES}.get(name, NO_TARGET)),)
        if isinstance(left, _Known) and left.value in self._entities:
            return _ALL if name in self._entities[left.value].get("attrs", {}) else _NONE
        return None

    def _like(self, left: _Asked | _Known | None, pattern: Sequence[Any]) -> Region | None:
        if left != _Asked("fqdn"):
            return None
        literal = "".join(part["Literal"] for part in pattern if isinstance(part, dict))
        wild = [number for number, part in enumerate(pattern) if part == "Wildcard"]
        if not wild:
            return self._target(Uid("Host", literal), below=False)
        if wild == [0] and literal.startswith("."):
            domain = self._target(Uid("Domain", literal[1:]), below=True)
            return tuple(Box(targets=Targets.below(literal[1:])) for _ in domain)
        return None

    def _told(self, node: Mapping[str, Any], *, want: bool) -> Region:
        text = json.dumps(node)
        self.fallible = self.fallible or any(f'"{name}"' in text for name in _FALLIBLE)
        told = _as_cedar(node)
        return (Box(conditions=frozenset({told if want else f"!({told})"})),)


def _uid(given: Mapping[str, Any]) -> Uid:
    inner = given.get("__entity", given)
    return Uid(str(inner["type"]).removeprefix(f"{NAMESPACE}::"), str(inner["id"]))


def _network(text: str) -> _Known | None:
    try:
        return _Known(_Network(ipaddress.ip_interface(text)))
    except ValueError:
        return None


def _literal(value: Any) -> _Known | None:
    if isinstance(value, Mapping):
        if "__entity" in value:
            return _Known(_uid(value))
        if value.get("__extn", {}).get("fn") == "ip":
            return _network(value["__extn"]["arg"])
        return _Known(_uid(value)) if value.keys() == {"type", "id"} else None
    if isinstance(value, list):
        members = [_literal(member) for member in value]
        return _Known(frozenset(members)) if None not in members else None
    return _Known(value)


def _compared(operator: str, left: _Asked | _Known | None, right: _Asked | _Known | None) -> Region | None:
    if isinstance(left, _Known):
        left, right, operator = right, left, _MIRRORED[operator]
    if left != _Asked("port") or not isinstance(right, _Known) or not isinstance(right.value, int):
        return None
    number = right.value
    parts = {"<": (1, number - 1), "<=": (1, number), ">": (number + 1, 65535), ">=": (number, 65535)}
    return (Box(ports=Ranges.of([parts[operator]]) & PORTS),)


def _of_ip(asked: _Asked, parts: list[tuple[int, int]]) -> Region:
    # An address that is asked for is the address that is dialled.
    targets = ADDRESSES if asked.name == "resource.ip" else ANYWHERE.targets
    return (Box(targets=targets, ips=Ranges.of(parts)),)


def _in_range(left: _Asked | _Known | None, right: _Asked | _Known | None) -> Region | None:
    if not isinstance(right, _Known) or not isinstance(right.value, _Network):
        return None
    return _in_networks(left, (str(right.value.interface.network),))


def _in_networks(asked: _Asked | _Known | None, networks: Sequence[str]) -> Region | None:
    if not isinstance(asked, _Asked) or asked.name not in {"ip", "resource.ip"}:
        return None
    return _of_ip(asked, [network_range(ipaddress.ip_network(text)) for text in networks])


def _as_cedar(node: Mapping[str, Any]) -> str:
    scope = {"op": "All"}
    policy = {
        "effect": "permit",
        "principal": scope,
        "action": scope,
        "resource": scope,
        "conditions": [{"kind": "when", "body": node}],
    }
    document = {"staticPolicies": {"p": policy}, "templates": {}, "templateLinks": []}
    try:
        text = str(cedarpy.policies_from_json_str(json.dumps(document)))
    except ValueError:
        return json.dumps(node)
    return " ".join(text.partition("{")[2].rpartition("}")[0].split())
