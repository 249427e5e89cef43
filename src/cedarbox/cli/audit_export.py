"""``cedarbox audit export``: records for other programs."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal

import orjson
import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from cedarbox.audit import Record
from cedarbox.audit.browse import browse
from cedarbox.audit.ocsf import ocsf_event
from cedarbox.audit.query import Query
from cedarbox.cli.audit_filters import Unreadable, check_counts, filtered, ledger_directory
from cedarbox.errors import ConfigurationError
from cedarbox.files import replacing

__all__ = ["COLUMNS", "export", "safe_cell"]

COLUMNS: Final = (
    "stream", "seq", "time", "event", "decision", "action", "resource", "policies", "outcome", "principal", "tool",
    "call_id", "session", "run", "trace_id", "span_id", "bundle", "errors", "attrs", "prev", "hash",
)  # fmt: skip
"""The columns of CSV. New ones are added at the end."""

_EVERY: Final = 1000
# What a spreadsheet takes for the beginning of a formula, also in its full-width forms, at the beginning of a cell or
# behind what some spreadsheets split cells at.
_FORMULA: Final = re.compile("(^|[,;|\\t\\r\\n])([\\s\"']*)([=+\\-@\uff1d\uff0b\uff0d\uff20])")

Format = Literal["jsonl", "csv", "ocsf"]


@filtered
def export(
    directory: Annotated[
        Path | None,
        typer.Argument(readable=False, help="Directory of the ledger; that of the settings when not given."),
    ] = None,
    *,
    query: Query,
    form: Annotated[
        Format, typer.Option("--format", help="jsonl: the lines of the ledger; csv; ocsf: events of OCSF 1.8.0.")
    ] = "jsonl",
    output: Annotated[str, typer.Option(help="The file, which appears when it is whole; - is the output.")] = "-",
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many.", show_default=False)] = None,
    last: Annotated[int | None, typer.Option(min=1, help="The last so many.", show_default=False)] = None,
) -> None:
    """Write records to a file for other programs, in the order of time.

    Only jsonl is evidence: its lines are those of the ledger. In csv a cell that a spreadsheet would take for a formula
    begins with an apostrophe; each event of ocsf carries the stream, number and hash of its record.

    Exit code 0: written. 2: no ledger there, the file cannot be written, or something could not be read; what could be
    is written all the same.

    Example: cedarbox audit export --format csv --since 2026-11-01 --output november.csv
    """
    check_counts(limit, last)
    unreadable = Unreadable()
    records: Iterable[tuple[str, Record]] = browse(ledger_directory(directory), query, unreadable=unreadable)
    records = islice(records, limit) if last is None else deque(records, maxlen=last)
    lines = _FORMS[form](records)
    if output == "-":
        try:
            for line in lines:
                sys.stdout.buffer.write(line)
            sys.stdout.flush()
        except BrokenPipeError:
            raise typer.Exit(0) from None
    else:
        try:
            # What records tell is for whoever may read the ledger.
            with replacing(Path(output), 0o600) as file:
                _write(lines, file)
        except OSError as error:
            raise ConfigurationError(
                f"{output!r}: it cannot be written: {error.strerror}",
                hint="check the directory and its mode",
            ) from None
    unreadable.exit()


def safe_cell(text: str) -> str:
    """Return a cell that no spreadsheet takes for a formula: an apostrophe stands before what could begin one."""
    return _FORMULA.sub(r"\1\2'\3", text) if _FORMULA.search(text) else text


def _write(lines: Iterator[bytes], file: BinaryIO) -> None:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.completed:,.0f} records"))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        for number, line in enumerate(lines, 1):
            file.write(line)
            if number % _EVERY == 0:
                progress.advance(task, _EVERY)


def _jsonl(records: Iterable[tuple[str, Record]]) -> Iterator[bytes]:
    for _, record in records:
        yield record.to_line()


def _csv(records: Iterable[tuple[str, Record]]) -> Iterator[bytes]:
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for stream, record in records:
        yield _taken(buffer)
        entry = record.entry
        cells = {
            "stream": stream,
            "seq": record.seq,
            "time": record.time,
            "prev": record.prev,
            "hash": record.hash,
            "policies": orjson.dumps(entry.policies).decode() if entry.policies else "",
            "errors": orjson.dumps(entry.errors).decode() if entry.errors else "",
            "attrs": orjson.dumps(entry.attrs, option=orjson.OPT_SORT_KEYS).decode() if entry.attrs else "",
        }
        row = (cells[name] if name in cells else getattr(entry, name) or "" for name in COLUMNS)
        writer.writerow(safe_cell(str(cell)) for cell in row)
    yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


def _ocsf(records: Iterable[tuple[str, Record]]) -> Iterator[bytes]:
    product = version("cedarbox")
    for stream, record in records:
        yield orjson.dumps(ocsf_event(stream, record, product_version=product)) + b"\n"


_FORMS: Final[dict[str, Callable[[Iterable[tuple[str, Record]]], Iterator[bytes]]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "ocsf": _ocsf,
}
