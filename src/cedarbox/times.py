"""Lengths of time and moments, as people and files write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["duration_s", "in_utc"]

_DURATION: Final = re.compile(r"([0-9]{1,9})([smhdw])", re.ASCII).fullmatch
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def duration_s(text: str) -> int | None:
    """Read a length of time such as ``90s``, ``15m``, ``2h``, ``30d`` or ``4w``.

    Returns:
        Seconds; None when it is no length of time.
    """
    match = _DURATION(text)
    return int(match[1]) * _UNITS[match[2]] if match else None


def in_utc(moment: datetime) -> str:
    """Write a moment to the second, such as ``2026-11-23T00:09:31Z``.

    Args:
        moment: With its zone.
    """
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
