"""What a new stream says about the streams that are there already.

Every stream is named with its head in the first record of the next one, so that a stream that is deleted or cut later
is missed. A stream whose writer lives is named at its last checkpoint: what comes after may not be on the disk yet.
A last line without its line feed is what a writer that died left behind; it was never acknowledged, and is cut.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.checkpoint import iter_notes, open_note, origin_of
from cedarbox.audit.files import CHECKPOINTS, last_line, stream_files, sync, torn_tail
from cedarbox.audit.record import GENESIS, JsonValue, Record
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["Neighbour", "survey"]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another stream of the same ledger.

    Args:
        stream: Its id.
        seq: Sequence number of its head, -1 when it has no record.
        hash: Hash of its head, `GENESIS` when it has no record.
        size: Number of bytes up to and with the last line feed.
        torn_bytes: Number of bytes after that.
        torn_sha256: SHA-256 of those bytes, in hex.
        file: The stream, locked and open as long as it has a torn last line to be cut.
    """

    stream: str
    seq: int
    hash: str
    size: int = 0
    torn_bytes: int = 0
    torn_sha256: str = ""
    file: BinaryIO | None = None

    def head(self) -> dict[str, JsonValue]:
        """Give the head as ``ledger.opened`` names it."""
        return {"stream": self.stream, "seq": self.seq, "hash": self.hash}

    def cut(self) -> None:
        """Cut the torn last line. The caller has recorded it before.

        Raises:
            LedgerError: The file cannot be cut.
        """
        if self.file is None or not self.torn_bytes:
            return
        try:
            os.ftruncate(self.file.fileno(), self.size)
            os.fsync(self.file.fileno())
        except OSError as error:
            raise LedgerError(f"{self.stream}: the torn last line cannot be cut: {error.strerror}") from error


def survey(directory: Path, key: Ed25519PublicKey, held: ExitStack) -> list[Neighbour]:
    """Look at every stream of a ledger.

    Args:
        directory: The ledger.
        key: Its public key.
        held: Takes the files of the streams with a torn last line, to be closed by the caller.

    Raises:
        LedgerError: A stream cannot be read, or its last line is no record.
    """
    return [_look(path, key, held) for path in stream_files(directory)]


def _look(path: Path, key: Ed25519PublicKey, held: ExitStack) -> Neighbour:
    try:
        with ExitStack() as opened:
            file = opened.enter_context(open_regular(path, os.O_RDWR))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return _living(path, file, key)
            sync(file.fileno())  # it may have been written by a process that died before its sync
            size, torn_bytes, torn_sha256 = torn_tail(file)
            seq, digest = _head(path, last_line(file, size))
            if torn_bytes:
                held.push(opened.pop_all())
            return Neighbour(path.stem, seq, digest, size, torn_bytes, torn_sha256, file)
    except OSError as error:
        raise LedgerError(f"{path}: the stream cannot be read: {error.strerror}") from error


def _living(path: Path, file: BinaryIO, key: Ed25519PublicKey) -> Neighbour:
    with open_regular(path.with_suffix(CHECKPOINTS)) as notes:
        data = notes.read()
    size = 0
    for note in iter_notes(data):
        try:
            size = max(size, open_note(note, origin_of(path.stem), key).size)
        except LedgerError:
            continue  # its writer may be in the middle of it; the verifier judges what stays
    line = b""
    file.seek(0)
    for _ in range(size):
        line = file.readline()
    return Neighbour(path.stem, *_head(path, line))


def _head(path: Path, line: bytes) -> tuple[int, str]:
    if not line:
        return -1, GENESIS
    try:
        record = Record.from_line(line)
    except LedgerError as error:
        raise LedgerError(
            f"{path}: the last line is damaged: {error.message}",
            hint="run `cedarbox audit verify`, then move the ledger aside and start a new one",
        ) from error
    return record.seq, record.hash
