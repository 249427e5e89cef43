"""Importing images: every form that images come in, and every way to be hostile that is known."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from tests.unit.imaging import HOST, INDEX, LAYER, MANIFEST, OTHER, Image, dumped, packed, root, sha, tar, unpacked

from cedarbox.boxlite import LayoutVerifier
from cedarbox.boxlite.image_store import Found, ImageStore
from cedarbox.errors import ImageError

NAME = "docker.io/agents/base:1"


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store", lock=tmp_path / "lock")


def good(store: ImageStore, found: Found, image: Image) -> None:
    """The stored layout is whole, private, and holds the layers of the image."""
    checked = LayoutVerifier().verify(found.path)
    assert checked.digest == found.image.layout_digest
    assert sum(path.stat().st_size for path in (found.path / "blobs" / "sha256").iterdir()) == found.image.size
    config = json.loads((found.path / "blobs" / "sha256" / checked_config(found)).read_bytes())
    assert config["rootfs"]["diff_ids"] == [sha(data) for data in image.plain]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (store.directory, *store.directory.rglob("*"))}
    assert modes <= {0o700, 0o600}
    assert sorted(path.name for path in store.directory.iterdir()) == [".lock", "catalogue.json", "layouts"]


def checked_config(found: Found) -> str:
    manifest = json.loads(
        (found.path / "blobs/sha256" / found.image.layout_digest.removeprefix("sha256:")).read_bytes()
    )
    return str(manifest["config"]["digest"]).removeprefix("sha256:")


def refused(store: ImageStore, source: Path, what: str, **options: Any) -> None:
    """One line, and the store is as it was: empty."""
    with pytest.raises(ImageError, match=what) as caught:
        store.add(source, name="x", **options)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert store.list() == []
    assert not list(store.directory.glob("layouts/*"))
    assert not list(store.directory.glob(".work-*"))


@pytest.mark.parametrize("kind", ["gzip", ""])
def test_a_layout_keeps_its_digest(store: ImageStore, tmp_path: Path, kind: str) -> None:
    image = Image(kind=kind)
    for number, source in enumerate(
        [unpacked(tmp_path / "oci", image.files()), packed(tmp_path / "oci.tar", image.files())]
    ):
        found = store.add(source)
        good(store, found, image)
        assert (found.image.digest, found.image.layout_digest, found.names) == (image.digest, image.digest, (NAME,))
        assert found.image.platform == f"linux/{HOST}", number


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, lzma.compress, bz2.compress])
@pytest.mark.parametrize("form", ["oci", "docker"])
def test_a_packed_tar(store: ImageStore, tmp_path: Path, pack: Callable[[bytes], bytes], form: str) -> None:
    image = Image()
    (tmp_path / "image").write_bytes(pack(tar(image.files() if form == "oci" else image.docker())))
    good(store, store.add(tmp_path / "image"), image)


def test_zstd_layers_are_stored_unpacked_under_the_old_digest(store: ImageStore, tmp_path: Path) -> None:
    image = Image(kind="zstd")
    found = store.add(packed(tmp_path / "oci.tar", image.files()))
    good(store, found, image)
    assert found.image.digest == image.digest != found.image.layout_digest
    assert "zstd" in found.notes[0]
    assert LayoutVerifier().verify(found.path).layers == tuple(sha(data) for data in image.plain)
    again = store.find(f"agents/base@{image.digest}")
    assert again is not None
    assert again.path == found.path


def test_docker_save(store: ImageStore, tmp_path: Path) -> None:
    image = Image()
    found = store.add(packed(tmp_path / "saved.tar", image.docker()))
    good(store, found, image)
    assert found.names == (NAME,)
    # The same archive gives the same digest everywhere.
    other = ImageStore(tmp_path / "other", lock=tmp_path / "lock")
    assert other.add(packed(tmp_path / "again.tar", image.docker())).image.digest == found.image.digest


def test_docker_save_names_one_layer_twice_by_a_link(store: ImageStore, tmp_path: Path) -> None:
    image = Image([root(b"same"), root(b"same")])
    files = image.docker()
    second = f"{1:064x}/layer.tar"
    del files[second]
    link = tarfile.TarInfo(second)
    link.type, link.linkname = tarfile.SYMTYPE, f"../{0:064x}/layer.tar"
    members = [(tarfile.TarInfo(name), data) for name, data in files.items()]
    (tmp_path / "saved.tar").write_bytes(tar([*members, (link, b"")]))
    good(store, store.add(tmp_path / "saved.tar"), image)


def test_newer_docker_save_has_both_forms(store: ImageStore, tmp_path: Path) -> None:
    image = Image()
    paths = [f"blobs/sha256/{layer['digest'].removeprefix('sha256:')}" for layer in image.manifest["layers"]]
    config = f"blobs/sha256/{image.manifest['config']['digest'].removeprefix('sha256:')}"
    listed = [{"Config": config, "RepoTags": ["agents/base:1"], "Layers": paths}]
    found = store.add(packed(tmp_path / "saved.tar", {**image.files(), "manifest.json": dumped(listed)}))
    good(store, found, image)
    assert found.image.digest == image.digest


def multi(*architectures: str, image: Image | None = None) -> tuple[Image, dict[str, bytes], str]:
    """A multi-platform index below the index of a layout, with an attestation, as buildx makes it."""
    mine = image or Image()
    others = [Image([root(name.encode())], architecture=name) for name in architectures]
    attestation = Image([root(b"attestation")]).entry | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    entries = [*([mine.entry] if image is None else []), *(other.entry for other in others), attestation]
    inner = mine.put(dumped({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}), INDEX)
    for other in others:
        mine.blobs.update(other.blobs)
    return mine, mine.files(inner), str(inner["digest"])


def test_a_multi_platform_index(store: ImageStore, tmp_path: Path) -> None:
    image, files, index = multi(OTHER, "riscv64")
    found = store.add(packed(tmp_path / "oci.tar", files), name="a")
    good(store, found, image)
    assert (found.image.digest, found.image.aliases) == (image.digest, (index,))
    assert found.notes == (f"took linux/{HOST} of: linux/{HOST}, linux/riscv64, linux/{OTHER}",)
    by_index = store.find(f"a@{index}")
    assert by_index is not None
    assert by_index.image == found.image


def test_platforms_whose_blobs_were_not_saved(store: ImageStore, tmp_path: Path) -> None:
    image, files, _ = multi(OTHER)
    other = Image([root(OTHER.encode())], architecture=OTHER)
    for digest in (other.digest, *other.blobs):
        files.pop(f"blobs/sha256/{digest.removeprefix('sha256:')}", None)
    good(store, store.add(unpacked(tmp_path / "oci", files), name="a"), image)


def test_no_platform_fits(store: ImageStore, tmp_path: Path) -> None:
    _, files, _ = multi(OTHER, "riscv64", image=Image(architecture="mips"))
    refused(store, packed(tmp_path / "oci.tar", files), f"no image in it is for linux/{HOST}; it offers: linux/riscv64")
    alone = Image(architecture=OTHER)
    entry = {key: value for key, value in alone.entry.items() if key != "platform"}
    refused(
        store, packed(tmp_path / "a.tar", alone.files(entry)), f"the image is for linux/{OTHER}, and this host runs"
    )
    refused(store, packed(tmp_path / "b.tar", alone.docker()), f"the image is for linux/{OTHER}")


def test_two_images(store: ImageStore, tmp_path: Path) -> None:
    first, second = Image(), Image([root(b"other")])
    first.blobs.update(second.blobs)
    entries = (first.entry, second.entry)
    first.blobs.update(second.blobs)
    refused(store, packed(tmp_path / "oci.tar", first.files(*entries)), "holds 2 images where one is needed")
    files = first.docker()
    files["manifest.json"] = dumped(json.loads(files["manifest.json"]) * 2)
    refused(store, packed(tmp_path / "saved.tar", files), "holds 2 images where one is needed")


@pytest.mark.parametrize("form", ["directory", "tar"])
@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("damage", ["flip", "short", "long", "gone", "swap"])
def test_every_blob_is_checked(store: ImageStore, tmp_path: Path, form: str, which: int, damage: str) -> None:
    image = Image()
    files = image.files()
    names = sorted(name for name in files if name.startswith("blobs/"))
    name, data = names[which], files[names[which]]
    if damage == "gone":
        del files[name]
    else:
        middle = len(data) // 2
        files[name] = {
            "flip": data[:middle] + bytes((data[middle] ^ 1,)) + data[middle + 1 :],
            "short": data[:-1],
            "long": data + b"x",
            "swap": files[names[which - 1]],
        }[damage]
    source = unpacked(tmp_path / "oci", files) if form == "directory" else packed(tmp_path / "oci.tar", files)
    refused(store, source, "is missing|bytes, not|not what its digest says")


@pytest.mark.parametrize("kind", ["gzip", "zstd", ""])
def test_layers_must_unpack_to_their_diff_ids(store: ImageStore, tmp_path: Path, kind: str) -> None:
    image = Image(kind=kind)
    image.config["rootfs"]["diff_ids"].reverse()
    image.manifest["config"] = image.put(dumped(image.config), "application/vnd.oci.image.config.v1+json")
    refused(store, packed(tmp_path / "oci.tar", image.files()), "does not unpack to its diff id")


def test_docker_layers_must_be_their_diff_ids(store: ImageStore, tmp_path: Path) -> None:
    files = Image().docker()
    files[f"{1:064x}/layer.tar"] = root(b"evil")
    refused(store, packed(tmp_path / "saved.tar", files), "does not unpack to its diff id")
    renamed = Image().docker(named="0" * 64 + ".json")
    refused(store, packed(tmp_path / "renamed.tar", renamed), "is not what its name says")
    gone = Image().docker()
    del gone[f"{0:064x}/layer.tar"]
    refused(store, packed(tmp_path / "gone.tar", gone), "is missing")


def test_a_layer_of_another_type_than_it_is_said_to_be(store: ImageStore, tmp_path: Path) -> None:
    image = Image(kind="")
    image.manifest["layers"][0]["mediaType"] = f"{LAYER}+gzip"
    refused(store, packed(tmp_path / "a.tar", image.files()), "is not of the type")
    image.manifest["layers"][0]["mediaType"] = "application/x-unknown"
    refused(store, packed(tmp_path / "b.tar", image.files()), "unknown type 'application/x-unknown'")


def test_more_or_fewer_layers_than_diff_ids(store: ImageStore, tmp_path: Path) -> None:
    image = Image()
    image.manifest["layers"].pop()
    refused(store, packed(tmp_path / "a.tar", image.files()), "has 1 layers and its configuration names 2")
    image.manifest["layers"] = []
    refused(store, packed(tmp_path / "b.tar", image.files()), "has no layers")


@pytest.mark.parametrize(
    ("name", "kind", "link"),
    [
        ("/etc/evil", tarfile.REGTYPE, ""),
        ("../evil", tarfile.REGTYPE, ""),
        ("a/../../evil", tarfile.REGTYPE, ""),
        ("a\\..\\evil", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("disk", tarfile.BLKTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("index.json", tarfile.REGTYPE, ""),
        ("./index.json", tarfile.REGTYPE, ""),
    ],
)
def test_hostile_members(store: ImageStore, tmp_path: Path, name: str, kind: bytes, link: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    members = [(tarfile.TarInfo(each), data) for each, data in Image().files().items()]
    (tmp_path / "oci.tar").write_bytes(tar([*members, (member, b"")]))
    refused(store, tmp_path / "oci.tar", "leads out of it|is a link, a device|is in it twice")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["index.json", "blob"])
def test_links_are_not_followed_out_of_the_source(store: ImageStore, tmp_path: Path, name: str) -> None:
    image = Image()
    files = image.files()
    chosen = "index.json" if name == "index.json" else min(files)
    (tmp_path / "outside").write_bytes(files.pop(chosen))
    directory = unpacked(tmp_path / "oci", files)
    (directory / chosen).symlink_to(tmp_path / "outside")
    refused(store, directory, "cannot be read|neither an OCI layout")
    link = tarfile.TarInfo(chosen)
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "outside")
    members = [(tarfile.TarInfo(each), data) for each, data in files.items()]
    (tmp_path / "oci.tar").write_bytes(tar([*members, (link, b"")]))
    refused(store, tmp_path / "oci.tar", "is missing|neither an OCI layout")


def test_special_files_in_a_directory(store: ImageStore, tmp_path: Path) -> None:
    directory = unpacked(tmp_path / "oci", Image().files())
    (directory / "index.json").unlink()
    os.mkfifo(directory / "index.json")
    refused(store, directory, "is not a plain file")
    os.mkfifo(tmp_path / "pipe")
    refused(store, tmp_path / "pipe", "neither a directory nor a file")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("pack", ["plain", "gzip", "zstd"])
def test_a_tar_that_was_cut_short(store: ImageStore, tmp_path: Path, fraction: float, pack: str) -> None:
    data = tar(Image([os.urandom(100_000)], kind="").files())
    data = {"plain": lambda d: d, "gzip": gzip.compress, "zstd": zstandard.compress}[pack](data)
    (tmp_path / "oci.tar").write_bytes(data[: int(len(data) * fraction)])
    refused(
        store, tmp_path / "oci.tar", "ends in the middle|damaged|is missing|neither an OCI|not a tar|cannot be read"
    )


def test_bombs(store: ImageStore, tmp_path: Path) -> None:
    bomb = bytes(4 * 1024 * 1024)
    limit = 1024 * 1024
    for kind in ("gzip", "zstd"):
        packed(tmp_path / kind, Image([bomb], kind=kind).files())
        refused(store, tmp_path / kind, f"unpack to more than {limit} bytes", limit=limit)
    packed(tmp_path / "plain", Image([bomb], kind="").files())
    refused(store, tmp_path / "plain", f"has more than {limit} bytes", limit=limit)
    (tmp_path / "outer").write_bytes(gzip.compress(tar({"x": bomb})))
    refused(store, tmp_path / "outer", f"unpacks to more than {limit} bytes", limit=limit)
    packed(tmp_path / "docker", Image([bomb]).docker())
    refused(store, tmp_path / "docker", f"has more than {limit} bytes", limit=limit)


def test_a_blob_is_not_read_beyond_the_size_that_it_is_said_to_have(store: ImageStore, tmp_path: Path) -> None:
    image = Image()
    layer = image.manifest["layers"][0]
    directory = unpacked(tmp_path / "oci", image.files())
    with (directory / "blobs/sha256" / layer["digest"].removeprefix("sha256:")).open("r+b") as stream:
        stream.truncate(1 << 40)
    refused(store, directory, "has more than .* bytes, not")


def test_headers_that_would_fill_the_memory(store: ImageStore, tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with (tmp_path / "oci.tar").open("wb") as stream:
        stream.write(header.tobuf(tarfile.GNU_FORMAT))
        stream.truncate(1 << 33)
    refused(store, tmp_path / "oci.tar", "a header of 4294967296 bytes is not read")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("index.json", b"{"),
        ("index.json", b"[" * 100_000),
        ("index.json", b'{"manifests": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}"),
        ("index.json", b"[]"),
        ("index.json", b"{}"),
        ("index.json", b'{"manifests": [[]]}'),
        ("index.json", b'{"manifests": [{"digest": "sha256:../../x", "size": 1, "mediaType": "x"}]}'),
        ("index.json", b" " * (5 * 1024 * 1024)),
        ("index.json", b"\xff\xfe"),
        ("oci-layout", b'{"imageLayoutVersion": "9"}'),
        ("oci-layout", b"null"),
    ],
)
def test_documents_that_are_wrong(store: ImageStore, tmp_path: Path, name: str, text: bytes) -> None:
    refused(
        store,
        packed(tmp_path / "oci.tar", {**Image().files(), name: text}),
        "cannot be read as JSON|not a JSON object|names no image|not an object|not of the form|larger than|not '1.0.0'",
    )


@pytest.mark.parametrize(
    "text",
    [b"{}", b"[]", b"[1]", b'[{"Config": 1, "Layers": []}]', b'[{"Config": "x", "Layers": ["y"]}]', b"[" * 100_000],
)
def test_docker_manifests_that_are_wrong(store: ImageStore, tmp_path: Path, text: bytes) -> None:
    files = {**Image().docker(), "manifest.json": text}
    refused(store, packed(tmp_path / "saved.tar", files), "holds|lacks Config|is missing|cannot be read as JSON")


def test_indexes_without_end(store: ImageStore, tmp_path: Path) -> None:
    image = Image()
    entry = image.entry
    for _ in range(4):
        entry = image.put(dumped({"schemaVersion": 2, "manifests": [entry]}), INDEX)
    refused(store, packed(tmp_path / "oci.tar", image.files(entry)), "nested too deeply")


def test_not_an_image(store: ImageStore, tmp_path: Path) -> None:
    refused(store, tmp_path / "missing", "No such file")
    refused(store, packed(tmp_path / "root.tar", {"etc/passwd": b"root"}), "neither an OCI layout")
    (tmp_path / "empty").touch()
    refused(store, tmp_path / "empty", "is not a tar")
    (tmp_path / "text").write_bytes(b"hello\n" * 1000)
    refused(store, tmp_path / "text", "not a tar")
    (tmp_path / "directory").mkdir()
    refused(store, tmp_path / "directory", "neither an OCI layout")
    refused(store, packed(tmp_path / "x.tar", {"manifest.json": b"[]"}), "holds 0 images")
    entry = {"mediaType": MANIFEST, "digest": sha(b"gone"), "size": 4}
    refused(store, packed(tmp_path / "y.tar", Image().files(entry)), "is missing")


def test_an_image_without_a_name(store: ImageStore, tmp_path: Path) -> None:
    source = packed(tmp_path / "oci.tar", Image().files(name=None))
    with pytest.raises(ImageError, match="brings no name along; give it one with --name"):
        store.add(source)
    assert store.list() == []
    assert store.add(source, name="python").names == ("docker.io/library/python:latest",)
    for bad in ("A B", "", "x@" + sha(b""), "../x", "x" * 600):
        with pytest.raises(ImageError):
            store.add(source, name=bad)
