"""Where a snapshot is put."""

from __future__ import annotations

from typing import Final

from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec

__all__ = ["store_of"]

_STORES: Final = {"local": "local", "remote": "remote"}


def store_of(snapshot: SnapshotSpec | SnapshotBase, kind: str) -> str:
    """Return the member of ``Sandbox::SnapshotStore`` that a snapshot goes to.

    Args:
        snapshot: The snapshot, or what it is made from.
        kind: ``tar`` or ``native``; a native one stays with the backend, and only a reference to it goes elsewhere.
    """
    return "backend" if kind == "native" else _STORES.get(snapshot.type, "unknown")
