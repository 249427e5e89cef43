"""The tests of real boxes, shared out among machines that run at the same time.

An emulated machine has one processor, and guests that boot side by side in it take twice as long. So the tests are in
lanes of about the same length, and each lane has a machine, a BoxLite home and a report of its own. On a host that
boots boxes itself there is one lane.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.rig.cache import CHECKOUT
from tests.rig.debian import require_programs
from tests.rig.disk import machine_disk
from tests.rig.image import image_layout
from tests.rig.machine import FAILED
from tests.rig.place import Place, choose
from tests.rig.trouble import say

__all__ = ["LANES", "MICROVM", "TEST_SECONDS", "prepare", "run_lanes"]

MICROVM = "tests/microvm"
"""The directory of the tests of real boxes."""

LANES: tuple[tuple[str, ...], ...] = (
    (
        "test_boxlite_exec.py",
        "test_boxlite_files.py",
        "test_boxlite_lifecycle.py",
        "test_killed.py",
        "test_terminals.py",
        "test_images.py",
        "test_conformance.py",
        "test_examples.py",
    ),
    (
        "test_snapshots.py",
        "test_faults.py",
        "test_mounts.py",
        "test_demo.py",
        "test_egress_clients.py",
        "test_live.py",
        "test_egress_matrix.py",
    ),
)
"""The modules of each lane."""

TEST_SECONDS = 900
"""After this a test is taken for one that hangs; what takes a minute here takes ten on a slow machine that is busy."""

_LIMIT_SECONDS = 3600
_REPORT = "microvm.xml"


@dataclass(frozen=True)
class _Lane:
    number: int
    files: tuple[str, ...]
    output: Path


def prepare() -> Place:
    """Find out where boxes boot, and build what that needs.

    Raises:
        RigError: A program is missing, or something cannot be built.
    """
    place = choose()
    if not place.native:
        require_programs({"setpriv": "util-linux"})
        image_layout()
        machine_disk()
    return place


def run_lanes(
    place: Place, output: Path, *, env: Mapping[str, str], shares: Mapping[str, Path]
) -> tuple[bool, list[Path]]:
    """Run all tests of real boxes, two lanes at a time where there are two processors.

    Args:
        place: Where boxes boot, from :func:`prepare`.
        output: Directory of this host in which each lane gets a directory.
        env: Additions to the environment of the tests. ``{output}`` stands for the lane's directory.
        shares: Directories that the tests may read, each named by the environment variable that is its key.

    Returns:
        Whether all lanes passed, and the reports they should have written.
    """
    lanes = [_Lane(number, files, output / f"lane-{number}") for number, files in enumerate(_shared_out(place), 1)]
    for lane in lanes:
        lane.output.mkdir()
    reports = [lane.output / _REPORT for lane in lanes]
    if place.native:
        (lane,) = lanes
        told = {name: value.replace("{output}", str(lane.output)) for name, value in env.items()}
        return place.run(_pytest(lane), output=lane.output, env=told, shares=shares) == 0, reports
    at_once = min(len(lanes), len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(at_once) as pool:
        passed = list(pool.map(lambda lane: _emulated(lane, env, shares), lanes))
    return all(passed), reports


def _shared_out(place: Place) -> Sequence[tuple[str, ...]]:
    if place.native:
        return [(MICROVM,)]
    return [tuple(f"{MICROVM}/{name}" for name in lane) for lane in LANES]


def _pytest(lane: _Lane) -> list[str]:
    return [
        "-m",
        "pytest",
        "-v",
        f"--timeout={TEST_SECONDS}",
        "--durations=10",
        *lane.files,
        f"--junit-xml={{output}}/{_REPORT}",
    ]


def _emulated(lane: _Lane, env: Mapping[str, str], shares: Mapping[str, Path]) -> bool:
    command = [sys.executable, "-P", "-m", "tests.rig.run", "--timeout", str(_LIMIT_SECONDS)]
    command += ["--output", str(lane.output), "--env", "CEDARBOX_MICROVM=1"]
    for name, value in env.items():
        command += ["--env", f"{name}={value.replace('{output}', '/output')}"]
    for name, path in shares.items():
        command += ["--share", f"{name.lower()}={path}", "--env", f"{name}=/{name.lower()}"]
    command += ["--", "python", *(argument.replace("{output}", "/output") for argument in _pytest(lane))]
    code = _told(command, lane)
    if code == FAILED:
        # The emulator's nested virtualisation is not ours to test. What ran so far is run again, and told.
        say(f"lane {lane.number}: its machine ended; once more, from the beginning")
        for left in lane.output.iterdir():
            left.unlink()
        code = _told(command, lane)
    if code:
        say(f"lane {lane.number}: exit code {code}")
    return code == 0


def _told(command: Sequence[str], lane: _Lane) -> int:
    """Run a command, and pass its lines on as they come, each with the number of the lane."""
    # If this process is killed, the machine's own process is told to end, and ends the machine.
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "TERM", "--", *command],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        _pass_on(process.stdout, lane.number)
        return process.wait()
    finally:
        process.terminate()
        process.wait()


_TELLING = threading.Lock()


def _pass_on(lines: Iterable[bytes], number: int) -> None:
    for line in lines:
        with _TELLING:
            print(f"[{number}] {line.decode(errors='replace').rstrip()}", flush=True)
