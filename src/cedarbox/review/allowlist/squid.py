"""Access rules of Squid, for names and ports; addresses are left out, as ``dst`` takes names that lead there, too.

What an entry opens is what Squid 5 and later do with these rules, by their manual, and tried with Squid 5.7:

* ``dstdomain -n`` compares the name in the request as it is written there. Without ``-n`` an address would be looked up
  backwards, and whoever owns it says which name comes out.
* ``port`` is that of the request, and ``proto HTTP`` leaves out FTP and what Squid itself would wrap in TLS.
* ``dst`` matches when one of the addresses of a name does. So the classes that are not to be dialled are denied first;
  then one of the others is asked for, so that a name that could not be looked up is denied, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.policy.endpoints import Endpoint
from cedarbox.policy.protocols import kinds_of_proto
from cedarbox.policy.regions import CLASSES, Ranges, address_at
from cedarbox.review.allowlist.forms import (
    Backend,
    Entry,
    carried,
    comment,
    is_address,
    names_and_ports,
    place_and_ports,
    range_of,
)
from cedarbox.review.allowlist.points import addresses_of

__all__ = ["squid"]

_AGENT: Final = "cedarbox_agent"
_HOW: Final = {"tunnel": "cedarbox_tunnel", "plain": "cedarbox_plain !cedarbox_tunnel"}
_PER_LINE: Final = 6
_TRANSLATED: Final = "64:ff9b::/96"
"""By way of these a translator of the site dials any address of IPv4, whatever its class."""


def squid(dialled: frozenset[str], protocols: tuple[str, ...]) -> Backend:
    """Return Squid as a backend.

    Args:
        dialled: It dials addresses of these classes only.
        protocols: What goes through its tunnels is of these protocols only; empty for all that runs over TCP.

    Raises:
        ConfigurationError: No address is of these classes, or some are translated on their way.
    """
    if not addresses_of(dialled) or (dialled != CLASSES and "reserved" in dialled):
        told = "unresolved is no class of addresses, and of the reserved ones some lead elsewhere"
        raise ConfigurationError(told, hint="write --dials public, private or another")
    tunnelled, plain = carried(protocols), kinds_of_proto("http")
    dials = "any address" if dialled == CLASSES else f"{', '.join(sorted(dialled))} addresses only"
    speaks = "all that TCP carries" if not protocols else " and ".join(protocols)
    lacks = [
        "no addresses: what a policy permits by address is left out",
        "connections are not decided or recorded one by one, so no policy about a request holds in them",
    ]
    if protocols:
        lacks.insert(0, f"these rules do not look into tunnels: that they carry only {speaks} is believed")
    if dialled != CLASSES:
        lacks.append(
            "Squid looks a name up for the rule, and again to dial it if what it remembers has expired meanwhile: "
            "keep negative_dns_ttl, which is the least time that it remembers, at its minute"
        )

    def rule(text: str) -> Entry:
        how, _, place = text.partition(" ")
        if how not in _HOW:
            raise ConfigurationError(f"{text[:80]!r} is no rule", hint="write tunnel mirror.corp.example:443")
        box = place_and_ports(place)
        if box.targets.addresses:
            raise ConfigurationError(f"{place[:80]!r} is no name", hint="an address has no rule in a list for Squid")
        return Entry(text, (replace(box, kinds=tunnelled if how == "tunnel" else plain, classes=dialled),))

    def rules(endpoint: Endpoint) -> Iterator[Entry]:
        for place in names_and_ports(endpoint):
            if not is_address(place.rpartition(":")[0]):
                yield from (rule(f"{how} {place}") for how in _HOW)

    def write(entries: Sequence[Entry], agent: str, digest: str) -> str:
        head = [
            f"# What {comment(agent)} may connect to, by {digest}.",
            "# Made by cedarbox policy compile. Include it before other rules of http_access, and before it say who",
            f"# the agent is, such as: acl {_AGENT} src 192.0.2.7",
        ]
        return "\n".join([*head, *_directives([entry.text for entry in entries], dialled)]) + "\n"

    def read(text: str) -> list[str]:
        return _entries(text, dialled)

    return Backend(
        "squid",
        f"for a name and a port: {speaks} through a tunnel (CONNECT), or plain HTTP, to {dials}",
        tuple(lacks),
        rules,
        rule,
        write,
        read,
    )


def _directives(entries: Sequence[str], dialled: frozenset[str]) -> list[str]:
    lines = ["acl cedarbox_tunnel method CONNECT", "acl cedarbox_plain proto HTTP"]
    dials = ""
    if dialled != CLASSES:
        # The mapped form of IPv4 is for Squid the address itself.
        others = addresses_of(CLASSES - dialled) | Ranges.of([range_of(_TRANSLATED)])
        lines += _long("acl cedarbox_elsewhere dst", _ranges(others))
        lines += _long("acl cedarbox_dialled dst", _ranges(addresses_of(dialled)))
        lines.append(f"http_access deny {_AGENT} cedarbox_elsewhere")
        dials = " cedarbox_dialled"
    for number, entry in enumerate(entries, start=1):
        how, _, place = entry.partition(" ")
        name, _, ports = place.rpartition(":")
        this = f"cedarbox_{number}"
        lines.append(f"acl {this}_port port {ports}")
        lines.append(f"acl {this}_name dstdomain -n {name.removeprefix('*')}")
        inside = f"{this}_name"
        if name.startswith("*."):
            # A leading dot takes in the name itself.
            lines.append(f"acl {this}_itself dstdomain -n {name[2:]}")
            inside += f" !{this}_itself"
        lines.append(f"http_access allow {_AGENT} {_HOW[how]} {this}_port {inside}{dials}")
    return [*lines, f"http_access deny {_AGENT}"]


def _ranges(held: Ranges) -> Iterator[str]:
    # As networks they would be hundreds: each address of a metadata service is a hole in private addresses.
    for version in (4, 6):
        family = Ranges.of([range_of("0.0.0.0/0" if version == 4 else "::/0")])
        for first, last in (held & family).parts:
            # For Squid 0.0.0.0 is no address of IPv4: where a range begins with it, another one is ignored.
            low, high = (str(address_at(end)) for end in (first or 1, last))
            yield low if low == high else f"{low}-{high}"


def _long(start: str, given: Iterable[str]) -> list[str]:
    """Return lines that together give an access list its values."""
    values = list(given)
    return [" ".join((start, *values[at : at + _PER_LINE])) for at in range(0, len(values), _PER_LINE)]


_PORT: Final = re.compile(r"acl cedarbox_([0-9]+)_port port ([0-9-]+)")
_NAME: Final = re.compile(r"acl cedarbox_([0-9]+)_name dstdomain -n (\S+)")
_ALLOW: Final = re.compile(r"http_access allow cedarbox_agent (.+) cedarbox_([0-9]+)_port .*")


def _entries(text: str, dialled: frozenset[str]) -> list[str]:
    """Take the entries out of a list, which has nothing else in it than what they are written as."""
    given = [" ".join(line.split()) for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    ports = {found[1]: found[2] for line in given if (found := _PORT.fullmatch(line))}
    names = {found[1]: found[2] for line in given if (found := _NAME.fullmatch(line))}
    how = {words: word for word, words in _HOW.items()}
    entries = []
    for line in given:
        if (found := _ALLOW.fullmatch(line)) and found[1] in how:
            number, name = found[2], names.get(found[2], "")
            name = f"*{name}" if name.startswith(".") else name
            entries.append(f"{how[found[1]]} {name}:{ports.get(number, '')}")
    if given != _directives(entries, dialled):
        raise ConfigurationError(
            "the list is not as cedarbox policy compile writes it",
            hint="give its own file, and the same --dials; other rules of Squid cannot be held against policies",
        )
    return entries
