"""Waiting longer after each failure, for each thing that can fail on its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom
from time import monotonic
from typing import Final

__all__ = ["Backoff"]

_LONGEST_WISH: Final = 3600.0
"""The longest wait, in seconds, that a collector is granted: a false date must not silence a sender for years."""


@dataclass(slots=True)
class _Wait:
    until: float
    delay: float
    firm: bool
    error: str


class Backoff:
    """What may not be tried yet. One thread changes it.

    Args:
        first_s: Wait after the first failure, in seconds; each further one doubles it. Half of a wait is random, so
            that many senders do not come back at once.
        last_s: Longest wait.
        now: Gives the time in seconds.
    """

    def __init__(self, first_s: float, last_s: float, *, now: Callable[[], float] = monotonic) -> None:
        self._first, self._last, self._now = first_s, last_s, now
        self._waits: dict[str, _Wait] = {}
        self._random = SystemRandom()

    @property
    def error(self) -> str:
        """What failed last and has not worked since; empty when all works."""
        waits = list(self._waits.values())
        return waits[-1].error if waits else ""

    def fail(self, scope: str, error: str, *, wait_s: float | None = None) -> None:
        """Remember a failure.

        Args:
            scope: What failed.
            error: Why.
            wait_s: What the other side asks for; nothing shortens it.
        """
        known = self._waits.pop(scope, None)
        delay = self._first if known is None else min(known.delay * 2, self._last)
        wait = delay * self._random.uniform(0.5, 1.0)
        firm = wait_s is not None
        if wait_s is not None:
            wait = max(wait, min(wait_s, _LONGEST_WISH))
        self._waits[scope] = _Wait(self._now() + wait, delay, firm, error)

    def work(self, scope: str) -> None:
        """Forget the failures of something, as it works now."""
        self._waits.pop(scope, None)

    def blocks(self, scope: str) -> bool:
        """Tell whether something may not be tried yet."""
        wait = self._waits.get(scope)
        return wait is not None and self._now() < wait.until

    def remaining(self, scope: str) -> float:
        """Give the seconds until something may be tried."""
        wait = self._waits.get(scope)
        return 0.0 if wait is None else max(0.0, wait.until - self._now())

    def hurry(self) -> None:
        """Let everything be tried now that nobody asked to leave alone."""
        for wait in list(self._waits.values()):
            if not wait.firm:
                wait.until = 0.0
