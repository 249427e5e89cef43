"""The files of one stream while they are written: append, sync, checkpoint. One thread only."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cedarbox.audit.checkpoint import Checkpoint, origin_of, sign_note
from cedarbox.audit.clock import Clock, Step
from cedarbox.audit.files import CHECKPOINTS, STREAM, new_stream_id, sync
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, MAX_LINE_BYTES, Entry, Record, format_time, seal
from cedarbox.errors import LedgerError
from cedarbox.files import sync_directory, write_all

__all__ = ["MAX_ENTRY_BYTES", "StreamWriter"]

MAX_ENTRY_BYTES: Final = 1024 * 1024
"""The longest record of a caller. Receivers of OTLP limit a request to a few MiB."""


class StreamWriter:
    """A new stream: its file, held under an exclusive lock, and its checkpoints.

    Args:
        directory: The ledger.
        key: Signs the checkpoints.
        clock: Gives the times.

    Raises:
        LedgerError: The files cannot be made.
    """

    def __init__(self, directory: Path, key: Ed25519PrivateKey, clock: Clock) -> None:
        self.stream = new_stream_id()
        self.path = directory / f"{self.stream}{STREAM}"
        self._key, self._clock = key, clock
        self._tree, self._prev = Tree(), GENESIS
        self._signed = 0
        self._descriptors: list[int] = []
        self._notes_size = self._size = 0
        try:
            self._notes = self._create(self.path.with_suffix(CHECKPOINTS))
            self._file = self._create(self.path)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            sync_directory(directory)
        except OSError as error:
            self.release()
            raise LedgerError(f"{self.path}: the stream cannot be made: {error.strerror}") from error

    @property
    def unsigned(self) -> int:
        """Number of records since the last checkpoint."""
        return self._tree.size - self._signed

    def append(self, entries: Sequence[Entry]) -> list[Record | LedgerError]:
        """Write entries and wait until they are on the disk.

        Args:
            entries: In the order they are to be recorded.

        Returns:
            For each entry its record, or why this one entry cannot be written; the others are.

        Raises:
            LedgerError: The disk failed. None of the entries is in the stream, and nothing may be appended any more.
        """
        results: list[Record | LedgerError] = []
        lines: list[bytes] = []
        digests: list[bytes] = []
        seq, prev = self._tree.size, self._prev
        for entry in entries:
            now, step = self._clock.now()
            wanted = [entry] if step is None else [_stepped(step), entry]
            for item in wanted:
                try:
                    record, line, digest = seal(item, seq, format_time(now), prev)
                    _check_length(line, MAX_ENTRY_BYTES if seq else MAX_LINE_BYTES)
                except LedgerError as error:
                    results.append(error)
                    continue
                if item is entry:
                    results.append(record)
                lines.append(line)
                digests.append(digest)
                seq, prev = seq + 1, record.hash
        if lines:
            self._size = self._write(self._file, self._size, b"".join(lines))
        for digest in digests:
            self._tree.append(digest)
        self._prev = prev
        return results

    def checkpoint(self) -> None:
        """Sign the tree head of all records and wait until that is on the disk. Nothing to do when it is signed.

        Raises:
            LedgerError: The disk failed.
        """
        size = self._tree.size
        if size == self._signed:
            return
        note = sign_note(Checkpoint(origin_of(self.stream), size, self._tree.root()), self._key)
        self._notes_size = self._write(self._notes, self._notes_size, note + b"\n")
        self._signed = size

    def release(self) -> None:
        """Close the files and give up the lock."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        self._descriptors.append(descriptor)
        return descriptor

    def _write(self, descriptor: int, size: int, data: bytes) -> int:
        """Append durably, or put the file back to ``size`` bytes."""
        try:
            write_all(descriptor, data)
            sync(descriptor)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
                sync(descriptor)
            raise LedgerError(
                f"{self.path}: the ledger takes no more records: {error.strerror}",
                hint="nothing may run without a record: free space or repair the disk, then open the ledger again",
            ) from error
        return size + len(data)


def _check_length(line: bytes, limit: int) -> None:
    if len(line) > limit:
        raise LedgerError(
            f"the record is {len(line)} bytes long, more than {limit}", hint="record digests, not content"
        )


def _stepped(step: Step) -> Entry:
    return Entry(
        event="clock.stepped",
        attrs={
            "by_ns": str(step.by_ns),  # a step may be longer than 2^53 ns, which is 104 days
            "clock": format_time(step.wall_ns),
            "offset_ns": str(step.offset_ns),
        },
    )
