"""Ed25519 keys of those who sign bundles, in PEM files."""

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

from cedarbox.errors import ConfigurationError
from cedarbox.policy.files import open_regular, write_file

__all__ = ["load_private_key", "load_public_key", "write_key_pair"]

_MAX_PEM: Final = 4096
_MAKE: Final = "make one with cedarbox policy keygen"


def load_public_key(path: Path) -> Ed25519PublicKey:
    """Load a public key.

    Args:
        path: A PEM file with an Ed25519 SubjectPublicKeyInfo.

    Raises:
        ConfigurationError: It cannot be read or is no such key.
    """
    data, _ = _read(path, "public")
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: no PEM public key", hint=_MAKE) from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path}: the public key is not an Ed25519 key", hint=_MAKE)
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Load a private key.

    Args:
        path: A PEM file in PKCS #8 without a password, that only its owner can read.

    Raises:
        ConfigurationError: It cannot be read, others can read it, or it is no such key.
    """
    data, status = _read(path, "private")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(f"{path}: the private key can be read by others", hint=f"run: chmod 600 {path}")
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"{path}: no PEM private key without a password", hint=_MAKE) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path}: the private key is not an Ed25519 key", hint=_MAKE)
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
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    _new(public_path, public, 0o644)
    try:
        _new(path, private, 0o600)
    except ConfigurationError:
        public_path.unlink()
        raise
    return public_path, key.public_key()


def _new(path: Path, data: bytes, mode: int) -> None:
    try:
        write_file(path, data, mode, replace=False)
    except FileExistsError:
        raise ConfigurationError(f"{path}: it is there already", hint="choose another path") from None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the key cannot be written ({error.strerror})", hint="check the path"
        ) from None


def _read(path: Path, kind: str) -> tuple[bytes, os.stat_result]:
    try:
        with open_regular(path, follow=True) as file:
            return file.read(_MAX_PEM), os.fstat(file.fileno())
    except ValueError:
        raise ConfigurationError(f"the path of the {kind} key has a NUL", hint="check the path") from None
    except OSError as error:
        message = f"{path}: the {kind} key cannot be read ({error.strerror})"
        raise ConfigurationError(message, hint="check the path and its mode") from None
