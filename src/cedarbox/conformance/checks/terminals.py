"""Terminals: processes that are started, watched, typed into and ended."""

from __future__ import annotations

import time

from agents.sandbox.errors import PtySessionNotFoundError
from agents.sandbox.session.pty_types import PtyExecUpdate

from cedarbox.conformance.bench import ENVIRONMENT, EVERY, Bench
from cedarbox.conformance.check import Check, Failure, checks_of, equal, holds, refused, shown

__all__ = ["checks"]

_WAIT_SECONDS = 60.0
_OCTAL = "".join(f"\\{byte:03o}" for byte in EVERY if byte < 128)


class _Process:
    """One process of a session, with all of its output so far."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._yield_s = 0.5 * bench.backend.patience
        self.output = b""
        self.process_id: int | None = None
        self.exit_code: int | None = None

    async def start(
        self, *command: str, tty: bool = True, shell: bool = True, user: str | None = None
    ) -> PtyExecUpdate:
        update = await self._bench.session.pty_exec_start(
            *command, tty=tty, shell=shell, user=user, yield_time_s=self._yield_s
        )
        return self._took(update)

    async def type(self, chars: str) -> PtyExecUpdate:
        if self.process_id is None:
            raise Failure(f"the process ended with exit code {self.exit_code} before it was typed to")
        update = await self._bench.session.pty_write_stdin(
            session_id=self.process_id, chars=chars, yield_time_s=self._yield_s
        )
        return self._took(update)

    async def until(self, text: bytes) -> None:
        """Poll until the output holds the text."""
        end = time.monotonic() + _WAIT_SECONDS * self._bench.backend.patience
        while text not in self.text():
            if self.process_id is None or time.monotonic() > end:
                raise Failure(f"the output is {shown(self.text())} and {shown(text)} is not in it")
            await self.type("")

    async def end(self) -> int:
        """Poll until the process has ended, and return its exit code."""
        end = time.monotonic() + _WAIT_SECONDS * self._bench.backend.patience
        while self.process_id is not None:
            if time.monotonic() > end:
                raise Failure(f"the process still runs; its output is {shown(self.text())}")
            await self.type("")
        if self.exit_code is None:
            raise Failure("the process ended without an exit code")
        return self.exit_code

    def text(self) -> bytes:
        """The output so far, with the terminal's line ends made plain."""
        return self.output.replace(b"\r\n", b"\n")

    def _took(self, update: PtyExecUpdate) -> PtyExecUpdate:
        if (update.process_id is None) == (update.exit_code is None):
            raise Failure(
                f"an update has process_id {update.process_id} and exit_code {update.exit_code}; "
                "a process id is given exactly while the process runs"
            )
        self.output += update.output
        self.process_id, self.exit_code = update.process_id, update.exit_code
        return update


async def said_to_be_there(bench: Bench) -> None:
    """The session says that it has terminals."""
    holds(bench.session.supports_pty(), "supports_pty() is false")


async def a_short_command(bench: Bench) -> None:
    """A short command gives its output and exit code, and no process id."""
    process = _Process(bench)
    await process.start("echo short; exit 3", tty=False)
    equal((await process.end(), process.text()), (3, b"short\n"), "exit code and output")


async def without_a_shell(bench: Bench) -> None:
    """Arguments without a shell arrive as they are."""
    process = _Process(bench)
    await process.start("printf", "%s|", "a b", "$HOME", tty=False, shell=False)
    equal((await process.end(), process.text()), (0, b"a b|$HOME|"), "exit code and output")


async def a_running_process_has_an_id(bench: Bench) -> None:
    """A process that still runs has an id and no exit code; a poll keeps both."""
    process = _Process(bench)
    await process.start(f"echo begun; sleep {bench.marker()}")
    await process.until(b"begun")
    first = process.process_id
    holds(isinstance(first, int) and first > 0, f"the process id is {first!r}")
    await process.type("")
    equal(process.process_id, first, "the id after a poll")


async def an_end_is_noticed(bench: Bench) -> None:
    """A poll after the end gives the rest of the output and the exit code."""
    process = _Process(bench)
    await process.start(f"n=0; until [ -e {bench.path('gate')} ]; do sleep 0.1; done; echo rest; exit 5", tty=False)
    holds(process.process_id is not None, "the process did not wait")
    await bench.ok(f"touch {bench.path('gate')}")
    equal((await process.end(), process.text()), (5, b"rest\n"), "exit code and output")


