"""Every block of the two IANA special-purpose registries has the class that its RFC gives it."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.policy.addresses import embedded, ip_class, translated

# Block, expected class, RFC. The registries as of RFC 6890 and its updates; written from the RFCs, not from the code.
BLOCKS = [
    ("0.0.0.0/8", "reserved", "RFC 791 §3.2: this network"),
    ("0.0.0.0/32", "reserved", "RFC 1122 §3.2.1.3: this host on this network"),
    ("10.0.0.0/8", "private", "RFC 1918"),
    ("100.64.0.0/10", "cgnat", "RFC 6598"),
    ("127.0.0.0/8", "loopback", "RFC 1122 §3.2.1.3"),
    ("169.254.0.0/16", "link_local", "RFC 3927"),
    ("172.16.0.0/12", "private", "RFC 1918"),
    ("192.0.0.0/24", "reserved", "RFC 6890 §2.1: IETF protocol assignments"),
    ("192.0.0.0/29", "reserved", "RFC 7335: IPv4 service continuity"),
    ("192.0.0.8/32", "reserved", "RFC 7600: dummy address"),
    ("192.0.0.9/32", "reserved", "RFC 7723: port control anycast, a service of the local network"),
    ("192.0.0.10/32", "reserved", "RFC 8155: TURN anycast, a service of the local network"),
    ("192.0.0.170/31", "reserved", "RFC 8880, RFC 7050: NAT64 discovery"),
    ("192.0.2.0/24", "reserved", "RFC 5737: TEST-NET-1"),
    ("192.31.196.0/24", "public", "RFC 7535: AS112-v4, globally reachable"),
    ("192.52.193.0/24", "public", "RFC 7450: AMT, globally reachable"),
    ("192.88.99.0/24", "reserved", "RFC 7526: 6to4 relay anycast, withdrawn"),
    ("192.168.0.0/16", "private", "RFC 1918"),
    ("192.175.48.0/24", "public", "RFC 7534: AS112, globally reachable"),
    ("198.18.0.0/15", "reserved", "RFC 2544: benchmarks"),
    ("198.51.100.0/24", "reserved", "RFC 5737: TEST-NET-2"),
    ("203.0.113.0/24", "reserved", "RFC 5737: TEST-NET-3"),
    ("224.0.0.0/4", "multicast", "RFC 5771"),
    ("240.0.0.0/4", "reserved", "RFC 1112 §4"),
    ("255.255.255.255/32", "reserved", "RFC 8190, RFC 919 §7: limited broadcast"),
    ("::1/128", "loopback", "RFC 4291 §2.5.3"),
    ("::/128", "reserved", "RFC 4291 §2.5.2: unspecified"),
    ("::/96", "reserved", "RFC 4291 §2.5.5.1: IPv4-compatible, withdrawn"),
    ("::ffff:0:0:0/96", "reserved", "RFC 2765 §2.1: IPv4-translated"),
    ("64:ff9b:1::/48", "reserved", "RFC 8215: local NAT64"),
    ("100::/64", "reserved", "RFC 6666: discard"),
    ("100:0:0:1::/64", "reserved", "RFC 9780: dummy prefix"),
    ("2001::/23", "reserved", "RFC 2928: IETF protocol assignments"),
    ("2001::/32", "reserved", "RFC 4380: Teredo"),
    ("2001:1::1/128", "reserved", "RFC 7723: port control anycast"),
    ("2001:1::2/128", "reserved", "RFC 8155: TURN anycast"),
    ("2001:1::3/128", "reserved", "RFC 9665: DNS-SD registration anycast"),
    ("2001:2::/48", "reserved", "RFC 5180: benchmarks"),
    ("2001:3::/32", "public", "RFC 7450: AMT, globally reachable"),
    ("2001:4:112::/48", "public", "RFC 7535: AS112-v6, globally reachable"),
    ("2001:10::/28", "reserved", "RFC 4843: ORCHID, withdrawn"),
    ("2001:20::/28", "reserved", "RFC 7343: ORCHIDv2, identifiers and no locators"),
    ("2001:30::/28", "reserved", "RFC 9374: drone identifiers and no locators"),
    ("2001:db8::/32", "reserved", "RFC 3849: documentation"),
    ("2002::/16", "reserved", "RFC 3056: 6to4"),
    ("2620:4f:8000::/48", "public", "RFC 7534: AS112, globally reachable"),
    ("3fff::/20", "reserved", "RFC 9637: documentation"),
    ("5f00::/16", "reserved", "RFC 9602: segment routing"),
    ("fc00::/7", "private", "RFC 4193"),
    ("fe80::/10", "link_local", "RFC 4291 §2.5.6"),
    ("fec0::/10", "reserved", "RFC 3879: site-local, withdrawn"),
    ("ff00::/8", "multicast", "RFC 4291 §2.7"),
    # Not special: the neighbours of the blocks above, and global unicast.
    ("1.0.0.0/8", "public", ""),
    ("100.63.255.255/32", "public", ""),
    ("100.128.0.0/32", "public", ""),
    ("172.15.255.255/32", "public", ""),
    ("172.32.0.0/32", "public", ""),
    ("192.0.1.0/24", "public", ""),
    ("198.20.0.0/32", "public", ""),
    ("223.255.255.0/24", "public", ""),
    ("2001:200::/32", "public", ""),
    ("2606:4700::/32", "public", ""),
    ("3fff:1000::/32", "public", ""),
    ("4000::/3", "reserved", "RFC 4291 §2.4: not assigned"),
    ("e000::/4", "reserved", "RFC 4291 §2.4: not assigned"),
]
METADATA = [
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.42.42",
    "169.254.0.23",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd00:c1::a9fe:a9fe",
    "fd00:42::42",
    "fd20:ce::254",
]


@pytest.mark.parametrize(("block", "expected", "source"), BLOCKS)
def test_every_special_purpose_block_has_its_class(block: str, expected: str, source: str) -> None:
    network = ipaddress.ip_network(block)
    inner = [other for other, _, _ in BLOCKS if other != block]
    special = [ipaddress.ip_network(other) for other in inner] + [ipaddress.ip_network(one) for one in METADATA]
    for address in {network[0], network[-1], network[network.num_addresses // 2], network[network.num_addresses // 3]}:
        nested = [
            other
            for other in special
            if other.version == network.version and address in other and other.prefixlen > network.prefixlen
        ]
        if not nested:
            assert ip_class(address) == expected, f"{address} of {block}: {source}"


@pytest.mark.parametrize("address", METADATA)
def test_metadata_services_are_a_class_of_their_own(address: str) -> None:
    ip = ipaddress.ip_address(address)
    assert ip_class(ip) == "metadata"
    if isinstance(ip, ipaddress.IPv4Address):
        assert ip_class(ipaddress.ip_address(f"::ffff:{address}")) == "metadata"
        assert ip_class(ipaddress.ip_address(f"64:ff9b::{address}")) == "metadata"


@pytest.mark.parametrize(
    "address", ["2001:470::5efe:8.8.8.8", "2001:470::200:5efe:8.8.8.8", "2002:808:808::1", "::8.8.8.8"]
)
def test_an_address_that_a_relay_translates_is_never_public(address: str) -> None:
    assert translated(ipaddress.ip_address(address))
    assert ip_class(ipaddress.ip_address(address)) == "reserved"


@given(st.ip_addresses(v=4))
def test_ipv4_in_ipv6_has_the_class_that_it_has_itself(ip: ipaddress.IPv4Address) -> None:
    for spelled in (f"::ffff:{ip}", f"64:ff9b::{ip}"):
        wrapped = ipaddress.ip_address(spelled)
        assert embedded(wrapped) == ip
        assert ip_class(wrapped) == ip_class(ip)


@given(st.ip_addresses())
def test_what_python_holds_to_be_unreachable_is_never_public(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if ip_class(ip) == "public":
        assert not any((ip.is_loopback, ip.is_link_local, ip.is_multicast, ip.is_unspecified))
        assert embedded(ip).is_global or embedded(ip) in ipaddress.ip_network("2001::/23")
