"""Encrypted files that are whole or refused: AES-256-GCM in chunks, after the STREAM construction.

A file is a header (18 bytes of magic, 32 of salt) and chunks of 1 MiB, the last of which may be shorter, each followed
by its tag of 16 bytes. Every file has a key of its own, derived from the sandbox key, the salt and the label. The nonce
of a chunk is its number and whether it is the last one, so chunks can be neither left out, repeated, reordered nor
moved to another file, and a file cannot end early (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015).
"""

from __future__ import annotations

import asyncio
import io
import os
import secrets
from hashlib import sha256
from typing import BinaryIO, Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cedarbox.errors import SnapshotError
from cedarbox.guard.keys import SandboxKey
from cedarbox.guard.saved import Measure

__all__ = ["CHUNK", "HEADER", "TAG", "SealedReader", "seal"]

CHUNK: Final = 1024 * 1024
"""Bytes of content in each chunk but the last."""
TAG: Final = 16
"""Bytes of a tag of AES-GCM (NIST SP 800-38D §5.2.1.2)."""

_MAGIC: Final = b"CEDARBOX-SEALED-1\n"
_SALT: Final = 32
_NONCE: Final = 12
HEADER: Final = len(_MAGIC) + _SALT
"""Bytes before the first chunk."""


class Source(Protocol):
    """Where content comes from."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most ``size`` bytes; nothing at the end."""


async def seal(source: Source, sink: BinaryIO, key: SandboxKey, label: str) -> str:
    """Write all of a stream, encrypted. Takes 3 MiB of memory, whatever the stream has.

    Args:
        source: The content.
        sink: An empty file.
        key: The sandbox key.
        label: What the content is; it can be read again under this label only.

    Returns:
        SHA-256 of the file, in hex.
    """
    header = _MAGIC + secrets.token_bytes(_SALT)
    cipher, aad = _cipher(key, header, label)
    digest = sha256(header)
    sink.write(header)
    chunk, number, last = _filled(source), 0, False
    while not last:
        following = _filled(source) if len(chunk) == CHUNK else b""
        last = not following
        data = cipher.encrypt(_nonce(number, last=last), chunk, aad)
        digest.update(data)
        sink.write(data)
        chunk, number = following, number + 1
        # Others may run, and a cancelled call ends here.
        await asyncio.sleep(0)
    return digest.hexdigest()


class SealedReader(io.RawIOBase):
    """The content of a sealed file, decrypted as it is read; nothing in clear reaches the disk.

    Each chunk is authenticated when it is read, also when all were before: the file may change meanwhile.

    Args:
        file: The sealed file; closed with the reader.
        key: The key that sealed it.
        label: The label under which it was sealed.

    Raises:
        SnapshotError: It is not a sealed file, or is not whole.
    """

    def __init__(self, file: BinaryIO, key: SandboxKey, label: str) -> None:
        super().__init__()
        self._file, self._label = file, label
        header = file.read(HEADER)
        body = os.fstat(file.fileno()).st_size - HEADER
        if len(header) != HEADER or not header.startswith(_MAGIC) or body < TAG:
            raise self._refused("it is not a sealed file, or was cut off")
        self._cipher, self._aad = _cipher(key, header, label)
        self._chunks = -(-body // (CHUNK + TAG))
        self._size = body - self._chunks * TAG
        if body - (self._chunks - 1) * (CHUNK + TAG) < TAG:
            raise self._refused("it was cut off")
        self._position = 0
        self._at, self._chunk = -1, b""

    async def verify(self, *, sha256_hex: str = "") -> Measure:
        """Authenticate every chunk.

        Args:
            sha256_hex: SHA-256 that the file must have; empty for any.

        Returns:
            What the content is, not the file.

        Raises:
            SnapshotError: The file is not what was sealed.
        """
        self._file.seek(0)
        digest, content = sha256(self._file.read(HEADER)), sha256()
        for number in range(self._chunks):
            plain, data = self._read_chunk(number)
            digest.update(data)
            content.update(plain)
            await asyncio.sleep(0)
        if sha256_hex and digest.hexdigest() != sha256_hex:
            raise self._refused("it was saved again since, or an older one was put in its place")
        return Measure(content.hexdigest(), self._size)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def tell(self) -> int:
        """Return the position in the content."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position of the content."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"negative seek position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        """Read up to the end of the chunk in which the position is."""
        number, inside = divmod(self._position, CHUNK)
        if self._position >= self._size:
            return 0
        if number != self._at:
            self._at, self._chunk = number, self._read_chunk(number)[0]
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # what io hands over
        data = self._chunk[inside : inside + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file and forget what was decrypted."""
        self._chunk = b""
        self._file.close()
        super().close()

    def _read_chunk(self, number: int) -> tuple[bytes, bytes]:
        self._file.seek(HEADER + number * (CHUNK + TAG))
        data = self._file.read(CHUNK + TAG)
        try:
            return self._cipher.decrypt(_nonce(number, last=number == self._chunks - 1), data, self._aad), data
        except InvalidTag:
            raise self._refused("it was changed, or was sealed with another key or for another session") from None

    def _refused(self, reason: str) -> SnapshotError:
        return SnapshotError(f"{self._label} does not hold what was saved: {reason}", hint="use another snapshot")


def _cipher(key: SandboxKey, header: bytes, label: str) -> tuple[AESGCM, bytes]:
    name = label.encode()
    aad = sha256(header + len(name).to_bytes(4, "big") + name).digest()
    return AESGCM(key.derived(b"cedarbox sealed file 1\0" + name, salt=header[len(_MAGIC) :])), aad


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(_NONCE - 1, "big") + (b"\1" if last else b"\0")


def _filled(source: Source) -> bytes:
    data = bytearray()
    while len(data) < CHUNK and (piece := source.read(CHUNK - len(data))):
        data += piece
    return bytes(data)
