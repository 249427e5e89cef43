"""``cedarbox audit show`` and ``tail``: records for people, and as the lines that they are."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cedarbox.audit import Record
from cedarbox.audit.browse import browse
from cedarbox.audit.files import INDEX
from cedarbox.audit.follow import follow_streams
from cedarbox.audit.lineage import EVENTS, lineage_of
from cedarbox.audit.query import Query
from cedarbox.cli.audit_filters import Unreadable, check_counts, filtered, ledger_directory
from cedarbox.cli.audit_lineage import draw_lineage
from cedarbox.cli.audit_lines import details, plain_line, styled, tell
from cedarbox.errors import ConfigurationError
from cedarbox.text import printable

__all__ = ["show", "tail"]

_WIDE: Final = 120
_AT_ONCE: Final = 200
"""Records of which a table is made before it is printed: a ledger of any size fits into memory."""

_Records = Iterable[tuple[str, Record]]

AsJson = Annotated[bool, typer.Option("--json", help="Print the records, exactly the lines of the ledger.")]
Limit = Annotated[int | None, typer.Option(min=1, help="The first so many.", show_default=False)]
Last = Annotated[int | None, typer.Option(min=1, help="The last so many.", show_default=False)]


@filtered
def show(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIRECTORY] [SEQ]",
            help="Directory of the ledger, that of the settings when not given; and the number of one record.",
        ),
    ] = None,
    *,
    query: Query,
    limit: Limit = None,
    last: Last = None,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Draw where snapshots come from; of one when its name follows.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print records in the order of time; with a number, all of one record; with --lineage, the tree of snapshots.

    A denial reads DENY, what was ended by a change of policy CUT. Nothing is verified but the form and the hash of
    each line: cedarbox audit verify does that.

    Exit code 0: printed. 2: no ledger there, no such record or snapshot, or something could not be read; what could be
    is printed all the same.

    Example: cedarbox audit show .cedarbox/ledger --decision deny --since 2h
    """
    check_counts(limit, last)
    directory, rest = _targets(targets or [], lineage=lineage)
    unreadable = Unreadable()
    console = Console(highlight=False, markup=False)
    try:
        if lineage:
            wanted = Query(events=EVENTS, since=query.since, until=query.until, stream=query.stream)
            found = lineage_of(browse(directory, wanted, unreadable=unreadable))
            draw_lineage(found, rest, console, as_json=as_json)
        elif rest:
            _show_one(directory, int(rest), query, console, unreadable, as_json=as_json)
        else:
            records: _Records = browse(directory, query, unreadable=unreadable)
            records = islice(records, limit) if last is None else deque(records, maxlen=last)
            _show_all(records, console, as_json=as_json)
    except BrokenPipeError:
        raise typer.Exit(0) from None
    unreadable.exit()


