"""The directory of the image store: whose it is, who may change it, and where something is prepared in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.errors import ImageError

__all__ = ["Room"]

_WORK: Final = ".work-"
_PULL: Final = ".pull-"
_HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class Room:
    """The directory of one store.

    Attributes:
        directory: Made with mode 0700 when something is first stored.
    """

    directory: Path

    def check(self) -> None:
        """Make sure that the directory is this user's alone.

        Raises:
            ImageError: It is not.
        """
        status = self.directory.stat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise ImageError(f"the image store {self.directory} is not a directory of this user", hint="use another")
        if status.st_mode & 0o022:
            raise ImageError(
                f"others can write to the image store {self.directory}", hint=f"chmod 700 {self.directory}"
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Be the only one that changes the store while the block runs; what was left half done is swept first.

        Raises:
            ImageError: The store cannot be used or changed.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.check()
            (self.directory / "layouts").mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise ImageError(
                f"the image store {self.directory} cannot be used ({error.strerror})", hint="check its mode"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            for left in self.directory.glob(f"{_WORK}*"):
                shutil.rmtree(left, ignore_errors=True)
            for left in self.directory.glob(f"{_PULL}*"):
                _swept(left)
            yield
        except OSError as error:
            raise ImageError(
                f"the image store {self.directory} cannot be changed ({error.strerror})",
                hint="check its mode and the free space of its disk",
            ) from None
        finally:
            os.close(handle)

    @contextmanager
    def work(self) -> Iterator[Path]:
        """Give a directory to prepare something in, within :meth:`changing`."""
        work = Path(tempfile.mkdtemp(prefix=_WORK, dir=self.directory))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a private directory on the disk of the store, for as long as the block runs. The store is not locked.

        Raises:
            ImageError: The store cannot be used.
        """
        with self.changing():
            place = Path(tempfile.mkdtemp(prefix=_PULL, dir=self.directory))
            held = os.open(place / _HELD, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(held)


def _swept(left: Path) -> None:
    """Remove a scratch directory whose process is gone: nobody holds its lock."""
    try:
        handle = os.open(left / _HELD, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        shutil.rmtree(left, ignore_errors=True)
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        shutil.rmtree(left, ignore_errors=True)
    finally:
        os.close(handle)
