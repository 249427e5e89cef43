"""A directory tree of the host as a tar archive and as one digest, and back, without ever leaving the tree.

The digest covers names, kinds, permission bits, contents and link targets; not owners and times. The same digest is
computed of a tree on disk and of an archive, so that it tells whether either side changed.

What a tree may hold is narrow on purpose: directories, plain files, and symbolic links that stay inside. A link may go
up only at its start and not above the tree, so that no chain of links can lead out: every hop begins in a directory
inside and ends in one.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import os
import posixpath
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from cedarbox.errors import HostError

__all__ = ["MAX_BYTES", "MAX_ENTRIES", "archived", "archive_digest", "exchange", "tree_digest", "unpacked"]

MAX_BYTES: Final = 1024 * 1024 * 1024
"""Bytes of all files of a tree together; the same bound holds for its archive."""

MAX_ENTRIES: Final = 100_000
"""Entries of a tree."""

_PIECE: Final = 1024 * 1024
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2  # renameat2(2)
_RENAME_SWAP: Final = 2  # renamex_np(2), macOS


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str  # relative, with slashes; "" is the tree itself
    status: os.stat_result
    link: str = ""
    directory: int = -1  # a handle of the directory that it is in

    @property
    def leaf(self) -> str:
        return self.name.rpartition("/")[2]


class _Digest:
    """Takes entries in any order; the same set gives the same digest."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []

    def add(self, name: str, kind: str, mode: int, content: str) -> None:
        encoded = name.encode("utf-8", "surrogateescape")
        self._lines.append(b"%d:%s:%s:%o:%s" % (len(encoded), encoded, kind.encode(), mode, content.encode()))

    def value(self) -> str:
        whole = hashlib.sha256()
        for line in sorted(self._lines):
            whole.update(hashlib.sha256(line).digest())
        return whole.hexdigest()


def archived(root: Path) -> tuple[IO[bytes], str]:
    """Pack a tree of the host.

    Args:
        root: The directory, a real path.

    Returns:
        The archive, a file that deletes itself, at its start; and the digest. The caller closes the file.

    Raises:
        HostError: The tree holds what cannot be carried, is too large, changed meanwhile, or cannot be read.
    """
    spool: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        digest = _packed(root, spool)
        spool.seek(0)
    except BaseException:
        spool.close()
        raise
    return spool, digest


def tree_digest(root: Path) -> str:
    """Return the digest of a tree of the host.

    Raises:
        HostError: As for :func:`archived`.
    """
    return _packed(root, None)


