"""Sets of connections, closed under *and*, *or* and *not*: what a rule about ``connect`` says, without the rule.

A :class:`Box` holds the connections whose target, port, protocol, address and class each lie in a set of their own.
Every Boolean combination of boxes is a list of boxes again, so nothing has to be approximated.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from cedarbox.policy.addresses import IP, classes
from cedarbox.policy.canonical import Address, Host
from cedarbox.policy.protocols import KINDS, Kind

__all__ = [
    "ANYWHERE",
    "CLASSES",
    "NO_TARGET",
    "ADDRESSES",
    "ANY_HOST",
    "PORTS",
    "PRESENT",
    "Box",
    "Networks",
    "Ranges",
    "Region",
    "Targets",
    "TooLargeError",
    "address_at",
    "complement",
    "difference",
    "intersection",
    "network_range",
    "networks",
    "place",
    "union",
]

_MAX_BOXES: Final = 256
_V6: Final = 2**32  # Where IPv6 begins on the line of all addresses; "no address" is at -1.
_END: Final = _V6 + 2**128 - 1

CLASSES: Final = frozenset(
    {
        *("public", "private", "loopback", "link_local", "metadata", "cgnat", "multicast", "reserved"),
        "unresolved",
    }
)
"""``Sandbox::IpClass`` of the schema."""

Networks = ipaddress.IPv4Network | ipaddress.IPv6Network


# In the order in which a difference is taken apart; the ones that read best come first.
_PROPERTIES: Final = ("classes", "kinds", "ports", "targets", "ips")


class TooLargeError(Exception):
    """More boxes than anybody could read; the policy is told as text instead."""


@dataclass(frozen=True, slots=True)
class Ranges:
    """A set of whole numbers: sorted ranges, both ends in them, that neither overlap nor touch."""

    parts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, parts: Iterable[tuple[int, int]]) -> Ranges:
        """Return the union of ranges in any order; those that end before they begin hold nothing."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted(part for part in parts if part[0] <= part[1]):
            if merged and low <= merged[-1][1] + 1:
                merged[-1] = merged[-1][0], max(merged[-1][1], high)
            else:
                merged.append((low, high))
        return cls(tuple(merged))

    def __and__(self, other: Ranges) -> Ranges:
        pairs = ((max(a, c), min(b, d)) for a, b in self.parts for c, d in other.parts)
        return Ranges.of(pairs)

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges.of((*self.parts, *other.parts))

    def __sub__(self, other: Ranges) -> Ranges:
        left = list(self.parts)
        for low, high in other.parts:
            left = [piece for a, b in left for piece in ((a, min(b, low - 1)), (max(a, high + 1), b))]
            left = [piece for piece in left if piece[0] <= piece[1]]
        return Ranges.of(left)

    def __le__(self, other: Ranges) -> bool:
        return self == other or not self - other

    def __contains__(self, number: int) -> bool:
        return any(low <= number <= high for low, high in self.parts)

    def __bool__(self) -> bool:
        return bool(self.parts)


PORTS: Final = Ranges(((1, 65535),))
"""Every port."""

_ANY_ADDRESS: Final = Ranges(((-1, _END),))
PRESENT: Final = Ranges(((0, _END),))


def place(ip: IP) -> int:
    """Return where an address is on the line of all addresses."""
    return int(ip) + (_V6 if ip.version == 6 else 0)


def address_at(place: int) -> IP:
    """Return the address that is at a place on the line of all addresses."""
    return ipaddress.IPv4Address(place) if place < _V6 else ipaddress.IPv6Address(place - _V6)


def network_range(network: Networks) -> tuple[int, int]:
    """Return the first and the last place of a network."""
    return place(network.network_address), place(network.broadcast_address)


def networks(held: Ranges) -> tuple[Networks, ...]:
    """Return the networks that a set of places of addresses is made of."""
    found: list[Networks] = []
    for low, high in held.parts:
        if low < _V6:
            first, last = ipaddress.IPv4Address(max(low, 0)), ipaddress.IPv4Address(min(high, _V6 - 1))
            found += ipaddress.summarize_address_range(first, last)
        if high >= _V6:
            start, end = ipaddress.IPv6Address(max(low, _V6) - _V6), ipaddress.IPv6Address(high - _V6)
            found += ipaddress.summarize_address_range(start, end)
    return tuple(found)


