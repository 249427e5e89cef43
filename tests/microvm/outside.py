"""What is outside a sandbox that is attacked: addresses that listen, names, and the verdict on each attack.

The addresses lead nowhere. Those of the two hosts are of AS112 (RFC 7534, RFC 7535), which are public ones that exist
to swallow what should not have been sent; the others are what an attacker looks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.microvm.listeners import Listeners, Sighting, listening
from tests.microvm.probes.tools import WHERE, mark
from tests.microvm.wires import wired

__all__ = ["ATTACKS", "POLICY", "Attack", "outside", "table", "unforeseen", "verdict"]

_ALLOWED, _DENIED, _RESOLVER = WHERE["allowed_ip"], WHERE["denied_ip"], WHERE["resolver"]
_PRIVATE, _IPV6, _SERVICE = WHERE["private_ip"], WHERE["ipv6"], int(WHERE["service"])
_METADATA, _METADATA6 = "169.254.169.254", "fd00:ec2::254"
_PORTS = (22, 80, 443, 853, 9999)
_NAMES = ("allowed.example", "mixed.example", "rebind.example", "meta.allowed.example", "loop.allowed.example")
_ZONE = {
    "allowed.example": [[_ALLOWED]],
    # A resolver sorts what it is given, so each order is tried.
    "mixed.example": [[_ALLOWED, _PRIVATE], [_PRIVATE, _ALLOWED]],
    "rebind.example": [[_ALLOWED], [_PRIVATE], [_METADATA]],
    "meta.allowed.example": [[_METADATA]],
    "loop.allowed.example": [["127.0.0.1"]],
    "metadata.google.internal": [[_METADATA]],
}

_LISTED = ", ".join(f'Sandbox::Host::"{name}"' for name in _NAMES)

POLICY = (
    '@id("sandbox") permit (principal, action in [Sandbox::Action::"lifecycle", Sandbox::Action::"storage", '
    'Sandbox::Action::"execution"], resource);\n'
    '@id("site") @reason("the site that the test permits") permit (principal, action == Sandbox::Action::"connect", '
    f"resource) when {{ resource in [{_LISTED}] "
    "&& [80, 443].contains(context.port) "
    '&& [Sandbox::Proto::"tls", Sandbox::Proto::"http"].contains(context.proto) '
    '&& context.ipClass == Sandbox::IpClass::"public" };\n'
)
"""TLS and HTTP to the permitted names, as long as they lead to public addresses; nothing else."""


@contextmanager
def outside(*more: str) -> Iterator[Listeners]:
    """Give this machine the addresses, the names and ``more`` addresses, and listen. Needs root and a tun device."""
    addresses = (*more, _ALLOWED, _DENIED, _RESOLVER, _PRIVATE, _METADATA, _IPV6, _METADATA6)
    listeners = Listeners(_ZONE, elsewhere=_DENIED)
    with wired(addresses, nameserver=_RESOLVER), listening(listeners):
        for address in addresses:
            for port in _PORTS:
                listeners.tcp(address, port)
            listeners.udp(address, 443)
            listeners.udp(address, 9999)
            for kind in (listeners.tcp, listeners.udp):
                kind(address, 53, names=True)
        for address in ("127.0.0.1", "::1", *more):
            listeners.tcp(address, _SERVICE)
        listeners.icmp()
        yield listeners


def _carried(name: str, seen: Sighting) -> bool:
    return mark(name).encode() in seen.data


def _beside(name: str, seen: Sighting) -> bool:
    """Carried to an address that is not permitted, a name server's too."""
    return _carried(name, seen) and seen.address != _ALLOWED


