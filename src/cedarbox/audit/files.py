"""Files of the ledger: names, durable writes, locks, and looking at the end of a stream.

A stream ``<id>`` is the files ``<id>.000000.jsonl``, ``<id>.000001.jsonl`` and so on, its segments, with the
checkpoints of all of them in ``<id>.checkpoints``. The id is the UTC time at which the stream was opened, in
microseconds, and a random suffix. The index of the ledger, ``index.jsonl`` with ``index.checkpoints``, names every
stream. The writer of a stream holds an exclusive flock(2) on its checkpoints and on its last segment while it lives.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import time
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

from cedarbox.audit.record import MAX_LINE_BYTES
from cedarbox.children import not_in_children
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular, write_all

__all__ = [
    "CHECKPOINTS",
    "INDEX",
    "LOCK",
    "STREAM",
    "Appended",
    "Lock",
    "check_ledger",
    "checkpoints_path",
    "in_use",
    "index_path",
    "is_held",
    "is_segment",
    "is_stream_id",
    "last_line",
    "new_stream_id",
    "segment_files",
    "segment_of",
    "segment_path",
    "stream_files",
    "stream_of",
    "sync",
    "torn_tail",
]

_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)

INDEX: Final = "index"
"""Id of the index, in the place of the id of a stream."""

STREAM: Final = ".jsonl"
CHECKPOINTS: Final = ".checkpoints"
LOCK: Final = ".lock"

_STREAM_ID: Final = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}").fullmatch
_SEGMENT: Final = re.compile(r"([0-9]{8}T[0-9]{12}Z-[0-9a-f]{8})\.([0-9]{6})\.jsonl").fullmatch
_CHUNK: Final = 64 * 1024
# What is there before the first record, or was left by one that was never written.
_FIRST_NAMES: Final = frozenset({LOCK, "ledger.pub"})
_FIRST_WAIT_SECONDS: Final = 0.001
_LAST_WAIT_SECONDS: Final = 0.05


def is_stream_id(text: str) -> bool:
    """Tell whether a text is the id of a stream; `INDEX` is none."""
    return _STREAM_ID(text) is not None


def new_stream_id() -> str:
    """Make the id of a new stream, such as ``20261123T000931123456Z-5f0c2a9e``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"


def segment_path(directory: Path, stream: str, segment: int) -> Path:
    """Give the file of a segment of a stream."""
    return directory / f"{stream}.{segment:06d}{STREAM}"


def checkpoints_path(directory: Path, stream: str) -> Path:
    """Give the checkpoint file of a stream, or of the index."""
    return directory / f"{stream}{CHECKPOINTS}"


def index_path(directory: Path) -> Path:
    """Give the file of the index."""
    return directory / f"{INDEX}{STREAM}"


def is_segment(path: Path) -> bool:
    """Tell whether a file has the name of a segment of a stream."""
    return _SEGMENT(path.name) is not None


def segment_of(path: Path) -> int:
    """Give the number of a segment by the name of its file; 0 for the index."""
    found = _SEGMENT(path.name)
    return int(found[2]) if found else 0


def stream_of(path: Path) -> str:
    """Give the id of the stream that a file of a ledger belongs to: its name up to the first dot."""
    return path.name.split(".", 1)[0]


