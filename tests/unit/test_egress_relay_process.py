"""The real relay as a process of its own, with a channel on its pipes."""

from __future__ import annotations

import asyncio
import base64
import gc
import hashlib
import os
import resource
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tests.unit.relaying import UNHURRIED, RealRelay, echo, real_relay, until

from cedarbox.egress import relay
from cedarbox.egress.source import relay_source
from cedarbox.egress.streams import ByteStream, StreamClosedError


async def _exchange(real: RealRelay, payload: bytes) -> bytes:
    """Send, finish, and read to the end, both at once."""
    reader, writer = await real.connect()
    try:

        async def send() -> None:
            writer.write(payload)
            await writer.drain()
            writer.write_eof()

        _, received = await asyncio.gather(send(), reader.read())
        return received
    finally:
        writer.close()
        await writer.wait_closed()
        real.writers.discard(writer)


def _files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_one_connection_is_echoed_and_both_sides_finish_in_their_own_time() -> None:
    async with real_relay(echo) as real:
        assert await _exchange(real, b"hello") == b"hello"
        assert await _exchange(real, b"") == b""


async def test_the_guest_goes_on_sending_after_the_host_has_finished() -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(stream: ByteStream) -> None:
        await stream.write(b"first")
        await stream.finish()
        await stream.finish()
        got = b""
        while part := await stream.read():
            got += part
        heard.set_result(got)

    async with real_relay(serve) as real:
        reader, writer = await real.connect()
        assert await reader.read() == b"first"
        writer.write(b"x" * 200_000)
        writer.close()
        assert await heard == b"x" * 200_000


async def test_the_host_goes_on_sending_after_the_guest_has_finished() -> None:
    async def serve(stream: ByteStream) -> None:
        assert await stream.read() == b"ask"
        assert await stream.read() == b""
        assert await stream.read() == b""
        for _ in range(10):
            await stream.write(b"y" * 100_000)

    async with real_relay(serve) as real:
        reader, writer = await real.connect()
        writer.write(b"ask")
        writer.write_eof()
        # Served without finish(): what may be incomplete does not look complete.
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_last_words_arrive_when_the_host_closes_right_after_them() -> None:
    async def serve(stream: ByteStream) -> None:
        await stream.read(1)
        await stream.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
        await stream.finish()
        stream.close()

    async with real_relay(serve) as real:
        for _ in range(50):
            reader, writer = await real.connect()
            # Bytes that nobody reads: a plain close would answer them with a reset, which destroys the last words.
            writer.write(b"z" * 50_000)
            assert await reader.read() == b"HTTP/1.1 403 Forbidden\r\n\r\n"
            writer.close()


async def test_a_program_that_never_closes_its_side_is_given_up_after_a_while() -> None:
    async def serve(stream: ByteStream) -> None:
        await stream.write(b"bye")
        await stream.finish()

    shorter = relay_source().replace("_LINGER_S = 10.0", "_LINGER_S = 0.2")
    assert shorter != relay_source()
    async with real_relay(serve, source=shorter) as real:
        for _ in range(20):
            reader, _ = await real.connect()
            assert await reader.read() == b"bye"
        # The host has forgotten them long before.
        await until(lambda: not real.channel._streams)
        await until(lambda: len(list(Path(f"/proc/{real.process.pid}/fd").iterdir())) == 5)
        assert await _exchange(real, b"") == b"bye"


async def test_a_connection_that_the_host_cuts_is_reset_in_the_guest() -> None:
    async def serve(stream: ByteStream) -> None:
        await stream.read()
        stream.close()
        stream.close()
        with pytest.raises(StreamClosedError):
            await stream.read()
        with pytest.raises(StreamClosedError):
            await stream.write(b"x")

    async with real_relay(serve) as real:
        reader, writer = await real.connect()
        writer.write(b"x")
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_program_that_aborts_closes_the_connection_for_who_reads_and_who_writes() -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    begun: asyncio.Queue[bool] = asyncio.Queue()

    async def serve(stream: ByteStream) -> None:
        reads = (await stream.read(1)) == b"r"
        begun.put_nowait(reads)
        try:
            while True:
                if reads:
                    await stream.read()
                else:
                    await stream.write(b"x" * 65536)
        except StreamClosedError:
            ended.put_nowait("read" if reads else "write")

    async with real_relay(serve) as real:
        for first, ends in ((b"r", "read"), (b"w", "write")):
            raw = socket.create_connection(("127.0.0.1", real.port))
            raw.sendall(first)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            # A reset that comes before the first byte was read takes that byte with it.
            await begun.get()
            raw.close()
            assert await ended.get() == ends


