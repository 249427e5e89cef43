"""The Ed25519 key of a ledger: made on first use, refused when others can read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cedarbox.audit.files import write_new
from cedarbox.errors import LedgerError

__all__ = ["PUBLIC_NAME", "find_public_key", "load_public_key", "load_signing_key", "publish_key", "raw_key"]

PUBLIC_NAME: Final = "ledger.pub"
"""Name of the copy of the public key inside the ledger directory."""

_MAX_PEM_BYTES: Final = 4096


def load_signing_key(path: Path) -> tuple[Ed25519PrivateKey, bool]:
    """Load the signing key, or make it (mode 0600) when there is none.

    Args:
        path: A PEM file in PKCS #8 without a password.

    Returns:
        The key, and whether it was made now.

    Raises:
        LedgerError: The key cannot be read or made, belongs to someone else, can be read by others, or is no Ed25519
            key.
    """
    made = False
    try:
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            made = write_new(path, pem, 0o600)
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(_MAX_PEM_BYTES)
    except OSError as error:
        raise LedgerError(f"{path}: the signing key cannot be used: {error.strerror}") from error
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise LedgerError(f"{path}: the signing key can be read by others", hint=f"run: chmod 600 {path}")
    if status.st_uid not in {0, os.geteuid()}:
        raise LedgerError(f"{path}: the signing key belongs to user {status.st_uid}", hint="use a key of your own")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise LedgerError(f"{path}: no PEM private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise LedgerError(f"{path}: the signing key is not an Ed25519 key", hint="make one with openssl genpkey")
    return key, made


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Load a public key.

    Args:
        path: A PEM file with an Ed25519 SubjectPublicKeyInfo.

    Raises:
        LedgerError: It cannot be read or is no Ed25519 key.
    """
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(_MAX_PEM_BYTES))
    except OSError as error:
        raise LedgerError(f"{path}: the public key cannot be read: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise LedgerError(f"{path}: no PEM public key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise LedgerError(f"{path}: the public key is not an Ed25519 key")
    return key


def find_public_key(directory: Path) -> Path:
    """Find the public key that lies beside a ledger: ``../ledger.pub``, else the copy inside.

    Raises:
        LedgerError: There is none.
    """
    for path in (directory.parent / PUBLIC_NAME, directory / PUBLIC_NAME):
        if path.is_file():
            return path
    raise LedgerError(f"{directory}: no public key beside the ledger", hint="give the public key that you trust")


def publish_key(key: Ed25519PublicKey, path: Path) -> None:
    """Write the public key durably, unless it is there already.

    Args:
        key: The public key.
        path: The PEM file to write.

    Raises:
        LedgerError: The file holds another key or cannot be written.
    """
    try:
        written = write_new(path, key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    except OSError as error:
        raise LedgerError(f"{path}: the public key cannot be written: {error.strerror}") from error
    if not written and raw_key(load_public_key(path)) != raw_key(key):
        raise LedgerError(
            f"{path}: the ledger was signed with another key",
            hint="give that signing key, or start a ledger in a new directory",
        )


def raw_key(key: Ed25519PublicKey) -> bytes:
    """Give the 32 bytes of a public key."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
