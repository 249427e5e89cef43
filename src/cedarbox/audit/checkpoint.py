"""Checkpoints: signed heads of the Merkle tree of a stream.

A checkpoint is a C2SP signed note (https://c2sp.org/signed-note) with the three lines of a C2SP checkpoint
(https://c2sp.org/tlog-checkpoint): origin, size, root in base64. The origin names the ledger and the stream and is
also the name of the key, so a checkpoint of one stream says nothing about another. A checkpoint file is a sequence of
notes, each followed by an empty line. Notes may carry further signatures, of witnesses for instance; they are not
checked here.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError

__all__ = [
    "Checkpoint",
    "iter_notes",
    "key_id",
    "ledger_id",
    "open_note",
    "origin_of",
    "read_note",
    "sign_note",
    "whole_notes",
]

_ALGORITHM: Final = b"\x01"  # Ed25519 in C2SP signed-note
_DASH: Final = "\N{EM DASH} "


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head.

    Args:
        origin: Name of the tree, as `origin_of` gives it.
        size: Number of records.
        root: Merkle root over them, 32 bytes.
    """

    origin: str
    size: int
    root: bytes


def ledger_id(public_key: bytes) -> str:
    """Give the id of a ledger: the first 16 hex digits of the SHA-256 of its first public key (32 bytes)."""
    return sha256(public_key).hexdigest()[:16]


def origin_of(ledger: str, stream: str) -> str:
    """Give the origin line and key name of a stream.

    Args:
        ledger: Id of the ledger, as `ledger_id` gives it.
        stream: Id of the stream, or ``index``.
    """
    return f"cedarbox.local/ledger/{ledger}/{stream}"


def key_id(name: str, key: Ed25519PublicKey) -> bytes:
    """Give the four bytes that stand for a key in a signature line."""
    return sha256(name.encode() + b"\n" + _ALGORITHM + raw_key(key)).digest()[:4]


def sign_note(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> bytes:
    """Sign a tree head.

    Args:
        checkpoint: The tree head.
        key: The signing key of the ledger.

    Returns:
        The note, without the empty line that follows it in a file.
    """
    text = f"{checkpoint.origin}\n{checkpoint.size}\n{b64encode(checkpoint.root).decode()}\n"
    signature = b64encode(key_id(checkpoint.origin, key.public_key()) + key.sign(text.encode()))
    return f"{text}\n{_DASH}{checkpoint.origin} {signature.decode()}\n".encode()


def iter_notes(data: bytes) -> Iterator[bytes]:
    """Cut the content of a checkpoint file into notes. What cannot be a whole note comes out as it is."""
    rest = data
    while rest:
        text, middle, tail = rest.partition(b"\n\n")
        signatures, end, rest = tail.partition(b"\n\n")
        yield text + middle + signatures + end[:1]


def whole_notes(data: bytes) -> tuple[list[bytes], int]:
    """Give the notes of a checkpoint file that are whole, and the number of bytes that they take.

    What a writer that died left behind them is not counted.
    """
    notes: list[bytes] = []
    end = 0
    for note in iter_notes(data):
        end += len(note)
        if note.count(b"\n\n") != 1 or data[end : end + 1] != b"\n":
            return notes, end - len(note)
        end += 1
        notes.append(note)
    return notes, end


def read_note(note: bytes) -> Checkpoint:
    """Read a note without looking at its signatures.

    Raises:
        LedgerError: It is malformed.
    """
    return _parse(note)[0]


def open_note(note: bytes, origin: str, key: Ed25519PublicKey) -> Checkpoint:
    """Check the form and the signature of a note.

    Args:
        note: The note, any bytes.
        origin: The origin that it must have.
        key: The key that must have signed it.

    Raises:
        LedgerError: It is malformed, of another origin, or not signed with that key.
    """
    checkpoint, text, signatures = _parse(note)
    if checkpoint.origin != origin:
        raise LedgerError("the checkpoint is of another stream")
    try:
        _check_signature(text, signatures, origin, key)
    except ValueError as error:  # binascii.Error
        raise LedgerError("a signature of the checkpoint is not base64") from error
    return checkpoint


def _parse(note: bytes) -> tuple[Checkpoint, bytes, str]:
    """Give the tree head, the text that is signed, and the lines of the signatures."""
    try:
        head, middle, signatures = note.decode().partition("\n\n")
        lines = head.split("\n")
        if not middle or len(lines) != 3 or not note.endswith(b"\n"):
            raise LedgerError("the checkpoint is not a signed note of three lines")
        root = b64decode(lines[2], validate=True)
        if len(root) != 32:
            raise LedgerError("the root of the checkpoint is not 32 bytes")
        return Checkpoint(lines[0], _parse_size(lines[1]), root), f"{head}\n".encode(), signatures
    except ValueError as error:  # UnicodeDecodeError and binascii.Error are such
        raise LedgerError("the checkpoint is not UTF-8 and base64") from error


def _parse_size(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 16 or (len(text) > 1 and text[0] == "0"):
        raise LedgerError("the size of the checkpoint is not a number")
    return int(text)


def _check_signature(text: bytes, signatures: str, name: str, key: Ed25519PublicKey) -> None:
    """Look for a signature by ``key`` that holds; signatures by other keys are passed over, as C2SP says."""
    wanted = key_id(name, key)
    ours: bytes | None = None
    for line in signatures.removesuffix("\n").split("\n"):
        mark, signer, encoded = (*line.split(" "), "", "")[:3]
        blob = b64decode(encoded, validate=True)
        if f"{mark} " != _DASH or not signer or len(blob) < 5 or line != f"{_DASH}{signer} {b64encode(blob).decode()}":
            raise LedgerError("a signature line of the checkpoint is malformed")
        if signer == name and blob[:4] == wanted and ours is None:
            ours = blob[4:]
    if ours is not None:
        try:
            key.verify(ours, text)
        except InvalidSignature as error:
            raise LedgerError("the signature of the checkpoint is false") from error
        return
    raise LedgerError("the checkpoint is not signed with the key of this ledger")
