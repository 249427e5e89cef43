"""The secret key of a site's sandboxes: it seals saved states and snapshots.

One file of 32 random bytes, written as 64 hexadecimal digits, beside the key of the ledger. It is made on first use.
What it seals can be neither read nor changed by who has the files and not the key; who has the key can do both.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cedarbox.errors import ConfigurationError
from cedarbox.files import read_private

__all__ = ["KEY_NAME", "SandboxKey"]

KEY_NAME: Final = "sandbox.key"
"""Name of the key file beside the key of the ledger."""

_BYTES: Final = 32
_HEX: Final = re.compile(rb"[0-9a-f]{64}\n").fullmatch


@dataclass(frozen=True, slots=True)
class SandboxKey:
    """The key, in memory.

    Attributes:
        path: The file it is in.
        made: It was made by this call.
    """

    path: Path
    made: bool
    _secret: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path, *, make: bool = True) -> Self:
        """Read the key, or make it with mode 0600 when there is none.

        Args:
            path: The key file.
            make: Whether a missing one is made. What was sealed needs the key that sealed it, so reading makes none.

        Raises:
            ConfigurationError: It cannot be read or made, others may read it, it belongs to someone else, or it is
                not a key.
        """
        new = (lambda: secrets.token_hex(_BYTES).encode() + b"\n") if make else None
        hint = "check its directory" if make else "give the key that sealed it"
        data, made = read_private(path, "sandbox key", limit=2 * _BYTES + 2, new=new, hint=hint)
        if not _HEX(data):
            raise ConfigurationError(f"{path}: this is not a sandbox key", hint="it is one line of 64 hex digits")
        return cls(path, made, bytes.fromhex(data.decode().strip()))

    def derived(self, purpose: bytes, *, salt: bytes = b"") -> bytes:
        """Derive a key of 32 bytes for one purpose (HKDF with SHA-256, RFC 5869).

        Args:
            purpose: What it is for; no two purposes share a key.
            salt: Random bytes that make it a key of its own; none for a key that stays the same.
        """
        return HKDF(algorithm=SHA256(), length=_BYTES, salt=salt or None, info=purpose).derive(self._secret)
