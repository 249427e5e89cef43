"""What the relay and the channel cost: against plain TCP on loopback, and how the frames to the host are best written.

Run it: python -m tests.bench.bench_egress_channel
Both sides of a ratio are measured in turns in one run, so that the ratios hold where the machine is noisy. The pipes
are those of this machine, cut into pieces of at most 1 KB as BoxLite cuts them; BoxLite's own pace is not in here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from tests.unit.relaying import UNHURRIED, real_relay

from cedarbox.egress import relay
from cedarbox.egress.channel import ChannelLimits
from cedarbox.egress.source import relay_source
from cedarbox.egress.streams import ByteStream, StreamClosedError

_ROUNDS = 5
_BYTES: Final = 32 * 1024 * 1024
_STREAMS: Final = 500
_PIECE: Final = os.urandom(64 * 1024)

_Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
_Server = Callable[[], AbstractAsyncContextManager[_Connect]]


async def _serve(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
    """Do what the first byte says: D sends, U takes everything, P answers with one byte."""
    first = await read()
    if first[:1] == b"D":
        for _ in range(_BYTES // len(_PIECE)):
            await write(_PIECE)
    elif first[:1] == b"U":
        taken = len(first)
        while data := await read():
            taken += len(data)
        assert taken == _BYTES + 1
        await write(b".")
    else:
        await write(b".")


async def _stream(stream: ByteStream) -> None:
    try:
        await _serve(stream.read, stream.write)
        await stream.finish()
    except StreamClosedError:
        return


def _through(source: str, limits: ChannelLimits = UNHURRIED) -> _Server:
    @asynccontextmanager
    async def server() -> AsyncIterator[_Connect]:
        async with real_relay(_stream, limits=limits, source=source) as real:
            yield real.connect

    return server


@asynccontextmanager
async def _plain() -> AsyncIterator[_Connect]:
    async def each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        await _serve(lambda: reader.read(65536), write)
        writer.close()

    server = await asyncio.start_server(each, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield lambda: asyncio.open_connection("127.0.0.1", port)


async def _down(connect: _Connect) -> float:
    reader, writer = await connect()
    started, taken = time.perf_counter(), 0
    writer.write(b"D")
    while data := await reader.read(262144):
        taken += len(data)
    writer.close()
    assert taken == _BYTES
    return taken / (time.perf_counter() - started) / 1e6


async def _up(connect: _Connect) -> float:
    reader, writer = await connect()
    started = time.perf_counter()
    writer.write(b"U")
    for _ in range(_BYTES // len(_PIECE)):
        writer.write(_PIECE)
        await writer.drain()
    writer.write_eof()
    assert await reader.read() == b"."
    writer.close()
    return _BYTES / (time.perf_counter() - started) / 1e6


async def _rate(connect: _Connect) -> float:
    started = time.perf_counter()
    for _ in range(_STREAMS):
        reader, writer = await connect()
        writer.write(b"P")
        await reader.read()
        writer.close()
    return _STREAMS / (time.perf_counter() - started)


_MEASURES: Final = (("to the guest, MB/s", _down), ("from the guest, MB/s", _up), ("streams in turn, 1/s", _rate))


async def _compare(name: str, ours: _Server, other: str, theirs: _Server) -> None:
    for what, measure in _MEASURES:
        ratios, first, second = [], [], []
        async with ours() as connect, theirs() as plainly:
            for _ in range(_ROUNDS):
                first.append(await measure(connect))
                second.append(await measure(plainly))
                ratios.append(first[-1] / second[-1])
        print(
            f"{what:22} {name} {statistics.median(first):8.0f}   {other} {statistics.median(second):8.0f}"
            f"   ratio {statistics.median(ratios):.3f}"
        )


def _encodings() -> None:
    """What standard output could carry: text without loss. Both ends, on one full payload of random bytes."""
    payload = os.urandom(relay.PAYLOAD)
    ways: list[tuple[str, Callable[[bytes], bytes], Callable[[bytes], bytes]]] = [
        ("base64", binascii.b2a_base64, lambda text: binascii.a2b_base64(text[:-1], strict_mode=True)),
        ("base85", base64.b85encode, base64.b85decode),
        ("latin-1 as UTF-8", lambda raw: raw.decode("latin-1").encode(), lambda text: text.decode().encode("latin-1")),
    ]
    for name, encode, decode in ways:
        text, seconds = b"", [0.0, 0.0]
        for _ in range(_ROUNDS * 4):
            started = time.perf_counter()
            text = encode(payload)
            between = time.perf_counter()
            assert decode(text) == payload
            seconds[0] += between - started
            seconds[1] += time.perf_counter() - between
        rates = [len(payload) * _ROUNDS * 4 / each / 1e6 for each in seconds]
        size = len(text) / len(payload)
        print(f"{name:22} size {size:.2f}   encode {rates[0]:6.0f} MB/s   decode {rates[1]:6.0f} MB/s")


async def _all() -> None:
    source = relay_source()
    await _compare("channel", _through(source), "plain TCP", _plain)
    wide = ChannelLimits(opens_per_second=1e9, window_bytes=4 * relay.HOST_WINDOW)
    await _compare("window 4x", _through(source, wide), "as it is", _through(source))
    for size in (4096, 16384):
        smaller = source.replace(f"PAYLOAD = {relay.PAYLOAD}\n", f"PAYLOAD = {size}\n")
        assert smaller != source
        smaller = smaller.replace("0 < length <= PAYLOAD", f"0 < length <= {relay.PAYLOAD}")
        await _compare(f"payload {size}", _through(smaller), "as it is", _through(source))


def main() -> None:
    """Print the comparisons."""
    _encodings()
    asyncio.run(_all())


if __name__ == "__main__":
    main()
