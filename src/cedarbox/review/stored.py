"""The files of one version of a bundle, from a commit or from disk: plain ones, as many and as large as may be."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cedarbox.errors import BundleError
from cedarbox.policy.reading import decides, read_bundle, utf8_text
from cedarbox.policy.signing import MAX_ENVELOPE, SIGNATURE_FILE
from cedarbox.review.converted import refuse_converted
from cedarbox.review.git_objects import Objects
from cedarbox.review.twins import refuse_twins

__all__ = ["MAX_FILE", "NO_LINKS", "entities", "of_commit", "of_disk", "refuse_links"]

# As for a bundle on disk, see policy/reading.py.
MAX_FILE: Final = 4 * 1024 * 1024
_MAX_FILES: Final = 1000
_MAX_TOTAL: Final = 64 * 1024 * 1024
NO_LINKS: Final = "a bundle is read from plain files and directories, not through links"


def _counts(name: str) -> bool:
    return name == SIGNATURE_FILE or decides(name)


def of_commit(objects: Objects, path: str, root: Path) -> Mapping[str, bytes] | None:
    """Return the files that decide and the signature, by name; None where no bundle is.

    Args:
        objects: The files of the commit.
        path: The directory, relative to the top.
        root: What messages call it.

    Raises:
        BundleError: They are no plain files, too many, or too large.
    """
    entry = objects.entry(path)
    if entry is None:
        return None
    if entry.kind != "directory":
        raise BundleError(f"a {entry.kind}, no directory", path=root, hint=NO_LINKS)
    chosen = {name: found for name, found in sorted(objects.directory(entry.object).items()) if _counts(name)}
    if len(chosen) > _MAX_FILES:
        raise BundleError(f"more than {_MAX_FILES} files", path=root, hint="put several policies into one file")
    files: dict[str, bytes] = {}
    for name, found in chosen.items():
        if not name.isprintable():
            raise BundleError(f"a file with the name {name!a}", path=root, hint="use printable UTF-8 in names")
        if found.kind != "file":
            raise BundleError(f"a {found.kind}, no regular file", path=root / name, hint=NO_LINKS)
        files[name] = objects.file(found.object, MAX_ENVELOPE if name == SIGNATURE_FILE else MAX_FILE)
        if sum(map(len, files.values())) > _MAX_TOTAL:
            raise BundleError(f"larger than {_MAX_TOTAL} bytes in all", path=root, hint="split the bundle")
    refuse_converted(objects, path, files, root)
    refuse_twins(objects.listed, path, files, root)
    return files if _is_bundle(files) else None


def of_disk(root: Path) -> Mapping[str, bytes] | None:
    """Return the files that decide and the signature, by name; None where no bundle is.

    Args:
        root: The directory.

    Raises:
        BundleError: They cannot be read.
    """
    if not os.path.lexists(root):
        return None
    read = read_bundle(root, with_signature=True)
    files = dict(read.deciding)
    if read.signature is not None:
        files[SIGNATURE_FILE] = read.signature
    return files if _is_bundle(files) else None


def _is_bundle(files: Mapping[str, bytes]) -> bool:
    # A directory that is left with its tests, say, decides nothing.
    return any(name == "bundle.toml" or name.endswith(".cedar") for name in files)


def refuse_links(top: Path, path: str) -> None:
    """Refuse a path with a link in it.

    Args:
        top: Where it starts.
        path: Relative to that.

    Raises:
        BundleError: There is one.
    """
    at = top
    for part in PurePosixPath(path).parts:
        at /= part
        try:
            linked = stat.S_ISLNK(at.lstat().st_mode)
        except OSError:
            return
        if linked:
            raise BundleError("a link, no directory", path=at, hint=NO_LINKS)


def entities(path: Path, data: bytes) -> Sequence[Mapping[str, Any]]:
    """Return entities in Cedar's JSON form.

    Args:
        path: What messages call their file.
        data: Its content.

    Raises:
        BundleError: It is no list of them.
    """
    try:
        found = json.loads(utf8_text(path, data))
    except (ValueError, RecursionError):
        raise BundleError("not JSON that can be read", path=path, hint="write a list of entities") from None
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BundleError("no list of entities", path=path, hint="write them as Cedar's JSON")
    return found
