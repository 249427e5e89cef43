"""Taking snapshots, starting boxes from them, and removing them: what :mod:`snapshots` knows, done with BoxLite."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

from cedarbox.boxlite import api
from cedarbox.boxlite.disks import disk_of
from cedarbox.boxlite.ending import REMOVE_SECONDS, remove, remove_by_name, stop
from cedarbox.boxlite.finding import exactly
from cedarbox.boxlite.mounts import mark
from cedarbox.boxlite.network import card
from cedarbox.boxlite.overlays import put_on_content, shorten
from cedarbox.boxlite.snapshots import SnapshotInfo, SnapshotStore, new_snapshot_id
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish, settled
from cedarbox.errors import SnapshotError

__all__ = ["Pruned", "Snapshots", "inherited_settings"]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a pruning did.

    Attributes:
        removed: Snapshots that are gone.
        in_use: Snapshots that had to stay, because a sandbox or another snapshot was started from them.
    """

    removed: tuple[SnapshotInfo, ...]
    in_use: tuple[SnapshotInfo, ...]


def inherited_settings(state: BoxLiteSandboxSessionState) -> dict[str, str]:
    """Return the settings that a clone takes over from its source. A sandbox with others is not started from it.

    Args:
        state: The state of a session.

    Returns:
        JSON text by name.
    """
    values: dict[str, object] = {
        "cpus": state.cpus,
        "disk_size_gb": state.disk_size_gb,
        "egress_allowlist": list(card(state.egress_mode, state.egress_allowlist)),
        "memory_mib": state.memory_mib,
        "mounts": mark(state.mounts),
        "ports": sorted(state.exposed_ports),
    }
    return {name: json.dumps(value) for name, value in values.items()}


