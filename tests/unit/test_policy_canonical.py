"""One spelling for each thing: canonicalisation of hosts, addresses and paths, attacked."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.bundles import PERMIT_ALL, engine

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import PolicyEngine, actions
from cedarbox.policy.canonical import (
    Address,
    Host,
    ancestors,
    canonical_host,
    canonical_path,
    canonical_user,
    ip_class,
)
from cedarbox.policy.entities import Base

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
        "::FFFF:A9FE:A9FE",
        "0:0:0:0:0:ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::169.254.169.254",
        "１６９.254.169.254",  # noqa: RUF001  # fullwidth digits
        "169。254。169。254",
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
        "2002:a9fe:a9fe::1",
        "::169.254.169.254",
        "::ffff:0:169.254.169.254",
        "fe80::5efe:169.254.169.254",
        "2001:db8::200:5efe:10.0.0.1",
        "[127.0.0.1]",
        "[evil.example]",
        "[::1]:443",
        "::1%25eth0",
        "1::2::3",
        "evil.example\u3002\u3002",
        "ev\u00adil.example",
        "evil\u200b.example",
        "evil\u2060.example",
        "evil.example\u202e",
        "evil\ufe0f.example",
        "evil\u034f.example",
        "fa\u00df.example",
        "fa\u1e9e.example",
        "\u03b2\u03c2.example",
        "a\u200d.example",
        "evil\u2024example",
        "\u2488example",
        "evil\u00a0.example",
        "evil.example\x85",
        "a" * 5000,
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
        ("/caf\u00e9", "/caf\u00e9"),
        ("/a b", "/a b"),
        ("///a", "/a"),
        ("/.../a", "/.../a"),
    ],
)
def test_paths_have_one_form(path: str, expected: str) -> None:
    assert canonical_path(path) == expected


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "./a",
        "../a",
        "/a\x00b",
        "/a\nb",
        "/a\x7f",
        "/a\x85",
        "/a\udcff",
        "~/x",
        "/cafe\u0301",
        "/\u212b",
        "/a\\b",
        "\\a",
        "/a\u202eb",
        "/a\u2066b",
        "/a\u200bb",
        "/a\ufeffb",
        "/a\u2028b",
        "/.g\u200cit",
        "/a\ufe0f",
        "/a\u3164",
        "/a\U000e0041",
        "/" + "a" * 4095,
        "/" + "\u00e9" * 2048,
        "/a" * 3000,
    ],
)
def test_paths_without_a_form_are_refused(path: str) -> None:
    with pytest.raises(CanonicalizationError):
        canonical_path(path)


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "", "caf\u00e9", "..."]), max_size=8))
def test_canonical_paths_are_fixed_points(parts: list[str]) -> None:
    once = canonical_path("/" + "/".join(parts))
    assert canonical_path(once) == once
    assert ".." not in once.split("/")


def test_ancestors_end_at_the_root() -> None:
    assert ancestors("/a/b/c") == ("/a/b", "/a", "/")
    assert ancestors("/") == ()


@pytest.mark.parametrize(
    ("user", "expected"), [("coder", "coder"), ("0", "root"), ("_apt", "_apt"), ("a.b-C$", "a.b-C$")]
)
def test_accounts_have_one_name(user: str, expected: str) -> None:
    assert canonical_user(user) == expected


@pytest.mark.parametrize(
    "user", ["", "00", "+0", "#0", "0:0", "1000", "root:root", "root ", "-u", "r\u00f6t", "a" * 34]
)
def test_accounts_with_a_second_name_are_refused(user: str) -> None:
    with pytest.raises(CanonicalizationError):
        canonical_user(user)


# --- No two spellings of one thing get different decisions, and no two things get one form.

_NAMES = st.from_regex(r"\A[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,3})?(\.[a-z][a-z0-9]{0,6}){0,3}\Z")
_FULLWIDTH = {ord("."): "\uff0e"} | {code: chr(code + 0xFEE0) for code in (*range(0x30, 0x3A), *range(0x61, 0x7B))}
_PARTS = st.lists(st.sampled_from(["a", "b", "caf\u00e9", "...", "A", "x y", "Z"]), min_size=1, max_size=5)
_BASE = Base(datetime(2026, 11, 23, tzinfo=UTC), "boxlite")


@pytest.fixture(scope="module")
def guarding(tmp_path_factory: pytest.TempPathFactory) -> PolicyEngine:
    """Everything is permitted but one host, one address and one tree."""
    forbids = (
        'forbid (principal, action == Sandbox::Action::"connect", resource in Sandbox::Domain::"evil.example");'
        'forbid (principal, action == Sandbox::Action::"connect", resource == Sandbox::Address::"169.254.169.254");'
        'forbid (principal, action == Sandbox::Action::"readFile", resource in Sandbox::GuestPath::"/desk/secret");'
    )
    return engine(tmp_path_factory.mktemp("spellings"), PERMIT_ALL + forbids)


def _spelled(text: str, data: st.DataObject) -> str:
    chosen = [data.draw(st.sampled_from([char, char.upper(), char.translate(_FULLWIDTH)])) for char in text]
    noise = data.draw(st.sampled_from(["", "", "", ".", "\u3002", "\u00ad", "\u200b", " ", "\x00", "/", ":443", "%2e"]))
    return "".join(chosen) + noise


@given(_NAMES, st.data())
def test_every_spelling_of_a_name_is_that_name_or_refused(name: str, data: st.DataObject) -> None:
    try:
        assert canonical_host(_spelled(name, data)) == Host(name)
    except CanonicalizationError:
        return


@given(st.sampled_from(["evil.example", "a.evil.example", "169.254.169.254"]), st.data())
def test_every_spelling_of_a_forbidden_host_is_denied(guarding: PolicyEngine, name: str, data: st.DataObject) -> None:
    spelled = _spelled(name, data)
    if name[0] == "1":
        spelled = data.draw(st.sampled_from([spelled, f"::ffff:{name}", f"[::FFFF:{name}]", "64:ff9b::a9fe:a9fe"]))
    try:
        target = canonical_host(spelled)
    except CanonicalizationError:
        return
    assert not guarding.decide("agent", actions.connect(_BASE, target, port=443, proto="tls")).allowed
    elsewhere = canonical_host("good.example")
    assert guarding.decide("agent", actions.connect(_BASE, elsewhere, port=443, proto="tls")).allowed


@given(_NAMES, _NAMES)
def test_two_names_never_get_one_form(one: str, other: str) -> None:
    try:
        same = canonical_host(one) == canonical_host(other)
    except CanonicalizationError:
        return
    assert same == (one == other)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6))
def test_two_addresses_never_get_one_form(one: ipaddress.IPv6Address, other: ipaddress.IPv6Address) -> None:
    try:
        forms = canonical_host(str(one)), canonical_host(str(other))
    except CanonicalizationError:
        return
    assert (forms[0] == forms[1]) == (one == other)


def _detoured(parts: list[str], data: st.DataObject) -> str:
    text = ""
    for part in parts:
        text += data.draw(st.sampled_from(["/", "//", "/./", "/x/../", "/../" if text == "" else "/"])) + part
    return text + data.draw(st.sampled_from(["", "/", "/.", "//", "/y/.."]))


@given(_PARTS, st.data())
def test_every_spelling_of_a_path_is_that_path_or_refused(parts: list[str], data: st.DataObject) -> None:
    try:
        assert canonical_path(_detoured(parts, data)) == "/" + "/".join(parts)
    except CanonicalizationError:
        pytest.fail("each of these spellings has a canonical form")


@given(st.sampled_from(["secret", "secret/key", "secret/a/b"]), st.data())
def test_every_spelling_of_a_forbidden_path_is_denied(guarding: PolicyEngine, below: str, data: st.DataObject) -> None:
    spelled = _detoured(["desk", *below.split("/")], data)
    spelled = data.draw(st.sampled_from([spelled, spelled.replace("/", "\\", 1), spelled + "\u200b", spelled[1:]]))
    try:
        action = actions.touch_file(_BASE, path=spelled, operation="read")
    except CanonicalizationError:
        return
    assert not guarding.decide("agent", action).allowed


@given(_PARTS, _PARTS)
def test_two_paths_never_get_one_form(one: list[str], other: list[str]) -> None:
    assert (canonical_path("/" + "/".join(one)) == canonical_path("/" + "/".join(other))) == (one == other)


@given(st.text(max_size=30))
def test_a_path_with_a_form_is_the_bytes_that_it_came_as(name: str) -> None:
    try:
        form = canonical_path(f"/{name}")
    except CanonicalizationError:
        return
    if not {".", "..", ""} & set(name.split("/")):
        assert form == f"/{name}"


def test_the_two_normal_forms_of_a_name_are_two_files(tmp_path: Path) -> None:
    # This is why a path is refused, not normalised: the decision would be about the other file.
    composed, decomposed = tmp_path / "caf\u00e9", tmp_path / "cafe\u0301"
    composed.write_text("one")
    if decomposed.exists():
        pytest.skip("this file system takes the two normal forms for one name")
    decomposed.write_text("two")
    assert composed.read_text() == "one"
    with pytest.raises(CanonicalizationError, match="normal form C"):
        canonical_path(str(decomposed))
