"""Attacks by a guest that has replaced the relay: on the channel, on the memory of the host, on other guests.

A relay has no record of its own in the ledger: what its connections ask for has, and they end with the channel.
"""

from __future__ import annotations

import asyncio
import random
import struct
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.unit.relaying import GREETING, UNHURRIED, Pipe, data, echo, grant, real_relay, started, text, until

from cedarbox.egress import relay
from cedarbox.egress.channel import Channel, ChannelLimits
from cedarbox.egress.frames import MAX_LINE, ChannelError, FrameDecoder
from cedarbox.egress.streams import ByteStream, StreamClosedError

OPEN_1 = GREETING + text(relay.OPEN, 1)
FULL = b"x" * relay.PAYLOAD
_INPUTS = 12_000
_WHILE_S = 120.0


async def _hold(stream: ByteStream) -> None:
    """Serve a connection without reading it."""
    await asyncio.Event().wait()


async def _ended_by(*said: str, limits: ChannelLimits = UNHURRIED) -> str:
    """Let a relay say this, and return why its channel ended; every connection of it is closed by then."""
    pipe = Pipe(*said)
    seen: list[ByteStream] = []

    async def serve(stream: ByteStream) -> None:
        seen.append(stream)
        await _hold(stream)

    channel = Channel(pipe.send, serve, limits=limits)
    with pytest.raises(ChannelError) as caught:
        await asyncio.wait_for(channel.run(pipe.received()), _WHILE_S)
    assert not channel._tasks
    assert not channel._streams
    for stream in seen:
        with pytest.raises(StreamClosedError):
            await stream.read()
    return caught.value.reason


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([text(relay.OPEN, 1)], "instead of a greeting"),
        ([GREETING, GREETING], "greeted twice"),
        ([text(relay.HELLO, 0, struct.pack(">HH", 9, 3128))], "version 9"),
        ([OPEN_1, text(relay.OPEN, 1)], "which is open"),
        ([OPEN_1, text(relay.EOF, 1), text(relay.EOF, 1)], "ended stream 1 twice"),
        ([OPEN_1, text(relay.EOF, 1), data(1, b"x")], "after its end"),
        ([OPEN_1, text(relay.RESET, 1), data(1, b"x")], "not open"),
        ([OPEN_1, text(relay.RESET, 1), text(relay.RESET, 1)], "not open"),
        ([OPEN_1, text(relay.RESET, 1), grant(1, 1)], "not open"),
        ([OPEN_1, data(2, b"x")], "not open"),
        ([OPEN_1, grant(1, 0)], "no bytes"),
        ([OPEN_1, grant(1, 1)], "granted more"),
        ([OPEN_1, grant(1, 2**32 - 1)], "granted more"),
        ([OPEN_1, data(1, FULL), data(1, FULL), data(1, b"x")], "than there was room for"),
        ([OPEN_1, "A" * 1000, "\n"], "unknown type 0"),
    ],
)
async def test_a_relay_that_breaks_the_protocol(said: list[str], why: str) -> None:
    """A hostile relay speaks before its greeting, greets twice, uses a number twice, sends on closed connections,
    sends more than there is room for, or grants itself a window: its channel ends with one line that says so, and
    every connection on it is closed.
    """
    assert why in await _ended_by(*said)


async def test_a_line_that_never_ends() -> None:
    """A hostile relay sends text without an end of line: it is refused at the length of the longest frame, unheard."""
    pipe = Pipe(GREETING, *["A" * 1024] * 10_000)
    with pytest.raises(ChannelError, match=f"a line of more than {MAX_LINE} characters"):
        await asyncio.wait_for(Channel(pipe.send, _hold).run(pipe.received()), _WHILE_S)
    assert pipe._said.qsize() > 9_900


