"""The canonical forms of :mod:`cedarbox.policy` as sets of texts, and the class of an address as a term.

Each set holds every text that the builders make, and a few more: what is proved of more is proved of those.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.addresses import classes
from cedarbox.policy.canonical import Host, canonical_host, canonical_path
from cedarbox.review.prove.patterns import HIGHEST, Pattern
from cedarbox.review.prove.payloads import IpParts
from cedarbox.review.prove.terms import Term, Terms

__all__ = [
    "ABSENT",
    "ACCOUNT",
    "ADDRESS_4",
    "ADDRESS_6",
    "HOST",
    "HOST_NARROW",
    "HTTP_METHOD",
    "HTTP_PATH",
    "HTTP_UPGRADE",
    "NO_SLASH",
    "PATH",
    "VARIABLE",
    "address_of",
    "class_of",
    "is_host",
    "is_path",
]


def _ranges(*ranges: tuple[int, int]) -> tuple[str, str]:
    smt = [f'(re.range "\\u{{{low:x}}}" "\\u{{{high:x}}}")' for low, high in ranges]
    # Solvers have no characters above this; Python has.
    highest = {HIGHEST: 0x10FFFF}
    python = "".join(f"\\U{low:08x}-\\U{highest.get(high, high):08x}" for low, high in ranges)
    return (smt[0] if len(smt) == 1 else f"(re.union {' '.join(smt)})"), f"[{python}]"


def _chars(text: str) -> tuple[str, str]:
    return _ranges(*((ord(char), ord(char)) for char in text))


def _chars_and(ranges: tuple[tuple[int, int], ...], text: str) -> tuple[str, str]:
    return _ranges(*ranges, *((ord(char), ord(char)) for char in text))


_Part = tuple[str, str]


def _seq(*parts: _Part) -> _Part:
    return f"(re.++ {' '.join(smt for smt, _ in parts)})", "".join(python for _, python in parts)


def _any_of(*parts: _Part) -> _Part:
    return f"(re.union {' '.join(smt for smt, _ in parts)})", f"(?:{'|'.join(python for _, python in parts)})"


def _many(part: _Part) -> _Part:
    return f"(re.* {part[0]})", f"(?:{part[1]})*"


def _some(part: _Part) -> _Part:
    return f"(re.+ {part[0]})", f"(?:{part[1]})+"


def _maybe(part: _Part) -> _Part:
    return f"(re.opt {part[0]})", f"(?:{part[1]})?"


def _pattern(part: _Part) -> Pattern:
    return Pattern(*part)


_DIGITS, _SMALL, _LARGE = (0x30, 0x39), (0x61, 0x7A), (0x41, 0x5A)
_DIGIT: Final = _ranges(_DIGITS)
_EDGE: Final = _chars_and((_DIGITS, _SMALL), "_")
_INNER: Final = _chars_and((_DIGITS, _SMALL), "_-")
_DOT: Final = _chars(".")
# A label does not end in a hyphen and the last one is no number, which is left out: solvers take seconds for it.
_LABEL: Final = _seq(_EDGE, _many(_INNER))
HOST: Final = _pattern(_seq(_LABEL, _many(_seq(_DOT, _LABEL))))
"""Names of hosts (``canonical.canonical_host``), and dotted numbers and more that are none."""

_WHOLE_LABEL: Final = _seq(_EDGE, _maybe(_seq(_many(_INNER), _EDGE)))
_LETTER: Final = _chars_and((_SMALL,), "_")
_LAST_LABEL: Final = _any_of(_LETTER, _seq(_EDGE, _many(_INNER), _LETTER))
HOST_NARROW: Final = _pattern(_seq(_many(_seq(_WHOLE_LABEL, _DOT)), _LAST_LABEL))
"""Names of which the last label ends with a letter: not all that there are, for an example rather than a proof."""

ADDRESS_4: Final = _pattern(_seq(_some(_DIGIT), _DOT, _some(_DIGIT), _DOT, _some(_DIGIT), _DOT, _some(_DIGIT)))
"""Addresses of IPv4."""
ADDRESS_6: Final = Pattern('(re.++ re.all (str.to_re ":") re.all)', ".*:.*")
"""Addresses of IPv6."""

_ABOVE: Final = ((0xA0, 0xD7FF), (0xE000, 0x2FFFF))
# Neither a slash nor a backslash nor a control character.
_IN_PATH: Final = _ranges((0x20, 0x2E), (0x30, 0x5B), (0x5D, 0x7E), *_ABOVE)
_IN_PATH_NO_DOT: Final = _ranges((0x20, 0x2D), (0x30, 0x5B), (0x5D, 0x7E), *_ABOVE)


def _segment(char: _Part, no_dot: _Part) -> _Part:
    return _any_of(_seq(no_dot, _many(char)), _seq(_DOT, no_dot, _many(char)), _seq(_DOT, _DOT, char, _many(char)))


_SLASH: Final = _chars("/")
PATH: Final = _pattern(_any_of(_SLASH, _some(_seq(_SLASH, _segment(_IN_PATH, _IN_PATH_NO_DOT)))))
"""Paths (``canonical.canonical_path``), whatever their length and normal form."""

# Besides, neither a question mark nor a number sign.
_IN_URL: Final = _ranges((0x20, 0x22), (0x24, 0x2E), (0x30, 0x3E), (0x40, 0x5B), (0x5D, 0x7E), *_ABOVE)
_IN_URL_NO_DOT: Final = _ranges((0x20, 0x22), (0x24, 0x2D), (0x30, 0x3E), (0x40, 0x5B), (0x5D, 0x7E), *_ABOVE)
_URL_SEGMENT: Final = _segment(_IN_URL, _IN_URL_NO_DOT)
HTTP_PATH: Final = _pattern(_seq(_SLASH, _many(_seq(_URL_SEGMENT, _SLASH)), _maybe(_URL_SEGMENT)))
"""Paths of requests in HTTP (``wire.http_request``)."""

_MARKS: Final = "!#$%&'*+.^_`|~-"
HTTP_METHOD: Final = _pattern(_some(_chars_and((_LARGE, _DIGITS), _MARKS)))
"""Methods of HTTP (``wire.http_request``)."""
_PROTOCOL: Final = _some(_chars_and((_SMALL, _DIGITS), _MARKS))
HTTP_UPGRADE: Final = _pattern(_seq(_PROTOCOL, _maybe(_seq(_SLASH, _PROTOCOL))))
"""What a connection becomes (``wire.http_request``)."""

ACCOUNT: Final = _pattern(
    _seq(_chars_and((_LARGE, _SMALL), "_"), _many(_chars_and((_LARGE, _SMALL, _DIGITS), "_.-")), _maybe(_chars("$")))
)
"""Names of users and groups (``canonical.canonical_user``)."""

VARIABLE: Final = _pattern(_some(_ranges((0x20, 0x3C), (0x3E, 0xD7FF), (0xE000, 0x2FFFF))))
"""Names of environment variables (``actions.set_environment``)."""

NO_SLASH: Final = _pattern(_many(_ranges((0, 0x2E), (0x30, 0x2FFFF))))
"""Names of tools (``actions.invoke_tool``)."""


def is_host(text: str) -> bool:
    """Whether a text is the canonical form of a name."""
    try:
        return canonical_host(text) == Host(text)
    except CanonicalizationError:
        return False


def is_path(text: str) -> bool:
    """Whether a text is the canonical form of a path."""
    try:
        return canonical_path(text) == text
    except CanonicalizationError:
        return False


def _in_no_host(text: str) -> bool:
    return not all(char.isascii() and (char.islower() or char.isdigit() or char in "-_.") for char in text)


def _in_no_path(text: str) -> bool:
    return _NO_SEGMENT.search(text) is not None or any(char == "\\" or _unseen(char) for char in text)


def _in_no_http_path(text: str) -> bool:
    return _NO_SEGMENT.search(text) is not None or any(char in "\\?#" or _is_control(char) for char in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) == "Cc"


def _unseen(char: str) -> bool:
    # By what was so in Unicode 3.2 as well: a host may have a Python with other tables than this one. Solvers do not
    # know these as the language of paths: there are so many that it would take them seconds.
    return unicodedata.ucd_3_2_0.category(char) in {"Cc", "Cf", "Zl", "Zp"} and not is_path(f"/x{char}")


_NO_SEGMENT: Final = re.compile(r"//|/\.{1,2}/")
ABSENT: Final[Mapping[Pattern, Callable[[str], bool]]] = {
    HOST: _in_no_host,
    PATH: _in_no_path,
    HTTP_PATH: _in_no_http_path,
}
"""Whether something is in no text of a language: a solver can take long to find that out of a pattern."""


def address_of(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of which a text is the id; None when it is the id of none."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return ip if str(ip) == text else None


def class_of(terms: Terms, ip: IpParts) -> Term:
    """Return the class of an address, which has the whole of it as its prefix: ``addresses.ip_class`` as a term."""
    four = 0xFFFFFFFF
    low = terms.bvand(ip.address, terms.bv(four))
    six = terms.not_(ip.v4)
    embedded = terms.and_(six, terms.or_(*(_within(terms, ip.address, block) for block in _EMBEDDING)))
    plain_4 = terms.or_(ip.v4, embedded)
    plain_6 = terms.and_(six, terms.not_(embedded))
    isatap = [
        terms.eq(terms.bvand(ip.address, terms.bv(four << 32)), terms.bv(half << 32)) for half in (0x5EFE, 0x02005EFE)
    ]
    translated = terms.and_(
        plain_6,
        terms.or_(*(_within(terms, ip.address, block) for block in _TRANSLATED), *isatap),
        *(terms.not_(terms.eq(ip.address, terms.bv(each))) for each in (0, 1)),
    )
    found = terms.string("reserved")
    for name, networks in reversed(classes()):
        inside = [
            terms.and_(plain_4, _within(terms, low, network))
            if isinstance(network, ipaddress.IPv4Network)
            else terms.and_(plain_6, _within(terms, ip.address, network))
            for network in networks
        ]
        found = terms.ite(terms.or_(*inside), terms.string(name), found)
    return terms.ite(translated, terms.string("reserved"), found)


# addresses.embedded and addresses.translated; a test holds them against those for addresses of every block.
_EMBEDDING: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::ffff:0:0/96"))
_TRANSLATED: Final = tuple(
    ipaddress.IPv6Network(text) for text in ("64:ff9b:1::/48", "::ffff:0:0:0/96", "::/96", "2001::/32", "2002::/16")
)


def _within(terms: Terms, bits: Term, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Term:
    return terms.top(bits, network.max_prefixlen - network.prefixlen, int(network.network_address))
