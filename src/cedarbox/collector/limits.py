"""How much may be under way at once. What is more is asked to come back later; nothing is dropped silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from cedarbox.collector.body import MAX_BODY
from cedarbox.errors import HostError

__all__ = ["RETRY_SECONDS", "REQUEST_SECONDS", "Budget", "BusyError", "Ticket"]

RETRY_SECONDS: Final = 1
"""When a refused sender should try again."""

REQUEST_SECONDS: Final = 30.0
"""How long the body of one request may take to arrive."""

_REQUESTS: Final = 32
_BYTES: Final = 4 * MAX_BODY
_WORKERS: Final = 2
"""Requests that are decoded at once; decoded, a request takes several times the memory of its bytes."""


class BusyError(HostError):
    """As much as may be is under way."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the collector is busy: {what}", hint=f"send it again after {RETRY_SECONDS} s")


class Ticket:
    """The part of a budget that one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.bytes = budget, 0

    def take(self, size: int) -> None:
        """Count further bytes.

        Raises:
            BusyError: The budget does not have them.
        """
        self._budget.take(size)
        self.bytes += size


class Budget:
    """Bounds the requests, the bytes of their bodies and the work under way. Usable from several threads.

    Args:
        requests: Requests under way at once.
        size: Bytes of bodies that are held at once.
        workers: Requests that are decoded and stored at once; the others wait.
    """

    def __init__(self, *, requests: int = _REQUESTS, size: int = _BYTES, workers: int = _WORKERS) -> None:
        self._lock = threading.Lock()
        self._requests, self._bytes = requests, size
        self.working = threading.BoundedSemaphore(workers)

    @contextmanager
    def request(self) -> Iterator[Ticket]:
        """Count a request while it lasts.

        Raises:
            BusyError: There are too many.
        """
        with self._lock:
            if self._requests == 0:
                raise BusyError("too many requests are under way")
            self._requests -= 1
        ticket = Ticket(self)
        try:
            yield ticket
        finally:
            with self._lock:
                self._requests += 1
                self._bytes += ticket.bytes

    def take(self, size: int) -> None:
        """Count further bytes; `Ticket.take` is what gives them back.

        Raises:
            BusyError: There are too many.
        """
        with self._lock:
            if size > self._bytes:
                raise BusyError("too many bytes are under way")
            self._bytes -= size
