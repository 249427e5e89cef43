"""Records as they come: what ``tail -f`` is to a log, for all streams of a ledger, their new segments and its index."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cedarbox.audit.browse import record_files
from cedarbox.audit.query import Query
from cedarbox.audit.record import MAX_LINE_BYTES, Record
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["follow", "follow_streams"]

_CHUNK: Final = 1024 * 1024
_EVERYTHING: Final = Query()


def follow(
    directory: Path, *, every_s: float = 0.2, past: bool = False, going_on: Callable[[], bool] = lambda: True
) -> Iterator[Record]:
    """Yield the records of a ledger as they are written.

    Nothing is verified but the form and the hash of each line: ``verify_ledger`` does that.

    Args:
        directory: Directory of the ledger; its streams may come later, even the first; the directory may not.
        every_s: Seconds between two looks.
        past: Begin with what is there already instead of with what comes.
        going_on: Asked between two looks; ends when it says False.

    Raises:
        LedgerError: There is no such directory, it holds something other than a ledger, or a line is no record.
    """
    for _, record in follow_streams(directory, every_s=every_s, past=past, going_on=going_on):
        yield record


def follow_streams(
    directory: Path,
    query: Query = _EVERYTHING,
    *,
    every_s: float = 0.2,
    past: bool = False,
    last: int = 0,
    going_on: Callable[[], bool] = lambda: True,
    unreadable: Callable[[LedgerError], None] | None = None,
) -> Iterator[tuple[str, Record]]:
    """Yield the records that are wanted as they are written, with their streams; those of one look in order of time.

    Args:
        directory: As in :func:`follow`.
        query: What is wanted.
        every_s: As in :func:`follow`.
        past: As in :func:`follow`.
        last: Begin with the last so many that are there already.
        going_on: As in :func:`follow`.
        unreadable: Told each line that is no record, which is left out; None raises.

    Raises:
        LedgerError: There is no such directory, it holds something other than a ledger, or a line is no record.
    """

    def refuse(error: LedgerError) -> None:
        raise error

    told = unreadable or refuse
    places: dict[Path, int] = {}
    if last:
        yield from deque(_look(directory, query, places, told), maxlen=last)
    elif not past:
        places |= {path: _size(path) for paths in record_files(directory, yet=False).values() for path in paths}
    while going_on():
        yield from _look(directory, query, places, told)
        time.sleep(every_s)


def _look(
    directory: Path, query: Query, places: dict[Path, int], unreadable: Callable[[LedgerError], None]
) -> Iterator[tuple[str, Record]]:
    looks = [
        _records(stream, path, places, unreadable)
        for stream, paths in record_files(directory, yet=False).items()
        if query.of_stream(stream)
        for path in paths
    ]
    for _, stream, _, record in heapq.merge(*looks, key=lambda item: item[:3]):
        if query.fits(record):
            yield stream, record


def _records(
    stream: str, path: Path, places: dict[Path, int], unreadable: Callable[[LedgerError], None]
) -> Iterator[tuple[str, str, int, Record]]:
    try:
        for line in _lines(path, places):
            try:
                record = Record.from_line(line)
            except LedgerError as error:
                unreadable(LedgerError(f"{path}: {error.message}", hint="run: cedarbox audit verify"))
            else:
                yield record.time, stream, record.seq, record
    except OSError as error:
        unreadable(LedgerError(f"{path}: it cannot be read: {error.strerror}", hint="run: cedarbox audit verify"))


def _size(path: Path) -> int:
    # From the beginning of a line that is being written.
    try:
        with open_regular(path) as file:
            data, size = b"", file.seek(0, 2)
            begin = size
            while begin and b"\n" not in data:
                begin = max(0, begin - _CHUNK)
                file.seek(begin)
                data = file.read(size - begin)
            return begin + data.rfind(b"\n") + 1
    except OSError:
        # Told when it is to be read.
        return 0


def _lines(path: Path, places: dict[Path, int]) -> Iterator[bytes]:
    rest = b""
    with open_regular(path) as file:
        file.seek(places.get(path, 0))
        while chunk := file.read(_CHUNK):
            rest += chunk
            *whole, rest = rest.split(b"\n")
            for line in whole:
                places[path] = places.get(path, 0) + len(line) + 1
                yield line + b"\n"
            if len(rest) > MAX_LINE_BYTES:
                raise OSError(0, "a line is too long")
