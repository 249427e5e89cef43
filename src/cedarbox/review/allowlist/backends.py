"""What each backend can be told, and what it opens for it.

A list is a set of entries. An entry opens all that the backend lets through for it, whatever the policy meant: the sets
below say what that is, and a list is held against the policies by them.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.policy.canonical import Address, canonical_host
from cedarbox.policy.cards import opened_by_card
from cedarbox.policy.endpoint_rows import Target, targets
from cedarbox.policy.endpoints import Endpoint
from cedarbox.policy.protocols import KINDS, Kind, kinds_of_proto
from cedarbox.policy.regions import (
    ADDRESSES,
    CLASSES,
    PORTS,
    PRESENT,
    Box,
    Ranges,
    Targets,
    network_range,
    networks,
)
from cedarbox.review.allowlist.points import addresses_of

__all__ = ["BACKENDS", "Backend", "BackendName", "Entry", "backend_of"]

BackendName = Literal["boxlite", "nftables", "proxy"]
BACKENDS: Final[tuple[BackendName, ...]] = ("boxlite", "nftables", "proxy")

_TCP: Final = frozenset(KINDS - kinds_of_proto("udp"))


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


def backend_of(name: BackendName, *, classes: Sequence[str] = (), protocols: Sequence[str] = ()) -> Backend:
    """Return a backend.

    Args:
        name: Which.
        classes: For ``proxy``: it dials addresses of these classes only; empty for any.
        protocols: For ``proxy``: it lets through these protocols only; empty for all that runs over TCP.

    Raises:
        ConfigurationError: A class or a protocol is unknown, or the backend has no such guarantee.
    """
    for given, known, what in ((classes, CLASSES, "class"), (protocols, {"tls", "http", "tcp"}, "protocol")):
        for member in given:
            if member not in known:
                raise ConfigurationError(f"unknown {what} {member[:80]!r}", hint=f"known: {', '.join(sorted(known))}")
    if (classes or protocols) and name != "proxy":
        raise ConfigurationError(f"what {name} opens is known", hint="leave --dials and --speaks out")
    match name:
        case "boxlite":
            return _BOXLITE
        case "nftables":
            return _NFTABLES
    return _proxy(frozenset(classes) or CLASSES, tuple(protocols))


# BoxLite


def _names_of(endpoint: Endpoint) -> Iterator[Entry]:
    for target in targets(endpoint.box.targets):
        if target.name and target.here:
            yield _card_name(target.name)


def _card_name(text: str) -> Entry:
    return Entry(text, tuple(opened_by_card(Targets.host(text))))


def _card_entry(text: str) -> Entry:
    if "/" in text or _is_address(text):
        # Measured on 0.10.8: every port of an address, TCP and UDP.
        return Entry(text, (Box(targets=ADDRESSES, ips=Ranges.of([_range(text)])),))
    if text.startswith("*."):
        return Entry(text, tuple(opened_by_card(Targets.below(_name(text[2:])))))
    return _card_name(_name(text))


def _boxlite_text(entries: Sequence[Entry], agent: str, digest: str) -> str:
    del agent, digest  # the client checks every key
    allowed = [entry.text for entry in entries]
    options = {"egress_mode": "nic", "egress_allowlist": allowed} if allowed else {"egress_mode": "none"}
    return json.dumps(options, indent=2) + "\n"


def _boxlite_entries(text: str) -> list[str]:
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        options = None
    allowed: Any = options if isinstance(options, list) else None
    if isinstance(options, dict):
        mode = options.get("egress_mode")
        allowed = options.get("egress_allowlist", [] if mode in {"none", "broker"} else None)
    if not isinstance(allowed, list) or not all(isinstance(entry, str) for entry in allowed):
        raise ConfigurationError(
            "the list is not JSON with egress_allowlist, a list of text", hint="give the options of the BoxLite client"
        )
    return [entry.lower() for entry in allowed]


_BOXLITE: Final = Backend(
    "boxlite",
    "for a name: TLS on port 443 and plain HTTP on port 80, to public addresses",
    (
        "DNS queries for any name are answered through the gateway, so data can leave in names",
        "connections are not decided or recorded one by one, so no policy about a TLS hello or a request holds in them",
        'with egress_mode "broker" no list is needed: each connection is decided by the policies themselves',
    ),
    _names_of,
    _card_entry,
    _boxlite_text,
    _boxlite_entries,
)


# nftables


def _addresses_of(endpoint: Endpoint) -> Iterator[Entry]:
    box = endpoint.box
    if not box.targets.addresses:
        return
    protocols = [name for name, kinds in (("tcp", _TCP), ("udp", kinds_of_proto("udp"))) if kinds <= box.kinds]
    if not box.ips & PRESENT or not protocols:
        return
    held = box.ips & PRESENT
    if box.classes != CLASSES:
        held = held & addresses_of(box.classes)
    for network in networks(held):
        for low, high in box.ports.parts:
            for protocol in protocols:
                ports = str(low) if low == high else f"{low}-{high}"
                yield _element(f"{network} . {protocol} . {ports}")


_ELEMENT: Final = re.compile(r"([0-9a-f.:/]+)\s*\.\s*(tcp|udp)\s*\.\s*([0-9]{1,5})(?:-([0-9]{1,5}))?")


def _element(text: str) -> Entry:
    found = _ELEMENT.fullmatch(text)
    if found is None:
        raise ConfigurationError(f"{text[:80]!r} is no element", hint="write 10.0.0.0/8 . tcp . 443")
    low = int(found[3])
    high = int(found[4] or low)
    if not 1 <= low <= high <= 65535:
        raise ConfigurationError(f"{text[:80]!r} has no ports from 1 to 65535", hint="write 443 or 8000-8080")
    kinds = _TCP if found[2] == "tcp" else kinds_of_proto("udp")
    box = Box(
        targets=ADDRESSES,
        ports=Ranges.of([(low, high)]),
        kinds=kinds,
        ips=Ranges.of([_range(found[1])]),
    )
    return Entry(text, (box,))


def _nftables_text(entries: Sequence[Entry], agent: str, digest: str) -> str:
    by_family: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for entry in entries:
        by_family["ipv6" if ":" in entry.text else "ipv4"].append(entry.text)
    lines = [
        f"# What {_comment(agent)} may connect to, by {digest}.",
        "# Made by cedarbox policy compile. Nothing jumps to the chain yet: jump to it with the traffic of the agent.",
        "table inet cedarbox {",
    ]
    for family, texts in by_family.items():
        lines += [
            f"  set allowed_{family} {{",
            f"    type {family}_addr . inet_proto . inet_service",
            "    flags interval",
        ]
        lines += [f"    elements = {{ {(',' + chr(10) + '                 ').join(texts)} }}"] if texts else []
        lines += ["  }"]
    lines += [
        "  chain agent {",
        "    ct state established,related accept",
        "    ip daddr . meta l4proto . th dport @allowed_ipv4 accept",
        "    ip6 daddr . meta l4proto . th dport @allowed_ipv6 accept",
        "    reject with icmpx admin-prohibited",
        "  }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def _nftables_entries(text: str) -> list[str]:
    plain = "\n".join(line.partition("#")[0] for line in text.split("\n"))
    found = re.findall(r"elements\s*=\s*\{([^}]*)\}", plain)
    if not found and "set allowed_" not in plain:
        raise ConfigurationError("the list has no set with elements", hint="give a file of cedarbox policy compile")
    return [" ".join(part.split()) for body in found for part in body.split(",") if part.strip()]


_NFTABLES: Final = Backend(
    "nftables",
    "for a network, a protocol and ports: everything that TCP, or UDP, carries there",
    (
        "no host names: what a policy permits by name is left out",
        "addresses are matched, not what is inside: an entry is kept only where TLS, HTTP and all else is permitted",
        "connections are not decided or recorded one by one",
    ),
    _addresses_of,
    _element,
    _nftables_text,
    _nftables_entries,
)


# A proxy


def _proxy(dialled: frozenset[str], protocols: tuple[str, ...]) -> Backend:
    kinds: frozenset[Kind] = _TCP
    if protocols:
        kinds = frozenset().union(*(kinds_of_proto(name) for name in protocols))
        # Whoever looks for TLS and lets only that through sees what it names.
        kinds = frozenset(kind for kind in kinds if kind.proto != "tls" or kind.hello == "named")
    dials = "any address" if dialled == CLASSES else f"{', '.join(sorted(dialled))} addresses only"
    speaks = "all that TCP carries" if not protocols else " and ".join(protocols)

    def rule(text: str) -> Entry:
        name, colon, ports = text.rpartition(":")
        low, dash, high = ports.partition("-")
        if (
            not colon
            or not low.isdecimal()
            or not low.isascii()
            or (dash and not (high.isdecimal() and high.isascii()))
        ):
            raise ConfigurationError(f"{text[:80]!r} is not host:port", hint="write mirror.corp.example:443")
        first, last = int(low), int(high or low)
        if not 1 <= first <= last <= 65535:
            raise ConfigurationError(f"{text[:80]!r} has no ports from 1 to 65535", hint="write 443 or 8000-8080")
        if _is_address(name.strip("[]")):
            held, ips = ADDRESSES, Ranges.of([_range(name.strip("[]"))])
        else:
            held = Targets.below(_name(name[2:])) if name.startswith("*.") else Targets.host(_name(name))
            ips = Box().ips
        box = Box(targets=held, ports=Ranges.of([(first, last)]), kinds=kinds, classes=dialled, ips=ips)
        return Entry(text, (box,))

    def rules(endpoint: Endpoint) -> Iterator[Entry]:
        for target in targets(endpoint.box.targets):
            for name in _spelt(target):
                for low, high in endpoint.box.ports.parts:
                    if (low, high) != PORTS.parts[0]:
                        yield rule(f"{name}:{low}" if low == high else f"{name}:{low}-{high}")
                    else:
                        yield rule(f"{name}:1-65535")

    return Backend(
        "proxy",
        f"for a name and a port: {speaks}, to {dials}",
        (
            "the proxy is believed to dial and to let through only what is said above",
            "connections are not decided or recorded one by one, so no policy about a request holds in them",
        ),
        rules,
        rule,
        _proxy_text,
        lambda text: [line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")],
    )


def _spelt(target: Target) -> Iterator[str]:
    if target.name:
        if target.here:
            yield target.name
        if target.below:
            yield f"*.{target.name}"


def _proxy_text(entries: Sequence[Entry], agent: str, digest: str) -> str:
    lines = [f"# What {_comment(agent)} may connect to, by {digest}.", *(entry.text for entry in entries)]
    return "\n".join(lines) + "\n"


# Texts


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _range(text: str) -> tuple[int, int]:
    try:
        return network_range(ipaddress.ip_network(text))
    except ValueError:
        raise ConfigurationError(f"{text[:80]!r} is no network", hint="write it like 10.0.0.0/8") from None


def _name(text: str) -> str:
    try:
        host = canonical_host(text)
    except CanonicalizationError as error:
        raise ConfigurationError(error.message, hint="write one host name") from None
    if isinstance(host, Address) or host.name != text.lower().removesuffix("."):
        raise ConfigurationError(f"{text[:80]!r} is no name in canonical form", hint=f"write {host}")
    return host.name
