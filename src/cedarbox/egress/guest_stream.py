"""One connection of the guest: what the relay sent and nobody has read, and what it has room for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from cedarbox.egress import relay
from cedarbox.egress.frames import ChannelError, head, window
from cedarbox.egress.streams import StreamClosedError

__all__ = ["MOST_TAKEN", "GuestStream"]

MOST_TAKEN: Final = relay.PAYLOAD + 64
"""The most bytes that :meth:`GuestStream.take` gives: one full payload, and the heads of four frames."""

_NOTHING: Final = memoryview(b"")


class GuestStream:
    """The :class:`ByteStream` of a channel. At most its window is held of what the guest sent, in one buffer.

    Args:
        number: The number that the relay gave it.
        held: Bytes from the guest that are held unread, at least ``relay.HOST_WINDOW``.
        wake: Called with the stream when :attr:`due` has become true.
    """

    def __init__(self, number: int, held: int, wake: Callable[[GuestStream], None]) -> None:
        self.number, self._held, self._wake = number, held, wake
        self._received = bytearray()
        self._room = relay.HOST_WINDOW
        # Read, and not yet granted again; and granted, but not yet sent to the guest.
        self._read, self._grant = 0, held - relay.HOST_WINDOW
        self._credit = relay.GUEST_WINDOW
        self._outgoing = _NOTHING
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._ended = self._finishing = self._finished = False
        self._closed = self._resetting = self._gone = False

    async def read(self, limit: int = 65536) -> bytes:
        """Return the next bytes from the guest; see :class:`ByteStream`."""
        if limit < 1:
            raise ValueError("at least one byte must be read")
        while not self._received:
            if self._closed:
                raise StreamClosedError("the connection of the guest is closed")
            if self._ended:
                return b""
            if self._reader is not None:
                raise RuntimeError("the connection has a reader already")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._received[:limit])
        del self._received[: len(data)]
        self._read += len(data)
        # A quarter at a time: fewer frames, and the guest never waits with more than that to spare.
        if self._read >= self._held // 4 and not self._ended:
            self._grant += self._read
            self._read = 0
            self._wake(self)
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes to the guest; returns when they were taken to be sent; see :class:`ByteStream`."""
        if self._closed or self._finishing or self._gone:
            raise StreamClosedError("the connection of the guest is closed")
        if self._writer is not None:
            raise RuntimeError("the connection has a writer already")
        if not data:
            return
        self._outgoing = memoryview(data)
        self._writer = asyncio.get_running_loop().create_future()
        self._wake(self)
        try:
            await self._writer
        finally:
            self._outgoing, self._writer = _NOTHING, None

    async def finish(self) -> None:
        """Say that nothing more will be sent; see :class:`ByteStream`."""
        if not self._closed and not self._finishing:
            self._finishing = True
            self._wake(self)

    def close(self) -> None:
        """Close both directions at once; see :class:`ByteStream`."""
        if not self._closed:
            # Where both sides have finished, the guest is about to say its last word by itself.
            self._resetting = not (self._ended and self._finishing)
            self._shut()
            self._wake(self)

    def refuse(self) -> None:
        """Close it before anybody has seen it."""
        self._grant = 0
        self.close()

    def lose(self) -> None:
        """Close it, because the channel is over or the guest has forgotten it: nothing can be sent any more."""
        self._gone = True
        self._shut()

    @property
    def due(self) -> bool:
        """Whether :meth:`take` would give something."""
        if self._gone:
            return False
        ending = self._finishing and not self._finished and not self._outgoing
        return bool(self._grant or (self._outgoing and self._credit) or ending or self._resetting)

    def take(self, parts: list[bytes | memoryview]) -> int:
        """Append what is to be sent to the guest, with the bytes of at most one ``DATA``; return its size in bytes.

        What is appended is valid until the next ``await``.
        """
        before = len(parts)
        if self._grant and not self._closed and not self._ended:
            self._room += self._grant
            parts.append(window(self.number, self._grant))
        self._grant = 0
        if self._outgoing and self._credit:
            piece = self._outgoing[: min(relay.PAYLOAD, self._credit)]
            self._credit -= len(piece)
            parts += (head(relay.DATA, self.number, len(piece)), piece)
            self._outgoing = self._outgoing[len(piece) :]
            if not self._outgoing:
                _wake(self._writer)
        if self._finishing and not self._finished and not self._outgoing:
            self._finished = True
            parts.append(head(relay.EOF, self.number))
        if self._resetting:
            self._resetting = False
            parts.append(head(relay.RESET, self.number))
        return sum(map(len, parts[before:]))

    def arrived(self, data: bytes) -> None:
        """Take bytes of the guest.

        Raises:
            ChannelError: It had said that there are no more, or there was no room for them.
        """
        if self._ended:
            raise ChannelError(f"sent data on stream {self.number} after its end")
        if len(data) > self._room:
            raise ChannelError(f"sent more on stream {self.number} than there was room for")
        self._room -= len(data)
        if not self._closed:
            self._received += data
            _wake(self._reader)

    def granted(self, credit: int) -> None:
        """Take room that the guest has.

        Raises:
            ChannelError: It is more than the guest can have.
        """
        self._credit += credit
        if self._credit > relay.GUEST_WINDOW:
            raise ChannelError(f"granted more on stream {self.number} than it was sent")
        if self._outgoing:
            self._wake(self)

    def ended(self) -> None:
        """Take it that the guest has finished sending.

        Raises:
            ChannelError: It had said so before.
        """
        if self._ended:
            raise ChannelError(f"ended stream {self.number} twice")
        self._ended = True
        _wake(self._reader)

    def forgotten(self) -> None:
        """Take it that the guest has forgotten the stream. What came before a proper end can still be read."""
        if self._ended and self._finished:
            self._gone = True
        else:
            self.lose()

    def _shut(self) -> None:
        self._closed = True
        self._received = bytearray()
        self._outgoing = _NOTHING
        _wake(self._reader)
        if self._writer is not None and not self._writer.done():
            self._writer.set_exception(StreamClosedError("the connection of the guest is closed"))


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
