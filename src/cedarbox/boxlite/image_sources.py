"""Where an image is imported from: a directory or a tar, neither of which is trusted.

Nothing is unpacked to a name that an archive chose. A tar is indexed, and members are read by name; what is neither a
plain file nor a directory is refused, but for the symbolic links by which old ``docker save`` names one layer twice:
they are followed inside the archive only.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol, cast

import zstandard

from cedarbox.errors import ImageError

__all__ = ["CHUNK", "DAMAGED", "Source", "opened_source", "packing", "unpacked"]

CHUNK: Final = 1024 * 1024
"""Bytes that are read at once."""

DAMAGED: Final = (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError)
"""What the readers of the standard library and of zstandard raise for damaged input."""

_MAGIC: Final = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}
_BLOCK: Final = 512
_MAX_MEMBERS: Final = 100_000
_MAX_HEADER: Final = 1024 * 1024
_EXTENDED: Final = frozenset((tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK))
_HINT: Final = "give the directory or tar of an OCI layout, or what docker save wrote"


class Source(Protocol):
    """Files by name."""

    def open(self, name: str) -> BinaryIO | None:
        """Open a file for reading; ``None`` when there is none of that name.

        Raises:
            ImageError: It is not a plain file inside the source.
        """
        ...


def packing(start: bytes) -> str | None:
    """Return how data is compressed, from its first bytes: gzip, zstd, xz, bzip2, or ``None``."""
    return next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)


@contextmanager
def unpacked(stream: IO[bytes], kind: str | None) -> Iterator[IO[bytes]]:
    """Read a stream without its compression.

    Args:
        stream: The stream; the caller closes it.
        kind: What :func:`packing` said.
    """
    if kind is None:
        yield stream
    elif kind == "zstd":
        # The window is bounded, because it is memory: 128 MiB is what the zstd program itself takes.
        reader = zstandard.ZstdDecompressor(max_window_size=128 * 1024 * 1024)
        with reader.stream_reader(stream, read_across_frames=True, closefd=False) as unpacking:
            yield cast("IO[bytes]", unpacking)
    elif kind == "gzip":
        with gzip.GzipFile(fileobj=stream) as ungzipping:
            yield cast("IO[bytes]", ungzipping)
    elif kind == "xz":
        with lzma.LZMAFile(stream) as plain:
            yield plain
    else:
        with bz2.BZ2File(stream) as plain:
            yield plain


@contextmanager
def opened_source(path: Path, *, scratch: Path, limit: int) -> Iterator[Source]:
    """Open what an image is imported from.

    Args:
        path: A directory or a tar, which may be compressed.
        scratch: A directory for what a compressed tar is unpacked to.
        limit: The most bytes that a compressed tar may unpack to.

    Yields:
        The source.

    Raises:
        ImageError: It cannot be read, or holds what no image has.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            yield _Directory(path)
            return
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is neither a directory nor a file", hint=_HINT)
        stream = path.open("rb")
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}", hint=_HINT) from None
    with ExitStack() as stack:
        plain: BinaryIO = stack.enter_context(stream)
        kind = packing(plain.read(8))
        plain.seek(0)
        if kind is not None:
            plain = stack.enter_context(_spooled(path, plain, kind, scratch, limit))
        yield _Archive(path, plain)


@contextmanager
def _spooled(path: Path, stream: BinaryIO, kind: str, scratch: Path, limit: int) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(dir=scratch) as spool:
        size = 0
        try:
            with unpacked(stream, kind) as plain:
                while chunk := plain.read(CHUNK):
                    size += len(chunk)
                    if size > limit:
                        raise ImageError(f"{path} unpacks to more than {limit} bytes", hint="raise --max-size")
                    spool.write(chunk)
        except DAMAGED as error:
            raise ImageError(f"{path}: the {kind} data is damaged ({error})", hint="copy the file again") from None
        spool.seek(0)
        yield cast("BinaryIO", spool)


class _Directory:
    """The files of a directory, reached without following a symbolic link."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> BinaryIO | None:
        parts = name.split("/")
        if not all(parts) or ".." in parts or "." in parts:
            raise ImageError(f"{self._root}: the name {name!r} leads out of it", hint=_HINT)
        handle = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number, part in enumerate(parts, 1):
                directory = os.O_DIRECTORY if number < len(parts) else 0
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | directory
                following = os.open(part, flags, dir_fd=handle)
                os.close(handle)
                handle = following
        except FileNotFoundError:
            os.close(handle)
            return None
        except OSError as error:
            os.close(handle)
            raise ImageError(f"{self._root}: {name} cannot be read ({error.strerror})", hint=_HINT) from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ImageError(f"{self._root}: {name} is not a plain file", hint=_HINT)
        return os.fdopen(handle, "rb")


class _Archive:
    """The members of a tar that is not compressed."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path = path
        size = stream.seek(0, os.SEEK_END)
        self._files: dict[str, tarfile.TarInfo] = {}
        self._links: dict[str, str] = {}
        try:
            _check_headers(path, stream, size)
            stream.seek(0)
            self._tar = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - it owns nothing but the stream
            seen: set[str] = set()
            for member in self._tar:
                name = self._name(member.name)
                if name in seen and not member.isdir():
                    raise ImageError(f"{path}: the name {name!r} is in it twice", hint=_HINT)
                seen.add(name)
                self._take(member, name, size)
        except DAMAGED as error:
            raise ImageError(f"{path} is not a tar that can be read ({error})", hint=_HINT) from None

    def open(self, name: str) -> BinaryIO | None:
        member = self._files.get(self._links.get(name, name))
        if member is None:
            return None
        return cast("BinaryIO", self._tar.extractfile(member))

    def _name(self, name: str) -> str:
        plain = posixpath.normpath(name)
        if not name or name.startswith("/") or ".." in name.split("/") or "\0" in name or "\\" in name:
            raise ImageError(f"{self._path}: the name {name!r} leads out of it", hint=_HINT)
        return plain

    def _take(self, member: tarfile.TarInfo, name: str, size: int) -> None:
        if member.isdir():
            return
        if member.issym():
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif not member.isreg() or member.issparse():
            raise ImageError(f"{self._path}: {name!r} is a link, a device or a sparse file", hint=_HINT)
        elif member.offset_data + member.size > size:
            raise ImageError(f"{self._path} ends in the middle of {name!r}", hint="copy the file again")
        else:
            self._files[name] = member


def _check_headers(path: Path, stream: BinaryIO, size: int) -> None:
    """Bound what :mod:`tarfile` would read into memory: the number of members, and extended headers."""
    offset = count = 0
    stream.seek(0)
    while len(block := stream.read(_BLOCK)) == _BLOCK and block.strip(b"\0"):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        count += 1
        if count > _MAX_MEMBERS:
            raise ImageError(f"{path} has more than {_MAX_MEMBERS} members", hint=_HINT)
        if header.type in _EXTENDED and header.size > _MAX_HEADER:
            raise ImageError(f"{path}: a header of {header.size} bytes is not read", hint=_HINT)
        if header.size < 0:
            raise ImageError(f"{path}: a member has a negative size", hint=_HINT)
        offset += _BLOCK + -(-header.size // _BLOCK) * _BLOCK
        if offset > size:
            raise ImageError(f"{path} ends in the middle of {header.name!r}", hint="copy the file again")
        stream.seek(offset)
    if not count:
        raise ImageError(f"{path} is not a tar, or an empty one", hint=_HINT)
