"""A sandbox session in a BoxLite microVM. This layer runs things; it decides nothing and records nothing."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Literal, cast

from agents.sandbox.errors import (
    ExposedPortUnavailableError,
    WorkspaceArchiveReadError,
    WorkspaceArchiveWriteError,
    WorkspaceStartError,
)
from agents.sandbox.types import ExposedPortEndpoint
from agents.sandbox.util.tar_utils import UnsafeTarMemberError, strip_tar_member_prefix

from cedarbox.boxlite import api, archive, files
from cedarbox.boxlite.copies import CopyingSession
from cedarbox.boxlite.failures import Operation, archive_failure, lifecycle_failure, port_failure
from cedarbox.boxlite.guestio import GuestRunner
from cedarbox.boxlite.machine import Machine
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.network import card
from cedarbox.boxlite.remote import check_network
from cedarbox.boxlite.snapshots import SnapshotInfo, SnapshotReference
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import CedarboxError, SnapshotError

__all__ = ["BoxLiteSandboxSession"]


class BoxLiteSandboxSession(CopyingSession):
    """One session in one microVM.

    Made by :class:`~cedarbox.boxlite.client.BoxLiteSandboxClient`; not started.

    Args:
        state: The state of the session.
        machine: Finds or makes the microVM.
    """

    # The SDK names the backend in its spans after the last part of the module.
    __module__ = "cedarbox.boxlite"

    def __init__(self, state: BoxLiteSandboxSessionState, machine: Machine) -> None:
        super().__init__(state, machine)
        # Booting and freezing exclude each other; a command that arrives while the microVM is frozen waits for both.
        self._transition = asyncio.Lock()
        self._frozen = False
        self._held: SnapshotInfo | None = None
        self.snapshot_taken: SnapshotInfo | None = None
        self.snapshot_restored: SnapshotInfo | None = None

    # Lifecycle

    async def start(self) -> None:
        """Boot the microVM and prepare the workspace.

        When this fails or is cancelled, a microVM that it made is removed again with its disk.

        Raises:
            HostError: KVM or BoxLite cannot start a microVM, or the guest cannot run the relay of its connections.
            ImageError: The image cannot be used.
            SnapshotError: The snapshot that the session resumes from cannot be used.
        """
        self.snapshot_restored = None
        try:
            await super().start()
            if self._brokered():
                await self._relayed()
        except BaseException:
            await finish(self._undo_start())
            raise
        # From here on its disk is the session's, whatever a later start meets.
        self._machine.made_here = False

    async def _undo_start(self) -> None:
        await self._release()
        await (self._machine.remove() if self._machine.made_here else self._machine.down())

    async def _ensure_backend_started(self) -> None:
        if self._runner is not None and await self._machine.running():
            return
        # One boot: what would be restored into a new microVM is what it boots from.
        self.snapshot_restored = await self._origin()
        await self._boot(self.snapshot_restored)

    async def _boot(self, origin: SnapshotInfo | None) -> None:
        async with self._transition:
            await self._release()
            self._runner = GuestRunner(await self._machine.up(origin))
            self._frozen, self._held = False, None
        if self._machine.remote:
            await check_network(self._runner, card(self.state.egress_mode, self.state.egress_allowlist))

    async def _running_runner(self) -> GuestRunner:
        if self._runner is None and self._frozen:
            async with self._transition:
                if self._runner is None and self._frozen:
                    try:
                        self._runner = GuestRunner(await self._machine.up())
                    except CedarboxError as error:
                        raise GuestFailure(str(error)) from error
                    self._frozen, self._held = False, None
        return await super()._running_runner()

    async def _prepare_backend_workspace(self) -> None:
        root = self.state.manifest.root
        try:
            result = await self._run(("mkdir", "-p", "--", root), cwd="/", env=())
        except (GuestFailure, api.BoxliteError) as error:
            raise lifecycle_failure(Operation.START, error, Path(root)) from error
        if result.exit_code != 0:
            raise WorkspaceStartError(path=Path(root), context={"stderr": result.stderr.decode("utf-8", "replace")})
        await self._bring_in()

    async def _shutdown_backend(self) -> None:
        self._frozen, self._held = False, None
        await self._release()
        try:
            await self._machine.down()
        except api.BoxliteError as error:
            raise lifecycle_failure(Operation.STOP, error, Path(self.state.manifest.root)) from error

    async def end_now(self) -> None:
        """End the microVM at once, as when it may not run any more. What the guest had not written to its disk is lost.

        Raises:
            HostError: It could not be ended.
        """
        self._frozen, self._held = False, None
        try:
            await self._machine.kill()
        except api.BoxliteError as error:
            raise lifecycle_failure(Operation.STOP, error, Path(self.state.manifest.root)) from error
        finally:
            await self._release()

    async def _release(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.close()

    async def remove(self) -> None:
        """Stop the microVM and remove it with its disk. Nothing happens when it is gone already.

        Native snapshots of it stay.
        """
        self._frozen, self._held = False, None
        await self._release()
        try:
            await self._machine.remove()
        except api.BoxliteError as error:
            raise lifecycle_failure(Operation.STOP, error, Path(self.state.manifest.root)) from error

    async def running(self) -> bool:
        """Return whether the microVM runs. Asks BoxLite, not the guest."""
        return self._runner is not None and await self._machine.running()

    # Snapshots and archives

    async def _origin(self) -> SnapshotInfo | None:
        """Return the native snapshot that the session resumes from, if any."""
        snapshots, saved = self._machine.snapshots, self.state.snapshot
        if snapshots is None or not await saved.restorable(dependencies=self.dependencies):
            return None
        with await saved.restore(dependencies=self.dependencies) as stream:
            reference = SnapshotReference.decoded(cast("IO[bytes]", stream).read(SnapshotReference.MAX_BYTES))
        return None if reference is None else snapshots.store.load(reference)

    def _native(self) -> bool:
        """Whether the workspace is saved as a native snapshot; raises when it should be and cannot."""
        wanted = self.state.workspace_persistence
        obstacle = ""
        if self._machine.snapshots is None:
            obstacle = "the BoxLite home is not this client's own"
        elif self._native_snapshot_requires_tar_fallback() or self._persist_workspace_skip_relpaths():
            obstacle = "the workspace has parts that must not be saved"
        if obstacle and wanted == "native":
            raise SnapshotError(f"no native snapshot is possible: {obstacle}", hint="set workspace_persistence to auto")
        return wanted != "tar" and not obstacle

    async def _persist_snapshot(self) -> None:
        self.snapshot_taken, before = None, self._held
        try:
            await super()._persist_snapshot()
        except BaseException:
            if (held := self._held) is not None and held is not before:
                # Nobody could keep the reference, so nobody could ever restore or remove it.
                self._held = self.snapshot_taken = None
                await finish(self._machine.take_back(held))
            raise

    def _should_compute_snapshot_fingerprint_on_persist(self) -> bool:
        return not self._native()

    async def _can_reuse_restorable_snapshot_workspace(self) -> bool:
        return self.snapshot_restored is not None or await super()._can_reuse_restorable_snapshot_workspace()

    def should_provision_manifest_accounts_on_resume(self) -> bool:
        """Whether resuming makes the manifest's accounts again: not when they are on the disk it resumed from."""
        return self.snapshot_restored is None and super().should_provision_manifest_accounts_on_resume()

    def snapshot_facts(self, when: Literal["taken", "restored"]) -> Mapping[str, str | int] | None:
        """Return what a record should tell of the native snapshot that the last stop took or the last start restored.

        Args:
            when: Which of the two.

        Returns:
            Facts by name; ``None`` when there was none.
        """
        info = self.snapshot_taken if when == "taken" else self.snapshot_restored
        return None if info is None else info.facts()

    async def persist_workspace(self) -> io.IOBase:
        """Save the workspace: natively if that is possible and wanted, else as an archive.

        A native snapshot is of the whole disk, and is taken of the stopped microVM; commands that run then are ended.
        The next command boots the microVM again.

        Returns:
            The reference to a native snapshot; or a tar archive in a file of the host that deletes itself. Pipes and
            devices are left out of an archive, hard links are files of their own, and paths that the manifest or the
            SDK marked as not durable are skipped.

        Raises:
            WorkspaceArchiveReadError: It cannot be saved. Nothing of the workspace is lost.
        """
        root = self._workspace_root_path()
        try:
            if self._native():
                return io.BytesIO((await self._snapshot()).reference.encoded())
        except (CedarboxError, api.BoxliteError, TimeoutError) as error:
            raise WorkspaceArchiveReadError(path=root, context={"reason": str(error)}, cause=error) from error
        return await self._packed()

    async def _snapshot(self) -> SnapshotInfo:
        async with self._transition:
            if self._held is not None:
                return self._held
            await self.pty_terminate_all()
            # From here on the next command boots it again, whenever this is cancelled.
            self._frozen = True
            await self._release()
            self._held = self.snapshot_taken = await self._machine.freeze()
            return self._held

    async def _packed(self) -> io.IOBase:
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
            raw = await self._carried(packed)
            return await asyncio.to_thread(_relative_members, raw, root)
        except UnsafeTarMemberError as error:
            context: dict[str, object] = {"reason": error.reason, "member": error.member}
            raise WorkspaceArchiveReadError(path=root, context=context, cause=error) from error
        except (GuestFailure, api.BoxliteError, tarfile.TarError, OSError) as error:
            raise archive_failure(Operation.PERSIST, error, root) from error
        finally:
            await finish(self._scratch_removed(packed))

    async def _carried(self, packed: str) -> IO[bytes]:
        if not self._machine.remote:
            return await files.copied_out(self._machine.box, packed)
        # Over REST BoxLite's copy holds the whole file in memory.
        result, raw = await self._fetched(packed, None, 0)
        if not result.ok():
            raw.close()
            raise GuestFailure("the archive could not be read")
        return raw

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Restore what :meth:`persist_workspace` saved.

        A native snapshot replaces the whole disk. An archive is unpacked into the workspace, after every member of it
        was checked on the host.

        Args:
            data: What :meth:`persist_workspace` returned.

        Raises:
            WorkspaceArchiveWriteError: The snapshot does not hold what was saved, a member of the archive is refused,
                or it cannot be unpacked.
        """
        root = self._workspace_root_path()
        stream = cast("IO[bytes]", data)
        try:
            head = await asyncio.to_thread(stream.read, SnapshotReference.MAX_BYTES)
            if (reference := SnapshotReference.decoded(head)) is not None:
                await self._restore(reference)
                return
            content = await asyncio.to_thread(archive.spooled_archive, head, stream)
        except CedarboxError as error:
            raise WorkspaceArchiveWriteError(path=root, context={"reason": str(error)}, cause=error) from error
        except UnsafeTarMemberError as error:
            context: dict[str, object] = {"reason": error.reason, "member": error.member}
            raise WorkspaceArchiveWriteError(path=root, context=context, cause=error) from error
        except (tarfile.TarError, OSError, TypeError) as error:
            raise WorkspaceArchiveWriteError(path=root, cause=error) from error
        with content:
            try:
                result = await self._unpacked(archive.UNPACK, content, str(root))
            except (GuestFailure, api.BoxliteError) as error:
                raise archive_failure(Operation.HYDRATE, error, root) from error
        if not result.ok():
            stderr = result.stderr.decode("utf-8", "replace")[:2000]
            raise WorkspaceArchiveWriteError(path=root, context={"exit_code": result.exit_code, "stderr": stderr})

    async def _restore(self, reference: SnapshotReference) -> None:
        """Go on from a native snapshot instead of what is there."""
        if self._machine.snapshots is None:
            raise SnapshotError(
                "a native snapshot needs a BoxLite home of this client's own", hint="give the client home="
            )
        info = self._machine.snapshots.store.load(reference)
        await self._machine.down()
        await self._boot(info)
        # What it holds was a whole workspace when it was saved, and is the session's now, whatever a later start meets.
        self.state.workspace_root_ready = True
        self._machine.made_here = False
        self.snapshot_restored = info

    # Ports

    async def _resolve_exposed_port(self, port: int) -> ExposedPortEndpoint:
        try:
            published = await self._machine.published_ports()
        except api.BoxliteError as error:
            raise port_failure(error, port, self.state.exposed_ports) from error
        for entry in published:
            if entry.guest_port == port and entry.host_ip == "127.0.0.1":
                return ExposedPortEndpoint(host="127.0.0.1", port=entry.host_port)
        raise ExposedPortUnavailableError(
            port=port, exposed_ports=self.state.exposed_ports, reason="not_published_on_loopback"
        )


def _relative_members(raw: IO[bytes], root: Path) -> io.IOBase:
    strip: Callable[..., io.IOBase] = strip_tar_member_prefix
    return strip(raw, prefix=root.name, relativize_symlinks_under=root)
