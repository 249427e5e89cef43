"""Files that git writes to disk otherwise than they stand in a commit: what is read of the commit would not be them.

``.gitattributes`` is part of a change. With ``working-tree-encoding=SHIFT_JIS`` a yen sign becomes a backslash, so that
a policy ends elsewhere on the host than in the commit; ``ident`` and ``export-subst`` put text in. A ``filter`` is what
the configuration of a host makes of it, which no change reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.review.git import Objects

__all__ = ["refuse_converted"]

_FILE: Final = ".gitattributes"
_MAX_FILE: Final = 1024 * 1024
_CONVERTS: Final = frozenset({"working-tree-encoding", "ident", "export-subst"})
_MACRO: Final = "[attr]"


def refuse_converted(objects: Objects, path: str, names: Iterable[str], root: Path) -> None:
    """Refuse files of a commit that git converts.

    Args:
        objects: The files of the commit.
        path: Their directory, relative to the top.
        names: Their names.
        root: What messages call their directory.

    Raises:
        BundleError: One is converted, or may be: a pattern that is hard to read counts as one that fits.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    files = sorted(names)
    converting = set(_CONVERTS)
    for depth in range(len(parts) + 1):
        entry = objects.entry("/".join((*parts[:depth], _FILE)))
        # Git reads none that is a link.
        if entry is None or entry.kind != "file":
            continue
        below = "/".join(parts[depth:])
        for pattern, attributes in _lines(objects.file(entry.object, _MAX_FILE)):
            found = next((each for each in attributes if each in converting), None)
            if found is None:
                continue
            if pattern.startswith(_MACRO):
                converting.add(pattern.removeprefix(_MACRO))
                continue
            for name in files:
                if _fits(pattern, f"{below}/{name}" if below else name):
                    told = f"git writes it to disk otherwise than it stands in the commit ({found} in {_FILE})"
                    raise BundleError(
                        told, path=root / name, hint="take that away: policies are to be the same everywhere"
                    )


def _lines(data: bytes) -> Iterator[tuple[str, list[str]]]:
    """Yield each pattern with the attributes that it sets."""
    for line in data.decode("utf-8", "replace").splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            # One in quotes can have spaces in it.
            pattern = "*" if words[0].startswith('"') else words[0]
            yield pattern, [word.partition("=")[0] for word in words[1:] if word[0] not in "-!"]


def _fits(pattern: str, path: str) -> bool:
    if "\\" in pattern or "[" in pattern:
        return True
    if "/" not in pattern:
        return fnmatchcase(path.rsplit("/", 1)[-1], pattern)
    # A star of this module goes over slashes, so that more fits than for git.
    anchored = pattern.lstrip("/")
    return fnmatchcase(path, anchored) or fnmatchcase(path, anchored.replace("**/", ""))
