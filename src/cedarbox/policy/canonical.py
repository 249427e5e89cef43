"""Canonical values: one spelling for each host, address, path and account, or a refusal.

Cedar compares strings. A rule for ``evil.example`` says nothing about ``EVIL.example.`` or ``0xA9FEA9FE``. So
everything that names a resource is brought into one form here, before any policy sees it, and what has no single
canonical form is refused. Nothing here guesses, resolves a name or touches a disk.

Whoever acts on a decision acts on the canonical value, not on the spelling that it came from: two programs read one odd
spelling in two ways, and then the decision is about one thing and the act about another.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import unicodedata
from dataclasses import dataclass
from typing import Final

import idna

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.addresses import IP, embedded, ip_class, translated

__all__ = ["IP", "Address", "Host", "ancestors", "canonical_host", "canonical_path", "canonical_user", "ip_class"]

# RFC 1123 §2.1 letters, digits, hyphens; the underscore is common in internal names and harmless for comparison.
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# WHATWG URL, "ends in a number checker": such a host is an IPv4 address or a failure, never a name.
_NUMERIC_LABEL: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN_IN_HOST: Final = frozenset("/\\@?#%<>^|`{}\"'()*,;!$&=~ ")
_MAX_NAME: Final = 253  # RFC 1035 §2.3.4: 255 octets on the wire.
_MAX_HOST_TEXT: Final = 1024  # Characters; no spelling of 253 octets needs more.
# UTS-46 §4: IDNA2003 and IDNA2008 read these as different names, and both are in use (the former in Python's codec).
_DEVIATING: Final = frozenset("\u00df\u1e9e\u03c2\u200c\u200d")
# useradd(8), CAVEATS, and what other systems add to it.
_ACCOUNT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?")
_MAX_PATH: Final = 4095  # Octets; PATH_MAX of Linux is 4096 with the NUL.
# Unicode, DerivedCoreProperties: Default_Ignorable_Code_Point that is not of the category Cf. File systems that fold
# case skip these when they compare names (ext4 and f2fs casefold, HFS+).
_IGNORABLE: Final = frozenset(
    (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, 0x3164, 0xFFA0, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10))
) | frozenset(range(0xFFF0, 0xFFF9))
_IGNORABLE_PLANE: Final = range(0xE0000, 0xE1000)


@dataclass(frozen=True, slots=True)
class Host:
    """A DNS name: lower case, A-labels, no trailing dot."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address; IPv4 that was embedded in IPv6 has been taken out."""

    ip: IP

    def __str__(self) -> str:
        return str(self.ip)


def canonical_host(text: str) -> Host | Address:
    """Return the one canonical form of a host name or address literal.

    Names go through UTS-46 (non-transitional, STD3 rules), lose one trailing dot, and must be at most 253 octets of
    letter-digit-hyphen labels. Anything that ends in a number must be a dotted-quad IPv4 address. IPv6 may stand in
    brackets, must not carry a zone id, and is unwrapped where it only spells an IPv4 address (mapped, NAT64).

    Refused are characters that nobody sees, letters that the two versions of IDNA read differently (such as sharp s;
    spell the name with ``xn--``), and IPv6 addresses whose target depends on a relay (6to4, Teredo, ISATAP).

    Args:
        text: A host as a user, a model or a URL spells it; without a port.

    Raises:
        CanonicalizationError: There is no single canonical form.
    """
    if not text:
        raise CanonicalizationError("empty host name")
    if len(text) > _MAX_HOST_TEXT:
        raise CanonicalizationError(f"host {text[:80]!r}… has {len(text)} characters")
    if text.startswith("[") and text.endswith("]"):
        return Address(_ipv6(text[1:-1], text))
    if ":" in text:
        return Address(_ipv6(text, text))
    if any(char in _FORBIDDEN_IN_HOST or _is_invisible(char) for char in text):
        raise CanonicalizationError(f"host {text[:80]!r} has a character that no host name has")
    name = _ascii_name(text)
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            return Address(ipaddress.IPv4Address(name))
        except ValueError:
            raise CanonicalizationError(f"host {text[:80]!r} is numeric but not a dotted-quad IPv4 address") from None
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise CanonicalizationError(f"host {text[:80]!r} has the invalid label {label[:64]!r}")
        if label.startswith("xn--"):
            _check_a_label(label, text)
    return Host(name)


