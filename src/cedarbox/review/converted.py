"""Files that git writes to disk otherwise than they stand in a commit: what is read of the commit would not be them.

``.gitattributes`` is part of a change. With ``working-tree-encoding=SHIFT_JIS`` a yen sign becomes a backslash, so that
a policy ends elsewhere on the host than in the commit; ``ident`` and ``export-subst`` put text in. A ``filter`` is what
the configuration of a host makes of it, which no change reaches.
"""

from __future__ import annotations

import os
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.review.git_objects import Objects
from cedarbox.review.twins import alike

__all__ = ["refuse_converted"]

_FILE: Final = ".gitattributes"
_MAX_FILE: Final = 1024 * 1024
_CONVERTS: Final = frozenset({"working-tree-encoding", "ident", "export-subst"})
_MACRO: Final = "[attr]"
# Not those that Python takes for white space and for ends of lines: git has only these, and one NEL could hide the rest
# of a line.
_BLANK: Final = re.compile(rb"[ \t\r]+")

_Line = tuple[str, Sequence[str]]


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
    read: list[tuple[str, _Line]] = []
    for depth in range(len(parts) + 1):
        above, below = "/".join(parts[:depth]), "".join(f"{part}/" for part in parts[depth:])
        for entry in [objects.entry(f"{above}/{name}") for name in objects.listed(above) if alike(name) == _FILE]:
            # A checkout reads one that is a link too, as if the target were its content: it takes it from the index.
            if entry is not None and entry.kind in {"file", "link"}:
                read += [(below, line) for line in _lines(objects.file(entry.object, _MAX_FILE))]
    converting = _converting([line for _, line in read])
    for below, (pattern, attributes) in read:
        found = next((each for each in attributes if each in converting), None)
        if found is None or pattern.startswith(_MACRO):
            continue
        for name in files:
            if _fits(pattern, below + name):
                told = f"git writes it to disk otherwise than it stands in the commit ({found} in {_FILE})"
                hint = "take that away: policies are to be the same everywhere"
                raise BundleError(told, path=root / name, hint=hint)


def _lines(data: bytes) -> Iterator[_Line]:
    """Yield each pattern with the attributes that it sets."""
    for line in data.removeprefix(BOM_UTF8).split(b"\n"):
        words = [os.fsdecode(word) for word in _BLANK.split(line) if word]
        if words and not words[0].startswith("#"):
            # One in quotes can have spaces in it.
            pattern = "*" if words[0].startswith('"') else words[0]
            yield pattern, [word.partition("=")[0] for word in words[1:] if word[0] not in "-!"]


def _converting(lines: Sequence[_Line]) -> frozenset[str]:
    """Return the attributes that convert. A macro can stand for one, for another macro, and after where it is used."""
    found = set(_CONVERTS)
    known = 0
    while len(found) > known:
        known = len(found)
        for pattern, attributes in lines:
            if pattern.startswith(_MACRO) and not found.isdisjoint(attributes):
                found.add(pattern.removeprefix(_MACRO))
    return frozenset(found)


def _fits(pattern: str, path: str) -> bool:
    # What stands for one character stands for one byte in git.
    if "\\" in pattern or "[" in pattern or "?" in pattern:
        return True
    # Where files are found whatever their case, patterns are too.
    pattern, path = pattern.casefold(), path.casefold()
    if "/" not in pattern:
        return fnmatchcase(path.rsplit("/", 1)[-1], pattern)
    # A star of this module goes over slashes, so that more fits than for git.
    return fnmatchcase(path, pattern.lstrip("/").replace("**/", "*"))
