"""Ends of commands that are not their own: time limits and cancellation."""

from __future__ import annotations

import asyncio

from agents.sandbox.errors import ExecTimeoutError

from cedarbox.conformance.bench import Bench
from cedarbox.conformance.check import Check, Failure, checks_of, equal, refused

__all__ = ["checks"]


async def _timed_out(bench: Bench, script: str, marker: str) -> ExecTimeoutError:
    limit = 0.5 + 0.5 * bench.backend.patience
    try:
        error = await refused(
            bench.exec(script.replace("MARKER", marker), timeout_s=limit),
            "a command over its limit",
            (ExecTimeoutError,),
        )
    except BaseException:
        await bench.kill(marker)
        raise
    if not isinstance(error, ExecTimeoutError):
        raise Failure(f"the error is a {type(error).__name__}")
    equal(error.timeout_s, limit, "the time limit that the error names")
    return error


async def a_limit_is_kept(bench: Bench) -> None:
    """A command over its time limit is ended and reported with the limit."""
    marker = bench.marker()
    await _timed_out(bench, "sleep MARKER", marker)
    await bench.ended(marker)


async def a_limit_ends_children(bench: Bench) -> None:
    """A time limit ends the command's children, in the background too."""
    marker = bench.marker()
    await _timed_out(bench, "sleep MARKER & sleep MARKER & wait", marker)
    await bench.ended(marker)


async def a_limit_ends_what_ignores_signals(bench: Bench) -> None:
    """A time limit ends what ignores SIGTERM."""
    marker = bench.marker()
    await _timed_out(bench, "trap '' TERM HUP INT; sleep MARKER; :", marker)
    await bench.ended(marker)


async def a_limit_ends_what_left_the_session(bench: Bench) -> None:
    """A time limit ends descendants that left the process group."""
    marker = bench.marker()
    await _timed_out(bench, "setsid sh -c 'sleep MARKER; :' & sleep MARKER", marker)
    await bench.ended(marker)


async def a_limit_that_is_not_reached(bench: Bench) -> None:
    """A time limit that is not reached changes nothing."""
    result = await bench.exec("echo in time; exit 4", timeout_s=60 * bench.backend.patience)
    equal((result.stdout, result.exit_code), (b"in time\n", 4), "output and exit code")


async def usable_after_a_limit(bench: Bench) -> None:
    """After a time limit the session is as before."""
    marker = bench.marker()
    await _timed_out(bench, "sleep MARKER", marker)
    equal((await bench.exec("echo fine")).stdout, b"fine\n", "the output")


async def _begun(bench: Bench, script: str) -> asyncio.Task[object]:
    task: asyncio.Task[object] = asyncio.create_task(bench.session.exec(script))
    for _ in range(100):
        if (await bench.exec(f"test -e {bench.path('begun')}")).exit_code == 0:
            return task
        await asyncio.sleep(0.2)
    task.cancel()
    raise Failure("the command did not begin")


async def _cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=30)
    if not done:
        raise Failure("the cancelled call did not return")
    if not task.cancelled():
        raise Failure("the cancelled call did not raise CancelledError")


async def a_cancelled_call_ends_its_processes(bench: Bench) -> None:
    """Cancelling a call ends the command and its children."""
    marker = bench.marker()
    task = await _begun(bench, f"touch {bench.path('begun')}; sleep {marker} & sleep {marker}")
    await _cancelled(task)
    await bench.ended(marker)


async def usable_after_a_cancelled_call(bench: Bench) -> None:
    """After a cancelled call the session is as before."""
    marker = bench.marker()
    task = await _begun(bench, f"touch {bench.path('begun')}; sleep {marker}")
    await _cancelled(task)
    try:
        equal((await bench.exec("echo fine")).stdout, b"fine\n", "the output")
    finally:
        await bench.kill(marker)


async def cancelling_one_spares_another(bench: Bench) -> None:
    """Cancelling one call leaves another alone."""
    marker, gate = bench.marker(), bench.path("gate")
    wait = f"n=0; until [ -e {gate} ]; do n=$((n+1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; echo met"
    other = asyncio.create_task(bench.exec(wait))
    try:
        await _cancelled(await _begun(bench, f"touch {bench.path('begun')}; sleep {marker}"))
        await bench.ok(f"touch {gate}")
        equal((await other).stdout, b"met\n", "the output of the other one")
    finally:
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
        await bench.kill(marker)


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "ends",
        a_limit_is_kept,
        a_limit_ends_children,
        a_limit_ends_what_ignores_signals,
        a_limit_ends_what_left_the_session,
        a_limit_that_is_not_reached,
        usable_after_a_limit,
        a_cancelled_call_ends_its_processes,
        usable_after_a_cancelled_call,
        cancelling_one_spares_another,
    )
