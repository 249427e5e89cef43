"""Files of the ledger: names, durable writes, locks, and looking at the end of a stream.

A stream ``<id>`` is the file ``<id>.jsonl`` with its checkpoints in ``<id>.checkpoints``. The id is the UTC time at
which the stream was opened, in microseconds, and a random suffix. The writer holds an exclusive flock(2) on the stream
while it lives.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

from cedarbox.audit.record import MAX_LINE_BYTES
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = [
    "CHECKPOINTS",
    "STREAM",
    "is_held",
    "is_stream_id",
    "last_line",
    "new_stream_id",
    "stream_files",
    "stream_of",
    "sync",
    "torn_tail",
]

_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)

STREAM: Final = ".jsonl"
CHECKPOINTS: Final = ".checkpoints"

_STREAM_ID: Final = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}").fullmatch
_CHUNK: Final = 64 * 1024


def is_stream_id(text: str) -> bool:
    """Tell whether a text is the id of a stream."""
    return _STREAM_ID(text) is not None


def new_stream_id() -> str:
    """Make the id of a new stream, such as ``20261123T000931123456Z-5f0c2a9e``."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(4)}"


def stream_files(directory: Path) -> list[Path]:
    """List the stream files of a ledger, oldest first.

    Raises:
        LedgerError: The directory cannot be read.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == STREAM)
    except OSError as error:
        raise LedgerError(f"{directory}: the ledger cannot be read: {error.strerror}") from error
    return [path for path in paths if is_stream_id(stream_of(path))]


def stream_of(path: Path) -> str:
    """Give the id of the stream that a file of a ledger belongs to: its name up to the first dot."""
    return path.name.split(".", 1)[0]


def is_held(path: Path) -> bool:
    """Whether a writer holds the stream now. False when it cannot be opened."""
    try:
        with open_regular(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


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
