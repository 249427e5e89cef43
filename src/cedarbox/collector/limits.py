"""How much may be under way at once. What is more is asked to come back later; nothing is dropped silently."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from cedarbox.collector.body import MAX_BODY
from cedarbox.errors import HostError

__all__ = ["RETRY_SECONDS", "Budget", "BusyError", "Limits", "Ticket"]

RETRY_SECONDS: Final = 1
"""When a refused sender should try again."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one collector takes at once. Counts are across all senders.

    Args:
        requests: Requests under way.
        size: Bytes of request bodies that are held.
        workers: Requests that are decoded and stored; decoded, a request takes several times the memory of its bytes.
        calls: gRPC calls whose message is being received or stored; its size is only known once all of it is there.
        connections: HTTP connections.
        head_seconds: How long an HTTP connection may be open without a request on it, or with a part of its head.
        body_seconds: How long the body of a request may take to arrive.
    """

    requests: int = 32
    size: int = 2 * MAX_BODY
    workers: int = 2
    calls: int = 4
    connections: int = 256
    head_seconds: float = 10.0
    body_seconds: float = 30.0


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
        limits: The bounds.

    Attributes:
        working: Held by whoever decodes and stores a request.
    """

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._requests, self._bytes = limits.requests, limits.size
        self.working = threading.BoundedSemaphore(limits.workers)

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
