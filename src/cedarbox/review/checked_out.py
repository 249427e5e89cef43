"""Whether a working tree has what a commit of it would have.

A comparison reads the new version where it is checked out and the old one out of a commit. What differs between the two
by itself would hide a change, now or in the comparison after it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.review.beside import DIRECTORIES
from cedarbox.review.git import Repository
from cedarbox.review.subject import shown
from cedarbox.review.twins import refuse_twins

__all__ = ["as_in_a_commit", "checked_out"]

_CONVERTING: Final = ("working-tree-encoding", "filter", "ident", "eol")
"""Attributes that make a checkout give other bytes than the commit has."""
_OFF: Final = frozenset({"unspecified", "unset"})
"""Values with which they do not; nor do line feeds as line ends."""
_SUBMODULE: Final = "160000"


def checked_out(repository: Repository, directory: str, root: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """See whether a working tree has all of a bundle, byte by byte.

    Args:
        repository: Whose working tree it is.
        directory: The bundle, relative to the top.
        root: What messages call it.
        files: What was read of it, by name.

    Returns:
        What a reader must know.

    Raises:
        BundleError: A file of it is not checked out, or one that decides not as it is in a commit, or it is or has its
            tests in a submodule.
        ConfigurationError: git cannot tell.
    """
    below = "" if directory in {"", "."} else f"{directory}/"
    # Of tests and properties too: a part of the review would not be run.
    _refuse_left_out(repository, directory or ".", below, root)
    _refuse_converted(repository, [f"{below}{name}" for name in files], below, root)
    refuse_twins(lambda path: _names(repository.top / path), directory, files, root)
    listing = ("ls-files", "-z", "--others")
    ignored = repository.parts(*listing, "--ignored", "--exclude-standard", "--", directory or ".")
    notes = []
    for path in repository.parts(*listing, "--", directory or "."):
        if (name := path.removeprefix(below)) in files:
            what = "ignored by git" if path in ignored else "new to git"
            notes.append(f"{shown(root / name)} is {what}: it counts here, and no commit has it")
    return tuple(notes)


def as_in_a_commit(repository: Repository, name: str, shown_as: Path) -> None:
    """See whether a working tree has a file at its top, if there is one, byte by byte.

    Args:
        repository: Whose working tree it is.
        name: The file.
        shown_as: What messages call it.

    Raises:
        BundleError: It is not checked out, or not as it is in a commit.
        ConfigurationError: git cannot tell.
    """
    _refuse_left_out(repository, name, "", shown_as.parent)
    _refuse_converted(repository, [name], "", shown_as.parent)
    refuse_twins(lambda path: _names(repository.top / path), "", {name}, shown_as.parent)


def _names(directory: Path) -> Sequence[str]:
    try:
        return [each.name for each in directory.iterdir()]
    except OSError:
        return []  # it is gone, or has been refused where the bundle was read


def _refuse_left_out(repository: Repository, path: str, below: str, root: Path) -> None:
    above = [each.as_posix() for each in PurePosixPath(path).parents if each.name]
    for line in repository.parts("ls-files", "-z", "-t", "--stage", "--", path, *above):
        told, _, each = line.partition("\t")
        inside = path == "." or f"{each}/".startswith(f"{path}/")
        name = each.removeprefix(below) if inside else ""
        # It may be empty here, so that nothing is permitted, or nothing tested, and not on a host.
        around = f"{path}/".startswith(f"{each}/")
        if told.split()[1] == _SUBMODULE and (around or name in DIRECTORIES):
            at = root if around else root / name
            raise BundleError("a submodule, whose files are in no commit here", path=at, hint="run it inside of that")
        # S: a sparse checkout leaves it out.
        if inside and told.startswith("S ") and not os.path.lexists(repository.top / each):
            message = "in the repository, and left out by a sparse checkout"
            raise BundleError(message, path=root / name, hint="check it out, with all beside it")


def _refuse_converted(repository: Repository, paths: Sequence[str], below: str, root: Path) -> None:
    told = repository.parts("check-attr", "-z", *_CONVERTING, "--", *paths) if paths else ()
    for path, attribute, value in zip(told[::3], told[1::3], told[2::3], strict=True):
        if value not in _OFF and (attribute, value) != ("eol", "lf"):
            message = f"a checkout is not what is in the commit ({attribute}={value} in .gitattributes)"
            hint = f"end .gitattributes with: *{PurePosixPath(path).suffix} !eol !filter !ident !working-tree-encoding"
            raise BundleError(message, path=root / path.removeprefix(below), hint=hint)