def _ascii_name(text: str) -> str:
    name = text
    if not text.isascii():
        if any(char in _DEVIATING for char in text):
            raise CanonicalizationError(
                f"host {text[:80]!r} has a letter that programs read differently", hint="spell the name with xn--"
            )
        try:
            name = idna.uts46_remap(text, std3_rules=True, transitional=False)
            if not name.isascii():
                name = idna.encode(name).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise CanonicalizationError(f"host {text[:80]!r} is not a valid internationalised name") from None
    name = name.lower().removesuffix(".")
    if not name or name.startswith(".") or name.endswith(".") or ".." in name:
        raise CanonicalizationError(f"host {text[:80]!r} has an empty label")
    if len(name) > _MAX_NAME:
        raise CanonicalizationError(f"host {text[:80]!r}… is longer than {_MAX_NAME} octets")
    return name


def _check_a_label(label: str, text: str) -> None:
    try:
        if idna.alabel(idna.ulabel(label)).decode("ascii") != label:
            raise CanonicalizationError(f"host {text[:80]!r} has the non-canonical label {label!r}")
    except (idna.IDNAError, UnicodeError):
        raise CanonicalizationError(f"host {text[:80]!r} has the undecodable label {label!r}") from None


def _ipv6(text: str, shown: str) -> IP:
    if "%" in text:
        raise CanonicalizationError(f"address {shown[:80]!r} has a zone id")
    try:
        ip = embedded(ipaddress.IPv6Address(text))
    except ValueError:
        raise CanonicalizationError(f"{shown[:80]!r} is neither a host name nor an address") from None
    if translated(ip):
        raise CanonicalizationError(f"address {shown[:80]!r} is translated in a way that has no single target")
    return ip


def canonical_path(text: str) -> str:
    """Return the canonical form of an absolute POSIX path: no ``.``, ``..``, doubled or trailing slashes.

    Symbolic links are not this function's business: resolve them first, on the side where the path lives. Where a path
    has ``..`` in it, what it leads to depends on links, so the one who acts has to act on the canonical form.

    A path that is not in the Unicode normal form C is refused, not changed: on Linux the name in another normal form
    is another file, and the decision would be about that one. So is a backslash, which the Agents SDK 0.24 reads as a
    slash in some places, and a character that nobody sees, which some file systems skip when they compare names.

    Args:
        text: The path.

    Raises:
        CanonicalizationError: The path is relative, longer than 4095 octets, or holds what is said above, a control
            character or an unpaired surrogate.
    """
    if len(text) > _MAX_PATH or len(text.encode("utf-8", "surrogatepass")) > _MAX_PATH:
        raise CanonicalizationError(f"path {text[:80]!r}… is longer than {_MAX_PATH} octets")
    if any(_is_invisible(char) and char != " " for char in text):
        raise CanonicalizationError(
            f"path {text[:80]!r} has a control character, one that cannot be seen, or is not Unicode"
        )
    if "\\" in text:
        raise CanonicalizationError(f"path {text[:80]!r} has a backslash, which programs read differently")
    if not text.startswith("/"):
        raise CanonicalizationError(f"path {text[:80]!r} is not absolute")
    if not unicodedata.is_normalized("NFC", text):
        raise CanonicalizationError(
            f"path {text[:80]!r} is not in the Unicode normal form C",
            hint="rename the file, or spell it as it should be",
        )
    return "/" + posixpath.normpath(text).lstrip("/")


def canonical_user(text: str) -> str:
    """Return the canonical name of a user or group of a guest. The number 0 is root.

    Args:
        text: The name.

    Raises:
        CanonicalizationError: It is another number, which is the second name of some account, or no name.
    """
    if text == "0":
        return "root"
    if not _ACCOUNT.fullmatch(text):
        raise CanonicalizationError(
            f"{text[:80]!r} is not the name of a user or group", hint="give the name, not the number"
        )
    return text


def _is_invisible(char: str) -> bool:
    # Controls, format characters (bidirectional marks, joiners), surrogates, line and paragraph separators, the space.
    code = ord(char)
    if code < 0x7F:
        return code <= 0x20
    return (
        unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or code in _IGNORABLE or code in _IGNORABLE_PLANE
    )


def ancestors(path: str) -> tuple[str, ...]:
    """Return every directory above a canonical path, nearest first, ``/`` last; nothing for ``/`` itself."""
    above = []
    while path != "/":
        path = posixpath.dirname(path)
        above.append(path)
    return tuple(above)
