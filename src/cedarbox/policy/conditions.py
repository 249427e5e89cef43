"""What the conditions of ``connect`` policies say about a connection, as regions.

The principal is known, so everything about it is worked out here. What is said about port, protocol, address, class and
target becomes a region. All else becomes a condition, as text in Cedar: it is kept, never guessed.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import cedarpy

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, canonical_host
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.protocols import HELLO, REQUEST, kinds_of_hello, kinds_of_proto
from cedarbox.policy.regions import (
    ADDRESSES,
    ANY_HOST,
    ANYWHERE,
    CLASSES,
    NO_TARGET,
    PORTS,
    PRESENT,
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
from cedarbox.policy.values import Asked, Known, Network, Uid, Values, uid_of

__all__ = ["FALLIBLE", "Reader"]


_ALL: Final[Region] = (ANYWHERE,)
_NONE: Final[Region] = ()
# Where the context has what; all else in it becomes a condition.
_CONTEXT_HAS: Final[Mapping[str, Region]] = {
    **dict.fromkeys(("base", "port", "proto", "ipClass"), _ALL),
    "ip": (Box(ips=PRESENT),),
    "hello": (Box(kinds=HELLO),),
    "http": (Box(kinds=REQUEST),),
}
FALLIBLE: Final = frozenset({"+", "-", "*", "neg", "offset", "durationSince", "toDate"})
"""Operators that can fail on values of the right types: whole numbers and dates that become too large."""
_KINDS: Final = {
    "isLoopback": ("127.0.0.0/8", "::1/128"),
    "isMulticast": ("224.0.0.0/4", "ff00::/8"),
    "isIpv4": ("0.0.0.0/0",),
    "isIpv6": ("::/0",),
}
_MIRRORED: Final = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_OPPOSITE: Final = {"<": ">=", ">": "<=", "<=": ">", ">=": "<"}


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
        self.fallible = False
        self.notes: list[str] = []
        self._values = Values(principal, entities)

    def policy(self, est: Mapping[str, Any]) -> Region:
        """Return the connections that a policy is about; its scope matches the action already.

        Args:
            est: The policy in Cedar's JSON form, as written or as what partial evaluation left of it.

        Raises:
            TooLargeError: It has too many cases.
        """
        region = intersection(
            self._scope(Known(self._values.principal), est["principal"]),
            self._scope(Asked("resource"), est["resource"]),
        )
        for condition in est["conditions"]:
            region = intersection(region, self._read(condition["body"], want=condition["kind"] == "when"))
        return region

    def speaks_of(self, est: Mapping[str, Any]) -> bool:
        """Whether the principal in the scope of a policy may be this one."""
        return bool(self._scope(Known(self._values.principal), est["principal"]))

    def scope(self, est: Mapping[str, Any]) -> Region:
        """Return what the scope of a policy is about, without its conditions."""
        return intersection(
            self._scope(Known(self._values.principal), est["principal"]),
            self._scope(Asked("resource"), est["resource"]),
        )

    def _scope(self, subject: Asked | Known, scope: Mapping[str, Any]) -> Region:
        match scope["op"]:
            case "All":
                return _ALL
            case "==":
                region = self._equal(subject, Known(uid_of(scope["entity"])))
            case "in":
                region = self._inside(subject, Known(uid_of(scope["entity"])))
            case "is":
                region = self._is(subject, scope["entity_type"])
                if region is not None and "in" in scope:
                    inside = self._inside(subject, Known(uid_of(scope["in"]["entity"])))
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
                    known = self._values.of(given[side])
                    if isinstance(known, Known) and isinstance(known.value, bool):
                        return self._read(given[other], want=(known.value is want) is (operator == "=="))
        known = self._values.of(node)
        if isinstance(known, Known) and isinstance(known.value, bool):
            return _ALL if known.value is want else _NONE
        region = self._atom(operator, given)
        if region is None:
            return self._told(node, want=want)
        return region if want else complement(region)

    def _atom(self, operator: str, given: Any) -> Region | None:  # noqa: PLR0911  # one return for each operator
        match operator:
            case "==":
                return self._equal(self._values.of(given["left"]), self._values.of(given["right"]))
            case "!=":
                equal = self._equal(self._values.of(given["left"]), self._values.of(given["right"]))
                return None if equal is None else complement(equal)
            case "<" | "<=" | ">" | ">=":
                return _compared(operator, self._values.of(given["left"]), self._values.of(given["right"]))
            case "in":
                return self._inside(self._values.of(given["left"]), self._values.of(given["right"]))
            case "contains":
                return self._contains(self._values.of(given["left"]), self._values.of(given["right"]))
            case "is":
                region = self._is(self._values.of(given["left"]), given["entity_type"])
                if region is not None and "in" in given:
                    inside = self._inside(self._values.of(given["left"]), self._values.of(given["in"]))
                    return None if inside is None else intersection(region, inside)
                return region
            case "has":
                return self._has(self._values.of(given["left"]), given["attr"])
            case "like":
                return self._like(self._values.of(given["left"]), given["pattern"])
            case "isInRange":
                return _in_range(*map(self._values.of, given))
            case _ if operator in _KINDS:
                return _in_networks(self._values.of(given[0]), _KINDS[operator])
        return None

    def _equal(  # noqa: PLR0911  # as in _atom
        self, left: Asked | Known | None, right: Asked | Known | None
    ) -> Region | None:
        if isinstance(left, Known) and isinstance(right, Known):
            if isinstance(left.value, Network) or isinstance(right.value, Network):
                return None
            return _ALL if (type(left.value), left.value) == (type(right.value), right.value) else _NONE
        if isinstance(left, Known):
            left, right = right, left
        if not isinstance(left, Asked) or not isinstance(right, Known):
            return None
        value = right.value
        match left.name:
            case "port":
                return (Box(ports=Ranges.of([(value, value)]) & PORTS),)
            case "proto" | "hello" | "class" | "resource" if not isinstance(value, Uid):
                return None
            case "proto":
                return (Box(kinds=kinds_of_proto(value.id)),)
            case "hello":
                return (Box(kinds=kinds_of_hello(value.id)),)
            case "class":
                return (Box(classes=CLASSES & {value.id}),)
            case "ip" | "resource.ip" if isinstance(value, Network):
                # A network is equal to no address.
                single, at = value.interface.network.num_addresses == 1, place(value.interface.ip)
                return _of_ip(left, [(at, at)] if single else [])
            case "fqdn" if isinstance(value, str):
                return self._target(Uid("Host", value), below=False)
            case "resource":
                return self._target(value, below=False)
        return None

    def _inside(self, left: Asked | Known | None, right: Asked | Known | None) -> Region | None:
        if not isinstance(right, Known):
            return None
        members = right.value if isinstance(right.value, frozenset) else frozenset({right})
        if not all(isinstance(member.value, Uid) for member in members):
            return None
        if isinstance(left, Known):
            above = self._values.above(left.value)
            return _ALL if any(member.value in above for member in members) else _NONE
        if left == Asked("resource"):
            return union(*(self._target(member.value, below=True) for member in members))
        # Nothing is above a member of an enumeration but itself.
        found = [self._equal(left, member) for member in members]
        return union(*(region for region in found if region is not None)) if None not in found else None

    def _contains(self, left: Asked | Known | None, right: Asked | Known | None) -> Region | None:
        if not isinstance(left, Known) or not isinstance(left.value, frozenset):
            return None
        found = [self._equal(right, member) for member in left.value]
        return union(*(region for region in found if region is not None)) if None not in found else None

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

    def _is(self, left: Asked | Known | None, kind: str) -> Region | None:
        name = kind.removeprefix(f"{NAMESPACE}::")
        if isinstance(left, Known):
            return _ALL if isinstance(left.value, Uid) and left.value.type == name else _NONE
        if left == Asked("resource"):
            return (Box(targets={"Host": ANY_HOST, "Address": ADDRESSES}.get(name, NO_TARGET)),)
        return None

    def _has(self, left: Asked | Known | None, name: str) -> Region | None:
        if left == Asked("context"):
            return _CONTEXT_HAS.get(name)
        if left == Asked("context.base") and name in {"at", "backend"}:
            return _ALL
        if left == Asked("resource"):
            return (Box(targets={"fqdn": ANY_HOST, "ip": ADDRESSES}.get(name, NO_TARGET)),)
        if isinstance(left, Known) and (attrs := self._values.attributes(left.value)) is not None:
            return _ALL if name in attrs else _NONE
        return None

    def _like(self, left: Asked | Known | None, pattern: Sequence[Any]) -> Region | None:
        if left != Asked("fqdn"):
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
        self.fallible = self.fallible or any(f'"{name}"' in text for name in FALLIBLE)
        told = _as_cedar(node)
        made = Box(conditions=frozenset({told if want else f"!({told})"}))
        return (replace(made, kinds=REQUEST),) if self._values.needs(node, "http") else (made,)


def _compared(operator: str, left: Asked | Known | None, right: Asked | Known | None) -> Region | None:
    if isinstance(left, Known):
        left, right, operator = right, left, _MIRRORED[operator]
    if left != Asked("port") or not isinstance(right, Known) or not isinstance(right.value, int):
        return None
    number = right.value
    parts = {"<": (1, number - 1), "<=": (1, number), ">": (number + 1, 65535), ">=": (number, 65535)}
    return (Box(ports=Ranges.of([parts[operator]]) & PORTS),)


def _of_ip(asked: Asked, parts: list[tuple[int, int]]) -> Region:
    # An address that is asked for is the address that is dialled.
    targets = ADDRESSES if asked.name == "resource.ip" else ANYWHERE.targets
    return (Box(targets=targets, ips=Ranges.of(parts)),)


def _in_range(left: Asked | Known | None, right: Asked | Known | None) -> Region | None:
    if not isinstance(right, Known) or not isinstance(right.value, Network):
        return None
    return _in_networks(left, (str(right.value.interface.network),))


def _in_networks(asked: Asked | Known | None, networks: Sequence[str]) -> Region | None:
    if not isinstance(asked, Asked) or asked.name not in {"ip", "resource.ip"}:
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
