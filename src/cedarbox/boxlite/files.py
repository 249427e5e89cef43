"""Files between host and guest.

Reading and writing go through commands in the guest: these reach every path, ``/tmp`` and ``/etc/hosts`` among them,
follow links as the guest does, and run with the rights of the user they are for. BoxLite's own ``copy_out`` carries
large files of root, because it is faster; it reaches no mounts (measured on BoxLite 0.10.8), and then the command
does it. ``copy_in`` is not used: it replaces symbolic links and ignores the owner of what it overwrites.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import IO, Final, cast

from cedarbox.boxlite import api

__all__ = [
    "APPEND",
    "COPY_ABOVE",
    "EXISTS",
    "NOT_A_FILE",
    "PART_BYTES",
    "READ",
    "SHORT",
    "TOO_LARGE",
    "WRITE",
    "WRITE_FIRST",
    "WRITE_LAST",
    "WRITE_NEXT",
    "WRITE_UNDONE",
    "copied_out",
    "measured",
    "part_of",
]

COPY_ABOVE: Final = 256 * 1024
"""Bytes above which a file of root is copied out by BoxLite instead of read by a command."""

PART_BYTES: Final = 8 * 1024 * 1024
"""Bytes that one command gets on its standard input. BoxLite takes all input at once, however slowly the guest reads,
and keeps what it has not read yet in the memory of this process (measured on BoxLite 0.10.8)."""

EXISTS: Final = 17
NOT_A_FILE: Final = 45
SHORT: Final = 46
TOO_LARGE: Final = 43
_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export PATH"

READ: Final = f"""{_PATH}
[ ! -e "$1" ] || [ -f "$1" ] || exit {NOT_A_FILE}
if [ "$2" != 0 ] && [ -r "$1" ] && [ "$(wc -c <"$1")" -gt "$2" ]; then readlink -f -- "$1" && exit {TOO_LARGE}; fi
exec cat -- "$1"
"""
"""Prints the file $1, or its real path and code TOO_LARGE when it has more than $2 bytes; $2 = 0 always prints."""

# Every script of a write has the same arguments: $1 the target, $2 its size, $3 = 1 when it must not exist, $4 a random
# word. The content is put beside the target, or in /tmp where the user may make no files, and renamed when it is whole.
# It may be cut off anywhere: the file beside is the first to come and the last to go, so it tells what is left.
_DROP: Final = """drop() { [ "$new" != 1 ] || rm -f -- "$t"; rm -f -- "$tmp"; exit "$1"; }"""
_BEGIN: Final = f"""{_PATH}
t=$1 size=$2 new=$3
d=$(dirname -- "$t"); mkdir -p -- "$d" || exit 1
if [ "$new" = 1 ]; then if [ -e "$t" ] || [ -L "$t" ]; then exit {EXISTS}; fi; fi
[ ! -d "$t" ] || exit {NOT_A_FILE}
[ ! -e "$t" ] || [ -f "$t" ] || exit {NOT_A_FILE}
if [ -L "$t" ]; then t=$(readlink -f -- "$t") && [ -n "$t" ] || exit 1; d=$(dirname -- "$t"); fi
w=$d; [ -w "$d" ] || w=/tmp
tmp=$w/.cedarbox.$4
(umask 077; set -C; : >"$tmp") || exit 1
if [ "$new" = 1 ] && ! (set -C; : >"$t") 2>/dev/null; then
  rm -f -- "$tmp"; [ -e "$t" ] || [ -L "$t" ] && exit {EXISTS}; exit 1
fi
{_DROP}
trap 'drop 1' HUP INT TERM
cat >"$tmp" || drop 1
"""
_FIND: Final = f"""{_PATH}
t=$1 size=$2 new=$3
[ ! -L "$t" ] || t=$(readlink -f -- "$t"); d=$(dirname -- "$t")
w=$d; [ -f "$w/.cedarbox.$4" ] || w=/tmp
tmp=$w/.cedarbox.$4
{_DROP}
"""
_END: Final = f"""
[ "$(wc -c <"$tmp")" -eq "$size" ] || drop {SHORT}
if [ "$w" != "$d" ]; then cat <"$tmp" >"$t" || drop 1; rm -f -- "$tmp"; exit 0; fi
if [ -e "$t" ]; then
  [ -w "$t" ] || drop 1
  chmod "$(stat -c %a -- "$t")" "$tmp" || drop 1
  [ "$(id -u)" != 0 ] || chown "$(stat -c %u:%g -- "$t")" "$tmp" || drop 1
else chmod "$(printf %o $((0666 & ~$(umask))))" "$tmp" || drop 1; fi
mv -f -- "$tmp" "$t" || drop 1
"""

WRITE: Final = _BEGIN + _END
"""Writes standard input to $1 at once."""

WRITE_FIRST: Final = _BEGIN
"""Begins to write what comes in parts; the first is standard input."""

WRITE_NEXT: Final = f"""{_FIND}[ -f "$tmp" ] && cat >>"$tmp" || exit 1
"""
"""Adds the next part."""

WRITE_LAST: Final = _FIND + _END
"""Puts what came in parts in its place."""

WRITE_UNDONE: Final = f"""{_FIND}[ -f "$tmp" ] || exit 0
rm -f -- "$tmp"; [ "$new" != 1 ] || [ -s "$t" ] || rm -f -- "$t"
"""
"""Removes what a write that was cut off has left."""

APPEND: Final = f"""{_PATH}
umask 077; mkdir -p -- "$(dirname -- "$1")" && exec cat >>"$1"
"""
"""Appends standard input to the file $1."""


def measured(stream: IO[bytes]) -> tuple[int, IO[bytes]]:
    """Copy a payload to a file that deletes itself, so that its size is known and it cannot change.

    Args:
        stream: The payload, read in pieces of 1 MiB from where it stands.

    Returns:
        Its size in bytes, and the copy at its start. The caller closes it.
    """
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        shutil.copyfileobj(stream, spool, 1024 * 1024)
        size = spool.tell()
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return size, spool


class _Part(io.BufferedIOBase):
    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        piece = self._stream.read(wanted)
        self._left -= len(piece)
        return piece


def part_of(stream: IO[bytes], size: int) -> IO[bytes]:
    """Return a stream that ends after some bytes of another one.

    Args:
        stream: The other one; it stands behind the part when that was read.
        size: Bytes of the part.
    """
    return cast("IO[bytes]", _Part(stream, size))


async def copied_out(box: api.Box, guest_path: str) -> IO[bytes]:
    """Copy a file of the guest to a private file of the host that deletes itself.

    Args:
        box: The box.
        guest_path: The real path of a plain file, outside every mount of the guest.

    Returns:
        The file, open for reading at its start. The caller closes it.

    Raises:
        BoxliteError: BoxLite cannot copy it.
        OSError: What arrived is not a plain file.
    """
    directory = Path(tempfile.mkdtemp(prefix="cedarbox-"))  # mode 0700
    try:
        await box.copy_out(guest_path, str(directory / "file"))
        handle = os.open(directory / "file", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError("the guest's file is not a plain file")
        return os.fdopen(handle, "rb")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
