"""The guest's end of a connection: what was read ahead, time limits, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Final

from cedarbox.egress.limits import EgressLimits, LimitError
from cedarbox.egress.streams import ByteStream, StreamClosedError
from cedarbox.errors import CedarboxError

__all__ = ["Guest", "HeadError"]

_PIECE: Final = 65536
_END: Final = b"\r\n\r\n"
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LINGER_SECONDS: Final = 5.0
_LINGER_BYTES: Final = 1 << 20


class HeadError(CedarboxError):
    """What the guest sent is no head of a request that has one meaning."""


class Guest:
    """A connection of the guest.

    Args:
        stream: As the channel gives it.
        limits: Of the sandbox.
    """

    def __init__(self, stream: ByteStream, limits: EgressLimits) -> None:
        self.stream, self.limits = stream, limits
        self.buffer = bytearray()
        self._pending: asyncio.Task[bytes] | None = None
        self._ended = False

    async def more(self) -> bool:
        """Read once into the buffer; False when the guest has finished sending.

        Raises:
            StreamClosedError: The connection is closed.
        """
        if not self._ended:
            data = await self._next()
            self.buffer += data
            self._ended = not data
        return not self._ended

    async def silent(self, seconds: float | None) -> bool:
        """Wait until the guest sends or ends, and leave what it sent unread; True when the time ran out."""
        if self.buffer or self._ended:
            return False
        # The read goes on, whoever waits for it: a read that is given up could lose what it had taken.
        self._pending = self._pending or asyncio.create_task(self.stream.read(_PIECE))
        done, _ = await asyncio.wait((self._pending,), timeout=seconds)
        return not done

    async def watch(self) -> None:
        """Return once the guest sends more or has finished sending; what it sent stays unread.

        Raises:
            StreamClosedError: The connection is closed.
        """
        await self.silent(None)
        if self._pending is not None and self._pending.done() and (error := self._pending.exception()):
            raise error

    async def read(self) -> bytes:
        """Return what was read ahead, or the next bytes; empty when the guest has finished sending.

        Raises:
            StreamClosedError: The connection is closed.
        """
        if not self.buffer and not await self.more():
            return b""
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    async def exactly(self, count: int) -> bytes:
        """Take so many bytes.

        Raises:
            HeadError: The guest finished before.
            StreamClosedError: The connection is closed.
        """
        while len(self.buffer) < count:
            if not await self.more():
                raise HeadError("the guest finished in the middle of a handshake")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    async def head(self, idle: float) -> bytes | None:
        """Take the head of the next request, with the empty line that ends it; None when there is none.

        Args:
            idle: Seconds until its first byte; the rest has ``first_byte_s``.

        Raises:
            HeadError: It is too long, unfinished, or its lines have more than one reading.
            LimitError: It took too long.
            StreamClosedError: The connection is closed.
        """
        if await self.silent(idle):
            return None
        try:
            async with asyncio.timeout(self.limits.first_byte_s):
                return await self._head()
        except TimeoutError:
            raise LimitError(f"limit: no whole head within {self.limits.first_byte_s:g} s") from None

    async def _head(self) -> bytes | None:
        seen = 0
        while True:
            found = self.buffer.find(_END, max(0, seen - 3))
            size = found + len(_END) if found >= 0 else len(self.buffer)
            if size > self.limits.head_bytes:
                raise HeadError(f"the head is longer than {self.limits.head_bytes} bytes")
            # h11 takes a bare line feed for the end of a line, and folds lines; servers read both differently.
            if _BARE_LF.search(self.buffer, max(0, seen - 1), size):
                raise HeadError("a line ends in a bare line feed")
            if found >= 0:
                break
            seen = len(self.buffer)
            if not await self.more():
                if not self.buffer:
                    return None
                raise HeadError("the guest finished in the middle of a head")
        head = bytes(self.buffer[:size])
        del self.buffer[:size]
        if b"\r" in head.replace(b"\r\n", b"") or b"\x00" in head:
            raise HeadError("the head has a bare carriage return or a NUL")
        if b"\r\n " in head or b"\r\n\t" in head:
            raise HeadError("a header goes on in a second line")
        return head

    async def write(self, data: bytes) -> None:
        """Send to the guest, once it has room.

        Raises:
            StreamClosedError: The connection is closed.
        """
        if data:
            await self.stream.write(data)

    async def end(self, last: bytes = b"") -> None:
        """Send the last words and close, once the guest has read them or a few seconds are over.

        To close at once would lose what is on its way, when the guest was still sending.
        """
        with contextlib.suppress(StreamClosedError, TimeoutError):
            async with asyncio.timeout(_LINGER_SECONDS):
                await self.write(last)
                await self.stream.finish()
                thrown = 0
                while thrown < _LINGER_BYTES and (data := await self.read()):
                    thrown += len(data)
        self.close()

    def close(self) -> None:
        """Close both directions at once."""
        if self._pending is not None and not self._pending.cancel() and not self._pending.cancelled():
            self._pending.exception()
        self.stream.close()

    async def _next(self) -> bytes:
        if self._pending is None:
            return await self.stream.read(_PIECE)
        pending = self._pending
        # Whoever gives up waiting must not cancel the read.
        data = await asyncio.shield(pending)
        self._pending = None
        return data
