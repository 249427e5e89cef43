"""Checkpoints: signed heads of the Merkle tree of a stream.

A checkpoint is a C2SP signed note (https://c2sp.org/signed-note) with the three lines of a C2SP checkpoint
(https://c2sp.org/tlog-checkpoint): origin, size, root in base64. The origin names the ledger and the stream and is
also the name of the key, so a checkpoint of one stream says nothing about another. A checkpoint file is a sequence of
notes, each followed by an empty line. Notes may carry further signatures, of witnesses for instance.
`cedarbox.audit.notes` reads them.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox.ed25519 import raw_key

__all__ = ["DASH", "Checkpoint", "key_id", "ledger_id", "origin_of", "sign_note"]

_ALGORITHM: Final = b"\x01"  # Ed25519 in C2SP signed-note

DASH: Final = "\N{EM DASH} "
"""How a signature line of a note begins."""


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
    return f"{text}\n{DASH}{checkpoint.origin} {signature.decode()}\n".encode()
