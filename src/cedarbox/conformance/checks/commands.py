"""Commands: arguments, streams, exit codes, surroundings."""

from __future__ import annotations

import asyncio
import hashlib

from agents.sandbox.errors import ExecTransportError

from cedarbox.conformance.bench import ENVIRONMENT, EVERY, Bench
from cedarbox.conformance.check import Check, checks_of, equal, holds

__all__ = ["checks"]

_OCTAL = "".join(f"\\{byte:03o}" for byte in EVERY)


async def arguments_are_exact(bench: Bench) -> None:
    """Arguments without a shell arrive byte by byte."""
    given = ("", "a b", "c'd\"e", "$HOME `id` $(id)", "f\\g", "*", "h\ni", "üß€😀", "-n", "--")
    result = await bench.session.exec("printf", "%s|", *given, shell=False)
    equal(result.stdout.decode(), "".join(f"{part}|" for part in given), "what printf was given")


async def a_shell_by_default(bench: Bench) -> None:
    """One string is run by a shell."""
    equal((await bench.exec("echo a b | tr ab xy; X=1; echo $((X+1))")).stdout, b"x y\n2\n", "the output")


async def several_arguments_for_the_shell(bench: Bench) -> None:
    """Several arguments for the shell are quoted, not joined."""
    result = await bench.session.exec("printf", "%s\n", "a  b; echo c", "$HOME")
    equal(result.stdout, b"a  b; echo c\n$HOME\n", "the output")


async def another_shell(bench: Bench) -> None:
    """A list as the shell is used as it stands."""
    result = await bench.session.exec("false; echo not reached", shell=["sh", "-ec"])  # noqa: S604  # in the sandbox
    equal((result.stdout, result.exit_code), (b"", 1), "output and exit code under sh -ec")


async def standard_input_is_empty(bench: Bench) -> None:
    """A command that reads its input meets the end at once."""
    equal((await bench.exec("cat; echo end", timeout_s=30 * bench.backend.patience)).stdout, b"end\n", "the output")


async def two_streams(bench: Bench) -> None:
    """Standard output and standard error are kept apart."""
    result = await bench.exec("printf out; printf err >&2")
    equal((result.stdout, result.stderr), (b"out", b"err"), "the two streams")


async def every_byte_of_output(bench: Bench) -> None:
    """Every byte of standard output is exact."""
    equal((await bench.exec(f"printf '{_OCTAL}'")).stdout, EVERY, "standard output")


async def every_byte_of_error(bench: Bench) -> None:
    """Every byte of standard error is exact."""
    result = await bench.exec(f"printf '{_OCTAL}' >&2")
    equal((result.stdout, result.stderr), (b"", EVERY), "the two streams")


async def no_output(bench: Bench) -> None:
    """A silent command has no output and exit code 0."""
    result = await bench.session.exec("true", shell=False)
    equal((result.stdout, result.stderr, result.exit_code), (b"", b"", 0), "output, error and exit code of true")


async def exit_codes(bench: Bench) -> None:
    """Exit codes up to 255 come back as they are."""
    codes = (1, 42, 255)
    results = [(await bench.exec(f"exit {code}")).exit_code for code in codes]
    equal(tuple(results), codes, "the exit codes")


async def exit_code_without_a_shell(bench: Bench) -> None:
    """The exit code of a program that is run without a shell is its own."""
    equal((await bench.session.exec("sh", "-c", "exit 7", shell=False)).exit_code, 7, "the exit code")


async def a_missing_program_in_a_shell(bench: Bench) -> None:
    """A shell that finds no program ends with 127."""
    result = await bench.exec("/nonexistent/program")
    equal(result.exit_code, 127, "the exit code")
    holds(result.stderr, "the shell's message is missing")


async def a_missing_program(bench: Bench) -> None:
    """A program that does not exist gives exit code 127, a result and not an error."""
    equal((await bench.session.exec("/nonexistent/program", shell=False)).exit_code, 127, "the exit code")


async def a_file_that_is_no_program(bench: Bench) -> None:
    """A file without permission to run gives exit code 126, a result and not an error."""
    equal((await bench.session.exec("/etc/passwd", shell=False)).exit_code, 126, "the exit code")


async def killed_by_a_signal(bench: Bench) -> None:
    """A command that a signal ends has exit code 128 plus its number."""
    codes = [(await bench.exec(f"kill -{number} $$; sleep 5")).exit_code for number in (9, 15)]
    equal(codes, [137, 143], "the exit codes after SIGKILL and SIGTERM")


async def starts_in_the_workspace(bench: Bench) -> None:
    """Commands start in the workspace, with a shell and without."""
    root = (await bench.exec(f"cd {bench.root} && pwd -P")).stdout
    equal((await bench.exec("pwd -P")).stdout, root, "the working directory of a shell")
    equal((await bench.session.exec("sh", "-c", "pwd -P", shell=False)).stdout, root, "that of a program")


async def nothing_is_carried_over(bench: Bench) -> None:
    """Directory and variables of one command do not reach the next."""
    root = (await bench.exec("pwd")).stdout
    await bench.exec("cd /; CARRIED=yes; export CARRIED")
    equal((await bench.exec('pwd; echo "$CARRIED"')).stdout, root + b"\n", "what the second command sees")


