"""What an agent may connect to: the ``connect`` policies of a bundle, as a list.

The list never says less than the policies: what they allow, it covers. Where it says more, because a rule cannot be put
into it, the entry tells so, and :attr:`Endpoints.exact` is false. What may be opened on the strength of the list alone
is asked of :meth:`Endpoints.permits`, which counts exact entries only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cedarbox.policy.bundle import Policy, PolicyBundle
from cedarbox.policy.canonical import IP, Address, Host
from cedarbox.policy.conditions import Reader
from cedarbox.policy.engine import PolicyEngine
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.protocols import Kind
from cedarbox.policy.regions import NO_TARGET, Box, Region, TooLargeError, difference, union

__all__ = ["Endpoint", "Endpoints", "Forbidden", "Unknown", "endpoints", "endpoints_of"]

_TOO_LARGE = "it has too many cases to be told as a list"


@dataclass(frozen=True)
class Forbidden:
    """A forbid that could not be taken off an entry: it depends on more than the entry tells.

    Attributes:
        policy: Id of the policy.
        box: What it is about.
    """

    policy: str
    box: Box


@dataclass(frozen=True)
class Endpoint:
    """Connections that one policy permits.

    Attributes:
        policy: Id of the policy.
        reason: Its ``@reason``; may be empty.
        box: The connections; forbids that could be taken off are off.
        excepted: The forbids that could not be.
    """

    policy: str
    reason: str
    box: Box
    excepted: tuple[Forbidden, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every connection of it is permitted, whatever else holds."""
        return not self.box.conditions and not self.excepted


@dataclass(frozen=True, slots=True)
class Unknown:
    """A policy that could not be put into the list.

    Attributes:
        policy: Id of the policy.
        effect: ``permit`` or ``forbid``. The entry of a permit holds all that its scope names.
        text: Why not.
    """

    policy: str
    effect: str
    text: str


@dataclass(frozen=True)
class Endpoints:
    """What an agent may connect to.

    Attributes:
        entries: What is permitted; two entries may overlap.
        unknown: The policies that could not be put into it.
        notes: What a reader should know, such as a name in a policy that nothing can match, or what else of the network
            is permitted.
        exact: The list and the policies say the same of every connection.
        certain: No policy can fail to evaluate. One that fails denies everything, so without this no entry counts.
    """

    entries: tuple[Endpoint, ...]
    unknown: tuple[Unknown, ...] = ()
    notes: tuple[str, ...] = ()
    exact: bool = True
    certain: bool = True

    def covers(self, target: Host | Address, *, port: int, kind: Kind, ip_class: str, ip: IP | None) -> bool:
        """Whether a connection is in the list, when the conditions of an entry hold and its exceptions do not.

        Args:
            target: What is asked for.
            port: 1 to 65535.
            kind: The protocol, and what of its first bytes goes with it.
            ip_class: A member of ``Sandbox::IpClass``.
            ip: The address; None when it is not known yet.
        """
        held = (entry.box for entry in self.entries)
        return any(box.holds(target, port=port, kind=kind, ip_class=ip_class, ip=ip) for box in held)

    def permits(self, box: Box) -> bool:
        """Whether every connection of a box is permitted for certain."""
        if not self.certain:
            return False
        try:
            return not difference((box,), tuple(entry.box for entry in self.entries if entry.exact))
        except TooLargeError:
            return False

    def touches(self, box: Box) -> bool:
        """Whether some connection of a box could be permitted."""
        return any(box & entry.box for entry in self.entries)

    def names_all(self, box: Box) -> bool:
        """Whether each target of a box is the target of some entry, be it on one port."""
        left = box.targets
        for entry in self.entries:
            left = left - entry.box.targets
        return left == NO_TARGET


def endpoints(engine: PolicyEngine, principal: str) -> Endpoints:
    """Return what the policies of an engine let an agent connect to.

    Args:
        engine: The engine.
        principal: Id of the agent; one that is not declared may connect to nothing.
    """
    bundle = engine.bundle
    chosen = {policy.id: policy.est for policy in bundle.policies if "connect" in policy.actions}
    found = endpoints_of(bundle, principal, chosen)
    beside = tuple(_beside(bundle, principal))
    exact = found.exact and not any(action == _ANYWHERE for action, _ in beside)
    return replace(found, notes=(*found.notes, *(note for _, note in beside)), exact=exact)


