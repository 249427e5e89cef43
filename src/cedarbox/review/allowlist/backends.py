"""What each backend can be told, and what it opens for it.

A list is a set of entries. An entry opens all that the backend lets through for it, whatever the policy meant: the sets
below say what that is, and a list is held against the policies by them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from cedarbox.errors import ConfigurationError
from cedarbox.policy.cards import opened_by_card
from cedarbox.policy.endpoint_rows import targets
from cedarbox.policy.endpoints import Endpoint
from cedarbox.policy.protocols import kinds_of_proto
from cedarbox.policy.regions import (
    ADDRESSES,
    CLASSES,
    PRESENT,
    Box,
    Ranges,
    Targets,
    networks,
)
from cedarbox.review.allowlist.forms import (
    TCP,
    Backend,
    BackendName,
    Entry,
    carried,
    comment,
    is_address,
    name_of,
    names_and_ports,
    place_and_ports,
    range_of,
)
from cedarbox.review.allowlist.points import addresses_of
from cedarbox.review.allowlist.squid import squid

__all__ = ["backend_of"]


def backend_of(name: BackendName, *, classes: Sequence[str] = (), protocols: Sequence[str] = ()) -> Backend:
    """Return a backend.

    Args:
        name: Which.
        classes: For ``proxy`` and ``squid``: it dials addresses of these classes only; empty for any.
        protocols: For ``proxy``, and for what goes through tunnels of ``squid``: it lets through these protocols only;
            empty for all that runs over TCP.

    Raises:
        ConfigurationError: A class or a protocol is unknown, or the backend has no such guarantee.
    """
    for given, known, what in ((classes, CLASSES, "class"), (protocols, {"tls", "http", "tcp"}, "protocol")):
        for member in given:
            if member not in known:
                raise ConfigurationError(f"unknown {what} {member[:80]!r}", hint=f"known: {', '.join(sorted(known))}")
    if (classes or protocols) and name not in {"proxy", "squid"}:
        raise ConfigurationError(f"what {name} opens is known", hint="leave --dials and --speaks out")
    match name:
        case "boxlite":
            return _BOXLITE
        case "nftables":
            return _NFTABLES
        case "squid":
            return squid(frozenset(classes) or CLASSES, tuple(protocols))
    return _proxy(frozenset(classes) or CLASSES, tuple(protocols))


# BoxLite


def _names_of(endpoint: Endpoint) -> Iterator[Entry]:
    for target in targets(endpoint.box.targets):
        if target.name and target.here:
            yield _card_name(target.name)


def _card_name(text: str) -> Entry:
    return Entry(text, tuple(opened_by_card(Targets.host(text))))


def _card_entry(text: str) -> Entry:
    if "/" in text or is_address(text):
        # Measured on 0.10.8: every port of an address, TCP and UDP.
        return Entry(text, (Box(targets=ADDRESSES, ips=Ranges.of([range_of(text)])),))
    if text.startswith("*."):
        return Entry(text, tuple(opened_by_card(Targets.below(name_of(text[2:])))))
    return _card_name(name_of(text))


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
    protocols = [name for name, kinds in (("tcp", TCP), ("udp", kinds_of_proto("udp"))) if kinds <= box.kinds]
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
    kinds = TCP if found[2] == "tcp" else kinds_of_proto("udp")
    box = Box(
        targets=ADDRESSES,
        ports=Ranges.of([(low, high)]),
        kinds=kinds,
        ips=Ranges.of([range_of(found[1])]),
    )
    return Entry(text, (box,))


def _nftables_text(entries: Sequence[Entry], agent: str, digest: str) -> str:
    by_family: dict[str, list[str]] = {"ipv4": [], "ipv6": []}
    for entry in entries:
        by_family["ipv6" if ":" in entry.text else "ipv4"].append(entry.text)
    lines = [
        f"# What {comment(agent)} may connect to, by {digest}.",
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
    kinds = carried(protocols)
    dials = "any address" if dialled == CLASSES else f"{', '.join(sorted(dialled))} addresses only"
    speaks = "all that TCP carries" if not protocols else " and ".join(protocols)

    def rule(text: str) -> Entry:
        return Entry(text, (replace(place_and_ports(text), kinds=kinds, classes=dialled),))

    return Backend(
        "proxy",
        f"for a name and a port: {speaks}, to {dials}",
        (
            "the proxy is believed to dial and to let through only what is said above",
            "connections are not decided or recorded one by one, so no policy about a request holds in them",
        ),
        lambda endpoint: map(rule, names_and_ports(endpoint)),
        rule,
        _proxy_text,
        lambda text: [line.strip() for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")],
    )


def _proxy_text(entries: Sequence[Entry], agent: str, digest: str) -> str:
    lines = [f"# What {comment(agent)} may connect to, by {digest}.", *(entry.text for entry in entries)]
    return "\n".join(lines) + "\n"
