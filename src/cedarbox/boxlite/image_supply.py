"""Which image a sandbox boots, and where it is: a layout that was named, one of the store, or one to be pulled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from cedarbox.boxlite.image_disks import ImageDisks
from cedarbox.boxlite.image_pull import pulled
from cedarbox.boxlite.image_signatures import ImageKey
from cedarbox.boxlite.image_store import Found, ImageStore
from cedarbox.boxlite.images import LayoutVerifier, VerifiedImage
from cedarbox.boxlite.references import Reference, parse_reference
from cedarbox.boxlite.registry import Registry
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import HostError, ImageError

__all__ = ["ImageFacts", "ImageSupply"]

_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of an image before a sandbox exists.

    Attributes:
        image: The reference in its canonical form, or the digest of a local layout.
        digest: ``sha256:…``, or ``None`` when nothing pins it and it is not on this host.
        repository: ``local``, or the registry and path that it is from.
        signed: Its manifest is on this host and has a signature by a key that the site trusts, verified now.
    """

    image: str
    digest: str | None
    repository: str
    signed: bool = False


class ImageSupply:
    """Finds images, and verifies them before every boot.

    Args:
        store: The image store.
        verifier: Checks layouts.
        registries: Those that need a login or speak plain HTTP.
        disks: The disk images of the BoxLite home; ``None`` when the home is somebody else's.
        keys: Public keys whose signatures count; none means that no image is signed.
    """

    def __init__(
        self,
        store: ImageStore,
        verifier: LayoutVerifier | None = None,
        *,
        registries: Sequence[Registry] = (),
        disks: ImageDisks | None = None,
        keys: Sequence[ImageKey] = (),
    ) -> None:
        self.store, self.registries, self.disks, self.keys = store, tuple(registries), disks, tuple(keys)
        self.verifier = verifier or LayoutVerifier()

    def digest_of(self, image: str) -> str | None:
        """Return the digest of a reference: what pins it, else what the store has under that name, else ``None``.

        Raises:
            ImageError: Pin, lock file and store contradict each other, or the store is damaged.
            ConfigurationError: The lock file cannot be read.
        """
        pinned = self.store.pinned(parse_reference(image))
        found = self.store.find(image)
        return pinned or (found.image.digest if found is not None else None)

    def facts(self, *, image: str | None, rootfs: str | None, digest: str | None = None) -> ImageFacts:
        """Return what a sandbox of this image would be decided on. What is on this host is verified for it.

        Only an image of the store can be signed: a layout that is booted where it lies holds one image and no more.

        Args:
            image: A reference, or ``None``.
            rootfs: A layout, or ``None``.
            digest: What the state of a session has been decided on before.

        Raises:
            ImageError: The image is not what it should be.
            ConfigurationError: The lock file cannot be read.
        """
        if rootfs is not None:
            actual = self.verifier.verify(Path(rootfs).expanduser()).digest
            return ImageFacts(actual, actual, _LOCAL)
        reference = parse_reference(image or "")
        wanted = digest or self.digest_of(str(reference))
        found = self.store.find(str(_at(reference, wanted)))
        if found is None:
            return ImageFacts(str(reference), wanted, reference.repository)
        verified = self._verified(found, wanted)
        signed = bool(self.keys) and verified.digest == wanted and not self.store.unsigned(found, self.keys)
        return ImageFacts(str(reference), wanted, found.image.repository, signed)

    async def ready(self, state: BoxLiteSandboxSessionState) -> VerifiedImage:
        """Return the image of a session, verified now, pulled first when it is not on this host.

        Args:
            state: The state; ``image_digest`` is set when it is not.

        Returns:
            The image; its path is the layout to boot.

        Raises:
            ImageError: It cannot be had, or is not the one that the session was made from.
            HostError: The pull took longer than ``boot_timeout_s``.
        """
        if state.rootfs is not None:
            image = await asyncio.to_thread(self.verifier.verify, Path(state.rootfs))
            if state.image_digest not in (None, image.digest):
                raise ImageError(
                    f"{image.path} holds {image.digest} now, and the session was made from {state.image_digest}",
                    hint="put the old layout back, or start a new session",
                )
            state.image_digest = image.digest
        else:
            reference = _at(parse_reference(state.image or ""), state.image_digest)
            found = await asyncio.to_thread(self.store.find, str(reference))
            if found is None:
                found = await self._pulled(reference, state.boot_timeout_s)
            image = await asyncio.to_thread(self._verified, found, state.image_digest)
            state.image_digest = state.image_digest or found.image.digest
        return image

    def opened(self) -> None:
        """Take note that the BoxLite home was opened; see :meth:`ImageDisks.prepare`."""
        if self.disks is not None:
            self.disks.prepare()

    def booting(self, image: VerifiedImage) -> AbstractAsyncContextManager[None]:
        """Guard the disk images of the BoxLite home around a boot; see :meth:`ImageDisks.booting`."""
        return nullcontext() if self.disks is None else self.disks.booting(image)

    async def _pulled(self, reference: Reference, seconds: float) -> Found:
        try:
            async with asyncio.timeout(seconds):
                return await pulled(self.store, str(reference), registries=self.registries)
        except TimeoutError:
            raise HostError(
                f"{reference} was not pulled within {seconds:g} s",
                hint="pull it before with cedarbox image pull, or raise boot_timeout_s",
            ) from None

    def _verified(self, found: Found, wanted: str | None) -> VerifiedImage:
        image = self.verifier.verify(found.path)
        if image.digest != found.image.layout_digest or (wanted is not None and not found.image.is_named_by(wanted)):
            raise ImageError(
                f"the image store holds {image.digest} where {wanted or found.image.digest} should be",
                hint="import the image again",
            )
        return image


def _at(reference: Reference, digest: str | None) -> Reference:
    return Reference(reference.registry, reference.path, reference.tag, digest or reference.digest)