def check_ledger(directory: Path, *, yet: bool = True) -> list[str]:
    """Refuse a directory that is no ledger of this format.

    Args:
        directory: What should be one.
        yet: It must hold something of a ledger by now. Otherwise an empty one will do, whose ledger may come.

    Returns:
        The names in it, sorted.

    Raises:
        LedgerError: It cannot be read, is of format 1, or holds nothing of a ledger.
    """
    try:
        names = sorted(path.name for path in directory.iterdir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its path has a NUL"
        message = f"{directory}: the ledger cannot be read: {reason}"
        raise LedgerError(message, hint="name the directory of a ledger") from None
    old = [name for name in names if name.endswith(STREAM) and is_stream_id(name.removesuffix(STREAM))]
    if old and f"{INDEX}{STREAM}" not in names:
        message = f"{directory}: the ledger is of format 1, which had no index ({old[0]})"
        raise LedgerError(message, hint="read it with the version of cedarbox that wrote it")
    if not any(name.endswith((STREAM, CHECKPOINTS)) for name in names) and (yet or not set(names) <= _FIRST_NAMES):
        raise LedgerError(f"{directory}: there is no ledger in it", hint="name the directory of a ledger")
    return names


def stream_files(directory: Path) -> list[Path]:
    """List the segments of all streams of a ledger, oldest stream first, without the index.

    Raises:
        LedgerError: The directory cannot be read.
    """
    try:
        return sorted(path for path in directory.iterdir() if is_segment(path))
    except OSError as error:
        raise LedgerError(f"{directory}: the ledger cannot be read: {error.strerror}") from error


def segment_files(directory: Path, stream: str) -> list[Path]:
    """List the segments of one stream, in order.

    Raises:
        LedgerError: The directory cannot be read.
    """
    return [path for path in stream_files(directory) if stream_of(path) == stream]


def is_held(path: Path) -> bool:
    """Whether a writer holds the file now. False when it cannot be opened."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def in_use(directory: Path, stream: str) -> bool:
    """Whether a writer has the stream open now.

    Either file will do: neither the checkpoints nor a segment can be taken away to make a living writer look dead.
    """
    paths = [checkpoints_path(directory, stream), *segment_files(directory, stream)[-1:]]
    return any(is_held(path) for path in paths)


class Appended:
    """A file that only grows: what was appended is on the disk, or not in the file.

    Args:
        path: The file; made when it is missing, with mode 0600.
        new: It must be missing.

    Raises:
        OSError: It cannot be opened, is no regular file, or is there although it must be missing.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_EXCL if new else 0)
        self.path = path
        self.descriptor = os.open(path, flags, 0o600)
        self._held = False
        self.size = os.fstat(self.descriptor).st_size
        not_in_children(self)

    def __enter__(self) -> Self:
        """Give the file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()

    def hold(self) -> None:
        """Show that a writer lives: nobody else can take the lock until `close`, or the death of this process."""
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        self._held = True

    def append(self, data: bytes) -> None:
        """Append and wait until it is on the disk.

        Raises:
            OSError: It is not; the file has its old length, unless even that failed.
        """
        try:
            write_all(self.descriptor, data)
            sync(self.descriptor)
        except OSError:
            with suppress(OSError):
                self.cut(self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Cut the file to ``size`` bytes and wait until that is on the disk.

        Raises:
            OSError: It cannot be cut.
        """
        os.ftruncate(self.descriptor, size)
        sync(self.descriptor)
        self.size = size

    def close(self) -> None:
        """Give up the lock and close the file; nothing the second time."""
        if self.descriptor >= 0:
            self.unlock()
            self.let_go()

    def let_go(self) -> None:
        """Close the file without giving up the lock."""
        # Forgotten before it is closed: the number may be another file's by the time a child is forked.
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def unlock(self) -> None:
        """Give up the lock: a forked child may have the descriptor still, and closing it would leave that the lock."""
        if self._held:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            self._held = False


class Lock:
    """The lock of a ledger: one process at a time appends to the index.

    Args:
        path: The lock file; made when it is missing.
        wait_s: How long to wait for whoever has it, in seconds.
    """

    def __init__(self, path: Path, wait_s: float) -> None:
        self._path, self._wait_s = path, wait_s
        self.descriptor = -1
        not_in_children(self)

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            OSError: The lock file cannot be opened.
            LedgerError: Another process had it all the time.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self.descriptor = os.open(self._path, flags, 0o600)
        try:
            self._take()
        except BaseException:
            self.let_go()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock up."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)  # not only closed: see Appended.unlock
        self.let_go()

    def _take(self) -> None:
        # Not one flock that waits: a process that was stopped while it has the lock would hold up all the others.
        deadline, pause = time.monotonic() + self._wait_s, _FIRST_WAIT_SECONDS
        while True:
            try:
                return fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise LedgerError(
                        f"{self._path}: another process has the lock for more than {self._wait_s:g} s",
                        hint="see what it waits for with: fuser -v " + str(self._path),
                    ) from None
            time.sleep(pause)
            pause = min(pause * 2, _LAST_WAIT_SECONDS)

    def let_go(self) -> None:
        """Close the file without giving up the lock."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def sync(descriptor: int) -> None:
    """Wait until what was written, and the size of the file, are on the disk."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(descriptor, _FULL_SYNC)  # fsync(2) of macOS stops at the cache of the drive
    else:
        os.fdatasync(descriptor)


def torn_tail(file: BinaryIO) -> tuple[int, int, str]:
    """Look for bytes after the last line feed, which a writer that died may leave.

    Returns:
        The size up to and with the last line feed, the number of bytes after it, and their SHA-256 in hex.
    """
    size = file.seek(0, os.SEEK_END)
    end = size
    found = 0
    while end > 0 and found == 0:
        start = max(0, end - _CHUNK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n") + 1
        found, end = (start + found, end) if found else (0, start)
    digest = sha256()
    file.seek(found)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return found, size - found, digest.hexdigest()


def last_line(file: BinaryIO, size: int) -> bytes:
    """Give the last line among the first ``size`` bytes, which end with a line feed; nothing when ``size`` is 0."""
    data, start = b"", size
    while start > 0 and len(data) <= MAX_LINE_BYTES:
        step = min(start, _CHUNK)
        start -= step
        file.seek(start)
        data = file.read(step) + data
        cut = data.rfind(b"\n", 0, -1)
        if cut >= 0:
            return data[cut + 1 :]
    return data