async def test_a_flood_of_openings() -> None:
    """A guest opens connections as fast as it can: those beyond the limits are reset without being served.

    One that also ignores the resets has its channel ended at the number that the relay that ships never exceeds.
    """
    flood = [text(relay.OPEN, number) for number in range(1, relay.MAX_STREAMS + 1)]
    for limits, most in (
        (ChannelLimits(max_streams=10), 10),
        (ChannelLimits(opens_per_second=1e-9, opens_burst=7), 7),
    ):
        pipe = Pipe(GREETING, *flood)
        served: list[ByteStream] = []

        async def serve(stream: ByteStream, served: list[ByteStream] = served) -> None:
            served.append(stream)
            await _hold(stream)

        channel = Channel(pipe.send, serve, limits=limits)
        async with started(channel, pipe.received()) as running:

            def all_reset(pipe: Pipe = pipe, resets: int = relay.MAX_STREAMS - most) -> bool:
                return len(pipe.frames()) >= resets

            await until(all_reset)
            assert {number for _, number, _ in pipe.frames()} == set(range(most + 1, relay.MAX_STREAMS + 1))
            assert {kind for kind, _, _ in pipe.frames()} == {relay.RESET}
            assert len(served) == most
            pipe.say(text(relay.OPEN, 5000))
            with pytest.raises(ChannelError, match="more than 1024 streams at a time"):
                await running


async def test_connections_given_up_while_they_are_served() -> None:
    """A guest opens and resets without end while the host is slow to serve: each counts until it was served to its end.

    So no more are served at a time than the limit says, and nothing piles up although the guest takes nothing.
    """
    pipe = Pipe(GREETING)
    pipe.stalled = asyncio.Event()
    served = []

    async def serve(stream: ByteStream) -> None:
        served.append(stream)
        await _hold(stream)

    channel = Channel(pipe.send, serve, limits=ChannelLimits(max_streams=20, opens_per_second=1e9))
    async with started(channel, pipe.received()) as running:
        for number in range(1, 20_001):
            pipe.say(text(relay.OPEN, number) + text(relay.RESET, number))
        await until(pipe._said.empty)
        assert not running.done()
        assert len(served) == len(channel._tasks) == 20
        assert not channel._streams
        assert not channel._due


async def test_a_number_used_again_at_once() -> None:
    """A guest ends a connection and uses its number again while the former is still served.

    The two are told apart: what is written to the former is not sent to the new one.
    """
    pipe = Pipe(OPEN_1)
    seen: asyncio.Queue[ByteStream] = asyncio.Queue()

    async def serve(stream: ByteStream) -> None:
        seen.put_nowait(stream)
        await _hold(stream)

    async with started(Channel(pipe.send, serve), pipe.received()):
        former = await seen.get()
        pipe.say(text(relay.RESET, 1) + text(relay.OPEN, 1))
        new = await seen.get()
        with pytest.raises(StreamClosedError):
            await former.write(b"for the former")
        await former.finish()
        former.close()
        await new.write(b"for the new one")
        await until(pipe.frames)
        assert pipe.frames() == [(relay.DATA, 1, b"for the new one")]


async def test_memory_filled_with_what_nobody_reads() -> None:
    """A guest fills every window of every connection, in the smallest pieces: the host holds the windows, no more."""
    limits, streams = UNHURRIED, 32
    rest = limits.window_bytes // 2
    pipe = Pipe(GREETING + "".join(text(relay.OPEN, number) for number in range(1, streams + 1)))
    channel = Channel(pipe.send, _hold, limits=limits)
    async with started(channel, pipe.received()) as running:
        await until(lambda: len(channel._streams) == streams)
        tracemalloc.start()
        try:
            for number in range(1, streams + 1):
                # Two bytes at a time: objects of their own would take twenty times the room.
                for _ in range(0, rest, 1024):
                    pipe.say(data(number, b"xy") * 512)
                pipe.say(data(number, b"x" * rest))
                await until(pipe._said.empty)
            held, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert not running.done()
        assert sum(len(stream._received) for stream in channel._streams.values()) == streams * limits.window_bytes
        assert held < streams * limits.window_bytes * 1.5


