"""The channel, with a relay of the test's own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from tests.unit.relaying import GREETING, Pipe, data, echo, grant, started, text, until

from cedarbox.egress import relay
from cedarbox.egress.channel import SEND_BYTES, Channel, ChannelLimits
from cedarbox.egress.frames import ChannelError
from cedarbox.egress.streams import ByteStream, StreamClosedError
from cedarbox.errors import ConfigurationError

OPEN_1 = GREETING + text(relay.OPEN, 1)


async def test_ready_tells_the_port_or_why_there_is_none() -> None:
    pipe = Pipe(GREETING)
    channel = Channel(pipe.send, echo)
    async with started(channel, pipe.received()):
        assert await channel.ready() == 3128
    pipe = Pipe()
    pipe.end()
    channel = Channel(pipe.send, echo)
    await channel.run(pipe.received())
    with pytest.raises(ChannelError, match="ended before it was ready"):
        await channel.ready()
    pipe = Pipe("garbage\n")
    channel = Channel(pipe.send, echo)
    with pytest.raises(ChannelError, match="not base64"):
        await channel.run(pipe.received())
    with pytest.raises(ChannelError, match="not base64"):
        await channel.ready()
    with pytest.raises(RuntimeError):
        await channel.run(pipe.received())


async def test_a_relay_that_cannot_be_read_or_written_ends_the_channel() -> None:
    async def broken() -> AsyncIterator[str]:
        yield OPEN_1
        raise RuntimeError("transport error")

    pipe = Pipe()
    with pytest.raises(ChannelError, match="cannot be read any more: transport error"):
        await Channel(pipe.send, echo).run(broken())

    async def refuses(_: bytes) -> None:
        raise RuntimeError("gone")

    with pytest.raises(ChannelError, match="cannot be written to any more: gone"):
        await Channel(refuses, echo).run(Pipe(OPEN_1, data(1, b"x")).received())


async def test_a_channel_that_is_cancelled_closes_its_connections_and_ends_their_tasks() -> None:
    pipe = Pipe(OPEN_1)
    seen: list[ByteStream] = []
    ended = []

    async def serve(stream: ByteStream) -> None:
        seen.append(stream)
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            ended.append(stream)

    running = asyncio.create_task(Channel(pipe.send, serve).run(pipe.received()))
    await until(lambda: seen)
    running.cancel()
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == seen
    with pytest.raises(StreamClosedError):
        await seen[0].read()


async def test_connections_take_turns_and_a_send_is_bounded_and_alone() -> None:
    sizes: list[int] = []
    inside = 0
    pipe = Pipe(GREETING + "".join(text(relay.OPEN, number) for number in range(1, 41)))

    async def send(raw: bytes) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        sizes.append(len(raw))
        await asyncio.sleep(0)
        await pipe.send(raw)
        inside -= 1

    async def serve(stream: ByteStream) -> None:
        await stream.write(random.randbytes(relay.GUEST_WINDOW))
        await stream.finish()

    async with started(Channel(send, serve), pipe.received()):
        await until(lambda: sum(frame[0] == relay.EOF for frame in pipe.frames()) == 40)
    assert max(sizes) <= SEND_BYTES
    order = [number for kind, number, _ in pipe.frames() if kind == relay.DATA]
    assert order[:80] == [*range(1, 41)] * 2


async def test_a_connection_has_at_most_its_window_outstanding() -> None:
    pipe = Pipe(OPEN_1)
    done = asyncio.Event()

    async def serve(stream: ByteStream) -> None:
        await stream.write(b"x" * (relay.GUEST_WINDOW + 10))
        done.set()

    def sent() -> int:
        return sum(len(payload) for kind, _, payload in pipe.frames() if kind == relay.DATA)

    async with started(Channel(pipe.send, serve), pipe.received()):
        await until(lambda: sent() >= relay.GUEST_WINDOW)
        await asyncio.sleep(0.02)
        assert (sent(), done.is_set()) == (relay.GUEST_WINDOW, False)
        pipe.say(grant(1, 4))
        await until(lambda: sent() == relay.GUEST_WINDOW + 4)
        assert not done.is_set()
        pipe.say(grant(1, 6))
        await done.wait()


async def test_room_is_granted_as_it_is_read_and_a_wider_window_at_once() -> None:
    step = relay.HOST_WINDOW // 2
    pipe = Pipe(OPEN_1, *[data(1, b"x" * step)] * 2)
    go = asyncio.Event()

    async def serve(stream: ByteStream) -> None:
        await go.wait()
        await echo(stream)

    def granted() -> list[int]:
        return [int.from_bytes(payload, "big") for kind, _, payload in pipe.frames() if kind == relay.WINDOW]

    async with started(Channel(pipe.send, serve), pipe.received()):
        await asyncio.sleep(0.02)
        assert granted() == []
        go.set()
        await until(granted)
        assert granted() == [relay.HOST_WINDOW]
    pipe = Pipe(OPEN_1)
    limits = ChannelLimits(window_bytes=100_000)
    async with started(Channel(pipe.send, serve, limits=limits), pipe.received()):
        await until(granted)
        assert granted() == [100_000 - relay.HOST_WINDOW]


async def test_what_came_before_a_proper_end_can_still_be_read_after_the_guest_forgot_the_connection() -> None:
    pipe = Pipe(OPEN_1)
    go, got = asyncio.Event(), []

    async def serve(stream: ByteStream) -> None:
        await stream.finish()
        await go.wait()
        got.extend([await stream.read(3), await stream.read(), await stream.read()])

    async with started(Channel(pipe.send, serve), pipe.received()) as running:
        await until(pipe.frames)
        pipe.say(data(1, b"abcdef") + text(relay.EOF, 1) + text(relay.RESET, 1))
        # The number is free again, and what the former one does is not taken for what this one does.
        pipe.say(text(relay.OPEN, 1))
        await asyncio.sleep(0.02)
        go.set()
        await until(lambda: len(got) >= 3)
        assert got[:3] == [b"abc", b"def", b""]
        await asyncio.sleep(0.02)
        assert not running.done()


async def test_a_connection_has_one_reader_and_one_writer() -> None:
    pipe = Pipe(OPEN_1)
    seen: asyncio.Queue[ByteStream] = asyncio.Queue()

    async def serve(stream: ByteStream) -> None:
        seen.put_nowait(stream)
        await asyncio.Event().wait()

    async with started(Channel(pipe.send, serve), pipe.received()):
        stream = await seen.get()
        reading = asyncio.create_task(stream.read())
        writing = asyncio.create_task(stream.write(b"x" * (relay.GUEST_WINDOW + 1)))
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="reader"):
            await stream.read()
        with pytest.raises(RuntimeError, match="writer"):
            await stream.write(b"x")
        with pytest.raises(ValueError, match="at least one"):
            await stream.read(0)
        # Both can be given up, and the connection goes on.
        for task in (reading, writing):
            task.cancel()
        await asyncio.wait((reading, writing))
        pipe.say(data(1, b"later") + grant(1, 100))
        assert await stream.read() == b"later"
        await stream.write(b"fine")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_streams": 0},
        {"max_streams": 1025},
        {"opens_per_second": 0.0},
        {"opens_per_second": float("nan")},
        {"opens_burst": 0},
        {"window_bytes": 65535},
        {"window_bytes": 2**25},
    ],
)
def test_limits_that_cannot_be_kept_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        ChannelLimits(**wrong)  # type: ignore[arg-type]
