"""Small images for tests: layouts, tars of them, and what docker save writes."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
HOST = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
OTHER = "s390x"


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def dumped(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def tar(files: Mapping[str, bytes] | Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A tar of plain files, or of the members that are given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for item, data in files.items() if isinstance(files, Mapping) else files:
            member = tarfile.TarInfo(item) if isinstance(item, str) else item
            if member.isreg():
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def root(content: bytes = b"one") -> bytes:
    """The plain tar of a layer."""
    return tar({"etc/content": content * 1000})


class Image:
    """The blobs of one image, and its documents."""

    def __init__(self, layers: Iterable[bytes] = (), *, kind: str = "gzip", architecture: str = HOST) -> None:
        self.plain = list(layers) or [root(b"one"), root(b"two")]
        packers: dict[str, Callable[[bytes], bytes]] = {
            "gzip": lambda data: gzip.compress(data, mtime=0),
            "zstd": zstandard.compress,
            "": bytes,
        }
        self.blobs: dict[str, bytes] = {}
        self.config: dict[str, Any] = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha(data) for data in self.plain]},
        }
        suffix = f"+{kind}" if kind else ""
        stored = [packers[kind](data) for data in self.plain]
        self.manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.put(dumped(self.config), CONFIG),
            "layers": [self.put(data, LAYER + suffix) for data in stored],
        }

    def put(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[sha(data)] = data
        return {"mediaType": media_type, "digest": sha(data), "size": len(data)}

    @property
    def entry(self) -> dict[str, Any]:
        """The manifest's descriptor, as an index names it."""
        descriptor = self.put(dumped(self.manifest), MANIFEST)
        return {**descriptor, "platform": {"os": "linux", "architecture": self.config["architecture"]}}

    @property
    def digest(self) -> str:
        return str(self.entry["digest"])

    def files(self, *entries: Mapping[str, Any], name: str | None = "agents/base:1") -> dict[str, bytes]:
        """The files of a layout, by name."""
        named = {"annotations": {"io.containerd.image.name": name}} if name else {}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(entries) or [{**self.entry, **named}]}
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": dumped(index),
            **{f"blobs/sha256/{digest.removeprefix('sha256:')}": data for digest, data in self.blobs.items()},
        }

    def docker(self, *, tags: Iterable[str] = ("agents/base:1",), named: str | None = None) -> dict[str, bytes]:
        """The files that docker save wrote before version 25, by name."""
        config = dumped(self.config)
        layers = {f"{number:064x}/layer.tar": data for number, data in enumerate(self.plain)}
        name = named or f"{sha(config).removeprefix('sha256:')}.json"
        listed = [{"Config": name, "RepoTags": list(tags), "Layers": list(layers)}]
        return {name: config, **layers, "manifest.json": dumped(listed), "repositories": b"{}"}


def unpacked(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a directory."""
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def packed(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write files as a tar."""
    path.write_bytes(tar(files))
    return path