def _packed(root: Path, spool: IO[bytes] | None) -> str:
    digest, total, count = _Digest(), 0, 0
    tar = None if spool is None else tarfile.open(fileobj=spool, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
    try:
        for entry in _walked(root):
            count += 1
            if count > MAX_ENTRIES:
                raise HostError(f"{root} has more than {MAX_ENTRIES} entries", hint="mount it read-only")
            mode, member = stat.S_IMODE(entry.status.st_mode) & 0o777, tarfile.TarInfo(entry.name or ".")
            member.mode, member.mtime = mode, int(entry.status.st_mtime)
            member.uid, member.gid = entry.status.st_uid, entry.status.st_gid
            if stat.S_ISDIR(entry.status.st_mode):
                member.type = tarfile.DIRTYPE
                digest.add(entry.name, "directory", mode, "")
                _add(tar, member)
            elif stat.S_ISLNK(entry.status.st_mode):
                _check_link(entry.name, entry.link, f"{root}")
                member.type, member.linkname = tarfile.SYMTYPE, entry.link
                digest.add(entry.name, "link", 0, entry.link)
                _add(tar, member)
            elif stat.S_ISREG(entry.status.st_mode):
                total += entry.status.st_size
                if total > MAX_BYTES:
                    raise HostError(f"{root} holds more than {MAX_BYTES} bytes", hint="mount it read-only")
                member.size = entry.status.st_size
                digest.add(entry.name, "file", mode, _file(entry, root, tar, member))
            else:
                raise HostError(f"{root}/{entry.name} is no file, directory or link", hint="mount it read-only")
        if tar is not None:
            tar.close()
    except OSError as error:
        raise HostError(f"{root} cannot be read: {error.strerror} ({error.filename})", hint="check its modes") from None
    return digest.value()


def _walked(root: Path) -> Iterator[_Entry]:
    top = root.lstat()
    if not stat.S_ISDIR(top.st_mode):
        raise HostError(f"{root} is not a directory", hint="put it back")
    yield _Entry("", top)
    for place, directories, files, handle in os.fwalk(root, follow_symlinks=False, onerror=_raised):
        directories.sort()
        below = os.path.relpath(place, root)
        for leaf in sorted((*directories, *files)):
            name = leaf if below == "." else f"{below}/{leaf}"
            status = os.stat(leaf, dir_fd=handle, follow_symlinks=False)
            link = os.readlink(leaf, dir_fd=handle) if stat.S_ISLNK(status.st_mode) else ""
            yield _Entry(name, status, link, handle)


def _raised(error: OSError) -> None:
    raise error


def _add(tar: tarfile.TarFile | None, member: tarfile.TarInfo) -> None:
    if tar is not None:
        tar.addfile(member)


def _file(entry: _Entry, root: Path, tar: tarfile.TarFile | None, member: tarfile.TarInfo) -> str:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    handle = os.open(entry.leaf, flags, dir_fd=entry.directory)
    with os.fdopen(handle, "rb") as stream:
        status = os.fstat(handle)
        if (status.st_dev, status.st_ino) != (entry.status.st_dev, entry.status.st_ino):
            raise HostError(f"{root}/{entry.name} changed while it was read", hint="try again when nobody writes there")
        reader = _Hashing(stream, entry.status.st_size)
        if tar is not None:
            try:
                tar.addfile(member, reader)
            except OSError:
                reader.taken = -1
        else:
            while reader.read(_PIECE):
                pass
        if reader.taken != entry.status.st_size or stream.read(1):
            raise HostError(f"{root}/{entry.name} changed while it was read", hint="try again when nobody writes there")
    return reader.hash.hexdigest()


class _Hashing:
    """Reads at most ``size`` bytes of a stream and hashes what passes."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size
        self.hash, self.taken = hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        self.taken += len(piece)
        self.hash.update(piece)
        return piece


def archive_digest(archive: IO[bytes]) -> str:
    """Check an archive that a guest packed, and return the digest of the tree that it holds.

    Args:
        archive: An uncompressed tar archive; it is left at its start.

    Raises:
        HostError: It holds what a tree may not hold: absolute names, ``..``, links that leave it, hard links, devices,
            pipes, a name twice, something below what is not a directory, or too much.
    """
    digest = _Digest()
    for name, member, tar in _members(archive):
        content = member.linkname if member.issym() else ""
        if member.isreg():
            content = _hashed(tar.extractfile(member), member.size, name)
        kind = "directory" if member.isdir() else "link" if member.issym() else "file"
        digest.add(name, kind, 0 if member.issym() else member.mode & 0o777, content)
    return digest.value()


def _hashed(stream: IO[bytes] | None, size: int, name: str) -> str:
    reader = _Hashing(stream if stream is not None else io.BytesIO(), size)
    try:
        while reader.read(_PIECE):
            pass
    except tarfile.TarError:
        reader.taken = -1
    if reader.taken != size:
        raise HostError(f"the archive ends within the member {name!r}")
    return reader.hash.hexdigest()


def _members(archive: IO[bytes]) -> Iterator[tuple[str, tarfile.TarInfo, tarfile.TarFile]]:
    archive.seek(0)
    seen: dict[str, bool] = {}
    total = 0
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:
            for member in tar:
                name = _member_name(member.name)
                if name in seen or len(seen) >= MAX_ENTRIES:
                    raise HostError(f"the member {name!r} comes twice, or there are more than {MAX_ENTRIES} members")
                if not (member.isdir() or member.isreg() or member.issym()) or member.sparse is not None:
                    raise HostError(f"the member {name!r} is no file, directory or link")
                if not name and not member.isdir():
                    raise HostError("the archive is not one of a directory")
                if name and not seen.get(posixpath.dirname(name), False):
                    raise HostError(f"the member {name!r} is not below a directory of the archive")
                if member.issym():
                    _check_link(name, member.linkname, "the archive")
                total += member.size
                if total > MAX_BYTES:
                    raise HostError(f"the archive holds more than {MAX_BYTES} bytes")
                seen[name] = member.isdir()
                yield name, member, tar
    except (tarfile.TarError, UnicodeError, ValueError) as error:
        raise HostError(f"the archive cannot be read: {error}") from None
    finally:
        archive.seek(0)
    if not seen:
        raise HostError("the archive is empty")


def _member_name(raw: str) -> str:
    parts = raw.removesuffix("/").split("/")
    parts = parts[1:] if parts[0] == "." else parts
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise HostError(f"the member {raw!r} has no plain name")
    return "/".join(parts)


def _check_link(name: str, target: str, where: str) -> None:
    depth, parts = name.count("/"), target.split("/")
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    inside = bool(target) and not target.startswith("/") and up <= depth
    if not inside or any(part in ("", ".", "..") for part in parts[up:] if len(parts) > 1) or "\0" in target:
        raise HostError(f"the link {name!r} of {where} points to {target!r}, which may be outside of it")


def unpacked(archive: IO[bytes], into: Path) -> None:
    """Unpack a checked archive into a new directory and put it on the disk.

    Nothing is followed: the directory is new, of this user alone, and every member is made in place. Set-uid bits are
    not kept.

    Args:
        archive: An archive that :func:`archive_digest` took.
        into: The directory to make.

    Raises:
        HostError: A member is refused, or the disk is full.
    """
    modes: list[tuple[Path, int, float]] = []
    try:
        into.mkdir(mode=0o700)
        for name, member, tar in _members(archive):
            target = into / name
            if member.isdir():
                if name:
                    target.mkdir(mode=0o700)
                modes.append((target, member.mode & 0o777, member.mtime))
            elif member.issym():
                target.symlink_to(member.linkname)
            else:
                _write(target, tar.extractfile(member), member)
        # Deepest first: a directory that its owner may not write can still be filled until then.
        for directory, mode, mtime in reversed(modes):
            _sync(directory)
            os.utime(directory, (mtime, mtime))
            directory.chmod(mode)
        _sync(into.parent)
    except (OSError, tarfile.TarError) as error:
        said = error.strerror if isinstance(error, OSError) else str(error)
        raise HostError(f"{into} cannot be written: {said}", hint="make room, or check its modes") from None


def _write(target: Path, stream: IO[bytes] | None, member: tarfile.TarInfo) -> None:
    if stream is None:
        raise HostError(f"the member {member.name!r} has no content")
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as out:
        while piece := stream.read(_PIECE):
            out.write(piece)
        out.flush()
        os.fchmod(handle, member.mode & 0o777)
        os.utime(handle, (member.mtime, member.mtime))
        os.fsync(handle)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> None:
    """Let two paths of one file system change places, in one step.

    Raises:
        HostError: The system or the file system cannot.
    """
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    if hasattr(library, "renameat2"):
        done = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, _RENAME_EXCHANGE)
    elif hasattr(library, "renamex_np"):
        done = library.renamex_np(first, second, _RENAME_SWAP)
    else:
        done = -1
        ctypes.set_errno(errno.ENOSYS)
    if done != 0:
        raise HostError(f"{one} cannot be replaced in one step: {os.strerror(ctypes.get_errno())}")
    _sync(one.parent)
