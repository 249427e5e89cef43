"""Images from registries, by way of BoxLite and into the image store.

BoxLite 0.10.8 boots from its own cache of pulled images without a look at the digests of the layers (measured). So a
pull goes into a home that lives as long as the pull, what arrived is checked to the last byte, and every boot is from
a layout of the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from cedarbox.boxlite import api
from cedarbox.boxlite.image_documents import text_of
from cedarbox.boxlite.image_import import Imported, import_layout
from cedarbox.boxlite.image_sources import opened_source
from cedarbox.boxlite.image_store import MAX_SIZE, Found, ImageStore
from cedarbox.boxlite.references import Reference, parse_reference
from cedarbox.boxlite.registry import Registry
from cedarbox.errors import ImageError

__all__ = ["pulled"]

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CLOSE_SECONDS: Final = 10


async def pulled(
    store: ImageStore, text: str, *, registries: Sequence[Registry] = (), named: bool = False, limit: int = MAX_SIZE
) -> Found:
    """Pull an image into the store.

    Args:
        store: The store.
        text: The reference. What pins it, in itself or in the lock file, is what is asked for.
        registries: Those that need a login or speak plain HTTP.
        named: Whether the image gets the name of the reference in the store. Otherwise only its digest leads to it.
        limit: Bytes that it may have, packed and unpacked.

    Returns:
        The image in the store.

    Raises:
        ImageError: It cannot be pulled, or what arrived is not what its digests say. The store is as it was.
        ConfigurationError: A password is not where it was said to be.
    """
    reference = parse_reference(text)
    digest = store.pinned(reference)
    asked = Reference(reference.registry, reference.path, reference.tag, digest)
    with store.scratch() as scratch:
        home, layout = scratch / "home", scratch / "layout"
        home.mkdir(mode=0o700)
        top = await _fetched(home, asked, registries)

        def write(target: Path, work: Path) -> Imported:
            aliases = _arrange(home, layout, top, digest or top, str(asked))
            with opened_source(layout, scratch=work, limit=limit) as source:
                imported = import_layout(source, target, label=str(asked), limit=limit)
            return replace(imported, digest=top, aliases=aliases)

        name = asked.name if named and asked.tag is not None else None
        found = await asyncio.to_thread(
            store.put, write, name=name, repository=asked.repository, label=str(asked), named=False
        )
    if digest is not None and not found.image.is_named_by(digest):
        raise ImageError(f"{asked}: the registry sent {found.image.digest}", hint="check the registry")
    return found


async def _fetched(home: Path, reference: Reference, registries: Sequence[Registry]) -> str:
    """Pull into an empty home. Returns the digest of the manifest as BoxLite has it."""
    known = [
        api.image_registry(
            host=registry.host,
            transport=registry.transport,
            username=registry.username,
            password=registry.password(),
        )
        for registry in registries
        if registry.host == reference.registry
    ]
    try:
        runtime = api.open_runtime(home, registries=known)
        try:
            await runtime.images.pull(str(reference))
            return next(info.id for info in await runtime.images.list())
        finally:
            await runtime.shutdown(_CLOSE_SECONDS)
    except api.BoxliteError as error:
        said = " ".join(str(error).split())
        raise ImageError(
            f"{reference} cannot be pulled ({said[:600]})",
            hint="check the reference, the registry and the login; without a network import the image from a file",
        ) from None


def _arrange(home: Path, layout: Path, top: str, pinned: str, label: str) -> tuple[str, ...]:
    """Make a layout of what BoxLite keeps as ``images/<kind>/sha256-<hex>.<suffix>``. Returns the image's aliases.

    BoxLite 0.10.8 refuses a manifest, an index or a blob that is not what its digest says while it pulls, and writes
    manifests and indexes down in a form of its own under their digests (measured). So their digests cannot be computed
    again here; those of the configuration, of the layers and of what is in them can, and are.
    """
    cache = home / "images"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for kind in ("configs", "layers"):
        for path in (cache / kind).glob("sha256-*"):
            path.rename(blobs / path.name.removeprefix("sha256-").partition(".")[0])
    manifest = _kept(cache, top, label)
    data = text_of(manifest)
    hexadecimal = hashlib.sha256(data).hexdigest()
    (blobs / hexadecimal).write_bytes(data)
    media_type = manifest.get("mediaType") or _MANIFEST
    descriptor = {"mediaType": media_type, "digest": f"sha256:{hexadecimal}", "size": len(data)}
    (layout / "index.json").write_bytes(text_of({"schemaVersion": 2, "manifests": [descriptor]}))
    (layout / "oci-layout").write_bytes(text_of({"imageLayoutVersion": "1.0.0"}))
    if pinned == top:
        return ()
    named = _kept(cache, pinned, label).get("manifests")
    if not isinstance(named, list) or top not in [entry.get("digest") for entry in named if isinstance(entry, dict)]:
        raise ImageError(f"{label}: the index does not name {top}, which arrived", hint="check the registry")
    return (pinned,)


def _kept(cache: Path, digest: str, label: str) -> dict[str, Any]:
    try:
        document = json.loads((cache / "manifests" / f"{digest.replace(':', '-')}.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ImageError(f"{label}: what arrived has no manifest {digest}", hint="check the registry")
    return document
