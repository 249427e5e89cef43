"""Reading records: for programs, which stop at the first that is none, and for people, who are told what is left out.

Records come in the order of their times, from all streams and from the index of the ledger, one at a time: a ledger of
any size takes the memory of a record for each stream. Nothing is verified but the form and the hash of each line.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from cedarbox.audit.files import INDEX, check_ledger, index_path, stream_files, stream_of
from cedarbox.audit.query import Query
from cedarbox.audit.record import MAX_LINE_BYTES, Record
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["browse", "read_records", "record_files"]

_CHUNK: Final = 64 * 1024
_NAMED: Final = 5


def record_files(directory: Path, *, yet: bool = True) -> dict[str, list[Path]]:
    """Return the files with records by stream, each stream's in the order in which they were written.

    Args:
        directory: The ledger.
        yet: As in `cedarbox.audit.files.check_ledger`.

    Raises:
        LedgerError: There is no ledger.
    """
    check_ledger(directory, yet=yet)
    found = {stream: list(paths) for stream, paths in groupby(stream_files(directory), key=stream_of)}
    index = index_path(directory)
    return found | ({INDEX: [index]} if index.exists() else {})


def browse(directory: Path, query: Query, *, unreadable: Callable[[LedgerError], None]) -> Iterator[tuple[str, Record]]:
    """Yield the records that are wanted, in the order of their times.

    Args:
        directory: The ledger; it may be in use meanwhile.
        query: What is wanted.
        unreadable: Told each line, or file, that cannot be read; it is left out. A last line without an end, which may
            be being written, is left out without a word.

    Raises:
        LedgerError: There is no ledger, or no stream of it is wanted.
    """
    files = record_files(directory)
    wanted = {stream: paths for stream, paths in files.items() if query.of_stream(stream)}
    if query.stream is not None and not wanted:
        # Of many, the newest are the likely ones.
        known = ", ".join([*(["…"] if len(files) > _NAMED else []), *list(files)[-_NAMED:]])
        raise LedgerError(f"{directory}: there is no stream {query.stream}", hint=f"there are {known or 'none'}")
    yield from _merged(wanted, query, unreadable)


def read_records(directory: Path | str, *, index: bool = False) -> Iterator[tuple[str, Record]]:
    """Read the records of all streams in the order of their times.

    Args:
        directory: The ledger.
        index: Read the index too, as the stream ``index``.

    Yields:
        The stream and the record. A last line that is still being written is left out.

    Raises:
        LedgerError: There is no ledger, a file cannot be read, or a line is no record.
    """
    files = record_files(Path(directory), yet=False)
    if not index:
        files.pop(INDEX, None)
    yield from _merged(files, Query(), _refuse)


def _refuse(error: LedgerError) -> None:
    raise error


def _merged(
    files: Mapping[str, Sequence[Path]], query: Query, unreadable: Callable[[LedgerError], None]
) -> Iterator[tuple[str, Record]]:
    streams = [_wanted(stream, paths, query, unreadable) for stream, paths in files.items()]
    # Two records of one time come in the order of their streams' names.
    for _, stream, _, record in heapq.merge(*streams, key=lambda item: item[:3]):
        yield stream, record


def _wanted(
    stream: str, paths: Sequence[Path], query: Query, unreadable: Callable[[LedgerError], None]
) -> Iterator[tuple[str, str, int, Record]]:
    for path in paths:
        for number, line in enumerate(_lines(path, unreadable), 1):
            try:
                record = Record.from_line(line)
            except LedgerError as error:
                unreadable(LedgerError(f"{path}:{number}: {error.message}", hint="run: cedarbox audit verify"))
                continue
            if query.fits(record):
                yield record.time, stream, record.seq, record


def _lines(path: Path, unreadable: Callable[[LedgerError], None]) -> Iterator[bytes]:
    """Give whole lines and keep no file open between reads: there may be more streams than file descriptors."""
    offset, rest = 0, b""
    while True:
        try:
            with open_regular(path) as file:
                file.seek(offset)
                chunk = file.read(_CHUNK)
        except OSError as error:
            unreadable(LedgerError(f"{path}: it cannot be read: {error.strerror}", hint="check its mode"))
            return
        if not chunk:
            return
        offset += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if len(rest) > MAX_LINE_BYTES:
            unreadable(LedgerError(f"{path}: a line is too long to be a record", hint="run: cedarbox audit verify"))
            return
