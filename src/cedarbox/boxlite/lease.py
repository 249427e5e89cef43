"""A runtime that can be given up although others still hold it.

BoxLite 0.10.8 keeps the lock of a home until every handle on its runtime and on its boxes is gone; shutting the runtime
down does not release it (measured). Sessions keep handles, and their users keep sessions, so a closed client would hold
its home for as long as somebody remembers what ran in it. What cedarbox hands on are therefore leases, which let go of
the real handles when the client is closed.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any
from weakref import WeakSet

from cedarbox.boxlite import api
from cedarbox.errors import HostError

__all__ = ["LeasedBox", "LeasedRuntime"]

_CLOSED = "the client of this sandbox was closed"
_HINT = "make a new client, and resume the session's state with it"


class LeasedBox:
    """A handle on a box.

    Args:
        box: BoxLite's own handle.
        runtime: The runtime it is from.
    """

    def __init__(self, box: api.Box, runtime: LeasedRuntime) -> None:
        self.id = box.id
        self._box: api.Box | None = box
        self._runtime = runtime

    def __repr__(self) -> str:
        return f"LeasedBox({self.id!r})"

    def let_go(self) -> None:
        """Drop BoxLite's handle. Nothing can be done with the box any more."""
        self._box = None

    @property
    def _held(self) -> api.Box:
        if self._box is None:
            raise HostError(_CLOSED, hint=_HINT)
        return self._box

    def start(self) -> Awaitable[None]:
        """Boot it."""
        return self._held.start()

    def stop(self) -> Awaitable[None]:
        """Stop it."""
        return self._held.stop()

    def info(self) -> Awaitable[api.BoxInfo]:
        """Return what BoxLite knows about it, without asking the guest."""
        return self._held.info()

    def exec(
        self,
        command: str,
        args: list[str] | None = None,
        env: list[tuple[str, str]] | None = None,
        **how: Any,
    ) -> Awaitable[api.Execution]:
        """Start a process in it. The other arguments are those of :class:`~cedarbox.boxlite.api.Box`."""
        return self._held.exec(command, args, env, **how)

    async def clone_box(self, *, name: str | None = None) -> api.Box:
        """Make another box with a copy-on-write copy of its disk and its settings. It must be stopped."""
        return self._runtime.leased(await self._held.clone_box(name=name))

    def copy_out(self, container_src: str, host_dest: str, /) -> Awaitable[None]:
        """Copy a file of the guest to the host."""
        return self._held.copy_out(container_src, host_dest)


class LeasedRuntime:
    """A runtime, and every handle on a box that was had from it.

    Args:
        runtime: BoxLite's own runtime.
    """

    def __init__(self, runtime: api.Runtime) -> None:
        self._runtime: api.Runtime | None = runtime
        self._boxes: WeakSet[LeasedBox] = WeakSet()

    @property
    def _held(self) -> api.Runtime:
        if self._runtime is None:
            raise HostError(_CLOSED, hint=_HINT)
        return self._runtime

    @property
    def images(self) -> api.Images:
        """The cache of pulled images of the home."""
        return self._held.images

    def leased(self, box: api.Box) -> LeasedBox:
        """Return a handle that is let go with this runtime.

        Args:
            box: BoxLite's own handle.
        """
        lease = LeasedBox(box, self)
        self._boxes.add(lease)
        return lease

    async def create(self, options: object, name: str | None = None) -> api.Box:
        """Create a box without booting it."""
        return self.leased(await self._held.create(options, name))

    async def get(self, id_or_name: str) -> api.Box | None:
        """Return a box by id or name; matches by prefix."""
        box = await self._held.get(id_or_name)
        return None if box is None else self.leased(box)

    def list_info(self) -> Awaitable[list[api.BoxInfo]]:
        """Return what BoxLite knows about all boxes."""
        return self._held.list_info()

    def remove(self, id_or_name: str, force: bool = False) -> Awaitable[None]:
        """Remove a box and its disks."""
        return self._held.remove(id_or_name, force)

    async def shutdown(self, timeout: int | None = None) -> None:  # noqa: ASYNC109 - BoxLite's signature
        """Stop all boxes and release the home, whatever happens. Nothing can be done with any handle any more."""
        runtime = self._held
        try:
            await runtime.shutdown(timeout)
        finally:
            self._runtime = None
            for box in tuple(self._boxes):
                box.let_go()
