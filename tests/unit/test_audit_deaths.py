"""What a ledger is after its writer died, in a process of its own.

The tests fork hundreds of children that go on in Python. That is sound only where nothing else runs in the process, and
a worker of the test run has threads of servers and clients that other tests left.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("module", ["crashing.py", "killing.py"])
def test_no_death_of_a_writer_loses_or_doubles_anything(
    module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The conftest of this directory brings the SDK, which takes longer to import than most rounds, and undoes nothing
    # that a ledger does.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-s", "--noconftest"]
    command += [f"--basetemp={tmp_path / 'alone'}", str(HERE / module)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    with capsys.disabled():
        print(f"\n{module}: {done.stdout.strip().splitlines()[-1]}")
