"""Allow-lists of a sandbox against the policies: what was asked for, and what a network card may be given.

Both come from the list of endpoints that the policies permit. A list that was asked for must lie within it, entry by
entry. The list for a network card is made of the names of which a card opens nothing that the policies do not permit;
whatever else they permit is dropped, and the record says what and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from cedarbox.egress.allowlist import network_of
from cedarbox.guard.question import Impossible
from cedarbox.policy.cards import CardList, card_list
from cedarbox.policy.endpoints import Endpoints
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