async def test_a_guest_that_takes_nothing() -> None:
    """A guest stops reading while the host has much to send: the senders wait, and nothing more is queued for it.

    A guest beside it is served as before.
    """
    pipe = Pipe(OPEN_1)
    pipe.stalled = asyncio.Event()
    written = 0

    async def serve(stream: ByteStream) -> None:
        nonlocal written
        while True:
            await stream.write(FULL)
            written += len(FULL)

    async with started(Channel(pipe.send, serve), pipe.received()) as running, real_relay(echo) as other:
        reader, writer = await other.connect()
        for _ in range(50):
            writer.write(FULL)
            assert await reader.readexactly(len(FULL)) == FULL
        assert not running.done()
        assert written <= relay.GUEST_WINDOW
        assert pipe.told == []


async def test_a_guest_that_never_pauses() -> None:
    """A guest sends without end and without a pause: the connections of a guest beside it still move."""
    pipe = Pipe(OPEN_1)

    async def endless() -> AsyncIterator[str]:
        yield OPEN_1
        number = 2
        while True:
            yield text(relay.OPEN, number) + text(relay.RESET, number)
            number += 1

    channel = Channel(pipe.send, echo, limits=UNHURRIED)
    async with started(channel, endless()) as running, real_relay(echo) as other:
        reader, writer = await other.connect()
        for _ in range(20):
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"ping"
        assert not running.done()


def _session(chance: random.Random) -> list[str]:
    """Return the frames of a relay that keeps to the protocol."""
    said, open_now, room, ended = [GREETING], list[int](), dict[int, int](), set[int]()
    following = 1
    for _ in range(chance.randint(1, 25)):
        act = chance.random()
        if not open_now or act < 0.3:
            said.append(text(relay.OPEN, following))
            open_now.append(following)
            room[following] = relay.HOST_WINDOW
            following += 1
            continue
        number = chance.choice(open_now)
        if act < 0.7 and number not in ended:
            payload = chance.randbytes(chance.choice((1, 2, 100, 4000)))
            if len(payload) <= room[number]:
                room[number] -= len(payload)
                said.append(data(number, payload))
        elif act < 0.85 and number not in ended:
            said.append(text(relay.EOF, number))
            ended.add(number)
        elif act >= 0.85:
            said.append(text(relay.RESET, number))
            open_now.remove(number)
            ended.discard(number)
    return said


def _raw(chance: random.Random) -> str:
    number = chance.choice((0, 1, 2, 3, 2**31, 2**32 - 1))
    return text(chance.randrange(9), number, chance.randbytes(chance.choice((0, 1, 2, 4, 4, 4, 5, 300))))


def _mutated(chance: random.Random) -> str:
    said = _session(chance)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(said))
        way = chance.randrange(8)
        if way == 0:
            del said[at]
        elif way == 1:
            said.insert(at, said[chance.randrange(len(said))] if said else "")
        elif way == 2:
            said.insert(at, _raw(chance))
        elif way == 3:
            chance.shuffle(said)
        else:
            letters = list(said[at]) or [""]
            place = chance.randrange(len(letters))
            letters[place] = chance.choice(("", "\n", "=", "A", "/", "\x00", "\ufffd", "\ud800", letters[place] * 2))
            said[at] = "".join(letters)
        if not said:
            break
    return "".join(said)


def _noise(chance: random.Random) -> str:
    kind = chance.randrange(4)
    start = GREETING if chance.random() < 0.7 else ""
    if kind == 0:
        return start + chance.randbytes(chance.randint(0, 400)).decode("utf-8", "replace")
    if kind == 1:
        return start + "".join(chance.choices("ABCDwxyz0189+/=\n", k=chance.randint(0, 400)))
    if kind == 2:
        return start + "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randint(0, 50)))
    return start + "".join(_raw(chance) for _ in range(chance.randint(1, 10)))


