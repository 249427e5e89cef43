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
from cedarbox.review.git import Repository
from cedarbox.review.subject import shown

__all__ = ["as_in_a_commit", "checked_out"]

_CONVERTING: Final = ("working-tree-encoding", "filter", "ident", "eol")
"""Attributes that make a checkout give other bytes than the commit has."""
_OFF: Final = frozenset({"unspecified", "unset"})
"""Values with which they do not; nor do line feeds as line ends."""


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
        BundleError: A file of it is not checked out, or one that decides not as it is in a commit.
        ConfigurationError: git cannot tell.
    """
    below = "" if directory in {"", "."} else f"{directory}/"
    # Of tests and properties too: a part of the review would not be run.
    _refuse_left_out(repository, directory or ".", below, root)
    _refuse_converted(repository, [f"{below}{name}" for name in files], below, root)
    ignored = repository.parts("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", directory or ".")
    return tuple(
        f"{shown(root / name)} is ignored by git: it counts here, and no commit has it"
        for name in (path.removeprefix(below) for path in ignored)
        if name in files
    )


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


def _refuse_left_out(repository: Repository, path: str, below: str, root: Path) -> None:
    index = repository.parts("ls-files", "-z", "-t", "--cached", "--", path)
    # S: a sparse checkout leaves it out.
    for each in (line[2:] for line in index if line.startswith("S ")):
        if not os.path.lexists(repository.top / each):
            message = "in the repository, and left out by a sparse checkout"
            raise BundleError(message, path=root / each.removeprefix(below), hint="check it out, with all beside it")


def _refuse_converted(repository: Repository, paths: Sequence[str], below: str, root: Path) -> None:
    told = repository.parts("check-attr", "-z", *_CONVERTING, "--", *paths) if paths else ()
    for path, attribute, value in zip(told[::3], told[1::3], told[2::3], strict=True):
        if value not in _OFF and (attribute, value) != ("eol", "lf"):
            message = f"a checkout is not what is in the commit ({attribute}={value} in .gitattributes)"
            hint = f"end .gitattributes with: *{PurePosixPath(path).suffix} !eol !filter !ident !working-tree-encoding"
            raise BundleError(message, path=root / path.removeprefix(below), hint=hint)
