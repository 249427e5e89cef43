"""A sandbox session in a BoxLite microVM. This layer runs things; it decides nothing and records nothing."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceReadNotFoundError,
    WorkspaceStartError,
)
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.session.runtime_helpers import RESOLVE_WORKSPACE_PATH_HELPER, RuntimeHelperScript
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import ExecResult, ExposedPortEndpoint, User
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, strip_tar_member_prefix

from cedarbox.boxlite import api, archive, files
from cedarbox.boxlite.guestio import GuestFailure, GuestOutput, GuestRunner
from cedarbox.boxlite.machine import Machine
from cedarbox.boxlite.options import check_environment_key
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish

__all__ = ["BoxLiteSandboxSession"]


class BoxLiteSandboxSession(BaseSandboxSession):
    """One session in one microVM.

    Made by :class:`~cedarbox.boxlite.client.BoxLiteSandboxClient`; not started.

    Args:
        state: The state of the session.
        machine: Finds or makes the microVM.
    """

    # The SDK names the backend in its spans after the last part of the module.
    __module__ = "cedarbox.boxlite"

    state: BoxLiteSandboxSessionState

    def __init__(self, state: BoxLiteSandboxSessionState, machine: Machine) -> None:
        self.state = state
        self._machine = machine
        self._runner: GuestRunner | None = None

    # Lifecycle

    async def start(self) -> None:
        """Boot the microVM and prepare the workspace.

        When this fails or is cancelled, a microVM that it made is removed again with its disk.

        Raises:
            HostError: KVM or BoxLite cannot start a microVM.
            ImageError: The image cannot be used.
        """
        try:
            await super().start()
        except BaseException:
            await finish(self._undo_start())
            raise
        # From here on its disk is the session's, whatever a later start meets.
        self._machine.made_here = False

    async def _undo_start(self) -> None:
        await self._release()
        if self._machine.made_here:
            await self._machine.remove()

    async def _ensure_backend_started(self) -> None:
        if self._runner is not None and await self._machine.running():
            return
        await self._release()
        box = await self._machine.up()
        self._runner = GuestRunner(box)

    async def _prepare_backend_workspace(self) -> None:
        root = self.state.manifest.root
        try:
            result = await self._run(("mkdir", "-p", "--", root), cwd="/", env=())
        except (GuestFailure, api.BoxliteError) as error:
            raise WorkspaceStartError(path=Path(root), cause=error) from error
        if result.exit_code != 0:
            raise WorkspaceStartError(path=Path(root), context={"stderr": result.stderr.decode("utf-8", "replace")})

    async def _shutdown_backend(self) -> None:
        await self._release()
        await self._machine.down()

    async def _release(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.close()

    async def remove(self) -> None:
        """Stop the microVM and remove it with its disk. Nothing happens when it is gone already."""
        await self._release()
        await self._machine.remove()

    async def running(self) -> bool:
        """Return whether the microVM runs. Asks BoxLite, not the guest."""
        return self._runner is not None and await self._machine.running()

    # Commands

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
        return await self._exec_as(argv, timeout_s=timeout, user=_user_name(user))

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

    # Paths

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object | None:
        return self.state.box_id

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        return await self._validate_remote_path_access(path, for_write=for_write)

    # Files

    async def read(self, path: Path, *, user: str | User | None = None) -> io.IOBase:
        """Read a file of the guest.

        Args:
            path: A path in the workspace, absolute or relative to its root.
            user: Who reads it; ``None`` is root.

        Returns:
            A file of the host that deletes itself, at its start.

        Raises:
            WorkspaceReadNotFoundError: It does not exist.
            WorkspaceArchiveReadError: It cannot be read.
            InvalidManifestPathError: The path leaves the workspace.
        """
        target = str(await self._validate_path_access(path))
        name = _user_name(user)
        try:
            result, content = await self._fetched(target, name, files.COPY_ABOVE if name is None else 0)
            if result.exit_code == files.TOO_LARGE:
                with content:
                    real = content.read().decode("utf-8", "surrogateescape").removesuffix("\n")
                try:
                    return cast("io.IOBase", await files.copied_out(self._machine.box, real))
                except (api.CopyUnsupportedError, api.MissingError):
                    result, content = await self._fetched(target, name, 0)
        except (GuestFailure, api.BoxliteError, OSError) as error:
            raise WorkspaceArchiveReadError(path=path, cause=error) from error
        if result.ok():
            return cast("io.IOBase", content)
        content.close()
        if result.exit_code == files.NOT_A_FILE:
            raise WorkspaceArchiveReadError(path=path, context={"reason": "not_a_regular_file"})
        return await self._raise_read_error_from_exec(
            path=path, workspace_path=Path(target), command=("cat", "--", target), result=result, user=user
        )

    async def _fetched(self, target: str, user: str | None, copy_above: int) -> tuple[ExecResult, IO[bytes]]:
        # An empty spool on failure tells nothing; the exit code does.
        _, content = files.measured(io.BytesIO())
        try:
            result = await self._tool(files.READ, target, str(copy_above), user=user, sink=content)
        except BaseException:
            content.close()
            raise
        content.seek(0)
        return result, content

    async def _read_bounded(self, path: Path, *, max_bytes: int) -> bytes:
        target = str(await self._validate_path_access(path))
        result = await self._tool(
            '[ -e "$1" ] || exit 44; [ -f "$1" ] || exit 45; exec head -c "$2" -- "$1"', target, str(max_bytes)
        )
        if result.exit_code == 44:
            raise WorkspaceReadNotFoundError(path=path)
        if not result.ok():
            raise WorkspaceArchiveReadError(path=path)
        return result.stdout

    async def write(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        """Write a file of the guest: beside it first, then renamed. Mode and owner of an existing file are kept.

        Args:
            path: A path in the workspace, absolute or relative to its root. Missing parents are made.
            data: The content, from where the stream stands.
            user: Who writes it; ``None`` is root.

        Raises:
            WorkspaceArchiveWriteError: It cannot be written.
            InvalidManifestPathError: The path leaves the workspace.
        """
        target = str(await self._validate_path_access(path, for_write=True))
        await self._put(path, target, data, user=_user_name(user), new=False)

    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        target = str(await self._validate_path_access(path, for_write=True))
        await self._put(path, target, data, user=_user_name(user), new=True)

    async def _put(self, path: Path, target: str, data: io.IOBase, *, user: str | None, new: bool) -> None:
        payload = coerce_write_payload(path=path, data=data)
        size, content = await asyncio.to_thread(files.measured, cast("IO[bytes]", payload.stream))
        with content:
            try:
                result = await self._tool(files.WRITE, target, str(size), "1" if new else "0", user=user, stdin=content)
            except (GuestFailure, api.BoxliteError) as error:
                raise WorkspaceArchiveWriteError(path=path, cause=error) from error
        if result.exit_code == files.EXISTS:
            raise FileExistsError(f"file exists: {path}")
        if not result.ok():
            reasons = {files.NOT_A_FILE: "not_a_regular_file", files.SHORT: "content_was_cut_short"}
            raise WorkspaceArchiveWriteError(
                path=path,
                context={
                    "reason": reasons.get(result.exit_code, "write_failed"),
                    "exit_code": result.exit_code,
                    "stderr": result.stderr.decode("utf-8", "replace")[:2000],
                },
            )

    # Workspace archives

    async def persist_workspace(self) -> io.IOBase:
        """Pack the workspace.

        Returns:
            A tar archive in a file of the host that deletes itself. Pipes and devices are left out, hard links are
            files of their own, and paths that the manifest or the SDK marked as not durable are skipped.

        Raises:
            WorkspaceArchiveReadError: It cannot be packed.
        """
        root = self._workspace_root_path()
        packed = f"{archive.SCRATCH}/{self.state.session_id.hex}.tar"
        options = archive.excludes(root.name, self._persist_workspace_skip_relpaths())
        try:
            result = await self._tool(archive.PACK, packed, str(root), *options)
            if not result.ok():
                stderr = result.stderr.decode("utf-8", "replace")[:2000]
                raise WorkspaceArchiveReadError(
                    path=root, context={"reason": "tar_failed", "exit_code": result.exit_code, "stderr": stderr}
                )
            raw = await files.copied_out(self._machine.box, packed)
            return await asyncio.to_thread(_relative_members, raw, root)
        except UnsafeTarMemberError as error:
            context: dict[str, object] = {"reason": error.reason, "member": error.member}
            raise WorkspaceArchiveReadError(path=root, context=context, cause=error) from error
        except (GuestFailure, api.BoxliteError, tarfile.TarError, OSError) as error:
            raise WorkspaceArchiveReadError(path=root, cause=error) from error
        finally:
            await finish(self._scratch_removed(packed))

    async def _scratch_removed(self, packed: str) -> None:
        if self._runner is not None:
            await self._runner.run(("rm", "-f", "--", packed), cwd="/", timeout_s=30.0)

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Unpack an archive into the workspace, after every member of it was checked on the host.

        Args:
            data: A tar archive as :meth:`persist_workspace` makes it.

        Raises:
            WorkspaceArchiveWriteError: A member is refused, or it cannot be unpacked.
        """
        root = self._workspace_root_path()
        try:
            content = await asyncio.to_thread(archive.spooled_archive, cast("IO[bytes]", data))
        except UnsafeTarMemberError as error:
            context: dict[str, object] = {"reason": error.reason, "member": error.member}
            raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
        except (tarfile.TarError, OSError, TypeError) as error:
            raise WorkspaceArchiveWriteError(path=root, cause=error) from error
        with content:
            try:
                result = await self._tool(archive.UNPACK, str(root), stdin=content)
            except (GuestFailure, api.BoxliteError) as error:
                raise WorkspaceArchiveWriteError(path=root, cause=error) from error
        if not result.ok():
            stderr = result.stderr.decode("utf-8", "replace")[:2000]
            raise WorkspaceArchiveWriteError(path=root, context={"exit_code": result.exit_code, "stderr": stderr})

    # Ports

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        published = await self._machine.published_ports()
        for entry in published:
            if entry.guest_port == port and entry.host_ip == "127.0.0.1":
                return ExposedPortEndpoint(host="127.0.0.1", port=entry.host_port)
        raise ExposedPortUnavailableError(
            port=port, exposed_ports=self.state.exposed_ports, reason="not_published_on_loopback"
        )


def _user_name(user: str | User | None) -> str | None:
    return user.name if isinstance(user, User) else user


def _relative_members(raw: IO[bytes], root: Path) -> io.IOBase:
    strip: Callable[..., io.IOBase] = strip_tar_member_prefix
    return strip(raw, prefix=root.name, relativize_symlinks_under=root)
