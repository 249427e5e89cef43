"""What the texts in ``ip("…")``, ``decimal("…")``, ``datetime("…")`` and ``duration("…")`` are.

Each function reads what Cedar reads (``cedar-policy-core``, ``extensions/*.rs``, 4.12) and refuses the rest.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import UTC, datetime, timedelta
from typing import Final

from cedarbox.review.prove.types import MAX_LONG, MIN_LONG

__all__ = ["DAY_MS", "datetime_of", "datetime_text", "decimal_of", "decimal_text", "duration_of", "ip_of", "ip_text"]

DAY_MS: Final = 86_400_000
_DECIMAL: Final = re.compile(r"(-?[0-9]+)\.([0-9]{1,4})")
_DURATION: Final = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_UNITS_MS: Final = (DAY_MS, 3_600_000, 60_000, 1_000, 1)
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_PREFIX: Final = re.compile(r"0|[1-9][0-9]{0,2}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _fits(value: int) -> int:
    if not MIN_LONG <= value <= MAX_LONG:
        raise ValueError("overflow")
    return value


def ip_of(text: str) -> tuple[bool, int, int]:
    """Return whether an address is of IPv4, its bits as a number, and the length of its prefix.

    Raises:
        ValueError: Cedar does not read it.
    """
    address, slash, prefix = text.partition("/")
    if not address.isascii() or "%" in address or (":" in address and "." in address):
        raise ValueError(f"{text!r} is no address")
    ip = ipaddress.ip_address(address)
    if slash and not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{text!r} has no prefix")
    length = int(prefix) if slash else ip.max_prefixlen
    if length > ip.max_prefixlen:
        raise ValueError(f"{text!r} has too long a prefix")
    return ip.version == 4, int(ip), length


def ip_text(v4: bool, address: int, prefix: int) -> str:
    """Return an address as Cedar reads it."""
    ip = ipaddress.IPv4Address(address & 0xFFFFFFFF) if v4 else ipaddress.IPv6Address(address)
    # Python writes a mapped address with dots in it, which Cedar refuses.
    text = str(ip) if v4 or "." not in str(ip) else ip.exploded
    return text if prefix == ip.max_prefixlen else f"{text}/{prefix}"


def decimal_of(text: str) -> int:
    """Return a decimal in units of 1/10000.

    Raises:
        ValueError: Cedar does not read it.
    """
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no decimal")
    whole, part = int(found[1]) * 10_000, int(found[2].ljust(4, "0"))
    return _fits(_fits(whole) - part if found[1].startswith("-") else whole + part)


def decimal_text(value: int) -> str:
    """Return a decimal, given in units of 1/10000, as Cedar reads it."""
    return f"{'-' if value < 0 else ''}{abs(value) // 10_000}.{abs(value) % 10_000:04}"


def duration_of(text: str) -> int:
    """Return a duration in milliseconds.

    Raises:
        ValueError: Cedar does not read it.
    """
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()[1:]):
        raise ValueError(f"{text!r} is no duration")
    total = sum(int(part or 0) * unit for part, unit in zip(found.groups()[1:], _UNITS_MS, strict=True))
    return _fits(-total if found[1] else total)


def datetime_of(text: str) -> int:
    """Return a moment in milliseconds since 1970-01-01.

    Raises:
        ValueError: Cedar does not read it, or it is in the year 0.
    """
    found = _DATETIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no datetime")
    year, month, day, hour, minute, second, ms = (int(part or 0) for part in found.groups()[:7])
    # `fromisoformat` would take more than Cedar does.
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    offset_h, offset_m = int(found[9] or 0), int(found[10] or 0)
    if offset_h >= 24 or offset_m >= 60:
        raise ValueError(f"{text!r} has no such offset")
    offset = (offset_h * 60 + offset_m) * 60_000 * (-1 if found[8] == "-" else 1)
    return (moment - _EPOCH) // timedelta(milliseconds=1) + ms - offset


def datetime_text(value: int) -> str | None:
    """Return a moment, in milliseconds since 1970-01-01, as Cedar reads it; None before the year 1 and after 9999."""
    try:
        moment = _EPOCH + timedelta(milliseconds=value)
    except OverflowError:
        return None
    return f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
