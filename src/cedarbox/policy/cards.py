"""What the network card of a sandbox may be given, so that it opens nothing that the policies do not permit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cedarbox.policy.endpoint_rows import Target, targets
from cedarbox.policy.endpoints import Endpoint, Endpoints
from cedarbox.policy.protocols import kinds_of_proto
from cedarbox.policy.regions import Box, Ranges, Targets

__all__ = ["CardList", "card_list", "opened_by_card"]

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
    return all(found.permits(box) for box in opened_by_card(Targets.host(name)))


def opened_by_card(held: Targets) -> Iterator[Box]:
    """Yield the connections that a card opens for what is listed.

    Args:
        held: The listed targets.
    """
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
        for (port, proto), box in zip(_OPENED, opened_by_card(Targets.host(target.name)), strict=True)
        if not found.permits(box)
    ]
    return f"a card would open {' and '.join(short)} to public addresses, which is not permitted"
