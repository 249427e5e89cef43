"""Processes that outlive the call that started them, with or without a terminal.

Their streams are read all the time, because 20 MB that nobody reads stall a stream of BoxLite and are lost (measured on
BoxLite 0.10.8); what was not asked for yet is held in bounded memory. They carry text: bytes that are not UTF-8 arrive
as U+FFFD, as the SDK shows them to a model anyway. Ids, their limit, times and errors are those of the SDK's backends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final

from agents.sandbox.errors import ExecTransportError, PtySessionNotFoundError
from agents.sandbox.session.pty_output import collect_pty_output
from agents.sandbox.session.pty_types import (
    PTY_PROCESSES_MAX,
    PTY_PROCESSES_WARNING,
    PtyExecUpdate,
    allocate_pty_process_id,
    clamp_pty_yield_time_ms,
    process_id_to_prune_from_meta,
    resolve_pty_write_yield_time_ms,
)

from cedarbox.boxlite import api
from cedarbox.boxlite.guestio import GuestRunner, Launched
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.output import HeldOutput
from cedarbox.boxlite.waiting import finish

__all__ = ["MAX_INPUT_BYTES", "Terminals"]

MAX_INPUT_BYTES: Final = 1024 * 1024
"""Bytes typed into a process that it has not read yet; what is more is refused."""

_INPUT_PIECE: Final = 4096
_START_YIELD_MS: Final = 10_000
_WRITE_YIELD_MS: Final = 250
_PID_SECONDS: Final = 10.0
_LAST_OUTPUT_SECONDS: Final = 10.0
_END_SECONDS: Final = 10.0
_PROBE_SECONDS: Final = 30.0

_logger = logging.getLogger(__name__)


class _Process:
    """One process: its streams, what it wrote, and how it ended."""

    def __init__(self, runner: GuestRunner, launched: Launched, command: Sequence[str], user: str | None, tty: bool):
        self._runner, self._execution = runner, launched.execution
        self.label, self.command, self.user, self.tty = launched.label, tuple(command), user, tty
        self.output = HeldOutput()
        # What the SDK's collector gave back, because a caller was cancelled.
        self.chunks: deque[bytes] = deque()
        self.lock, self.notify = asyncio.Lock(), asyncio.Event()
        self.closed = False
        self.exit_code: int | None = None
        self.failure: str | None = None
        self.last_used = time.monotonic()
        self._pid: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._input, self._typed = bytearray(), asyncio.Event()
        self.watcher = asyncio.create_task(self._watch())
        runner.watch(self.watcher)

    async def pid(self) -> int | None:
        """Return its pid in the guest once it is known; ``None`` when it does not come."""
        await asyncio.wait((self._pid,), timeout=_PID_SECONDS)
        return self._pid.result() if self._pid.done() else None

    def type(self, data: bytes) -> bool:
        """Queue input; return whether there was room for it."""
        if self.closed:
            return True
        if len(self._input) + len(data) > MAX_INPUT_BYTES:
            return False
        self._input += data
        self._typed.set()
        return True

    async def resize(self, rows: int, cols: int) -> None:
        """Set the size of its terminal."""
        await self._execution.resize_tty(rows, cols)

    async def settle(self) -> None:
        """Hand what it wrote to the collector."""
        if data := self.output.take():
            self.chunks.append(data)

    async def _watch(self) -> None:
        out = asyncio.create_task(self._read(self._execution.stdout(), first=True))
        err = asyncio.create_task(self._read(self._execution.stderr()))
        writer = asyncio.create_task(self._write())
        ending = asyncio.create_task(_ended(self._execution))
        guest: asyncio.Task[None] = asyncio.create_task(self._runner.end_of_guest())
        try:
            waiting: set[asyncio.Task[None] | asyncio.Task[api.ExitStatus]] = {out, err, ending, guest}
            while ending in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            # What it wrote is still on its way. Background children may hold the streams for as long as they live;
            # what those write later is read and dropped.
            await asyncio.wait((out, err), timeout=_LAST_OUTPUT_SECONDS)
            self._close(exit_code=await self._code(ending.result()))
            await asyncio.gather(out, err)
        except (GuestFailure, api.BoxliteError, TimeoutError) as error:
            self._close(failure=" ".join(str(error).split()) or "the guest is gone")
        finally:
            self._close(failure="the sandbox was stopped")
            for each in (out, err, writer, ending, guest):
                each.cancel()
            await asyncio.gather(out, err, writer, ending, guest, return_exceptions=True)

    def _close(self, *, exit_code: int | None = None, failure: str | None = None) -> None:
        if self.closed:
            return
        self.closed, self.exit_code, self.failure = True, exit_code, failure
        if not self._pid.done():
            self._pid.set_result(None)
        self.notify.set()

    async def _code(self, status: api.ExitStatus) -> int:
        code = status.exit_code
        if code == -1:
            # Signal 1, or the end of the guest itself: both show as -1 (measured on BoxLite 0.10.8).
            await self._runner.run(("true",), timeout_s=_PROBE_SECONDS)
        return code if code >= 0 else 128 - code

    async def _read(self, stream: AsyncIterator[str], *, first: bool = False) -> None:
        line = ""
        async for received in stream:
            piece = received
            if first:
                line += piece
                if "\n" not in line:
                    continue
                number, _, piece = line.partition("\n")
                first = False
                if not self._pid.done():
                    self._pid.set_result(int(number) if number.strip().isdecimal() else None)
            if piece and not self.closed:
                self.output.add(piece.encode("utf-8", "replace"))

    async def _write(self) -> None:
        target = self._execution.stdin()
        while True:
            await self._typed.wait()
            self._typed.clear()
            while self._input:
                piece = bytes(self._input[:_INPUT_PIECE])
                try:
                    await target.send_input(piece)
                except api.BoxliteError:
                    # It went away without reading everything; its exit code says what that means.
                    return
                del self._input[: len(piece)]


class Terminals:
    """The processes of one started sandbox that callers hold by number.

    Args:
        runner: Starts and kills processes in the box.
    """

    def __init__(self, runner: GuestRunner) -> None:
        self._runner = runner
        self._processes: dict[int, _Process] = {}

    def of(self, runner: GuestRunner) -> bool:
        """Whether these are the processes of this runner's box."""
        return self._runner is runner

    async def start(
        self,
        command: Sequence[str],
        *,
        env: Iterable[tuple[str, str]],
        cwd: str,
        user: str | None,
        tty: bool,
        timeout_s: float | None,
        yield_time_s: float | None,
        max_output_tokens: int | None,
    ) -> PtyExecUpdate:
        """Start a process and return what it wrote until it ended or the yield time was over.

        When this call is cancelled, the process and its descendants are killed before it returns.

        Args:
            command: Program and arguments.
            env: Environment of the command, on top of the image's.
            cwd: Its working directory.
            user: Name or number it runs as; ``None`` is root.
            tty: Give it a terminal, 24 rows of 80 columns. Without one it reads nothing, ``/dev/null``.
            timeout_s: Seconds the start may take; ``None`` is for ever.
            yield_time_s: Seconds to wait for its end, 10 by default, at least 0.25 and at most 30.
            max_output_tokens: Tokens of output that are returned; ``None`` is all.

        Returns:
            Its output; its exit code when it ended, else its number.

        Raises:
            TimeoutError: It did not start in time.
            ExecTransportError: Its end cannot be told.
            BoxliteError: It could not be started.
        """
        async with asyncio.timeout(timeout_s):
            launched = await self._runner.launch(command, env=env, cwd=cwd, user=user, tty=tty)
        process = _Process(self._runner, launched, command, user, tty)
        pruned = self._prune()
        number = allocate_pty_process_id(set(self._processes))
        self._processes[number] = process
        if len(self._processes) >= PTY_PROCESSES_WARNING:
            _logger.warning("%d processes are held open; at %d old ones end", len(self._processes), PTY_PROCESSES_MAX)
        try:
            if pruned is not None:
                await finish(self._terminate((pruned,)))
            yield_ms = _START_YIELD_MS if yield_time_s is None else int(yield_time_s * 1000)
            return await self._update(number, process, clamp_pty_yield_time_ms(yield_ms), max_output_tokens)
        except asyncio.CancelledError:
            self._processes.pop(number, None)
            await finish(self._terminate((process,)))
            raise

    async def write(
        self, number: int, chars: str, *, yield_time_s: float | None, max_output_tokens: int | None
    ) -> PtyExecUpdate:
        """Type into a process, or poll it, and return what it wrote meanwhile.

        Args:
            number: Its number.
            chars: What is typed; empty only polls.
            yield_time_s: Seconds to wait for its end, 0.25 by default, at most 30; a poll waits at least 5.
            max_output_tokens: Tokens of output that are returned; ``None`` is all.

        Returns:
            Its output; its exit code when it ended, else its number.

        Raises:
            PtySessionNotFoundError: There is no such process.
            RuntimeError: It has no terminal to type into.
            ExecTransportError: Its end cannot be told.
        """
        process = self._find(number)
        notice = b""
        if chars:
            if not process.tty:
                raise RuntimeError("stdin is not available for this process")
            data = chars.encode("utf-8", "replace")
            if not process.type(data):
                notice = f"\n[cedarbox: {len(data)} bytes of input were refused: the process does not read]\n".encode()
        yield_ms = _WRITE_YIELD_MS if yield_time_s is None else int(yield_time_s * 1000)
        yield_ms = resolve_pty_write_yield_time_ms(yield_time_ms=yield_ms, input_empty=chars == "")
        return await self._update(number, process, yield_ms, max_output_tokens, notice)

    async def resize(self, number: int, rows: int, cols: int) -> None:
        """Set the size of a terminal. The process is sent SIGWINCH.

        Raises:
            PtySessionNotFoundError: There is no such process.
            RuntimeError: It has no terminal.
            ValueError: A number is not within 1 to 65535.
            BoxliteError: BoxLite failed.
        """
        if not (0 < rows <= 0xFFFF and 0 < cols <= 0xFFFF):
            raise ValueError(f"a terminal cannot have {rows} rows of {cols} columns")
        process = self._find(number)
        if not process.tty:
            raise RuntimeError("stdin is not available for this process")
        await process.resize(rows, cols)

    async def terminate(self, number: int) -> None:
        """Kill one process, if it still runs, with its descendants."""
        if (process := self._processes.pop(number, None)) is not None:
            await finish(self._terminate((process,)))

    async def terminate_all(self) -> None:
        """Kill all processes that still run, with their descendants."""
        processes = tuple(self._processes.values())
        self._processes.clear()
        if processes:
            await finish(self._terminate(processes))

    def _find(self, number: int) -> _Process:
        process = self._processes.get(number)
        if process is None:
            raise PtySessionNotFoundError(session_id=number)
        return process

    def _prune(self) -> _Process | None:
        if len(self._processes) < PTY_PROCESSES_MAX:
            return None
        meta = [(number, process.last_used, process.closed) for number, process in self._processes.items()]
        oldest = process_id_to_prune_from_meta(meta)
        return None if oldest is None else self._processes.pop(oldest, None)

    async def _update(
        self, number: int, process: _Process, yield_ms: int, max_output_tokens: int | None, notice: bytes = b""
    ) -> PtyExecUpdate:
        output, tokens, over = await collect_pty_output(
            output_chunks=process.chunks,
            output_lock=process.lock,
            output_notify=process.notify,
            is_done=lambda: process.closed,
            yield_time_ms=yield_ms,
            max_output_tokens=max_output_tokens,
            settle_output=process.settle,
        )
        process.last_used = time.monotonic()
        if over:
            self._processes.pop(number, None)
        if over and process.exit_code is None:
            raise ExecTransportError(
                command=process.command, message=f"how the process {number} ended is unknown: {process.failure}"
            )
        return PtyExecUpdate(
            process_id=None if over else number,
            output=output + notice,
            exit_code=process.exit_code if over else None,
            original_token_count=tokens,
        )

    async def _terminate(self, processes: Sequence[_Process]) -> None:
        running = [process for process in processes if not process.closed]
        try:
            for user in {process.user for process in running}:
                theirs = [process for process in running if process.user == user]
                pids = [pid for process in theirs if (pid := await process.pid()) is not None]
                await self._runner.kill([process.label for process in theirs], pids, user)
            if running:
                await asyncio.wait([process.watcher for process in running], timeout=_END_SECONDS)
        except (GuestFailure, api.BoxliteError):
            # A guest that does not answer is gone, and its processes with it.
            return
        finally:
            for process in running:
                process.watcher.cancel()
            await asyncio.gather(*(process.watcher for process in running), return_exceptions=True)


async def _ended(execution: api.Execution) -> api.ExitStatus:
    return await execution.wait()
