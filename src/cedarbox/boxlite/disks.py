"""The disks of boxes as files of the host: chains of qcow2 overlays, and the digest of what they hold.

BoxLite 0.10.8 keeps the disk of a box in ``<home>/boxes/<id>/disks/disk.qcow2``, an overlay on the disk image that it
made of the OCI image. A clone moves the overlay of its source to ``<home>/bases/`` and gives both boxes an empty one on
top of it (measured). So what a box held when it was cloned stays where it is, byte for byte, below empty overlays.

The format is QEMU's, ``docs/interop/qcow2.txt``; only its header and first table are read here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from cedarbox.errors import SnapshotError

__all__ = ["DiskDigests", "Layer", "backing_chain", "disk_of"]

_MAGIC: Final = b"QFI\xfb"
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")  # up to snapshots_offset
_FEATURES: Final = struct.Struct(">Q")
_BLOCK: Final = 64 * 1024
_ZERO: Final = bytes(_BLOCK)
_MAX_DEPTH: Final = 512
_MAX_TABLE: Final = 32 * 1024 * 1024
_MAX_NAME: Final = 1023  # the limit of the format
_HINT: Final = "restore the BoxLite home from a backup, or start a new sandbox"


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a chain.

    Attributes:
        path: The file.
        empty: It is an overlay that holds nothing: every read goes to the layer below.
        size: Bytes that it takes on the disk.
        capacity: Bytes of the disk that the guest sees.
    """

    path: Path
    empty: bool
    size: int
    capacity: int


def disk_of(home: Path, box_id: str) -> Path:
    """Return the disk of a box.

    Args:
        home: The BoxLite home.
        box_id: BoxLite's id of the box.
    """
    return home / "boxes" / box_id / "disks" / "disk.qcow2"


def backing_chain(disk: Path, home: Path) -> list[Layer]:
    """Follow a disk down to its base.

    Args:
        disk: The top of the chain.
        home: The BoxLite home; no layer may be outside it.

    Returns:
        The layers from the top to the base, at least one.

    Raises:
        SnapshotError: A layer is missing, outside the home, not a plain file, or uses a feature that hides content.
    """
    root = home.resolve()
    layers: list[Layer] = []
    path: Path | None = disk
    while path is not None:
        if len(layers) >= _MAX_DEPTH:
            raise SnapshotError(f"{disk} has more than {_MAX_DEPTH} layers", hint=_HINT)
        if not path.resolve().is_relative_to(root):
            raise SnapshotError(f"{path} is outside the BoxLite home {root}", hint=_HINT)
        with _opened(path) as stream:
            below, empty, capacity = _overlay(path, stream)
            layers.append(Layer(path, empty, os.fstat(stream.fileno()).st_blocks * 512, capacity))
        path = below
    return layers


def _opened(path: Path) -> BinaryIO:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}", hint=_HINT) from error
    stream = os.fdopen(handle, "rb")
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        stream.close()
        raise SnapshotError(f"{path} is not a plain file", hint=_HINT)
    return stream


def _overlay(path: Path, stream: BinaryIO) -> tuple[Path | None, bool, int]:
    """Return the layer below, whether this one is empty, and its capacity. A file of another format is a base."""
    raw = stream.read(_HEADER.size + _FEATURES.size)
    if raw[:4] != _MAGIC:
        return None, False, os.fstat(stream.fileno()).st_size
    if len(raw) < _HEADER.size + _FEATURES.size:
        raise SnapshotError(f"{path} is cut short", hint=_HINT)
    _, version, name_at, name_size, _, capacity, encryption, entries, table_at, _, _, snapshots, _ = (
        _HEADER.unpack_from(raw)
    )
    (incompatible,) = _FEATURES.unpack_from(raw, _HEADER.size)
    # A dirty bit is harmless to reading; an external data file or another compression would keep content elsewhere.
    if version != 3 or incompatible & ~1 or encryption or snapshots:
        raise SnapshotError(f"{path} uses features of qcow2 that are not followed here", hint=_HINT)
    if entries * 8 > _MAX_TABLE or name_size > _MAX_NAME:
        raise SnapshotError(f"{path} has a header that cannot be right", hint=_HINT)
    stream.seek(table_at)
    table = stream.read(entries * 8)
    if len(table) != entries * 8:
        raise SnapshotError(f"{path} is cut short", hint=_HINT)
    if not name_at or not name_size:
        return None, False, capacity
    stream.seek(name_at)
    name = stream.read(name_size).decode("utf-8", "surrogateescape")
    below = Path(name)
    if "\0" in name or not below.is_absolute():
        raise SnapshotError(f"{path} names the layer below it as {name!r}, which is not an absolute path", hint=_HINT)
    return below, not any(table), capacity


@dataclass(slots=True)
class DiskDigests:
    """Digests of disk files, computed again only when a file has changed.

    A disk image is mostly holes, and whether a block of zeros is a hole says nothing about its content. So the digest
    is the SHA-256 of the file's size and of every 64 KiB block that is not all zeros, each after its offset; size and
    offsets are eight bytes, big-endian.

    A file is read again unless its device, inode, size, mtime and ctime (ns) are those of an earlier reading by this
    object. The kernel sets ctime; an owner who rewrites a file in place cannot put it back.
    """

    _known: dict[tuple[int, int, int, int, int], str] = field(default_factory=dict)

    def digest(self, path: Path) -> str:
        """Return the digest of a disk file, 64 hexadecimal digits.

        Raises:
            SnapshotError: It cannot be read, or changed while it was read.
        """
        with _opened(path) as stream:
            identity = _identity(stream)
            if (known := self._known.get(identity)) is not None:
                return known
            size = identity[2]
            actual = hashlib.sha256(size.to_bytes(8, "big"))
            try:
                for offset, block in _written(stream, size):
                    actual.update(offset.to_bytes(8, "big"))
                    actual.update(block)
            except OSError as error:
                raise SnapshotError(f"{path}: {error.strerror}", hint=_HINT) from error
            if _identity(stream) != identity:
                raise SnapshotError(f"{path} changed while it was read", hint="stop what writes to it")
        return self._known.setdefault(identity, actual.hexdigest())


def _identity(stream: BinaryIO) -> tuple[int, int, int, int, int]:
    status = os.fstat(stream.fileno())
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _written(stream: BinaryIO, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and content of every block that is not all zeros. Holes are not read."""
    position = 0
    while position < size:
        try:
            data = os.lseek(stream.fileno(), position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = data - data % _BLOCK
        end = os.lseek(stream.fileno(), data, os.SEEK_HOLE)
        while position < end:
            block = os.pread(stream.fileno(), _BLOCK, position)
            if block != _ZERO[: len(block)]:
                yield position, block
            position += _BLOCK
