"""Allow-lists of hosts and addresses: one spelling for each entry, and whether a target is on the list."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, canonical_host

__all__ = ["Network", "canonical_entry", "lists", "lists_name", "network_of"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def canonical_entry(text: str) -> str:
    """Return the one spelling of an entry: a name, ``*.`` and a name (all below it), an address, or a network.

    Args:
        text: The entry.

    Raises:
        CanonicalizationError: It is none of these, or a network that means everywhere.
    """
    if "/" in text:
        return str(_network(text))
    if not text.startswith("*."):
        return str(canonical_host(text))
    domain = canonical_host(text.removeprefix("*."))
    if isinstance(domain, Address):
        raise CanonicalizationError(f"nothing is below the address {domain}")
    return f"*.{domain}"


def _network(text: str) -> Network:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise CanonicalizationError(f"the network {text[:80]!r} cannot be used: {error}") from None
    if not text.rpartition("/")[2].isdecimal():
        raise CanonicalizationError(f"the network {text[:80]!r} is not an address and a prefix length")
    if network.prefixlen == 0:
        raise CanonicalizationError(f"the network {text[:80]!r} means every address")
    return network


def network_of(entry: str) -> Network | None:
    """Return the addresses of a canonical entry; None for one that holds names."""
    if entry.startswith("*."):
        return None
    if "/" in entry:
        return ipaddress.ip_network(entry)
    target = canonical_host(entry)
    return ipaddress.ip_network(target.ip) if isinstance(target, Address) else None


def lists(entries: Iterable[str], target: Host | Address) -> bool:
    """Whether a target is on a list. A name is on it by its name only, not by the address that it leads to.

    Args:
        entries: Canonical entries.
        target: What is asked for.
    """
    if isinstance(target, Host):
        return lists_name(entries, target.name)
    networks = (network_of(entry) for entry in entries)
    return any(network is not None and target.ip in network for network in networks)


def lists_name(entries: Iterable[str], name: str) -> bool:
    """Whether a canonical name is on a list; see :func:`lists`."""
    return any(name.endswith(entry[1:]) if entry.startswith("*.") else name == entry for entry in entries)
