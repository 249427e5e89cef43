"""What became of a stream whose writer died.

The key of its checkpoints died with the writer, so nobody can sign for the stream again. Whoever opens the ledger next
records in the index where the stream ends, and in what state it was found. A last line without its line feed was never
acknowledged: it is recorded, then cut.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.chain import Chain
from cedarbox.audit.checkpoint import origin_of
from cedarbox.audit.files import checkpoints_path, segment_files, segment_of, sync, torn_tail
from cedarbox.audit.notes import Note, open_note, read_note, whole_notes
from cedarbox.audit.record import MAX_LINE_BYTES, Entry, JsonValue
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["Ending", "cut_torn_line", "examine", "signed_head"]

_TAIL: Final = 8192  # a note has some 300 bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """Where a stream ends.

    Args:
        stream: Its id.
        state: ``ended``, or ``missing`` when a file is gone, or ``damaged`` when its records or checkpoints do not
            hold together.
        size: Number of records that hold together from the first on.
        hash: Hash of the last of them.
        root: Merkle root over them, in hex.
        unsigned: How many of them are after the last checkpoint.
        discarded_bytes: Length of the torn last line, which is cut.
        sha256: Hash of that, in hex.
        message: What is missing or damaged; empty when nothing is.
    """

    stream: str
    state: Literal["ended", "missing", "damaged"]
    size: int
    hash: str
    root: str
    unsigned: int
    discarded_bytes: int
    sha256: str
    message: str = ""

    def entry(self) -> Entry:
        """Give the record of the index about it."""
        attrs: dict[str, JsonValue] = {
            "stream": self.stream,
            "state": self.state,
            "size": self.size,
            "hash": self.hash,
            "root": self.root,
            "unsigned": self.unsigned,
            "discarded_bytes": self.discarded_bytes,
            "sha256": self.sha256,
        }
        return Entry(event="stream.recovered", attrs=attrs | ({"message": self.message} if self.message else {}))


class _GoneError(LedgerError):
    """A file of the stream is not there."""


def examine(directory: Path, ledger: str, stream: str, keys: Sequence[Ed25519PublicKey]) -> Ending:
    """Look at all of a stream that nobody writes any more. Nothing is changed.

    Args:
        directory: The ledger.
        ledger: Its id.
        stream: The stream.
        keys: The keys of its segments as far as the index names them; at least one.
    """
    chain = Chain()
    torn, digest = 0, sha256().hexdigest()
    signed = 0
    state: Literal["ended", "missing", "damaged"] = "ended"
    message = ""
    try:
        roots, signed = _notes(directory, ledger, stream, keys[-2:])
        for path in _segments(directory, stream, len(keys)):
            if torn:
                raise LedgerError("a segment before the last ends in the middle of a line")  # noqa: TRY301
            torn, digest = _read(path, chain, roots)
        if signed > chain.size:
            raise LedgerError(f"{signed} records were signed, {chain.size} are there")  # noqa: TRY301
    except _GoneError as error:
        state, message = "missing", error.message
    except LedgerError as error:
        state, message = "damaged", error.message
    except OSError as error:
        state, message = "damaged", f"it cannot be read: {error.strerror}"
    if state != "ended":
        torn, digest = 0, sha256().hexdigest()  # what is damaged stays as it was found
    unsigned = max(0, chain.size - signed)
    root = chain.tree.root().hex()
    return Ending(stream, state, chain.size, chain.hash, root, unsigned, torn, digest, message)


def signed_head(directory: Path, ledger: str, stream: str, keys: Sequence[Ed25519PublicKey]) -> Note | None:
    """Give the last checkpoint of a stream that is being written; None when it has no good one yet.

    Args:
        directory: The ledger.
        ledger: Its id.
        stream: The stream.
        keys: The keys of its segments as far as the index names them.
    """
    try:
        with open_regular(checkpoints_path(directory, stream)) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            data = file.read()
    except OSError:
        return None
    parts = data.split(b"\n\n")
    # Text and signatures take turns, but the beginning was cut off and the writer may be in the middle of a note.
    for text, signatures in zip(parts[-3::-1], parts[-2:0:-1], strict=True):
        with suppress(LedgerError):
            return _signed(text + b"\n\n" + signatures + b"\n", origin_of(ledger, stream), keys)
    return None


def cut_torn_line(directory: Path, stream: str, discarded_bytes: int, digest: str) -> None:
    """Cut the torn last line of a stream, which is on record. Nothing when it was cut already, or is another now.

    Args:
        directory: The ledger.
        stream: The stream.
        discarded_bytes: Its length.
        digest: Its SHA-256, in hex.

    Raises:
        LedgerError: The file cannot be cut.
    """
    try:
        for path in segment_files(directory, stream)[-1:]:
            with open_regular(path, os.O_RDWR) as file:
                size, torn, found = torn_tail(file)
                if torn and (torn, found) == (discarded_bytes, digest):
                    os.ftruncate(file.fileno(), size)
                    sync(file.fileno())
    except OSError as error:
        raise LedgerError(f"{stream}: the torn last line cannot be cut: {error.strerror}") from error


def _notes(
    directory: Path, ledger: str, stream: str, keys: Sequence[Ed25519PublicKey]
) -> tuple[Mapping[int, bytes], int]:
    """Give the roots by size of all checkpoints, and the size of the last, which must be signed: it covers the rest."""
    try:
        with open_regular(checkpoints_path(directory, stream)) as file:
            notes, _ = whole_notes(file.read())
    except FileNotFoundError:
        raise _GoneError("its checkpoints are gone") from None
    roots: dict[int, bytes] = {}
    size = 0
    for note in notes:
        checkpoint = read_note(note)
        if checkpoint.size <= size:
            raise LedgerError(f"the checkpoint for {checkpoint.size} records is out of order")
        size = checkpoint.size
        roots[size] = checkpoint.root
    if notes:
        _signed(notes[-1], origin_of(ledger, stream), keys)
    return roots, size


def _signed(note: bytes, origin: str, keys: Sequence[Ed25519PublicKey]) -> Note:
    failure = LedgerError("no key is known")
    for key in reversed(keys):
        try:
            return open_note(note, origin, key)
        except LedgerError as error:
            failure = error
    raise failure


def _segments(directory: Path, stream: str, named: int) -> list[Path]:
    """Give the segments in order; the last one that the index names may not have been begun."""
    paths = segment_files(directory, stream)
    numbers = [segment_of(path) for path in paths]
    for number in range(max(1, named - 1)):
        if number not in numbers:
            raise _GoneError(f"its segment {number} is gone")
    if numbers[-1] >= named:
        raise LedgerError(f"its segment {numbers[-1]} is not in the index")
    return paths


def _read(path: Path, chain: Chain, roots: Mapping[int, bytes]) -> tuple[int, str]:
    """Take the whole lines of a segment. Gives the length and hash of what stands after the last line feed."""
    with open_regular(path) as file:
        sync(file.fileno())  # it may have been written by a process that died before its sync
        size, torn, digest = torn_tail(file)
        file.seek(0)
        while size:
            line = file.readline(MAX_LINE_BYTES + 1)
            chain.take(line)
            root = roots.get(chain.size)
            if root is not None and root != chain.tree.root():
                raise LedgerError(f"the checkpoint for {chain.size} records has another root")
            size -= len(line)
    return torn, digest
