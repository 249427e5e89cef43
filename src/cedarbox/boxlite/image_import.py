"""An image from elsewhere, written as an OCI layout of exactly one image, every digest checked on the way.

Formats: OCI image layout and image manifest, image-spec v1.1; ``docker save``, moby's image/spec/spec.md (v1.2). Newer
versions of Docker write both into one tar; the OCI index is taken then.

BoxLite 0.10.8 unpacks plain and gzip layers and no zstd ones (measured), so those are stored unpacked, as plain tars:
the same files under the same diff ids, in another manifest. The digest by which the image is known stays the old one.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from cedarbox.boxlite.image_documents import Documents, text_of
from cedarbox.boxlite.image_signatures import ImageSignature, is_signature, signatures_in
from cedarbox.boxlite.image_sources import CHUNK, DAMAGED, Source, packing, unpacked
from cedarbox.boxlite.images import INDEX_TYPES, MANIFEST_TYPES
from cedarbox.boxlite.references import DIGEST

__all__ = ["Imported", "host_platform", "import_layout"]

_MAX_LAYERS: Final = 512
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_LAYERS: Final[Mapping[str, str | None]] = {
    _LAYER: None,
    f"{_LAYER}+gzip": "gzip",
    f"{_LAYER}+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": None,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
_MACHINES: Final = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_HINT: Final = "make the image anew from a source you trust"


@dataclass(frozen=True, slots=True)
class Imported:
    """What was written.

    Attributes:
        digest: ``sha256:…`` of the manifest, as others know it.
        layout_digest: The same, or that of the manifest that was written in its place.
        aliases: Digests of the indexes that it was chosen from.
        names: The names that the source gives it, as they stand there.
        platform: Such as ``linux/amd64``.
        size: Bytes of all blobs.
        notes: What the reader should know, a line each.
        signatures: What the source holds of cosign's signatures; nothing of them is verified yet.
    """

    digest: str
    layout_digest: str
    aliases: tuple[str, ...]
    names: tuple[str, ...]
    platform: str
    size: int
    notes: tuple[str, ...]
    signatures: tuple[ImageSignature, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """A manifest that an index names, and how it was reached."""

    descriptor: Mapping[str, Any]
    names: tuple[str, ...]
    indexes: tuple[str, ...]
    platform: str | None


def host_platform() -> str:
    """Return the platform of this host's guests, such as ``linux/amd64``."""
    machine = platform.machine().lower()
    return f"linux/{_MACHINES.get(machine, machine)}"


def import_layout(source: Source, target: Path, *, label: str, limit: int) -> Imported:
    """Write the image of a source as a layout.

    Args:
        source: Where it comes from.
        target: An empty directory.
        label: What to call the source in messages.
        limit: The most bytes that the blobs, and the unpacked layers, may each have together.

    Returns:
        What was written.

    Raises:
        ImageError: It is not exactly one image for this host, something is missing or malformed, or a digest or size
            differs. What is in the target then is worthless.
    """
    importer = _Import(source, label, target, limit)
    (target / "blobs" / "sha256").mkdir(parents=True)
    try:
        if importer.has("index.json") and importer.has("oci-layout"):
            return importer.oci()
        if importer.has("manifest.json"):
            return importer.docker()
    except OSError as error:
        importer.fail(f"it cannot be copied ({error.strerror or error})", hint="see to the disk's free space and mode")
    return importer.fail(
        "it holds neither an OCI layout (oci-layout, index.json) nor what docker save writes (manifest.json)",
        hint="a root file system is not an image",
    )


