"""Processes of a real guest that outlive the call which started them, with and without a terminal."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any

import pytest
from agents.sandbox.errors import ExecTransportError, PtySessionNotFoundError
from agents.sandbox.session.pty_types import PTY_PROCESSES_MAX, PTY_PROCESSES_PROTECTED_RECENT, PtyExecUpdate
from agents.sandbox.session.sandbox_session import SandboxSession

from cedarbox.boxlite import BoxLiteSandboxSession


async def begin(
    session: SandboxSession, script: str, *, tty: bool = False, seconds: float | None = None, **more: Any
) -> Any:
    """Start a command and return the first answer, of so many seconds; without them, all that it says to its end."""
    update = await session.pty_exec_start("sh", "-c", script, shell=False, tty=tty, yield_time_s=seconds or 30, **more)
    if seconds is not None or update.process_id is None:
        return update
    output, code = await until(session, update)
    return PtyExecUpdate(None, update.output + output, code, None)


async def until(session: SandboxSession, update: PtyExecUpdate, *, chars: str = "") -> tuple[bytes, int | None]:
    """Poll a process to its end; return all its output from here on and its exit code."""
    output = b""
    end = time.monotonic() + 240
    while update.process_id is not None:
        assert time.monotonic() < end, output
        update = await session.pty_write_stdin(session_id=update.process_id, chars=chars, yield_time_s=30)
        chars = ""
        output += update.output
    return output, update.exit_code


async def said(session: SandboxSession, number: int, wanted: bytes, *, chars: str = "") -> PtyExecUpdate:
    """Type something, and poll until the process has said what is waited for; return all that it said."""
    output = b""
    end = time.monotonic() + 240
    while True:
        update = await session.pty_write_stdin(session_id=number, chars=chars, yield_time_s=2)
        chars, output = "", output + update.output
        if wanted in output or update.process_id is None:
            assert wanted in output, output
            return dataclasses.replace(update, output=output)
        assert time.monotonic() < end, output


async def sleeping(session: SandboxSession, seconds: int) -> bytes:
    """The sleeps of this length that run in the guest."""
    listing = f"for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline 2>/dev/null | grep -x 'sleep {seconds} '; done; true"
    return (await session.exec(listing)).stdout


async def test_a_command_that_ends_in_time_has_an_exit_code_and_no_number(session: SandboxSession) -> None:
    assert session.supports_pty()
    update = await begin(session, "echo out; echo err >&2; pwd; test -t 0 || echo no terminal; cat; exit 7")
    assert (update.process_id, update.exit_code) == (None, 7)
    assert sorted(update.output.split(b"\n")) == sorted([b"out", b"err", b"/workspace", b"no terminal", b""])
    assert (await begin(session, "kill -9 $$")).exit_code == 137
    gone = await session.pty_exec_start("/nonexistent", shell=False)
    assert (gone.process_id, gone.exit_code) == (None, 127)
    assert (await begin(session, "id -un; echo $HOME", user="agent")).output == b"agent\n/home/agent\n"
    with pytest.raises(ExecTransportError):
        await begin(session, "id", user="nobody-here")


async def test_a_terminal_is_one(session: SandboxSession) -> None:
    update = await begin(session, "tty; stty size; test -t 0 -a -t 1 -a -t 2 && echo terminal; exit 3", tty=True)
    lines = update.output.replace(b"\r", b"").splitlines()
    assert lines[0].startswith(b"/dev/pts/")
    assert lines[1:] == [b"24 80", b"terminal"]
    assert (update.process_id, update.exit_code) == (None, 3)


TYPED = """
import os, signal, sys
signal.signal(signal.SIGWINCH, lambda *_: print(os.get_terminal_size(0), flush=True))
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print("ready", flush=True)
for line in sys.stdin:
    print(f"<{line.strip()}>", flush=True)