async def an_ended_process_is_forgotten(bench: Bench) -> None:
    """The id of a process that ended is unknown from then on."""
    process = _Process(bench)
    await process.start("read line; exit 0")
    known = process.process_id
    holds(known is not None, "the process did not wait for input")
    await process.type("go\n")
    await process.end()
    await refused(
        bench.session.pty_write_stdin(session_id=known or 0, chars="", yield_time_s=0.25),
        "polling a process that ended",
        (PtySessionNotFoundError,),
    )


async def an_unknown_id(bench: Bench) -> None:
    """An id that was never given is refused, for a poll and for input."""
    for chars in ("", "x"):
        await refused(
            bench.session.pty_write_stdin(session_id=7, chars=chars, yield_time_s=0.25),
            "an unknown process id",
            (PtySessionNotFoundError,),
        )


async def output_comes_once(bench: Bench) -> None:
    """Each piece of output is given once."""
    process = _Process(bench)
    await process.start("stty -echo; echo first; read line; echo second; read line")
    await process.until(b"first\n")
    await process.type("\n")
    await process.until(b"second\n")
    equal(process.text(), b"first\nsecond\n", "the output")


async def input_reaches_it(bench: Bench) -> None:
    """What is typed reaches the process, and a terminal echoes it."""
    process = _Process(bench)
    await process.start("while read line; do echo got:$line; done")
    await process.type("one\n")
    # What is typed before the shell reads is echoed in front of all that it says.
    await process.until(b"got:one\n")
    await process.type("two ü\n")
    await process.until("got:two ü\n".encode())
    holds(b"got:one\n" in process.text(), f"the first line is not in {shown(process.text())}")
    holds(b"one\ngot:one" in process.text(), f"the terminal did not echo: {shown(process.text())}")


async def the_end_of_input(bench: Bench) -> None:
    """Ctrl-D ends what reads to the end of its input."""
    process = _Process(bench)
    await process.start("cat >/dev/null; echo over")
    await process.type("line\n")
    await process.type("\x04")
    equal(await process.end(), 0, "the exit code")
    holds(b"over\n" in process.text(), f"the output is {shown(process.text())}")


async def an_interrupt(bench: Bench) -> None:
    """Ctrl-C interrupts the process in the foreground."""
    marker = bench.marker()
    process = _Process(bench)
    await process.start(f"trap 'echo caught; exit 9' INT; echo begun; sleep {marker}")
    await process.until(b"begun")
    await process.type("\x03")
    equal(await process.end(), 9, "the exit code")
    holds(b"caught" in process.text(), f"the output is {shown(process.text())}")
    await bench.ended(marker)


async def an_interrupt_without_a_handler(bench: Bench) -> None:
    """A process that Ctrl-C ends has the exit code of its signal."""
    process = _Process(bench)
    await process.start("sleep", bench.marker(), shell=False)
    await process.type("\x03")
    equal(await process.end(), 130, "the exit code")


async def a_real_terminal(bench: Bench) -> None:
    """With a terminal, the three streams are one; without, none is."""
    script = "for n in 0 1 2; do if [ -t $n ]; then echo yes; else echo no; fi; done"
    process = _Process(bench)
    await process.start(script)
    await process.end()
    equal(process.text(), b"yes\nyes\nyes\n", "whether the streams are a terminal")
    process = _Process(bench)
    await process.start(script, tty=False)
    await process.end()
    equal(process.text(), b"no\nno\nno\n", "whether the streams are a terminal without one")


async def no_input_without_a_terminal(bench: Bench) -> None:
    """Input for a process without a terminal is refused in the words that the SDK knows."""
    process = _Process(bench)
    marker = bench.marker()
    await process.start(f"sleep {marker}", tty=False)
    try:
        error = await refused(process.type("x"), "input without a terminal", (RuntimeError,))
        # agents 0.24, capabilities/tools/shell_tool.py: this text alone is shown to the model.
        equal(str(error), "stdin is not available for this process", "the message")
    finally:
        await bench.kill(marker)


async def both_streams_without_a_terminal(bench: Bench) -> None:
    """Without a terminal, standard output and standard error are both given."""
    process = _Process(bench)
    await process.start("printf out; printf err >&2", tty=False)
    await process.end()
    equal(sorted(process.text()), sorted(b"outerr"), "the bytes of the output")


