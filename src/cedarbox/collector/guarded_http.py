"""uvicorn's HTTP/1.1 protocol with a bound on connections and on the time that the head of a request may take."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from cedarbox.collector.limits import Limits

__all__ = ["guarded_protocol"]


def guarded_protocol(limits: Limits) -> type[H11Protocol]:
    """Make the protocol class for some limits; uvicorn itself lets a connection that sends half a head stay for ever.

    Args:
        limits: How many connections, and how long one may stay without a request.
    """

    class Guarded(H11Protocol):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self._impatience: asyncio.TimerHandle | None = None
            self._seen: object = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._impatience = self.loop.call_later(limits.head_seconds, self._expect)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._impatience is not None:
                self._impatience.cancel()
            super().connection_lost(exc)

        def _expect(self) -> None:
            """Close the connection unless a request came since the last look, or one is under way."""
            under_way = self.cycle is not None and not self.cycle.response_complete
            if not under_way and self.cycle is self._seen:
                self.transport.abort()
                return
            self._seen = None if under_way else self.cycle
            self._impatience = self.loop.call_later(limits.head_seconds, self._expect)

    return Guarded