@dataclass(slots=True)
class Snapshots:
    """The snapshots of one BoxLite home, with the runtime that owns it.

    Args:
        runtime: The BoxLite runtime.
        store: What is known of the snapshots.
    """

    runtime: api.Runtime
    store: SnapshotStore
    # A clone moves the disk of its source, and nobody may read the chain meanwhile.
    _cloning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self, box: api.Box, state: BoxLiteSandboxSessionState, name: str) -> tuple[SnapshotInfo, api.Box]:
        """Make a snapshot of a running box. The box becomes the holder; the session goes on in a clone of it.

        Nothing that the guest writes after the stop can be in the snapshot, because the holder never runs again.

        Args:
            box: A handle on the running box.
            state: The state of its session; not changed here.
            name: The name of the clone.

        Returns:
            The snapshot, and the clone, which is not started.

        Raises:
            SnapshotError: It cannot be taken. The box is stopped then, and still the session's.
            BoxliteError: BoxLite failed; the same holds.
        """
        # 1. Stop: this flushes the guest's disk.
        await stop(box)
        # 2. Digest what it holds.
        known = SnapshotInfo(
            id=new_snapshot_id(),
            parent=state.snapshot_parent,
            box_id=box.id,
            session=str(state.session_id),
            created_ns=time.time_ns(),
            image_digest=state.image_digest or "",
            policy_bundle=state.policy_bundle,
            settings=inherited_settings(state),
            size_bytes=0,
            layers=(),
            capacity_bytes=0,
        )
        async with self._cloning:
            info = await asyncio.to_thread(self.store.described, known)
            try:
                # 3. Write it down. From here on the box may not boot, see `SnapshotStore.holders`.
                await settled(asyncio.to_thread(self.store.save, info))
                # 4. Clone it for the session.
                return info, await self._cloned(info, name)
            except BaseException:
                self.store.forget(info.id)
                raise

    async def take_back(self, info: SnapshotInfo, clone_id: str) -> None:
        """Undo :meth:`take`: remove the clone and the description, so that the box is the session's again.

        Raises:
            BoxliteError: The clone cannot be removed. The snapshot stays then.
        """
        await remove(self.runtime, clone_id, force=True)
        self.store.forget(info.id)

    async def start_from(self, info: SnapshotInfo, state: BoxLiteSandboxSessionState, name: str) -> api.Box:
        """Make a box that starts where a snapshot was taken.

        Args:
            info: The snapshot.
            state: The state of the session that the box is for.
            name: Its name.

        Returns:
            A handle on the box, which is not started.

        Raises:
            SnapshotError: The snapshot does not hold what was saved, or was made with other settings or another image.
            BoxliteError: BoxLite failed.
        """
        if info.image_digest != (state.image_digest or ""):
            raise SnapshotError(
                f"the snapshot {info.id} was made from the image {info.image_digest or 'unknown'}, and this sandbox is "
                f"of {state.image_digest or 'unknown'}",
                hint="start it with the image of the snapshot",
            )
        wanted = inherited_settings(state)
        other = [name for name in sorted({*wanted, *info.settings}) if wanted.get(name) != info.settings.get(name)]
        if other:
            told = ", ".join(f"{name} was {info.settings.get(name)} and is {wanted.get(name)}" for name in other)
            raise SnapshotError(
                f"the snapshot {info.id} was made with other settings: {told}",
                hint="give the settings it was made with",
            )
        async with self._cloning:
            await asyncio.to_thread(self.store.verify, info)
            return await self._cloned(info, name)

    async def holds(self, info: SnapshotInfo, box_id: str) -> bool:
        """Return whether the disk of a stopped box is exactly what a snapshot holds: nothing ran in it since."""
        async with self._cloning:
            try:
                await asyncio.to_thread(self.store.verify, info, box_id)
            except SnapshotError:
                return False
        return True

    async def remove(self, info: SnapshotInfo) -> None:
        """Remove a snapshot.

        Raises:
            SnapshotError: A sandbox or another snapshot was started from it.
            BoxliteError: BoxLite failed.
        """
        async with self._cloning:
            try:
                await remove(self.runtime, info.box_id, force=False)
            except api.InvalidStateError as error:
                raise SnapshotError(
                    f"the snapshot {info.id} is in use by what was started from it", hint="remove that first"
                ) from error
            self.store.forget(info.id)

    async def prune(self, *, keep: int | None = None, older_than_s: float | None = None) -> Pruned:
        """Remove old snapshots.

        Args:
            keep: How many of the newest stay whatever their age; ``None`` means that the number alone saves none.
            older_than_s: Only snapshots older than this many seconds go; ``None`` means of any age.

        Returns:
            What went and what had to stay.

        Raises:
            SnapshotError: Neither limit is given, or a description cannot be read.
            BoxliteError: BoxLite failed.
        """
        if keep is None and older_than_s is None:
            raise SnapshotError("pruning needs a limit", hint="give keep, older_than_s or both")
        newest_first = list(self.store)[::-1][keep or 0 :]
        limit = time.time_ns() - round((older_than_s or 0) * 1e9)
        left = [info for info in newest_first if info.created_ns <= limit]
        removed: list[SnapshotInfo] = []
        progress = True
        while progress:
            progress = False
            for info in tuple(left):
                try:
                    await self.remove(info)
                except SnapshotError:
                    continue
                left.remove(info)
                removed.append(info)
                progress = True
        return Pruned(tuple(removed), tuple(left))

    async def _cloned(self, info: SnapshotInfo, name: str) -> api.Box:
        holder = await exactly(self.runtime, info.box_id)
        if holder is None:
            raise SnapshotError(f"the disk of the snapshot {info.id} is gone", hint="use another snapshot")
        cloning = asyncio.ensure_future(holder.clone_box(name=name))
        try:
            box = await asyncio.shield(cloning)
            await settled(asyncio.to_thread(self._shorten, info.box_id, box.id))
        except BaseException:
            await finish(self._unmade(cloning, name))
            raise
        return box

    def _shorten(self, holder_id: str, clone_id: str) -> None:
        home = self.store.home
        put_on_content(disk_of(home, holder_id), home)
        shorten(disk_of(home, clone_id), home)

    async def _unmade(self, cloning: asyncio.Future[api.Box], name: str) -> None:
        await asyncio.wait((cloning,), timeout=REMOVE_SECONDS)
        await remove_by_name(self.runtime, name)
