"""The files that say how a bundle is reviewed, of a commit or on disk. They decide nothing, and a change can have them.

They are ``lint.toml``, baselines of the linter, ``tests/*.yaml`` and ``properties/*.yaml``. One that cannot be read is
no reason to refuse the bundle: that it cannot be read is told instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.files import open_regular
from cedarbox.review.git_objects import Entry, Objects

__all__ = ["BASELINE", "DIRECTORIES", "beside_of_commit", "beside_on_disk"]

BASELINE: Final = "--baseline"
"""The name of the baseline that was named on the command line, wherever it is."""
DIRECTORIES: Final = ("tests", "properties")
"""The directories whose ``.yaml`` files are read."""

_MAX_FILE: Final = 16 * 1024 * 1024
_MAX_FILES: Final = 1000


def beside_of_commit(objects: Objects, path: str, baseline: str | None = None) -> Mapping[str, bytes | None]:
    """Return the files of a commit.

    Args:
        objects: The commit.
        path: Of the bundle, from the top of the repository.
        baseline: Of a baseline, from there too; None for none.

    Returns:
        The content of each, by its name relative to the bundle; None for one that cannot be read.
    """
    found: dict[str, bytes | None] = {}
    top = _directory(objects, _entry(objects, path))
    for name, entry in top.items():
        if name in DIRECTORIES:
            for each, below in _directory(objects, entry).items():
                if each.endswith(".yaml"):
                    found[f"{name}/{each}"] = _content(objects, below)
        elif _counts(name):
            found[name] = _content(objects, entry)
    if baseline is not None and (entry_of := _entry(objects, baseline)) is not None:
        found[BASELINE] = _content(objects, entry_of)
    return found if len(found) <= _MAX_FILES else dict.fromkeys(found)


def beside_on_disk(root: Path, baseline: Path | None = None) -> Mapping[str, bytes | None]:
    """Return the files on disk.

    Args:
        root: Directory of the bundle.
        baseline: A baseline; None for none.

    Returns:
        As :func:`beside_of_commit`.
    """
    paths = {path.name: path for path in _listed(root) if _counts(path.name)}
    for directory in DIRECTORIES:
        below = (path for path in _listed(root / directory) if path.name.endswith(".yaml"))
        paths |= {f"{directory}/{path.name}": path for path in below}
    if baseline is not None and baseline.exists():
        paths[BASELINE] = baseline
    if len(paths) > _MAX_FILES:
        return dict.fromkeys(paths)
    return {name: _read(path) for name, path in sorted(paths.items())}


def _counts(name: str) -> bool:
    return name == "lint.toml" or (name.endswith(".json") and name != "entities.json")


def _entry(objects: Objects, path: str) -> Entry | None:
    try:
        return objects.entry(path)
    except ConfigurationError:
        return None


def _directory(objects: Objects, entry: Entry | None) -> Mapping[str, Entry]:
    try:
        return objects.directory(entry.object) if entry is not None and entry.kind == "directory" else {}
    except ConfigurationError:
        return {}


def _content(objects: Objects, entry: Entry) -> bytes | None:
    try:
        return objects.file(entry.object, _MAX_FILE) if entry.kind == "file" else None
    except ConfigurationError:
        return None


def _listed(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(directory.iterdir())
    except OSError:
        return


def _read(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            data = file.read(_MAX_FILE + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= _MAX_FILE else None
