"""What a guest is lent for a test: a directory of tools that its image does not have, mounted read-only."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.microvm.packages import wheel

__all__ = ["GIVEN", "PIP", "PROBES", "lend"]

GIVEN = "/mnt/given"
"""Where the guest sees it."""

PIP = f"python3 {GIVEN}/pip.whl/pip --disable-pip-version-check --no-cache-dir"
"""How the guest runs pip: from the wheel, which is a file."""

PROBES = f"PYTHONPATH={GIVEN} PYTHONDONTWRITEBYTECODE=1 python3 -m tests.microvm.probes"
"""How the guest runs the attacks."""

_PROBES = Path(__file__).parent / "probes"


def lend(directory: Path) -> Path:
    """Put pip and the attacks into a directory, made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pip.whl").write_bytes(wheel("pip").data)
    place = directory / "tests" / "microvm" / "probes"
    place.mkdir(parents=True)
    for source in _PROBES.glob("*.py"):
        shutil.copy(source, place)
    return directory
