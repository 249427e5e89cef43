"""How a shipper works, and how far it is."""

from __future__ import annotations

from dataclasses import dataclass

from cedarbox.audit.place import Unit

__all__ = ["Pace", "Status"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much and how often.

    Args:
        batch_units: Units in a request at most.
        batch_bytes: Bytes of units in a request, unless one unit alone is longer.
        poll_s: Seconds between two looks at the files.
        first_s: Wait after a failure, in seconds; it doubles up to ``last_s``.
        last_s: Longest wait after a failure.
        held_tries: How often a unit is refused before it is left.
    """

    batch_units: int = 512
    batch_bytes: int = 1024 * 1024
    poll_s: float = 0.2
    first_s: float = 0.1
    last_s: float = 120.0
    held_tries: int = 40


@dataclass(frozen=True, slots=True)
class Status:
    """How far a shipper is.

    Args:
        last_error: What fails now; empty when all works.
        pending_records: Units on disk that were not acknowledged, held ones among them.
        pending_bytes: Their size.
        last_acknowledged: When the collector acknowledged something last, as records write times; empty for never.
        held: What the collector refused and is tried again on its own.
        left: What the collector refused so often that it is no longer tried.
    """

    last_error: str
    pending_records: int
    pending_bytes: int
    last_acknowledged: str
    held: tuple[Unit, ...]
    left: tuple[Unit, ...]
