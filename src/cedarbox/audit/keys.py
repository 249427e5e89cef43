"""The keys of a ledger.

The index is signed with a key that lies in a file, and each such key signs one group of records only: the group names
the key of the next one, and the file is replaced. The key of a stream is never in a file. So whoever steals the key
file can sign what comes next, but nothing that is there already.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cedarbox import ed25519
from cedarbox.ed25519 import private_pem, public_pem, raw_key
from cedarbox.errors import ConfigurationError, LedgerError
from cedarbox.files import open_regular, read_private, sync_directory, write_all, write_new

__all__ = ["PUBLIC_NAME", "KeyFile", "find_public_key", "load_public_key", "publish_key"]

PUBLIC_NAME: Final = "ledger.pub"
"""Name of the copy of the first public key inside the ledger directory."""

_WHAT: Final = "signing key"


class KeyFile:
    """The file with the key that signs the next group of the index, and the one beside it that comes after it.

    Args:
        path: A PEM file in PKCS #8 without a password, mode 0600. A link is followed once, now.
    """

    def __init__(self, path: Path) -> None:
        # The file that a link leads to is replaced, not the link: the old key must not stay behind it.
        self.path = Path(os.path.realpath(path))
        self.next_path = self.path.with_name(f"{self.path.name}.next")

    @property
    def public_path(self) -> Path:
        """Where the first public key is put beside it."""
        return self.path.with_suffix(".pub")

    def load(self, *, make: bool) -> Ed25519PrivateKey:
        """Load the key, or make it when there is none and ``make`` says so.

        Raises:
            LedgerError: The key cannot be read or made, belongs to someone else, can be read by others, or is no
                Ed25519 key.
        """
        try:
            return ed25519.load_private_key(self.path, _WHAT, make=make)[0]
        except ConfigurationError as error:
            raise LedgerError(error.message, hint=error.hint) from None

    def load_next(self) -> Ed25519PrivateKey | None:
        """Load the key that comes after it; None when there is none or it was not written to its end.

        Raises:
            LedgerError: It belongs to someone else, or can be read by others.
        """
        if not os.path.lexists(self.next_path):
            return None
        try:
            read_private(self.next_path, _WHAT, limit=ed25519.MAX_PEM)
        except ConfigurationError as error:
            raise LedgerError(error.message, hint=error.hint) from None
        with suppress(ConfigurationError):
            return ed25519.load_private_key(self.next_path, _WHAT)[0]
        return None

    def prepare(self) -> Ed25519PrivateKey:
        """Make the key that comes after it, durably, in place of one that was made and never named.

        Raises:
            OSError: It cannot be written.
        """
        self.discard()
        key = Ed25519PrivateKey.generate()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.next_path, flags, 0o600)
        try:
            write_all(descriptor, private_pem(key))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self.path.parent)
        return key

    def discard(self) -> None:
        """Remove the key that comes after it.

        Raises:
            OSError: It cannot be removed.
        """
        self.next_path.unlink(missing_ok=True)

    def hand_over(self) -> None:
        """Put the next key in the place of this one, durably, and overwrite what this one was.

        Raises:
            OSError: It cannot be replaced.
        """
        with open_regular(self.path, os.O_RDWR) as old:
            self.next_path.replace(self.path)
            sync_directory(self.path.parent)
            # The name is gone; its content, and hard links to it, are not. A disk may keep other copies.
            with suppress(OSError):
                os.pwrite(old.fileno(), bytes(os.fstat(old.fileno()).st_size), 0)
                os.fsync(old.fileno())


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
    """Find the first public key of a ledger: ``<directory>.pub`` beside it, else the copy inside.

    Raises:
        LedgerError: There is none.
    """
    place = directory.absolute()
    for path in (place.with_name(f"{place.name}.pub"), place / PUBLIC_NAME):
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
        written = not os.path.lexists(path) and write_new(path, public_pem(key), 0o644)
    except OSError as error:
        raise LedgerError(f"{path}: the public key cannot be written: {error.strerror}") from error
    if not written and raw_key(load_public_key(path)) != raw_key(key):
        raise LedgerError(
            f"{path}: the ledger was signed with another key",
            hint="give that signing key, or start a ledger in a new directory with a key of its own",
        )
