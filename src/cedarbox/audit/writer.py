"""The files of one stream while they are written: append, sync, checkpoint, the next segment. One thread only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cedarbox.audit.checkpoint import Checkpoint, origin_of, sign_note
from cedarbox.audit.clock import Clock
from cedarbox.audit.contents import shown_key
from cedarbox.audit.files import Appended, checkpoints_path, new_stream_id, segment_path
from cedarbox.audit.index import FORMAT, Index
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, MAX_LINE_BYTES, Entry, JsonValue, Record, format_time, seal
from cedarbox.errors import LedgerError
from cedarbox.files import sync_directory

__all__ = ["MAX_ENTRY_BYTES", "StreamWriter"]

MAX_ENTRY_BYTES: Final = 1024 * 1024
"""The longest record of a caller. Receivers of OTLP limit a request to a few MiB."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class StreamWriter:
    """A new stream: its files, held under exclusive locks, and its key, which is in no file.

    The caller holds the lock of the index from before this until `opened` is recorded there, and calls `begin` then.

    Args:
        directory: The ledger.
        index: Its index.
        clock: Gives the times.
        segment_bytes: A segment that has this many bytes is sealed, and the next one begun.

    Raises:
        LedgerError: The files cannot be made.
    """

    def __init__(self, directory: Path, index: Index, clock: Clock, segment_bytes: int) -> None:
        self.stream = new_stream_id()
        self._directory, self._index, self._clock, self._segment_bytes = directory, index, clock, segment_bytes
        self._key = Ed25519PrivateKey.generate()
        self._tree, self._prev = Tree(), GENESIS
        self._segment = self._signed = 0
        self._boot = ""
        with suppress(OSError):  # only Linux has it
            self._boot = _BOOT_ID.read_text().strip()
        self.path = segment_path(directory, self.stream, 0)
        self._files: list[Appended] = []
        try:
            self._notes = self._create(checkpoints_path(directory, self.stream))
            self._file = self._create(self.path)
            sync_directory(directory)
        except OSError as error:
            self.release()
            raise LedgerError(f"{self.path}: the stream cannot be made: {error.strerror}") from error

    @property
    def unsigned(self) -> int:
        """Number of records since the last checkpoint."""
        return self._tree.size - self._signed

    @property
    def full(self) -> bool:
        """Whether the segment has its size, so that `next_segment` is due."""
        return self._file.size >= self._segment_bytes

    def opened(self) -> Entry:
        """Give the record of the index that names this stream and its key."""
        return Entry(
            event="stream.opened",
            attrs={
                "stream": self.stream,
                "public_key": shown_key(self._key.public_key()),
                "pid": os.getpid(),
                "boot_id": self._boot,
                "live": self._index.live(),
            },
        )

    def begin(self, opened: Record) -> None:
        """Write the first record, which names the record of the index about this stream, and sign it.

        The wall clock may have stepped since the clock was made. That is recorded after it, under a note of its own:
        a stream begins with ``ledger.opened``, and that is signed before anything follows.

        Raises:
            LedgerError: The disk failed.
        """
        attrs: dict[str, JsonValue] = {
            "format": FORMAT,
            "ledger": self._index.ledger,
            "stream": self.stream,
            "pid": os.getpid(),
            "boot_id": self._boot,
            "public_key": shown_key(self._key.public_key()),
            "index": {"seq": opened.seq, "hash": opened.hash},
        }
        now, step = self._clock.now()
        self._write_records([(Entry(event="ledger.opened", attrs=attrs), now)])
        self.checkpoint()
        if step is not None:
            self._write_records([(step.entry(), now)])
            self.checkpoint()

    def append(self, entries: Sequence[Entry]) -> list[Record | LedgerError]:
        """Write entries and wait until they are on the disk.

        Args:
            entries: In the order they are to be recorded.

        Returns:
            For each entry its record, or why this one entry cannot be written; the others are.

        Raises:
            LedgerError: The disk failed, or the clock says what no record can hold. None of the entries is in the
                stream, and nothing may be appended any more.
        """
        timed: list[tuple[Entry, int]] = []
        wanted: list[int] = []
        for entry in entries:
            now, step = self._clock.now()
            if step is not None:
                timed.append((step.entry(), now))
            wanted.append(len(timed))
            timed.append((entry, now))
        results = self._write_records(timed)
        return [results[place] for place in wanted]

    def checkpoint(self) -> None:
        """Sign the tree head of all records and wait until that is on the disk. Nothing to do when it is signed.

        Raises:
            LedgerError: The disk failed.
        """
        size = self._tree.size
        if size == self._signed:
            return
        origin = origin_of(self._index.ledger, self.stream)
        self._write(self._notes, sign_note(Checkpoint(origin, size, self._tree.root()), self._key) + b"\n")
        self._signed = size

    def next_segment(self) -> None:
        """Seal this segment, name the key of the next one in the index, and begin that.

        Raises:
            LedgerError: The disk or the index failed, and nothing may be appended any more.
        """
        key = Ed25519PrivateKey.generate()
        shown = shown_key(key.public_key())
        self.append([Entry(event="segment.sealed", attrs={"segment": self._segment, "next_public_key": shown})])
        self.checkpoint()
        sealed = {"segment": self._segment, **self._head(), "public_key": shown}
        self._tell_index(Entry(event="segment.sealed", attrs=sealed))
        path = segment_path(self._directory, self.stream, self._segment + 1)
        try:
            file = self._create(path)
            sync_directory(self._directory)
        except OSError as error:
            raise LedgerError(
                f"{path}: the next segment cannot be made: {error.strerror}",
                hint="free space or repair the disk, then open the ledger again",
                told=f"the ledger takes no more records: {error.strerror}",
            ) from error
        self._files.remove(self._file)
        self._file.close()
        self.path, self._file, self._key, self._segment = path, file, key, self._segment + 1

    def end(self) -> None:
        """Write the last record, sign it, and close the stream in the index.

        Raises:
            LedgerError: The disk or the index failed; the stream stays as one whose writer died.
        """
        self.append([Entry(event="ledger.closed", attrs={"stream": self.stream})])
        self.checkpoint()
        self._tell_index(Entry(event="stream.closed", attrs=self._head()))

    def release(self) -> None:
        """Close the files and give up the locks."""
        while self._files:
            self._files.pop().close()

    def _write_records(self, entries: Sequence[tuple[Entry, int]]) -> list[Record | LedgerError]:
        """Write entries with their times, as `append` does."""
        results: list[Record | LedgerError] = []
        lines: list[bytes] = []
        digests: list[bytes] = []
        seq, prev = self._tree.size, self._prev
        for entry, now in entries:
            at = format_time(now)
            try:
                record, line, digest = seal(entry, seq, at, prev)
                _check_length(line, MAX_ENTRY_BYTES if seq else MAX_LINE_BYTES)
            except LedgerError as error:
                results.append(error)
                continue
            results.append(record)
            lines.append(line)
            digests.append(digest)
            seq, prev = seq + 1, record.hash
        if lines:
            self._write(self._file, b"".join(lines))
        for digest in digests:
            self._tree.append(digest)
        self._prev = prev
        return results

    def _tell_index(self, entry: Entry) -> None:
        with self._index.locked() as index:
            if not index.knows(self.stream):
                raise LedgerError(
                    f"{self.stream}: the index says that this stream ended",
                    hint="another process did not see its locks: keep a ledger on a disk of this host",
                )
            index.append([entry])

    def _head(self) -> dict[str, JsonValue]:
        root = self._tree.root().hex()
        return {"stream": self.stream, "size": self._tree.size, "hash": self._prev, "root": root}

    def _create(self, path: Path) -> Appended:
        file = Appended(path, new=True)
        self._files.append(file)
        file.hold()
        return file

    def _write(self, file: Appended, data: bytes) -> None:
        """Append durably, or put the file back as it was."""
        try:
            file.append(data)
        except OSError as error:
            raise LedgerError(
                f"{file.path}: the ledger takes no more records: {error.strerror}",
                hint="nothing may run without a record: free space or repair the disk, then open the ledger again",
                told=f"the ledger takes no more records: {error.strerror}",
            ) from error


def _check_length(line: bytes, limit: int) -> None:
    if len(line) > limit:
        raise LedgerError(
            f"the record is {len(line)} bytes long, more than {limit}", hint="record digests, not content"
        )
