"""What is known of native snapshots, and what is refused: descriptions, references, disks."""

from __future__ import annotations

import asyncio
import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.forked import command
from typer.testing import CliRunner

from cedarbox.audit import read_records
from cedarbox.boxlite.disks import DiskDigests, backing_chain, disk_of
from cedarbox.boxlite.snapshots import SnapshotInfo, SnapshotReference, SnapshotStore, new_snapshot_id
from cedarbox.cli import app
from cedarbox.errors import SnapshotError

CLUSTER = 65536
CAPACITY = 8 * CLUSTER


def overlay(path: Path, below: Path | str, *, data: bytes = b"", capacity: int = CAPACITY, **header: int) -> Path:
    """Write a qcow2 overlay in the form that BoxLite writes: version 3, one table."""
    name = str(below).encode()
    values = {"version": 3, "snapshots": 0, "encryption": 0, "incompatible": 0, "entries": 1, **header}
    raw = struct.pack(
        ">4sIQIIQIIQQIIQQ",
        *(b"QFI\xfb", values["version"], 512, len(name), 16, capacity, values["encryption"], values["entries"]),
        *(CLUSTER, 2 * CLUSTER, 1, values["snapshots"], 0, values["incompatible"]),
    )
    content = bytearray(4 * CLUSTER)
    content[: len(raw)] = raw
    content[512 : 512 + len(name)] = name
    if data:
        content[CLUSTER : CLUSTER + 8] = struct.pack(">Q", 3 * CLUSTER)
        content[3 * CLUSTER : 3 * CLUSTER + len(data)] = data
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A BoxLite home with one box: an image disk, a frozen layer, and an empty overlay on top."""
    base = tmp_path / "images" / "disk-images" / "sha256-x.ext4"
    base.parent.mkdir(parents=True)
    with base.open("wb") as stream:
        stream.truncate(CAPACITY)
        stream.seek(3 * CLUSTER + 5)
        stream.write(b"image")
    frozen = overlay(tmp_path / "bases" / "one.qcow2", base, data=b"frozen")
    overlay(disk_of(tmp_path, "holder"), frozen)
    return tmp_path


def described(home: Path, **values: object) -> SnapshotInfo:
    blank = {
        "id": new_snapshot_id(),
        "parent": "",
        "box_id": "holder",
        "session": "s",
        "created_ns": time.time_ns(),
        "image_digest": "sha256:" + "0" * 64,
        "policy_bundle": "",
        "settings": {"cpus": "1"},
        "size_bytes": 0,
        "layers": (),
        "capacity_bytes": 0,
    }
    return SnapshotStore(home).described(SnapshotInfo(**{**blank, **values}))  # type: ignore[arg-type]  # a dict of all


def test_a_snapshot_is_what_lies_below_empty_overlays(home: Path) -> None:
    info = described(home)
    assert len(info.layers) == 2
    assert info.capacity_bytes == CAPACITY
    store = SnapshotStore(home)
    store.verify(info)
    # A clone adds an overlay to its source; what is held stays the same.
    overlay(home / "bases" / "two.qcow2", home / "bases" / "one.qcow2")
    overlay(disk_of(home, "holder"), home / "bases" / "two.qcow2")
    overlay(disk_of(home, "clone"), home / "bases" / "two.qcow2")
    store.verify(info)
    store.verify(info, "clone")
    assert described(home).layers == info.layers


def test_a_clone_that_was_written_to_is_told_apart(home: Path) -> None:
    info = described(home)
    overlay(disk_of(home, "clone"), home / "bases" / "one.qcow2", data=b"later")
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        SnapshotStore(home).verify(info, "clone")


@pytest.mark.parametrize("layer", ["bases/one.qcow2", "images/disk-images/sha256-x.ext4"])
def test_every_flipped_bit_that_holds_content_is_refused(home: Path, layer: str) -> None:
    info, path = described(home), home / layer
    good = path.read_bytes()
    content = [at for at, byte in enumerate(good) if byte and at >= 512]
    for at in content:
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(SnapshotError):
            SnapshotStore(home).verify(info)
    path.write_bytes(good)
    SnapshotStore(home).verify(info)


def test_a_flip_in_place_with_the_old_time_is_refused_by_the_same_store(home: Path) -> None:
    store, info = SnapshotStore(home), described(home)
    store.verify(info)
    path = home / "bases" / "one.qcow2"
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(3 * CLUSTER)
        stream.write(b"F")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(SnapshotError):
        store.verify(info)


def test_a_layer_that_is_left_out_or_put_in_is_refused(home: Path) -> None:
    info, store = described(home), SnapshotStore(home)
    base = home / "images" / "disk-images" / "sha256-x.ext4"
    overlay(disk_of(home, "holder"), base)
    with pytest.raises(SnapshotError):
        store.verify(info)
    between = overlay(home / "bases" / "between.qcow2", home / "bases" / "one.qcow2", data=b"evil")
    overlay(disk_of(home, "holder"), between)
    with pytest.raises(SnapshotError):
        store.verify(info)
    # An empty overlay that is shorter than the disk below it would cut the end off.
    overlay(disk_of(home, "holder"), home / "bases" / "one.qcow2", capacity=CAPACITY // 2)
    with pytest.raises(SnapshotError, match="another size"):
        store.verify(info)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda home: overlay(home / "d", "/etc/passwd"), "outside the BoxLite home"),
        (lambda home: overlay(home / "d", "relative.qcow2"), "not an absolute path"),
        (lambda home: overlay(home / "d", home / "missing"), "No such file"),
        (lambda home: overlay(home / "d", home / "d"), "more than 512 layers"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", incompatible=4), "features"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", encryption=1), "features"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", snapshots=1), "features"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", version=2), "features"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", entries=1 << 30), "cannot be right"),
        (lambda home: overlay(home / "d", home / "bases" / "one.qcow2", entries=1 << 20), "cut short"),
        (lambda home: (home / "d").write_bytes(b"QFI\xfb\0\0"), "cut short"),
        (lambda home: os.mkfifo(home / "d"), "not a plain file"),
        (lambda home: (home / "d").symlink_to(home / "bases" / "one.qcow2"), "symbolic link"),
    ],
)
def test_hostile_disks(home: Path, make: Callable[[Path], object], what: str) -> None:
    make(home)
    with pytest.raises(SnapshotError, match=what) as caught:
        backing_chain(home / "d", home)
    assert "\n" not in str(caught.value)


def test_a_hole_and_zeros_are_the_same_content(tmp_path: Path) -> None:
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    with sparse.open("wb") as stream:
        stream.truncate(10 * CLUSTER + 100)
        stream.seek(5 * CLUSTER + 3)
        stream.write(b"x")
    dense.write_bytes(sparse.read_bytes())
    digests = DiskDigests()
    assert digests.digest(sparse) == digests.digest(dense)
    # Neither position nor size may be lost by leaving zeros out.
    moved = tmp_path / "moved"
    moved.write_bytes(b"\0" * (6 * CLUSTER + 3) + b"x" + b"\0" * (4 * CLUSTER + 96))
    assert moved.stat().st_size == dense.stat().st_size
    assert digests.digest(moved) != digests.digest(dense)
    longer = tmp_path / "longer"
    longer.write_bytes(dense.read_bytes() + b"\0")
    assert digests.digest(longer) != digests.digest(dense)


def test_a_description_is_kept_and_found(home: Path) -> None:
    store, info = SnapshotStore(home), described(home)
    store.save(info)
    assert store.path(info.id).stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert (list(store), store.holders()) == ([info], frozenset({"holder"}))
    assert store.load(info.reference) == store.find(info.id) == info
    store.forget(info.id)
    with pytest.raises(SnapshotError, match="there is no snapshot"):
        store.load(info.reference)


def test_a_description_that_was_changed_is_refused(home: Path) -> None:
    store, info = SnapshotStore(home), described(home)
    store.save(info)
    path = store.path(info.id)
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(SnapshotError):
            store.load(info.reference)
    # Changed consistently, it is still not the one that the reference names.
    values = json.loads(good)
    values["layers"] = ["0" * 64]
    path.write_bytes(json.dumps(values, sort_keys=True, separators=(",", ":")).encode())
    assert store.find(info.id).layers == ("0" * 64,)
    with pytest.raises(SnapshotError, match="not the one that was saved"):
        store.load(info.reference)


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"version":1}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_description(home: Path, data: bytes) -> None:
    store, name = SnapshotStore(home), new_snapshot_id()
    store.directory.mkdir()
    store.path(name).write_bytes(data)
    with pytest.raises(SnapshotError, match="does not describe a snapshot"):
        list(store)


def test_a_full_disk_leaves_nothing(home: Path) -> None:
    store, info = SnapshotStore(home), described(home)
    store.directory.write_text("in the way")
    with pytest.raises(SnapshotError, match="cannot be recorded"):
        store.save(info)


@given(st.text(min_size=1, max_size=64), st.binary(max_size=600))
def test_references_and_other_data_are_told_apart(sha256: str, other: bytes) -> None:
    reference = SnapshotReference(new_snapshot_id(), sha256)
    try:
        encoded = reference.encoded()
    except ValueError:
        return  # an unpaired surrogate
    assert SnapshotReference.decoded(encoded) == reference
    if not other.startswith(b"CEDARBOX_BOXLITE_SNAPSHOT_V1\n"):
        assert SnapshotReference.decoded(other) is None
    with pytest.raises(SnapshotError):
        SnapshotReference.decoded(encoded + b" ")
    with pytest.raises(SnapshotError):
        SnapshotReference.decoded(encoded[:-1])


@pytest.mark.parametrize("snapshot_id", ["../../etc/passwd", "", "x", "20261123T000000Z-0000000g", "a/b"])
def test_an_id_cannot_name_another_file(home: Path, snapshot_id: str) -> None:
    with pytest.raises(SnapshotError, match="not the id of a snapshot"):
        SnapshotStore(home).find(snapshot_id)
    body = json.dumps({"id": snapshot_id, "sha256": "0"}, separators=(",", ":")).encode()
    with pytest.raises(SnapshotError, match="damaged"):
        SnapshotReference.decoded(b"CEDARBOX_BOXLITE_SNAPSHOT_V1\n" + body)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["snapshot", *arguments])
    return done.exit_code, done.output


def test_the_command_line_lists_and_checks(home: Path) -> None:
    store, info = SnapshotStore(home), described(home)
    assert run("list", "--home", str(home), "--json") == (0, "[]\n")
    store.save(info)
    code, text = run("list", "--home", str(home), "--json")
    assert code == 0
    (told,) = json.loads(text)
    assert (told["id"], told["sha256"], told["layers"]) == (info.id, info.sha256, list(info.layers))
    assert info.id in run("list", "--home", str(home))[1]
    assert run("verify", "--home", str(home)) == (0, f"{info.id}: holds what was saved\n")
    path = home / "bases" / "one.qcow2"
    path.write_bytes(path.read_bytes().replace(b"frozen", b"thawed"))
    code, text = run("verify", "--home", str(home), info.id)
    assert code == 1
    assert "does not hold what was saved" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "20261123T000000Z-00000000"), "there is no snapshot"),
        (("verify", "../x"), "not the id of a snapshot"),
        (("remove", "20261123T000000Z-00000000"), "there is no snapshot"),
        (("prune", "--older-than", "soon"), "not an age"),
    ],
)
def test_bad_usage_of_the_command_line_is_one_line(home: Path, arguments: tuple[str, ...], said: str) -> None:
    done = command("snapshot", *arguments, "--home", home)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


async def test_removing_and_pruning_are_recorded(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The box is gone already, which is what an interrupted removal leaves: the description goes too.
    place = tmp_path / "elsewhere"
    place.mkdir()
    monkeypatch.chdir(place)
    (place / "home").mkdir(mode=0o700)
    store, info = SnapshotStore(place / "home"), described(home)
    store.save(info)
    other = described(home)
    store.save(other)
    done = await asyncio.to_thread(run, "remove", info.id, "--home", str(place / "home"))
    assert done == (0, f"{info.id}: removed\n")
    done = await asyncio.to_thread(run, "prune", "--keep", "0", "--home", str(place / "home"))
    assert done == (0, f"{other.id}: removed\n")
    assert list(store) == []
    entries = [record.entry for _, record in read_records(place / ".cedarbox" / "ledger")]
    deleted = [entry.attrs["native.id"] for entry in entries if entry.event == "snapshot.deleted"]
    assert deleted == [info.id, other.id]
