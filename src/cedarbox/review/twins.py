"""Names that one file system tells apart and another takes for one: a host would have other files than were reviewed.

On macOS ``Policies/site`` and ``policies/site`` are one directory, and ``a.cedar`` and ``A.cedar`` one file, with the
content of whichever was written last.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from cedarbox.errors import BundleError

__all__ = ["alike", "refuse_twins"]


def alike(name: str) -> str:
    """Return a name so that two are the same where a file system may take them for one.

    Args:
        name: Of a file or a directory.
    """
    # Some leave out what cannot be seen, too.
    seen = "".join(each for each in name if unicodedata.category(each) != "Cf")
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", seen).casefold())


def refuse_twins(listed: Callable[[str], Iterable[str]], path: str, names: Collection[str], root: Path) -> None:
    """Refuse a bundle beside which there is something that may be taken for it, or for a file of it.

    Args:
        listed: Returns the names in a directory, relative to the top.
        path: The directory of the bundle, relative to the top.
        names: Of the files that decide.
        root: What messages call the directory.

    Raises:
        BundleError: There is.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    for depth, part in enumerate(parts):
        _refuse(listed("/".join(parts[:depth])), {part}, root)
    _refuse(listed("/".join(parts)), names, root)


def _refuse(there: Iterable[str], mine: Collection[str], root: Path) -> None:
    known = {alike(name): name for name in mine}
    for name in sorted(there):
        if (twin := known.get(alike(name), name)) != name:
            told = f"{name!a} and {twin!a} are one where upper and lower case are not told apart, as on macOS"
            raise BundleError(told, path=root, hint="rename one of them")
