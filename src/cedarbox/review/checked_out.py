"""Whether a working tree has what a commit of it would have.

A comparison reads the new version where it is checked out and the old one out of a commit. What differs between the two
by itself would hide a change, now or in the comparison after it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from cedarbox.errors import BundleError
from cedarbox.review.git import Repository
from cedarbox.review.subject import shown

__all__ = ["checked_out"]

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
    index = repository.parts("ls-files", "-z", "-t", "--cached", "--", directory or ".")
    # S: a sparse checkout leaves it out. Of tests and properties too: a part of the review would not be run.
    for path in (line[2:] for line in index if line.startswith("S ")):
        if not os.path.lexists(repository.top / path):
            hint = "check out all of the bundle"
            message = "in the repository, and left out by a sparse checkout"
            raise BundleError(message, path=root / path.removeprefix(below), hint=hint)
    if files:
        _refuse_converted(repository, below, root, sorted(files))
    ignored = repository.parts("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", directory or ".")
    return tuple(
        f"{shown(root / name)} is ignored by git: it counts here, and no commit has it"
        for name in (path.removeprefix(below) for path in ignored)
        if name in files
    )


def _refuse_converted(repository: Repository, below: str, root: Path, names: Sequence[str]) -> None:
    told = repository.parts("check-attr", "-z", *_CONVERTING, "--", *(f"{below}{name}" for name in names))
    for path, attribute, value in zip(told[::3], told[1::3], told[2::3], strict=True):
        if value not in _OFF and (attribute, value) != ("eol", "lf"):
            message = f"a checkout is not what is in the commit ({attribute}={value} in .gitattributes)"
            hint = "write in .gitattributes, below the others: *.cedar !eol !filter !ident !working-tree-encoding"
            raise BundleError(message, path=root / path.removeprefix(below), hint=hint)
