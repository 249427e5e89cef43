"""Where a snapshot is put, and the SDK's default for it."""

from __future__ import annotations

from typing import Final

from agents.sandbox.snapshot import (
    LocalSnapshot,
    LocalSnapshotSpec,
    NoopSnapshot,
    NoopSnapshotSpec,
    RemoteSnapshot,
    RemoteSnapshotSpec,
    SnapshotBase,
    SnapshotSpec,
)
from agents.sandbox.snapshot_defaults import default_local_snapshot_base_dir

from cedarbox.guard.kept import bare
from cedarbox.guard.sealed import SealedSnapshot, SealedSnapshotSpec

__all__ = ["is_default_of_sdk", "saves", "store_of"]

# By class, not by the name that a class gives itself: any class may say that it is of type "noop".
_STORES: Final[dict[type, str]] = {
    LocalSnapshot: "local",
    LocalSnapshotSpec: "local",
    RemoteSnapshot: "remote",
    RemoteSnapshotSpec: "remote",
    SealedSnapshot: "sealed",
    SealedSnapshotSpec: "sealed",
}


def saves(snapshot: SnapshotSpec | SnapshotBase | None) -> bool:
    """Whether a workspace would be saved at all."""
    return snapshot is not None and type(bare(snapshot)) not in {NoopSnapshot, NoopSnapshotSpec}


def store_of(snapshot: SnapshotSpec | SnapshotBase, kind: str) -> str:
    """Return the member of ``Sandbox::SnapshotStore`` that a snapshot goes to.

    Args:
        snapshot: The snapshot, or what it is made from.
        kind: ``tar`` or ``native``; a native one stays with the backend, and only a reference to it goes elsewhere.
    """
    return "backend" if kind == "native" else _STORES.get(type(bare(snapshot)), "unknown")


def is_default_of_sdk(snapshot: SnapshotSpec | SnapshotBase | None) -> bool:
    """Whether a snapshot is what the SDK takes when nobody asked for one: in clear below the home directory.

    A run without a snapshot gets it (agents 0.24, ``runtime_session_manager``), and nothing tells it from one that was
    asked for in that directory; so that directory cannot be asked for.
    """
    return type(snapshot) is LocalSnapshotSpec and snapshot.base_path == default_local_snapshot_base_dir()
