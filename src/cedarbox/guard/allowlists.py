"""Allow-lists of a sandbox against the policies: what was asked for, and what a network card may be given.

Both come from the list of endpoints that the policies permit. A list that was asked for must lie within it, entry by
entry. The list for a network card is made of the names of which a card opens nothing that the policies do not permit;
whatever else they permit is dropped, and the record says what and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cedarbox.egress.allowlist import network_of
from cedarbox.guard.question import Impossible
from cedarbox.policy.endpoint_rows import Target, targets
from cedarbox.policy.endpoints import Endpoint, Endpoints
from cedarbox.policy.protocols import kinds_of_proto
from cedarbox.policy.regions import ADDRESSES, Box, Ranges, Targets, network_range

__all__ = ["LEAKS", "CardList", "card_list", "refused_entries"]

LEAKS: Final = (
    "DNS queries for any name are answered through the gateway, so data can leave in names",
    "what the card refuses is not reported, so the ledger has no record of it",
    "a listed name is reached on ports 80 and 443 by what the guest says it is (SNI or Host), and nothing looks inside",
    "connections are not decided or recorded one by one, so no policy about a TLS hello or a request holds in them",
    "a listed name is looked up again for each connection",
    "the gateway answers ICMP echoes for every address, whether or not it is reached",
)
"""What gets past the allow-list of a network card, or past the record of it (measured on BoxLite 0.10.8)."""

# What BoxLite opens for a listed name: these ports, to public addresses only (measured on 0.10.8). Nobody looks at the
# first bytes there; what would be denied when somebody does is not opened either.
_OPENED: Final = ((443, "tls"), (80, "http"))


@dataclass(frozen=True, slots=True)
class CardList:
    """What a network card may let through.

    Attributes:
        names: Host names; empty means that there can be no card.
        dropped: What the policies permit and a card could not be held to: the policy, the target, and why.
    """

    names: tuple[str, ...]
    dropped: tuple[str, ...]


def card_list(found: Endpoints) -> CardList:
    """Return what a network card may be given, so that it opens nothing that the policies do not permit.

    Args:
        found: What the policies permit.
    """
    names: dict[str, None] = {}
    dropped: dict[str, None] = {
        f"{item.policy}: {item.text}": None for item in found.unknown if item.effect == "permit"
    }
    for entry in found.entries:
        for target in targets(entry.box.targets):
            if target.name and target.here and _opens_only(found, target.name):
                names[target.name] = None
                if not target.below:
                    continue
            dropped[f"{entry.policy}: {target}: {_why_not(found, entry, target)}"] = None
    return CardList(tuple(sorted(names)), tuple(dropped))


def _opens_only(found: Endpoints, name: str) -> bool:
    return all(found.permits(box) for box in _opened(Targets.host(name)))


def _opened(held: Targets) -> Iterator[Box]:
    for port, proto in _OPENED:
        yield Box(
            targets=held,
            ports=Ranges.of([(port, port)]),
            kinds=kinds_of_proto(proto),
            classes=frozenset({"public"}),
        )


def _why_not(found: Endpoints, entry: Endpoint, target: Target) -> str:
    if not found.certain:
        return "a policy may fail to evaluate, and then everything is denied"
    if target.name is None:
        return "a card opens every port of an address, and UDP"
    if not target.name:
        return "a card cannot be told any host"
    if target.below:
        return "what is below a name cannot be decided name by name"
    if not entry.exact:
        return "it depends on more than a card can be told"
    short = [
        f"{proto} on port {port}"
        for (port, proto), box in zip(_OPENED, _opened(Targets.host(target.name)), strict=True)
        if not found.permits(box)
    ]
    return f"a card would open {' and '.join(short)} to public addresses, which is not permitted"


def refused_entries(found: Endpoints, requested: Iterable[str]) -> Iterator[Impossible]:
    """Yield the entries of a requested list that the policies could never permit.

    Args:
        found: What the policies permit.
        requested: Canonical entries, see :func:`cedarbox.egress.allowlist.canonical_entry`.
    """
    for entry in requested:
        network = network_of(entry)
        if network is not None:
            box = Box(targets=ADDRESSES, ips=Ranges.of([network_range(network)]))
            if not found.touches(box):
                yield _refused("Address", entry, "no policy could permit an address of it")
        elif entry.startswith("*."):
            if not found.names_all(Box(targets=Targets.below(entry[2:]))):
                yield _refused("Host", entry, "not all of it lies within what the policies could permit")
        elif not found.touches(Box(targets=Targets.host(entry))):
            yield _refused("Host", entry, "no policy could permit it")


def _refused(kind: str, entry: str, reason: str) -> Impossible:
    return Impossible("connect", f'{kind}::"{entry}"', f"the allow-list asks for {entry}: {reason}")