async def test_a_thousand_connections_at_once() -> None:
    async with real_relay(echo) as real:
        open_now = await asyncio.gather(*(real.connect() for _ in range(1000)))
        for number, (_, writer) in enumerate(open_now):
            writer.write(b"%d" % number * 100)
        got = await asyncio.gather(
            *(reader.readexactly(len(b"%d" % n) * 100) for n, (reader, _) in enumerate(open_now))
        )
        assert got == [b"%d" % number * 100 for number in range(1000)]
        for _, writer in open_now:
            writer.close()
        assert await _exchange(real, b"after them") == b"after them"


async def test_more_than_the_relay_takes_wait_until_there_is_room() -> None:
    over = 50
    async with real_relay(echo) as real:
        first = await asyncio.gather(*(real.connect() for _ in range(relay.MAX_STREAMS)))
        for reader, writer in first:
            writer.write(b"1")
            await reader.readexactly(1)
        late = [asyncio.create_task(_exchange(real, b"late")) for _ in range(over)]
        for _, writer in first:
            writer.close()
        assert await asyncio.gather(*late) == [b"late"] * over


async def test_several_thousand_connections_in_turn() -> None:
    async with real_relay(echo) as real:
        for number in range(4000):
            assert await _exchange(real, b"%d" % number) == b"%d" % number


async def test_a_big_transfer_each_way_at_once_arrives_as_it_was_sent() -> None:
    payload = os.urandom(1024 * 1024) * 24
    sums: list[str] = []

    async def serve(stream: ByteStream) -> None:
        async def take() -> None:
            digest = hashlib.sha256()
            while part := await stream.read():
                digest.update(part)
            sums.append(digest.hexdigest())

        async def give() -> None:
            await stream.write(payload)
            await stream.finish()

        await asyncio.gather(take(), give())

    async with real_relay(serve, seed=7) as real:
        received = await _exchange(real, payload)
        await until(lambda: sums)
        assert sums == [hashlib.sha256(payload).hexdigest()] == [hashlib.sha256(received).hexdigest()]


async def test_a_program_that_reads_nothing_holds_up_no_other() -> None:
    async def serve(stream: ByteStream) -> None:
        if await stream.read(1) == b"s":
            while True:
                await stream.write(b"x" * 65536)
        await echo(stream)

    async with real_relay(serve) as real:
        stuck = [await real.connect() for _ in range(5)]
        for _, writer in stuck:
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(b"s")
        for _ in range(20):
            assert await _exchange(real, b"-" + b"fast" * 50_000) == b"fast" * 50_000
        for _, writer in stuck:
            writer.transport.abort()


async def test_a_host_that_reads_nothing_holds_up_no_other_and_the_program_waits() -> None:
    read_on = asyncio.Event()

    async def serve(stream: ByteStream) -> None:
        if await stream.read(1) == b"s":
            await read_on.wait()
        await echo(stream)

    async with real_relay(serve) as real:
        slow = asyncio.create_task(_exchange(real, b"s" + b"slow" * 4_000_000))
        for _ in range(20):
            assert await _exchange(real, b"-" + b"fast" * 50_000) == b"fast" * 50_000
        held = [stream._received for stream in real.channel._streams.values()]
        assert max(map(len, held)) <= UNHURRIED.window_bytes
        assert not slow.done()
        read_on.set()
        assert await slow == b"slow" * 4_000_000


async def test_one_connection_that_cannot_be_served_disturbs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async def serve(stream: ByteStream) -> None:
        if await stream.read(1) == b"!":
            raise ZeroDivisionError
        await echo(stream)

    async with real_relay(serve) as real:
        with pytest.raises(ConnectionResetError):
            await _exchange(real, b"!" + b"x" * 1_000_000)
        assert await _exchange(real, b"-fine") == b"fine"
    assert "could not be served" in caplog.text


async def test_when_the_relay_is_killed_all_connections_close_and_the_channel_returns() -> None:
    closed = []

    async def serve(stream: ByteStream) -> None:
        try:
            await echo(stream)
        finally:
            with pytest.raises(StreamClosedError):
                await stream.read()
            closed.append(stream)

    async with real_relay(serve) as real:
        for _ in range(20):
            reader, writer = await real.connect()
            writer.write(b"x")
            await reader.readexactly(1)
        real.process.kill()
        await real.running
        assert len(closed) == 20
        assert not real.channel._tasks


