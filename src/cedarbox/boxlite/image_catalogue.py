"""What an image store holds: images by digest, and names for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cedarbox.boxlite.references import DIGEST
from cedarbox.errors import ImageError
from cedarbox.files import write_file

__all__ = ["LOCAL", "Catalogue", "StoredImage"]

LOCAL: Final = "local"
"""The repository of an image that was imported from a file, as policies see it."""

_VERSION: Final = 1
_MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of the store.

    Attributes:
        digest: ``sha256:…`` of its manifest, as others know it.
        layout_digest: ``sha256:…`` of the manifest in the layout: the same, or one that was written in its place. It
            differs for what was pulled, because BoxLite 0.10.8 keeps manifests in a form of its own (measured), and
            where layers had to be stored unpacked.
        aliases: Other digests that were found to name it when it was imported, such as that of a multi-platform index.
        platform: Such as ``linux/amd64``.
        size: Bytes of its blobs.
        imported: When it was imported, UTC, RFC 3339.
        repository: ``local`` for one that was imported from a file, else the registry and path it was pulled from.
    """

    digest: str
    layout_digest: str
    aliases: tuple[str, ...]
    platform: str
    size: int
    imported: str
    repository: str

    def is_named_by(self, digest: str) -> bool:
        """Return whether a digest names this image."""
        return digest == self.digest or digest in self.aliases


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The images of a store and their names.

    Attributes:
        images: By digest.
        names: Digests by canonical name.
    """

    images: Mapping[str, StoredImage]
    names: Mapping[str, str]

    def with_image(self, image: StoredImage, name: str | None) -> Catalogue:
        """Return it with one more image; the name is taken from another image that had it."""
        names = self.names if name is None else {**self.names, name: image.digest}
        return Catalogue({**self.images, image.digest: image}, names)

    def without_name(self, name: str) -> Catalogue:
        """Return it without a name; the image stays."""
        return Catalogue(self.images, {known: digest for known, digest in self.names.items() if known != name})

    def without_image(self, digest: str) -> Catalogue:
        """Return it without an image and all its names."""
        images = {known: image for known, image in self.images.items() if known != digest}
        return Catalogue(images, {name: known for name, known in self.names.items() if known != digest})

    def named(self, digest: str) -> tuple[str, ...]:
        """Return the names of an image."""
        return tuple(sorted(name for name, known in self.names.items() if known == digest))

    def find(self, digest: str) -> StoredImage | None:
        """Return the image that a digest names."""
        return next((image for image in self.images.values() if image.is_named_by(digest)), None)

    def save(self, path: Path) -> None:
        """Write it in one step.

        Raises:
            OSError: It cannot be written; the old one is as it was.
        """
        images = [asdict(image) for _, image in sorted(self.images.items())]
        document = {"version": _VERSION, "images": images, "names": dict(self.names)}
        write_file(path, json.dumps(document, indent=1, sort_keys=True).encode(), 0o600)

    @classmethod
    def load(cls, path: Path) -> Catalogue:
        """Read it; a missing file is an empty store.

        Raises:
            ImageError: It is damaged.
        """
        try:
            with path.open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
            document: Any = json.loads(data) if len(data) <= _MAX_BYTES else None
            if document["version"] != _VERSION:
                raise ValueError(f"it is of version {document['version']!r}, not {_VERSION}")  # noqa: TRY301 - one place tells it all
            images = [_image(value) for value in document["images"]]
            names = {str(name): str(digest) for name, digest in document["names"].items()}
        except FileNotFoundError:
            return cls({}, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = str(error)[:200]
            raise ImageError(
                f"{path}: the catalogue of the image store is damaged ({what})",
                hint="move the store away and import the images again",
            ) from None
        found = {image.digest: image for image in images}
        if dangling := [name for name, digest in names.items() if digest not in found]:
            raise ImageError(
                f"{path}: the name {dangling[0]!r} leads nowhere", hint="move the store away and import again"
            )
        return cls(found, names)


def _image(value: Mapping[str, Any]) -> StoredImage:
    image = StoredImage(**{**value, "aliases": tuple(value["aliases"])})
    digests = (image.digest, image.layout_digest, *image.aliases)
    texts = (image.platform, image.imported, image.repository)
    if not all(isinstance(digest, str) and DIGEST.fullmatch(digest) for digest in digests):
        raise ValueError("a digest is not of the form sha256:<64 hex>")
    if not isinstance(image.size, int) or not all(isinstance(text, str) for text in texts):
        raise TypeError("a value is of the wrong type")
    return image
