"""Ed25519 keys in PEM files, and what is signed with them."""

from __future__ import annotations

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

from cedarbox.errors import ConfigurationError
from cedarbox.files import open_regular, read_private, write_new

__all__ = [
    "MAX_PEM",
    "load_private_key",
    "load_public_key",
    "pae",
    "parse_public_key",
    "private_pem",
    "public_pem",
    "raw_key",
    "write_key_pair",
]

MAX_PEM: Final = 4096
"""The most that is read of a key file, in bytes."""

_MAKE: Final = "make one with cedarbox policy keygen"


def load_private_key(path: Path, what: str = "private key", *, make: bool = False) -> tuple[Ed25519PrivateKey, bool]:
    """Load a private key, or make it when there is none and it may be made.

    Args:
        path: A PEM file in PKCS #8 without a password, that only its owner can read.
        what: What the key is, for messages.
        make: Whether a missing one is made, with mode 0600.

    Returns:
        The key, and whether it was made now.

    Raises:
        ConfigurationError: It cannot be read or made, others can read it, or it is no such key.
    """
    data, made = read_private(path, what, limit=MAX_PEM, new=_new_pem if make else None)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: no PEM private key without a password", hint=_MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: the {what} is not an Ed25519 key", hint=_MAKE)
    return key, made


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Load a public key.

    Args:
        path: A PEM file with an Ed25519 SubjectPublicKeyInfo.

    Raises:
        ConfigurationError: It cannot be read or is no such key.
    """
    try:
        with open_regular(path, follow=True) as file:
            data = file.read(MAX_PEM)
    except ValueError:
        raise ConfigurationError("the path of the public key has a NUL", hint="check the path") from None
    except OSError as error:
        message = f"{path}: the public key cannot be read: {error.strerror}"
        raise ConfigurationError(message, hint="check the path and its mode") from None
    return parse_public_key(data, str(path))


def parse_public_key(data: bytes, where: str) -> Ed25519PublicKey:
    """Parse the content of a PEM file with a public key.

    Args:
        data: The content.
        where: The file, for messages.

    Raises:
        ConfigurationError: It is no such key.
    """
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{where}: no PEM public key", hint=_MAKE) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{where}: the public key is not an Ed25519 key", hint=_MAKE)
    return key


def write_key_pair(path: Path) -> tuple[Path, Ed25519PublicKey]:
    """Make a key pair; nothing is overwritten, and nothing is left when one of the files cannot be made.

    Args:
        path: Where the private key is put, with mode 0600. The public key is put beside it, with the suffix ``.pub``.

    Returns:
        The path of the public key, and the key.

    Raises:
        ConfigurationError: One of the files is there already or cannot be made.
    """
    if path.suffix == ".pub" or path.name in {"", ".."} or "\0" in str(path):
        raise ConfigurationError(f"{path}: not a name for a private key", hint="choose one such as release.key")
    public_path = path.with_suffix(".pub")
    key = Ed25519PrivateKey.generate()
    _write(public_path, public_pem(key.public_key()), 0o644)
    try:
        _write(path, private_pem(key), 0o600)
    except ConfigurationError:
        public_path.unlink()
        raise
    return public_path, key.public_key()


def public_pem(key: Ed25519PublicKey) -> bytes:
    """Return a public key as the content of a PEM file."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as the content of a PEM file: PKCS #8, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def raw_key(key: Ed25519PublicKey) -> bytes:
    """Return the 32 bytes of a public key (RFC 8032 §5.1.5)."""
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what a signature of DSSE 1.0 is made over, its pre-authentication encoding.

    The lengths stand in front, so that nothing can be moved between the type and the payload.
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _new_pem() -> bytes:
    return private_pem(Ed25519PrivateKey.generate())


def _write(path: Path, data: bytes, mode: int) -> None:
    try:
        made = write_new(path, data, mode)
    except OSError as error:
        message = f"{path}: the key cannot be written ({error.strerror})"
        raise ConfigurationError(message, hint="check the path") from None
    if not made:
        raise ConfigurationError(f"{path}: it is there already", hint="choose another path")
