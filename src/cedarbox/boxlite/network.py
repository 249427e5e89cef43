"""The network of a box: what BoxLite can express, and the one place where its network object is built."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, Literal

from cedarbox.boxlite import api
from cedarbox.egress.allowlist import canonical_entry
from cedarbox.errors import CanonicalizationError, ConfigurationError

__all__ = [
    "EGRESS_MODES",
    "EgressMode",
    "card",
    "check_egress",
    "check_mode",
    "check_ports",
    "egress_entry",
    "network_spec",
]

EgressMode = Literal["broker", "nic", "none"]
EGRESS_MODES: Final = ("broker", "nic", "none")
"""How a sandbox reaches others: through the broker of the host, by a network card of its own, or not at all."""

# A DNS label: letters, digits, hyphen, not at the ends (RFC 1123 §2.1); underscores occur in real service names.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_FORMS = "write a host name, *.host name, IPv4 address or IPv4 network such as 10.0.0.0/8"


def egress_entry(entry: object) -> str:
    """Check one entry of an egress allow-list and return it in lower case.

    BoxLite 0.10.8 takes host names, ``*.`` host names, IPv4 addresses and IPv4 networks (measured); everything else is
    refused here, before a box exists. A network of prefix length 0 is refused because it means everywhere.

    Args:
        entry: The entry.

    Returns:
        The entry in lower case.

    Raises:
        ConfigurationError: The entry is none of the four forms.
    """
    if not isinstance(entry, str):
        raise ConfigurationError(f"egress_allowlist: {entry!r} is not text", hint=_FORMS)
    text = entry.lower()
    if "/" in text:
        return _network(entry, text)
    name = text.removeprefix("*.")
    labels = name.split(".")
    if name == text and all(label.isascii() and label.isdigit() for label in labels):
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise ConfigurationError(f"egress_allowlist: {entry!r} is not an IPv4 address", hint=_FORMS) from None
    well_formed = len(name) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    if not well_formed or _NUMERIC.fullmatch(labels[-1]):
        raise ConfigurationError(f"egress_allowlist: {entry!r} cannot be used", hint=_FORMS)
    return text


def _network(entry: str, text: str) -> str:
    try:
        network = ipaddress.IPv4Network(text, strict=True)
    except ValueError as error:
        raise ConfigurationError(f"egress_allowlist: {entry!r}: {error}", hint=_FORMS) from None
    if not re.fullmatch(r"[0-9.]+/[0-9]{1,2}", text):
        raise ConfigurationError(f"egress_allowlist: {entry!r} is not an address and a prefix length", hint=_FORMS)
    if network.prefixlen == 0:
        raise ConfigurationError(f"egress_allowlist: {entry!r} means every address", hint="name the networks you need")
    return str(network)


def check_mode(mode: object) -> EgressMode:
    """Check how a sandbox is to reach others.

    Raises:
        ConfigurationError: It is none of :data:`EGRESS_MODES`.
    """
    for known in ("broker", "nic", "none"):
        if mode == known:
            return known
    raise ConfigurationError(f"egress_mode: {mode!r} cannot be used", hint="give broker, nic or none")


def check_egress(mode: object, entries: object) -> tuple[str, ...] | None:
    """Check an egress allow-list.

    Args:
        mode: One of :data:`EGRESS_MODES`. A network card takes what BoxLite can express, the broker names and
            addresses of both families; with ``none`` there is nothing to list.
        entries: A tuple or list of entries, or None for what the policies permit.

    Returns:
        The entries in canonical form, in their order, each once; None for None.

    Raises:
        ConfigurationError: It is not a list, or an entry cannot be used.
    """
    mode = check_mode(mode)
    if entries is None:
        return None
    if not isinstance(entries, tuple | list):
        raise ConfigurationError(f"egress_allowlist: {entries!r} is not a list", hint="give a tuple of entries")
    if mode == "none" and entries:
        raise ConfigurationError(
            'egress_allowlist: egress_mode="none" reaches nothing, so nothing can be listed',
            hint='set egress_mode to "broker" or "nic", or list nothing',
        )
    checked = egress_entry if mode == "nic" else _broker_entry
    return tuple(dict.fromkeys(checked(entry) for entry in entries))


def _broker_entry(entry: object) -> str:
    hint = "write a host name, *.host name, IP address or network such as 10.0.0.0/8"
    if not isinstance(entry, str):
        raise ConfigurationError(f"egress_allowlist: {entry!r} is not text", hint=hint)
    try:
        return canonical_entry(entry)
    except CanonicalizationError as error:
        raise ConfigurationError(f"egress_allowlist: {error.message}", hint=hint) from None


def card(mode: object, entries: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return what the network card of a sandbox lets through; empty means that there is no card.

    Args:
        mode: One of :data:`EGRESS_MODES`.
        entries: The egress allow-list.

    Raises:
        ConfigurationError: There is to be a card, and nobody said what it lets through; or the list cannot be used.
    """
    checked = check_egress(mode, entries)
    if mode != "nic":
        return ()
    if checked is None:
        raise ConfigurationError(
            'egress_allowlist: egress_mode="nic" without a list means what the policies permit, and no policies are '
            "in force here",
            hint="guard the client, or list the hosts; an empty list is no network card",
        )
    return checked


def check_ports(ports: object, *, mode: object, egress: tuple[str, ...] | None) -> tuple[int, ...]:
    """Check the ports of the guest that are to be reachable from the host.

    Args:
        ports: A tuple or list of TCP ports, 1 to 65535.
        mode: One of :data:`EGRESS_MODES`; publishing a port needs a network card (measured on BoxLite 0.10.8).
        egress: The egress allow-list.

    Returns:
        The ports, each once.

    Raises:
        ConfigurationError: A port is not a port, or there is no network card.
    """
    if not isinstance(ports, tuple | list):
        raise ConfigurationError(f"exposed_ports: {ports!r} is not a list", hint="give a tuple of port numbers")
    for port in ports:
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise ConfigurationError(f"exposed_ports: {port!r} is not a port", hint="give numbers from 1 to 65535")
    if ports and (mode != "nic" or not egress):
        raise ConfigurationError(
            "exposed_ports needs a network card, and there is none",
            hint='set egress_mode to "nic" and list what may be reached in egress_allowlist, or expose no port',
        )
    return tuple(dict.fromkeys(ports))


def network_spec(mode: object, allow: tuple[str, ...] | None) -> api.NetworkSpec:
    """Build the network policy of a box. This is the only place where one is built.

    An empty list gives a box without a network card, and so does every mode but ``nic``. BoxLite reads *enabled with
    an empty allow_net* as *everything is open* (measured on 0.10.8), so that combination must not exist: the result is
    read back and checked.

    Args:
        mode: One of :data:`EGRESS_MODES`.
        allow: The egress allow-list.

    Returns:
        BoxLite's network object.

    Raises:
        ConfigurationError: An entry cannot be used, a card has no list, or the object does not say what was asked for.
    """
    entries = card(mode, allow)
    spec = api.network_spec_object(mode="enabled" if entries else "disabled", allow_net=entries)
    said = (spec.outbound.mode, tuple(spec.outbound.allow_net or ()))
    if said != (("enabled", entries) if entries else ("disabled", ())):
        raise ConfigurationError(f"BoxLite made the network {said} of the allow-list {entries}", hint="report this")
    return spec
