"""One spelling for each thing: canonicalisation of hosts, addresses and paths, attacked."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, ancestors, canonical_host, canonical_path, ip_class

IMDS = Address(ipaddress.ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    "spelling",
    [
        "evil.example",
        "EVIL.example",
        "evil.example.",
        "eViL.ExAmPlE.",
        "evil。example",
        "ｅvil.example",  # noqa: RUF001  # fullwidth e
        "evil．example",  # noqa: RUF001  # fullwidth full stop
        "ⓔvil.example",
    ],
)
def test_every_spelling_of_a_name_is_one_name(spelling: str) -> None:
    assert canonical_host(spelling) == Host("evil.example")


@pytest.mark.parametrize(
    "spelling",
    [
        "169.254.169.254",
        "169.254.169.254.",
        "[::ffff:169.254.169.254]",
        "::ffff:a9fe:a9fe",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
    ],
)
def test_the_metadata_service_is_recognised_in_every_spelling(spelling: str) -> None:
    target = canonical_host(spelling)
    assert target == IMDS
    assert isinstance(target, Address)
    assert ip_class(target.ip) == "metadata"


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        ".",
        "..",
        "..example",
        ".example",
        "a..example",
        "example..",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "0x7f.1",
        "127.1",
        "1.2.3.4.5",
        "256.1.1.1",
        "01.2.3.4",
        "fe80::1%eth0",
        "[::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "64:ff9b:1::a9fe:a9fe",
        "evil.example\x00.allowed.example",
        "evil.example/.allowed.example",
        "evil.example#.allowed.example",
        "user@evil.example",
        "evil.example:443",
        "evil\\.example",
        "evil example",
        "evil.example\r\nHost: allowed.example",
        "%65vil.example",
        "-evil.example",
        "evil-.example",
        "*.example",
        "xn--a.example",
        "xn--.example",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "℀.example",
    ],
)
def test_what_has_no_single_form_is_refused(spelling: str) -> None:
    with pytest.raises(CanonicalizationError):
        canonical_host(spelling)


def test_homographs_stay_distinct() -> None:
    assert canonical_host("еvil.example") == Host("xn--vil-qdd.example")  # noqa: RUF001  # Cyrillic e


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", "public"),
        ("10.0.0.1", "private"),
        ("192.168.1.1", "private"),
        ("fd00::1", "private"),
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("169.254.1.1", "link_local"),
        ("fe80::1", "link_local"),
        ("169.254.170.2", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("100.64.0.1", "cgnat"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "reserved"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("2606:4700::1", "public"),
    ],
)
def test_address_classes(address: str, expected: str) -> None:
    assert ip_class(ipaddress.ip_address(address)) == expected


@given(st.text(max_size=40) | st.from_regex(r"\A[a-zA-Z0-9.。:\[\]-]{1,30}\Z"))
def test_canonical_hosts_are_fixed_points(text: str) -> None:
    try:
        once = canonical_host(text)
    except CanonicalizationError:
        return
    assert canonical_host(str(once)) == once
    assert str(once).isascii()
    assert str(once) == str(once).lower()


@given(st.from_regex(r"\A[a-z][a-z0-9]{0,8}(\.[a-z][a-z0-9]{0,8}){0,3}\Z"), st.data())
def test_case_and_trailing_dot_never_matter(name: str, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    spelled = "".join(char.upper() if flip else char for char, flip in zip(name, flips, strict=True))
    dot = data.draw(st.sampled_from(["", "."]))
    assert canonical_host(spelled + dot) == canonical_host(name)


@given(st.ip_addresses())
def test_every_address_has_exactly_one_class_and_one_form(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        target = canonical_host(str(ip))
    except CanonicalizationError:
        assert ip.version == 6
        return
    assert isinstance(target, Address)
    assert ip_class(target.ip) != ""
    assert canonical_host(f"{target}") == target


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/workspace", "/workspace"),
        ("/workspace/", "/workspace"),
        ("//workspace//a", "/workspace/a"),
        ("/workspace/./a", "/workspace/a"),
        ("/workspace/../etc/shadow", "/etc/shadow"),
        ("/../../etc", "/etc"),
        ("/", "/"),
        ("//", "/"),
        ("/cafe\u0301", "/caf\u00e9"),
    ],
)
def test_paths_have_one_form(path: str, expected: str) -> None:
    assert canonical_path(path) == expected


@pytest.mark.parametrize("path", ["", "relative", "./a", "../a", "/a\x00b", "/a\nb", "/a\x7f", "/a\udcff", "~/x"])
def test_paths_without_a_form_are_refused(path: str) -> None:
    with pytest.raises(CanonicalizationError):
        canonical_path(path)


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "cafe\u0301", "..."]), max_size=8))
def test_canonical_paths_are_fixed_points(parts: list[str]) -> None:
    once = canonical_path("/" + "/".join(parts))
    assert canonical_path(once) == once
    assert ".." not in once.split("/")


def test_ancestors_end_at_the_root() -> None:
    assert ancestors("/a/b/c") == ("/a/b", "/a", "/")
    assert ancestors("/") == ()
