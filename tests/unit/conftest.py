"""Undoes what cedarbox puts in force for a whole process, so that tests do not depend on their order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from agents.run import set_default_agent_runner
from agents.run_internal import run_loop, tool_actions, tool_execution
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxSession
from hypothesis import HealthCheck, settings
from tests.unit.guarded import Guarded

from cedarbox.guard.runner import seams
from cedarbox.review.prove.solvers import Solved, Solver, Solvers

# A loaded machine is not a fault of the code.
settings.register_profile("cedarbox", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("cedarbox")
# A shell that starts a job in the background has it ignore interruptions, and so does all that the job starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Modes of files are what some tests are about.
os.umask(0o022)
# A narrow terminal cuts what a table says, and there is none in a test.
os.environ["COLUMNS"] = "80"
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(name, None)
# Whoever runs the tests may sign commits, call the first branch otherwise, or have hooks.
os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}

_solve = Solvers.solve


def _patiently(self: Solvers, solver: Solver, text: str, values: Sequence[str], limit_s: float) -> Solved:
    # Half a second of a processor is ten on a busy machine. A test that is about the limit itself gives a short one.
    return _solve(self, solver, text, values, limit_s * 10 if limit_s >= 5 else limit_s)


Solvers.solve = _patiently  # type: ignore[method-assign]


async def _pumped(self: UnixLocalSandboxSession, entry: Any) -> None:
    """Read a terminal of the SDK's unix-local backend in a thread of its own, from a descriptor of its own.

    The SDK (agents 0.24) reads in the threads of the loop, from a descriptor that it closes meanwhile. On a busy
    machine a thread was left that never ended, and the loop waited for it at the end until the tests were given up.
    """
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    own = os.dup(entry.primary_fd)

    def take(chunk: bytes) -> None:
        entry.output_chunks.append(chunk)
        entry.output_notify.set()

    def read() -> None:
        # The loop may be closed by then, or what is behind the terminal.
        with contextlib.suppress(OSError, RuntimeError):
            while chunk := os.read(own, 16_384):
                loop.call_soon_threadsafe(take, chunk)
        os.close(own)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(over.set)

    threading.Thread(target=read, daemon=True).start()
    await over.wait()


UnixLocalSandboxSession._pump_pty_primary_fd = _pumped  # type: ignore[method-assign]

_get_model = run_loop.get_model
_invoke = vars(tool_execution)["_invoke_function_tool_with_metadata"]
_execute = vars(tool_actions.CustomToolAction)["execute"]
_originals = [(owner, name, vars(owner)[name]) for owner, name, _ in seams()]


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    yield
    while Guarded.made:
        Guarded.made.pop().client.close()
    set_default_agent_runner(None)
    run_loop.get_model = _get_model
    setattr(tool_execution, "_invoke_function_tool_with_metadata", _invoke)  # noqa: B010  # private to the SDK
    setattr(tool_actions.CustomToolAction, "execute", _execute)  # noqa: B010  # as above
    for owner, name, original in _originals:
        setattr(owner, name, original)
