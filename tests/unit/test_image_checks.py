"""Digests that are remembered over the end of a process, and disk images that are guarded by them."""

from __future__ import annotations

import json
import os
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.imaging import Image, unpacked

from cedarbox.boxlite import LayoutVerifier, VerifiedImage
from cedarbox.boxlite.checks import Checks, identity_of
from cedarbox.boxlite.image_disks import ImageDisks, disk_image_name
from cedarbox.errors import ImageError


def later() -> int:
    """A clock on which everything has settled."""
    return time.time_ns() + 10_000_000_000


class Counting(Checks):
    """Counts the files that had to be hashed."""

    hashed = 0

    def known(self, status: os.stat_result) -> str | None:
        found = super().known(status)
        self.hashed += found is None
        return found


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return unpacked(tmp_path / "oci", Image().files())


def verified(layout: Path, path: Path | None, clock: Callable[[], int] = later) -> int:
    """Verify, and return how many files were hashed for it."""
    checks = Counting(path, clock=clock)
    LayoutVerifier(checks).verify(layout)
    return checks.hashed


def flip(path: Path, *, offset: int = 0) -> None:
    """Change one bit in place and put the time of modification back."""
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)[0]
        stream.seek(offset)
        stream.write(bytes((byte ^ 1,)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def blobs(layout: Path) -> list[Path]:
    return sorted((layout / "blobs" / "sha256").iterdir())


def test_the_second_check_hashes_nothing_in_another_process(layout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checks.json"
    assert verified(layout, kept) == 4
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert verified(layout, kept) == 0


@pytest.mark.parametrize("which", range(4))
def test_a_flip_in_place_with_its_time_put_back_is_found(layout: Path, tmp_path: Path, which: int) -> None:
    kept = tmp_path / "checks.json"
    verified(layout, kept)
    flip(blobs(layout)[which])
    with pytest.raises(ImageError, match="not what its digest says"):
        verified(layout, kept)


def test_a_replaced_file_is_found(layout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checks.json"
    verified(layout, kept)
    blob = blobs(layout)[0]
    before, data = blob.stat(), bytearray(blob.read_bytes())
    data[0] ^= 1
    (tmp_path / "evil").write_bytes(data)
    os.utime(tmp_path / "evil", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "evil").replace(blob)
    with pytest.raises(ImageError, match="not what its digest says"):
        verified(layout, kept)


def test_what_is_known_of_one_digest_is_good_for_no_other(layout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checks.json"
    verified(layout, kept)
    first, second = blobs(layout)[:2]
    size = first.stat().st_size
    first.unlink()
    first.hardlink_to(second)
    if second.stat().st_size != size:
        with pytest.raises(ImageError, match="bytes, not"):
            verified(layout, kept)
    checks = Checks(clock=later)
    checks.remember(second.stat(), "0" * 64)
    assert checks.known(second.stat()) == "0" * 64
    with pytest.raises(ImageError):
        LayoutVerifier(checks).verify(layout)


def test_a_file_that_has_just_changed_is_not_remembered(layout: Path, tmp_path: Path) -> None:
    kept = tmp_path / "checks.json"
    changed = max(path.stat().st_ctime_ns for path in blobs(layout))
    assert verified(layout, kept, lambda: changed + 1_000_000) == 4
    assert not kept.exists()
    assert verified(layout, kept, lambda: changed + 1_000_000) == 4


def _to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"{"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b'{"version": 1, "files": []}'),
        lambda path: path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 9')),
        lambda path: path.write_bytes(b'{"version": 1, "files": {"a:b:c:d:e": "' + b"0" * 64 + b'"}}'),
        lambda path: path.write_bytes(b'{"version": 1, "files": {"1:2:3:4:5": "x"}}'),
        lambda path: path.chmod(0o666),
        lambda path: path.chmod(0o640),
        lambda path: path.replace(path.with_suffix(".real")).with_name(path.name).symlink_to(path.with_suffix(".real")),
        _to_a_pipe,
        _to_a_directory,
    ],
)
def test_a_file_that_cannot_be_trusted_is_ignored(
    layout: Path, tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    kept = tmp_path / "checks.json"
    verified(layout, kept)
    spoil(kept)
    assert verified(layout, kept) == 4


def test_a_file_that_cannot_be_written_costs_only_time(layout: Path, tmp_path: Path) -> None:
    assert verified(layout, tmp_path / "missing" / "checks.json") == 4


# --- the disk images of a home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("images/disk-images", "images/local/x/extracted", "bases", "boxes"):
        (tmp_path / "home" / name).mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture
def image(layout: Path) -> VerifiedImage:
    return LayoutVerifier().verify(layout)


def made(home: Path, image: VerifiedImage) -> tuple[Path, Path]:
    """Make what BoxLite makes on a first boot: sparse files."""
    disk = home / "images" / "disk-images" / f"{disk_image_name(image)}r536870912.ext4"
    base = home / "bases" / "abc.ext4"
    for path in (disk, base):
        with path.open("wb") as stream:
            stream.seek(1 << 20)
            stream.write(b"content" * 1000)
            stream.truncate(1 << 26)
    return disk, base


def overlay(home: Path, below: Path) -> Path:
    """Write the disk of a box: a qcow2 header and an empty table."""
    path = home / "boxes" / "box" / "disks" / "disk.qcow2"
    path.parent.mkdir(parents=True)
    name = str(below).encode()
    header = bytearray(1 << 16)
    fields = (b"QFI\xfb", 3, 0x1000, len(name), 16, 1 << 26, 0, 1, 0x8000, 0, 0, 0, 0)
    header[:72] = struct.pack(">4sIQIIQIIQQIIQ", *fields)
    header[0x1000 : 0x1000 + len(name)] = name
    path.write_bytes(header)
    return path


async def test_what_a_boot_has_made_is_checked_before_the_next(home: Path, image: VerifiedImage) -> None:
    disks = ImageDisks(home)
    async with disks.booting(image):
        files = made(home, image)
    assert stat.S_IMODE((home / "cedarbox-disks.json").stat().st_mode) == 0o600
    again = ImageDisks(home)
    assert again.verify(image)
    for path in files:
        for offset in (1 << 20, 1 << 25):  # in what was written, and in a hole
            flip(path, offset=offset)
            with pytest.raises(ImageError, match="not what it was when BoxLite made it"):
                async with again.booting(image):
                    pytest.fail("it was booted")
            flip(path, offset=offset)
            # The same content is known by its digest, whatever its times and holes are.
            assert again.verify(image)


async def test_a_boot_that_fails_is_remembered_as_well(home: Path, image: VerifiedImage) -> None:
    async def fail() -> None:
        async with ImageDisks(home).booting(image):
            made(home, image)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert ImageDisks(home).verify(image)
    assert len(list(home.rglob("*.ext4"))) == 2


def test_a_disk_image_that_nobody_knows_is_made_anew(home: Path, image: VerifiedImage) -> None:
    disk, base = made(home, image)
    unrelated = home / "images" / "disk-images" / f"sha256-{'0' * 64}-r1.ext4"
    unrelated.write_bytes(b"x")
    ImageDisks(home).prepare()
    assert not base.exists()
    assert not ImageDisks(home).verify(image)
    assert not disk.exists()
    assert unrelated.exists()


def test_one_that_a_sandbox_needs_is_refused_instead(home: Path, image: VerifiedImage) -> None:
    disk, base = made(home, image)
    base.unlink()
    overlay(home, disk)
    with pytest.raises(ImageError, match=r"nobody knows what .* needs it"):
        ImageDisks(home).verify(image)
    assert disk.exists()


def test_an_agent_disk_that_appears_later_is_refused(home: Path, image: VerifiedImage) -> None:
    made(home, image)
    with pytest.raises(ImageError, match="nobody knows"):
        ImageDisks(home).verify(image)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1, "disks": {"a": {"digest": "x", "identity": [1]}}}'])
def test_a_damaged_memory_means_that_nothing_is_known(home: Path, image: VerifiedImage, text: str) -> None:
    disk, base = made(home, image)
    ImageDisks(home).remember(image)
    (home / "cedarbox-disks.json").write_text(text)
    base.unlink()
    assert not ImageDisks(home).verify(image)
    assert not disk.exists()


def test_layers_that_were_unpacked_before_are_not_used(home: Path, image: VerifiedImage) -> None:
    mine = home / "images/local/x/extracted" / image.layers[0].replace(":", "-")
    other = home / "images/local/x/extracted" / f"sha256-{'0' * 64}"
    for path in (mine, other):
        path.mkdir()
        (path / "file").write_bytes(b"x")
    assert not ImageDisks(home).verify(image)
    assert not mine.exists()
    assert other.exists()


def test_a_disk_image_that_is_a_link_is_refused(home: Path, image: VerifiedImage, tmp_path: Path) -> None:
    disk, _ = made(home, image)
    ImageDisks(home).remember(image)
    disk.rename(tmp_path / "elsewhere")
    disk.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ImageError):
        ImageDisks(home).verify(image)


def test_the_memory_holds_identities(home: Path, image: VerifiedImage) -> None:
    disk, _ = made(home, image)
    ImageDisks(home).remember(image)
    kept = json.loads((home / "cedarbox-disks.json").read_text())["disks"]
    assert tuple(kept[disk.relative_to(home).as_posix()]["identity"]) == identity_of(disk.stat())