@filtered
def tail(
    directory: Annotated[
        Path | None,
        typer.Argument(readable=False, help="Directory of the ledger; that of the settings when not given."),
    ] = None,
    *,
    query: Query,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many.", show_default=False)] = None,
    last: Annotated[int, typer.Option(min=0, help="Begin with the last so many that are there.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Print records as they are written, of all streams, also of those that come later, until Ctrl-C.

    Exit code 0: ended by --limit or by whoever reads the output. 2: no ledger there, or a line could not be read; what
    comes after it is printed all the same. 130: Ctrl-C.

    Example: cedarbox audit tail --event 'egress.*' --json
    """
    chosen, unreadable = ledger_directory(directory), Unreadable()
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        coming = follow_streams(chosen, query, last=last, unreadable=unreadable)
        for stream, record in islice(coming, limit):
            if as_json:
                sys.stdout.buffer.write(record.to_line())
                sys.stdout.flush()
            elif console.is_terminal:
                console.print(_line(stream, record))
            else:
                print(plain_line(stream, record), flush=True)  # noqa: T201  # not to be wrapped
    except BrokenPipeError:
        raise typer.Exit(0) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    unreadable.exit()


def _targets(given: list[str], *, lineage: bool) -> tuple[Path, str]:
    """Tell the directory from the number of a record, or from the name of a snapshot."""
    numbers = [text for text in given if text.isascii() and text.isdecimal()]
    names = numbers if not lineage else [text for text in given if not Path(text).is_dir()]
    places = [text for text in given if text not in names]
    if lineage and len(given) == 2 and not places:
        # Neither is a directory: the first was meant to be one.
        places, names = given[:1], given[1:]
    if lineage and len(given) == 1 and not places and not ledger_directory(None).is_dir():
        places, names = given, []
    if len(places) > 1 or len(names) > 1:
        raise ConfigurationError(
            f"{' '.join(given)} is more than a directory and {'a snapshot' if lineage else 'the number of a record'}",
            hint="a directory whose name is a number is written like ./12",
        )
    return ledger_directory(Path(places[0]) if places else None), names[0] if names else ""


def _show_one(
    directory: Path, seq: int, query: Query, console: Console, unreadable: Unreadable, *, as_json: bool
) -> None:
    found = [
        (stream, record) for stream, record in browse(directory, query, unreadable=unreadable) if record.seq == seq
    ]
    # The index numbers its records too; one of it is meant when --stream says so.
    found = [pair for pair in found if pair[0] != INDEX] or found
    if len(found) != 1:
        unreadable.exit()
        streams = ", ".join(stream for stream, _ in found)
        what = f"{len(found)} streams have a record {seq}: {streams}" if found else f"there is no record {seq}"
        raise ConfigurationError(f"{directory}: {what}", hint="give --stream" if found else "see: cedarbox audit show")
    ((stream, record),) = found
    if as_json:
        sys.stdout.buffer.write(record.to_line())
        sys.stdout.flush()
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in details(stream, record):
        table.add_row(name, styled(value.upper() if (name, value) == ("decision", "deny") else value))
    if console.is_terminal:
        console.print(table)
        return
    for name, value in details(stream, record):
        print(f"{name}\t{value}")  # noqa: T201


def _show_all(records: _Records, console: Console, *, as_json: bool) -> None:
    if as_json:
        for _, record in records:
            sys.stdout.buffer.write(record.to_line())
        sys.stdout.flush()
    elif console.is_terminal:
        for table in _tables(iter(records), console.width):
            console.print(table)
    else:
        for stream, record in records:
            print(plain_line(stream, record))  # noqa: T201
        sys.stdout.flush()


def _tables(records: Iterator[tuple[str, Record]], width: int) -> Iterator[Table]:
    day, first, wide = "", True, width >= _WIDE
    while part := list(islice(records, _AT_ONCE)):
        table = Table(box=None, show_header=first, padding=(0, 1, 0, 0), width=width)
        table.add_column("seq", justify="right", width=7 if not wide else 8, no_wrap=True)
        table.add_column("time (UTC)", width=12 if wide else 8, no_wrap=True)
        if wide:
            table.add_column("stream", width=8, no_wrap=True)
            table.add_column("event", width=18, no_wrap=True)
        table.add_column("", width=9, no_wrap=True)
        table.add_column("what, by which policies, why", overflow="fold", ratio=1)
        if wide:
            table.add_column("session", width=8, no_wrap=True)
        for stream, record in part:
            if record.time[:10] != day:
                day = record.time[:10]
                table.add_row("", "", *([""] * 2 if wide else []), "", Text(day, "bold"), *([""] if wide else []))
            told, entry = tell(record), record.entry
            if wide:
                table.add_row(
                    str(record.seq),
                    record.time[11:23],
                    stream.rpartition("-")[2],
                    entry.event,
                    styled(told.verdict),
                    _about(record),
                    (entry.session or "")[:8],
                )
            else:
                table.add_row(str(record.seq), record.time[11:19], styled(told.verdict), _about(record))
        first = False
        yield table


def _about(record: Record) -> Text:
    told = tell(record)
    said = [*([f"by {', '.join(told.policies)}"] if told.policies else []), *told.facts]
    # What was denied stands out, and why it was too.
    strong, weak = ("bold", "") if told.verdict.isupper() else ("", "dim")
    return Text.assemble((told.what, strong), (f"  {'; '.join(said)}" if said else "", weak), overflow="fold")


def _line(stream: str, record: Record) -> Text:
    told = tell(record)
    session = f"  {printable(record.entry.session)[:8]}" if record.entry.session else ""
    return Text.assemble(
        (record.time[11:23], "dim"),
        f"  {stream.rpartition('-')[2]}/{record.seq}  ",
        styled(f"{told.verdict:9}".rstrip().ljust(9)),
        " ",
        _about(record),
        (session, "dim"),
    )
