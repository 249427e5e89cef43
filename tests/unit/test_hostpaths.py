"""A path of the host is spelled as its directory entries are, on a file system that does not tell capitals too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.boxlite.mounts import Mount, pinned
from cedarbox.errors import CanonicalizationError, ConfigurationError
from cedarbox.hostpaths import real_path, spelled


class Listing:
    """A tree in memory: paths as they are spelled, and whether capitals matter."""

    def __init__(self, *paths: str, sensitive: bool = False, numbered: bool = True) -> None:
        self.entries = {"/"}
        for path in paths:
            parts = path.strip("/").split("/")
            self.entries |= {"/" + "/".join(parts[: number + 1]) for number in range(len(parts))}
        self.sensitive, self.numbered, self.listed = sensitive, numbered, 0

    def identity(self, path: str) -> tuple[int, int] | None:
        same = (str if self.sensitive else str.casefold)(path)
        found = next(
            (entry for entry in self.entries if (str if self.sensitive else str.casefold)(entry) == same), None
        )
        if found is None:
            return None
        return 1, hash(found if self.numbered else path)

    def names(self, path: str) -> Iterable[str]:
        self.listed += 1
        above = (str if self.sensitive else str.casefold)(path.rstrip("/"))
        for entry in sorted(self.entries - {"/"}):
            parent, _, name = entry.rpartition("/")
            if (str if self.sensitive else str.casefold)(parent) == above:
                yield name


_NAME = st.from_regex(r"\A[a-zA-Z0-9é_.-]{1,6}\Z").filter(lambda name: name not in {".", ".."})
_TREE = st.lists(
    st.lists(_NAME, min_size=1, max_size=4), min_size=1, max_size=6, unique_by=lambda parts: "/".join(parts).casefold()
)


@given(_TREE, st.data(), st.booleans())
def test_every_spelling_of_an_entry_is_that_entry(tree: list[list[str]], data: st.DataObject, numbered: bool) -> None:
    seen: dict[str, str] = {}
    for parts in tree:
        # One spelling for each directory: a disk of this kind has no two that differ in case.
        for number, part in enumerate(parts):
            parts[number] = seen.setdefault("/".join([*parts[:number], part]).casefold(), part)
    disk = Listing(*("/".join(parts) for parts in tree), numbered=numbered)
    path = "/" + "/".join(data.draw(st.sampled_from(tree)))
    other = "".join(data.draw(st.sampled_from([char, char.swapcase()])) for char in path)
    assert spelled(other, disk) == path


@given(_TREE)
def test_nothing_changes_where_capitals_matter(tree: list[list[str]]) -> None:
    disk = Listing(*("/".join(parts) for parts in tree), sensitive=True)
    for parts in tree:
        path = "/" + "/".join(parts)
        assert spelled(path, disk) == path


def test_an_ordinary_file_system_is_not_listed() -> None:
    disk = Listing("/srv/Data/file", sensitive=True)
    assert spelled("/srv/Data/file", disk) == "/srv/Data/file"
    assert disk.listed == 0


def test_two_names_that_differ_in_case_are_two_files_where_capitals_matter() -> None:
    disk = Listing("/a/Secret", "/a/secret", sensitive=True)
    assert (spelled("/a/Secret", disk), spelled("/a/secret", disk)) == ("/a/Secret", "/a/secret")


@pytest.mark.parametrize("path", ["/srv/NEW", "/srv/data/NEW/deeper", "/SRV/data/new"])
def test_a_new_name_where_capitals_do_not_matter_is_refused(path: str) -> None:
    with pytest.raises(CanonicalizationError, match="more than one spelling"):
        spelled(path, Listing("/srv/data/old"))


def test_a_new_name_where_capitals_matter_is_taken() -> None:
    assert spelled("/srv/data/NEW/x", Listing("/srv/data/old", sensitive=True)) == "/srv/data/NEW/x"


class Short(Listing):
    """As vfat: a long name has a short one, that no listing shows."""

    def identity(self, path: str) -> tuple[int, int] | None:
        return super().identity(
            path.replace("SECRET~1", "secret-of-the-site").replace("secret~1", "secret-of-the-site")
        )


def test_a_short_name_is_the_long_one() -> None:
    assert spelled("/srv/SECRET~1/key", Short("/srv/secret-of-the-site/key")) == "/srv/secret-of-the-site/key"


def test_a_name_that_no_entry_has_is_refused() -> None:
    class Odd(Listing):
        def names(self, path: str) -> Iterable[str]:
            return ["other"]

    with pytest.raises(CanonicalizationError, match="cannot be told"):
        spelled("/srv/data", Odd("/srv/data"))


def test_the_real_path_of_this_host(tmp_path: Path) -> None:
    (tmp_path / "Real").mkdir()
    (tmp_path / "link").symlink_to("Real")
    place = os.path.realpath(tmp_path)
    assert real_path(str(tmp_path / "link" / "new")) == f"{place}/Real/new"
    with pytest.raises(FileNotFoundError):
        real_path(str(tmp_path / "link" / "new"), strict=True)
    with pytest.raises(CanonicalizationError, match="NUL"):
        real_path("/a\0b")


@pytest.fixture
def folding(tmp_path: Path) -> Iterator[Path]:
    """A real exFAT file system, through FUSE: it keeps capitals and does not tell them."""
    tools = [
        shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        for tool in ("mkfs.exfat", "mount.exfat-fuse", "losetup", "umount")
    ]
    if None in tools or os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("needs root, /dev/fuse, exfatprogs and exfat-fuse to mount a file system that folds case")
    make, mount, loop, umount = map(str, tools)
    image, place = tmp_path / "disk", tmp_path / "mounted"
    with image.open("wb") as disk:
        disk.truncate(32 * 1024**2)
    place.mkdir()
    attached = subprocess.run([loop, "-f", "--show", image], capture_output=True, text=True, check=False)
    if attached.returncode != 0:
        pytest.skip(f"no loop device: {attached.stderr.strip()}")
    device = attached.stdout.strip()
    try:
        subprocess.run([make, device], capture_output=True, check=True)
        if (mounted := subprocess.run([mount, device, place], capture_output=True, text=True, check=False)).returncode:
            pytest.skip(f"FUSE cannot mount here: {mounted.stderr.strip()[-200:]}")
        yield place
        subprocess.run([umount, place], check=True)
    finally:
        subprocess.run([loop, "-d", device], check=True)


def test_a_real_file_system_that_folds_case(folding: Path) -> None:
    (folding / "Data" / "Secret").mkdir(parents=True)
    (folding / "Data" / "Secret" / "Key").write_text("k")
    place = os.path.realpath(folding)
    for spelling in ("Data/Secret/Key", "data/secret/key", "DATA/sEcReT/KEY"):
        assert (folding / spelling).read_text() == "k"
        assert real_path(str(folding / spelling), strict=True) == f"{place}/Data/Secret/Key"
    with pytest.raises(CanonicalizationError, match="more than one spelling"):
        real_path(str(folding / "data" / "SECRET" / "new"))
    assert pinned(Mount(folding / "DATA" / "secret", "/mnt/data")).real == f"{place}/Data/Secret"
    with pytest.raises(ConfigurationError):
        pinned(Mount(folding / "none", "/mnt/data"))
