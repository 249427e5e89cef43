"""Commands in the guest, byte for byte.

BoxLite 0.10.8 hands out standard output and error as text in pieces of at most 1 KB, replaces what is not UTF-8, waits
for background children that hold the streams, and leaves processes alone when a caller gives up (measured). So every
command runs under a small ``sh`` script that

* carries both streams in base64;
* ends both streams with a marker that only this call knows, the exit code beside it: what comes later belongs to
  background children and is thrown away while they live. ``#`` on standard error says that the command ended; when
  children then keep the streams open, zeros are pushed through ``base64``, so that it lets go of what it holds;
* gives the command a session of its own where the image has ``setsid``, so that ``kill 0`` does not reach the script;
* puts an id into its environment, by which all its descendants are found and killed.

The guest needs ``sh``, ``base64`` and ``tr`` (GNU coreutils and BusyBox have them), nothing else.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Final, NoReturn

from cedarbox.boxlite import api, scripts
from cedarbox.boxlite.failures import meaning
from cedarbox.boxlite.marked import GuestFailure, MarkedStream, Sink
from cedarbox.boxlite.waiting import finish

__all__ = ["GuestOutput", "GuestRunner", "Launched"]

_INPUT_CHUNK: Final = 256 * 1024  # one send over 4 MB hangs (measured on BoxLite 0.10.8)
_TOOL_SECONDS: Final = 30.0
_START_SECONDS: Final = 60.0
_LAST_WORDS_SECONDS: Final = 10.0
_FLUSH_AFTER_SECONDS: Final = 1.0
_FLUSHES: Final = 5
_LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class GuestOutput:
    """What a command left behind.

    Attributes:
        stdout: Its standard output; empty when it went to a sink.
        stderr: Its standard error.
        exit_code: Its exit code as ``sh`` reports it: 126 not executable, 127 not found, 128 + n for signal n.
    """

    stdout: bytes
    stderr: bytes
    exit_code: int


@dataclass(frozen=True, slots=True)
class Launched:
    """A process that was started and is not waited for.

    Attributes:
        execution: BoxLite's handle on it.
        label: The id in its environment, by which its descendants are found.
    """

    execution: api.Execution
    label: str


class GuestRunner:
    """Runs commands in one box.

    Args:
        box: The box; it must be started.
    """

    def __init__(self, box: api.Box) -> None:
        self._box = box
        self._lingering: set[asyncio.Task[None]] = set()

    async def run(
        self,
        command: Sequence[str],
        *,
        env: Iterable[tuple[str, str]] = (),
        cwd: str = "/",
        user: str | None = None,
        timeout_s: float | None = None,
        stdin: IO[bytes] | None = None,
        sink: Sink | None = None,
    ) -> GuestOutput:
        """Run a command and wait for it.

        When this call times out or is cancelled, the command and all its descendants are killed before it returns.

        Args:
            command: Program and arguments.
            env: Environment of the command, on top of the image's.
            cwd: Its working directory; when it cannot be entered, the exit code is 126.
            user: Name or number it runs as; ``None`` is root.
            timeout_s: Seconds it may take; ``None`` is for ever.
            stdin: What it reads, sent in pieces; ``None`` means nothing, ``/dev/null``.
            sink: Takes standard output instead of memory.

        Returns:
            Its output and exit code.

        Raises:
            TimeoutError: It took too long. It was killed.
            GuestFailure: It could not be run, or its end is unknown.
            BoxliteError: BoxLite failed.
        """
        label, left, right = secrets.token_hex(16), secrets.token_hex(8), secrets.token_hex(8)
        marker = f"{left}={right}".encode()
        script = ["-c", scripts.RUN, "sh", left, right, "0" if stdin is None else "1", cwd, *command]
        pairs = [*env, ("CEDARBOX_EXEC", label)]
        starting = asyncio.ensure_future(_started(self._box, script, pairs, user))
        try:
            async with asyncio.timeout(timeout_s):
                execution = await asyncio.shield(starting)
                return await self._drained(execution, label, marker, user=user, stdin=stdin, sink=sink)
        except BaseException:
            await finish(self._kill(starting, label, user))
            raise

    async def launch(
        self, command: Sequence[str], *, env: Iterable[tuple[str, str]], cwd: str, user: str | None, tty: bool
    ) -> Launched:
        """Start a process whose streams the caller reads as they come. It runs under :data:`scripts.OPEN`.

        When this call is cancelled, the process is killed before it returns.

        Args:
            command: Program and arguments.
            env: Environment of the command, on top of the image's.
            cwd: Its working directory; when it cannot be entered, the exit code is 126.
            user: Name or number it runs as; ``None`` is root.
            tty: Give it a terminal, with one merged stream.

        Raises:
            BoxliteError: It could not be started.
        """
        label = secrets.token_hex(16)
        script = ["-c", scripts.OPEN, "sh", cwd, "1" if tty else "0", *command]
        starting = asyncio.ensure_future(_started(self._box, script, [*env, ("CEDARBOX_EXEC", label)], user, tty=tty))
        try:
            return Launched(await asyncio.shield(starting), label)
        except BaseException:
            await finish(self._kill(starting, label, user))
            raise

    async def hold(self, script: str, *arguments: str) -> Launched:
        """Start a script of ours as root, whose streams the caller uses: standard input is open, nothing is encoded.

        When this call is cancelled, the script is killed before it returns.

        Args:
            script: For ``sh``.
            arguments: What it finds as ``$1`` and so on.

        Raises:
            BoxliteError: It could not be started.
        """
        label = secrets.token_hex(16)
        command = ["-c", script, "sh", *arguments]
        starting = asyncio.ensure_future(_started(self._box, command, [("CEDARBOX_EXEC", label)], None))
        try:
            return Launched(await asyncio.shield(starting), label)
        except BaseException:
            await finish(self._kill(starting, label, None))
            raise

    async def kill(self, labels: Iterable[str], pids: Iterable[int], user: str | None) -> None:
        """Kill processes and all their descendants.

        Args:
            labels: Ids as :attr:`Launched.label` has them.
            pids: Pids of processes in the guest that are known to run.
            user: The user they run as: another user's environment, where the ids are, is not readable without
                CAP_SYS_PTRACE, which the guest lacks.

        Raises:
            GuestFailure: The guest did not answer.
            BoxliteError: BoxLite failed.
        """
        await self._tool(scripts.KILL, user, " ".join(labels), " ".join(map(str, pids)))

    def watch(self, task: asyncio.Task[None]) -> None:
        """Keep a task that reads the streams of a process. It is cancelled by :meth:`close`."""
        self._lingering.add(task)
        task.add_done_callback(self._lingering.discard)

    async def close(self) -> None:
        """Stop reading the streams of processes. They are left alone; the box is about to stop."""
        for task in tuple(self._lingering):
            task.cancel()
        await asyncio.gather(*self._lingering, return_exceptions=True)

    async def _flush(self, over: asyncio.Event, progress: Callable[[], int], label: str, user: str | None) -> None:
        """Once the command is over, push out what children that keep its streams open hold back."""
        await over.wait()
        seen, tries = -1, _FLUSHES
        while tries:
            await asyncio.sleep(_FLUSH_AFTER_SECONDS)
            if (now := progress()) != seen:
                seen = now
                continue
            tries -= 1
            await self._tool(scripts.FLUSH, user, label)
        raise GuestFailure("background children keep the command's output from arriving")

    async def end_of_guest(self) -> NoReturn:
        """Wait for the end of the guest.

        The streams of a command do not always end with it: those of a guest that powers itself off, because its main
        process was killed, stay open for ever (seen on BoxLite 0.10.8).

        Raises:
            GuestFailure: The guest is no longer there.
        """
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            try:
                running = (await self._box.info()).state.running
            except api.BoxliteError as error:
                # A server that cannot be reached tells nothing about the guest.
                running = meaning(error).retryable is True
            if not running:
                # What came with its end may still be on its way.
                await asyncio.sleep(_LOOK_SECONDS)
                raise GuestFailure("the guest ended")

    async def _kill(self, starting: asyncio.Future[api.Execution], label: str, user: str | None) -> None:
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.wait((starting,))
        if starting.cancelled():
            return
        # An error may be the loss of the answer, with the process running all the same.
        if (error := starting.exception()) is not None and meaning(error).not_started:
            return
        await self.kill((label,), (), user)

    async def _tool(self, script: str, user: str | None, *arguments: str) -> None:
        try:
            async with asyncio.timeout(_TOOL_SECONDS):
                execution = await self._box.exec("/bin/sh", ["-c", script, "sh", *arguments], user=user)
                await asyncio.gather(_discard(execution.stdout()), _discard(execution.stderr()), execution.wait())
        except TimeoutError:
            raise GuestFailure(f"the guest did not answer within {_TOOL_SECONDS:g} s") from None

    async def _drained(
        self,
        execution: api.Execution,
        label: str,
        marker: bytes,
        *,
        user: str | None,
        stdin: IO[bytes] | None,
        sink: Sink | None,
    ) -> GuestOutput:
        out, err = MarkedStream(marker, sink), MarkedStream(marker)
        both, over = asyncio.Event(), asyncio.Event()

        def note() -> None:
            if err.ended:
                over.set()
            if out.done and err.done:
                both.set()

        pumps = {
            asyncio.create_task(_pump(execution.stdout(), out, note)),
            asyncio.create_task(_pump(execution.stderr(), err, note)),
            asyncio.create_task(_feed(execution.stdin(), stdin)),
        }

        def progress() -> int:
            return out.received + err.received

        marked = asyncio.create_task(both.wait())
        # These two end only with an error.
        endless = {
            asyncio.create_task(self._flush(over, progress, label, user)),
            asyncio.create_task(self.end_of_guest()),
        }
        waiting = endless | pumps
        try:
            while not both.is_set() and waiting != endless:
                done, _ = await asyncio.wait({marked, *waiting}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & waiting:
                    waiting.discard(task)
                    task.result()
            if not both.is_set():
                return await _unmarked(execution, out, err)
        except BaseException:
            for task in pumps:
                task.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            raise
        finally:
            for helper in (marked, *endless):
                helper.cancel()
            await asyncio.gather(marked, *endless, return_exceptions=True)
        self.watch(asyncio.create_task(_outlived(pumps, execution)))
        code = (out.trailer or b"").decode("ascii", "replace")
        if not code.isdigit():
            raise GuestFailure(f"the exit code {code[:20]!r} is not a number")
        return GuestOutput(bytes(out.data), bytes(err.data), int(code))


async def _unmarked(execution: api.Execution, out: MarkedStream, err: MarkedStream) -> GuestOutput:
    """Make a result of a command whose script was killed, so that nobody could write the markers."""
    try:
        status = await asyncio.wait_for(execution.wait(), _LAST_WORDS_SECONDS)
    except TimeoutError:
        raise GuestFailure("the command's streams ended but it did not") from None
    # A killed stage leaves status 0 of the last one; a killed script its signal. -1 is how the end of the guest itself
    # shows (measured on BoxLite 0.10.8). Over REST, code 0 with a message means that the output was lost.
    code = status.exit_code
    if code == -1 or code > 0 or out.to_sink or (code == 0 and status.error_message):
        detail = f": {status.error_message}" if status.error_message else ""
        raise GuestFailure(f"the command ended without its exit code (status {code}){detail}")
    return GuestOutput(out.rest(), err.rest(), 128 - code if code else 137)


async def _outlived(pumps: set[asyncio.Task[None]], execution: api.Execution) -> None:
    """Read and drop what background children write after the command ended, so that they are not stalled."""
    try:
        await asyncio.gather(*pumps, return_exceptions=True)
        await execution.wait()
    except api.BoxliteError:
        return
    finally:
        for task in pumps:
            task.cancel()


async def _started(
    box: api.Box, script: list[str], env: list[tuple[str, str]], user: str | None, *, tty: bool = False
) -> api.Execution:
    return await box.exec("/bin/sh", script, env, tty=tty, user=user, cwd="/")


async def _pump(stream: AsyncIterator[str], into: MarkedStream, note: Callable[[], None]) -> None:
    async for piece in stream:
        into.feed(piece)
        note()


async def _feed(target: api.StandardInput, source: IO[bytes] | None) -> None:
    try:
        while source is not None and (chunk := await asyncio.to_thread(source.read, _INPUT_CHUNK)):
            await target.send_input(chunk)
    except api.BoxliteError:
        # The command went away without reading everything; its exit code says what that means.
        return
    finally:
        await _close(target)


async def _close(target: api.StandardInput) -> None:
    try:
        await target.close()
    except api.BoxliteError:
        return


async def _discard(stream: AsyncIterator[str]) -> None:
    async for _ in stream:
        pass
