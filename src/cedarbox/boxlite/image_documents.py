"""The JSON documents of an image that is not trusted yet."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cedarbox.boxlite.image_sources import DAMAGED, Source
from cedarbox.boxlite.references import DIGEST
from cedarbox.errors import ImageError

__all__ = ["Documents", "text_of"]

_MAX_BYTES: Final = 4 * 1024 * 1024
_HINT: Final = "make the image anew from a source you trust"


def text_of(value: object) -> bytes:
    """Write a document, the same bytes for the same value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass(slots=True)
class Documents:
    """Reads documents by name or by descriptor. Whatever is wrong is an :class:`ImageError` of one line.

    Attributes:
        source: Where they are.
        label: What to call the source in messages.
    """

    source: Source
    label: str

    def fail(self, what: str, *, hint: str = _HINT) -> NoReturn:
        """Refuse the image."""
        raise ImageError(f"{self.label}: {what}", hint=hint)

    def has(self, name: str) -> bool:
        """Return whether there is a file of this name."""
        stream = self.source.open(name)
        if stream is not None:
            stream.close()
        return stream is not None

    def described(self, value: object) -> tuple[str, int]:
        """Return digest and size of a descriptor whose form was checked."""
        if not isinstance(value, dict):
            self.fail("a descriptor is not an object")
        digest, size = value.get("digest"), value.get("size")
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            self.fail(f"the digest {str(digest)[:100]!r} is not of the form sha256:<64 hex>")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            self.fail(f"the descriptor of {digest} lacks a size")
        if not isinstance(value.get("mediaType"), str):
            self.fail(f"the descriptor of {digest} lacks a media type")
        return digest, size

    def blob_document(self, descriptor: object) -> dict[str, Any]:
        """Read the document of a descriptor, its size and digest checked."""
        return self.parsed(self.blob(descriptor), self.described(descriptor)[0])

    def blob(self, descriptor: object) -> bytes:
        """Read the bytes of a descriptor, at most 4 MiB, their size and digest checked."""
        digest, size = self.described(descriptor)
        data = self.read(f"blobs/sha256/{digest.removeprefix('sha256:')}", called=f"the blob {digest}")
        if len(data) != size:
            self.fail(f"the blob {digest} has {len(data)} bytes, not {size}")
        actual = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if actual != digest:
            self.fail(f"the blob {digest} is not what its digest says ({actual})")
        return data

    def document(self, name: str) -> dict[str, Any]:
        """Read the JSON object in a file."""
        return self.parsed(self.read(name), name)

    def parsed(self, data: bytes, name: str) -> dict[str, Any]:
        """Read a JSON object from bytes."""
        value = self._json_of(data, name)
        if not isinstance(value, dict):
            self.fail(f"{name} is not a JSON object")
        return value

    def json_file(self, name: str) -> object:
        """Read the JSON value in a file."""
        return self._json_of(self.read(name), name)

    def _json_of(self, data: bytes, name: str) -> object:
        try:
            value: object = json.loads(data)
        except (ValueError, RecursionError) as error:
            self.fail(f"{name} cannot be read as JSON ({str(error)[:200]})")
        return value

    def read(self, name: str, *, called: str = "") -> bytes:
        """Read a file of at most 4 MiB."""
        stream = self.source.open(name)
        if stream is None:
            self.fail(f"{called or name} is missing")
        with stream:
            try:
                data = stream.read(_MAX_BYTES + 1)
            except DAMAGED as error:
                self.fail(f"{called or name} cannot be read ({error})")
        if len(data) > _MAX_BYTES:
            self.fail(f"{called or name} is larger than {_MAX_BYTES} bytes, which no such document is")
        return data
