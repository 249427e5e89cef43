"""Git repositories of the test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["bare_repository"]

_WHO = ("-c", "user.name=nobody", "-c", "user.email=nobody@corp.example", "-c", "commit.gpgsign=false")


def bare_repository(directory: Path, content: Mapping[str, str]) -> Path:
    """Make ``project.git`` with one commit of these files on ``main``.

    Args:
        directory: Where to work; made if missing.
        content: The files, by name.

    Returns:
        The directory that holds ``project.git`` and nothing else.
    """
    work, root = directory / "work", directory / "root"
    work.mkdir(parents=True)
    root.mkdir()
    for name, text in content.items():
        (work / name).write_text(text)
    for command in (
        ["init", "-q", "-b", "main", str(work)],
        ["-C", str(work), "add", "--all"],
        ["-C", str(work), *_WHO, "commit", "-q", "-m", "first"],
        ["clone", "-q", "--bare", str(work), str(root / "project.git")],
    ):
        subprocess.run(["git", *command], check=True, capture_output=True)
    return root
