"""The life of one microVM: found again or made, booted in time, stopped, removed without a trace."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

from cedarbox.boxlite import api
from cedarbox.boxlite.host import check_kvm
from cedarbox.boxlite.images import LayoutVerifier
from cedarbox.boxlite.network import network_spec
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import CedarboxError, HostError, ImageError

__all__ = ["Machine"]

# Stays, gives its children back to the kernel when they end, and leaves at once when it is told to: the image's own
# command may end by itself, and a PID 1 without a handler ignores SIGTERM.
_MAIN = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done")
_SETTLE_SECONDS = 60.0
_NO_BOOT_HINT = (
    "either this host is overloaded, or its KVM cannot boot a BoxLite guest, as where virtualisation is nested; "
    "make demo tells which"
)
_STOP_SECONDS = 60.0
_REMOVE_SECONDS = 60.0


class Machine:
    """The microVM of one session.

    Args:
        runtime: The BoxLite runtime.
        state: The session's state; ``box_id`` and ``image_digest`` are kept up to date in it.
        verifier: Checks local layouts.
        box: The microVM, when it was found again.
    """

    def __init__(
        self,
        runtime: api.Runtime,
        state: BoxLiteSandboxSessionState,
        verifier: LayoutVerifier,
        box: api.Box | None = None,
    ) -> None:
        self._runtime, self._state, self._verifier, self._box = runtime, state, verifier, box
        self._found = box is not None
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

    async def running(self) -> bool:
        """Return whether it runs, from BoxLite's own records. No answer means no."""
        if self._box is None:
            return False
        try:
            return (await self._box.info()).state.running
        except api.BoxliteError:
            return False

    async def published_ports(self) -> list[api.PublishedPort]:
        """Return the ports that are bound on the host; empty when BoxLite does not say."""
        try:
            return (await self.box.info()).network.published_ports or []
        except api.BoxliteError:
            return []

    async def up(self) -> api.Box:
        """Boot it within ``boot_timeout_s``; make it first when there is none.

        When that fails or is cancelled, this returns only after the half-made microVM is gone: within three minutes.

        Returns:
            A handle on the running microVM.

        Raises:
            HostError: No microVM can be started here, or it took too long.
            ImageError: The image cannot be used. The microVM is not booted then.
        """
        check_kvm()
        await self._verify_image()
        self._box = await reattached(self._runtime, self._state)
        seconds = self._state.boot_timeout_s
        name = f"cedarbox-{secrets.token_hex(16)}"
        making = self._box is None
        booting = asyncio.ensure_future(self._booted(self._box, name))
        try:
            async with asyncio.timeout(seconds):
                self._box = await asyncio.shield(booting)
        except BaseException as error:
            self._box = None
            await finish(self._unmade(booting, name if making else ""))
            raise _boot_error(error, seconds) from error
        if making:
            self.made_here = True
            self._state.box_id = self._box.id
            self._state.workspace_root_ready = False
        return self._box

    async def _booted(self, box: api.Box | None, name: str) -> api.Box:
        # On a loaded host one boot in some dozens fails inside BoxLite, which gives a guest 30 s to be ready, and the
        # next one works (seen on BoxLite 0.10.8 in the emulated machine). Both tries share one time limit.
        if box is not None:
            try:
                await box.start()
            except api.EngineError:
                found = await reattached(self._runtime, self._state)
                if found is None:
                    raise
                box = found
                await box.start()
            return box
        box = await self._runtime.create(self._options(), name)
        try:
            await box.start()
        except api.EngineError:
            await remove_by_name(self._runtime, name)
            box = await self._runtime.create(self._options(), name)
            await box.start()
        return box

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
            async with asyncio.timeout(_STOP_SECONDS):
                await booting.result().stop()

    async def down(self) -> None:
        """Stop it; its disk stays. Nothing happens when it does not run."""
        box, self._box = self._box, None
        if box is None:
            return
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await box.stop()
        except (api.StoppedError, api.MissingError):
            return
        except TimeoutError:
            raise HostError(f"the microVM {box.id} did not stop within {_STOP_SECONDS:.0f} s") from None

    async def remove(self) -> None:
        """Stop it and remove its disk. Nothing happens when it is gone."""
        self._box = None
        self.made_here = False
        box_id = self._state.box_id
        if not box_id:
            return
        try:
            async with asyncio.timeout(_REMOVE_SECONDS):
                await self._runtime.remove(box_id, force=True)
        except api.MissingError:
            pass
        except TimeoutError:
            raise HostError(f"the microVM {box_id} was not removed within {_REMOVE_SECONDS:.0f} s") from None
        self._state.box_id = ""
        self._state.workspace_root_ready = False

    async def _verify_image(self) -> None:
        if self._state.rootfs is None:
            return
        image = await asyncio.to_thread(self._verifier.verify, Path(self._state.rootfs))
        if self._state.image_digest not in (None, image.digest):
            raise ImageError(
                f"{image.path} holds {image.digest} now, and the session was made from {self._state.image_digest}",
                hint="put the old layout back, or start a new session",
            )
        self._state.image_digest = image.digest

    def _options(self) -> object:
        state = self._state
        return api.box_options(
            image=state.image,
            rootfs=None if state.rootfs is None else str(Path(state.rootfs).expanduser().resolve()),
            cpus=state.cpus,
            memory_mib=state.memory_mib,
            disk_size_gb=state.disk_size_gb,
            network=network_spec(state.egress_allowlist),
            ports=state.exposed_ports,
            entrypoint=_MAIN,
        )


async def reattached(runtime: api.Runtime, state: BoxLiteSandboxSessionState) -> api.Box | None:
    """Find the microVM of a state again, running or stopped.

    BoxLite finds by prefix and an empty id matches all (measured on BoxLite 0.10.8), so the id is compared; and a
    microVM whose processors, memory or network are not those of the state is not taken.

    Args:
        runtime: The BoxLite runtime.
        state: The session's state.

    Returns:
        A handle on it, or ``None``.
    """
    if not state.box_id:
        return None
    try:
        box = await runtime.get(state.box_id)
        if box is None or box.id != state.box_id:
            return None
        info = await box.info()
    except api.BoxliteError:
        return None
    outbound = info.network.outbound
    has = (info.cpus, info.memory_mib, outbound and outbound.mode, tuple(outbound.allow_net) if outbound else None)
    egress = state.egress_allowlist
    wants = (state.cpus, state.memory_mib, "enabled" if egress else "disabled", egress)
    return box if has == wants else None


async def remove_by_name(runtime: api.Runtime, name: str) -> None:
    """Remove the microVM of exactly this name, when there is one."""
    async with asyncio.timeout(_REMOVE_SECONDS):
        for info in await runtime.list_info():
            if info.name == name:
                await runtime.remove(info.id, force=True)


def _boot_error(error: BaseException, seconds: float) -> BaseException:
    if isinstance(error, CedarboxError):
        return error
    if isinstance(error, TimeoutError):
        return HostError(
            f"the microVM did not start within {seconds:g} s",
            hint="raise boot_timeout_s; a first start also pulls or unpacks the image",
        )
    if isinstance(error, api.ImagePullError):
        return ImageError(f"BoxLite cannot get the image: {error}", hint="check the reference and the registry")
    if isinstance(error, api.BoxliteError):
        said = " ".join(str(error).split()).rstrip(".")
        return HostError(f"BoxLite could not start the microVM ({said})", hint=_NO_BOOT_HINT)
    return error
