"""Files that are whole or not there, and are opened only when they are plain.

What every part of cedarbox that keeps something on this host's disk stands on; it knows none of them.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cedarbox.errors import ConfigurationError

__all__ = ["open_regular", "read_private", "replacing", "sync_directory", "write_all", "write_file", "write_new"]


def open_regular(
    path: Path | str, flags: int = os.O_RDONLY, *, directory: int | None = None, follow: bool = False
) -> BinaryIO:
    """Open a regular file, and nothing else: no pipe that would block, no directory.

    Args:
        path: The file.
        flags: How; for reading by default.
        directory: A descriptor of the directory that a relative path starts from; None for the working directory.
        follow: Go through a symbolic link.

    Raises:
        OSError: It cannot be opened or is not a regular file.
        ValueError: The path has a NUL.
    """
    # O_NONBLOCK: a pipe must not block; it changes nothing for a file.
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is not a regular file", str(path))
    return os.fdopen(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "rb+")


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; write(2) may take a part only."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextmanager
def replacing(path: Path, mode: int) -> Iterator[BinaryIO]:
    """Write a file that takes its place, durably and in one step, when the block ends without an error.

    Args:
        path: The file; what is there stays as it is until then, and when anything fails.
        mode: Its mode, less what the umask takes.

    Raises:
        OSError: It cannot be written, or what is there is a device, a pipe or a socket, which would be gone.
    """
    draft = _draft(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EINVAL, "no regular file", str(path))
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)


def _draft(path: Path) -> Path:
    """Give a name beside a file for what is not whole yet.

    Raises:
        OSError: The path cannot name a file.
    """
    if not path.name or "\0" in str(path):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path))
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Do what :func:`replacing` does, with all of the content at once."""
    with replacing(path, mode) as file:
        file.write(data)


def write_new(path: Path, data: bytes, mode: int) -> bool:
    """Make a file with its content in one step, durably.

    Returns:
        False when the name was taken; the file that has it is left alone.

    Raises:
        OSError: It cannot be written.
    """
    draft = _draft(path)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        os.close(descriptor)
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


def sync_directory(directory: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_private(
    path: Path,
    what: str,
    *,
    limit: int,
    new: Callable[[], bytes] | None = None,
    hint: str = "check the path and its mode",
) -> tuple[bytes, bool]:
    """Read a file that is for its owner alone, such as a key; make it with mode 0600 when it may be made.

    Args:
        path: The file; a link to it will do.
        what: What it is, for messages, such as ``signing key``.
        limit: How much of it is read, in bytes.
        new: Gives the content of a new one; None when a missing one is an error.
        hint: What to do when it cannot be read.

    Returns:
        The content, and whether it was made now.

    Raises:
        ConfigurationError: It cannot be read or made, others can read it, or it belongs to someone else.
    """
    made = False
    try:
        if new is not None and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            made = write_new(path, new(), 0o600)
        with open_regular(path, follow=True) as file:
            status = os.fstat(file.fileno())
            data = file.read(limit)
    except ValueError:
        raise ConfigurationError(f"the path of the {what} has a NUL", hint="check the path") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: the {what} cannot be read: {error.strerror}", hint=hint) from None
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigurationError(f"{path}: the {what} can be read by others", hint=f"run: chmod 600 {path}")
    if status.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(f"{path}: the {what} belongs to user {status.st_uid}", hint="use one of your own")
    return data, made
