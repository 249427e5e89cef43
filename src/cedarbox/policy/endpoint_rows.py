"""The list of endpoints in the words of people who run firewalls: one row for each target."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cedarbox.policy.endpoints import Endpoint, Endpoints, endpoints
from cedarbox.policy.engine import PolicyEngine
from cedarbox.policy.protocols import words
from cedarbox.policy.regions import CLASSES, PORTS, PRESENT, Ranges, Targets, networks

__all__ = ["Row", "Target", "agents_alike", "rows", "targets"]


@dataclass(frozen=True, slots=True)
class Target:
    """One target of an endpoint.

    Attributes:
        name: A DNS name; empty above all names, None for an address that is asked for by itself.
        here: The name itself is one.
        below: All names below it are.
        but: What is not, in words.
    """

    name: str | None
    here: bool
    below: bool
    but: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.name is None:
            return "any address"
        if not self.name:
            return "any host"
        return f"{self.name} and *.{self.name}" if self.here and self.below else ("*." * self.below) + self.name


@dataclass(frozen=True, slots=True)
class Row:
    """What one policy permits to one target.

    Attributes:
        host: The target: a name, ``*.`` and a name for all below it, ``any host``, ``any address``; for an address
            that is asked for by itself the networks tell which.
        but: Targets that are not among them.
        ports: ``any``, or ranges such as ``80,443,8000-8080``.
        protocols: ``any``, or words of :func:`cedarbox.policy.protocols.words`.
        classes: ``any``, or classes of addresses.
        networks: ``any``, or the addresses that may be dialled.
        policy: Id of the policy.
        reason: Its ``@reason``.
        when: What else must hold, in Cedar.
        forbidden_by: Ids of the policies that forbid some of it in a way that the row does not tell.
        exact: Everything that the row tells is permitted.
    """

    host: str
    but: tuple[str, ...]
    ports: str
    protocols: tuple[str, ...]
    classes: tuple[str, ...]
    networks: tuple[str, ...]
    policy: str
    reason: str
    when: tuple[str, ...]
    forbidden_by: tuple[str, ...]
    exact: bool


def rows(found: Endpoints) -> tuple[Row, ...]:
    """Return the rows of a list, in the order of its targets."""
    made = {row for entry in found.entries for row in _rows(entry, certain=found.certain)}
    return tuple(sorted(made, key=lambda row: (row.host, row.ports, row.protocols, row.policy, row.networks, row.but)))


def agents_alike(engine: PolicyEngine) -> list[tuple[list[str], Endpoints, tuple[Row, ...]]]:
    """Return the declared agents by what they may connect to: those with the same list, the list, its rows.

    Args:
        engine: The policies.
    """
    groups: list[tuple[list[str], Endpoints, tuple[Row, ...]]] = []
    for agent in sorted(engine.bundle.principals):
        found = endpoints(engine, agent)
        made = rows(found)
        for agents, other, same in groups:
            if (made, found.exact, found.unknown, found.notes) == (same, other.exact, other.unknown, other.notes):
                agents.append(agent)
                break
        else:
            groups.append(([agent], found, made))
    return groups


def _rows(entry: Endpoint, *, certain: bool) -> Iterator[Row]:
    box = entry.box
    for target in targets(box.targets):
        yield Row(
            host=str(target),
            but=target.but,
            ports=_ports(box.ports),
            protocols=words(box.kinds),
            classes=("any",) if box.classes == CLASSES else tuple(sorted(box.classes)),
            networks=_networks(box.ips),
            policy=entry.policy,
            reason=entry.reason,
            when=tuple(sorted(box.conditions)),
            forbidden_by=tuple(sorted({forbid.policy for forbid in entry.excepted})),
            exact=entry.exact and certain,
        )


def targets(held: Targets) -> tuple[Target, ...]:
    """Return the targets of a set, each as high up as it can be told."""
    found: list[Target] = []
    names = sorted(held.rules, key=lambda name: (name.count("."), len(name), name) if name else (-1, 0, ""))
    for name in names:
        here, below = held.rules[name]
        # A longer rule always differs from what is above it, see Targets.
        above = held.at(name.partition(".")[2])[1] if name else False
        if (below and not above) or (here and not above):
            found.append(Target(name, here or not name, below, _but(held, name, names) if below else ()))
    if held.addresses:
        found.append(Target(None, here=True, below=False))
    return tuple(found)


def _but(held: Targets, top: str, names: Sequence[str]) -> tuple[str, ...]:
    inside = [name for name in names if name != top and (not top or name.endswith(f".{top}"))]
    but = []
    for name in inside:
        here, below = held.rules[name]
        if not here and not below:
            but.append(f"{name} and *.{name}")
        elif not (here and below):
            but.append(name if below else f"*.{name}")
    return tuple(but)


def _ports(held: Ranges) -> str:
    if held == PORTS:
        return "any"
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in held.parts)


def _networks(held: Ranges) -> tuple[str, ...]:
    inside, outside = networks(held & PRESENT), networks(PRESENT - held)
    if not outside:
        return ("any",)
    if not inside:
        return ("none that is known",)
    texts = [_text(network) for network in inside]
    return tuple(texts) if len(inside) <= len(outside) else tuple(f"not {_text(network)}" for network in outside)


def _text(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
