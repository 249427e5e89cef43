"""Commands of a session in its guest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from agents.sandbox.errors import ExecTimeoutError, ExecTransportError, PtySessionNotFoundError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import ExecResult, User

from cedarbox.boxlite import api
from cedarbox.boxlite.environment import resolved_environment
from cedarbox.boxlite.failures import exec_failure, meaning
from cedarbox.boxlite.guestio import GuestOutput, GuestRunner
from cedarbox.boxlite.machine import Machine
from cedarbox.boxlite.marked import GuestFailure, GuestRefusal
from cedarbox.boxlite.relays import GuestRelay, Misbehaved, Serve, proxy_environment
from cedarbox.boxlite.remote import NO_USER
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.terminals import Terminals
from cedarbox.errors import HostError

__all__ = ["CommandSession", "user_name"]

_GONE = "the sandbox's guest is gone: {}; start or resume the session"
_KILLED = 137  # 128 + SIGKILL


class CommandSession(BaseSandboxSession):
    """The part of a session that runs commands.

    Args:
        state: The state of the session.
        machine: Finds or makes the microVM.
    """

    state: BoxLiteSandboxSessionState

    def __init__(self, state: BoxLiteSandboxSessionState, machine: Machine) -> None:
        self.state = state
        self._machine = machine
        self._runner: GuestRunner | None = None
        self._processes: Terminals | None = None
        # Carries the connections of the guest; who guards the session sets it. Nobody else does: nothing leaves then.
        self.serve: Serve | None = None
        self.misbehaved: Misbehaved | None = None
        self._relay: GuestRelay | None = None
        self._relaying = asyncio.Lock()

    async def exec(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109 - the SDK's signature
        shell: bool | list[str] = True,
        user: str | User | None = None,
    ) -> ExecResult:
        """Run a command in the guest.

        Args:
            command: The command; one string when ``shell`` is set.
            timeout: Seconds; ``None`` is for ever.
            shell: ``True`` for ``sh -lc``, a list for another shell, ``False`` for none.
            user: Who runs it, name or number; ``None`` is root. BoxLite switches the user, no ``sudo`` is needed.

        Returns:
            Exact output and exit code; 128 + n for signal n.

        Raises:
            ExecTimeoutError: It took too long; it was killed with all its descendants.
            ExecTransportError: It could not be run.
        """
        argv = self._prepare_exec_command(*command, shell=shell, user=None)
        return await self._exec_as(argv, timeout_s=timeout, user=user_name(user))

    async def _exec_internal(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109 - the SDK's signature
    ) -> ExecResult:
        return await self._exec_as([str(part) for part in command], timeout_s=timeout, user=None)

    async def _exec_as(self, argv: list[str], *, timeout_s: float | None, user: str | None) -> ExecResult:
        try:
            output = await self._run(argv, timeout_s=timeout_s, user=user)
        except TimeoutError as error:
            raise ExecTimeoutError(command=argv, timeout_s=timeout_s, cause=error) from error
        except (GuestFailure, api.BoxliteError) as error:
            raise exec_failure(error, argv, handed_over=not isinstance(error, GuestRefusal), user=user) from error
        return ExecResult(stdout=output.stdout, stderr=output.stderr, exit_code=output.exit_code)

    # Processes that outlive the call

    def supports_pty(self) -> bool:
        """Terminals are real."""
        return True

    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,  # noqa: ASYNC109 - the SDK's signature
        shell: bool | list[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a command that may outlive this call, on a terminal of its own when ``tty``.

        Args:
            command: The command; one string when ``shell`` is set.
            timeout: Seconds that the start may take; ``None`` is for ever.
            shell: ``True`` for ``sh -lc``, a list for another shell, ``False`` for none.
            user: Who runs it, name or number; ``None`` is root.
            tty: Give it a terminal of 24 rows and 80 columns. Without one it reads nothing.
            yield_time_s: Seconds to wait for its end; 10 by default, 0.25 to 30.
            max_output_tokens: Tokens of output that are returned; ``None`` is all.

        Returns:
            What it wrote; its exit code when it ended, else the number by which it is typed into and polled.

        Raises:
            ExecTimeoutError: It did not start in time.
            ExecTransportError: It could not be started, or how it ended is unknown.
        """
        argv, name = self._prepare_exec_command(*command, shell=shell, user=None), user_name(user)
        try:
            self._check_command(argv, name)
            processes = await self._held_processes()
            return await processes.start(
                argv,
                env=await self._environment(),
                cwd=self._directory(),
                user=name,
                tty=tty,
                timeout_s=timeout,
                yield_time_s=yield_time_s,
                max_output_tokens=max_output_tokens,
            )
        except TimeoutError as error:
            raise ExecTimeoutError(command=argv, timeout_s=timeout, cause=error) from error
        except (GuestFailure, api.BoxliteError) as error:
            handed_over = isinstance(error, api.BoxliteError) and not meaning(error).not_started
            raise exec_failure(await self._named(error), argv, handed_over=handed_over, user=name) from error
        except ExecTransportError as error:
            raise await self._named_end(error) from error

    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type into a process, or poll it when ``chars`` is empty.

        Args:
            session_id: The number of the process.
            chars: What is typed; control characters act as on a keyboard, U+0003 is Ctrl-C.
            yield_time_s: Seconds to wait for its end; 0.25 by default, at most 30; a poll waits at least 5.
            max_output_tokens: Tokens of output that are returned; ``None`` is all.

        Returns:
            What it wrote since the last call; its exit code when it ended, else its number.

        Raises:
            PtySessionNotFoundError: There is no such process.
            RuntimeError: It has no terminal to type into.
            ExecTransportError: How it ended is unknown.
        """
        if self._processes is None:
            raise PtySessionNotFoundError(session_id=session_id)
        try:
            return await self._processes.write(
                session_id, chars, yield_time_s=yield_time_s, max_output_tokens=max_output_tokens
            )
        except ExecTransportError as error:
            raise await self._named_end(error) from error

    async def pty_resize(self, session_id: int, *, rows: int, cols: int) -> None:
        """Set the size of a terminal. The SDK has no such call; a front end for people needs it.

        Raises:
            PtySessionNotFoundError: There is no such process.
            RuntimeError: It has no terminal.
            ValueError: A number is not within 1 to 65535.
        """
        if self._processes is None:
            raise PtySessionNotFoundError(session_id=session_id)
        await self._processes.resize(session_id, rows, cols)

    async def end_process(self, process_id: int) -> None:
        """Kill one of the processes that callers hold by number, with its descendants; none is no error."""
        if self._processes is not None:
            await self._processes.terminate(process_id)

    async def pty_terminate_all(self) -> None:
        """Kill all processes that outlived their call, with their descendants."""
        processes, self._processes = self._processes, None
        if processes is not None:
            await processes.terminate_all()

    async def _held_processes(self) -> Terminals:
        runner = await self._running_runner()
        # Those of a former boot ended with it.
        if self._processes is None or not self._processes.of(runner):
            self._processes = Terminals(runner)
        return self._processes

    async def _named(self, error: Exception) -> Exception:
        death = await self._machine.death()
        return error if death is None else GuestFailure(_GONE.format(death))

    async def _named_end(self, error: ExecTransportError) -> ExecTransportError:
        death = await self._machine.death()
        if death is None:
            return error
        return ExecTransportError(command=error.command, message=_GONE.format(death), cause=error)

    async def _run(
        self,
        argv: Sequence[str],
        *,
        env: tuple[tuple[str, str], ...] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout_s: float | None = None,
        stdin: IO[bytes] | None = None,
        sink: IO[bytes] | None = None,
    ) -> GuestOutput:
        runner = await self._running_runner()
        self._check_command(argv, user)
        if env is None:
            env = await self._environment()
        if cwd is None:
            cwd = self._directory()
        try:
            output = await runner.run(argv, env=env, cwd=cwd, user=user, timeout_s=timeout_s, stdin=stdin, sink=sink)
        except (GuestFailure, api.BoxliteError) as error:
            raise await self._named(error) from error
        # All commands of a guest whose main process is killed look killed themselves.
        if output.exit_code == _KILLED and (death := await self._machine.death()) is not None:
            raise GuestFailure(_GONE.format(death))
        return output

    async def _running_runner(self) -> GuestRunner:
        if self._runner is None:
            raise GuestRefusal("the sandbox is not started")
        return self._runner

    def _check_command(self, argv: Sequence[str], user: str | None) -> None:
        if any("\0" in part for part in argv):
            raise GuestRefusal("an argument contains NUL")
        if user is not None and (not user or "\0" in user):
            raise GuestRefusal(f"the user {user!r} cannot be used")
        if user is not None and self._machine.remote:
            raise GuestRefusal(NO_USER)

    def _directory(self) -> str:
        return self.state.manifest.root if self.state.workspace_root_ready else "/"

    async def _environment(self) -> tuple[tuple[str, str], ...]:
        given = await resolved_environment(self.state.manifest.environment)
        if not self._brokered():
            return given
        # Whoever is root in the guest can keep the relay from starting, and has no connections then.
        with suppress(HostError):
            await self._relayed()
        return (*proxy_environment(), *given)

    def _brokered(self) -> bool:
        brokers = self.state.egress_mode == "broker" and self.state.egress_allowlist != ()
        return brokers and self.serve is not None and not self._machine.remote

    async def _relayed(self) -> None:
        """See to it that the guest has a relay.

        Raises:
            HostError: It does not start.
        """
        async with self._relaying:
            runner = await self._running_runner()
            if self.serve is not None and (self._relay is None or not self._relay.of(runner)):
                self._relay = GuestRelay(runner, self.serve, self.misbehaved)
                await self._relay.start()

    async def _tool(
        self,
        script: str,
        *arguments: str,
        user: str | None = None,
        stdin: IO[bytes] | None = None,
        sink: IO[bytes] | None = None,
    ) -> ExecResult:
        """Run one of our own scripts: without the manifest's environment, from ``/``."""
        output = await self._run(
            ("/bin/sh", "-c", script, "sh", *arguments), env=(), cwd="/", user=user, stdin=stdin, sink=sink
        )
        return ExecResult(stdout=output.stdout, stderr=output.stderr, exit_code=output.exit_code)


def user_name(user: str | User | None) -> str | None:
    """Return the name or number of a user as BoxLite takes it; ``None`` is root."""
    return user.name if isinstance(user, User) else user
