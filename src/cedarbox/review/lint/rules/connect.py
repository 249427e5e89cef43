"""Rules about connections: S012, S013, S015 to S018.

They look at the regions of :mod:`cedarbox.policy.endpoints`, which are exact for everything that can be said about
port, protocol, class, address and target, however it is written. For each finding a request is put to the engine.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import IP, Address, Host, ip_class
from cedarbox.policy.endpoints import Endpoint
from cedarbox.policy.entities import Base
from cedarbox.policy.protocols import Kind, plainest_first
from cedarbox.policy.regions import ANY_HOST, PRESENT, Box
from cedarbox.review.lint.agents import Agent, Tried
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.walk import samples
from cedarbox.review.lint.wording import listed
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["NEVER", "RULES", "requests_in"]

NEVER: Final = frozenset({"metadata", "loopback", "link_local"})
"""Classes of addresses that no sandbox may reach."""
_INNER: Final = frozenset({"private", "cgnat", "reserved", "multicast"})
_SAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "metadata": ("169.254.169.254", "fd00:ec2::254"),
    "loopback": ("127.0.0.1", "::1"),
    "link_local": ("169.254.1.1", "fe80::1"),
    "private": ("10.0.0.1", "192.168.0.1", "fd00::1"),
    "cgnat": ("100.64.0.1",),
    "reserved": ("192.0.2.1", "2001:db8::1"),
    "multicast": ("224.0.0.1",),
    "public": ("8.8.8.8", "2600::1"),
}
_HIDDEN: Final = frozenset({Kind("tcp", "unnamed"), Kind("tcp", "encrypted")})
_MOST_CANDIDATES: Final = 24


@dataclass(frozen=True, slots=True)
class _Reached:
    """A part of what a permit lets through.

    Attributes:
        policy: The permit.
        agent: For whom.
        entry: What of the list of endpoints it is in.
        box: The part.
        tried: A request in it that Cedar allowed; None when none was found.
    """

    policy: ReviewedPolicy
    agent: Agent
    entry: Endpoint
    box: Box
    tried: Tried | None


def _reached(context: Context, wanted: Box, *, beside: str = "") -> Iterator[_Reached]:
    """Yield what the permits let through of some connections, at most one part for each permit.

    Args:
        context: What is looked at.
        wanted: The connections.
        beside: Only of permits that let through addresses of this class as well.
    """
    found: dict[str, _Reached] = {}
    for agent, endpoints in context.endpoints.items():
        for entry in endpoints.entries:
            known = found.get(entry.policy)
            if known is not None and known.tried is not None:
                continue
            box = entry.box & wanted
            if box and (not beside or entry.box & Box(classes=frozenset({beside}))):
                tried = _try(context, agent, entry.policy, box)
                if known is None or tried is not None:
                    found[entry.policy] = _Reached(context.subject.by_id[entry.policy], agent, entry, box, tried)
    yield from found.values()


def _try(context: Context, agent: Agent, policy_id: str, box: Box) -> Tried | None:
    policy = context.subject.by_id[policy_id]
    for action in requests_in(box, context.bases("connect"), _http(policy)):
        decision = context.decide(agent, action)
        if decision.allowed and policy_id in decision.policies:
            return Tried(agent, action, decision)
    return None


def _http(policy: ReviewedPolicy) -> tuple[tuple[str, str], ...]:
    """Return pairs of method and path that a policy may ask for."""
    texts = list(samples(policy.est))
    methods = [text for text in texts if text.isalpha() and text.isupper()] or ["GET"]
    paths = [text for text in texts if text.startswith("/")]
    return tuple((method, path) for method in methods[:4] for path in [*paths[:4], "/"])


def requests_in(box: Box, bases: Sequence[Base], http: Sequence[tuple[str, str]] = (("GET", "/"),)) -> Iterator[Action]:
    """Yield requests of ``connect`` that lie in a box, a few of each kind.

    Args:
        box: The connections; its conditions are not looked at.
        bases: What the requests carry besides.
        http: Methods and paths of requests in plain HTTP.
    """
    made = 0
    port = box.ports.parts[0][0]
    for base in bases:
        for target in _targets(box):
            for kind in sorted(box.kinds, key=plainest_first):
                for ip, assumed in _addresses(box, target):
                    for method, path in http if kind.request else ((None, None),):
                        try:
                            yield actions.connect(
                                base,
                                target,
                                port=port,
                                proto=kind.proto,
                                ip=ip if isinstance(target, Host) else None,
                                assumed_class=assumed,
                                hello=kind.hello,
                                method=method,
                                path=path,
                            )
                        except ValueError:
                            continue
                        made += 1
                        if made >= _MOST_CANDIDATES * len(bases):
                            return


def _targets(box: Box) -> Iterator[Host | Address]:
    for name, (here, below) in sorted(box.targets.rules.items()):
        if here and name:
            yield Host(name)
        elif below:
            free = Host(f"cedarbox-lint.{name}" if name else "cedarbox-lint.example")
            if free in box.targets:
                yield free
    if box.targets.addresses:
        for ip in _ips(box):
            yield Address(ip)


def _addresses(box: Box, target: Host | Address) -> Iterator[tuple[Address | None, str]]:
    if isinstance(target, Address):
        yield target, "unresolved"
        return
    for ip in _ips(box):
        yield Address(ip), "unresolved"
    if -1 in box.ips:
        for assumed in sorted(box.classes):
            yield None, assumed


def _ips(box: Box) -> Iterator[IP]:
    known = [ipaddress.ip_address(text) for name in sorted(box.classes) for text in _SAMPLES.get(name, ())]
    ends = [at for part in (box.ips & PRESENT).parts[:4] for at in part]
    known += [ipaddress.IPv4Address(at) if at < 2**32 else ipaddress.IPv6Address(at - 2**32) for at in ends]
    for ip in dict.fromkeys(known):
        at = int(ip) + (2**32 if ip.version == 6 else 0)
        if at in box.ips and ip_class(ip) in box.classes:
            yield ip


def _unguarded(context: Context) -> Iterator[Hit]:
    seen: set[tuple[str, str]] = set()
    for endpoints in context.endpoints.values():
        for entry in endpoints.entries:
            box, policy = entry.box, context.subject.by_id[entry.policy]
            count = sum(high - low + 1 for low, high in box.ports.parts)
            if count > context.options.max_ports and (entry.policy, "ports") not in seen:
                seen.add((entry.policy, "ports"))
                many = "any port" if count == 65535 else f"{count} ports"
                port = 443 if 443 in box.ports else box.ports.parts[0][0]
                hint = f"add when {{ context.port == {port} }}, or the few that are needed"
                yield Hit(f"permits connections to {many} of its targets", policy, hint=hint, key="ports")
            open_class = box.classes >= {"public", "private"} and box.ips >= PRESENT and bool(box.targets & ANY_HOST)
            if open_class and (entry.policy, "class") not in seen:
                seen.add((entry.policy, "class"))
                message = "permits connections whatever the class of the address that the name leads to"
                hint = 'add when { context.ipClass == Sandbox::IpClass::"public" }, or "private" for hosts of the site'
                yield Hit(message, policy, hint=hint, key="class")
        for unknown in endpoints.unknown:
            if (unknown.policy, "large") not in seen:
                seen.add((unknown.policy, "large"))
                context.notes.append(f"S012: {unknown.policy} has too many cases to be told as a list")


def _inner_addresses(context: Context) -> Iterator[Hit]:
    told: set[str] = set()
    for found in _reached(context, Box(classes=NEVER)):
        for hit in _told(context, found, NEVER):
            told.add(found.policy.id)
            yield hit
    # A permit that names private addresses and no public ones means them.
    for found in _reached(context, Box(classes=_INNER), beside="public"):
        if found.policy.id not in told:
            yield from _told(context, found, _INNER)


def _told(context: Context, found: _Reached, wanted: frozenset[str]) -> Iterator[Hit]:
    # A class counts where an address of it is among those that are left.
    there = sorted(name for name in wanted if found.box & Box(classes=frozenset({name})))
    classes = listed([name.replace("_", "-") for name in there])
    key = "never" if wanted is NEVER else "inner"
    hint = "forbid these classes to everybody, and permit the one class that is meant"
    if found.tried is not None:
        message = f"lets a sandbox reach {classes} addresses: {found.tried.told}"
        yield Hit(message, found.policy, hint=hint, key=key, details=found.tried.details)
    elif found.entry.exact:
        yield Hit(f"lets a sandbox reach {classes} addresses", found.policy, hint=hint, key=key)
    else:
        context.undecided("S013", found.policy, f"whether {classes} addresses can be reached through it")


def _hidden_names(context: Context) -> Iterator[Hit]:
    for found in _reached(context, Box(kinds=_HIDDEN)):
        if found.tried is None and not found.entry.exact:
            context.undecided("S015", found.policy, "whether TLS that hides its name can be opened through it")
            continue
        told = f": {found.tried.told}" if found.tried else ""
        details = found.tried.details if found.tried else {}
        yield Hit(f"permits TLS that does not name its target{told}", found.policy, details=details)


def _lookups(context: Context) -> Iterator[Hit]:
    for policy in context.permits("resolve"):
        any_name = any(literal.kind == "Domain" and literal.id == "." for literal in context.literals(policy))
        wide = any_name or (policy.est["resource"]["op"] == "All" and not policy.est.get("conditions"))
        message = "permits look-ups of any name" if wide else "permits look-ups of names"
        yield Hit(f"{message}, which carry data out in the names", policy, severity="error" if wide else None)


def _open_networks(context: Context) -> Iterator[Hit]:
    for policy in context.permits("connectAnywhere"):
        yield Hit("permits a network that no policy restricts", policy)


def _published(context: Context) -> Iterator[Hit]:
    bases = context.bases("exposePort")
    ports = {80, 8080, 65535}
    for policy in context.permits("exposePort"):
        ports |= {node.given for node in context.nodes(policy) if type(node.given) is int and 0 < node.given < 65536}
        ports |= {
            int(literal.id) for literal in context.literals(policy) if literal.kind == "Port" and literal.id.isdecimal()
        }
    asked = [
        action
        for base in bases
        for port in sorted(ports)
        for action in context.made(actions.expose_port, base, port=port, public=True)
    ]
    yield from context.first_hits(asked, "exposePort", "publishes a port of the guest to other machines")


RULES: Final = (
    LintRule(
        "S012",
        "connect-without-guard",
        "warning",
        "A permit of connections without a limit of ports, or of the class of the address",
        "limit the port and the class of the address",
        "meaning",
        _unguarded,
    ),
    LintRule(
        "S013",
        "reaches-inner-address",
        "error",
        "A permit through which a sandbox can reach metadata, loopback, link-local or unmeant inner addresses",
        "forbid these classes to everybody",
        "prover",
        _inner_addresses,
    ),
    LintRule(
        "S015",
        "hidden-tls-name",
        "warning",
        "A permit through which TLS can be opened that does not name its target (no SNI, or Encrypted Client Hello)",
        'forbid context has hello && [Sandbox::Hello::"unnamed", Sandbox::Hello::"encrypted"].contains(context.hello)',
        "prover",
        _hidden_names,
    ),
    LintRule(
        "S016",
        "permits-lookups",
        "warning",
        "A permit of DNS look-ups by the sandbox",
        "leave it out: permitted hosts are looked up outside the sandbox",
        "text",
        _lookups,
    ),
    LintRule(
        "S017",
        "permits-open-network",
        "error",
        "A permit of connectAnywhere",
        "use a backend that restricts the network, and permit connect",
        "text",
        _open_networks,
    ),
    LintRule(
        "S018",
        "publishes-port",
        "warning",
        "A permit through which a port of the guest can be published to other machines",
        "add unless { context.public }",
        "prover",
        _published,
    ),
)
"""The rules."""
