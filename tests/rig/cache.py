"""Things that are built once and kept outside the checkout, each under the digest of what went into it."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["CHECKOUT", "cache_root", "digest_of", "obtain"]

CHECKOUT = Path(__file__).resolve().parents[2]
"""The checkout that this file belongs to."""

_KEEP = 2


def cache_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Where built things are kept.

    Args:
        environ: The environment to read ``CEDARBOX_CACHE``, ``XDG_CACHE_HOME`` and ``HOME`` from.

    Returns:
        ``$CEDARBOX_CACHE``, else ``$XDG_CACHE_HOME/cedarbox``, else ``~/.cache/cedarbox``, always absolute.
    """
    if chosen := environ.get("CEDARBOX_CACHE"):
        return Path(chosen).absolute()
    base = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache")
    return Path(base).absolute() / "cedarbox"


def digest_of(inputs: Mapping[str, bytes]) -> str:
    """The key of a build: SHA-256 over its inputs, in hex.

    Names and contents are each preceded by their length, so that no two different sets of inputs read the same.

    Args:
        inputs: What goes into the build, by name; the order does not matter.
    """
    hasher = hashlib.sha256()
    for name in sorted(inputs):
        for part in (name.encode(), inputs[name]):
            hasher.update(len(part).to_bytes(8, "big"))
            hasher.update(part)
    return hasher.hexdigest()


def obtain(kind: str, digest: str, build: Callable[[Path], None], *, root: Path | None = None) -> Path:
    """The directory of a finished build; builds it first if there is none.

    A build works in a temporary directory that is renamed when it is complete, so a build that was killed leaves
    nothing that could be mistaken for a finished one. A lock keeps two builds of one kind apart. The two digests used
    last are kept, older ones are removed.

    Args:
        kind: The family of the build, such as ``"rig"``; a directory below the root.
        digest: The key from `digest_of`.
        build: Fills the empty directory it is given, or raises.
        root: Where to keep it; the default is `cache_root`.
    """
    family = (root or cache_root()) / kind
    place = family / digest
    if not place.is_dir():
        family.mkdir(parents=True, exist_ok=True)
        with _locked(family / ".lock"):
            _sweep(family)
            if not place.is_dir():
                work = Path(tempfile.mkdtemp(prefix=".build-", dir=family))
                try:
                    build(work)
                    work.chmod(0o755)
                    work.rename(place)
                finally:
                    shutil.rmtree(work, ignore_errors=True)
            _touch(place)
            _prune(family)
    _touch(place)
    return place


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _touch(place: Path) -> None:
    # The kernel's own "now" for file times is too coarse to order two uses that follow each other closely.
    now = time.time_ns()
    os.utime(place, ns=(now, now))


def _sweep(family: Path) -> None:
    for left in family.glob(".build-*"):
        shutil.rmtree(left, ignore_errors=True)


def _prune(family: Path) -> None:
    finished = [entry for entry in family.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    finished.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    for old in finished[_KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
