"""Keeping the chain below a disk short enough to boot.

The microVM monitor in BoxLite 0.10.8 boots a disk whose chain has nine files, its base included, and refuses ten with
``Error configuring virtio-blk`` (measured). Each clone adds an empty overlay to its source as well as to itself, and
each snapshot adds one with content, so after some forks or saves nothing could be started any more.

So a fresh clone is put directly on the content it stands for, and when even that is too long, on a single overlay that
holds the content of all of them. Only disks that nobody has written to yet are replaced, and only by files that read
the same. BoxLite's own files below them, and what it knows of them, stay as they are.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cedarbox.boxlite.disks import backing_chain
from cedarbox.errors import SnapshotError

__all__ = ["MAX_FILES", "put_on_content", "shorten"]

MAX_FILES: Final = 9
"""Files that the chain of a disk may have, the disk and its base included."""

# Offsets and flags: QEMU's docs/interop/qcow2.txt.
_NAME_AT: Final = 8
_CLUSTER_BITS_AT: Final = 20
_TABLES_AT: Final = 36
_FEATURES_AT: Final = 72
_REFCOUNT_ORDER_AT: Final = 96
_COPIED: Final = 1 << 63
_COMPRESSED: Final = 1 << 62
_READS_ZEROS: Final = 1
_OFFSET: Final = 0x00FFFFFFFFFFFE00
_REFCOUNT_ORDER: Final = 4  # counts of 16 bits, as BoxLite and QEMU write them
_CLUSTER_BITS: Final = range(9, 22)
_HINT: Final = "restore the BoxLite home from a backup, or start a new sandbox"


def put_on_content(disk: Path, home: Path) -> None:
    """Let an empty overlay name the first layer with content as the one below it, not another empty overlay.

    Args:
        disk: The disk of a stopped box. Nothing happens when it has content of its own.
        home: The BoxLite home.

    Raises:
        SnapshotError: The chain cannot be read, or the disk cannot be written. It is unchanged then.
    """
    chain = backing_chain(disk, home)
    content = next((at for at, layer in enumerate(chain) if not layer.empty), len(chain) - 1)
    if content > 1:
        below = chain[content].path
        _replace(disk, lambda stream: _write_empty(stream, disk, below))


def shorten(disk: Path, home: Path) -> None:
    """Make the chain of a fresh clone one that boots, without a change of what it reads.

    Args:
        disk: The disk of a box that has never run.
        home: The BoxLite home.

    Raises:
        SnapshotError: The chain cannot be read or followed, or the disk cannot be written. It is unchanged then.
    """
    put_on_content(disk, home)
    chain = backing_chain(disk, home)
    if len(chain) > MAX_FILES and chain[0].empty:
        overlays = [layer.path for layer in chain[1:-1] if not layer.empty]
        _replace(disk, lambda stream: _write_merged(stream, overlays))


def _replace(disk: Path, write: Callable[[BinaryIO], None]) -> None:
    handle, temporary = tempfile.mkstemp(dir=disk.parent, prefix=".")
    try:
        with os.fdopen(handle, "w+b") as stream:
            write(stream)
            stream.flush()
            os.fchmod(stream.fileno(), disk.stat().st_mode & 0o777)
            os.fsync(stream.fileno())
        Path(temporary).rename(disk)
        directory = os.open(disk.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SnapshotError(f"{disk} cannot be written: {error.strerror}", hint="free some space") from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _write_empty(stream: BinaryIO, disk: Path, below: Path) -> None:
    raw = bytearray(disk.read_bytes())
    at, size = struct.unpack_from(">QI", raw, _NAME_AT)
    name = os.fsencode(below)
    cluster = 1 << int(struct.unpack_from(">I", raw, _CLUSTER_BITS_AT)[0])
    # What follows the name in its cluster is unused, if it is zeros.
    if at + len(name) > cluster or any(raw[at + size : at + len(name)]):
        raise SnapshotError(f"{disk} has no room for the name of the layer below it", hint=_HINT)
    raw[at : at + max(size, len(name))] = name.ljust(size, b"\0")
    struct.pack_into(">I", raw, _NAME_AT + 8, len(name))
    stream.write(raw)


@dataclass(slots=True)
class _Overlay:
    """The tables of an overlay. Its chain was checked by :func:`backing_chain`."""

    path: Path
    stream: BinaryIO
    cluster_bits: int
    table: array[int]

    @classmethod
    def read(cls, path: Path, stream: BinaryIO) -> _Overlay:
        header = stream.read(_REFCOUNT_ORDER_AT + 4)
        (bits,) = struct.unpack_from(">I", header, _CLUSTER_BITS_AT)
        entries, at = struct.unpack_from(">IQ", header, _TABLES_AT)
        if bits not in _CLUSTER_BITS:
            raise _unfollowed(path)
        return cls(path, stream, bits, _words(stream, at, entries, path))

    def mapped(self, index: int) -> array[int] | None:
        """The second-level table; ``None`` when there is none."""
        at = self.table[index] & _OFFSET if index < len(self.table) else 0
        return _words(self.stream, at, (1 << self.cluster_bits) // 8, self.path) if at else None

    def cluster(self, entry: int) -> bytes:
        """What a second-level entry stands for."""
        size, at = 1 << self.cluster_bits, entry & _OFFSET
        return os.pread(self.stream.fileno(), size, at).ljust(size, b"\0")


def _words(stream: BinaryIO, at: int, count: int, path: Path) -> array[int]:
    raw = os.pread(stream.fileno(), count * 8, at)
    if len(raw) != count * 8:
        raise SnapshotError(f"{path} is cut short", hint=_HINT)
    words = array("Q", raw)
    if sys.byteorder == "little":
        words.byteswap()
    return words


def _raw(words: array[int]) -> bytes:
    swapped = array("Q", words)
    if sys.byteorder == "little":
        swapped.byteswap()
    return swapped.tobytes()


def _unfollowed(path: Path) -> SnapshotError:
    return SnapshotError(f"{path} uses features of qcow2 that are not followed here", hint=_HINT)


def _write_merged(stream: BinaryIO, paths: Sequence[Path]) -> None:
    """Write one overlay with the content of several.

    Args:
        stream: An empty file.
        paths: The overlays from the top down. Below the last is the base, which is not copied.
    """
    with ExitStack() as opened:
        overlays = [_Overlay.read(path, opened.enter_context(path.open("rb"))) for path in paths]
        if len({(overlay.cluster_bits, len(overlay.table)) for overlay in overlays}) != 1:
            raise _unfollowed(paths[0])
        _Merge(stream, overlays).write()


class _Merge:
    """Clusters are put one after the other: the header, then data and tables as they come, then the counts."""

    def __init__(self, stream: BinaryIO, overlays: Sequence[_Overlay]) -> None:
        self._stream, self._overlays = stream, overlays
        self._size = 1 << overlays[0].cluster_bits
        self._next = 1

    def write(self) -> None:
        first = array("Q", bytes(8 * len(self._overlays[0].table)))
        for index in range(len(first)):
            table = self._mapped(index)
            if table is not None:
                first[index] = self._put(_raw(table)) | _COPIED
        table_at = self._put(_raw(first))
        counts_at, clusters = self._put_counts()
        self._put_header(table_at, counts_at, clusters)

    def _mapped(self, index: int) -> array[int] | None:
        table = array("Q", bytes(self._size))
        found = False
        for overlay in self._overlays:
            entries = overlay.mapped(index)
            for at, entry in enumerate(entries or ()):
                if not entry or table[at]:
                    continue
                if entry & _COMPRESSED:
                    raise _unfollowed(overlay.path)
                found = True
                data = b"" if entry & _READS_ZEROS else overlay.cluster(entry)
                table[at] = self._put(data) | _COPIED if data.strip(b"\0") else _READS_ZEROS
        return table if found else None

    def _put(self, data: bytes) -> int:
        at = self._next * self._size
        padded = data + bytes(-len(data) % self._size)
        self._stream.seek(at)
        self._stream.write(padded)
        self._next += len(padded) // self._size
        return at

    def _put_counts(self) -> tuple[int, int]:
        """Every cluster is used once, those of the counts too."""
        each, blocks, table = self._size // 2, 0, 0
        while True:
            total = self._next + blocks + table
            wanted = -(-total // each)
            if wanted == blocks and table == -(-blocks * 8 // self._size):
                break
            blocks, table = wanted, -(-wanted * 8 // self._size)
        counts = struct.pack(">H", 1) * total
        starts = array("Q", [])
        for block in range(blocks):
            starts.append(self._put(counts[block * self._size : (block + 1) * self._size]))
        return self._put(_raw(starts)), table

    def _put_header(self, table_at: int, counts_at: int, clusters: int) -> None:
        # The last overlay's header names the base and its format.
        header = bytearray(os.pread(self._overlays[-1].stream.fileno(), self._size, 0))
        # l1_table_offset, refcount_table_offset, refcount_table_clusters, nb_snapshots
        struct.pack_into(">QQII", header, _TABLES_AT + 4, table_at, counts_at, clusters, 0)
        # Neither dirty nor with anything that another program keeps up to date, such as bitmaps.
        struct.pack_into(">QQQ", header, _FEATURES_AT, 0, 0, 0)
        struct.pack_into(">I", header, _REFCOUNT_ORDER_AT, _REFCOUNT_ORDER)
        self._stream.seek(0)
        self._stream.write(header)
