"""All connections of one guest, over the standard input and output of its relay."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.egress import relay
from cedarbox.egress.frames import ChannelError, Frame, FrameDecoder, credit_of, hello
from cedarbox.egress.guest_stream import MOST_TAKEN, GuestStream
from cedarbox.egress.streams import ByteStream, StreamClosedError
from cedarbox.errors import ConfigurationError

__all__ = ["SEND_BYTES", "Channel", "ChannelLimits"]

SEND_BYTES: Final = 256 * 1024
"""The most bytes that are sent at a time; one input of over 4 MB hangs (measured on BoxLite 0.10.8)."""

_TURN: Final = 16 * 1024
_MAX_WINDOW: Final = 16 * 1024 * 1024

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What one guest may have; what is beyond is reset at once.

    Attributes:
        max_streams: Connections that are served at a time, 1 to 1024; one counts until ``serve`` has returned.
        opens_per_second: New connections, over time.
        opens_burst: New connections at once, after a rest.
        window_bytes: Bytes of one connection that are held unread, 65536 to 16 MiB. All together hold at most
            ``max_streams`` times that, whatever the guest does.
    """

    max_streams: int = relay.MAX_STREAMS
    opens_per_second: float = 256.0
    opens_burst: int = relay.MAX_STREAMS
    window_bytes: int = relay.HOST_WINDOW

    def __post_init__(self) -> None:
        if not 1 <= self.max_streams <= relay.MAX_STREAMS:
            raise ConfigurationError(f"max_streams is {self.max_streams}", hint=f"use 1 to {relay.MAX_STREAMS}")
        if not (self.opens_per_second > 0 and self.opens_burst >= 1):
            raise ConfigurationError("opens_per_second or opens_burst is not positive")
        if not relay.HOST_WINDOW <= self.window_bytes <= _MAX_WINDOW:
            raise ConfigurationError(
                f"window_bytes is {self.window_bytes}", hint=f"use {relay.HOST_WINDOW} to {_MAX_WINDOW}"
            )


class Channel:
    """Tells the connections of a relay apart, and serves each of them.

    A relay that floods, stalls or sends garbage harms its own channel and no other: what it sends without room for it
    ends the channel, and what it does not take waits in the writers.

    Args:
        send: Writes to the relay's standard input; gets at most :data:`SEND_BYTES` bytes, one call at a time.
        serve: Serves one connection; the connection is closed when it returns. It is cancelled when the channel ends.
        limits: What the guest may have.
    """

    def __init__(
        self,
        send: Callable[[bytes], Awaitable[None]],
        serve: Callable[[ByteStream], Awaitable[None]],
        *,
        limits: ChannelLimits | None = None,
    ) -> None:
        self._send, self._serve = send, serve
        self._limits = limits or ChannelLimits()
        self._port: int | None = None
        self._settled = asyncio.Event()
        self._failure = ChannelError("ended before it was ready")
        self._streams: dict[int, GuestStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Those that have something to send, in the order of their turns.
        self._due: OrderedDict[int, GuestStream] = OrderedDict()
        self._wake = asyncio.Event()
        self._tokens, self._filled = float(self._limits.opens_burst), 0.0
        self._used = False

    async def ready(self) -> int:
        """Wait until the relay listens, and return its port.

        Raises:
            ChannelError: It ended or broke the protocol before.
        """
        await self._settled.wait()
        if self._port is None:
            raise ChannelError(self._failure.reason)
        return self._port

    async def run(self, received: AsyncIterator[str]) -> None:
        """Serve connections until the relay ends. Afterwards, however it ends, all are closed and no task is left.

        Args:
            received: The relay's standard output, in pieces of any size.

        Raises:
            ChannelError: The relay broke the protocol, or could not be read or written any more.
        """
        if self._used:
            raise RuntimeError("a channel is run once")
        self._used = True
        self._filled = asyncio.get_running_loop().time()
        reader = asyncio.create_task(self._receive(received))
        writer = asyncio.create_task(self._transmit())
        try:
            await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            for task in (reader, writer):
                if task.done():
                    task.result()
        except ChannelError as error:
            self._failure = error
            raise
        finally:
            self._settled.set()
            for stream in self._streams.values():
                stream.lose()
            self._streams.clear()
            self._due.clear()
            await _end({reader, writer, *self._tasks})

    async def _receive(self, received: AsyncIterator[str]) -> None:
        decoder = FrameDecoder()
        heard = 0
        while True:
            try:
                text = await anext(received)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise ChannelError(f"cannot be read any more: {error}") from error
            for frame in decoder.feed(text):
                self._handle(frame)
            heard += len(text)
            # What has arrived already is read without waiting, and would keep everybody else from running.
            if heard >= _TURN:
                heard = 0
                await asyncio.sleep(0)

    def _handle(self, frame: Frame) -> None:
        if self._port is None:
            self._port = hello(frame)
            self._settled.set()
            return
        if frame.kind == relay.HELLO:
            raise ChannelError("greeted twice")
        if frame.kind == relay.OPEN:
            self._open(frame.stream)
            return
        stream = self._streams.get(frame.stream)
        if stream is None:
            raise ChannelError(f"sent a frame of type {frame.kind} for stream {frame.stream}, which is not open")
        if frame.kind == relay.DATA:
            stream.arrived(frame.payload)
        elif frame.kind == relay.WINDOW:
            stream.granted(credit_of(frame))
        elif frame.kind == relay.EOF:
            stream.ended()
        else:
            del self._streams[frame.stream]
            self._due.pop(frame.stream, None)
            stream.forgotten()

    def _open(self, number: int) -> None:
        if number in self._streams:
            raise ChannelError(f"opened stream {number}, which is open")
        if len(self._streams) >= relay.MAX_STREAMS:
            raise ChannelError(f"opened more than {relay.MAX_STREAMS} streams at a time")
        stream = self._streams[number] = GuestStream(number, self._limits.window_bytes, self._queue)
        if len(self._tasks) >= self._limits.max_streams or not self._token():
            stream.refuse()
            return
        if stream.due:
            self._queue(stream)
        task = asyncio.create_task(self._one(stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _token(self) -> bool:
        now = asyncio.get_running_loop().time()
        gained = (now - self._filled) * self._limits.opens_per_second
        self._tokens, self._filled = min(float(self._limits.opens_burst), self._tokens + gained), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    async def _one(self, stream: GuestStream) -> None:
        try:
            await self._serve(stream)
        except StreamClosedError:
            pass
        except Exception:
            _logger.exception("a connection of the guest could not be served")
        finally:
            stream.close()

    def _queue(self, stream: GuestStream) -> None:
        # A number can be used again, while the one who served its former stream has not noticed that it is gone.
        if stream.due and self._streams.get(stream.number) is stream:
            self._due.setdefault(stream.number, stream)
            self._wake.set()

    async def _transmit(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due:
                parts: list[bytes | memoryview] = []
                size = 0
                while self._due and size + MOST_TAKEN <= SEND_BYTES:
                    number, stream = self._due.popitem(last=False)
                    size += stream.take(parts)
                    if stream.due:
                        self._due[number] = stream
                if not parts:
                    break
                try:
                    await self._send(b"".join(parts))
                except Exception as error:
                    raise ChannelError(f"cannot be written to any more: {error}") from error


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until they have ended, also when the one who waits is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    while waiting := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in tasks:
        if not task.cancelled():
            task.exception()
    if cancelled is not None:
        raise cancelled