@cache
def _class_ranges() -> Mapping[str, Ranges]:
    # Spellings of IPv4 in IPv6 have the class of what is in them, so they may be of any.
    spelt = [network_range(ipaddress.IPv6Network(text)) for text in ("::ffff:0:0/96", "64:ff9b::/96")]
    left = PRESENT
    found: dict[str, Ranges] = {}
    for name, networks in classes():
        here = Ranges.of(network_range(network) for network in networks) & left
        found[name] = Ranges.of((*found.get(name, Ranges(())).parts, *here.parts))
        left = left - here
    # What is translated on its way is reserved wherever it lies in IPv6.
    found["reserved"] = Ranges.of((*found["reserved"].parts, *left.parts, (_V6, _END)))
    return {name: Ranges.of((*held.parts, *spelt)) for name, held in found.items()}


@dataclass(frozen=True)
class Targets:
    """A set of targets: names by the rule of their longest suffix, and whether addresses are in it.

    Attributes:
        rules: By name: whether the name itself is in the set, and whether what is below it is; ``""`` is above all.
        addresses: Whether an address that is asked for by itself is in it.
    """

    rules: Mapping[str, tuple[bool, bool]]
    addresses: bool = False

    def at(self, name: str) -> tuple[bool, bool]:
        """Return whether a name is in the set, and whether names below it are, where no longer rule says otherwise."""
        if name in self.rules:
            return self.rules[name]
        rest = name
        while rest:
            rest = rest.partition(".")[2]
            if rest in self.rules:
                return (self.rules[rest][1],) * 2
        raise KeyError(name)

    def _with(self, other: Targets, *, minus: bool) -> Targets:
        def both(a: bool, b: bool) -> bool:
            return a and (not b if minus else b)

        merged = {}
        for name in sorted({*self.rules, *other.rules}, key=lambda name: (name.count("."), len(name), name)):
            (here, below), (there, beneath) = self.at(name), other.at(name)
            merged[name] = both(here, there), both(below, beneath)
        return Targets(_reduced(merged), both(self.addresses, other.addresses))

    def __and__(self, other: Targets) -> Targets:
        return self._with(other, minus=False)

    def __sub__(self, other: Targets) -> Targets:
        return self._with(other, minus=True)

    def __bool__(self) -> bool:
        return self.addresses or any(here or below for here, below in self.rules.values())

    def __contains__(self, target: Host | Address) -> bool:
        return self.addresses if isinstance(target, Address) else self.at(target.name)[0]

    @classmethod
    def domain(cls, name: str) -> Targets:
        """Return a name and all below it."""
        return cls({"": (False, False), name: (True, True)})

    @classmethod
    def below(cls, name: str) -> Targets:
        """Return all names below one, and not itself."""
        return cls({"": (False, False), name: (False, True)})

    @classmethod
    def host(cls, name: str) -> Targets:
        """Return one name."""
        return cls({"": (False, False), name: (True, False)})


def _reduced(rules: Mapping[str, tuple[bool, bool]]) -> dict[str, tuple[bool, bool]]:
    """Leave out the rules that say what the one above says."""
    kept: dict[str, tuple[bool, bool]] = {}
    for name, (here, below) in rules.items():
        if name == "":
            kept[name] = (below, below)
            continue
        inherited = Targets(kept).at(name)[1]
        if (here, below) != (inherited, inherited):
            kept[name] = (here, below)
    return kept


_ANY_NAME: Final = Targets({"": (True, True)})
NO_TARGET: Final = Targets({"": (False, False)})
"""No target at all."""
ADDRESSES: Final = replace(NO_TARGET, addresses=True)
ANY_TARGET: Final = replace(_ANY_NAME, addresses=True)
ANY_HOST: Final = _ANY_NAME


