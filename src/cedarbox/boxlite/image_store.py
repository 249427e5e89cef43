"""The image store: images that were imported or pulled, each a layout of its own, checked and named.

::

    images/catalogue.json       what is here, and under which names
    images/layouts/<hex>/       an OCI layout of one image, named by the digest of the manifest in it
    images/checks.json          which files were hashed before
    images/signatures/<hex>     the signatures that came with an image, by the digest of its manifest
    images/.lock                held while the store changes

An image is complete or not there: it is written beside the others, checked, and renamed into place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cedarbox.boxlite.checks import Checks
from cedarbox.boxlite.image_catalogue import LOCAL, Catalogue, StoredImage
from cedarbox.boxlite.image_import import Imported, import_layout
from cedarbox.boxlite.image_lock import LOCK_FILE, read_lock
from cedarbox.boxlite.image_room import Room
from cedarbox.boxlite.image_signatures import (
    MAX_SIGNATURES,
    ImageKey,
    ImageSignature,
    save_signatures,
    stored_signatures,
    unverified,
)
from cedarbox.boxlite.image_sources import opened_source
from cedarbox.boxlite.images import LayoutVerifier
from cedarbox.boxlite.references import DIGEST, Reference, parse_reference
from cedarbox.errors import ImageError
from cedarbox.files import sync_directory

__all__ = ["MAX_SIZE", "Found", "ImageStore", "default_store"]

MAX_SIZE: Final = 32 * 1024**3
"""Bytes that the blobs of an image, and its unpacked layers, may each have together, when nothing else is said."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image of the store, and where it is.

    Attributes:
        image: The image.
        path: Its layout.
        names: Its canonical names.
        notes: What the import had to say.
    """

    image: StoredImage
    path: Path
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def default_store() -> Path:
    """Return the image store of this user: ``$XDG_DATA_HOME/cedarbox/images``, else below ``~/.local/share``."""
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
    return base / "cedarbox" / "images"


class ImageStore:
    """Images on this host.

    Args:
        directory: Where they are; made with mode 0700 when the first is stored. Default :func:`default_store`.
        lock: The lock file; what it names must have the digest that it says. It may be missing.
    """

    def __init__(self, directory: Path | None = None, *, lock: Path = LOCK_FILE) -> None:
        self.directory = default_store() if directory is None else Path(directory).expanduser().absolute()
        self.lock = lock
        self._room = Room(self.directory)

    def list(self) -> list[Found]:
        """Return all images, sorted by name.

        Raises:
            ImageError: The store cannot be read.
        """
        catalogue = self._catalogue()
        found = [self._found(catalogue, image) for image in catalogue.images.values()]
        return sorted(found, key=lambda each: (each.names, each.image.digest))

    def pinned(self, reference: Reference) -> str | None:
        """Return the digest that an image must have: the one in the reference, or the one in the lock file.

        Raises:
            ConfigurationError: The lock file cannot be read.
            ImageError: Reference and lock file differ.
        """
        locked = (read_lock(self.lock) or {}).get(reference.name) if reference.tag is not None else None
        if reference.digest is not None and locked not in (None, reference.digest):
            raise ImageError(
                f"{reference} is pinned to {locked} by {self.lock}", hint="take the digest away, or pin the name anew"
            )
        return reference.digest or locked

    def find(self, text: str) -> Found | None:
        """Look an image up by reference. A digest decides before a name does.

        Args:
            text: The reference.

        Returns:
            The image; ``None`` when it is not in the store. Its layout is not verified by this.

        Raises:
            ImageError: The reference is malformed, the store is damaged, or the image is not the one that the lock
                file or the reference pins.
            ConfigurationError: The lock file cannot be read.
        """
        reference = parse_reference(text)
        wanted = self.pinned(reference)
        catalogue = self._catalogue()
        if wanted is not None and (image := catalogue.find(wanted)) is not None:
            return self._found(catalogue, image)
        digest = catalogue.names.get(reference.name)
        if digest is None:
            return None
        if wanted is not None:
            by = "the reference" if reference.digest else str(self.lock)
            raise ImageError(
                f"the image store has {digest} under the name {reference.short}, and {by} pins it to {wanted}",
                hint="import the image that is pinned, or review the change and pin it anew",
            )
        return self._found(catalogue, catalogue.images[digest])

    def add(
        self, path: Path, *, name: str | None = None, limit: int = MAX_SIZE, signatures: Sequence[ImageSignature] = ()
    ) -> Found:
        """Import an image from a directory or a tar.

        Args:
            path: An OCI layout as a directory or tar, or what ``docker save`` wrote; a tar may be compressed.
            name: Its name; default the one that the source gives it.
            limit: Bytes that it may have, packed and unpacked.
            signatures: More signatures than the source brings along.

        Returns:
            The image in the store.

        Raises:
            ImageError: It cannot be used, or has no name; the store is as it was.
        """
        canonical = None if name is None else self._name(name)

        def write(target: Path, scratch: Path) -> Imported:
            with opened_source(path, scratch=scratch, limit=limit) as source:
                imported = import_layout(source, target, label=str(path), limit=limit)
                return replace(imported, signatures=(*imported.signatures, *signatures))

        return self.put(write, name=canonical, repository=LOCAL, label=str(path))

    def put(
        self,
        write: Callable[[Path, Path], Imported],
        *,
        name: str | None,
        repository: str,
        label: str,
        named: bool = True,
    ) -> Found:
        """Store an image that a function writes.

        Args:
            write: Writes a layout to the first, empty directory; the second is for what it needs meanwhile.
            name: The canonical name; ``None`` takes the one that the image brings.
            repository: Where it is from.
            label: What to call the source in messages.
            named: Whether it needs a name.

        Returns:
            The image in the store.

        Raises:
            ImageError: The image cannot be used; the store is as it was.
        """
        with self._changing() as catalogue, self._room.work() as work:
            (work / "layout").mkdir()
            (work / "scratch").mkdir()
            imported = write(work / "layout", work / "scratch")
            if name is None and named:
                name = _own_name(imported, label)
            image = StoredImage(
                digest=imported.digest,
                layout_digest=imported.layout_digest,
                aliases=imported.aliases,
                platform=imported.platform,
                size=imported.size,
                imported=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                repository=repository,
            )
            known = catalogue.images.get(image.digest)
            if known is not None and self._is_whole(known):
                aliases = tuple(dict.fromkeys((*known.aliases, *image.aliases)))
                image = replace(known, aliases=aliases)
            else:
                self._place(work, image)
            if imported.signatures:
                (self.directory / "signatures").mkdir(mode=0o700, exist_ok=True)
                kept = dict.fromkeys((*imported.signatures, *stored_signatures(self._signatures(image))))
                save_signatures(self._signatures(image), tuple(kept)[:MAX_SIGNATURES])
            after = catalogue.with_image(image, name)
            after.save(self.directory / "catalogue.json")
            found = self._found(after, after.images[image.digest])
        return Found(found.image, found.path, found.names, imported.notes)

    def scratch(self) -> AbstractContextManager[Path]:
        """Give a private directory on the disk of the store, for as long as the block runs. The store is not locked.

        Raises:
            ImageError: The store cannot be used.
        """
        return self._room.scratch()

    def remove(self, text: str) -> tuple[str, bool]:
        """Remove a name, or an image by its digest; an image without a name left goes with its last name.

        Args:
            text: A name, or ``sha256:…``.

        Returns:
            The digest, and whether the image itself was removed.

        Raises:
            ImageError: There is none.
        """
        with self._changing() as catalogue:
            if DIGEST.fullmatch(text):
                digest = text if text in catalogue.images else None
                after = catalogue.without_image(text)
            else:
                name = self._name(text)
                digest = catalogue.names.get(name)
                after = catalogue.without_name(name)
            if digest is None:
                raise ImageError(f"the image store has no {text}", hint="cedarbox image list shows what it has")
            if gone := not after.named(digest):
                after = after.without_image(digest)
            after.save(self.directory / "catalogue.json")
            place = self._layout(catalogue.images[digest])
            if gone:
                self._signatures(catalogue.images[digest]).unlink(missing_ok=True)
            if gone and place not in map(self._layout, after.images.values()):
                shutil.rmtree(place, ignore_errors=True)
            return digest, gone

    def unsigned(self, found: Found, keys: Sequence[ImageKey]) -> str:
        """Return why an image is not signed by one of the keys; empty when it is.

        Only a signature of the very manifest that its layout holds counts; that this is so, and that the rest of the
        layout is what the manifest says, is checked by :class:`LayoutVerifier`.

        Args:
            found: The image.
            keys: Public keys that the site trusts.

        Raises:
            ImageError: The signatures in the store are damaged.
        """
        if found.image.layout_digest != found.image.digest:
            return "its manifest had to be written anew, and what was signed is the old one"
        return unverified(stored_signatures(self._signatures(found.image)), found.image.layout_digest, keys)

    def verify(self) -> Iterator[tuple[Found, str]]:
        """Check every image; yields each with what is wrong, or with an empty text.

        Raises:
            ImageError: The store cannot be read.
        """
        verifier = LayoutVerifier(Checks(self.directory / "checks.json"))
        for found in self.list():
            try:
                actual = verifier.verify(found.path).digest
                wrong = "" if actual == found.image.layout_digest else f"its layout holds {actual}"
            except ImageError as error:
                wrong = error.message
            yield found, wrong

    # --- inside

    def _name(self, text: str) -> str:
        reference = parse_reference(text)
        if reference.digest is not None:
            raise ImageError(f"{text!r} is not a name, because it has a digest", hint="leave the digest out")
        return reference.name

    def _catalogue(self) -> Catalogue:
        if not self.directory.exists():
            return Catalogue({}, {})
        self._room.check()
        return Catalogue.load(self.directory / "catalogue.json")

    @contextmanager
    def _changing(self) -> Iterator[Catalogue]:
        with self._room.changing():
            yield Catalogue.load(self.directory / "catalogue.json")

    def _layout(self, image: StoredImage) -> Path:
        return self.directory / "layouts" / image.layout_digest.removeprefix("sha256:")

    def _signatures(self, image: StoredImage) -> Path:
        return self.directory / "signatures" / image.digest.removeprefix("sha256:")

    def _is_whole(self, image: StoredImage) -> bool:
        try:
            return LayoutVerifier().verify(self._layout(image)).digest == image.layout_digest
        except ImageError:
            return False

    def _place(self, work: Path, image: StoredImage) -> None:
        LayoutVerifier().verify(work / "layout")
        place = self._layout(image)
        if place.exists():
            if self._is_whole(image):
                return
            place.rename(work / "replaced")
        for path in (work / "layout").rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        (work / "layout").chmod(0o700)
        (work / "layout").rename(place)
        sync_directory(place.parent)

    def _found(self, catalogue: Catalogue, image: StoredImage) -> Found:
        return Found(image, self._layout(image), catalogue.named(image.digest))


def _own_name(imported: Imported, label: str) -> str:
    for name in imported.names:
        # What skopeo and others write as ref.name is often the bare tag, which is no name of an image.
        if "/" in name or ":" in name:
            try:
                reference = parse_reference(name)
            except ImageError:
                continue
            if reference.digest is None:
                return reference.name
    raise ImageError(f"{label}: the image brings no name along", hint="give it one with --name")