def _to_another(name: str, seen: Sighting) -> bool:
    """Carried beside, or told to the permitted host as a request for another."""
    lines = bytes(seen.data).lower().split(b"\n")
    others = (b"host: denied.example", b"host: " + mark(name).encode())
    return _beside(name, seen) or (_carried(name, seen) and any(line.startswith(others) for line in lines))


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack.

    Attributes:
        name: Its name among the probes.
        title: What a reader calls it.
        got_out: Whether something that was seen means that it got out.
        kind: ``control`` is to get out; ``burden`` is to do no harm to other connections; else ``attack``.
    """

    name: str
    title: str
    got_out: Callable[[str, Sighting], bool] = _carried
    kind: Literal["attack", "control", "burden"] = "attack"


ATTACKS = (
    Attack("permitted", "*permitted: plain HTTP to a listed host*", kind="control"),
    Attack("permittedtls", "*permitted: TLS to a listed host*", kind="control"),
    Attack("tcpraw", "TCP to an address, ports 22, 80, 443, 9999"),
    Attack("tcpallowed", "TCP to the address of a listed host, ports 22, 9999"),
    Attack("tcpprivate", "TCP to a private address"),
    Attack("udp", "UDP to an address"),
    Attack("quic", "QUIC: UDP port 443, the listed host too"),
    Attack("icmp", "ICMP echo"),
    Attack("dnsudp", "DNS over UDP to the gateway, any name"),
    Attack("dnstcp", "DNS over TCP to the gateway, any name"),
    Attack("dnstxt", "DNS TXT query, data in the name"),
    Attack("dnsother", "DNS to another server"),
    Attack("dnslibc", "a look-up by the C library"),
    Attack("doh", "DNS over HTTPS, by name"),
    Attack("dohdirect", "DNS over HTTPS, by address"),
    Attack("dot", "DNS over TLS, port 853"),
    Attack("ipv6", "IPv6, TCP and UDP"),
    Attack("hostservice", "a service on the host's loopback, by the host's alias"),
    Attack("gateway", "the gateway's own ports"),
    Attack("metadata", "the cloud's metadata service"),
    Attack("metadataproxy", "the same through the proxy, 18 spellings, 3 ways each"),
    Attack("loopbackproxy", "the host's loopback through the proxy, 21 spellings, 3 ways each"),
    Attack("connectaddress", "CONNECT to an address"),
    Attack("allowedbyaddress", "CONNECT to the address of a listed host"),
    Attack("socksaddress", "SOCKS to an address"),
    Attack("socksudp", "SOCKS BIND and UDP ASSOCIATE"),
    Attack("snifronting", "SNI fronting: a listed host is asked for, another is named in TLS"),
    Attack("nosni", "TLS that names no host"),
    Attack("ech", "TLS 1.3 with an encrypted ClientHello"),
    Attack("splithello", "SNI fronting with the ClientHello split, over segments and over records"),
    Attack("nottls", "another protocol on port 443 of a listed host"),
    Attack("hostfronting", "Host fronting: another host in the Host field", _to_another),
    Attack("redirect", "a redirect by a listed host to another"),
    Attack("mixedname", "a listed name with a public and a private address", _beside),
    Attack("rebinding", "DNS rebinding: an address that changes with each look-up", _beside),
    Attack("smuggling", "request smuggling on a kept connection, 10 forms", _to_another),
    Attack("linebreaks", "line breaks and zero bytes in the host, 10 forms", _to_another),
    Attack("userinfo", "user information in front of the host, 10 forms", _to_another),
    Attack("oddports", "port 0, 65536, 65616 and other spellings, 14 forms"),
    Attack("slowloris", "50 requests that never end: are others served?", kind="burden"),
    Attack("halfclose", "finishing before the answer: does it come in full?", kind="burden"),
    Attack("relay", "the relay stopped, its pipes written to, killed, its port taken"),
)


def verdict(attack: Attack, told: Mapping[str, object], seen: list[Sighting]) -> str:
    """Say how an attack ended: ``reached`` when the listeners saw it, whatever the guest says.

    Args:
        attack: The attack.
        told: What the probe said of it.
        seen: What reached the listeners.

    Returns:
        ``reached``; ``answered`` when nothing reached them and something came back all the same; ``blocked``;
        ``no proxy`` for an attack on a proxy where there is none; ``harmless`` or ``harmful`` for a burden.
    """
    if not told["proxy"]:
        return "no proxy"
    if attack.kind == "burden":
        return "harmful" if told["answer"] or told["error"] else "harmless"
    if any(attack.got_out(attack.name, one) for one in seen):
        return "reached"
    # The permitted host may have answered what the others of these came down to.
    return "answered" if told["answer"] and attack.got_out is _carried else "blocked"


def unforeseen(seen: list[Sighting]) -> list[Sighting]:
    """What reached the listeners and is nothing that the policy permits, carried by whatever attack."""
    return [one for one in seen if not _foreseen(one)]


def _foreseen(seen: Sighting) -> bool:
    if seen.proto == "dns":
        return seen.address == _RESOLVER and seen.data.split(b" ")[0].decode(errors="replace") in _NAMES
    return seen.proto == "tcp" and seen.address == _ALLOWED and seen.port in (80, 443)


def table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """The matrix as Markdown: for each column, the verdict on each attack by its name."""
    lines = ["| attack | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for attack in ATTACKS:
        told = [
            _shown(column.get(attack.name, "not tried"), plain=attack.kind == "control") for column in columns.values()
        ]
        lines.append(f"| {attack.title} | {' | '.join(told)} |")
    return "\n".join(lines) + "\n"


def _shown(said: str, *, plain: bool) -> str:
    return f"**{said}**" if said in ("reached", "answered", "harmful") and not plain else said
