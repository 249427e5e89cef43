"""The Ed25519 key of a ledger: made on first use, refused when others can read it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox import ed25519
from cedarbox.ed25519 import public_pem, raw_key
from cedarbox.errors import ConfigurationError, LedgerError
from cedarbox.files import write_new

__all__ = ["PUBLIC_NAME", "find_public_key", "load_public_key", "load_signing_key", "publish_key"]

PUBLIC_NAME: Final = "ledger.pub"
"""Name of the copy of the public key inside the ledger directory."""


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
    try:
        return ed25519.load_private_key(path, "signing key", make=True)
    except ConfigurationError as error:
        raise LedgerError(error.message, hint=error.hint) from None


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Load a public key.

    Args:
        path: A PEM file with an Ed25519 SubjectPublicKeyInfo.

    Raises:
        LedgerError: It cannot be read or is no Ed25519 key.
    """
    try:
        return ed25519.load_public_key(path)
    except ConfigurationError as error:
        raise LedgerError(error.message, hint=error.hint) from None


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
        written = write_new(path, public_pem(key), 0o644)
    except OSError as error:
        raise LedgerError(f"{path}: the public key cannot be written: {error.strerror}") from error
    if not written and raw_key(load_public_key(path)) != raw_key(key):
        raise LedgerError(
            f"{path}: the ledger was signed with another key",
            hint="give that signing key, or start a ledger in a new directory",
        )
