"""The parts of the rig that need no machine: keys, the cache, layouts, package sources, reports."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.rig.cache import CHECKOUT, cache_root, digest_of, obtain
from tests.rig.debian import apt_sources
from tests.rig.disk import requirements
from tests.rig.lanes import LANES
from tests.rig.layout import verify_layout, write_layout
from tests.rig.machine import _frame
from tests.rig.suite import tally
from tests.rig.trouble import RigError


def build_layout(directory: Path, content: str = "hello") -> str:
    directory.mkdir(parents=True)
    (directory / "greeting").write_text(content)
    layer = directory / "layer.tar"
    with tarfile.open(layer, "w") as archive:
        member = tarfile.TarInfo("greeting")
        member.size = len(content)
        with (directory / "greeting").open("rb") as handle:
            archive.addfile(member, handle)
    return write_layout(
        directory / "oci", layer, created="2026-01-01T00:00:00Z", environment=["LANG=C"], directory_in="/"
    )


def manifest_of(layout: Path) -> tuple[Path, dict[str, list[dict[str, object]]]]:
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    path = layout / "blobs" / "sha256" / digest.removeprefix("sha256:")
    return path, json.loads(path.read_text())


def blob_of(layout: Path, descriptor: dict[str, object]) -> Path:
    return layout / "blobs" / "sha256" / str(descriptor["digest"]).removeprefix("sha256:")


def test_the_key_changes_with_every_byte_of_every_input_and_not_with_their_order() -> None:
    base = digest_of({"a": b"one", "b": b"two"})
    assert digest_of({"b": b"two", "a": b"one"}) == base
    assert (
        len({base, digest_of({"a": b"onetwo", "b": b""}), digest_of({"ab": b"onetwo"}), digest_of({"a": b"one"})}) == 4
    )


def test_the_cache_is_where_the_environment_says_and_never_relative() -> None:
    assert cache_root({"CEDARBOX_CACHE": "/c", "XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/c")
    assert cache_root({"XDG_CACHE_HOME": "/x", "HOME": "/h"}) == Path("/x/cedarbox")
    assert cache_root({"HOME": "/h"}) == Path("/h/.cache/cedarbox")
    assert cache_root({"CEDARBOX_CACHE": "here"}).is_absolute()


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def fail(work: Path) -> None:
        (work / "half").write_text("made")
        raise RigError("no space")

    with pytest.raises(RigError, match="no space"):
        obtain("kind", "d1", fail, root=tmp_path)
    assert [entry.name for entry in (tmp_path / "kind").iterdir()] == [".lock"]
    place = obtain("kind", "d1", lambda work: (work / "whole").touch(), root=tmp_path)
    assert [entry.name for entry in place.iterdir()] == ["whole"]


def test_what_a_killed_build_left_is_swept_and_a_finished_build_is_not_built_again(tmp_path: Path) -> None:
    left = tmp_path / "kind" / ".build-killed"
    left.mkdir(parents=True)
    built: list[Path] = []
    for _ in range(2):
        obtain("kind", "d1", built.append, root=tmp_path)
    assert len(built) == 1
    assert not left.exists()


def test_the_two_digests_used_last_are_kept(tmp_path: Path) -> None:
    for digest in ("d1", "d2", "d1", "d3"):
        obtain("kind", digest, lambda work: None, root=tmp_path)
    assert {entry.name for entry in (tmp_path / "kind").iterdir()} == {".lock", "d1", "d3"}


def test_the_same_content_gives_the_same_manifest_and_other_content_another(tmp_path: Path) -> None:
    first = build_layout(tmp_path / "one")
    assert build_layout(tmp_path / "two") == first
    assert build_layout(tmp_path / "three", "hullo") != first
    assert verify_layout(tmp_path / "one" / "oci", expected=first) == first


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_one_flipped_bit_in_any_blob_is_refused(tmp_path: Path, which: str) -> None:
    build_layout(tmp_path / "image")
    layout = tmp_path / "image" / "oci"
    path, manifest = manifest_of(layout)
    if which != "manifest":
        descriptor = manifest["layers"][0] if which == "layer" else manifest["config"]
        assert isinstance(descriptor, dict)
        path = blob_of(layout, descriptor)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RigError, match="does not match its digest"):
        verify_layout(layout)


def test_a_layer_swapped_for_that_of_another_image_is_refused(tmp_path: Path) -> None:
    build_layout(tmp_path / "ours")
    build_layout(tmp_path / "theirs", "hullo")
    ours, theirs = tmp_path / "ours" / "oci", tmp_path / "theirs" / "oci"
    shutil.copy(blob_of(theirs, manifest_of(theirs)[1]["layers"][0]), blob_of(ours, manifest_of(ours)[1]["layers"][0]))
    with pytest.raises(RigError, match="does not match its digest"):
        verify_layout(ours)


def test_a_whole_other_image_in_its_place_is_refused_by_the_expected_digest(tmp_path: Path) -> None:
    expected = build_layout(tmp_path / "ours")
    build_layout(tmp_path / "theirs", "hullo")
    with pytest.raises(RigError, match="instead of"):
        verify_layout(tmp_path / "theirs" / "oci", expected=expected)


def test_a_layer_whose_digests_agree_but_not_with_the_configuration_is_refused(tmp_path: Path) -> None:
    build_layout(tmp_path / "image")
    layout = tmp_path / "image" / "oci"
    _path, manifest = manifest_of(layout)
    other = gzip.compress(b"other", mtime=0)

    def put(data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs" / "sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest["layers"][0].update(put(other))
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0].update(put(json.dumps(manifest).encode()))
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(RigError, match="diff id"):
        verify_layout(layout)


def remove_layer(layout: Path) -> None:
    blob_of(layout, manifest_of(layout)[1]["layers"][0]).unlink()


def link_layer(layout: Path) -> None:
    path = blob_of(layout, manifest_of(layout)[1]["layers"][0])
    path.rename(layout / "elsewhere")
    path.symlink_to(layout / "elsewhere")


def escape(layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("attack", "complaint"),
    [
        (remove_layer, "missing"),
        (link_layer, "not a regular file"),
        (escape, "without a sha256 digest"),
        (lambda layout: (layout / "index.json").unlink(), "cannot be read"),
        (lambda layout: (layout / "index.json").write_text("{"), "not JSON"),
        (lambda layout: (layout / "index.json").write_text('{"manifests": []}'), "exactly one manifest"),
    ],
)
def test_a_damaged_layout_is_refused_in_one_line(
    tmp_path: Path, attack: Callable[[Path], object], complaint: str
) -> None:
    build_layout(tmp_path / "image")
    attack(tmp_path / "image" / "oci")
    with pytest.raises(RigError, match=complaint) as caught:
        verify_layout(tmp_path / "image" / "oci")
    assert "\n" not in str(caught.value)


def test_only_the_sources_of_the_hosts_own_debian_12_count(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=debian\nVERSION_CODENAME=bookworm\n")
    apt = tmp_path / "apt"
    (apt / "sources.list.d").mkdir(parents=True)
    (apt / "sources.list").write_text(
        "# deb http://commented.corp.example/debian bookworm main\n"
        "deb [signed-by=/keys/site.gpg] http://mirror.corp.example/debian bookworm main contrib\n"
        "deb http://vendor.corp.example/tool stable main\n"
    )
    (apt / "sources.list.d" / "more.sources").write_text(
        "Types: deb\nURIs: http://security.corp.example/\nSuites: bookworm-security\nComponents: main\n\n"
        "Types: deb\nURIs: http://off.corp.example/\nSuites: bookworm\nComponents: main\nEnabled: no\n\n"
        "Types: deb\nURIs: http://node.corp.example/\nSuites: nodistro\nComponents: main\n"
    )
    text = apt_sources(apt, release)
    assert "mirror.corp.example" in text
    assert "/keys/site.gpg" in text
    assert "security.corp.example" in text
    for other in ("commented", "vendor", "off.corp", "node.corp"):
        assert other not in text
    release.write_text("ID=debian\nVERSION_CODENAME=trixie\n")
    assert apt_sources(apt, release) == ""


def test_the_machine_gets_the_projects_own_requirements() -> None:
    wanted = requirements(CHECKOUT / "pyproject.toml")
    assert any(line.startswith("boxlite") for line in wanted)
    assert any(line.startswith("pytest") for line in wanted)


def test_a_report_is_counted_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    assert tally(report) == {"passed": 3, "failed": 3, "skipped": 3}
    report.write_text('<testsuites><testsuite tests="9"')
    with pytest.raises(RigError, match="did not finish"):
        tally(report)
    with pytest.raises(RigError, match="did not finish"):
        tally(tmp_path / "absent.xml")


def test_a_machine_that_says_nothing_is_woken_and_its_end_is_seen() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        told: list[tuple[bytes, bytes]] = []
        reader = threading.Thread(target=lambda: told.append(_frame(ours, time.monotonic() + 60, waking=True)))
        reader.start()
        # What a machine that lost its timer gets is an interrupt.
        assert theirs.recv(1) == b"\0"
        theirs.sendall(b"O\0\0\0\2hi")
        reader.join()
        assert told == [(b"O", b"hi")]
        with pytest.raises(TimeoutError):
            _frame(ours, time.monotonic() + 0.1, waking=True)
        theirs.close()
        with pytest.raises(EOFError):
            _frame(ours, None, waking=True)


def test_every_module_that_boots_boxes_is_in_one_lane() -> None:
    named = [name for lane in LANES for name in lane]
    assert sorted(named) == sorted(path.name for path in (CHECKOUT / "tests" / "microvm").glob("test_*.py"))
