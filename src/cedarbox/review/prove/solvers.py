"""Solvers in processes of their own: what hangs is killed, what crashes is told, nothing of it reaches this program."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
        self._running: _Running | None = None
        self._lock = threading.Lock()
        self._interrupted = False

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        """Ask it; kill it when it does not answer in time."""
        try:
            line = self._started().ask(json.dumps(request).encode() + b"\n", limit_s + _GRACE_S)
        except queue.Empty:
            self.stop()
            return {"result": "unknown", "why": f"the solver was ended after {limit_s:g} s"}
        except OSError:
            line = b""
        except BaseException:
            # Whoever asks next would take the answer to this for that to its own question.
            self.stop()
            raise
        if self._interrupted:
            return {"result": "unknown", "why": "interrupted"}
        if not line:
            code = self.stop()
            return {"result": "unknown", "why": f"the solver died (exit status {code}), maybe for want of memory"}
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.stop()
            return {"result": "unknown", "why": "the solver's answer could not be read"}
        return answer

    def _started(self) -> _Running:
        with self._lock:
            if self._interrupted:
                raise InterruptedError
            if self._running is None or self._running.ended:
                self._stop()
                self._running = _Running(self._megabytes)
            return self._running

    def stop(self) -> int | None:
        """End it; return its exit status, None when it did not run."""
        with self._lock:
            return self._stop()

    def _stop(self) -> int | None:
        running, self._running = self._running, None
        return None if running is None else running.end()

    def interrupt(self) -> None:
        """End it, and do not start it again until :meth:`resume`."""
        with self._lock:
            self._interrupted = True
            self._stop()

    def resume(self) -> None:
        """Let it be started again."""
        self._interrupted = False


class _Running:
    """A process that runs, and the thread that reads what it says."""

    def __init__(self, megabytes: int) -> None:
        command = [sys.executable, "-P", str(_PROGRAM), str(megabytes)]
        # Without buffers of their own: those have locks, which the end of the interpreter trips over when a thread
        # still waits for a line.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._answers: queue.Queue[bytes] = queue.Queue()
        assert self._process.stdout is not None  # noqa: S101  # it was opened as a pipe
        # A pipe cannot be read with a time limit on every system; a thread can wait for it.
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout.fileno(), self._answers.put), daemon=True
        )
        self._reader.start()
        assert self._process.stdin is not None  # noqa: S101  # it was opened as a pipe
        os.set_blocking(self._process.stdin.fileno(), False)
        self._writing = threading.Lock()

    @property
    def ended(self) -> bool:
        """It does not run any more."""
        return self._process.poll() is not None

    def ask(self, line: bytes, limit_s: float) -> bytes:
        """Return its answer to a line; empty when it has ended.

        Raises:
            OSError: It does not listen.
            queue.Empty: There is none in time.
        """
        until = time.monotonic() + limit_s
        with self._writing:
            self._write(line, until)
        return self._answers.get(timeout=max(until - time.monotonic(), 0))

    def _write(self, line: bytes, until: float) -> None:
        pipe = self._process.stdin
        if pipe is None or pipe.closed:
            raise BrokenPipeError
        ready = select.poll()
        ready.register(pipe, select.POLLOUT)
        view = memoryview(line)
        while view:
            # One that hangs does not read, and a question can be longer than a pipe holds.
            if not ready.poll(max(until - time.monotonic(), 0) * 1000):
                raise queue.Empty
            view = view[os.write(pipe.fileno(), view) :]

    def end(self) -> int:
        """Kill it; return its exit status."""
        with contextlib.suppress(OSError):
            self._process.kill()
        code = self._process.wait()
        # It sees the end of the pipe now. Only then may the pipe be closed: its number can become that of another.
        self._reader.join(_GRACE_S)
        with self._writing, contextlib.suppress(OSError):
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
        return code


def _read(pipe: int, put: Callable[[bytes], None]) -> None:
    line = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(pipe, 65536):
            *lines, rest = chunk.split(b"\n")
            for each in lines:
                put(line + each)
                line = b""
            line += rest
    put(b"")


def _stop_all(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.stop()


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
        # Also when nobody closes it: the interpreter must not end with a thread that waits for a process.
        self._end = weakref.finalize(self, _stop_all, tuple(self._all))

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

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """End the processes, and start none within: each question that is or was asked is not answered."""
        for worker in self._all:
            worker.interrupt()
        try:
            yield
        finally:
            for worker in self._all:
                worker.resume()

    def close(self) -> None:
        """End the processes."""
        _stop_all(self._all)

    def __enter__(self) -> Solvers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
