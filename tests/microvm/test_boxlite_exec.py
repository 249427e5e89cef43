"""Commands in a real guest: exact bytes, exit codes, users, ends."""

from __future__ import annotations

import asyncio

import pytest
from agents.sandbox.errors import ExecTimeoutError, ExecTransportError
from agents.sandbox.session.sandbox_session import SandboxSession

EVERY = bytes(range(256))


async def processes(session: SandboxSession) -> bytes:
    """The command lines of everything that runs in the guest."""
    return (await session.exec("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).stdout


async def test_no_network_card(session: SandboxSession) -> None:
    result = await session.exec(
        "ls /sys/class/net; for i in /sys/class/net/*; do read f <$i/flags; echo $i $((f & 1)); done; "
        "cat /proc/net/route | tail -n +2; tail -n +3 /proc/net/dev"
    )
    names, *_ = result.stdout.decode().partition("/sys")
    # The guest's kernel has a dummy0 built in: never up, no address, no frames.
    assert set(names.split()) <= {"lo", "dummy0"}
    assert "/sys/class/net/dummy0 1" not in result.stdout.decode()
    counters = [line.split() for line in result.stdout.decode().splitlines() if ":" in line]
    assert {line[0].rstrip(":") for line in counters} <= {"lo", "dummy0"}
    assert all(field == "0" for line in counters if line[0] != "lo:" for field in line[1:])


async def test_nothing_can_be_reached(session: SandboxSession) -> None:
    script = """
import socket
for host, port in (("192.168.127.254", 80), ("192.168.127.1", 53), ("169.254.169.254", 80), ("1.1.1.1", 53)):
    try:
        socket.create_connection((host, port), 3).close()
        print("open", host)
    except OSError as error:
        print("closed", error.errno)
try:
    socket.getaddrinfo("mirror.corp.example", 443)
    print("open dns")
except OSError:
    print("closed dns")
"""
    result = await session.exec("python3", "-c", script, shell=False)
    assert result.exit_code == 0, result.stderr
    assert b"open" not in result.stdout
    assert result.stdout.count(b"closed") == 5


async def test_exit_codes_and_both_streams(session: SandboxSession) -> None:
    result = await session.exec("printf out; printf err >&2; exit 7")
    assert (result.stdout, result.stderr, result.exit_code) == (b"out", b"err", 7)
    assert (await session.exec("/nonexistent", shell=False)).exit_code == 127
    assert (await session.exec("/etc/passwd", shell=False)).exit_code == 126
    killed = await session.exec("kill -9 $$")
    assert (killed.exit_code, killed.stderr) == (137, b"")
    assert (await session.exec("kill 0")).exit_code == 143


async def test_every_byte_on_both_streams(session: SandboxSession) -> None:
    script = "import sys; b=bytes(range(256)); sys.stdout.buffer.write(b*40); sys.stderr.buffer.write(b[::-1]*40)"
    result = await session.exec("python3", "-c", script, shell=False)
    assert (result.stdout, result.stderr) == (EVERY * 40, EVERY[::-1] * 40)


async def test_multi_byte_characters_are_not_split(session: SandboxSession) -> None:
    result = await session.exec("python3", "-c", "print('x' + 'ä€😀' * 3000, end='')", shell=False)
    assert result.stdout.decode() == "x" + "ä€😀" * 3000


async def test_arguments_and_standard_input(session: SandboxSession) -> None:
    argument = "a b'c\"d$e`f\\g\nh*ü"
    assert (await session.exec("printf", "%s", argument, shell=False)).stdout == argument.encode()
    assert (await session.exec("cat; echo end")).stdout == b"end\n"


async def test_users_need_no_sudo(session: SandboxSession) -> None:
    assert (await session.exec("id -un; pwd")).stdout == b"root\n/workspace\n"
    assert (await session.exec("id -un; echo $HOME", user="agent")).stdout == b"agent\n/home/agent\n"
    assert (await session.exec("id", "-u", shell=False, user="1000:1000")).stdout == b"1000\n"
    with pytest.raises(ExecTransportError):
        await session.exec("id", user="nobody-here")
    assert (await session.exec("true")).ok()


async def test_a_time_limit_kills_all_descendants(session: SandboxSession) -> None:
    tree = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; sleep 4321; :' &); sleep 4321 & sleep 4321; :"
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec(tree, timeout=3)
    assert caught.value.timeout_s == 3
    assert b"4321" not in await processes(session)


async def test_a_time_limit_kills_a_users_command(session: SandboxSession) -> None:
    with pytest.raises(ExecTimeoutError):
        await session.exec("sleep 4322 & sleep 4322", timeout=3, user="agent")
    assert b"4322" not in await processes(session)


async def test_cancellation_kills(session: SandboxSession) -> None:
    task = asyncio.create_task(session.exec("touch /tmp/begun; sleep 4323 & sleep 4323"))
    while not (await session.exec("test", "-e", "/tmp/begun", shell=False)).ok():  # noqa: ASYNC110 - it is in the guest
        await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b"4323" not in await processes(session)


async def test_a_background_child_does_not_hold_the_call(session: SandboxSession) -> None:
    result = await session.exec("echo before; sleep 4324 & echo after")
    assert result.stdout == b"before\nafter\n"
    listing = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -x 'sleep 4324 '; done; true"
    assert (await session.exec(listing)).stdout == b"sleep 4324 \n"
    await session.exec("kill $(for p in /proc/[0-9]*; do grep -qs 'sleep' $p/comm && echo ${p#/proc/}; done); true")


async def test_many_at_once(session: SandboxSession) -> None:
    results = await asyncio.gather(*(session.exec(f"echo {number}; exit {number}") for number in range(8)))
    assert [(result.stdout, result.exit_code) for result in results] == [(f"{n}\n".encode(), n) for n in range(8)]


async def test_a_working_directory_that_went_away(session: SandboxSession) -> None:
    await session.exec("rm -rf /workspace", shell=True)
    result = await session.exec("pwd")
    assert result.exit_code == 126
    assert b"/workspace" in result.stderr
    session._inner.state.workspace_root_ready = False
    await session.exec("mkdir -p /workspace")
    session._inner.state.workspace_root_ready = True
    assert (await session.exec("pwd")).stdout == b"/workspace\n"


@pytest.mark.long
async def test_twenty_megabytes(session: SandboxSession) -> None:
    result = await session.exec("head -c 20000000 /dev/zero | tr '\\0' x; printf done >&2")
    assert result.stdout == b"x" * 20_000_000
    assert result.stderr == b"done"
    assert (await session.exec("echo", "alive", shell=False)).stdout == b"alive\n"
