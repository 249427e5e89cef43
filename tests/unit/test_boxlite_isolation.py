"""The check of the jail, on processes that have none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cedarbox.boxlite.isolation import Process, check_jail, clean_environments, kill_jail
from cedarbox.errors import HostError

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")


def started(pid: int) -> None:
    """Wait until a process has become the program that it was to run."""
    while b"boxlite-shim\0" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pass


@pytest.fixture
def unjailed(tmp_path: Path) -> Iterator[int]:
    """A program of the shim's name that runs without any jail, with a secret in its environment."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, tmp_path / "boxlite-shim")
    process = subprocess.Popen([tmp_path / "boxlite-shim", "600"], env={"SECRET": "of-the-host"})
    started(process.pid)
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_that_is_no_shim_is_refused() -> None:
    with pytest.raises(HostError, match="not a BoxLite shim"):
        check_jail(os.getpid(), network_card=True)
    with pytest.raises(HostError, match="does not say which process"):
        check_jail(None, network_card=True)


def test_a_process_that_is_gone_is_refused() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(HostError):
        check_jail(process.pid, network_card=True)


def test_a_shim_without_a_jail_is_refused(unjailed: int) -> None:
    with pytest.raises(HostError, match="without a jail"):
        check_jail(unjailed, network_card=True)


def test_a_shim_that_shares_our_namespaces_is_refused(tmp_path: Path, unjailed: int) -> None:
    shim = tmp_path / "boxlite-shim"
    parent = subprocess.Popen(["/bin/sh", "-c", f"{shim} 600 & echo up; wait"], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"up\n"
    try:
        while not (children := Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()):
            pass
        started(int(children[0]))
        with pytest.raises(HostError, match="shares the user namespace"):
            check_jail(parent.pid, network_card=True)
    finally:
        os.kill(int(children[0]), 9)
        parent.communicate()


def test_an_environment_is_gone_once_it_was_cleaned(unjailed: int) -> None:
    shown = Path(f"/proc/{unjailed}/environ")
    assert b"SECRET=of-the-host" in shown.read_bytes()
    clean_environments([unjailed])
    assert shown.read_bytes().strip(b"\0") == b""
    assert b"boxlite-shim" in Path(f"/proc/{unjailed}/cmdline").read_bytes()


def test_nothing_is_killed_whose_number_went_to_another(unjailed: int) -> None:
    now = Process.of(unjailed)
    assert now is not None
    with pytest.raises(HostError, match="has ended"):
        kill_jail(Process(unjailed, "0"))
    assert Process.of(unjailed) == now


def test_nothing_is_killed_that_is_no_microvm(unjailed: int) -> None:
    for pid in (os.getpid(), unjailed):
        process = Process.of(pid)
        assert process is not None
        with pytest.raises(HostError):
            kill_jail(process)
        assert Process.of(pid) == process


def test_a_number_that_nobody_has_is_no_process() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert Process.of(gone.pid) is None
