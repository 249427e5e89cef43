"""What the shipper sends: files that only grow, unit by unit, each unit a line or something longer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol, runtime_checkable

from cedarbox.audit.record import MAX_LINE_BYTES
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["CuttingSource", "Source", "complete_end", "count_units", "read_units"]

_CHUNK: Final = 1024 * 1024


class Source(Protocol):
    """Lines on disk that go to a collector. The files only grow, line by line."""

    @property
    def name(self) -> str:
        """Short name, part of the keys in the place file."""
        ...

    @property
    def path(self) -> str:
        """OTLP path, which names the signal: ``/v1/logs``, ``/v1/traces`` or ``/v1/metrics``."""
        ...

    def streams(self) -> list[Path]:
        """List the files."""
        ...

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        """Make the protobuf request for lines with their line feeds. ``stream`` is the file name to its first dot."""
        ...


@runtime_checkable
class CuttingSource(Source, Protocol):
    """A source whose units are not lines."""

    def cut(self, data: bytes) -> list[bytes]:
        """Cut the whole units off the beginning of some bytes; what is no whole unit yet is left out."""
        ...


def read_units(source: Source, file: Path, offset: int, *, units: int, size: int) -> list[bytes]:
    """Read whole units from an offset.

    Args:
        source: Says what a unit is.
        file: The file.
        offset: Where to begin, in bytes.
        units: How many at most.
        size: How many bytes, unless the first unit is longer; one unit comes at least when it is whole.

    Raises:
        LedgerError: The file cannot be read, or something in it is too long to be a unit.
    """
    try:
        with open_regular(file) as stream:
            found = _first_units(source, stream, offset, size)
    except OSError as error:
        raise LedgerError(f"{file}: it cannot be read: {_reason(error)}") from error
    if found is None:
        raise LedgerError(f"{file}: what stands at byte {offset} is too long", hint="run: cedarbox audit verify")
    result: list[bytes] = []
    total = 0
    for unit in found[:units]:
        if result and total + len(unit) > size:
            break
        result.append(unit)
        total += len(unit)
    return result


def complete_end(source: Source, file: Path, offset: int) -> int:
    """Give where the last whole unit ends; ``offset`` when none ends after it. Lines are looked for from the end.

    Raises:
        LedgerError: The file cannot be read.
    """
    if isinstance(source, CuttingSource):
        return offset + sum(map(len, _all_units(source, file, offset)))
    try:
        with open_regular(file) as stream:
            end = stream.seek(0, os.SEEK_END)
            while end > offset:
                start = max(offset, end - _CHUNK)
                stream.seek(start)
                found = stream.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
    except OSError as error:
        raise LedgerError(f"{file}: it cannot be read: {_reason(error)}") from error
    return offset


def count_units(source: Source, file: Path, offset: int) -> int:
    """Count the whole units after an offset.

    Raises:
        LedgerError: The file cannot be read.
    """
    if isinstance(source, CuttingSource):
        return len(_all_units(source, file, offset))
    count = 0
    try:
        with open_regular(file) as stream:
            stream.seek(offset)
            while chunk := stream.read(_CHUNK):
                count += chunk.count(b"\n")
    except OSError as error:
        raise LedgerError(f"{file}: it cannot be read: {_reason(error)}") from error
    return count


def _first_units(source: Source, stream: BinaryIO, offset: int, size: int) -> list[bytes] | None:
    """Read until there is a unit, the end, or too much; None for the last."""
    stream.seek(offset)
    data = b""
    while len(data) <= MAX_LINE_BYTES:
        chunk = stream.read(max(size, 1))
        data += chunk
        units = _cut(source, data)
        if units or not chunk:
            return units
    return None


def _cut(source: Source, data: bytes) -> list[bytes]:
    if isinstance(source, CuttingSource):
        return source.cut(data)
    return [line + b"\n" for line in data.split(b"\n")[:-1]]


def _all_units(source: CuttingSource, file: Path, offset: int) -> list[bytes]:
    try:
        with open_regular(file) as stream:
            stream.seek(offset)
            return source.cut(stream.read())
    except OSError as error:
        raise LedgerError(f"{file}: it cannot be read: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