@dataclass(frozen=True)
class Box:
    """Connections of which each property lies in a set of its own.

    Attributes:
        targets: What is asked for.
        ports: 1 to 65535.
        kinds: Of :data:`cedarbox.policy.protocols.KINDS`.
        classes: Of :data:`CLASSES`.
        ips: The address that would be dialled, on the line of all addresses.
        conditions: What else must hold, in Cedar; empty when that is all.
    """

    targets: Targets = ANY_TARGET
    ports: Ranges = PORTS
    kinds: frozenset[Kind] = KINDS
    classes: frozenset[str] = CLASSES
    ips: Ranges = _ANY_ADDRESS
    conditions: frozenset[str] = field(default=frozenset())

    @property
    def order(self) -> tuple[object, ...]:
        """By what boxes are sorted where it matters that a list comes out the same each time."""
        targets = (sorted(self.targets.rules.items()), self.targets.addresses)
        kinds = sorted(map(str, self.kinds))
        return (targets, self.ports.parts, kinds, sorted(self.classes), self.ips.parts, sorted(self.conditions))

    def __bool__(self) -> bool:
        if not (self.targets and self.ports and self.kinds and self.classes and self.ips):
            return False
        if any(f"!({text})" in self.conditions for text in self.conditions):
            return False
        # An address has one class, and what is asked for as an address has one.
        absent = -1 in self.ips and bool(self.targets - ADDRESSES)
        if absent or (self.classes == CLASSES and self.ips != _NO_ADDRESS):
            return True
        ranges = _class_ranges()
        return any(self.ips & ranges[name] for name in self.classes if name in ranges)

    def __and__(self, other: Box) -> Box:
        return Box(
            self.targets & other.targets,
            self.ports & other.ports,
            self.kinds & other.kinds,
            self.classes & other.classes,
            self.ips & other.ips,
            self.conditions | other.conditions,
        )

    def minus(self, other: Box) -> Iterator[Box]:
        """Yield the parts of this box that are outside another, whose conditions do not count."""
        rest = self
        for name in _PROPERTIES:
            mine, theirs = getattr(rest, name), getattr(other, name)
            outside = replace(rest, **{name: mine - theirs})
            if outside:
                yield outside
            rest = replace(rest, **{name: mine & theirs})
            if not rest:
                return

    def holds(self, target: Host | Address, *, port: int, kind: Kind, ip_class: str, ip: IP | None) -> bool:
        """Whether a connection is in the box, when its conditions hold."""
        at = -1 if ip is None else place(ip)
        return (
            target in self.targets
            and port in self.ports
            and kind in self.kinds
            and ip_class in self.classes
            and at in self.ips
        )


_NO_ADDRESS: Final = Ranges(((-1, -1),))
ANYWHERE: Final = Box()
"""Every connection there is."""

Region = tuple[Box, ...]


def union(*regions: Region) -> Region:
    """Return what is in any of the regions.

    Raises:
        TooLargeError: It has more boxes than are kept.
    """
    kept: list[Box] = []
    for box in (box for region in regions for box in region if box):
        if any(_within(box, other) for other in kept):
            continue
        wider = box
        while (join := next(((other, made) for other in kept if (made := _joined(wider, other))), None)) is not None:
            kept.remove(join[0])
            wider = join[1]
        kept = [other for other in kept if not _within(other, wider)]
        kept.append(wider)
        if len(kept) > _MAX_BOXES:
            raise TooLargeError
    return tuple(kept)


def intersection(left: Region, right: Region) -> Region:
    """Return what is in both regions.

    Raises:
        TooLargeError: It has more boxes than are kept.
    """
    if len(left) * len(right) > _MAX_BOXES * 8:
        raise TooLargeError
    return union(tuple(a & b for a in left for b in right))


def difference(left: Region, right: Region) -> Region:
    """Return what is in the one and not in the other, which must have no conditions.

    Raises:
        TooLargeError: It has more boxes than are kept.
    """
    for other in right:
        left = union(tuple(piece for box in left for piece in (box.minus(other) if box & other else (box,))))
    return left


def complement(region: Region) -> Region:
    """Return what is not in a region, which must have no conditions.

    Raises:
        TooLargeError: It has more boxes than are kept.
    """
    return difference((ANYWHERE,), region)


def _joined(left: Box, right: Box) -> Box | None:
    """Return two boxes as one, if they differ in one property only: that is told in one line, and loses nothing."""
    apart = [name for name in _PROPERTIES if getattr(left, name) != getattr(right, name)]
    if len(apart) != 1 or left.conditions != right.conditions or apart[0] == "targets":
        return None
    return replace(left, **{apart[0]: getattr(left, apart[0]) | getattr(right, apart[0])})


def _within(inner: Box, outer: Box) -> bool:
    # Cheapest first: this is asked about every pair.
    return (
        inner.classes <= outer.classes
        and inner.kinds <= outer.kinds
        and outer.conditions <= inner.conditions
        and inner.ports <= outer.ports
        and inner.ips <= outer.ips
        and (inner.targets == outer.targets or not inner.targets - outer.targets)
    )
