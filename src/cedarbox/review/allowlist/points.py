"""Single connections out of a set of them, to ask Cedar about."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import Action
from cedarbox.policy.addresses import classes, ip_class, translated
from cedarbox.policy.canonical import canonical_host
from cedarbox.policy.protocols import Kind
from cedarbox.policy.regions import PRESENT, Box, Ranges, Targets, network_range, networks
from cedarbox.review.arguments import Value, build

__all__ = ["SPELT", "addresses_of", "connections", "told"]

_SPREAD: Final = 3
"""Of each property that has ends, or many members, so many values are taken."""
_MANY: Final = 64
"""Networks that are looked into."""


def connections(box: Box) -> Iterator[tuple[Mapping[str, Value], Action]]:
    """Yield connections of a box: the ends of its ports, each kind and class, addresses from the ends of its networks.

    Args:
        box: The connections; its conditions do not count.

    Yields:
        The arguments of ``connect``, and the request that they make.
    """
    for target, ip, assumed in _places(box):
        for port in _ports(box.ports):
            for kind in sorted(box.kinds, key=str):
                values: dict[str, Value] = {"target": target, "port": port, **_of_kind(kind)}
                if ip is not None:
                    values["ip"] = ip
                if assumed is not None:
                    values["assumed_class"] = assumed
                try:
                    yield values, build("connect", values)
                except (CanonicalizationError, ValueError):
                    continue


def told(values: Mapping[str, Value]) -> str:
    """Return a connection in one line."""
    return " ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _of_kind(kind: Kind) -> dict[str, Value]:
    values: dict[str, Value] = {"proto": kind.proto, "hello": kind.hello}
    return values | ({"method": "GET", "path": "/"} if kind.request else {})


def _ports(held: Ranges) -> Iterator[int]:
    ends = [end for low, high in held.parts for end in (low, high)]
    yield from dict.fromkeys(ends if len(ends) <= 2 * _SPREAD else (*ends[:_SPREAD], *ends[-_SPREAD:]))


def _places(box: Box) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield targets with the address that is dialled, or the class that is assumed when none is known."""
    addresses = list(_addresses(box))
    if box.targets.addresses:
        yield from ((text, None, None) for text in addresses)
    for name in _names(box.targets):
        yield from ((name, text, None) for text in addresses)
        if -1 in box.ips:
            yield from ((name, None, assumed) for assumed in sorted(box.classes))


def _names(held: Targets) -> Iterator[str]:
    for rule, (here, below) in sorted(held.rules.items()):
        tried = [rule] if here and rule else []
        tried += [f"{label}.{rule}".rstrip(".") for label in ("a", "a.b", "zz")] if below else []
        for name in tried:
            try:
                host = canonical_host(name)
            except CanonicalizationError:
                continue
            if host in held:
                yield str(host)


def _addresses(box: Box) -> Iterator[str]:
    found: dict[str, None] = {}
    for name in sorted(box.classes):
        taken = 0
        for network in networks(addresses_of(frozenset({name})) & box.ips)[:_MANY]:
            first, last = network.network_address, network.broadcast_address
            for ip in dict.fromkeys((first + 1 if first != last else first, first, last)):
                if not translated(ip) and ip_class(ip) == name and taken < 2 * _SPREAD and _canonical(ip):
                    found[str(ip)] = None
                    taken += 1
    yield from found


def addresses_of(names: frozenset[str]) -> Ranges:
    """Return the addresses of some classes; of IPv6, without what only spells an IPv4 address.

    Args:
        names: Members of ``Sandbox::IpClass``.
    """
    # The first class that holds an address wins, so what is before it is taken off; what none holds is reserved.
    left, inside = PRESENT, Ranges(())
    for name, members in classes():
        here = Ranges.of(network_range(network) for network in members) & left
        inside = inside | here if name in names else inside
        left = left - here
    return (inside | left if "reserved" in names else inside) - SPELT


SPELT: Final = Ranges.of(network_range(ipaddress.ip_network(text)) for text in ("::ffff:0:0/96", "64:ff9b::/96"))
"""Where addresses of IPv6 lie that are other spellings of IPv4, see :func:`cedarbox.policy.addresses.embedded`."""


def _canonical(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return str(canonical_host(str(ip))) == str(ip)
    except CanonicalizationError:
        return False
