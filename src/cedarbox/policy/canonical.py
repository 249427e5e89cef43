"""Canonical values: one spelling for each host, address and path, or a refusal.

Cedar compares strings. A rule for ``evil.example`` says nothing about ``EVIL.example.`` or ``0xA9FEA9FE``. So
everything that names a resource is brought into one form here, before any policy sees it, and what has no single
canonical form is refused. Nothing here guesses, resolves a name or touches a disk.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
import unicodedata
from dataclasses import dataclass

import idna

from cedarbox.errors import CanonicalizationError

__all__ = ["IP", "Address", "Host", "ancestors", "canonical_host", "canonical_path", "ip_class"]

IP = ipaddress.IPv4Address | ipaddress.IPv6Address

# RFC 1123 §2.1 letters, digits, hyphens; the underscore is common in internal names and harmless for comparison.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# WHATWG URL, "ends in a number checker": such a host is an IPv4 address or a failure, never a name.
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
_FORBIDDEN_IN_HOST = frozenset("/\\@?#%<>^|`{}\"'()*,;!$&=~ ")
_MAX_NAME = 253  # RFC 1035 §2.3.4: 255 octets on the wire.

_METADATA: frozenset[IP] = frozenset(
    {
        ipaddress.ip_address("169.254.169.254"),  # AWS, Azure, Google Cloud, OpenStack
        ipaddress.ip_address("169.254.170.2"),  # AWS ECS task metadata
        ipaddress.ip_address("169.254.170.23"),  # AWS EKS pod identity
        ipaddress.ip_address("100.100.100.200"),  # Alibaba Cloud
        ipaddress.ip_address("168.63.129.16"),  # Azure wire server
        ipaddress.ip_address("192.0.0.192"),  # Oracle Cloud
        ipaddress.ip_address("fd00:ec2::254"),  # AWS over IPv6
        ipaddress.ip_address("fd20:ce::254"),  # Google Cloud over IPv6
    }
)
_CGNAT = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")  # RFC 8215
_V4_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291 §2.5.5.1, deprecated


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
    brackets, must not carry a zone id, and is unwrapped where it embeds an IPv4 address (mapped, 6to4, NAT64).

    Args:
        text: A host as a user, a model or a URL spells it; without a port.

    Raises:
        CanonicalizationError: There is no single canonical form.
    """
    if not text:
        raise CanonicalizationError("empty host name")
    if text.startswith("[") and text.endswith("]"):
        return Address(_canonical_ip(text[1:-1], text))
    if ":" in text:
        return Address(_canonical_ip(text, text))
    if any(ord(char) < 0x21 or ord(char) == 0x7F or char in _FORBIDDEN_IN_HOST for char in text):
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
    name = unicodedata.normalize("NFKC", text).replace("。", ".")
    name = name.removesuffix(".")
    if not name or name.startswith(".") or name.endswith(".") or ".." in name:
        raise CanonicalizationError(f"host {text[:80]!r} has an empty label")
    if not name.isascii():
        try:
            name = idna.encode(name, uts46=True, std3_rules=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise CanonicalizationError(f"host {text[:80]!r} is not a valid internationalised name") from None
    name = name.lower()
    # NFKC can bring a forbidden character out of a compatibility form, so the check is repeated on the result.
    if len(name) > _MAX_NAME or any(char in _FORBIDDEN_IN_HOST or ord(char) < 0x21 for char in name):
        raise CanonicalizationError(f"host {text[:80]!r} is not a host name")
    return name


def _check_a_label(label: str, text: str) -> None:
    try:
        if idna.alabel(idna.ulabel(label)).decode("ascii") != label:
            raise CanonicalizationError(f"host {text[:80]!r} has the non-canonical label {label!r}")
    except (idna.IDNAError, UnicodeError):
        raise CanonicalizationError(f"host {text[:80]!r} has the undecodable label {label!r}") from None


def _canonical_ip(text: str, shown: str) -> IP:
    if "%" in text:
        raise CanonicalizationError(f"address {shown[:80]!r} has a zone id")
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise CanonicalizationError(f"{shown[:80]!r} is neither a host name nor an address") from None
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64_LOCAL or ip.teredo is not None:
        # The embedded IPv4 address depends on a local prefix length or names a relay: no single target.
        raise CanonicalizationError(f"address {shown[:80]!r} is translated in a way that has no single target")
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip in _NAT64 or (ip in _V4_COMPATIBLE and int(ip) > 1):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip


def ip_class(ip: IP) -> str:
    """Return the class of an address, a member of ``Sandbox::IpClass`` in the schema.

    The metadata services of the cloud vendors are a class of their own and win over every other class; carrier-grade
    NAT (RFC 6598) is told apart from private use (RFC 1918). The rest follows the IANA special-purpose registries as
    Python's ``ipaddress`` knows them.
    """
    checks = (
        (ip in _METADATA, "metadata"),
        (ip.is_loopback, "loopback"),
        (ip.is_multicast, "multicast"),
        (ip.is_link_local, "link_local"),
        (isinstance(ip, ipaddress.IPv4Address) and ip in _CGNAT, "cgnat"),
        (ip.is_unspecified or ip.is_reserved, "reserved"),
        (ip.is_private, "private"),
        (ip.is_global, "public"),
    )
    return next((name for holds, name in checks if holds), "reserved")


def canonical_path(text: str) -> str:
    """Return the canonical form of an absolute POSIX path: NFC, no ``.``, ``..``, doubled or trailing slashes.

    Symbolic links are not this function's business: resolve them first, on the side where the path lives.

    Raises:
        CanonicalizationError: The path is relative, or holds a NUL, a control character or an unpaired surrogate.
    """
    if any(ord(char) < 0x20 or ord(char) == 0x7F or 0xD800 <= ord(char) <= 0xDFFF for char in text):
        raise CanonicalizationError(f"path {text[:80]!r} has a control character or is not Unicode")
    if not text.startswith("/"):
        raise CanonicalizationError(f"path {text[:80]!r} is not absolute")
    return unicodedata.normalize("NFC", "/" + posixpath.normpath(text).lstrip("/"))


def ancestors(path: str) -> tuple[str, ...]:
    """Return every directory above a canonical path, nearest first, ``/`` last; nothing for ``/`` itself."""
    above = []
    while path != "/":
        path = posixpath.dirname(path)
        above.append(path)
    return tuple(above)
