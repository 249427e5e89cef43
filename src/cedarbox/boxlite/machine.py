"""The life of one microVM: found again or made, booted in time, stopped, removed without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from secrets import token_hex

from cedarbox.boxlite import api
from cedarbox.boxlite.ending import REMOVE_SECONDS, STOP_SECONDS, remove, remove_by_name, stop
from cedarbox.boxlite.failures import said
from cedarbox.boxlite.finding import INFO_SECONDS, network_mark, reattached
from cedarbox.boxlite.holders import Snapshots
from cedarbox.boxlite.host import check_kvm
from cedarbox.boxlite.image_supply import ImageSupply
from cedarbox.boxlite.images import VerifiedImage
from cedarbox.boxlite.isolation import Process, boot, kill_jail
from cedarbox.boxlite.mounts import mark, recheck
from cedarbox.boxlite.network import card, network_spec
from cedarbox.boxlite.secrets import looked_up, secrets_mark
from cedarbox.boxlite.snapshots import SnapshotInfo
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import CedarboxError, HostError, ImageError, SnapshotError

__all__ = ["Machine"]

# Stays, gives its children back to the kernel when they end, and leaves at once when it is told to: the image's own
# command may end by itself, and a PID 1 without a handler ignores SIGTERM.
_MAIN = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")
_SETTLE_SECONDS = 60.0
_NO_BOOT_HINT = (
    "either this host is overloaded, or its KVM cannot boot a BoxLite guest, as where virtualisation is nested; "
    "make demo tells which"
)
_NO_SERVER_HINT = "check the server's address, its credential and the image"
_ANSWER_SECONDS = 10.0
_NOTICE_SECONDS = 10.0
_LOOK_SECONDS = 0.2
_KILLED = 137  # 128 + SIGKILL


class Machine:
    """The microVM of one session.

    Args:
        runtime: The BoxLite runtime.
        state: The session's state; ``box_id`` and ``image_digest`` are kept up to date in it.
        images: Finds and verifies the image; ``None`` for a remote runtime, whose server finds it.
        snapshots: The native snapshots of the BoxLite home; ``None`` where there can be none.
        box: The microVM, when it was found again.
    """

    def __init__(
        self,
        runtime: api.Runtime,
        state: BoxLiteSandboxSessionState,
        images: ImageSupply | None,
        snapshots: Snapshots | None = None,
        box: api.Box | None = None,
    ) -> None:
        self._runtime, self._state, self._images, self._box = runtime, state, images, box
        self._image: VerifiedImage | None = None
        # The process of the microVM, where it was booted by this object.
        self._process: Process | None = None
        self.snapshots = snapshots
        self.made_here = False

    @property
    def box(self) -> api.Box:
        """The handle of the microVM.

        Raises:
            HostError: There is none.
        """
        if self._box is None:
            raise HostError("the sandbox has no microVM", hint="start the session first")
        return self._box

    @property
    def remote(self) -> bool:
        """Whether it runs on somebody's server."""
        return self._images is None

    async def running(self) -> bool:
        """Return whether it runs, from BoxLite's own records. No answer means no."""
        if self._box is None:
            return False
        try:
            async with asyncio.timeout(INFO_SECONDS):
                return (await self._box.info()).state.running
        except (api.BoxliteError, TimeoutError):
            return False

    async def death(self) -> str | None:
        """Tell how the microVM ended, after something in it went wrong.

        BoxLite says *running* for up to some seconds after the guest has died (measured on BoxLite 0.10.8), so a guest
        that takes no command is watched until BoxLite has noticed.

        Returns:
            How it ended, in a few words; ``None`` when it runs commands, or when there is no microVM.
        """
        box = self._box
        if box is None or await _answers(box):
            return None
        # What a server says is not waited for, and a server that refuses commands says nothing about the guest.
        for _ in range(1 if self.remote else round(_NOTICE_SECONDS / _LOOK_SECONDS)):
            try:
                async with asyncio.timeout(INFO_SECONDS):
                    state = (await box.info()).state
            except (api.BoxliteError, TimeoutError):
                break
            if not state.running:
                code = state.exit_code
                if code is None:
                    return "its process on the host ended"
                oom = ", as when memory runs out" if code == _KILLED else ""
                return f"its main process {'was killed' if code == _KILLED else 'ended'} (exit code {code}){oom}"
            await asyncio.sleep(_LOOK_SECONDS)
        return None if self.remote else "it takes no commands any more"

    async def published_ports(self) -> list[api.PublishedPort]:
        """Return the ports that are bound on the host; empty when BoxLite does not say.

        Raises:
            BoxliteError: BoxLite failed.
        """
        network = (await self.box.info()).network
        return (network.published_ports or []) if network is not None else []

    async def up(self, origin: SnapshotInfo | None = None) -> api.Box:
        """Boot it within ``boot_timeout_s``; make it first when there is none.

        When that fails or is cancelled, this returns only after the half-made microVM is gone: within three minutes.

        Args:
            origin: The snapshot that it has to start from. A microVM that holds anything else is replaced.

        Returns:
            A handle on the running microVM.

        Raises:
            HostError: No microVM can be started here, or it took too long.
            ImageError: The image cannot be used. The microVM is not booted then.
            SnapshotError: The snapshot cannot be used. The microVM is not booted then.
        """
        if self._images is None:
            return await self._up(origin)
        check_kvm()
        self._image = await self._images.ready(self._state)
        async with self._images.booting(self._image):
            return await self._up(origin)

    async def _up(self, origin: SnapshotInfo | None) -> api.Box:
        try:
            self._box = await self._found()
        except (api.BoxliteError, TimeoutError) as error:
            raise _boot_error(error, INFO_SECONDS, remote=self.remote) from error
        if origin is not None:
            await self._only(origin)
        seconds = self._state.boot_timeout_s
        name = self._new_name()
        making = self._box is None
        recheck(self._state.mounts)
        booting = asyncio.ensure_future(self._booted(self._box, name, origin))
        try:
            async with asyncio.timeout(seconds):
                self._box = await asyncio.shield(booting)
        except BaseException as error:
            self._box = None
            await finish(self._unmade(booting, name if making else ""))
            raise _boot_error(error, seconds, remote=self.remote) from error
        if making:
            self.made_here = True
            self._state.box_id = self._box.id
            self._state.snapshot_parent = origin.id if origin is not None else ""
            self._state.workspace_root_ready = False
        return self._box

    async def _found(self) -> api.Box | None:
        store = None if self.snapshots is None else self.snapshots.store
        return await reattached(self._runtime, self._state, store, remote=self.remote)

    async def _only(self, origin: SnapshotInfo) -> None:
        """Give up the microVM that was found unless it is a clone of a snapshot in which nothing ran since."""
        if self._box is None or self.snapshots is None:
            return
        stopped = not await self.running()
        if not stopped or not await self.snapshots.holds(origin, self._box.id):
            await self.remove()

    async def freeze(self) -> SnapshotInfo:
        """Make a native snapshot. The microVM is stopped then, and the next :meth:`up` boots a clone of the snapshot.

        Returns:
            The snapshot.

        Raises:
            SnapshotError: It cannot be taken; what the microVM held is still the session's.
            HostError: The microVM does not run, so what it holds may be incomplete.
            BoxliteError: BoxLite failed; what the microVM held is still the session's.
        """
        if self.snapshots is None:
            raise HostError("this sandbox cannot have native snapshots", hint="set workspace_persistence to tar")
        box = self.box
        if not await self.running():
            raise HostError("the microVM does not run, so a snapshot of it would not be whole", hint="resume it first")
        self._box = None
        info, clone = await self.snapshots.take(box, self._state, self._new_name())
        self._state.box_id = clone.id
        self._state.snapshot_parent = info.id
        return info

    async def take_back(self, info: SnapshotInfo) -> None:
        """Undo :meth:`freeze`, when nobody could keep the reference.

        Args:
            info: What it returned.

        Raises:
            BoxliteError: BoxLite failed. The snapshot stays then.
        """
        if self.snapshots is not None:
            await self.snapshots.take_back(info, self._state.box_id)
            self._state.box_id = info.box_id
            self._state.snapshot_parent = info.parent

    def _new_name(self) -> str:
        local = mark(self._state.mounts) + secrets_mark(self._state.secrets)
        mark_of = network_mark(self._state) if self.remote else local
        return f"cedarbox-{token_hex(16)}{mark_of}"

    async def _made(self, name: str, origin: SnapshotInfo | None) -> api.Box:
        if origin is None:
            # With the broker, it is the broker that has the values.
            nic = self._state.egress_mode == "nic"
            return await self._runtime.create(self._options(await looked_up(self._state.secrets if nic else ())), name)
        if self.snapshots is None:
            raise SnapshotError("this sandbox cannot start from a native snapshot", hint="use the client that took it")
        return await self.snapshots.start_from(origin, self._state, name)

    async def _booted(self, box: api.Box | None, name: str, origin: SnapshotInfo | None) -> api.Box:
        # On a loaded host one boot in some dozens fails inside BoxLite, which gives a guest 30 s to be ready, and the
        # next one works (seen on BoxLite 0.10.8 in the emulated machine). Both tries share one time limit.
        if box is not None:
            try:
                await self._start(box)
            except api.EngineError:
                found = await self._found()
                if found is None:
                    raise
                box = found
                await self._start(box)
            return box
        box = await self._made(name, origin)
        try:
            await self._start(box)
        except api.EngineError:
            await remove_by_name(self._runtime, name)
            box = await self._made(name, origin)
            await self._start(box)
        return box

    async def _start(self, box: api.Box) -> None:
        if self.remote:
            await box.start()
        else:
            has_card = bool(card(self._state.egress_mode, self._state.egress_allowlist))
            self._process = await boot(box, network_card=has_card, mounts=self._state.mounts)

    async def _unmade(self, booting: asyncio.Future[api.Box], name: str) -> None:
        """Clean up after a boot that failed or was given up.

        The boot is left to settle first: after a start that was cancelled early, a removal left the box's directory
        behind (seen on BoxLite 0.10.8).
        """
        await asyncio.wait((booting,), timeout=_SETTLE_SECONDS)
        if not booting.done():
            booting.cancel()
            await asyncio.wait((booting,), timeout=_SETTLE_SECONDS)
        if name:
            await remove_by_name(self._runtime, name)
        elif booting.done() and not booting.cancelled() and booting.exception() is None:
            await stop(booting.result())

    async def down(self) -> None:
        """Stop it; its disk stays. Nothing happens when it does not run."""
        box, self._box, self._process = self._box, None, None
        if box is None:
            return
        try:
            await stop(box)
        except (api.StoppedError, api.MissingError):
            return
        except TimeoutError:
            raise HostError(f"the microVM {box.id} did not stop within {STOP_SECONDS:.0f} s") from None

    async def kill(self) -> None:
        """End it at once, without a word to the guest; its disk stays as it is. Nothing happens when it does not run.

        Raises:
            HostError: It could not be killed, and did not stop either.
        """
        box = self._box
        if box is not None and not self.remote:
            try:
                process = self._process
                if process is None:
                    async with asyncio.timeout(INFO_SECONDS):
                        pid = (await box.info()).state.pid
                    process = None if pid is None else Process.of(pid)
                if process is not None:
                    await asyncio.to_thread(kill_jail, process)
            except (api.BoxliteError, HostError, TimeoutError):
                # It may have ended meanwhile. If it has not, it is stopped now.
                pass
        await self.down()

    async def remove(self) -> None:
        """Stop it and remove its disk. Nothing happens when it is gone."""
        self._box = self._process = None
        self.made_here = False
        box_id = self._state.box_id
        if not box_id:
            return
        try:
            await remove(self._runtime, box_id, force=True)
        except TimeoutError:
            raise HostError(f"the microVM {box_id} was not removed within {REMOVE_SECONDS:.0f} s") from None
        self._state.box_id = ""
        self._state.workspace_root_ready = False

    def _options(self, secrets: Sequence[object]) -> object:
        state = self._state
        return api.box_options(
            image=None if self._image is not None else state.image,
            rootfs=None if self._image is None else str(self._image.path),
            cpus=state.cpus,
            memory_mib=state.memory_mib,
            disk_size_gb=state.disk_size_gb,
            network=network_spec(state.egress_mode, state.egress_allowlist),
            ports=state.exposed_ports,
            entrypoint=_MAIN,
            volumes=[(mount.real, mount.guest) for mount in state.mounts if mount.read_only],
            secrets=secrets,
            remote=self.remote,
        )


async def _answers(box: api.Box) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            execution = await box.exec("/bin/sh", ["-c", ":"])
            return (await execution.wait()).exit_code == 0
    except (api.BoxliteError, TimeoutError):
        return False


def _boot_error(error: BaseException, seconds: float, *, remote: bool) -> BaseException:
    if isinstance(error, CedarboxError):
        return error
    if isinstance(error, TimeoutError):
        return HostError(
            f"the microVM did not start within {seconds:g} s",
            hint="raise boot_timeout_s; a first start also pulls or unpacks the image",
        )
    if isinstance(error, api.ImagePullError):
        return ImageError(f"BoxLite cannot get the image: {said(error)}", hint="check the reference and the registry")
    if isinstance(error, api.BoxliteError):
        return HostError(
            f"BoxLite could not start the microVM ({said(error)})", hint=_NO_SERVER_HINT if remote else _NO_BOOT_HINT
        )
    return error