async def test_the_relay_ends_when_its_standard_input_closes() -> None:
    async with real_relay(echo) as real:
        _, writer = await real.connect()
        assert real.process.stdin is not None
        real.process.stdin.close()
        assert await real.process.wait() == 0
        await real.running
        writer.close()


async def test_nothing_is_left_behind() -> None:
    gc.collect()
    tasks, files = len(asyncio.all_tasks()), _files()
    async with real_relay(echo) as real:
        for _ in range(200):
            await _exchange(real, b"x" * 5000)
        await until(lambda: not real.channel._streams)
        # The host has forgotten a connection before the relay has closed it.
        await until(lambda: len(list(Path(f"/proc/{real.process.pid}/fd").iterdir())) == 5)
        for _ in range(10):
            await real.connect()
    gc.collect()
    # What an earlier test left may go meanwhile.
    await until(lambda: len(asyncio.all_tasks()) <= tasks and _files() <= files)


async def test_without_room_for_another_connection_the_relay_waits_for_one_to_end() -> None:
    async with real_relay(echo) as real:
        # Five are its own; what it asked for at its start does not help it now.
        resource.prlimit(real.process.pid, resource.RLIMIT_NOFILE, (15, 15))
        held = [await real.connect() for _ in range(10)]
        for reader, writer in held:
            writer.write(b"x")
            await reader.readexactly(1)
        late = [asyncio.create_task(_exchange(real, b"late")) for _ in range(30)]
        await asyncio.to_thread(_rests, real.process.pid)
        assert not any(task.done() for task in late)
        for _, writer in held:
            writer.close()
        assert await asyncio.gather(*late) == [b"late"] * 30


def test_while_the_host_takes_nothing_the_relay_holds_little_and_rests() -> None:
    command = (sys.executable, "-I", "-S", "-c", relay_source(), "0")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        greeting = base64.b64decode(process.stdout.readline())
        port = int.from_bytes(greeting[-2:], "big")
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        for client in clients:
            client.setblocking(False)
            with suppress(BlockingIOError):
                while client.send(b"x" * 65536):
                    pass
        for client in clients[:50]:
            client.close()
        _rests(process.pid)
        assert int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 < 64 * 1024 * 1024
        for client in clients[50:]:
            client.close()
        process.stdin.close()
        assert process.wait() == 0


def _rests(pid: int) -> None:
    """Wait until a process rests: one that goes round and round never does, one that still has work soon will."""
    for _ in range(60):
        spent = _spent(pid)
        time.sleep(0.5)
        if _spent(pid) - spent < 0.05:
            return
    pytest.fail("it does not rest")


def _spent(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_port_in_use_is_one_line_on_standard_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = _relay(port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"cedarbox relay: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize("arguments", [["x"], ["65536"], ["-1"], ["1", "2"], [""], ["٣"]])
def test_a_bad_port_is_one_line_on_standard_error(arguments: list[str]) -> None:
    done = _relay(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cedarbox relay: expected one port")
    assert done.stderr.count("\n") == 1


def test_a_relay_without_pipes_says_so(tmp_path: Path) -> None:
    (tmp_path / "in").touch()
    with (tmp_path / "in").open() as plain:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", relay_source(), "0"], stdin=plain, capture_output=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith(b"cedarbox relay: standard input and output must be pipes")


def test_the_relay_refuses_a_host_that_sends_garbage() -> None:
    command = [sys.executable, "-I", "-S", "-c", relay_source(), "0"]
    done = subprocess.run(command, input=b"garbage garbage", capture_output=True, check=False)
    assert done.returncode == 3
    assert done.stderr == b"cedarbox relay: the host sent type 103 with 26469 bytes\n"


def _relay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-S", "-c", relay_source(), *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def test_the_relay_passes_over_the_numbers_of_open_connections_when_it_starts_again_at_one() -> None:
    ours, theirs = os.pipe(), os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        carrier = relay.Relay(listener, ours[0], theirs[1])
        carrier._last = 2**32 - 2
        clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        carrier._round()
        assert sorted(carrier._streams) == [1, 2**32 - 1]
        carrier._last = 2**32 - 2
        clients.append(socket.create_connection(listener.getsockname()))
        carrier._round()
        assert sorted(carrier._streams) == [1, 2, 2**32 - 1]
        for stream in list(carrier._streams.values()):
            carrier._close(stream, abort=True)
        carrier._poll.close()
        for client in clients:
            client.close()
    for fd in (*ours, *theirs):
        os.close(fd)
