"""Solvers in processes of their own: what hangs is killed, what crashes is told, nothing of it reaches this program."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

__all__ = ["Solved", "Solver", "Solvers", "available", "installed"]

_PROGRAM: Final = Path(__file__).with_name("worker.py")
_MEGABYTES: Final = 4096
_GRACE_S: Final = 2.0
"""How long a solver may take to give up after its own time limit, and to start, before it is killed."""

Solver = Literal["cvc5", "z3"]
"""A solver by its name."""

_MODULES: Final[tuple[Solver, ...]] = ("cvc5", "z3")


def installed() -> tuple[Solver, ...]:
    """Return the solvers that are installed, the one to ask first first. None is loaded."""
    return tuple(name for name in _MODULES if importlib.util.find_spec(name) is not None)


def available() -> str:
    """Return what to do so that there is a solver; empty when there is one."""
    return "" if installed() else "no solver is installed; pip install 'cedarbox[prove]'"


@dataclass(frozen=True, slots=True)
class Solved:
    """What a solver said.

    Attributes:
        result: Whether there are values that satisfy the formulas.
        values: The values, as it writes them.
        why: Why it does not know; one line.
        seconds: How long it took.
    """

    result: Literal["sat", "unsat", "unknown"]
    values: str = ""
    why: str = ""
    seconds: float = 0.0


class _Worker:
    """One process; started when it is first asked, and again after it was killed."""

    def __init__(self, megabytes: int) -> None:
        self._megabytes = megabytes
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask it; kill it when it does not answer in time."""
        process = self._started()
        try:
            assert process.stdin is not None  # noqa: S101  # it was opened as a pipe
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._answers.get(timeout=limit_s + _GRACE_S)
        except queue.Empty:
            self.stop()
            return {"result": "unknown", "why": f"the solver was ended after {limit_s:g} s"}
        except OSError:
            line = b""
        if not line:
            code = self.stop()
            return {"result": "unknown", "why": f"the solver died (exit status {code}), maybe for want of memory"}
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.stop()
            return {"result": "unknown", "why": "the solver's answer could not be read"}
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.stop()
        self._answers = queue.Queue()
        command = [sys.executable, "-P", str(_PROGRAM), str(self._megabytes)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        threading.Thread(target=_read, args=(process, self._answers), daemon=True).start()
        self._process = process
        return process

    def stop(self) -> int | None:
        """End it; return its exit status, None when it did not run."""
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(OSError):
            process.kill()
        code = process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code


def _read(process: subprocess.Popen[bytes], answers: queue.Queue[bytes]) -> None:
    # A pipe cannot be read with a time limit on every system; a thread can wait for it.
    assert process.stdout is not None  # noqa: S101  # it was opened as a pipe
    with contextlib.suppress(OSError, ValueError):
        while line := process.stdout.readline():
            answers.put(line)
    answers.put(b"")


class Solvers:
    """A few solver processes, used again and again.

    Args:
        count: How many run at once.
        megabytes: How much memory each may take.
    """

    def __init__(self, count: int = 2, megabytes: int = _MEGABYTES) -> None:
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()
        self._all = [_Worker(megabytes) for _ in range(count)]
        for worker in self._all:
            self._idle.put(worker)

    def solve(self, solver: Solver, text: str, values: Sequence[str], limit_s: float) -> Solved:
        """Run one solver; wait for a process that is free.

        Args:
            solver: Which.
            text: Declarations and assertions.
            values: Of what it is to give the values.
            limit_s: After how many seconds it is to give up.
        """
        worker = self._idle.get()
        begun = time.monotonic()
        try:
            request = {"solver": solver, "text": text, "values": list(values), "seconds": limit_s}
            answer = worker.ask(request, limit_s)
        finally:
            self._idle.put(worker)
        seconds = time.monotonic() - begun
        result = answer.get("result")
        if result not in ("sat", "unsat"):
            return Solved("unknown", "", " ".join(str(answer.get("why", "")).split()) or "no answer", seconds)
        return Solved(result, str(answer.get("values", "")), "", seconds)

    def close(self) -> None:
        """End the processes."""
        for worker in self._all:
            worker.stop()

    def __enter__(self) -> Solvers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
