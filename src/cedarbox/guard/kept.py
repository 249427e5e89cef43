"""A snapshot of the SDK that is restored only as it was saved.

The SDK's own snapshots are files or uploads that nothing authenticates. Under guard each is put into a
:class:`KeptSnapshot`, which counts what passes through it and hands nothing out that is not what was saved.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Literal, Self

from agents.sandbox.errors import SnapshotRestoreError
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.snapshot import LocalSnapshot, NoopSnapshot, SnapshotBase
from pydantic import PrivateAttr, SerializeAsAny, field_validator, model_validator

from cedarbox.errors import SnapshotError
from cedarbox.guard.saved import Measure, Measured, Saved, Used, check_measure, measured_copy, measured_in_place
from cedarbox.guard.sealed import SealedSnapshot

__all__ = [
    "KeptSnapshot",
    "bare",
    "beside",
    "kept",
    "remove_snapshot",
    "restored_of",
    "saved_of",
    "taken_of",
    "with_saved",
]


class KeptSnapshot(SnapshotBase):
    """Any snapshot of the SDK, with what is known of what it holds.

    Reading it back copies it to an unnamed file of this process first and counts it there, so that nobody can change it
    between the check and the use. Content of a local snapshot is in clear on the disk anyway; of a remote one it is
    while it is restored.

    Attributes:
        inner: The snapshot itself.
        saved: What is known of the last save; None when there was none under guard.

    Raises:
        SnapshotError: By :meth:`restore`: it is missing, or is not what was saved.
    """

    type: Literal["cedarbox_kept"] = "cedarbox_kept"
    inner: SerializeAsAny[SnapshotBase]
    saved: Saved | None = None
    _taken: Measure | None = PrivateAttr(default=None)
    _restored: Measure | None = PrivateAttr(default=None)

    @field_validator("inner", mode="before")
    @classmethod
    def _parsed(cls, value: object) -> SnapshotBase:
        return SnapshotBase.parse(value)

    @model_validator(mode="after")
    def _same_id(self) -> Self:
        if self.inner.id != self.id or isinstance(self.inner, KeptSnapshot):
            raise ValueError("a kept snapshot has the id of the one inside, which is no kept one")
        return self

    async def persist(self, data: io.IOBase, *, dependencies: Dependencies | None = None) -> None:
        """Save a stream, counting it."""
        self._taken = None
        # A stream that can be put back goes on as it is: an upload may want to know its size, or try again.
        measure = await measured_in_place(data)
        passing = None if measure is not None else Measured(data)
        await self.inner.persist(data if passing is None else passing, dependencies=dependencies)
        self._taken = measure if passing is None else passing.measure

    async def restore(self, *, dependencies: Dependencies | None = None) -> io.IOBase:
        """Return the content as a stream that can seek, after all of it was compared with what was saved."""
        self._restored = None
        try:
            content = await self.inner.restore(dependencies=dependencies)
        except SnapshotRestoreError as error:
            if self.saved is None:
                raise
            why = error.__cause__ or error
            raise SnapshotError(
                f"the snapshot {self.id} cannot be read: {why}", hint="it was removed, or is elsewhere"
            ) from error
        try:
            copied, measure = await measured_copy(content)
        except OSError as error:
            raise SnapshotError(f"the snapshot {self.id} cannot be read: {error.strerror}") from error
        finally:
            content.close()
        try:
            check_measure(f"the snapshot {self.id}", self.saved, measure)
        except SnapshotError:
            copied.close()
            raise

        def used() -> None:
            self._restored = measure

        return Used(copied, used)

    async def restorable(self, *, dependencies: Dependencies | None = None) -> bool:
        """Whether there is something to restore. One that was saved is; when it is missing, restoring fails."""
        return self.saved is not None or await self.inner.restorable(dependencies=dependencies)


def kept(snapshot: SnapshotBase) -> SnapshotBase:
    """Return a snapshot that is restored only as it was saved; itself when it is one, or saves nothing."""
    if isinstance(snapshot, KeptSnapshot | SealedSnapshot) or type(snapshot) is NoopSnapshot:
        return snapshot
    return KeptSnapshot(id=snapshot.id, inner=snapshot)


def bare(snapshot: Any) -> Any:
    """Return the snapshot inside a kept one; anything else as it is."""
    return snapshot.inner if type(snapshot) is KeptSnapshot else snapshot


def saved_of(snapshot: Any) -> Saved | None:
    """Return what a snapshot says of its last save; not checked. None when it says nothing."""
    return snapshot.saved if isinstance(snapshot, KeptSnapshot | SealedSnapshot) else None


def with_saved(snapshot: SnapshotBase, saved: Saved) -> SnapshotBase:
    """Return a snapshot that from now on restores only what it last wrote."""
    if isinstance(snapshot, SealedSnapshot):
        return snapshot.pinned(saved)
    return snapshot.model_copy(update={"saved": saved}) if isinstance(snapshot, KeptSnapshot) else snapshot


def taken_of(snapshot: Any) -> Measure | None:
    """Return what the last save wrote; None when there was none in this process."""
    return snapshot._taken if isinstance(snapshot, KeptSnapshot | SealedSnapshot) else None


def restored_of(snapshot: Any, *, forget: bool = False) -> Measure | None:
    """Return what was last restored from a snapshot.

    Args:
        snapshot: The snapshot.
        forget: Forget it first, before a start that may restore it.
    """
    if not isinstance(snapshot, KeptSnapshot | SealedSnapshot):
        return None
    if forget:
        snapshot._restored = None
    return snapshot._restored


def beside(snapshot: SnapshotBase, snapshot_id: str) -> SnapshotBase:
    """Return another snapshot beside this one, not yet saved."""
    if isinstance(snapshot, SealedSnapshot):
        return snapshot.at(snapshot_id)
    other: SnapshotBase = bare(snapshot).model_copy(update={"id": snapshot_id})
    return KeptSnapshot(id=snapshot_id, inner=other) if isinstance(snapshot, KeptSnapshot) else other


def remove_snapshot(snapshot: SnapshotBase) -> bool:
    """Remove what a snapshot holds from this host.

    Returns:
        False when it is not of a kind that can be removed here: only the service of a remote one knows how.

    Raises:
        SnapshotError: It cannot be removed.
    """
    inner, path = bare(snapshot), Path()
    if isinstance(inner, SealedSnapshot):
        path = inner.path
    elif isinstance(inner, LocalSnapshot):
        try:
            path = inner._path()
        except ValueError as error:
            raise SnapshotError(f"{inner.id[:80]!r} is not the id of a snapshot", hint="it was changed") from error
    else:
        return False
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SnapshotError(f"{path}: the snapshot cannot be removed: {error.strerror}") from error
    return True
