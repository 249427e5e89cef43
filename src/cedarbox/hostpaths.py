"""The real path of a file of this host, spelled as its directory entries are.

On a file system that does not tell capitals from small letters, ``/Data/SECRET`` and ``/data/secret`` are one directory
under two names, and a rule for one says nothing about the other. Resolving symbolic links keeps the spelling that was
given, so each component is looked up once more here. Short names (``SECRET~1``) are found out in the same way.
"""

from __future__ import annotations

import os
import string
import unicodedata
from collections.abc import Iterable
from typing import Final, Protocol

from cedarbox.errors import CanonicalizationError

__all__ = ["Disk", "real_path", "spelled"]

_SWAPPED: Final = str.maketrans(string.ascii_letters, "".join(letter.swapcase() for letter in string.ascii_letters))
"""ASCII alone: what other letters are folded to depends on the file system."""


class Disk(Protocol):
    """What is asked of a file system."""

    def identity(self, path: str) -> tuple[int, int] | None:
        """Return device and number of the file itself, not of what it links to; None when there is none.

        Raises:
            OSError: It cannot be told.
        """

    def names(self, path: str) -> Iterable[str]:
        """Return the names in a directory, as its entries spell them.

        Raises:
            OSError: It cannot be read.
        """


class _Host:
    def identity(self, path: str) -> tuple[int, int] | None:
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_dev, status.st_ino

    def names(self, path: str) -> Iterable[str]:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries]


def real_path(path: str, *, strict: bool = False) -> str:
    """Return where a path of this host leads, its links followed, spelled as the entries are.

    Args:
        path: An absolute path.
        strict: The end of the path must exist, too.

    Raises:
        OSError: ``strict``, and it does not exist or cannot be reached.
        CanonicalizationError: How it is spelled cannot be told.
    """
    try:
        real = os.path.realpath(path, strict=strict)
    except ValueError:
        raise CanonicalizationError(f"the path {path[:80]!r} has a NUL") from None
    try:
        return spelled(real)
    except OSError as error:
        raise CanonicalizationError(f"how {real[:200]!r} is spelled cannot be told ({error.strerror})") from None


def spelled(path: str, disk: Disk | None = None) -> str:
    """Return a path without links as its directory entries spell it. The end of the path need not exist.

    Where the directory tells capitals from small letters, which takes one look at each component, nothing is listed.

    Args:
        path: An absolute, normal path without symbolic links.
        disk: The file system; None for the one of this host.

    Raises:
        CanonicalizationError: More than one entry could be meant, or a name that does not exist yet would have more
            than one spelling.
        OSError: The disk cannot be read.
    """
    disk = disk or _Host()
    found = "/"
    parts = [part for part in path.split("/") if part]
    for number, name in enumerate(parts):
        identity = disk.identity(_below(found, name))
        if identity is None:
            if _folds(disk, found):
                what = f"{_below(found, name)[:200]!r} does not exist"
                raise CanonicalizationError(f"{what}, and its directory knows more than one spelling of it")
            return "/".join((found.rstrip("/"), *parts[number:]))
        swapped = name.translate(_SWAPPED)
        if swapped == name or disk.identity(_below(found, swapped)) is not None:
            name = _entry(disk, found, name, identity)  # noqa: PLW2901  # the same name, as it is spelled
        found = _below(found, name)
    return found


def _entry(disk: Disk, directory: str, name: str, identity: tuple[int, int]) -> str:
    names = list(disk.names(directory))
    if name in names:
        return name
    # By its name first: some file systems give a file another number for each spelling (FUSE's, without use_ino).
    same = [entry for entry in names if _folded(entry) == _folded(name)]
    if not same:
        same = [entry for entry in names if disk.identity(_below(directory, entry)) == identity]
    if len(same) != 1:
        raise CanonicalizationError(f"which entry of {directory[:200]!r} is meant by {name[:80]!r} cannot be told")
    return same[0]


def _folds(disk: Disk, directory: str) -> bool:
    """Return whether a directory takes two spellings for one name, as far as what is in it, or its own name, shows."""
    names = set(disk.names(directory))
    for entry in names:
        swapped = entry.translate(_SWAPPED)
        if swapped != entry and swapped not in names:
            return disk.identity(_below(directory, swapped)) is not None
    parent, _, own = directory.rpartition("/")
    swapped = own.translate(_SWAPPED)
    if swapped == own or disk.identity(_below(parent or "/", swapped)) is None:
        return False
    return swapped not in set(disk.names(parent or "/"))


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _below(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"