print("end", flush=True)
"""


async def test_typing_resizing_and_control_c(session: SandboxSession) -> None:
    update = await session.pty_exec_start("python3", "-c", TYPED, shell=False, tty=True, yield_time_s=5)
    number = update.process_id
    assert number is not None
    assert 1000 <= number < 100_000
    assert update.exit_code is None
    if b"ready" not in update.output:
        await said(session, number, b"ready")
    answer = await said(session, number, "<grüße 😀>".encode(), chars="grüße 😀\n")
    assert answer.process_id == number
    inner = session._inner
    assert isinstance(inner, BoxLiteSandboxSession)
    await inner.pty_resize(number, rows=40, cols=132)
    await said(session, number, b"columns=132, lines=40", chars="\n")
    for rows in (0, 70_000):
        with pytest.raises(ValueError, match="cannot have"):
            await inner.pty_resize(number, rows=rows, cols=80)
    stopped = await said(session, number, b"interrupted", chars="\x03")
    output, code = await until(session, stopped, chars="\x04")
    assert (b"end" in output, code) == (True, 0)
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=number, chars="")


async def test_control_c_ends_what_does_not_catch_it(session: SandboxSession) -> None:
    update = await begin(session, "sleep 4341", tty=True, seconds=1)
    while not await sleeping(session, 4341):  # noqa: ASYNC110 - it is in the guest
        await asyncio.sleep(0.2)
    _, code = await until(session, update, chars="\x03")
    assert code == 130
    assert await sleeping(session, 4341) == b""


async def test_a_long_command_survives_the_call_and_is_polled(session: SandboxSession) -> None:
    update = await begin(session, "for i in 1 2 3; do echo $i; sleep 4; done; exit 5", seconds=0.25)
    assert update.exit_code is None
    first = update.output
    with pytest.raises(RuntimeError, match=r"^stdin is not available for this process$"):
        await session.pty_write_stdin(session_id=update.process_id, chars="x")
    output, code = await until(session, update)
    assert (first + output, code) == (b"1\n2\n3\n", 5)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_command_of_ten_minutes_survives_a_call_of_ten_seconds(session: SandboxSession) -> None:
    begun = time.monotonic()
    update = await begin(session, "echo begun; sleep 600; echo over; exit 9", seconds=10)
    number, output = update.process_id, update.output
    assert number is not None
    assert time.monotonic() - begun < 60
    while update.process_id is not None:
        update = await session.pty_write_stdin(session_id=number, chars="", yield_time_s=10)
        output += update.output
    assert (output, update.exit_code) == (b"begun\nover\n", 9)
    assert time.monotonic() - begun >= 600


@pytest.mark.long
async def test_output_that_nobody_reads_does_not_stall_the_process(session: SandboxSession) -> None:
    update = await begin(session, "head -c 10000000 /dev/zero | tr '\\0' x; echo; echo done >&2", seconds=0.25)
    assert isinstance(session._inner, BoxLiteSandboxSession)
    processes = session._inner._processes
    assert processes is not None
    held = processes._processes[update.process_id].output
    while held.received < 10_000_000:  # noqa: ASYNC110 - it comes from the guest
        await asyncio.sleep(1)
    output, code = await until(session, update)
    assert code == 0
    whole = update.output + output
    # Held are the first and the last 4 MiB; the middle is counted.
    assert b"bytes of output were dropped here: nobody read them]" in whole
    assert b"done\n" in whole[-100:]
    assert whole.count(b"x") > 4_000_000


async def test_characters_are_not_split_and_bytes_do_not_break_it(session: SandboxSession) -> None:
    update = await begin(session, "printf '\\303'; sleep 1; printf '\\244'; printf '\\377\\000|'; exit 0")
    assert update.output.startswith("ä".encode())
    assert update.output.endswith(b"|")
    update = await begin(session, "python3 -c \"print('ä€😀' * 5000)\"")
    assert update.output.decode() == "ä€😀" * 5000 + "\n"


async def test_a_background_child_does_not_hold_the_call(session: SandboxSession) -> None:
    update = await begin(session, "echo before; sleep 4342 & echo after")
    assert (update.output, update.exit_code) == (b"before\nafter\n", 0)


async def test_cancelling_and_terminating_kill_descendants(session: SandboxSession) -> None:
    tree = "trap '' TERM INT HUP; (setsid sh -c 'sleep 4343; :' &); sleep 4343 & sleep 4343; :"
    task = asyncio.create_task(begin(session, tree, seconds=30))
    while (await sleeping(session, 4343)).count(b"4343") < 3:  # noqa: ASYNC110 - it is in the guest
        await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sleeping(session, 4343) == b""
    updates = [await begin(session, tree.replace("4343", "4344"), tty=tty, seconds=1) for tty in (True, False)]
    assert all(update.process_id is not None for update in updates)
    await session.pty_terminate_all()
    assert await sleeping(session, 4344) == b""
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=updates[0].process_id, chars="")


# Fewer cannot be tried: the SDK lets the eight that were used last go on.
@pytest.mark.parametrize("most", [PTY_PROCESSES_PROTECTED_RECENT + 2, pytest.param(64, marks=pytest.mark.long)])
async def test_at_most_so_many_are_held_and_the_oldest_go(
    session: SandboxSession, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PTY_PROCESSES_MAX == 64
    monkeypatch.setattr("cedarbox.boxlite.terminals.PTY_PROCESSES_MAX", most)
    first = await begin(session, "sleep 4345", seconds=0.25)
    for begun in range(0, most, 8):
        several = min(8, most - begun)
        await asyncio.gather(*(begin(session, "sleep 4346", seconds=0.25) for _ in range(several)))
    assert await sleeping(session, 4345) == b""
    with pytest.raises(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=first.process_id, chars="")
    assert (await sleeping(session, 4346)).count(b"4346") == most
    await session.pty_terminate_all()
    assert await sleeping(session, 4346) == b""
