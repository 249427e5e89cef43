"""The index of a ledger: which streams there are, where each ends, and which key signs what.

The records of the index come in groups, one for each append. The last record of a group names the key that signs the
next one (``next_key``), and one note in ``index.checkpoints`` ends the group. Key 0 signs the first group and is the
one public key that an auditor needs. A key signs once: before its group is written the next key is on the disk, after
it the next key takes its place. `Index.locked` finishes or takes back what a process left that died in between, and
refuses an index that the key does not fit: the index was rolled back, or the key was replaced.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox.audit.checkpoint import Checkpoint, ledger_id, origin_of, sign_note
from cedarbox.audit.clock import after
from cedarbox.audit.contents import Contents, OpenStream, shown_key
from cedarbox.audit.files import (
    INDEX,
    LOCK,
    STREAM,
    Appended,
    Lock,
    checkpoints_path,
    in_use,
    index_path,
    is_stream_id,
    stream_files,
    torn_tail,
)
from cedarbox.audit.keys import PUBLIC_NAME, KeyFile, publish_key
from cedarbox.audit.notes import open_note, read_note, whole_notes
from cedarbox.audit.record import MAX_LINE_BYTES, Entry, JsonValue, Record, format_time, seal
from cedarbox.audit.recovery import cut_torn_line, signed_head
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular, sync_directory

__all__ = ["FORMAT", "Index", "default_key"]

FORMAT: Final = "cedarbox.ledger/2"
"""Written into the first record of the index and of each stream."""

LOCK_SECONDS: Final = 60.0
"""How long to wait for another process that appends to the index. It takes milliseconds, unless it was stopped."""

_BEHIND: Final = "run `cedarbox audit verify` with the public key, then move the ledger aside and start a new one"


def default_key(directory: Path) -> Path:
    """Give the key file of a ledger whose settings name none: ``<name of the directory>.key`` beside it."""
    return directory.with_name(f"{directory.name}.key")


class Index:
    """The index of one ledger. One thread only; other threads and processes have objects of their own.

    Args:
        directory: The ledger, an absolute path; made with mode 0700 when it is missing.
        signing_key: The file of the key that signs the next group; made on first use. Default: `default_key`.
        make: Whether a ledger that is not there is begun.
        wall: Gives nanoseconds since 1970.
    """

    def __init__(
        self,
        directory: Path,
        signing_key: Path | None = None,
        *,
        make: bool = True,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._directory, self._make, self._wall = directory, make, wall
        self._keys = KeyFile(signing_key or default_key(directory))
        self._lock = Lock(directory / LOCK, LOCK_SECONDS)
        self._key: Ed25519PrivateKey | None = None
        self._contents = Contents()
        self._offset = self._notes_offset = self._signed = 0
        self._last_note = b""
        self._pending: list[Entry] = []

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Hold the lock of the ledger, with the index read and in order.

        Raises:
            LedgerError: The directory, the index or the key cannot be used, they do not fit each other, or another
                process holds the lock.
        """
        try:
            self._check_directory()
            with self._lock, ExitStack() as files:
                try:
                    self._open(files)
                    yield self
                except BaseException:
                    self._forget()  # what is on the disk counts
                    raise
                finally:
                    self._key = None  # it is in the file, and may be another one when the index is locked again
        except OSError as error:
            raise LedgerError(
                f"{self._directory}: the ledger cannot be used: {error.strerror}",
                told=f"the ledger takes no more records: {error.strerror}",
            ) from error

    @property
    def ledger(self) -> str:
        """Id of the ledger."""
        return ledger_id(raw_key(self._first_key()))

    def knows(self, stream: str) -> bool:
        """Whether a stream is open: it was neither closed nor recovered."""
        return stream in self._contents.streams

    def dead(self) -> list[OpenStream]:
        """List the open streams whose writer died."""
        return [stream for stream in self._contents.streams.values() if not in_use(self._directory, stream.stream)]

    def live(self) -> list[JsonValue]:
        """List the streams that a writer holds, each with its last checkpoint, as ``stream.opened`` names them."""
        heads: list[JsonValue] = []
        for stream in self._contents.streams.values():
            head = signed_head(self._directory, self.ledger, stream.stream, stream.keys)
            if head is not None and in_use(self._directory, stream.stream):
                heads.append({"stream": stream.stream, "size": head.size, "root": head.root.hex()})
        return heads

    def append(self, entries: Sequence[Entry]) -> list[Record]:
        """Append a group, signed and on the disk, and hand the signing over to the next key. Only when `locked`.

        Args:
            entries: One at least, in order.

        Returns:
            Their records.

        Raises:
            LedgerError: It cannot be written. Nothing of it is in the index, or the next opening finishes it.
        """
        before = self._file.size
        try:
            following = self._keys.prepare()
            records, lines = self._seal(entries, following.public_key())
            self._file.append(b"".join(lines))
            for line in lines:
                self._contents.take(line)
            try:
                self._sign()
            except OSError:
                self._file.cut(before)
                raise
        except OSError as error:
            with suppress(OSError):
                if os.fstat(self._file.descriptor).st_size == before:
                    self._keys.discard()
            raise LedgerError(
                f"{self._file.path}: the index cannot be written: {error.strerror}",
                hint="free space or repair the disk, then open the ledger again",
                told=f"the ledger takes no more records: {error.strerror}",
            ) from error
        self._pending = []
        self._hand_over()
        self._cut_torn_lines()
        self._offset = self._file.size
        return records

    def _check_directory(self) -> None:
        if not self._make and not index_path(self._directory).is_file():
            raise LedgerError(f"{self._directory}: there is no ledger", hint="give the directory of a ledger")
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_IMODE(self._directory.stat().st_mode) & 0o022:
            raise LedgerError(
                f"{self._directory}: others can write to the ledger", hint=f"run: chmod 700 {self._directory}"
            )

    def _open(self, files: ExitStack) -> None:
        """Read what is new in the index and put it in order."""
        path, notes = index_path(self._directory), checkpoints_path(self._directory, INDEX)
        begun = _has_line(path)
        if not begun:
            _check_empty(self._directory)
        elif not notes.exists():
            raise LedgerError(f"{notes}: the checkpoints of the index are gone", hint=_BEHIND)
        self._key = self._keys.load(make=not begun)
        if not begun:
            self._publish()
        made = not (path.exists() and notes.exists())
        self._file, self._notes = files.enter_context(Appended(path)), files.enter_context(Appended(notes))
        if made:
            sync_directory(self._directory)
        size, torn, digest = self._read_lines(path)
        self._read_notes(notes)
        self._settle()
        self._publish()
        if torn:
            self._file.cut(size)
            attrs: dict[str, JsonValue] = {"stream": INDEX, "discarded_bytes": torn, "sha256": digest}
            self._pending.append(Entry(event="ledger.recovered", attrs=attrs))
        if self._contents.whole:
            self._cut_torn_lines()

    def _publish(self) -> None:
        for path in (self._keys.public_path, self._directory / PUBLIC_NAME):
            publish_key(self._first_key(), path)

    def _read_lines(self, path: Path) -> tuple[int, int, str]:
        with open_regular(path) as file:
            size, torn, digest = torn_tail(file)
            if size < self._offset:
                raise LedgerError(f"{path}: the index was cut", hint=_BEHIND)
            file.seek(self._offset)
            while self._offset < size:
                line = file.readline(MAX_LINE_BYTES + 1)
                try:
                    self._contents.take(line)
                except LedgerError as error:
                    raise LedgerError(f"{path}: {error.message}", hint=_BEHIND) from error
                self._offset += len(line)
        return size, torn, digest

    def _read_notes(self, path: Path) -> None:
        with open_regular(path) as file:
            file.seek(self._notes_offset)
            notes, end = whole_notes(file.read())
        for note in notes:
            try:
                self._count(note)
            except LedgerError as error:
                raise LedgerError(f"{path}: checkpoint {self._signed + 1}: {error.message}", hint=_BEHIND) from error
        self._notes_offset += end

    def _count(self, note: bytes) -> None:
        """Take the note of the next group; only the last one has its signature checked, it covers all before it."""
        checkpoint, groups = read_note(note), self._contents.groups
        if self._signed >= len(groups):
            raise LedgerError("the index ends before it: records were taken away")
        group = groups[self._signed]
        if (checkpoint.size, checkpoint.root) != (group.size, group.root):
            raise LedgerError("it is not of this index")
        self._signed, self._last_note = self._signed + 1, note

    def _settle(self) -> None:
        """Compare the end of the index with the key, and finish or take back what was left undone.

        Raises:
            LedgerError: They do not fit. Nothing was written.
            OSError: It cannot be finished.
        """
        contents = self._contents
        groups = len(contents.groups)
        if self._signed:
            signer = contents.key_of(self._signed - 1)
            try:
                open_note(self._last_note, origin_of(self.ledger, INDEX), signer or self._first_key())
            except LedgerError as error:
                raise LedgerError(f"{self._notes.path}: {error.message}", hint=_BEHIND) from error
        following = self._keys.load_next()
        handed_over = self._is(self._key, groups)
        in_between = groups > 0 and self._is(self._key, groups - 1) and self._is(following, groups)
        unsigned = self._signed == groups - 1 and contents.whole and in_between
        if not unsigned and not (self._signed == groups and (handed_over or in_between)):
            raise LedgerError(
                f"{self._keys.path}: the signing key does not fit the index of {self._directory}:"
                " the index was rolled back, or the key was replaced",
                hint=_BEHIND,
            )
        if self._notes.size > self._notes_offset:
            self._notes.cut(self._notes_offset)  # a torn note; its group is signed again, to the same bytes
        if unsigned:
            self._sign()
        if in_between:
            self._hand_over()
        else:
            self._keys.discard()

    def _is(self, key: Ed25519PrivateKey | None, group: int) -> bool:
        """Whether a key is the one that signs a group. Any key may sign the first group while there is no record."""
        wanted = self._contents.key_of(group)
        return key is not None and (wanted is None or raw_key(key.public_key()) == raw_key(wanted))

    def _first_key(self) -> Ed25519PublicKey:
        first = self._contents.key_of(0)
        return first or self._signer().public_key()

    def _signer(self) -> Ed25519PrivateKey:
        if self._key is None:
            raise LedgerError("the index is not locked")
        return self._key

    def _seal(self, entries: Sequence[Entry], next_key: Ed25519PublicKey) -> tuple[list[Record], list[bytes]]:
        contents = self._contents
        now, step = after(contents.time_ns, self._wall())
        first = [] if step is None else [step.entry()]
        if not contents.chain.size:
            shown = shown_key(self._first_key())
            attrs: dict[str, JsonValue] = {"format": FORMAT, "ledger": self.ledger, "public_key": shown}
            first.insert(0, Entry(event="ledger.created", attrs=attrs))
        first += self._pending
        last = replace(entries[-1], attrs={**entries[-1].attrs, "next_key": shown_key(next_key)})
        seq, prev = contents.chain.size, contents.chain.hash
        records: list[Record] = []
        lines: list[bytes] = []
        for entry in [*first, *entries[:-1], last]:
            record, line, _ = seal(entry, seq, format_time(now), prev)
            records.append(record)
            lines.append(line)
            seq, prev = seq + 1, record.hash
        return records[len(first) :], lines

    def _sign(self) -> None:
        """Sign all records, which end a group."""
        tree = self._contents.chain.tree
        note = sign_note(Checkpoint(origin_of(self.ledger, INDEX), tree.size, tree.root()), self._signer())
        self._notes.append(note + b"\n")
        self._notes_offset = self._notes.size
        self._signed, self._last_note = self._signed + 1, note

    def _hand_over(self) -> None:
        self._keys.hand_over()
        self._key = self._keys.load(make=False)

    def _cut_torn_lines(self) -> None:
        for torn in self._contents.torn:
            cut_torn_line(self._directory, torn.stream, torn.length, torn.sha256)

    def _forget(self) -> None:
        """Read everything again when the index is locked the next time."""
        self._contents = Contents()
        self._offset = self._notes_offset = self._signed = 0
        self._last_note = b""
        self._pending = []


def _has_line(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.readline(MAX_LINE_BYTES).endswith(b"\n")
    except FileNotFoundError:
        return False


def _check_empty(directory: Path) -> None:
    """Refuse to begin an index where records are already.

    Raises:
        LedgerError: There are streams; of an older format, or their index is gone.
    """
    for path in directory.glob(f"*{STREAM}"):
        if is_stream_id(path.stem):
            raise LedgerError(
                f"{directory}: the ledger has an older format than {FORMAT}",
                hint="move it aside together with its signing key, and start a new one",
            )
    notes = checkpoints_path(directory, INDEX)
    if any(path.stat().st_size for path in stream_files(directory)) or (notes.exists() and notes.stat().st_size):
        raise LedgerError(f"{directory}: there are streams and no index: it was deleted", hint=_BEHIND)