async def plain_bytes_are_exact(bench: Bench) -> None:
    """Every 7-bit byte is exact without a terminal."""
    process = _Process(bench)
    await process.start(f"printf '{_OCTAL}'", tty=False)
    await process.end()
    equal(process.output, bytes(range(128)), "the output")


async def wide_characters_are_whole(bench: Bench) -> None:
    """A character whose bytes come with a pause between them is given whole."""
    process = _Process(bench)
    halves = f"printf '\\303'; until [ -e {bench.path('gate')} ]; do sleep 0.1; done; printf '\\244'"
    await process.start(halves, tty=False)
    await bench.ok(f"touch {bench.path('gate')}")
    await process.end()
    equal(process.output.decode("utf-8", "replace"), "ä", "the output")


async def much_output(bench: Bench) -> None:
    """A megabyte of output is given whole."""
    process = _Process(bench)
    await process.start("head -c 1048576 /dev/zero | tr '\\0' x", tty=False)
    await process.end()
    equal((len(process.output), process.output.strip(b"x")), (1_048_576, b""), "length and other bytes")


async def output_is_cut_on_request(bench: Bench) -> None:
    """A limit on tokens shortens the output and says how long it was."""
    update = await bench.session.pty_exec_start(
        "i=0; while [ $i -lt 500 ]; do echo line number $i; i=$((i+1)); done",
        tty=False,
        yield_time_s=10 * bench.backend.patience,
        max_output_tokens=50,
    )
    holds(update.original_token_count is not None, "original_token_count is missing")
    holds(len(update.output) < 2000, f"the output still has {len(update.output)} bytes")


async def two_do_not_mix(bench: Bench) -> None:
    """Two processes keep their input and output apart."""
    one, two = _Process(bench), _Process(bench)
    await one.start("stty -echo; read line; echo one:$line")
    await two.start("stty -echo; read line; echo two:$line")
    holds(one.process_id != two.process_id, "two processes have one id")
    await two.type("second\n")
    await one.type("first\n")
    await one.until(b"one:first\n")
    await two.until(b"two:second\n")
    holds(b"two:" not in one.text() and b"one:" not in two.text(), "the outputs are mixed")


async def the_same_surroundings(bench: Bench) -> None:
    """Directory and environment are those of other commands."""
    process = _Process(bench)
    await process.start('pwd -P; printf %s "$CONFORMANCE_WIDE"', tty=False)
    await process.end()
    root = (await bench.exec("pwd -P")).stdout
    equal(process.text(), root + ENVIRONMENT["CONFORMANCE_WIDE"].encode(), "directory and variable")


async def ending_all(bench: Bench) -> None:
    """Ending all terminals ends their processes, and their ids are unknown from then on."""
    marker = bench.marker()
    one, two = _Process(bench), _Process(bench)
    await one.start(f"sleep {marker}; :")
    await two.start(f"trap '' HUP TERM; sleep {marker}; :", tty=False)
    await bench.session.pty_terminate_all()
    await bench.ended(marker)
    await refused(
        bench.session.pty_write_stdin(session_id=one.process_id or 0, chars="", yield_time_s=0.25),
        "polling a process that was ended",
        (PtySessionNotFoundError,),
    )


async def of_another_user(bench: Bench) -> None:
    """A terminal runs as the user that was asked for."""
    process = _Process(bench)
    await process.start("id -un", user=bench.backend.user)
    await process.end()
    equal(process.text(), f"{bench.backend.user}\n".encode(), "who runs it")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return (
        *checks_of(
            "pty",
            said_to_be_there,
            a_short_command,
            without_a_shell,
            a_running_process_has_an_id,
            an_end_is_noticed,
            an_ended_process_is_forgotten,
            an_unknown_id,
            output_comes_once,
            input_reaches_it,
            the_end_of_input,
            an_interrupt,
            an_interrupt_without_a_handler,
            a_real_terminal,
            no_input_without_a_terminal,
            both_streams_without_a_terminal,
            plain_bytes_are_exact,
            wide_characters_are_whole,
            much_output,
            output_is_cut_on_request,
            two_do_not_mix,
            the_same_surroundings,
            ending_all,
            needs=frozenset(("pty",)),
        ),
        *checks_of("pty", of_another_user, needs=frozenset(("pty", "users"))),
    )
