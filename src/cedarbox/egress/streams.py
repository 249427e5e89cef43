"""One connection of the guest, as the host sees it."""

from __future__ import annotations

from typing import Protocol

from cedarbox.errors import CedarboxError

__all__ = ["ByteStream", "StreamClosedError"]


class StreamClosedError(CedarboxError):
    """The guest, or the end of the channel, closed the connection: nothing more can be read or written."""


class ByteStream(Protocol):
    """A connection that a program of the guest made to the relay. One reader and one writer at a time."""

    async def read(self, limit: int = 65536) -> bytes:
        """Return the next bytes from the guest, at least one; empty when the guest finished sending.

        Args:
            limit: The most bytes that are returned.

        Raises:
            StreamClosedError: The connection is closed.
        """

    async def write(self, data: bytes) -> None:
        """Send bytes to the guest, once the guest has room for them: this is the backpressure.

        Raises:
            StreamClosedError: The connection is closed.
        """

    async def finish(self) -> None:
        """Say that nothing more will be sent; reading goes on. Doing it twice changes nothing."""

    def close(self) -> None:
        """Close both directions at once; what was not delivered is lost. Never fails, never waits."""
