"""The clock of a stream: wall time that never goes back.

The times of a stream come from the wall clock of the host. The clock that runs since boot, suspend included, tells a
step of the wall clock from time that passed. When the wall clock steps by more than a second, the ledger writes a
``clock.stepped`` record. After a step back the times go on from the last one: ``offset_ns`` of the last
``clock.stepped`` record of the stream is what was added, so ``time - offset_ns`` is what the wall clock said.
The first record of a stream is always ``ledger.opened``: a step before it is recorded right after it.
Below a second the time stands still until the wall clock has caught up, without a record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cedarbox.audit.record import Entry, format_time

__all__ = ["Clock", "Step", "after", "since_boot"]

_TOLERANCE_NS: Final = 1_000_000_000
# adjtime(3) slews at up to 500 parts per million; twice that is no step.
_SLEW_DIVISOR: Final = 1_000


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the wall clock.

    Args:
        by_ns: How far the wall clock went beyond the time that passed; negative for a step back.
        wall_ns: What the wall clock says now, in nanoseconds since 1970.
        offset_ns: What is added to the wall clock from now on.
    """

    by_ns: int
    wall_ns: int
    offset_ns: int

    def entry(self) -> Entry:
        """Give what the ledger records about it; a step may be longer than 2^53 ns, which is 104 days."""
        attrs = {"by_ns": str(self.by_ns), "clock": format_time(self.wall_ns), "offset_ns": str(self.offset_ns)}
        return Entry(event="clock.stepped", attrs=attrs)


def after(last_ns: int, wall_ns: int) -> tuple[int, Step | None]:
    """Give a time that is not before the last one, where no clock ran in between: another process wrote that.

    Args:
        last_ns: The last time, in nanoseconds since 1970.
        wall_ns: What the wall clock says now.

    Returns:
        The time, and a step when the wall clock is more than a second before the last time.
    """
    back = wall_ns - last_ns
    return max(last_ns, wall_ns), Step(back, wall_ns, -back) if back < -_TOLERANCE_NS else None


def since_boot() -> int:
    """Nanoseconds since boot; on Linux they include the time the host slept."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Clock:
    """Times of one stream.

    Args:
        wall: Nanoseconds since 1970.
        steady: Nanoseconds of a clock that never steps.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = since_boot) -> None:
        self._wall, self._steady = wall, steady
        self._last_wall, self._last_steady = wall(), steady()
        self._last = self._last_wall
        self._offset = 0

    def now(self) -> tuple[int, Step | None]:
        """Give the time in nanoseconds since 1970, and the step that was seen since the last call, if any."""
        wall, steady = self._wall(), self._steady()
        passed = steady - self._last_steady
        by = wall - self._last_wall - passed
        self._last_wall, self._last_steady = wall, steady
        step = None
        if abs(by) > _TOLERANCE_NS + passed // _SLEW_DIVISOR:
            self._offset = self._last + passed - wall if wall < self._last else 0
            step = Step(by, wall, self._offset)
        self._last = max(self._last, wall + self._offset)
        return self._last, step
