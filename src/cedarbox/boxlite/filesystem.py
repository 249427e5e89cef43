"""Files of a session in its guest."""

from __future__ import annotations

import asyncio
import io
import os
import uuid
from pathlib import Path
from typing import IO, cast

from agents.sandbox.errors import WorkspaceArchiveReadError, WorkspaceArchiveWriteError, WorkspaceReadNotFoundError
from agents.sandbox.session.runtime_helpers import RESOLVE_WORKSPACE_PATH_HELPER, RuntimeHelperScript
from agents.sandbox.session.workspace_payloads import coerce_write_payload
from agents.sandbox.types import ExecResult, User

from cedarbox.boxlite import api, archive, files
from cedarbox.boxlite.commands import CommandSession, user_name
from cedarbox.boxlite.failures import Operation, archive_failure
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.waiting import finish

__all__ = ["FileSession"]

_CLEANING_SECONDS = 30.0


class FileSession(CommandSession):
    """The part of a session that reads and writes files. Every path is checked in the guest first."""

    def _runtime_helpers(self) -> tuple[RuntimeHelperScript, ...]:
        return (RESOLVE_WORKSPACE_PATH_HELPER,)

    def _current_runtime_helper_cache_key(self) -> object | None:
        # A boot empties the guest's /tmp, where the SDK keeps its helpers.
        return self._runner

    async def _validate_path_access(self, path: Path | str, *, for_write: bool = False) -> Path:
        return await self._validate_remote_path_access(path, for_write=for_write)

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
        name = user_name(user)
        try:
            # Over REST BoxLite's copy holds the whole file in memory and does not tell a mount from a failure.
            by_copy = name is None and not self._machine.remote
            result, content = await self._fetched(target, name, files.COPY_ABOVE if by_copy else 0)
            if result.exit_code == files.TOO_LARGE:
                with content:
                    real = content.read().decode("utf-8", "surrogateescape").removesuffix("\n")
                try:
                    return cast("io.IOBase", await files.copied_out(self._machine.box, real))
                except (api.CopyUnsupportedError, api.MissingError):
                    result, content = await self._fetched(target, name, 0)
        except (GuestFailure, api.BoxliteError, OSError) as error:
            raise archive_failure(Operation.READ, error, path) from error
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
        await self._put(path, target, data, user=user_name(user), new=False)

    async def _write_new_file(self, path: Path, data: io.IOBase, *, user: str | User | None = None) -> None:
        target = str(await self._validate_path_access(path, for_write=True))
        await self._put(path, target, data, user=user_name(user), new=True)

    async def _written(self, target: str, size: int, content: IO[bytes], *, user: str | None, new: bool) -> ExecResult:
        arguments = (target, str(size), "1" if new else "0", uuid.uuid4().hex)
        try:
            if size <= files.PART_BYTES:
                return await self._tool(files.WRITE, *arguments, user=user, stdin=content)
            script = files.WRITE_FIRST
            while (result := await self._tool(script, *arguments, user=user, stdin=_part(content))).ok():
                script = files.WRITE_NEXT
                if content.tell() >= size:
                    return await self._tool(files.WRITE_LAST, *arguments, user=user)
        except BaseException:
            await finish(self._undone(arguments, user))
            raise
        await finish(self._undone(arguments, user))
        return result

    async def _undone(self, arguments: tuple[str, ...], user: str | None) -> None:
        if self._runner is not None:
            script = ("/bin/sh", "-c", files.WRITE_UNDONE, "sh", *arguments)
            await self._runner.run(script, cwd="/", user=user, timeout_s=_CLEANING_SECONDS)

    async def _unpacked(self, script: str, content: IO[bytes], *arguments: str) -> ExecResult:
        """Run a script of ours, as root, that gets the name of an archive first and then the arguments."""
        if os.fstat(content.fileno()).st_size <= files.PART_BYTES:
            return await self._tool(script, "-", *arguments, stdin=content)
        packed = f"{archive.SCRATCH}/{uuid.uuid4().hex}.tar"
        size = os.fstat(content.fileno()).st_size
        try:
            while (result := await self._tool(files.APPEND, packed, stdin=_part(content))).ok():
                if content.tell() >= size:
                    return await self._tool(script, packed, *arguments)
            return result
        finally:
            await finish(self._scratch_removed(packed))

    async def _scratch_removed(self, packed: str) -> None:
        if self._runner is not None:
            await self._runner.run(("rm", "-f", "--", packed), cwd="/", timeout_s=_CLEANING_SECONDS)

    async def _put(self, path: Path, target: str, data: io.IOBase, *, user: str | None, new: bool) -> None:
        payload = coerce_write_payload(path=path, data=data)
        size, content = await asyncio.to_thread(files.measured, cast("IO[bytes]", payload.stream))
        with content:
            try:
                result = await self._written(target, size, content, user=user, new=new)
            except (GuestFailure, api.BoxliteError) as error:
                raise archive_failure(Operation.WRITE, error, path) from error
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


def _part(content: IO[bytes]) -> IO[bytes]:
    return files.part_of(content, files.PART_BYTES)
