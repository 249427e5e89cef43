"""What a backend is, and how the names, addresses and ports of a list are read."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.policy.canonical import Address, canonical_host
from cedarbox.policy.endpoint_rows import targets
from cedarbox.policy.endpoints import Endpoint
from cedarbox.policy.protocols import KINDS, Kind, kinds_of_proto
from cedarbox.policy.regions import ADDRESSES, PORTS, Box, Ranges, Targets, network_range

__all__ = [
    "BACKENDS",
    "TCP",
    "Backend",
    "BackendName",
    "Entry",
    "carried",
    "comment",
    "is_address",
    "name_of",
    "names_and_ports",
    "place_and_ports",
    "range_of",
]

BackendName = Literal["boxlite", "nftables", "proxy", "squid"]
BACKENDS: Final[tuple[BackendName, ...]] = ("boxlite", "nftables", "proxy", "squid")

TCP: Final = frozenset(KINDS - kinds_of_proto("udp"))
"""All that TCP carries."""


@dataclass(frozen=True)
class Entry:
    """One entry of a list.

    Attributes:
        text: As the backend takes it.
        opens: What the backend lets through for it.
    """

    text: str
    opens: tuple[Box, ...]


@dataclass(frozen=True)
class Backend:
    """A backend.

    Attributes:
        name: Its name.
        opens: In words, what it opens for an entry.
        lacks: What its list does not hold up.
        entries: Makes the entries that could be, of one endpoint; what they open is not looked at yet.
        parse: Reads one entry of a list.
        write: Writes a list for an agent.
        read: Takes the texts of the entries out of a list.
    """

    name: BackendName
    opens: str
    lacks: tuple[str, ...]
    entries: Callable[[Endpoint], Iterator[Entry]]
    parse: Callable[[str], Entry]
    write: Callable[[Sequence[Entry], str, str], str]
    read: Callable[[str], list[str]]


def carried(protocols: Sequence[str]) -> frozenset[Kind]:
    """Return what a proxy lets through that lets through these protocols only; without any, all that TCP carries."""
    if not protocols:
        return TCP
    kinds = frozenset[Kind]().union(*(kinds_of_proto(name) for name in protocols))
    # Whoever looks for TLS and lets only that through sees what it names.
    return frozenset(kind for kind in kinds if kind.proto != "tls" or kind.hello == "named")


def names_and_ports(endpoint: Endpoint) -> Iterator[str]:
    """Yield ``name:port``, ``name:port-port`` and ``*.name:port`` for the names and ports of an endpoint."""
    for target in targets(endpoint.box.targets):
        for name in [target.name] * target.here + [f"*.{target.name}"] * target.below if target.name else ():
            for low, high in endpoint.box.ports.parts:
                every = (low, high) == PORTS.parts[0]
                yield f"{name}:{low}" if low == high and not every else f"{name}:{low}-{high}"


def place_and_ports(text: str) -> Box:
    """Read what :func:`names_and_ports` yields, and an address in the place of a name.

    Raises:
        ConfigurationError: It is not of that form.
    """
    name, colon, ports = text.rpartition(":")
    low, dash, high = ports.partition("-")
    if not colon or not _is_number(low) or (dash and not _is_number(high)):
        raise ConfigurationError(f"{text[:80]!r} is not host:port", hint="write mirror.corp.example:443")
    first, last = int(low), int(high or low)
    if not 1 <= first <= last <= 65535:
        raise ConfigurationError(f"{text[:80]!r} has no ports from 1 to 65535", hint="write 443 or 8000-8080")
    held = Ranges.of([(first, last)])
    if is_address(name.strip("[]")):
        return Box(targets=ADDRESSES, ports=held, ips=Ranges.of([range_of(name.strip("[]"))]))
    below = name.startswith("*.")
    return Box(targets=Targets.below(name_of(name[2:])) if below else Targets.host(name_of(name)), ports=held)


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii() and len(text) <= 5


def comment(text: str) -> str:
    """Return a text that stays within the line of a comment."""
    return "".join(char if char.isprintable() else "?" for char in text)


def is_address(text: str) -> bool:
    """Whether a text is an address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def range_of(text: str) -> tuple[int, int]:
    """Return the first and the last place of a network.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        return network_range(ipaddress.ip_network(text))
    except ValueError:
        raise ConfigurationError(f"{text[:80]!r} is no network", hint="write it like 10.0.0.0/8") from None


def name_of(text: str) -> str:
    """Return a name in canonical form.

    Raises:
        ConfigurationError: It is none.
    """
    try:
        host = canonical_host(text)
    except CanonicalizationError as error:
        raise ConfigurationError(error.message, hint="write one host name") from None
    if isinstance(host, Address) or host.name != text.lower().removesuffix("."):
        raise ConfigurationError(f"{text[:80]!r} is no name in canonical form", hint=f"write {host}")
    return host.name