async def environment_of_the_manifest(bench: Bench) -> None:
    """The manifest's environment is there, with a shell and without, exact."""
    script = " ".join(f'"${name}"' for name in ENVIRONMENT)
    wanted = "".join(f"{value}|" for value in ENVIRONMENT.values()).encode()
    equal((await bench.exec(f"printf '%s|' {script}")).stdout, wanted, "the values in a shell")
    result = await bench.session.exec("sh", "-c", f"printf '%s|' {script}", shell=False)
    equal(result.stdout, wanted, "the values in a program")


async def environment_of_the_host(bench: Bench) -> None:
    """Variables of the process that drives the sandbox do not reach commands."""
    equal((await bench.exec(f'printf %s "${bench.host_variable}"')).stdout, b"", "a variable of the host")


async def many_at_once(bench: Bench) -> None:
    """Commands that run at once keep their outputs and exit codes apart."""
    results = await asyncio.gather(*(bench.exec(f"echo {n}; echo {n} >&2; exit {n}") for n in range(6)))
    wanted = [(f"{n}\n".encode(), f"{n}\n".encode(), n) for n in range(6)]
    equal([(each.stdout, each.stderr, each.exit_code) for each in results], wanted, "the results")


async def they_really_run_at_once(bench: Bench) -> None:
    """One command can wait for what another one does."""
    gate = bench.path("gate")
    wait = f"n=0; until [ -e {gate} ]; do n=$((n+1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done; echo met"
    waiting = asyncio.create_task(bench.exec(wait))
    try:
        await bench.ok(f"touch {gate}")
        equal((await waiting).stdout, b"met\n", "the output of the command that waited")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def a_child_in_the_background(bench: Bench) -> None:
    """A background child that keeps the streams open does not hold the call."""
    marker = bench.marker()
    try:
        result = await bench.exec(f"echo before; sleep {marker} & echo after", timeout_s=5 * bench.backend.patience)
        equal((result.stdout, result.exit_code), (b"before\nafter\n", 0), "output and exit code")
    finally:
        await bench.kill(marker)


async def much_output(bench: Bench) -> None:
    """Two megabytes of output arrive whole."""
    result = await bench.exec("head -c 2097152 /dev/zero | tr '\\0' x; printf done >&2")
    equal(len(result.stdout), 2_097_152, "the number of bytes")
    holds(result.stdout.strip(b"x") == b"", "some bytes of the output are others")
    equal(result.stderr, b"done", "standard error")


async def much_on_both_streams(bench: Bench) -> None:
    """Much on both streams in turn neither blocks nor mixes."""
    line = "0123456789abcdef" * 4
    script = f"i=0; while [ $i -lt 2000 ]; do echo {line}; echo {line} >&2; i=$((i+1)); done"
    result = await bench.exec(script)
    wanted = hashlib.sha256(f"{line}\n".encode() * 2000).hexdigest()
    digests = [hashlib.sha256(data).hexdigest() for data in (result.stdout, result.stderr)]
    equal(digests, [wanted, wanted], "the digests of the two streams")


async def wide_characters_are_not_split(bench: Bench) -> None:
    """Multi-byte characters are whole wherever the output is cut into pieces."""
    script = "i=0; printf x; while [ $i -lt 3000 ]; do printf 'ä€😀'; i=$((i+1)); done"
    equal((await bench.exec(script)).stdout, ("x" + "ä€😀" * 3000).encode(), "the output")


async def a_long_argument(bench: Bench) -> None:
    """An argument of 100 000 bytes arrives whole."""
    result = await bench.session.exec("sh", "-c", 'printf %s "${#1}"', "sh", "x" * 100_000, shell=False)
    equal(result.stdout, b"100000", "its length")


async def a_zero_byte_in_an_argument(bench: Bench) -> None:
    """An argument with a zero byte is refused, not cut short."""
    try:
        result = await bench.session.exec("printf", "%s", "before\0after", shell=False)
    except (ExecTransportError, ValueError):
        return
    # A guard refuses a command by exit code 126, because an error would end the run of the agent.
    equal((result.exit_code, result.stdout), (126, b""), "exit code and output")


async def usable_after_a_failure(bench: Bench) -> None:
    """After commands that failed the session is as before."""
    await bench.exec("exit 3")
    await bench.exec("kill -9 $$")
    equal((await bench.exec("echo fine")).stdout, b"fine\n", "the output")


def checks() -> tuple[Check, ...]:
    """Return the checks of this area."""
    return checks_of(
        "exec",
        arguments_are_exact,
        a_shell_by_default,
        several_arguments_for_the_shell,
        another_shell,
        standard_input_is_empty,
        two_streams,
        every_byte_of_output,
        every_byte_of_error,
        no_output,
        exit_codes,
        exit_code_without_a_shell,
        a_missing_program_in_a_shell,
        a_missing_program,
        a_file_that_is_no_program,
        killed_by_a_signal,
        starts_in_the_workspace,
        nothing_is_carried_over,
        environment_of_the_manifest,
        environment_of_the_host,
        many_at_once,
        they_really_run_at_once,
        a_child_in_the_background,
        much_output,
        much_on_both_streams,
        wide_characters_are_not_split,
        a_long_argument,
        a_zero_byte_in_an_argument,
        usable_after_a_failure,
    )
