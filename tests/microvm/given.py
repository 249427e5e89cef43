"""What a guest is lent for a test: a directory of tools that its image does not have, mounted read-only."""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path

__all__ = ["GIVEN", "PIP", "PROBES", "lend"]

GIVEN = "/mnt/given"
"""Where the guest sees it."""

PIP = f"PYTHONPATH={GIVEN}/lib python3 -m pip --disable-pip-version-check --no-cache-dir"
"""How the guest runs pip."""

PROBES = f"PYTHONPATH={GIVEN} PYTHONDONTWRITEBYTECODE=1 python3 -m tests.microvm.probes"
"""How the guest runs the attacks."""

_PROBES = Path(__file__).parent / "probes"


def lend(directory: Path) -> Path:
    """Put pip and the attacks into a directory, made if missing."""
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "lib"
    # With what was compiled of it, whose times must stay those of the sources: compiling takes longer than installing.
    installed = Path(str(distribution("pip").locate_file("pip")))
    shutil.copytree(installed, library / "pip", copy_function=shutil.copy2)
    place = directory / "tests" / "microvm" / "probes"
    place.mkdir(parents=True)
    for source in _PROBES.glob("*.py"):
        shutil.copy(source, place)
    return directory
