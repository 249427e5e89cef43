"""Reading the records of a ledger in the order of their times. Nothing is verified but the form and hash of each."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from cedarbox.audit.files import index_path, stream_files, stream_of
from cedarbox.audit.record import MAX_LINE_BYTES, Record
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["read_records"]

_CHUNK: Final = 64 * 1024


def read_records(directory: Path | str, *, index: bool = False) -> Iterator[tuple[str, Record]]:
    """Read the records of all streams in the order of their times.

    Args:
        directory: The ledger.
        index: Read the index too, as the stream ``index``.

    Yields:
        The stream and the record. A last line that is still being written is left out.

    Raises:
        LedgerError: A file cannot be read, or a line is no record.
    """
    place = Path(directory)
    files = stream_files(place)
    if index and index_path(place).exists():
        files.insert(0, index_path(place))
    streams = [_records(list(segments)) for _, segments in groupby(files, stream_of)]
    for _, stream, _, record in heapq.merge(*streams, key=lambda item: item[:3]):
        yield stream, record


def _records(segments: Sequence[Path]) -> Iterator[tuple[str, str, int, Record]]:
    for path in segments:
        for number, line in enumerate(_lines(path), 1):
            try:
                record = Record.from_line(line)
            except LedgerError as error:
                raise LedgerError(f"{path}:{number}: {error.message}", hint="run `cedarbox audit verify`") from error
            yield record.time, stream_of(path), record.seq, record


def _lines(path: Path) -> Iterator[bytes]:
    """Give whole lines and keep no file open between reads: there may be more streams than file descriptors."""
    offset, rest = 0, b""
    while True:
        try:
            with open_regular(path) as file:
                file.seek(offset)
                chunk = file.read(_CHUNK)
        except OSError as error:
            raise LedgerError(f"{path}: the stream cannot be read: {error.strerror}") from error
        if not chunk:
            return
        offset += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > MAX_LINE_BYTES:
            raise LedgerError(f"{path}: a line is too long to be a record")
