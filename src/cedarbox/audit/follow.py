"""Records as they come: what ``tail -f`` is to a log, for all streams of a ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cedarbox.audit.files import stream_files
from cedarbox.audit.record import MAX_LINE_BYTES, Record
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["follow"]

_CHUNK: Final = 1024 * 1024


def follow(
    directory: Path, *, every_s: float = 0.2, past: bool = False, going_on: Callable[[], bool] = lambda: True
) -> Iterator[Record]:
    """Yield the records of a ledger as they are written.

    Nothing is verified but the form and the hash of each line: ``verify_ledger`` does that.

    Args:
        directory: Directory of the ledger; its streams may come later, the directory may not.
        every_s: Seconds between two looks.
        past: Begin with what is there already instead of with what comes.
        going_on: Asked between two looks; ends when it says False.

    Raises:
        LedgerError: There is no such directory, or a line is no record.
    """
    if not directory.is_dir():
        raise LedgerError(
            f"{directory} is no ledger", hint="name the directory that audit.directory of the settings has"
        )
    places: dict[Path, int] = {} if past else {path: _size(path) for path in stream_files(directory)}
    while going_on():
        for path in stream_files(directory):
            for line in _lines(path, places):
                try:
                    yield Record.from_line(line)
                except LedgerError as error:
                    raise LedgerError(f"{path}: {error.message}", hint="run: cedarbox audit verify") from None
        time.sleep(every_s)


def _size(path: Path) -> int:
    # From the beginning of a line that is being written.
    with open_regular(path) as file:
        data, size = b"", file.seek(0, 2)
        begin = size
        while begin and b"\n" not in data:
            begin = max(0, begin - _CHUNK)
            file.seek(begin)
            data = file.read(size - begin)
        return begin + data.rfind(b"\n") + 1


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
                raise LedgerError(f"{path}: a line is too long", hint="run: cedarbox audit verify")
