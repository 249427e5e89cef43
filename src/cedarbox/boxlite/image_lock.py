"""The lock file of images: which digest a name must have here.

It is JSON, sorted and of a stable form, so that a change of an image is a line in a review::

    {
      "images": {
        "docker.io/library/python:3.12-slim": "sha256:…"
      },
      "version": 1
    }
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cedarbox.boxlite.references import DIGEST, parse_reference
from cedarbox.errors import ConfigurationError, ImageError
from cedarbox.files import write_file

__all__ = ["LOCK_FILE", "read_lock", "write_lock"]

LOCK_FILE: Final = Path("cedarbox.images.lock")
"""Where it is looked for when nothing else is said: in the working directory."""

_VERSION: Final = 1
_MAX_BYTES: Final = 4 * 1024 * 1024


def read_lock(path: Path) -> dict[str, str] | None:
    """Read a lock file.

    Args:
        path: The file.

    Returns:
        ``sha256:…`` by canonical name; ``None`` when there is no such file.

    Raises:
        ConfigurationError: It cannot be read or is not a lock file. Nothing may be booted by name then.
    """
    hint = "put it back from version control, or write it anew with cedarbox image pin"
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
        document = json.loads(data) if len(data) <= _MAX_BYTES else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path}: cannot be read ({str(error)[:200]})", hint=hint) from None
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.get("version") != _VERSION or not isinstance(images, dict):
        raise ConfigurationError(f"{path}: it is not a lock file of version {_VERSION}", hint=hint)
    locked: dict[str, str] = {}
    for name, digest in images.items():
        try:
            reference = parse_reference(name)
        except ImageError as error:
            raise ConfigurationError(f"{path}: {error.message}", hint=hint) from None
        if reference.digest is not None or reference.name in locked:
            raise ConfigurationError(f"{path}: the name {name!r} is pinned twice", hint=hint)
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ConfigurationError(f"{path}: {name} has no digest of the form sha256:<64 hex>", hint=hint)
        locked[reference.name] = digest
    return locked


def write_lock(path: Path, images: Mapping[str, str]) -> None:
    """Write a lock file in one step; it is made readable for all, because it belongs in version control.

    Args:
        path: The file.
        images: ``sha256:…`` by canonical name.

    Raises:
        ConfigurationError: It cannot be written; the old one is as it was.
    """
    text = json.dumps({"version": _VERSION, "images": dict(images)}, indent=2, sort_keys=True) + "\n"
    try:
        write_file(path, text.encode(), 0o666)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})", hint="check its directory") from None
