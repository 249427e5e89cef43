"""uvicorn's HTTP/1.1 protocol with a bound on connections and on the time that the head of a request may take."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_SECONDS", "MAX_CONNECTIONS", "GuardedProtocol"]

MAX_CONNECTIONS: Final = 256

HEAD_SECONDS: Final = 10.0
"""How long a connection may be open without a request on it, or with a part of one."""


class GuardedProtocol(H11Protocol):
    """Closes what exceeds the bounds; uvicorn itself lets a connection that sends half a head stay for ever."""

    seconds = HEAD_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._impatience: asyncio.TimerHandle | None = None
        self._seen: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or close it when there are too many."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._impatience = self.loop.call_later(self.seconds, self._expect)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
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
        self._impatience = self.loop.call_later(self.seconds, self._expect)
