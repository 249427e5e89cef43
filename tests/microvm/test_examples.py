"""The examples run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cedarbox import verify_ledger
from cedarbox.boxlite import BoxLiteSandboxClient

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
async def free_home(client: BoxLiteSandboxClient, home: Path) -> Path:
    """The home that the image is unpacked in, given up for another process."""
    await client.close()
    return home


def test_the_front_door(free_home: Path, tmp_path: Path, oci_layout: Path) -> None:
    environment = os.environ | {
        "CEDARBOX_AUDIT__DIRECTORY": str(tmp_path / "ledger"),
        "CEDARBOX_SANDBOX__BOOT_TIMEOUT_S": "180",
        "XDG_STATE_HOME": str(free_home.parents[1]),
    }
    command = [sys.executable, "examples/front_door.py", str(oci_layout)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=CHECKOUT, check=False, timeout=800
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "5050\n" in done.stdout
    assert "The sum is 5050." in done.stdout
    report = verify_ledger(tmp_path / "ledger")
    assert report.ok, report.findings