@dataclass(slots=True)
class _Import(Documents):
    target: Path
    limit: int
    written: int = 0
    unpacked: int = 0
    notes: list[str] = field(default_factory=list)
    signatures: tuple[ImageSignature, ...] = ()

    # --- the two formats

    def oci(self) -> Imported:
        if self.document("oci-layout").get("imageLayoutVersion") != "1.0.0":
            self.fail("imageLayoutVersion is not '1.0.0'")
        index = self.document("index.json")
        entries = self.entries(index, (), (), depth=0)
        self.signatures = signatures_in(self, index)
        chosen = self.chosen(entries)
        digest, _ = self.described(chosen.descriptor)
        manifest = self.blob_document(chosen.descriptor)
        layers = manifest.get("layers")
        if not isinstance(layers, list) or not layers:
            self.fail(f"the manifest {digest} has no layers")
        config = self.blob_document(manifest.get("config"))
        diff_ids, found = self.config_facts(config, len(layers))
        if found != host_platform():
            self.fail(f"the image is for {found}, and this host runs {host_platform()}", hint="export it for this host")
        stored = [self.layer(layer, diff_id) for layer, diff_id in zip(layers, diff_ids, strict=True)]
        self.copy_blob(manifest["config"])
        written = digest
        if stored == layers:
            self.copy_blob(chosen.descriptor)
        else:
            self.notes.append("its zstd layers are stored unpacked, because BoxLite does not read zstd")
            written = self.write_document({**manifest, "layers": stored})
        media_type = str(chosen.descriptor["mediaType"])
        return self.finished(digest, written, chosen.indexes, chosen.names, media_type)

    def docker(self) -> Imported:
        listed = self.json_file("manifest.json")
        if not isinstance(listed, list) or len(listed) != 1 or not isinstance(listed[0], dict):
            count = len(listed) if isinstance(listed, list) else 0
            self.fail(f"it holds {count} images where one is needed", hint="docker save one image")
        entry = listed[0]
        name, paths, tags = entry.get("Config"), entry.get("Layers"), entry.get("RepoTags") or []
        if not isinstance(name, str) or not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            self.fail("manifest.json lacks Config or Layers")
        raw = self.read(name)
        stem = name.rpartition("/")[2].removesuffix(".json")
        actual = hashlib.sha256(raw).hexdigest()
        if DIGEST.fullmatch(f"sha256:{stem}") and stem != actual:
            self.fail(f"the configuration {name} is not what its name says (sha256:{actual})")
        diff_ids, found = self.config_facts(self.parsed(raw, name), len(paths))
        if found != host_platform():
            self.fail(f"the image is for {found}, and this host runs {host_platform()}", hint="export it for this host")
        layers = [self.docker_layer(path, diff_id) for path, diff_id in zip(paths, diff_ids, strict=True)]
        config = {"mediaType": _CONFIG, "digest": self.put(raw), "size": len(raw)}
        manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
        names = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
        written = self.write_document(manifest)
        return self.finished(written, written, (), names, _MANIFEST)

    def finished(
        self, digest: str, written: str, aliases: tuple[str, ...], names: tuple[str, ...], media_type: str
    ) -> Imported:
        blobs = self.target / "blobs" / "sha256"
        size = (blobs / written.removeprefix("sha256:")).stat().st_size
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{"mediaType": media_type, "digest": written, "size": size}],
        }
        (self.target / "index.json").write_bytes(text_of(index))
        (self.target / "oci-layout").write_bytes(text_of({"imageLayoutVersion": "1.0.0"}))
        total = sum(path.stat().st_size for path in blobs.iterdir())
        return Imported(
            digest,
            written,
            tuple(dict.fromkeys(aliases)),
            names,
            host_platform(),
            total,
            tuple(self.notes),
            self.signatures,
        )

    # --- choosing

    def entries(
        self, index: Mapping[str, Any], names: tuple[str, ...], indexes: tuple[str, ...], *, depth: int
    ) -> list[_Entry]:
        manifests = index.get("manifests")
        if not isinstance(manifests, list) or not manifests:
            self.fail("its index names no image")
        if len(manifests) > _MAX_LAYERS:
            self.fail(f"its index names more than {_MAX_LAYERS} images")
        found: list[_Entry] = []
        for descriptor in manifests:
            digest, _ = self.described(descriptor)
            notes = descriptor.get("annotations")
            notes = notes if isinstance(notes, dict) else {}
            if notes.get("vnd.docker.reference.type") == "attestation-manifest" or is_signature(descriptor):
                continue
            given = (notes.get("io.containerd.image.name"), notes.get("org.opencontainers.image.ref.name"))
            called = names or tuple(name for name in given if isinstance(name, str))
            if descriptor["mediaType"] in INDEX_TYPES:
                if depth >= 2:
                    self.fail("its indexes are nested too deeply")
                inner = self.blob_document(descriptor)
                found += self.entries(inner, called, (*indexes, digest), depth=depth + 1)
            elif descriptor["mediaType"] in MANIFEST_TYPES:
                found.append(_Entry(descriptor, called, indexes, _platform(descriptor.get("platform"))))
        return found

    def chosen(self, entries: list[_Entry]) -> _Entry:
        wanted = host_platform()
        fitting = [entry for entry in entries if entry.platform in (None, wanted)]
        offered = ", ".join(sorted({entry.platform or "unnamed" for entry in entries})) or "none"
        if not fitting:
            self.fail(f"no image in it is for {wanted}; it offers: {offered}", hint="export it for this host")
        if len({entry.descriptor["digest"] for entry in fitting}) > 1:
            names = ", ".join(sorted({name for entry in fitting for name in entry.names})) or "unnamed"
            self.fail(f"it holds {len(fitting)} images where one is needed ({names})", hint="export one image")
        if len(entries) > 1:
            self.notes.append(f"took {wanted} of: {offered}")
        return fitting[0]

    def config_facts(self, config: Mapping[str, Any], layers: int) -> tuple[list[str], str]:
        rootfs = config.get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(diff_ids, list) or not all(isinstance(i, str) and DIGEST.fullmatch(i) for i in diff_ids):
            self.fail("its configuration has no list of diff ids")
        if len(diff_ids) != layers or not layers:
            self.fail(f"it has {layers} layers and its configuration names {len(diff_ids)}")
        if layers > _MAX_LAYERS:
            self.fail(f"it has more than {_MAX_LAYERS} layers")
        return diff_ids, f"{config.get('os')}/{config.get('architecture')}"

    # --- layers and blobs

    def layer(self, descriptor: object, diff_id: str) -> Mapping[str, Any]:
        digest, _ = self.described(descriptor)
        assert isinstance(descriptor, dict)  # noqa: S101 - described() has looked
        if descriptor["mediaType"] not in _LAYERS:
            self.fail(f"the layer {digest} is of the unknown type {descriptor['mediaType']!r}")
        path = self.copy_blob(descriptor)
        kind = _LAYERS[descriptor["mediaType"]]
        with path.open("rb") as stream:
            if packing(stream.read(8)) != kind:
                self.fail(f"the layer {digest} is not of the type that it is said to be")
            stream.seek(0)
            if kind != "zstd":
                self.check_diff(stream, kind, digest, diff_id, None)
                return descriptor
            plain = path.with_suffix(".plain")
            size = self.check_diff(stream, kind, digest, diff_id, plain)
        path.unlink()
        plain.replace(path.with_name(diff_id.removeprefix("sha256:")))
        return {"mediaType": _LAYER, "digest": diff_id, "size": size}

    def docker_layer(self, name: str, diff_id: str) -> Mapping[str, Any]:
        stream = self.source.open(name)
        if stream is None:
            self.fail(f"the layer {name} is missing")
        with stream:
            path, digest, size = self.copied(stream, f"the layer {name}")
        with path.open("rb") as copy:
            kind = packing(copy.read(8))
            copy.seek(0)
            if kind not in (None, "gzip"):
                self.fail(f"the layer {name} is packed with {kind}, which docker save does not write")
            self.check_diff(copy, kind, name, diff_id, None)
        path.replace(path.with_name(digest.removeprefix("sha256:")))
        return {"mediaType": _LAYER if kind is None else f"{_LAYER}+gzip", "digest": digest, "size": size}

    def check_diff(self, stream: IO[bytes], kind: str | None, what: str, diff_id: str, plain: Path | None) -> int:
        hasher, size = hashlib.sha256(), 0
        output = None if plain is None else plain.open("xb")
        try:
            with unpacked(stream, kind) as unpacking:
                while chunk := unpacking.read(CHUNK):
                    size += len(chunk)
                    self.unpacked += len(chunk)
                    if self.unpacked > self.limit:
                        self.fail(f"its layers unpack to more than {self.limit} bytes", hint="raise --max-size")
                    hasher.update(chunk)
                    if output is not None:
                        output.write(chunk)
        except DAMAGED as error:
            self.fail(f"the layer {what} cannot be unpacked ({error})")
        finally:
            if output is not None:
                output.close()
        if f"sha256:{hasher.hexdigest()}" != diff_id:
            self.fail(f"the layer {what} does not unpack to its diff id {diff_id}")
        return size

    def copy_blob(self, descriptor: object) -> Path:
        digest, size = self.described(descriptor)
        hexadecimal = digest.removeprefix("sha256:")
        place = self.target / "blobs" / "sha256" / hexadecimal
        if place.exists():
            return place
        stream = self.source.open(f"blobs/sha256/{hexadecimal}")
        if stream is None:
            self.fail(f"the blob {digest} is missing")
        with stream:
            path, actual, length = self.copied(stream, f"the blob {digest}", most=size)
        if length != size:
            self.fail(f"the blob {digest} has {'more than ' if length > size else ''}{length} bytes, not {size}")
        if actual != digest:
            self.fail(f"the blob {digest} is not what its digest says ({actual})")
        return path.replace(place)

    def copied(self, stream: IO[bytes], what: str, *, most: int | None = None) -> tuple[Path, str, int]:
        path = self.target / "blobs" / "sha256" / "partial"
        hasher, size = hashlib.sha256(), 0
        with path.open("wb") as output:
            while most is None or size <= most:
                try:
                    chunk = stream.read(CHUNK)
                except DAMAGED as error:
                    self.fail(f"{what} cannot be read ({error})")
                if not chunk:
                    break
                size += len(chunk)
                self.written += len(chunk)
                if self.written > self.limit:
                    self.fail(f"it has more than {self.limit} bytes", hint="raise --max-size")
                hasher.update(chunk)
                output.write(chunk)
            output.flush()
            os.fsync(output.fileno())
        return path, f"sha256:{hasher.hexdigest()}", size

    def put(self, data: bytes) -> str:
        hexadecimal = hashlib.sha256(data).hexdigest()
        (self.target / "blobs" / "sha256" / hexadecimal).write_bytes(data)
        return f"sha256:{hexadecimal}"

    def write_document(self, value: object) -> str:
        return self.put(text_of(value))


def _platform(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    return f"{value.get('os')}/{value.get('architecture')}"
