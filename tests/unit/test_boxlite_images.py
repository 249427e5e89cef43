"""Local OCI layouts: every way to tamper with one is found."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from cedarbox.boxlite import LayoutVerifier
from cedarbox.boxlite.references import parse_reference
from cedarbox.errors import ImageError

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def blob(root: Path, data: bytes, media_type: str = "application/octet-stream") -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    (root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    (root / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def image(root: Path, layers: list[bytes]) -> dict[str, Any]:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": blob(root, b"{}", "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(root, gzip.compress(layer, mtime=0)) for layer in layers],
    }
    return blob(root, json.dumps(manifest).encode(), MANIFEST)


def index(root: Path, *descriptors: dict[str, Any]) -> None:
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(descriptors)}))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    root = tmp_path / "oci"
    root.mkdir()
    index(root, image(root, [b"one layer" * 1000, b"another layer" * 1000]))
    return root


def blobs(layout: Path) -> list[Path]:
    """The blobs, largest first: layers, then manifest and configuration."""
    return sorted((layout / "blobs" / "sha256").iterdir(), key=lambda path: (-path.stat().st_size, path.name))


def refused(layout: Path, what: str, verifier: LayoutVerifier | None = None) -> None:
    with pytest.raises(ImageError, match=what) as caught:
        (verifier or LayoutVerifier()).verify(layout)
    assert "\n" not in str(caught.value)


def test_a_good_layout(layout: Path) -> None:
    found = LayoutVerifier().verify(layout)
    named = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    assert (found.digest, found.blobs, found.path) == (named, 4, layout.resolve())
    assert found.size == sum(path.stat().st_size for path in blobs(layout))


def test_a_nested_index(layout: Path) -> None:
    inner = json.loads((layout / "index.json").read_text())
    named = inner["manifests"][0]["digest"]
    index(layout, blob(layout, json.dumps(inner).encode(), INDEX))
    assert LayoutVerifier().verify(layout).digest == named


@pytest.mark.parametrize("which", range(4))
def test_a_flipped_bit_in_any_blob(layout: Path, which: int) -> None:
    path = blobs(layout)[which]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(layout, "not what its digest says")


def test_a_swapped_layer_of_equal_size(layout: Path) -> None:
    first, second = (path for path in blobs(layout)[:2])
    data = first.read_bytes()
    second.write_bytes(data)
    refused(layout, "bytes, not|not what its digest says")


def test_tampering_after_a_good_check_is_found_by_the_same_verifier(layout: Path) -> None:
    verifier = LayoutVerifier()
    verifier.verify(layout)
    path = blobs(layout)[0]
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused(layout, "not what its digest says", verifier)


def test_a_swapped_manifest_gives_another_digest(layout: Path) -> None:
    before = LayoutVerifier().verify(layout).digest
    index(layout, image(layout, [b"evil"]))
    assert LayoutVerifier().verify(layout).digest != before


@pytest.mark.parametrize("which", range(4))
def test_a_missing_blob(layout: Path, which: int) -> None:
    blobs(layout)[which].unlink()
    refused(layout, "is missing")


def test_a_shorter_blob(layout: Path) -> None:
    path = blobs(layout)[0]
    path.write_bytes(path.read_bytes()[:-1])
    refused(layout, "bytes, not")


def test_a_blob_that_is_a_link(layout: Path, tmp_path: Path) -> None:
    path = blobs(layout)[0]
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    refused(layout, "cannot be opened as a plain file")


def test_a_blobs_directory_that_is_a_link(layout: Path, tmp_path: Path) -> None:
    (layout / "blobs" / "sha256").rename(tmp_path / "elsewhere")
    (layout / "blobs" / "sha256").symlink_to(tmp_path / "elsewhere")
    refused(layout, "symbolic link")


def test_a_blob_that_is_a_pipe(layout: Path) -> None:
    path = blobs(layout)[0]
    path.unlink()
    os.mkfifo(path)
    refused(layout, "not a plain file")


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha512:" + "a" * 128, "sha256:" + "A" * 64, 7, None])
def test_a_digest_of_another_form(layout: Path, digest: object) -> None:
    index(layout, {"mediaType": MANIFEST, "digest": digest, "size": 1})
    refused(layout, "is not of the form")


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("index.json", "{", "cannot be read as JSON"),
        ("index.json", "[]", "not a JSON object"),
        ("index.json", "[" * 100_000, "cannot be read as JSON"),
        ("index.json", "{}", "names no image"),
        ("oci-layout", '{"imageLayoutVersion": "9"}', "imageLayoutVersion"),
    ],
)
def test_damaged_documents(layout: Path, name: str, text: str, what: str) -> None:
    (layout / name).write_text(text)
    refused(layout, what)


def test_two_images(layout: Path) -> None:
    first = json.loads((layout / "index.json").read_text())["manifests"][0]
    index(layout, first, image(layout, [b"other"]))
    refused(layout, "holds 2 images")


def test_an_unknown_media_type(layout: Path) -> None:
    first = json.loads((layout / "index.json").read_text())["manifests"][0]
    index(layout, {**first, "mediaType": "application/x-unknown"})
    refused(layout, "unknown media type")


def test_indexes_without_end(layout: Path) -> None:
    inner = json.loads((layout / "index.json").read_text())
    for _ in range(5):
        inner = {"schemaVersion": 2, "manifests": [blob(layout, json.dumps(inner).encode(), INDEX)]}
    (layout / "index.json").write_text(json.dumps(inner))
    refused(layout, "nested too deeply")


def test_a_huge_document_is_not_read(layout: Path) -> None:
    first = json.loads((layout / "index.json").read_text())["manifests"][0]
    index(layout, {**first, "size": 10**12})
    refused(layout, "larger than")


def test_not_a_layout(tmp_path: Path) -> None:
    refused(tmp_path, "is not an OCI layout")
    refused(tmp_path / "missing", "No such file")
    (tmp_path / "image.tar").write_bytes(b"tar")
    refused(tmp_path / "image.tar", "is not an OCI layout")


def test_references() -> None:
    digest = "sha256:" + "0" * 64
    for text, name, pinned in (
        ("python", "docker.io/library/python:latest", None),
        ("agents/base:1", "docker.io/agents/base:1", None),
        (f"mirror.corp.example/a@{digest}", "mirror.corp.example/a", digest),
        (f"localhost/a:1@{digest}", "localhost/a:1", digest),
        ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", None),
    ):
        reference = parse_reference(text)
        assert (reference.name, reference.digest) == (name, pinned)
        assert parse_reference(str(reference)) == reference
    for text in ("", "A", "a b", "a:", "a@sha256:x", "/a", "a//b", "https://a/b", "a:b:c", "x" * 600, "Abc/d"):
        with pytest.raises(ImageError, match="is not an image reference"):
            parse_reference(text)
