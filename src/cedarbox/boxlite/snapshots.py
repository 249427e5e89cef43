"""Snapshots that BoxLite keeps as copy-on-write disks: what is known of each, and that it still holds it.

A snapshot is a stopped box that never boots again, the *holder*. Its disk is frozen from the moment at which it
stopped: a snapshot of a running box is not a point in time (measured on BoxLite 0.10.8). Sandboxes that start from it
are clones of the holder, so taking one and starting one copy nothing.

What is known of a snapshot is a JSON file beside the boxes, ``<home>/snapshots/<id>.json``. Whoever may restore it
holds a *reference*: its id and the SHA-256 of that file, so neither the file nor a disk can be changed unnoticed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import rfc8785

from cedarbox.boxlite.disks import DiskDigests, Layer, backing_chain, disk_of
from cedarbox.errors import SnapshotError
from cedarbox.files import write_file

__all__ = ["SnapshotInfo", "SnapshotReference", "SnapshotStore", "new_snapshot_id"]

_VERSION: Final = 1
_MAX_BYTES: Final = 1024 * 1024
_ID: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}").fullmatch
_MAGIC: Final = b"CEDARBOX_BOXLITE_SNAPSHOT_V1\n"


def new_snapshot_id() -> str:
    """Make the id of a new snapshot: the UTC time in seconds and a random suffix."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """What is known of a snapshot.

    Attributes:
        id: Its id.
        parent: Id of the snapshot that its sandbox was started from; empty when that was an image.
        box_id: BoxLite's id of the holder.
        session: Id of the session that was saved.
        created_ns: When, in nanoseconds since 1970 (UTC).
        image_digest: ``sha256:...`` of the image manifest; empty for an image reference that is not pinned.
        policy_bundle: Digest of the policy bundle that was in force; empty when nothing guarded the sandbox.
        settings: Settings of the sandbox that a clone inherits, by name; a sandbox with others is not started from it.
        size_bytes: Bytes that the snapshot itself takes on the disk, without the layers it shares.
        layers: Digests of its disk files from the top to the base, see :class:`~cedarbox.boxlite.disks.DiskDigests`.
        capacity_bytes: Bytes of the disk that the guest sees.
    """

    id: str
    parent: str
    box_id: str
    session: str
    created_ns: int
    image_digest: str
    policy_bundle: str
    settings: dict[str, str]
    size_bytes: int
    layers: tuple[str, ...]
    capacity_bytes: int

    def encoded(self) -> bytes:
        """Return its canonical form (RFC 8785); integers are text, because they exceed what JSON promises."""
        values = asdict(self) | {
            "version": _VERSION,
            "created_ns": str(self.created_ns),
            "size_bytes": str(self.size_bytes),
            "capacity_bytes": str(self.capacity_bytes),
            "layers": list(self.layers),
        }
        return rfc8785.dumps(values)

    @property
    def sha256(self) -> str:
        """SHA-256 of :meth:`encoded`: it covers the digests of all that the snapshot holds."""
        return hashlib.sha256(self.encoded()).hexdigest()

    @property
    def reference(self) -> SnapshotReference:
        """The reference by which it is restored."""
        return SnapshotReference(self.id, self.sha256)

    def facts(self) -> dict[str, str | int]:
        """Return what a record tells of it."""
        return {
            "native.id": self.id,
            "native.parent": self.parent,
            "native.sha256": self.sha256,
            "native.size_bytes": self.size_bytes,
            "image_digest": self.image_digest,
            "policy_bundle": self.policy_bundle,
        }

    @classmethod
    def decoded(cls, data: bytes, path: Path) -> Self:
        """Read its canonical form.

        Raises:
            SnapshotError: It is not one.
        """
        try:
            values = json.loads(data)
            values.pop("version")
            numbers = {name: int(values[name]) for name in ("created_ns", "size_bytes", "capacity_bytes")}
            info = cls(**{**values, **numbers, "layers": tuple(values["layers"])})
            plain = all(isinstance(value, str) for value in (*info.layers, *info.settings.values()))
            # Only what this version writes is the same when it is written again.
            same = plain and bool(info.layers) and info.encoded() == data
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            same = False
        if not same:
            raise SnapshotError(f"{path} does not describe a snapshot", hint="it was changed, or is of another version")
        return info


@dataclass(frozen=True, slots=True)
class SnapshotReference:
    """What a saved sandbox state holds instead of an archive of the workspace.

    Attributes:
        id: Id of the snapshot.
        sha256: SHA-256 of its description.
        MAX_BYTES: No encoded reference is longer.
    """

    id: str
    sha256: str

    MAX_BYTES: ClassVar[int] = 512

    def encoded(self) -> bytes:
        """Return it as bytes that no tar archive starts with."""
        return _MAGIC + rfc8785.dumps({"id": self.id, "sha256": self.sha256})

    @classmethod
    def decoded(cls, data: bytes) -> Self | None:
        """Read it back.

        Returns:
            The reference; ``None`` when the data is something else, an archive for example.

        Raises:
            SnapshotError: It starts like a reference and is none.
        """
        if not data.startswith(_MAGIC):
            return None
        try:
            values = json.loads(data[len(_MAGIC) :])
            reference = cls(id=values["id"], sha256=values["sha256"])
            same = bool(_ID(reference.id)) and reference.encoded() == data
        except (ValueError, TypeError, KeyError, RecursionError):
            same = False
        if not same:
            raise SnapshotError("the saved reference to a snapshot is damaged", hint="use another saved state")
        return reference


@dataclass(slots=True)
class SnapshotStore:
    """The snapshots of one BoxLite home.

    Args:
        home: The BoxLite home.
        digests: Digests of disk files; another part of the program may have read the same files already.
    """

    home: Path
    digests: DiskDigests = field(default_factory=DiskDigests)

    @property
    def directory(self) -> Path:
        """Where the descriptions are."""
        return self.home / "snapshots"

    def path(self, snapshot_id: str) -> Path:
        """Return the file of a description."""
        return self.directory / f"{snapshot_id}.json"

    def described(self, info: SnapshotInfo) -> SnapshotInfo:
        """Complete a description from the disk of its holder, which must be stopped.

        Args:
            info: A description without layers and sizes.

        Returns:
            The description. Nothing is written.

        Raises:
            SnapshotError: The disk cannot be read.
        """
        chain = backing_chain(disk_of(self.home, info.box_id), self.home)
        held = chain[_empty_on_top(chain) :]
        values = {name: getattr(info, name) for name in SnapshotInfo.__dataclass_fields__}
        digests = tuple(self.digests.digest(layer.path) for layer in held)
        values.update(layers=digests, size_bytes=held[0].size, capacity_bytes=held[0].capacity)
        return SnapshotInfo(**values)

    def save(self, info: SnapshotInfo) -> None:
        """Write a description: beside its place first, durable, then renamed.

        Raises:
            SnapshotError: It cannot be written. Nothing is left then.
        """
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            write_file(self.path(info.id), info.encoded(), 0o600)
        except OSError as error:
            raise SnapshotError(
                f"the snapshot cannot be recorded in {self.directory}: {error.strerror}", hint="free some space"
            ) from error

    def load(self, reference: SnapshotReference) -> SnapshotInfo:
        """Read the description that a reference names.

        Raises:
            SnapshotError: It is missing, or is not the one that was saved.
        """
        info = self._read(self.path(reference.id), hint="it was pruned, or belongs to another BoxLite home")
        if info.id != reference.id or info.sha256 != reference.sha256:
            raise SnapshotError(
                f"the description of the snapshot {reference.id} is not the one that was saved", hint="it was changed"
            )
        return info

    def verify(self, info: SnapshotInfo, box_id: str = "") -> None:
        """Check that a disk holds exactly what the snapshot holds.

        Args:
            info: The description.
            box_id: The box whose disk is meant; the holder when empty.

        Raises:
            SnapshotError: Something differs, or cannot be read.
        """
        chain = backing_chain(disk_of(self.home, box_id or info.box_id), self.home)
        first = _empty_on_top(chain)
        held = chain[first:]
        # An empty overlay may not hide the end of the disk below it.
        if any(layer.capacity != info.capacity_bytes for layer in chain[: first + 1]):
            raise SnapshotError(f"the disk of the snapshot {info.id} has another size", hint="it was changed")
        actual = tuple(self.digests.digest(layer.path) for layer in held)
        if actual != info.layers:
            wrong = next(
                (at for at, pair in enumerate(zip(actual, info.layers, strict=False)) if pair[0] != pair[1]), -1
            )
            raise SnapshotError(
                f"the snapshot {info.id} does not hold what was saved: {held[wrong].path.name} has another digest",
                hint="use another snapshot",
            )

    def holders(self) -> frozenset[str]:
        """Return BoxLite's ids of the boxes that hold a snapshot. They must never boot.

        Raises:
            SnapshotError: A description cannot be read, so it is not known what it holds.
        """
        return frozenset(info.box_id for info in self)

    def find(self, snapshot_id: str) -> SnapshotInfo:
        """Return the description of a snapshot.

        Raises:
            SnapshotError: There is none, or it cannot be read.
        """
        if not _ID(snapshot_id):
            raise SnapshotError(
                f"{snapshot_id!r} is not the id of a snapshot", hint="cedarbox snapshot list shows them"
            )
        return self._read(self.path(snapshot_id), hint="cedarbox snapshot list shows them")

    def __iter__(self) -> Iterator[SnapshotInfo]:
        """Iterate over all descriptions, oldest first.

        Raises:
            SnapshotError: One cannot be read.
        """
        names = sorted(path for path in self.directory.glob("*.json") if _ID(path.stem))
        return iter([self._read(path, hint="") for path in names])

    def forget(self, snapshot_id: str) -> None:
        """Remove a description. Its holder is the caller's affair."""
        self.path(snapshot_id).unlink(missing_ok=True)
        self._sync()

    def _read(self, path: Path, *, hint: str) -> SnapshotInfo:
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                data = stream.read(_MAX_BYTES)
        except FileNotFoundError:
            raise SnapshotError(f"there is no snapshot {path.stem} in {self.directory}", hint=hint) from None
        except OSError as error:
            raise SnapshotError(f"{path}: {error.strerror}", hint=hint) from error
        return SnapshotInfo.decoded(data, path)

    def _sync(self) -> None:
        try:
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # Nothing was ever saved.
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _empty_on_top(chain: list[Layer]) -> int:
    """Return how many empty overlays lie on top of what a disk holds."""
    return next((at for at, layer in enumerate(chain) if not layer.empty), len(chain) - 1)
