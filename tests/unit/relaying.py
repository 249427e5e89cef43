"""The real relay as a process, and what a relay could send."""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from cedarbox.egress import relay
from cedarbox.egress.channel import Channel, ChannelLimits
from cedarbox.egress.frames import ChannelError
from cedarbox.egress.source import relay_source
from cedarbox.egress.streams import ByteStream

__all__ = [
    "GREETING",
    "UNHURRIED",
    "Pipe",
    "RealRelay",
    "data",
    "echo",
    "grant",
    "in_pieces",
    "real_relay",
    "sent_to_guest",
    "started",
    "text",
    "until",
]

Serve = Callable[[ByteStream], Awaitable[None]]

UNHURRIED: Final = ChannelLimits(opens_per_second=1e9)
GREETING: Final = relay.line(relay.HELLO, 0, struct.pack(">HH", relay.VERSION, 3128)).decode()
"""What every relay says first."""


def text(kind: int, stream: int, payload: bytes = b"") -> str:
    """Return a frame to the host, as it arrives."""
    return relay.line(kind, stream, payload).decode()


def data(stream: int, payload: bytes) -> str:
    """Return bytes of a stream, as they arrive at the host."""
    return text(relay.DATA, stream, payload)


def grant(stream: int, credit: int) -> str:
    """Return a window, as it arrives at the host."""
    return text(relay.WINDOW, stream, struct.pack(">I", credit))


def sent_to_guest(raw: bytes) -> list[tuple[int, int, bytes]]:
    """Return the frames in bytes to the guest, as the relay itself reads them."""
    return relay.Decoder().feed(raw)


async def in_pieces(out: asyncio.StreamReader, seed: int = 0) -> AsyncIterator[str]:
    """Yield output as BoxLite does: text in pieces of at most 1 KB, cut anywhere."""
    chance = random.Random(seed)
    while piece := await out.read(65536):
        at = 0
        while at < len(piece):
            size = chance.choice((1024, 1024, 1024, chance.randint(1, 1024)))
            yield piece[at : at + size].decode("utf-8", "replace")
            at += size


async def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def echo(stream: ByteStream) -> None:
    """Send everything back, then finish."""
    while received := await stream.read():
        await stream.write(received)
    await stream.finish()


class Pipe:
    """A relay of the test's own in place of the real one: what it says, and what it is told.

    ``stalled`` makes it take nothing until the event is set.
    """

    def __init__(self, *said: str) -> None:
        self.told: list[bytes] = []
        self.stalled: asyncio.Event | None = None
        self._said: asyncio.Queue[str | None] = asyncio.Queue()
        for each in said:
            self.say(each)

    def say(self, what: str) -> None:
        """Let the host hear this."""
        self._said.put_nowait(what)

    def end(self) -> None:
        """End the relay, once all it said was heard."""
        self._said.put_nowait(None)

    async def send(self, raw: bytes) -> None:
        """Take what the host sends."""
        if self.stalled is not None:
            await self.stalled.wait()
        self.told.append(raw)

    async def received(self) -> AsyncIterator[str]:
        """Yield what the relay says."""
        while (said := await self._said.get()) is not None:
            yield said

    def frames(self) -> list[tuple[int, int, bytes]]:
        """Return everything that the host sent so far."""
        return sent_to_guest(b"".join(self.told))


@asynccontextmanager
async def started(channel: Channel, received: AsyncIterator[str]) -> AsyncIterator[asyncio.Task[None]]:
    """Run a channel meanwhile."""
    task = asyncio.create_task(channel.run(received))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ChannelError):
            await task


@dataclass
class RealRelay:
    """The real relay, as a process, with a channel on its pipes."""

    process: asyncio.subprocess.Process
    channel: Channel
    running: asyncio.Task[None]
    port: int
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a program of the guest would; what is not closed by then is when the relay ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.add(writer)
        return reader, writer


@asynccontextmanager
async def real_relay(
    serve: Serve, *, limits: ChannelLimits = UNHURRIED, seed: int = 0, source: str | None = None
) -> AsyncIterator[RealRelay]:
    """Run the real relay and serve its connections."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", "-c", source or relay_source(), "0", stdin=-1, stdout=-1, stderr=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    into = process.stdin

    async def send(raw: bytes) -> None:
        into.write(raw)
        await into.drain()

    channel = Channel(send, serve, limits=limits)
    try:
        async with started(channel, in_pieces(process.stdout, seed)) as running:
            real = RealRelay(process, channel, running, await channel.ready())
            try:
                yield real
            finally:
                for writer in real.writers:
                    writer.transport.abort()
    finally:
        into.close()
        said = await process.stderr.read()
        await process.wait()
    assert said == b""
