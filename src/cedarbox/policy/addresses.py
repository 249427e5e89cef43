"""The class of an IP address, from the IANA special-purpose registries, whatever version of Python runs.

Python's ``ipaddress`` follows those registries as they were when it was released, and its ``is_private`` holds what is
merely not reachable from everywhere. Here *private* is what a site numbers its own machines with (RFC 1918, RFC 4193)
and nothing else; what is for documentation, benchmarks, protocols or later use is *reserved*. So a rule that permits
private addresses permits none of those, and a registry that grows does not change what a policy means.
"""

from __future__ import annotations

import ipaddress
from typing import Final

__all__ = ["IP", "classes", "embedded", "ip_class", "translated"]

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(*texts: str) -> tuple[_Network, ...]:
    return tuple(ipaddress.ip_network(text) for text in texts)


# Some of these lie in ranges of another class, and win there.
_METADATA: Final = _networks(
    "169.254.169.254",  # AWS, Azure, Google Cloud, OpenStack, Oracle Cloud, DigitalOcean
    "169.254.170.2",  # AWS ECS task metadata
    "169.254.170.23",  # AWS EKS pod identity
    "169.254.42.42",  # Scaleway
    "169.254.0.23",  # Tencent Cloud
    "100.100.100.200",  # Alibaba Cloud
    "168.63.129.16",  # Azure wire server
    "192.0.0.192",  # Oracle Cloud, classic
    "fd00:ec2::254",  # AWS over IPv6
    "fd00:ec2::23",  # AWS EKS pod identity over IPv6
    "fd00:c1::a9fe:a9fe",  # Oracle Cloud over IPv6
    "fd00:42::42",  # Scaleway over IPv6
    "fd20:ce::254",  # Google Cloud over IPv6
)

# IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), with the RFC that each block is from. The first
# class that holds an address wins.
_CLASSES: Final[tuple[tuple[str, tuple[_Network, ...]], ...]] = (
    ("metadata", _METADATA),
    ("loopback", _networks("127.0.0.0/8", "::1")),  # RFC 1122 §3.2.1.3, RFC 4291 §2.5.3
    ("multicast", _networks("224.0.0.0/4", "ff00::/8")),  # RFC 5771, RFC 4291 §2.7
    ("link_local", _networks("169.254.0.0/16", "fe80::/10")),  # RFC 3927, RFC 4291 §2.5.6
    ("cgnat", _networks("100.64.0.0/10")),  # RFC 6598
    ("private", _networks("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")),  # RFC 1918, RFC 4193
    # Blocks in the reserved ones below that are services of the public internet.
    ("public", _networks("2001:3::/32", "2001:4:112::/48")),  # AMT (RFC 7450), AS112 (RFC 7535)
    (
        "reserved",
        _networks(
            "0.0.0.0/8",  # this network, RFC 791 §3.2
            "192.0.0.0/24",  # IETF protocol assignments, RFC 6890 §2.1; its anycast services are the local network's
            "192.0.2.0/24",  # TEST-NET-1, RFC 5737
            "192.88.99.0/24",  # 6to4 relay anycast, withdrawn by RFC 7526
            "198.18.0.0/15",  # benchmarks, RFC 2544
            "198.51.100.0/24",  # TEST-NET-2, RFC 5737
            "203.0.113.0/24",  # TEST-NET-3, RFC 5737
            "240.0.0.0/4",  # later use, RFC 1112 §4, and the limited broadcast address, RFC 8190
            "2001::/23",  # IETF protocol assignments, RFC 2928: Teredo, benchmarks, ORCHID (RFC 7343), DRIP (RFC 9374)
            "2001:db8::/32",  # documentation, RFC 3849
            "2002::/16",  # 6to4, RFC 3056: where it ends depends on the relay
            "3fff::/20",  # documentation, RFC 9637
        ),
    ),
    # Outside 2000::/3 nothing of IPv6 is global unicast (RFC 4291 §2.4): the discard prefixes 100::/64 and
    # 100:0:0:1::/64, segment routing 5f00::/16 and the withdrawn site-local fec0::/10 are reserved by that.
    ("public", _networks("0.0.0.0/0", "2000::/3")),
)

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052 §2.1
_TRANSLATED: Final = _networks(
    "64:ff9b:1::/48",  # NAT64 of a local prefix length, RFC 8215
    "::ffff:0:0:0/96",  # IPv4-translated, RFC 2765 §2.1
    "::/96",  # IPv4-compatible, withdrawn by RFC 4291 §2.5.5.1
    "2001::/32",  # Teredo, RFC 4380
    "2002::/16",  # 6to4, RFC 3056
)
_ISATAP: Final = frozenset((0x00005EFE, 0x02005EFE))  # RFC 5214 §6.1: upper half of the interface identifier
_UNTRANSLATED: Final = frozenset((ipaddress.IPv6Address("::"), ipaddress.IPv6Address("::1")))


def classes() -> tuple[tuple[str, tuple[_Network, ...]], ...]:
    """Return the classes with their networks. The first that holds an address wins; what none holds is reserved."""
    return _CLASSES


def embedded(ip: IP) -> IP:
    """Return the IPv4 address that an IPv6 address is another spelling of (mapped, NAT64), else the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip


def translated(ip: IP) -> bool:
    """Return whether an address holds an IPv4 address in a way that has no single target.

    Where a packet to 6to4, Teredo, ISATAP or a NAT64 of the site's own length ends depends on a relay or a prefix that
    the address does not tell. A NAT64 under a prefix of the site's own address space cannot be recognised at all.
    """
    if isinstance(ip, ipaddress.IPv4Address) or ip in _UNTRANSLATED:
        return False
    return any(ip in network for network in _TRANSLATED) or (int(ip) >> 32) & 0xFFFFFFFF in _ISATAP


def ip_class(ip: IP) -> str:
    """Return the class of an address, a member of ``Sandbox::IpClass`` in the schema.

    The metadata services of the cloud vendors are a class of their own and win over every other class; carrier-grade
    NAT (RFC 6598) is told apart from private use (RFC 1918, RFC 4193). An IPv4 address that is spelled as an IPv6 one
    has the class that it has itself. What has no single target is reserved.
    """
    plain = embedded(ip)
    if translated(plain):
        return "reserved"
    return next((name for name, networks in _CLASSES if any(plain in network for network in networks)), "reserved")
