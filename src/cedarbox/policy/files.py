"""Files beside the decisions: opened only when they are plain, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import BinaryIO

__all__ = ["open_regular", "write_file"]


def open_regular(path: Path | str, *, directory: int | None = None, follow: bool = False) -> BinaryIO:
    """Open a regular file for reading, and nothing else: no pipe that would block, no directory.

    Args:
        path: The file.
        directory: A descriptor of the directory that a relative path starts from; None for the working directory.
        follow: Go through a symbolic link.

    Raises:
        OSError: It cannot be opened or is not a regular file.
        ValueError: The path has a NUL.
    """
    # O_NONBLOCK: a pipe must not block; it changes nothing for a file.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def write_file(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    """Write a file durably, whole or not at all.

    Args:
        path: The file.
        data: Its content.
        mode: Its mode, less what the umask takes.
        replace: Take the place of a file that is there.

    Raises:
        FileExistsError: It is there and must not be replaced.
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