_ANYWHERE = "connectAnywhere"
_BESIDE: Mapping[str, tuple[frozenset[str], str]] = {
    _ANYWHERE: (
        frozenset({"Backend"}),
        "permits a network that cannot be restricted, and there this list says nothing",
    ),
    "resolve": (frozenset({"Domain", "Host"}), "permits look-ups, so DNS queries leave the sandbox"),
    "exposePort": (frozenset({"Port"}), "permits ports to be published, so connections come in"),
}
"""The other actions of the network, which no entry tells: the types of their resources, and what is said of them."""


def _beside(bundle: PolicyBundle, principal: str) -> Iterator[tuple[str, str]]:
    """Yield what else of the network may be permitted, with its action; a forbid counts where it forbids all of it."""
    if principal not in bundle.principals:
        return
    reader = Reader(principal, bundle.entities)
    about = [policy for policy in bundle.policies if reader.speaks_of(policy.est)]
    for action, (types, said) in _BESIDE.items():
        asked = [policy for policy in about if action in policy.actions and _type_of(policy.est) in {None, *types}]
        whole = (each.est for each in asked if each.effect == "forbid" and each.est["resource"]["op"] == "All")
        if not any(not est["conditions"] for est in whole):
            yield from ((action, f"{policy.id} {said}") for policy in asked if policy.effect == "permit")


def _type_of(est: Mapping[str, Any]) -> str | None:
    """Return the type of the resource that the scope of a policy names; None when it names none."""
    scope = est["resource"]
    named = scope.get("entity_type") or scope.get("entity", {}).get("type")
    return None if named is None else str(named).removeprefix(f"{NAMESPACE}::")


def endpoints_of(bundle: PolicyBundle, principal: str, chosen: Mapping[str, Mapping[str, Any]]) -> Endpoints:
    """Return what policies in Cedar's JSON form let an agent connect to.

    Args:
        bundle: Where they are from.
        principal: Id of the agent.
        chosen: The policies by id, as written or as what partial evaluation left of them.
    """
    if principal not in bundle.principals:
        return Endpoints((), notes=(f"the agent {principal!r} is not declared, so everything is denied",))
    reader = Reader(principal, bundle.entities)
    known: Mapping[str, Policy] = {policy.id: policy for policy in bundle.policies}
    unknown: list[Unknown] = []
    permits: list[Endpoint] = []
    certain: Region = ()
    uncertain: list[Forbidden] = []
    for name, est in chosen.items():
        policy = known[name]
        try:
            region = reader.policy(est)
        except TooLargeError:
            unknown.append(Unknown(name, policy.effect, _TOO_LARGE))
            told = frozenset({f"the conditions of {name} hold"})
            region = tuple(replace(box, conditions=told) for box in reader.scope(est))
        if policy.effect == "permit":
            reason = policy.annotations.get("reason", "")
            permits += [Endpoint(name, reason, box) for box in region]
            continue
        uncertain += [Forbidden(name, box) for box in region if box.conditions]
        try:
            certain = union(certain, tuple(box for box in region if not box.conditions))
        except TooLargeError:
            uncertain += [Forbidden(name, box) for box in region if not box.conditions]
    # The members of a set come in another order in each process.
    numbers = {name: number for number, name in enumerate(chosen)}
    permits.sort(key=lambda permit: (numbers[permit.policy], permit.box.order))
    entries = tuple(entry for permit in permits for entry in _without(permit, certain, uncertain))
    fallible = reader.fallible or bool(unknown)
    exact = not fallible and all(entry.exact for entry in entries)
    return Endpoints(entries, tuple(unknown), tuple(dict.fromkeys(reader.notes)), exact, certain=not fallible)


def _without(permit: Endpoint, certain: Region, uncertain: list[Forbidden]) -> list[Endpoint]:
    try:
        boxes = difference((permit.box,), certain)
    except TooLargeError:
        boxes = (permit.box,)
        uncertain = [*uncertain, *(Forbidden("several forbids", box) for box in certain)]
    return [
        replace(permit, box=box, excepted=tuple(forbid for forbid in uncertain if box & forbid.box))
        for box in sorted(boxes, key=lambda box: box.order)
    ]
