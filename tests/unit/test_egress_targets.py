"""Authorities and paths: one reading or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.egress.targets import absolute, authority, request_path, spelled
from cedarbox.errors import CanonicalizationError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mirror.corp.example:443", "mirror.corp.example:443"),
        ("MIRROR.corp.example.:1", "mirror.corp.example:1"),
        ("127.0.0.1:65535", "127.0.0.1:65535"),
        ("[::1]:80", "[::1]:80"),
        ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ("mirror", "mirror:80"),
        ("[::1]", "[::1]:80"),
    ],
)
def test_an_authority_has_one_spelling(text: str, expected: str) -> None:
    assert spelled(authority(text, default_port=80)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", ":80", "mirror:", "mirror:0", "mirror:65536", "mirror:-1", "mirror:080", "mirror:+80", "mirror:8 0",
        "mirror:80 ", " mirror:80", "user@mirror:80", "user:pass@mirror:80", "mirror:80@evil:80", "mirror:80:80",
        "::1:80", "::1", "[::1", "[::1]80", "[::1]:", "[mirror]:80", "mirror/:80", "mirror\r\n:80", "mirror:80\n",
        "mirror%2eevil:80", "mirror\x00:80", "0x7f.1:80", "2130706433:80", "127.1:80", "0177.0.0.1:80",
        "[fe80::1%25eth0]:80", "mirror:٨٠", "mirror#x:80", "[::127.0.0.1]:80",
    ],
)  # fmt: skip
def test_what_has_more_readings_is_no_authority(text: str) -> None:
    with pytest.raises(CanonicalizationError):
        authority(text, default_port=80)


def test_a_port_can_be_required() -> None:
    with pytest.raises(CanonicalizationError, match="no port"):
        authority("mirror")
    with pytest.raises(CanonicalizationError, match="no port"):
        authority("[::1]")


@pytest.mark.parametrize(
    ("text", "path", "query"),
    [
        ("/", "/", ""),
        ("/simple/pip/", "/simple/pip/", ""),
        ("/%73imple", "/simple", ""),
        ("/g%2b%2b", "/g%2B%2B", ""),
        ("/a:b@c", "/a:b@c", ""),
        ("/%c3%a9", "/%C3%A9", ""),
        ("/a|b", "/a%7Cb", ""),
        ("/.hidden/..x/x..", "/.hidden/..x/x..", ""),
        ("/a?next=/../b//c%2f", "/a", "?next=/../b//c%2f"),
        ("/a%20b", "/a%20b", ""),
        ("/a?", "/a", "?"),
        ("/100%25", "/100%25", ""),
    ],
)
def test_a_path_has_one_spelling(text: str, path: str, query: str) -> None:
    assert request_path(text) == (path, query)


@pytest.mark.parametrize(
    "text",
    [
        "/..", "/a/../b", "/./a", "/a/.", "/%2e%2e/a", "/a/%2E", "/a%2fb", "/a%5cb", "/a\\b", "//a", "/a//b", "/a/%00",
        "/a%0d%0aHost:x", "/%7f", "/a%", "/a%2", "/a%zz", "/..;/admin", "/..;x=y/admin", "/.%3b/a", "/%252e%252e/a",
        "/a#b", "a", "", "/a b", "/é",
    ],
)  # fmt: skip
def test_what_has_more_readings_is_no_path(text: str) -> None:
    with pytest.raises(CanonicalizationError):
        request_path(text)


@given(st.text(alphabet="/.%25eEfF;ab?~|", max_size=20))
def test_the_spelling_of_a_path_is_its_own(rest: str) -> None:
    try:
        path, query = request_path("/" + rest)
    except CanonicalizationError:
        return
    assert request_path(path + query) == (path, query)
    assert not {".", ".."} & set(path.split("/"))


def test_the_target_of_a_request_is_a_url() -> None:
    assert absolute("HTTP://Mirror:80?q") == ("Mirror:80", "/?q")
    assert absolute("http://mirror/a/b?c") == ("mirror", "/a/b?c")
    for text in ("https://mirror/", "ftp://mirror/", "mirror:80", "*", "http:/mirror", "javascript://x"):
        with pytest.raises(CanonicalizationError):
            absolute(text)
