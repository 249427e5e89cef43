"""Files that someone names: read when they are plain and no larger than they may be, or refused in one line."""

from __future__ import annotations

from pathlib import Path

from cedarbox.errors import BundleError
from cedarbox.files import open_regular

__all__ = ["limited_bytes", "limited_text"]


def limited_bytes(path: Path, most: int, *, hint: str) -> bytes:
    """Return the content of a file.

    Args:
        path: The file; links are followed.
        most: How many bytes it may have.
        hint: What to do when it has more.

    Raises:
        BundleError: It cannot be read, is no plain file or too large.
    """
    try:
        with open_regular(path, follow=True) as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not a regular file"
        raise BundleError(f"cannot read it ({why})", path=path, hint="check the path and its mode") from None
    if len(data) > most:
        raise BundleError(f"larger than {most} bytes", path=path, hint=hint)
    return data


def limited_text(path: Path, most: int, *, hint: str) -> str:
    """Return the content of a file that is UTF-8, without a byte order mark; see :func:`limited_bytes`."""
    try:
        return limited_bytes(path, most, hint=hint).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BundleError("not UTF-8 text", path=path, hint="save it as UTF-8") from None
