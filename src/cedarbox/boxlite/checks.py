"""What was checked before, so that a second check costs nothing.

A file that was hashed is known again by its device, inode, size, mtime and ctime (ns). The kernel sets ctime: an owner
who rewrites a file in place can put mtime back, and not ctime. The kernel's clock for these times moves in steps of up
to 10 ms (the jiffy of Linux at 100 Hz), so a file that was changed within the last two seconds is not remembered: it
could be changed again within the same step.

What is remembered is bound to the digest that was computed. It saves time and grants nothing that its owner could not
take: who can write the file can write the images as well. So a file that is damaged, of somebody else, or writable by
others is ignored.
"""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cedarbox.boxlite.references import DIGEST
from cedarbox.files import write_file

__all__ = ["Checks", "Identity", "identity_of"]

Identity = tuple[int, int, int, int, int]
"""Device, inode, size, mtime (ns), ctime (ns)."""

_SETTLED_NS: Final = 2_000_000_000
_MAX_ENTRIES: Final = 4096
_MAX_BYTES: Final = 4 * 1024 * 1024
_VERSION: Final = 1


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells a file from any other, and from itself before a change."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Checks:
    """Digests by file identity, kept in a file.

    Args:
        path: Where to keep them over the end of the process; ``None`` keeps them in memory only.
        clock: The time in nanoseconds since 1970.
    """

    def __init__(self, path: Path | None = None, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.Lock()
        self._known = {} if path is None else _loaded(path)
        self._new = False

    def known(self, status: os.stat_result) -> str | None:
        """Return the SHA-256 in hex that this very file had when it was last hashed, if that is remembered."""
        return self._known.get(identity_of(status))

    def remember(self, status: os.stat_result, digest: str) -> None:
        """Remember the SHA-256 of a file that was just hashed; ignored for one that was changed just before."""
        if self._clock() - max(status.st_ctime_ns, status.st_mtime_ns) < _SETTLED_NS:
            return
        with self._lock:
            self._known[identity_of(status)] = digest
            while len(self._known) > _MAX_ENTRIES:
                del self._known[next(iter(self._known))]
            self._new = True

    def save(self) -> None:
        """Write what is new to the file. Nothing happens when it cannot be written: the next check hashes again."""
        with self._lock:
            if self._path is None or not self._new:
                return
            files = {":".join(map(str, identity)): digest for identity, digest in self._known.items()}
            try:
                write_file(self._path, json.dumps({"version": _VERSION, "files": files}, indent=0).encode(), 0o600)
            except OSError:
                return
            self._new = False


def _loaded(path: Path) -> dict[Identity, str]:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as stream:
            status = os.fstat(handle)
            ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
            data = stream.read(_MAX_BYTES + 1) if ours else b""
        if not ours or len(data) > _MAX_BYTES:
            return {}
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("version") != _VERSION:
            return {}
        known: dict[Identity, str] = {}
        for text, digest in document["files"].items():
            device, inode, size, mtime, ctime = map(int, text.split(":"))
            if not DIGEST.fullmatch(f"sha256:{digest}"):
                return {}
            known[device, inode, size, mtime, ctime] = digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return known
