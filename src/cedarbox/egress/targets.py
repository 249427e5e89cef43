"""What a request is about: one reading of an authority and of a path, or a refusal."""

from __future__ import annotations

import re
from typing import Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, canonical_host

__all__ = ["Target", "absolute", "authority", "request_path", "spelled", "without_user"]

Target = tuple[Host | Address, int]
"""A host or address, and a port."""

# No target has a user, so one that has is refused, with a password in it perhaps.
_USER: Final = re.compile(r"[^\s/@]+@")
# No sign, no leading zero, no other digits than these.
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
# RFC 3986 §2.3 and §3.3.
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PLAIN: Final = _UNRESERVED | frozenset("!$&'()*+,;=:@/")
_HEX: Final = frozenset("0123456789ABCDEFabcdef")
# What a server or the file system behind it may take for something else than a character of a name.
_TREACHEROUS: Final = frozenset("/\\.") | {chr(code) for code in (*range(0x20), 0x7F)}


def without_user(text: str, most: int = 80) -> str:
    """Return what may be told of a target that is refused: without user and password, and then cut.

    Args:
        text: The target, or a line with one in it.
        most: Characters that are left.
    """
    return _USER.sub("***@", text)[:most]


def authority(text: str, *, default_port: int | None = None) -> Target:
    """Return the target that an authority names.

    Args:
        text: ``host:port``; IPv6 in brackets. No user, no spaces.
        default_port: What an authority without a port means; None when it must have one.

    Raises:
        CanonicalizationError: It has no single reading.
    """
    if "@" in text:
        raise CanonicalizationError(f"{without_user(text)!r} has a user in front of the host")
    host, colon, port = text.rpartition(":")
    if text.startswith("[") and text.endswith("]"):
        host, colon, port = text, "", ""
    elif not colon:
        host = text
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise CanonicalizationError(
            f"{without_user(text)!r} is not a host and a port", hint="put an IPv6 address in brackets"
        )
    if not colon and default_port is not None:
        return canonical_host(host), default_port
    if not _PORT.fullmatch(port) or int(port) > 65535:
        raise CanonicalizationError(f"{without_user(text)!r} has no port from 1 to 65535 without a leading zero")
    return canonical_host(host), int(port)


def absolute(target: str) -> tuple[str, str]:
    """Split the target of a request to a proxy into its authority and the rest.

    Raises:
        CanonicalizationError: It is no ``http`` URL.
    """
    match = _SCHEME.fullmatch(target)
    if match is None:
        raise CanonicalizationError(f"{without_user(target)!r} is not the URL of a request to a proxy")
    if match[1].lower() != "http":
        raise CanonicalizationError(
            f"the scheme of {without_user(target)!r} is not http", hint="use CONNECT for anything else"
        )
    rest = match[3]
    return match[2], rest if rest.startswith("/") else "/" + rest


def request_path(text: str) -> tuple[str, str]:
    """Return the canonical path of a request, and its query with the question mark.

    Unreserved characters are decoded, which RFC 3986 §6.2.2.2 calls equivalent, and what may not stand in a path as it
    is gets encoded. Everything else that is encoded stays so, in upper-case digits: whether ``%2B`` is a plus is the
    server's business. Refused is what servers read in different ways: dot segments (with parameters too), empty
    segments, backslashes, and encoded slashes, dots, control characters, and percent signs before two digits.

    Args:
        text: A path with or without query; it begins with a slash.

    Raises:
        CanonicalizationError: It has no single reading.
    """
    if "#" in text:
        raise CanonicalizationError(f"the path {text[:80]!r} has a fragment")
    path, mark, query = text.partition("?")
    if not path.startswith("/"):
        raise CanonicalizationError(f"the path {text[:80]!r} does not begin with a slash")
    if not path.isascii() or not path.isprintable() or "\\" in path or " " in path:
        raise CanonicalizationError(f"the path {text[:80]!r} has a character that no path has")
    canonical = _decoded(path)
    if "//" in canonical:
        raise CanonicalizationError(f"the path {text[:80]!r} has an empty segment")
    for segment in canonical.split("/"):
        if re.split(r";|%3B", segment, maxsplit=1)[0] in {".", ".."}:
            raise CanonicalizationError(f"the path {text[:80]!r} has a dot segment")
    return canonical, mark + query


def _decoded(path: str) -> str:
    parts: list[str] = []
    at = 0
    while at < len(path):
        char = path[at]
        if char != "%":
            parts.append(char if char in _PLAIN else f"%{ord(char):02X}")
            at += 1
            continue
        digits = path[at + 1 : at + 3]
        if len(digits) != 2 or not _HEX.issuperset(digits):
            raise CanonicalizationError(f"the path {path[:80]!r} has a percent sign without two digits")
        code = chr(int(digits, 16))
        if code in _TREACHEROUS:
            raise CanonicalizationError(f"the path {path[:80]!r} has the encoded character %{digits.upper()}")
        after = path[at + 3 : at + 5]
        if code == "%" and len(after) == 2 and _HEX.issuperset(after):
            raise CanonicalizationError(f"the path {path[:80]!r} is encoded twice")
        parts.append(code if code in _UNRESERVED else f"%{digits.upper()}")
        at += 3
    return "".join(parts)


def spelled(target: Target, *, port_of_scheme: int | None = None) -> str:
    """Return the one spelling of a target that is sent on.

    Args:
        target: What to spell.
        port_of_scheme: The port that is left out; None for none.
    """
    host, port = target
    name = f"[{host}]" if isinstance(host, Address) and host.ip.version == 6 else str(host)
    return name if port == port_of_scheme else f"{name}:{port}"
