"""Attacks on the moment: the policy bundle is replaced while it is read."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from tests.redteam.sites import Site
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.signed import manifest_of, seal, signed_bundle

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle, reading
from cedarbox.policy.reading import BundleFiles, read_bundle
from cedarbox.policy.signing import SIGNATURE_FILE
from cedarbox.settings import load_settings


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Swap:
    """Two bundles, and ways to put the second in the place of the first while the first is read."""

    def __init__(self, directory: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
        self.old, self.new, self.path = directory / "old", directory / "new", directory / "current"
        for place, files in ((self.old, old), (self.new, new)):
            place.mkdir(parents=True)
            for name, data in files.items():
                (place / name).write_bytes(data)
        self.path.symlink_to("old")
        self.others = old.keys() - new.keys()

    def link(self, target: str = "new") -> None:
        draft = self.path.with_name("draft")
        draft.symlink_to(target)
        draft.replace(self.path)

    def directory(self) -> None:
        self.old.rename(self.old.with_name("away"))
        self.new.rename(self.old)

    def files(self) -> None:
        for file in sorted(self.new.iterdir()):
            file.replace(self.old / file.name)
        self._remove_others()

    def contents(self) -> None:
        for file in sorted(self.new.iterdir()):
            (self.old / file.name).write_bytes(file.read_bytes())
        self._remove_others()

    def _remove_others(self) -> None:
        for name in self.others:
            (self.old / name).unlink()


@pytest.fixture
def pair(site: Site) -> list[Mapping[str, bytes]]:
    """The files of two signed bundles; the second has one more."""
    found: list[Mapping[str, bytes]] = []
    for revision in (1, 2):
        place = site.directory / f"revision{revision}"
        signed_bundle(place, policies=PERMIT_ALL + f"// {revision}", revision=revision)
        if revision == 2:
            (place / "second.cedar").write_text("// nothing but a comment")
        seal(place, manifest_of(place).payload(), *site.keys)
        found.append({file.name: file.read_bytes() for file in place.iterdir()})
    return found


def _at_line(
    number: int, act: Callable[[], Any], read: Callable[[], BundleFiles]
) -> tuple[BundleFiles | BundleError, bool]:
    """Run ``read``, and ``act`` before the numbered line of reading.py that it executes; tell whether it got there."""
    left = number

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename != reading.__file__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return read(), left <= 0
    except BundleError as error:
        return error, left <= 0
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("back", [False, True], ids=["a file more", "a file less"])
@pytest.mark.parametrize("way", ["link", "directory", "files", "contents"])
def test_the_bundle_is_swapped_during_the_load(
    site: Site, pair: list[Mapping[str, bytes]], way: str, *, back: bool
) -> None:
    """At every single line of the reader another bundle takes the place. What is read is one of the two, or nothing.

    A mixture can be read only where files are written in place, within one tick of the clock of the file system, and
    then its signature is false.
    """
    pair = pair[::-1] if back else pair
    outcomes = set()
    for number in itertools.count(1):
        swap = Swap(site.directory / "swap", *pair)
        path = swap.path if way == "link" else swap.old
        read, came = _at_line(number, getattr(swap, way), partial(read_bundle, path, with_signature=True))
        if isinstance(read, BundleError):
            assert way in {"directory", "contents"}, read
        elif (files := {**read.deciding, SIGNATURE_FILE: read.signature or b""}) in pair:
            outcomes.add(pair.index(files))
        else:
            assert way == "contents"
            mixed = Swap(site.directory / "mixed", files, {})
            site.assert_refused("not what was signed|is false|canonical|not JSON|does not cover|missing", mixed.old)
            shutil.rmtree(site.directory / "mixed")
        shutil.rmtree(site.directory / "swap")
        if not came:
            break
    assert number > 50
    assert outcomes == {0, 1}


def test_the_bundle_is_swapped_again_and_again_by_another_thread(site: Site, pair: list[Mapping[str, bytes]]) -> None:
    """A thread swaps two bundles all the time. Each of many loads is wholly one of the two, or is refused."""
    swap = Swap(site.directory / "swap", *pair)
    digests = {PolicyBundle.load(place).digest for place in (swap.old, swap.new)}
    done = threading.Event()

    def swapping() -> None:
        while not done.wait(0.002):
            swap.link("new")
            swap.link("old")

    thread = threading.Thread(target=swapping)
    thread.start()
    try:
        for _ in range(50):
            try:
                assert PolicyBundle.load(swap.path).digest in digests
            except BundleError as error:
                assert "changed while it was read" in str(error)  # noqa: PT017  # both outcomes are right
    finally:
        done.set()
        thread.join()
    assert PolicyBundle.load(swap.path).revision == 1


def test_a_bundle_that_never_stands_still(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The link is swapped at each attempt. Refused after a few, with a line that says what to do."""
    swap = Swap(site.directory / "swap", {}, {})
    for place in (swap.old, swap.new):
        write_bundle(place, PERMIT_ALL)
    survey, targets = reading._survey, itertools.cycle(["new", "new", "old", "old"])

    def surveyed(*arguments: Any, **options: Any) -> Any:
        swap.link(next(targets))
        return survey(*arguments, **options)

    monkeypatch.setattr(reading, "_survey", surveyed)
    site.settings = load_settings(audit={"directory": site.settings.audit.directory})
    site.assert_refused("changed while it was read, 5 times over; replace it in one step", swap.path)


def test_a_pipe_takes_the_place_of_a_file_during_the_load(site: Site, pair: list[Mapping[str, bytes]]) -> None:
    """At every line of the reader a file becomes a pipe. It never hangs: the file was read before, or it is refused."""
    refused = 0
    for number in itertools.count(1):
        swap = Swap(site.directory / "swap", pair[0], {})
        pipe = swap.new / "pipe"
        os.mkfifo(pipe)
        read, came = _at_line(
            number,
            partial(pipe.replace, swap.old / "policies.cedar"),
            partial(read_bundle, swap.old, with_signature=True),
        )
        refused += isinstance(read, BundleError)
        shutil.rmtree(site.directory / "swap")
        if not came:
            break
    assert not isinstance(read, BundleError)
    assert refused > 20
