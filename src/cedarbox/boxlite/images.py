"""Local OCI image layouts, verified.

BoxLite 0.10.8 boots a local layout without looking at the digests of its layers: a swapped or damaged layer runs
(measured). So every digest and size is computed again here before every boot.

The format is the OCI image layout, image-spec v1.1: ``oci-layout``, ``index.json``, ``blobs/sha256/<hex>``.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cedarbox.boxlite.checks import Checks, identity_of
from cedarbox.boxlite.references import DIGEST
from cedarbox.errors import ImageError

__all__ = ["INDEX_TYPES", "MANIFEST_TYPES", "LayoutVerifier", "VerifiedImage"]

_HINT = "make the layout anew from a source you trust"
# Documents are small; a layout that says otherwise is not read into memory.
_MAX_DOCUMENT = 4 * 1024 * 1024
_CHUNK = 1024 * 1024
INDEX_TYPES = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
MANIFEST_TYPES = frozenset(
    ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
)


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image whose every byte was checked.

    Attributes:
        path: The layout's directory, resolved.
        digest: ``sha256:...`` of the image manifest.
        blobs: How many blobs were checked: manifest, configuration and layers.
        size: Their bytes together.
        layers: ``sha256:...`` of the layers as they are stored, lowest first.
    """

    path: Path
    digest: str
    blobs: int
    size: int
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Descriptor:
    media_type: str
    digest: str
    size: int

    @property
    def hexadecimal(self) -> str:
        return self.digest.removeprefix("sha256:")


@dataclass(slots=True)
class LayoutVerifier:
    """Verifies OCI layouts and remembers blobs that have not changed since.

    Attributes:
        checks: What was hashed before; a blob that it knows by its identity is not hashed again.
    """

    checks: Checks = field(default_factory=Checks)

    def verify(self, layout: Path) -> VerifiedImage:
        """Check a layout: its form, and every digest and size from index to layers.

        Args:
            layout: The layout's directory.

        Returns:
            What was checked.

        Raises:
            ImageError: It is not a layout of exactly one image, a blob is missing or not a plain file inside it, or a
                digest or size differs.
        """
        try:
            root = layout.expanduser().resolve(strict=True)
        except OSError as error:
            raise ImageError(
                f"{layout}: {error.strerror or error}", hint="give the directory of an OCI layout"
            ) from None
        if not (root / "oci-layout").is_file() or not (root / "index.json").is_file():
            raise ImageError(
                f"{root} is not an OCI layout: oci-layout or index.json is missing",
                hint="BoxLite takes a layout directory, not a tar or a root file system",
            )
        version = _document(root, root / "oci-layout").get("imageLayoutVersion")
        if version != "1.0.0":
            _fail(root, f"imageLayoutVersion is {version!r}, not '1.0.0'")
        descriptors = self._manifests(root, _document(root, root / "index.json"), depth=0)
        if len({descriptor.digest for descriptor in descriptors}) != 1:
            _fail(root, f"it holds {len(descriptors)} images where one is needed", hint="keep one image in the layout")
        manifest = descriptors[0]
        content = self._json(root, manifest)
        layers = content.get("layers")
        if not isinstance(layers, list) or not layers:
            _fail(root, f"the manifest {manifest.digest} has no layers")
        checked = [manifest, _descriptor(root, content.get("config")), *(_descriptor(root, layer) for layer in layers)]
        for descriptor in checked[1:]:
            self._check(root, descriptor)
        self.checks.save()
        size = sum(item.size for item in checked)
        return VerifiedImage(root, manifest.digest, len(checked), size, tuple(item.digest for item in checked[2:]))

    def _manifests(self, root: Path, index: dict[str, Any], *, depth: int) -> list[_Descriptor]:
        entries = index.get("manifests")
        if not isinstance(entries, list) or not entries:
            _fail(root, "its index names no image")
        found: list[_Descriptor] = []
        for entry in entries:
            descriptor = _descriptor(root, entry)
            if descriptor.media_type in INDEX_TYPES:
                if depth >= 2:
                    _fail(root, "its indexes are nested too deeply")
                found += self._manifests(root, self._json(root, descriptor), depth=depth + 1)
            elif descriptor.media_type in MANIFEST_TYPES:
                found.append(descriptor)
            else:
                _fail(root, f"its index names the unknown media type {descriptor.media_type!r}")
        return found

    def _json(self, root: Path, descriptor: _Descriptor) -> dict[str, Any]:
        if descriptor.size > _MAX_DOCUMENT:
            _fail(root, f"the document {descriptor.digest} is larger than {_MAX_DOCUMENT} bytes")
        self._check(root, descriptor)
        return _document(root, _blob_path(root, descriptor), digest=descriptor.hexadecimal)

    def _check(self, root: Path, descriptor: _Descriptor) -> None:
        path = _blob_path(root, descriptor)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            _fail(root, f"the blob {descriptor.digest} is missing")
        except OSError as error:
            _fail(root, f"the blob {descriptor.digest} cannot be opened as a plain file ({error.strerror})")
        with os.fdopen(handle, "rb") as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                _fail(root, f"the blob {descriptor.digest} is not a plain file")
            if before.st_size != descriptor.size:
                _fail(root, f"the blob {descriptor.digest} has {before.st_size} bytes, not {descriptor.size}")
            if self.checks.known(before) == descriptor.hexadecimal:
                return
            actual = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                actual.update(chunk)
            after = os.fstat(stream.fileno())
            if actual.hexdigest() != descriptor.hexadecimal or identity_of(after) != identity_of(before):
                _fail(root, f"the blob {descriptor.digest} is not what its digest says (sha256:{actual.hexdigest()})")
        self.checks.remember(before, descriptor.hexadecimal)


def _blob_path(root: Path, descriptor: _Descriptor) -> Path:
    directory = root / "blobs" / "sha256"
    # A directory that is a link would put every blob elsewhere; O_NOFOLLOW guards only the last component.
    if directory.is_symlink() or directory.parent.is_symlink():
        _fail(root, "its blobs directory is a symbolic link")
    return directory / descriptor.hexadecimal


def _descriptor(root: Path, value: object) -> _Descriptor:
    if not isinstance(value, dict):
        _fail(root, "a descriptor is not an object")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        _fail(root, f"the digest {digest!r} is not of the form sha256:<64 hex>")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0 or not isinstance(media_type, str):
        _fail(root, f"the descriptor of {digest} lacks a size or media type")
    return _Descriptor(media_type, digest, size)


def _document(root: Path, path: Path, *, digest: str | None = None) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_DOCUMENT + 1)
        if digest is not None and hashlib.sha256(data).hexdigest() != digest:
            _fail(root, f"the blob sha256:{digest} changed while it was read")
        value = json.loads(data) if len(data) <= _MAX_DOCUMENT else None
    except (OSError, ValueError, RecursionError) as error:
        raise ImageError(f"{root}: {path.name} cannot be read as JSON ({error})", hint=_HINT) from None
    if not isinstance(value, dict):
        _fail(root, f"{path.name} is not a JSON object")
    return value


def _fail(root: Path, what: str, *, hint: str = _HINT) -> NoReturn:
    raise ImageError(f"{root}: {what}", hint=hint)
