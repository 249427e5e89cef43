"""Trees of the host as archives, and what a guest sends back."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from cedarbox import Mount
from cedarbox.boxlite import trees
from cedarbox.boxlite.copies import put_back
from cedarbox.boxlite.mounts import PinnedMount, pinned
from cedarbox.errors import HostError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    (made / "dir" / "deep").mkdir(parents=True)
    (made / "file").write_bytes(b"content")
    (made / "dir" / "script").write_bytes(b"#!/bin/sh\n")
    (made / "dir" / "script").chmod(0o750)
    (made / "dir" / "up").symlink_to("../file")
    (made / ("n" * 120)).write_bytes(b"")
    (made / "ä b\n").write_bytes(b"odd")
    return made


@pytest.fixture
def mount(tree: Path) -> PinnedMount:
    found = pinned(Mount(tree, "/mnt/tree", read_only=False))
    return replace(found, contents=trees.tree_digest(tree))


def test_there_and_back(tree: Path, tmp_path: Path) -> None:
    content, digest = trees.archived(tree)
    with content:
        assert digest == trees.tree_digest(tree) == trees.archive_digest(content)
        trees.unpacked(content, tmp_path / "copy")
    assert trees.tree_digest(tmp_path / "copy") == digest
    assert (tmp_path / "copy" / "dir" / "up").readlink() == Path("../file")


def test_the_digest_sees_every_change(tree: Path) -> None:
    seen = {trees.tree_digest(tree)}

    def changed() -> None:
        before = len(seen)
        seen.add(trees.tree_digest(tree))
        assert len(seen) == before + 1

    (tree / "file").write_bytes(b"CONTENT")
    changed()
    (tree / "file").chmod(0o600)
    changed()
    (tree / "file").rename(tree / "file2")
    changed()
    (tree / "dir" / "up").unlink()
    (tree / "dir" / "up").symlink_to("../file2")
    changed()
    (tree / "dir" / "deep").rmdir()
    changed()
    (tree / "dir" / "deep").write_bytes(b"")
    changed()


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../x", "dir/../..", "dir/../file", "a/../../x", "./file"])
def test_links_that_may_lead_out_are_refused(tree: Path, target: str) -> None:
    (tree / "link").symlink_to(target)
    with pytest.raises(HostError, match="may be outside"):
        trees.tree_digest(tree)


def test_what_is_no_file_directory_or_link_is_refused(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(HostError, match="no file, directory or link"):
        trees.archived(tree)
    (tree / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tree / "sock"))
        with pytest.raises(HostError, match="no file, directory or link"):
            trees.archived(tree)


def archive(*members: tuple[str, bytes, str, bytes]) -> IO[bytes]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, link, data in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size, member.mode = kind, link, len(data), 0o7777
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


ROOT = ("./", tarfile.DIRTYPE, "", b"")
DIR = ("./d", tarfile.DIRTYPE, "", b"")
FILE = ("./f", tarfile.REGTYPE, "", b"x")


@pytest.mark.parametrize(
    "members",
    [
        [],
        [FILE],
        [("./", tarfile.SYMTYPE, "x", b"")],
        [ROOT, ("/etc/passwd", tarfile.REGTYPE, "", b"x")],
        [ROOT, ("../up", tarfile.REGTYPE, "", b"x")],
        [ROOT, ("./a/../../up", tarfile.REGTYPE, "", b"x")],
        [ROOT, ("./a/b", tarfile.REGTYPE, "", b"x")],
        [ROOT, FILE, FILE],
        [ROOT, FILE, ("./f/g", tarfile.REGTYPE, "", b"x")],
        [ROOT, ("./l", tarfile.SYMTYPE, "d", b""), ("./l/f", tarfile.REGTYPE, "", b"x")],
        [ROOT, ("./l", tarfile.SYMTYPE, "/etc", b"")],
        [ROOT, ("./l", tarfile.SYMTYPE, "../etc", b"")],
        [ROOT, DIR, ("./d/l", tarfile.SYMTYPE, "../../etc", b"")],
        [ROOT, DIR, ("./l", tarfile.SYMTYPE, "d/../../etc", b"")],
        [ROOT, ("./l", tarfile.SYMTYPE, "", b"")],
        [ROOT, FILE, ("./h", tarfile.LNKTYPE, "./f", b"")],
        [ROOT, ("./c", tarfile.CHRTYPE, "", b"")],
        [ROOT, ("./b", tarfile.BLKTYPE, "", b"")],
        [ROOT, ("./p", tarfile.FIFOTYPE, "", b"")],
    ],
)
def test_archives_that_are_refused(members: list[Any], tmp_path: Path, mount: PinnedMount) -> None:
    content = archive(*members)
    with pytest.raises(HostError) as caught:
        trees.archive_digest(content)
    before = trees.tree_digest(Path(mount.real))
    with pytest.raises(HostError, match="kept as") as shown:
        put_back(mount, content, "", caught.value.message)
    (kept,) = tmp_path.glob("tree.cedarbox-*.tar")
    assert str(kept) in str(shown.value)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert trees.tree_digest(Path(mount.real)) == before
    assert sorted(tmp_path.iterdir()) == sorted([kept, Path(mount.real)])


def test_an_archive_that_is_cut_short_or_no_archive_is_refused() -> None:
    whole = archive(ROOT, ("./f", tarfile.REGTYPE, "", b"x" * 5000)).read()
    for data in (b"", b"no archive" * 100, whole[:2000]):
        with pytest.raises(HostError):
            trees.archive_digest(io.BytesIO(data))


def test_special_bits_are_not_kept(tmp_path: Path) -> None:
    trees.unpacked(archive(ROOT, DIR, FILE), tmp_path / "made")
    assert (tmp_path / "made" / "f").stat().st_mode & 0o7777 == 0o777
    assert (tmp_path / "made" / "d").stat().st_mode & 0o7777 == 0o777


def test_what_the_guest_made_takes_the_place_in_one_step(mount: PinnedMount, tmp_path: Path) -> None:
    content = archive(ROOT, FILE)
    digest = trees.archive_digest(content)
    after = put_back(mount, content, digest)
    target = Path(mount.real)
    assert [path.name for path in target.iterdir()] == ["f"]
    assert after.contents == digest == trees.tree_digest(target)
    assert (after.device, after.inode) == (target.stat().st_dev, target.stat().st_ino)
    assert list(tmp_path.iterdir()) == [target]


def test_a_change_on_the_host_is_never_overwritten(mount: PinnedMount, tmp_path: Path) -> None:
    (Path(mount.real) / "new").write_bytes(b"host")
    content = archive(ROOT, FILE)
    digest = trees.archive_digest(content)
    with pytest.raises(HostError, match="changed on the host meanwhile"):
        put_back(mount, content, digest)
    (kept,) = tmp_path.glob("tree.cedarbox-*")
    assert trees.tree_digest(kept) == digest
    assert (Path(mount.real) / "new").read_bytes() == b"host"
    assert not (Path(mount.real) / "f").exists()


def test_a_directory_that_was_swapped_is_never_overwritten(mount: PinnedMount, tmp_path: Path) -> None:
    Path(mount.real).rename(tmp_path / "moved")
    Path(mount.real).symlink_to(tmp_path / "moved")
    content = archive(ROOT, FILE)
    with pytest.raises(HostError, match="not the directory that it was"):
        put_back(mount, content, trees.archive_digest(content))
    assert trees.tree_digest(tmp_path / "moved") == mount.contents


def test_changing_places_needs_both() -> None:
    with pytest.raises(HostError, match="in one step"):
        trees.exchange(Path("/nonexistent/a"), Path("/nonexistent/b"))


def test_a_tree_that_its_owner_may_not_write_is_replaced_too(mount: PinnedMount, tmp_path: Path) -> None:
    (Path(mount.real) / "dir").chmod(0o500)
    before = replace(mount, contents=trees.tree_digest(Path(mount.real)))
    content = archive(ROOT, FILE)
    put_back(before, content, trees.archive_digest(content))
    assert list(tmp_path.iterdir()) == [Path(mount.real)]


def test_what_cannot_be_unpacked_is_kept_as_an_archive(mount: PinnedMount, tmp_path: Path) -> None:
    whole = archive(ROOT, ("./f", tarfile.REGTYPE, "", b"x" * 5000)).read()
    with pytest.raises(HostError, match="archive of what the guest made is kept as"):
        put_back(mount, io.BytesIO(whole[:2000]), "digest")
    (kept,) = tmp_path.glob("tree.cedarbox-*")
    assert kept.read_bytes() == whole[:2000]
    assert trees.tree_digest(Path(mount.real)) == mount.contents
