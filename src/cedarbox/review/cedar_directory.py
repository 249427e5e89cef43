"""A directory of plain Cedar policies with a schema, for tests in Cedar's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.files import open_regular
from cedarbox.review.subject import Subject

__all__ = ["cedar_directory"]

_MAX_FILE: Final = 4 * 1024 * 1024


def cedar_directory(root: Path, schema: Path) -> Subject:
    """Read the ``.cedar`` files of a directory.

    Args:
        root: The directory.
        schema: A schema in Cedar's own syntax.

    Raises:
        BundleError: A file cannot be read, or anything is wrong with what it says.
    """
    try:
        names = sorted(path.name for path in root.iterdir() if path.suffix == ".cedar")
    except OSError as error:
        hint = "give the directory of the policies"
        raise BundleError(f"cannot read it ({error.strerror})", path=root, hint=hint) from None
    if not names:
        raise BundleError("no .cedar file in it", path=root, hint="give the directory of the policies")
    files = {name: _read(root / name) for name in names}
    try:
        text = _read(schema).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError("not UTF-8", path=schema, hint="save it as UTF-8") from None
    try:
        cedarpy.Schema.from_str(text)
    except ValueError as error:
        told = " ".join(str(error).split())
        raise BundleError(f"not a schema: {told}", path=schema, hint="write it in Cedar's own syntax") from None
    return Subject.of_cedar(str(root), root, files, schema=text)


def _read(path: Path) -> bytes:
    try:
        with open_regular(path, follow=True) as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise BundleError(f"cannot read it ({error.strerror})", path=path, hint="check its owner and mode") from None
    if len(data) > _MAX_FILE:
        raise BundleError(f"larger than {_MAX_FILE} bytes", path=path, hint="split it")
    return data
