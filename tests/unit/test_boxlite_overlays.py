"""Chains of overlays are made short enough to boot, and read the same afterwards."""

from __future__ import annotations

import os
import random
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cedarbox.boxlite.disks import backing_chain, disk_of
from cedarbox.boxlite.overlays import MAX_FILES, put_on_content, shorten
from cedarbox.errors import SnapshotError

BITS = 9
CLUSTER = 1 << BITS
CLUSTERS = 200
CAPACITY = CLUSTERS * CLUSTER
PER_TABLE = CLUSTER // 8
ENTRIES = -(-CLUSTERS // PER_TABLE)
COPIED = 1 << 63

Content = Mapping[int, bytes | None]
"""Clusters of an overlay by number; ``None`` reads as zeros."""


def written(path: Path, below: Path, content: Content, *, flags: int = COPIED) -> Path:
    """Write an overlay as QEMU does, with counts of references, and check it where QEMU's tool is there."""
    name, clusters = str(below).encode(), [b""]
    tables: dict[int, list[int]] = {}

    def put(data: bytes) -> int:
        at = len(clusters) * CLUSTER
        clusters.extend(data[start : start + CLUSTER].ljust(CLUSTER, b"\0") for start in range(0, len(data), CLUSTER))
        return at

    for number, data in content.items():
        table = tables.setdefault(number // PER_TABLE, [0] * PER_TABLE)
        table[number % PER_TABLE] = 1 if data is None else put(data) | flags
    first = [0] * ENTRIES
    for index, table in tables.items():
        first[index] = put(struct.pack(f">{PER_TABLE}Q", *table)) | COPIED
    table_at = put(struct.pack(f">{ENTRIES}Q", *first))
    blocks = 1
    while (len(clusters) + blocks + 1) * 2 > blocks * CLUSTER:
        blocks += 1
    total = len(clusters) + blocks + -(-blocks * 8 // CLUSTER)
    counts = put(struct.pack(">H", 1) * total)
    counts_at = put(struct.pack(f">{blocks}Q", *(counts + at * CLUSTER for at in range(blocks))))
    header = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, 112, len(name), BITS, CAPACITY, 0, ENTRIES, table_at),
        *(counts_at, -(-blocks * 8 // CLUSTER), 0, 0, 0, 0, 0, 4, 104),
    )
    clusters[0] = (header + bytes(112 - len(header)) + name).ljust(CLUSTER, b"\0")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(clusters))
    return path


def seen(disk: Path, home: Path) -> bytes:
    """What a guest reads, by a second reading of the format: each cluster from the first layer that has it."""
    chain = backing_chain(disk, home)
    raws = [layer.path.read_bytes() for layer in chain]
    base = raws.pop().ljust(CAPACITY, b"\0")
    result = bytearray()
    for number in range(CLUSTERS):
        for raw in raws:
            (first,) = struct.unpack_from(">Q", raw, 40)
            (table,) = struct.unpack_from(">Q", raw, first + number // PER_TABLE * 8)
            table &= ~COPIED
            (entry,) = struct.unpack_from(">Q", raw, table + number % PER_TABLE * 8) if table else (0,)
            if entry:
                at = entry & ~COPIED
                result += bytes(CLUSTER) if entry & 1 else raw[at : at + CLUSTER].ljust(CLUSTER, b"\0")
                break
        else:
            result += base[number * CLUSTER : (number + 1) * CLUSTER]
    return bytes(result)


def sound(disk: Path) -> None:
    """Every cluster of the file is used exactly as often as its count says: once."""
    raw = disk.read_bytes()
    assert len(raw) % CLUSTER == 0
    entries, first, counts_at, spans = struct.unpack_from(">IQQI", raw, 36)
    used = [0]
    used += range(first // CLUSTER, -(-(first + entries * 8) // CLUSTER))
    for (word,) in struct.iter_unpack(">Q", raw[first : first + entries * 8]):
        if table := word & ~COPIED:
            assert word & COPIED
            used.append(table // CLUSTER)
            for (entry,) in struct.iter_unpack(">Q", raw[table : table + CLUSTER]):
                if entry & ~1:
                    assert entry & COPIED
                    used.append((entry & ~COPIED) // CLUSTER)
    used += range(counts_at // CLUSTER, counts_at // CLUSTER + spans)
    counted: list[int] = []
    for (block,) in struct.iter_unpack(">Q", raw[counts_at : counts_at + spans * CLUSTER]):
        if block:
            used.append(block // CLUSTER)
            counted += [count for (count,) in struct.iter_unpack(">H", raw[block : block + CLUSTER])]
    assert sorted(used) == list(range(len(raw) // CLUSTER))
    assert counted[: len(used)] == [1] * len(used)
    assert not any(counted[len(used) :])
    if tool := shutil.which("qemu-img"):
        subprocess.run([tool, "check", "-q", str(disk)], check=True)


def chain_of(home: Path, *contents: Content, base: bytes = b"") -> Path:
    """Write a base, overlays with these contents, and a clone's empty disk on top."""
    below = home / "disk-images" / "sha256-x.ext4"
    below.parent.mkdir(parents=True)
    below.write_bytes(base.ljust(CAPACITY, b"b"))
    for number, content in enumerate(contents):
        below = written(home / "bases" / f"{number:08}.qcow2", below, content)
    return written(disk_of(home, "clone"), below, {})


def test_empty_overlays_are_skipped_and_content_is_kept(tmp_path: Path) -> None:
    disk = chain_of(tmp_path, {3: b"content"}, {}, {}, {})
    disk.chmod(0o640)
    before = seen(disk, tmp_path)
    shorten(disk, tmp_path)
    assert [layer.path.name for layer in backing_chain(disk, tmp_path)] == [
        "disk.qcow2",
        "00000000.qcow2",
        "sha256-x.ext4",
    ]
    assert seen(disk, tmp_path) == before
    assert disk.stat().st_mode & 0o777 == 0o640
    assert list(disk.parent.iterdir()) == [disk]


def test_a_chain_that_boots_is_left_alone(tmp_path: Path) -> None:
    disk = chain_of(tmp_path, *({number: b"x"} for number in range(MAX_FILES - 2)))
    before = disk.read_bytes()
    shorten(disk, tmp_path)
    assert disk.read_bytes() == before


def test_a_chain_that_is_too_long_becomes_one_overlay(tmp_path: Path) -> None:
    disk = chain_of(
        tmp_path,
        *({number: bytes([number + 1]) * CLUSTER, 150: bytes([number])} for number in range(MAX_FILES)),
        {2: None, 3: b"top"},
        {},
    )
    before = seen(disk, tmp_path)
    files = {path: path.read_bytes() for path in (tmp_path / "bases").iterdir()}
    shorten(disk, tmp_path)
    assert [layer.path.name for layer in backing_chain(disk, tmp_path)] == ["disk.qcow2", "sha256-x.ext4"]
    assert seen(disk, tmp_path) == before
    sound(disk)
    assert {path: path.read_bytes() for path in (tmp_path / "bases").iterdir()} == files


_CONTENT = st.dictionaries(
    st.integers(0, CLUSTERS - 1), st.none() | st.binary(max_size=8) | st.just(bytes(CLUSTER)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(contents=st.lists(_CONTENT, max_size=14), many=st.integers(0, 2**32))
def test_whatever_the_chain_the_disk_reads_the_same_and_boots(
    tmp_path_factory: pytest.TempPathFactory, contents: list[Content], many: int
) -> None:
    home = tmp_path_factory.mktemp("home")
    drawn = random.Random(many)
    full: Content = {number: drawn.randbytes(CLUSTER) for number in range(CLUSTERS)} if many % 3 == 0 else {}
    disk = chain_of(home, full, *contents)
    before = seen(disk, home)
    shorten(disk, home)
    assert seen(disk, home) == before
    assert len(backing_chain(disk, home)) <= MAX_FILES
    sound(disk)
    shutil.rmtree(home)


def test_a_disk_with_content_of_its_own_is_never_replaced(tmp_path: Path) -> None:
    chain_of(tmp_path, *({number: b"x"} for number in range(MAX_FILES)), {})
    disk = written(disk_of(tmp_path, "clone"), tmp_path / "bases" / f"{MAX_FILES:08}.qcow2", {1: b"own"})
    before = disk.read_bytes()
    put_on_content(disk, tmp_path)
    shorten(disk, tmp_path)
    assert disk.read_bytes() == before


@pytest.mark.parametrize("how", ["compressed", "cut", "other clusters"])
def test_what_cannot_be_followed_is_refused_and_nothing_is_left(tmp_path: Path, how: str) -> None:
    disk = chain_of(tmp_path, *({number: b"x"} for number in range(MAX_FILES)))
    layer = tmp_path / "bases" / "00000004.qcow2"
    if how == "compressed":
        written(layer, tmp_path / "bases" / "00000003.qcow2", {4: b"x"}, flags=1 << 62)
    else:
        raw = bytearray(layer.read_bytes())
        if how == "cut":
            struct.pack_into(">Q", raw, struct.unpack_from(">Q", raw, 40)[0], 10 * CAPACITY)
        else:
            struct.pack_into(">I", raw, 20, BITS + 1)
        layer.write_bytes(raw)
    before = disk.read_bytes()
    with pytest.raises(SnapshotError, match=r"00000004|not followed"):
        shorten(disk, tmp_path)
    assert disk.read_bytes() == before
    assert list(disk.parent.iterdir()) == [disk]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = chain_of(tmp_path, {1: b"x"}, {}, {})
    before = disk.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match="No space left on device"):
        shorten(disk, tmp_path)
    assert disk.read_bytes() == before
    assert list(disk.parent.iterdir()) == [disk]
