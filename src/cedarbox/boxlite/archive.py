"""The workspace as a tar archive."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO, Final

from agents.sandbox.util.tar_utils import validate_tarfile

__all__ = ["PACK", "SCRATCH", "UNPACK", "excludes", "spooled_archive"]

SCRATCH: Final = "/.cedarbox"
"""A directory of root in the guest's root file system: BoxLite's copy reaches no mount, so ``/tmp`` will not do."""

_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH"

PACK: Final = f"""{_PATH}
umask 077; out=$1 root=$2; shift 2
mkdir -p {SCRATCH} || exit 1
if tar --help 2>&1 | grep -q -- --hard-dereference; then set -- --hard-dereference --no-wildcards --anchored "$@"; fi
tar "$@" -C "$(dirname -- "$root")" -cf "$out" -- "$(basename -- "$root")"
"""
"""Packs the directory $2 into the file $1; the rest are tar's ``--exclude`` options. Hard links become files, because
hydration refuses hard links."""

UNPACK: Final = f"""{_PATH}
mkdir -p -- "$2" && exec tar -x -f "$1" -C "$2"
"""
"""Unpacks the archive $1, ``-`` for standard input, below the directory $2."""


def excludes(root_name: str, skipped: Iterable[PurePath]) -> list[str]:
    """Build tar's options that leave out paths of the workspace.

    Args:
        root_name: The last component of the workspace root, with which member names start.
        skipped: Paths relative to the root.

    Returns:
        One option a path, in order.
    """
    names = sorted(path.as_posix().strip("/") for path in skipped)
    return [f"--exclude={root_name}/{name}" for name in names if name not in ("", ".")]


def spooled_archive(head: bytes, data: IO[bytes]) -> IO[bytes]:
    """Copy an archive to a file that deletes itself, and check it before anything is unpacked.

    Refused are absolute names, ``..``, links that leave the root, hard links, devices, pipes and duplicate names (the
    SDK's own validator).

    Args:
        head: The bytes of the archive that were read already.
        data: The rest of it.

    Returns:
        The copy at its start. The caller closes it.

    Raises:
        UnsafeTarMemberError: A member is refused.
        tarfile.TarError: It is not a tar archive.
        TypeError: The stream gives something other than bytes.
    """
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        spool.write(head)
        while chunk := data.read(1024 * 1024):
            spool.write(chunk)
        spool.seek(0)
        # Uncompressed only: the guest's tar is not asked to guess, and a bomb cannot grow on the way.
        with tarfile.open(fileobj=spool, mode="r:") as tar:
            validate_tarfile(tar, allow_external_symlink_targets=False)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool
