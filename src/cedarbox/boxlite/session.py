"""A sandbox session in a BoxLite microVM. This layer runs things; it decides nothing and records nothing."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from agents.sandbox.errors import (
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceStartError,
)
from agents.sandbox.types import ExposedPortEndpoint
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, strip_tar_member_prefix

from cedarbox.boxlite import api, archive, files
from cedarbox.boxlite.filesystem import FileSession
from cedarbox.boxlite.guestio import GuestFailure, GuestRunner
from cedarbox.boxlite.waiting import finish

__all__ = ["BoxLiteSandboxSession"]


class BoxLiteSandboxSession(FileSession):
    """One session in one microVM.

    Made by :class:`~cedarbox.boxlite.client.BoxLiteSandboxClient`; not started.

    Args:
        state: The state of the session.
        machine: Finds or makes the microVM.
    """

    # The SDK names the backend in its spans after the last part of the module.
    __module__ = "cedarbox.boxlite"

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


def _relative_members(raw: IO[bytes], root: Path) -> io.IOBase:
    strip: Callable[..., io.IOBase] = strip_tar_member_prefix
    return strip(raw, prefix=root.name, relativize_symlinks_under=root)
