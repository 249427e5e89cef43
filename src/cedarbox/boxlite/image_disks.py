"""The disk images that BoxLite makes and keeps, guarded against change.

BoxLite 0.10.8 unpacks the layers of a layout below ``<home>/images/local``, makes a disk image of them in
``<home>/images/disk-images`` and a disk of its guest agent in ``<home>/bases``, and boots from these ever after without
a look at what is in them (measured). So what a boot has made is remembered by digest and file identity, and looked at
before every later boot.

The name of a disk image begins with the SHA-256 of the digests of the image's layers, one after the other as text
(measured on BoxLite 0.10.8). Layers that were unpacked before are removed when a disk image has to be made, because
BoxLite would use them as they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from cedarbox.boxlite.checks import Identity, identity_of
from cedarbox.boxlite.disks import DiskDigests, backing_chain
from cedarbox.boxlite.images import VerifiedImage
from cedarbox.boxlite.references import DIGEST
from cedarbox.errors import CedarboxError, ImageError
from cedarbox.files import write_file

__all__ = ["ImageDisks", "disk_image_name"]

_FILE: Final = "cedarbox-disks.json"
_VERSION: Final = 1
_MAX_BYTES: Final = 4 * 1024 * 1024

_Known = dict[str, tuple[str, Identity]]


def disk_image_name(image: VerifiedImage) -> str:
    """Return what the names of the disk images of an image begin with. A size follows there."""
    return f"sha256-{hashlib.sha256(''.join(image.layers).encode()).hexdigest()}-"


class ImageDisks:
    """The disk images of one BoxLite home.

    Args:
        home: The home.
        digests: Digests of disk files, shared with the snapshots of the home; of its own when ``None``.
    """

    def __init__(self, home: Path, digests: DiskDigests | None = None) -> None:
        self._home = home
        self._digests = DiskDigests() if digests is None else digests
        self._building = asyncio.Lock()

    @asynccontextmanager
    async def booting(self, image: VerifiedImage) -> AsyncIterator[None]:
        """Check what a boot will read, let it boot, and remember what it made.

        While a disk image is being made, other boots of this home wait.

        Args:
            image: The image, verified now.

        Raises:
            ImageError: A disk image is not what it was when it was made, or nobody knows what it was. Nothing may be
                booted then.
        """
        async with self._building:
            whole = await asyncio.to_thread(self.verify, image)
            if not whole:
                try:
                    yield
                finally:
                    await asyncio.shield(asyncio.to_thread(self.remember, image))
                return
        yield

    def prepare(self) -> None:
        """Remove disks of the guest agent that nobody knows, as after a first boot that was cut off by a power failure.

        To be called when the home was opened and nothing was booted yet: only then does BoxLite 0.10.8 make another
        one (measured).

        Raises:
            ImageError: One cannot be removed, or the disk of a sandbox needs it.
        """
        known = self._load()
        for path in (self._home / "bases").glob("*.ext4"):
            if self._name(path) not in known:
                self._give_up(path)

    def verify(self, image: VerifiedImage) -> bool:
        """Check the disk images that a boot of this image reads.

        The disk image of an image that is not known, and that no disk needs, is removed: BoxLite makes it anew.

        Args:
            image: The image, verified now.

        Returns:
            Whether all are there. If not, the boot makes them, and :meth:`remember` has to be called after it.

        Raises:
            ImageError: One is not what it was when it was made, or nobody knows what it was and a sandbox needs it.
        """
        before = self._load()
        files = {path: self._name(path) for path in self._files(image)}
        kept = {name: entry for name, entry in before.items() if (self._home / name).exists()}
        for path, name in files.items():
            identity = identity_of(path.lstat())
            entry = kept.get(name)
            if entry is None and path.parent.name == "bases":
                raise ImageError(f"nobody knows what {path} was when BoxLite made it", hint="end this process first")
            if entry is None:
                self._give_up(path)
            elif entry[1] != identity:
                if self._digest(path) != entry[0]:
                    raise ImageError(
                        f"{path} is not what it was when BoxLite made it of {image.digest}",
                        hint="remove the sandboxes that use it, then the file; it is made anew from the image",
                    )
                kept[name] = (entry[0], identity)
        if kept != before:
            self._save(kept)
        present = [path for path in files if path.exists()]
        made = any(path.parent.name == "disk-images" for path in present)
        if not made:
            for layer in image.layers:
                for left in self._home.glob(f"images/local/*/extracted/{layer.replace(':', '-')}"):
                    shutil.rmtree(left)
        return made and any(path.parent.name == "bases" for path in present)

    def remember(self, image: VerifiedImage) -> None:
        """Remember the disk images that a boot has made.

        Args:
            image: The image that was booted.

        Raises:
            ImageError: They cannot be read, or what is known of them cannot be written.
        """
        known = self._load()
        before = dict(known)
        for path in self._files(image):
            if (name := self._name(path)) not in known:
                identity = identity_of(path.lstat())
                known[name] = (self._digest(path), identity)
        if known != before:
            self._save(known)

    def _files(self, image: VerifiedImage) -> list[Path]:
        disks = (self._home / "images" / "disk-images").glob(f"{disk_image_name(image)}*")
        return sorted((*disks, *(self._home / "bases").glob("*.ext4")))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix()

    def _digest(self, path: Path) -> str:
        try:
            return self._digests.digest(path)
        except CedarboxError as error:
            raise ImageError(error.message, hint=error.hint) from None

    def _give_up(self, path: Path) -> None:
        for overlay in (*self._home.glob("boxes/*/disks/*.qcow2"), *self._home.glob("bases/*.qcow2")):
            try:
                needed = path in [layer.path for layer in backing_chain(overlay, self._home)]
            except CedarboxError:
                needed = True
            if needed:
                raise ImageError(
                    f"nobody knows what {path} was when BoxLite made it, and {overlay} needs it",
                    hint="remove the sandboxes that use it, or use another BoxLite home",
                )
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ImageError(f"{path} cannot be removed ({error.strerror})", hint="remove it") from None

    def _save(self, known: Mapping[str, tuple[str, Identity]]) -> None:
        disks = {name: {"digest": digest, "identity": list(identity)} for name, (digest, identity) in known.items()}
        document = {"version": _VERSION, "disks": disks}
        try:
            write_file(self._home / _FILE, json.dumps(document, indent=1, sort_keys=True).encode(), 0o600)
        except OSError as error:
            raise ImageError(
                f"{self._home / _FILE} cannot be written ({error.strerror})", hint="check the disk"
            ) from None

    def _load(self) -> _Known:
        """Read what is known. A damaged file means that nothing is: its disk images are made anew, or refused."""
        try:
            with (self._home / _FILE).open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
            document: Any = json.loads(data) if len(data) <= _MAX_BYTES else {}
            if document["version"] != _VERSION:
                return {}
            known: _Known = {}
            for name, entry in document["disks"].items():
                device, inode, size, mtime, ctime = map(int, entry["identity"])
                if not DIGEST.fullmatch(f"sha256:{entry['digest']}"):
                    return {}
                known[str(name)] = (str(entry["digest"]), (device, inode, size, mtime, ctime))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}
        return known
