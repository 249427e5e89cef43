"""The lines of one stream over all its segments, while its writer may be adding to it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cedarbox.audit.record import MAX_LINE_BYTES
from cedarbox.files import open_regular

__all__ = ["Piece", "pieces", "whole_lines"]

_CHUNK: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Some lines of a segment.

    Args:
        segment: Number of the segment; 0 for the index, which has one file only.
        data: Whole lines with their line feeds.
        rest: Bytes after the last line feed of the segment; only in its last piece.
        last: Whether this is all that the segment has.
    """

    segment: int
    data: bytes
    rest: bytes = b""
    last: bool = False

    def lines(self) -> list[bytes]:
        """Give the lines without their line feeds."""
        return self.data.split(b"\n")[:-1]


def pieces(paths: Callable[[int], Path | None], seen: Callable[[int], object] | None = None) -> Iterator[Piece]:
    """Read the segments of a stream one after the other.

    Args:
        paths: Gives the file of a segment; None when there can be no such segment.
        seen: Told how many bytes were read.

    Yields:
        Pieces of about a quarter of a megabyte. Of a line that is too long for a record, a part comes as ``rest``.
        The segment after the last one is looked for only once the end of the last one was seen, and then the last one
        is read again: a writer fills a segment before it makes the next.

    Raises:
        OSError: A file cannot be read, or the first one is missing.
    """
    number = 0
    path = paths(0)
    file = None if path is None else open_regular(path)
    while file is not None:
        with file:
            rest = yield from _read(file, number, b"", seen)
            path = paths(number + 1)
            following = None
            if path is not None:
                try:
                    following = open_regular(path)
                except FileNotFoundError:
                    following = None
            if following is not None and len(rest) <= MAX_LINE_BYTES:
                rest = yield from _read(file, number, rest, seen)
            yield Piece(number, b"", rest, last=True)
        number, file = number + 1, following


def whole_lines(paths: Callable[[int], Path | None]) -> Iterator[bytes]:
    """Give the lines of a stream, each with its line feed. What cannot be read ends them."""
    try:
        for piece in pieces(paths):
            yield from (line + b"\n" for line in piece.lines())
            if piece.last and len(piece.rest) > MAX_LINE_BYTES:
                return
    except OSError:
        return


def _read(
    file: BinaryIO, number: int, rest: bytes, seen: Callable[[int], object] | None
) -> Generator[Piece, None, bytes]:
    while chunk := file.read(_CHUNK):
        if seen is not None:
            seen(len(chunk))
        end = chunk.rfind(b"\n") + 1
        if end:
            yield Piece(number, rest + chunk[:end])
            rest = chunk[end:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            break
    return rest
