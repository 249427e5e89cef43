"""OCI image layouts: written byte for byte the same each time, and verified to the last blob.

BoxLite 0.10.8 does not verify the layers of a local layout: a swapped or bit-flipped layer boots (measured). So every
digest is checked here before a layout is used. Format: OCI Image Format Specification 1.1, image-layout.md.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.rig.trouble import RigError

__all__ = ["verify_layout", "write_layout"]

_INDEX = "application/vnd.oci.image.index.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_PIECE = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


def write_layout(directory: Path, layer: Path, *, created: str, environment: Sequence[str], directory_in: str) -> str:
    """Writes a layout with one image of one layer.

    Args:
        directory: Where the layout goes; made if missing.
        layer: The root file system as an uncompressed tar.
        created: The image's time of creation, RFC 3339.
        environment: ``NAME=value`` settings of the image.
        directory_in: The working directory in the image.

    Returns:
        The manifest's digest, ``sha256:`` and 64 hex digits; the same for the same arguments.
    """
    (directory / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    packed, diff_id = _pack(directory, layer)
    config = {
        "architecture": "amd64",
        "config": {"Cmd": ["/bin/sh"], "Env": list(environment), "WorkingDir": directory_in},
        "created": created,
        "history": [{"created": created, "created_by": "tests/rig/image"}],
        "os": "linux",
        "rootfs": {"diff_ids": [diff_id], "type": "layers"},
    }
    manifest = {
        "config": _put(directory, _CONFIG, _text(config)),
        "layers": [packed],
        "mediaType": _MANIFEST,
        "schemaVersion": 2,
    }
    entry = _put(directory, _MANIFEST, _text(manifest))
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    index = {"manifests": [entry], "mediaType": _INDEX, "schemaVersion": 2}
    (directory / "index.json").write_bytes(_text(index))
    (directory / "oci-layout").write_bytes(_text({"imageLayoutVersion": "1.0.0"}))
    return str(entry["digest"])


def _text(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _put(directory: Path, media_type: str, data: bytes) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (directory / "blobs" / "sha256" / digest).write_bytes(data)
    return {"digest": f"sha256:{digest}", "mediaType": media_type, "size": len(data)}


def _pack(directory: Path, layer: Path) -> tuple[dict[str, object], str]:
    plain = hashlib.sha256()
    partial = directory / "blobs" / "layer.partial"
    with (
        layer.open("rb") as source,
        partial.open("wb") as target,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=target, mtime=0) as packer,
    ):
        while piece := source.read(_PIECE):
            plain.update(piece)
            packer.write(piece)
    digest = _sha256(partial)
    descriptor = {"digest": f"sha256:{digest}", "mediaType": _LAYER, "size": partial.stat().st_size}
    partial.rename(directory / "blobs" / "sha256" / digest)
    return descriptor, f"sha256:{plain.hexdigest()}"


def verify_layout(directory: Path, *, expected: str | None = None) -> str:
    """Checks every blob that the layout's index leads to: size, digest, and that each layer unpacks to its diff id.

    Args:
        directory: The layout.
        expected: The manifest digest that the index must name; None takes what the index says.

    Returns:
        The manifest's digest.

    Raises:
        RigError: Something is missing, malformed or does not match; names the file.
    """
    index = _parsed(directory / "index.json", _read(directory / "index.json"))
    entries = index.get("manifests")
    if not isinstance(entries, list) or len(entries) != 1:
        raise _wrong(directory / "index.json", "does not name exactly one manifest")
    digest = _digest_of(directory / "index.json", entries[0])
    if expected is not None and digest != expected:
        raise _wrong(directory / "index.json", f"names the manifest {digest} instead of {expected}")
    manifest_path = _checked(directory, directory / "index.json", entries[0])
    manifest = _parsed(manifest_path, _read(manifest_path))
    config_path = _checked(directory, manifest_path, manifest.get("config"))
    config = _parsed(config_path, _read(config_path))
    layers, rootfs = manifest.get("layers"), config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(layers, list) or not isinstance(diff_ids, list) or len(layers) != len(diff_ids) or not layers:
        raise _wrong(manifest_path, "its layers and the configuration's diff ids do not pair up")
    for layer, diff_id in zip(layers, diff_ids, strict=True):
        path = _checked(directory, manifest_path, layer)
        if f"sha256:{_sha256_unpacked(path)}" != diff_id:
            raise _wrong(path, "does not unpack to the diff id in the configuration")
    return digest


def _checked(directory: Path, named_by: Path, descriptor: object) -> Path:
    digest = _digest_of(named_by, descriptor)
    path = directory / "blobs" / "sha256" / digest.removeprefix("sha256:")
    if path.is_symlink() or not path.is_file():
        raise _wrong(path, "is missing or not a regular file")
    size = descriptor.get("size") if isinstance(descriptor, Mapping) else None
    if path.stat().st_size != size or f"sha256:{_sha256(path)}" != digest:
        raise _wrong(path, "does not match its digest")
    return path


def _digest_of(named_by: Path, descriptor: object) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, Mapping) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _wrong(named_by, "holds a descriptor without a sha256 digest")
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _sha256_unpacked(path: Path) -> str:
    hasher = hashlib.sha256()
    try:
        with gzip.open(path, "rb") as handle:
            while piece := handle.read(_PIECE):
                hasher.update(piece)
    except (OSError, EOFError) as error:
        raise _wrong(path, f"is not a gzip layer ({error})") from error
    return hasher.hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror})") from error


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise _wrong(path, "is not JSON") from error
    if not isinstance(value, dict):
        raise _wrong(path, "is not a JSON object")
    return value


def _wrong(path: Path, what: str) -> RigError:
    return RigError(f"{path}: {what}", hint="remove the image's directory and run `make image`")
