"""Reading signed notes one after the other, and telling how a signature is bad.

`cedarbox.audit.checkpoint` says what a note is. A stream may live for a year and have a note for each second of it, so
a file of notes is read piece by piece.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.checkpoint import DASH, key_id
from cedarbox.errors import LedgerError

__all__ = ["Note", "NoteCursor", "notes_in", "open_note", "public_key_from", "read_note", "whole_notes"]

_CHUNK: Final = 64 * 1024
_MAX_NOTE: Final = 64 * 1024  # three lines and the signatures of a few witnesses have less than 2 KiB


@dataclass(frozen=True, slots=True)
class Note:
    """A note whose form is good and whose signatures have not been looked at.

    Args:
        origin: The tree it is about.
        size: Number of records.
        root: Merkle root over them, 32 bytes.
        data: The note.
        signatures: Name of the signer, and key id and signature, of each signature line.
    """

    origin: str
    size: int
    root: bytes
    data: bytes
    signatures: tuple[tuple[str, bytes], ...]

    def signed_by(self, key: Ed25519PublicKey) -> Literal["good", "false", "other"]:
        """Tell whether a key signed this note.

        Returns:
            ``good``: it did. ``false``: a signature claims to be by this key and is not. ``other``: none claims it.
        """
        wanted = key_id(self.origin, key)
        for name, blob in self.signatures:
            if name == self.origin and blob[:4] == wanted:
                try:
                    key.verify(blob[4:], self.data[: self.data.index(b"\n\n") + 1])
                except InvalidSignature:
                    return "false"
                return "good"
        return "other"


class NoteCursor:
    """Goes through the notes of one tree.

    Args:
        origin: The tree that they must be about.

    Attributes:
        note: The note where it stands; None before the first one and after the last one that is good in form.
        bad: What is wrong with the first one that is not, or with the file.
        torn: Whether bytes that are no whole note come after the last one.
    """

    def __init__(self, origin: str) -> None:
        self.note: Note | None = None
        self.bad: str | None = None
        self.torn = False
        self._origin, self._number, self._size = origin, 0, 0
        self._source: Iterator[tuple[bytes, bool]] = iter(())

    def read(self, file: BinaryIO, limit: int) -> None:
        """Go to the first note of a file, of which ``limit`` bytes are looked at."""
        self._source = notes_in(file, limit)
        self.advance()

    def advance(self) -> None:
        """Go to the next note. Notes that are bad in form, of another tree or out of order end them."""
        self.note = None
        data, whole = next(self._source, (b"", True))
        self.torn = self.torn or not whole
        if not data or not whole:
            return
        self._number += 1
        try:
            note = read_note(data)
        except LedgerError as error:
            self._end(f"note {self._number}: {error.message}")
            return
        if note.origin != self._origin:
            self._end(f"note {self._number} is of another tree")
        elif note.size <= self._size:
            self._end(f"note {self._number} is out of order")
        else:
            self.note, self._size = note, note.size

    def _end(self, bad: str) -> None:
        self.bad, self._source = bad, iter(())


def public_key_from(text: object) -> Ed25519PublicKey | None:
    """Read a public key as records hold it: the base64 of 32 bytes. None when it is no such thing."""
    if not isinstance(text, str) or len(text) != 44:
        return None
    try:
        raw = b64decode(text, validate=True)
    except ValueError:
        return None
    if len(raw) != 32 or b64encode(raw).decode() != text:
        return None
    return Ed25519PublicKey.from_public_bytes(raw)


def notes_in(file: BinaryIO, limit: int) -> Iterator[tuple[bytes, bool]]:
    """Cut a file of notes into notes.

    Args:
        file: The file, at its start.
        limit: Number of bytes that are looked at.

    Yields:
        Each note, and True; bytes at the end that are no whole note come last, with False.
    """
    rest = b""
    while limit > 0 and (chunk := file.read(min(_CHUNK, limit))):
        limit -= len(chunk)
        rest += chunk
        while (middle := rest.find(b"\n\n")) >= 0 and (end := rest.find(b"\n\n", middle + 2)) >= 0:
            yield rest[: end + 1], True
            rest = rest[end + 2 :]
        if len(rest) > _MAX_NOTE:
            break
    if rest:
        yield rest, False


def whole_notes(data: bytes) -> tuple[list[bytes], int]:
    """Give the notes of a file of notes that are whole, and the number of bytes that they take.

    What a writer that died left behind them is not counted.
    """
    notes = [note for note, whole in notes_in(BytesIO(data), len(data)) if whole]
    return notes, sum(len(note) + 1 for note in notes)


def open_note(data: bytes, origin: str, key: Ed25519PublicKey) -> Note:
    """Check the form and the signature of a note.

    Args:
        data: The note, any bytes.
        origin: The origin that it must have.
        key: The key that must have signed it; signatures by other keys are passed over, as C2SP says.

    Raises:
        LedgerError: It is malformed, of another origin, or not signed with that key.
    """
    note = read_note(data)
    if note.origin != origin:
        raise LedgerError("the checkpoint is of another stream")
    state = note.signed_by(key)
    if state != "good":
        bad = "its signature is false" if state == "false" else "it is not signed with the key of this ledger"
        raise LedgerError(f"the checkpoint does not hold: {bad}")
    return note


def read_note(data: bytes) -> Note:
    """Check the form of a note.

    Args:
        data: The note, any bytes.

    Raises:
        LedgerError: It is no note of a tree head.
    """
    try:
        head, middle, signatures = data.decode().partition("\n\n")
        lines = head.split("\n")
        if not middle or len(lines) != 3 or not data.endswith(b"\n"):
            raise LedgerError("it is not a signed note of three lines")
        size = _size(lines[1])
        root = b64decode(lines[2], validate=True)
        if len(root) != 32 or b64encode(root).decode() != lines[2]:
            raise LedgerError("its root is not 32 bytes in base64")
        signers = tuple(_signature(line) for line in signatures.removesuffix("\n").split("\n"))
    except ValueError as error:  # UnicodeDecodeError and binascii.Error are such
        raise LedgerError("it is not UTF-8 and base64") from error
    return Note(lines[0], size, root, data, signers)


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or text[0] == "0":
        raise LedgerError("its size is not a number above zero")
    return int(text)


def _signature(line: str) -> tuple[str, bytes]:
    mark, name, encoded = (*line.split(" "), "", "")[:3]
    blob = b64decode(encoded, validate=True)
    if f"{mark} " != DASH or not name or len(blob) < 5 or line != f"{DASH}{name} {b64encode(blob).decode()}":
        raise LedgerError("a signature line is malformed")
    return name, blob