@pytest.mark.parametrize("make", [_mutated, _noise])
async def test_frames_malformed_by_a_fuzzer(make: Callable[[random.Random], str]) -> None:
    """Twelve thousand sessions of each kind, mutated ones and noise: each ends its channel well or with one line.

    Never another error, never a hang, no task and no connection left, no more memory at the end than at the start;
    and the connection of a guest beside it is echoed all the while.
    """
    chance = random.Random(20_261_127)
    # What is mutated is valid, so that not everything fails at its first line.
    valid = _session(chance)
    assert len(list(FrameDecoder().feed("".join(valid)))) == len(valid)
    ends = {True: 0, False: 0}

    async def one() -> None:
        pipe = Pipe()
        whole = make(chance)
        at = 0
        while at < len(whole):
            size = chance.randint(1, 1024)
            pipe.say(whole[at : at + size])
            at += size
        pipe.end()
        channel = Channel(pipe.send, echo, limits=ChannelLimits(max_streams=8, opens_per_second=1e9))
        try:
            await channel.run(pipe.received())
            ends[True] += 1
        except ChannelError as error:
            ends[False] += str(error).count("\n") == 0
        assert not channel._tasks
        assert not channel._streams
        relay.Decoder().feed(b"".join(pipe.told))

    async with real_relay(echo) as other:
        reader, writer = await other.connect()
        writer.write(b"here")
        assert await reader.readexactly(4) == b"here"
        tasks, before = len(asyncio.all_tasks()), 0
        for number in range(1, _INPUTS + 1):
            if number % 1000 == 0:
                writer.write(b"still here")
                assert await reader.readexactly(10) == b"still here"
            if number == 1000:
                before = _resident()
            await asyncio.wait_for(one(), _WHILE_S)
        assert len(asyncio.all_tasks()) == tasks
        assert _resident() - before < 16 * 1024 * 1024
        assert not other.running.done()
    assert ends[True] > 100
    assert ends[False] > 1000
    assert sum(ends.values()) == _INPUTS


def _resident() -> int:
    """Return how many bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_a_hundred_thousand_connections_in_turn() -> None:
    """A guest opens a hundred thousand connections, one after the other: each is served, nothing is left of them."""
    count, served = 100_000, 0
    heard = asyncio.Semaphore(0)

    async def serve(stream: ByteStream) -> None:
        nonlocal served
        assert await stream.read() == b"ask"
        await stream.write(b"answer")
        await stream.finish()
        served += 1
        heard.release()

    async def turns() -> AsyncIterator[str]:
        yield GREETING
        for number in range(1, count + 1):
            yield text(relay.OPEN, number) + data(number, b"ask") + text(relay.EOF, number)
            await heard.acquire()
            yield text(relay.RESET, number)

    answered = 0

    async def send(raw: bytes) -> None:
        nonlocal answered
        answered += raw.count(b"answer")

    before = _resident()
    channel = Channel(send, serve, limits=UNHURRIED)
    await channel.run(turns())
    assert served == count
    assert answered >= count - 1
    assert not channel._tasks
    assert not channel._streams
    assert _resident() - before < 16 * 1024 * 1024


async def test_the_relay_is_replaced_by_one_that_wants_another_port() -> None:
    """A guest kills the relay, starts one of its own, and greets again: the channel that it broke stays ended."""
    pipe = Pipe(OPEN_1, GREETING, text(relay.OPEN, 2))
    served = []

    async def serve(stream: ByteStream) -> None:
        served.append(stream)
        await _hold(stream)

    channel = Channel(pipe.send, serve)
    with pytest.raises(ChannelError, match="greeted twice"):
        await channel.run(pipe.received())
    assert len(served) <= 1
    with pytest.raises(RuntimeError):
        await channel.run(pipe.received())
