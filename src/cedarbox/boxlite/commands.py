"""Commands of a session in its guest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO

from agents.sandbox.errors import ExecTimeoutError, ExecTransportError
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.types import ExecResult, User

from cedarbox.boxlite import api
from cedarbox.boxlite.guestio import GuestFailure, GuestOutput, GuestRunner
from cedarbox.boxlite.machine import Machine
from cedarbox.boxlite.options import check_environment_key
from cedarbox.boxlite.state import BoxLiteSandboxSessionState

__all__ = ["CommandSession", "user_name"]


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
            raise ExecTransportError(
                command=argv, cause=error, message=f"the command could not be run: {error}", context={"user": user}
            ) from error
        return ExecResult(stdout=output.stdout, stderr=output.stderr, exit_code=output.exit_code)

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
        if self._runner is None:
            raise GuestFailure("the sandbox is not started")
        if any("\0" in part for part in argv):
            raise GuestFailure("an argument contains NUL")
        if user is not None and (not user or "\0" in user):
            raise GuestFailure(f"the user {user!r} cannot be used")
        if env is None:
            env = await self._environment()
        if cwd is None:
            cwd = self.state.manifest.root if self._has_workspace() else "/"
        return await self._runner.run(argv, env=env, cwd=cwd, user=user, timeout_s=timeout_s, stdin=stdin, sink=sink)

    def _has_workspace(self) -> bool:
        return bool(self.state.workspace_root_ready)

    async def _environment(self) -> tuple[tuple[str, str], ...]:
        resolved = await self.state.manifest.environment.resolve()
        for key in resolved:
            check_environment_key(key, where="manifest environment")
        return tuple(resolved.items())

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
