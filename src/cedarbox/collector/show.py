"""What the command line shows of the store: the runs, the span tree of one, and the log records.

Everything in the store came over the network. It is shown as plain text: markup is not interpreted, and control
characters are written out, so that a span name cannot drive the terminal of whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cedarbox.collector.store import LogRow, Run, SpanRow, Store
from cedarbox.errors import ConfigurationError
from cedarbox.text import printable

__all__ = ["as_json", "render_logs", "render_runs", "render_trace", "show_logs", "show_runs", "show_trace"]

_MAX_DEPTH: Final = 30
"""Deepest level of the tree; what is deeper is shown at this level."""

_ERROR: Final = 2
_SHOWN: Final = (
    "error.type",
    "cedarbox.policy.decision",
    "cedarbox.policy.action",
    "cedarbox.policy.resource",
    "cedarbox.record.seq",
    "process.exit.code",
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.output_tokens",
    "sandbox.session.id",
)
"""Attributes that a line of the tree shows, in this order; JSON has all of them."""

_LEDGER_FIELDS: Final = ("event", "decision", "action", "resource", "outcome")


def show_runs(store: Store, console: Console, *, limit: int = 100, json: bool = False) -> None:
    """Print the latest runs: a table on a terminal, tab-separated lines elsewhere, JSON on request."""
    runs = store.runs(limit=limit)
    if json:
        _plain(console, as_json(runs))
    elif console.is_terminal:
        console.print(render_runs(runs))
    else:
        for run in runs:
            _plain(console, "\t".join(_run_cells(run)))


def show_trace(store: Store, trace_id: str, console: Console, *, json: bool = False) -> None:
    """Print the span tree of a trace: with guide lines on a terminal, indented elsewhere, JSON on request.

    Raises:
        ConfigurationError: The store has no span of this trace.
    """
    if json:
        _plain(console, as_json(_spans(store, trace_id)))
    elif console.is_terminal:
        console.print(render_trace(store, trace_id))
    else:
        for depth, span in _walk(_spans(store, trace_id)):
            _plain(console, "  " * depth + _line(span).plain)


def show_logs(rows: Sequence[LogRow], console: Console, *, json: bool = False) -> None:
    """Print log records, as `Store.logs` gives them: a table on a terminal, tab-separated lines elsewhere, or JSON."""
    if json:
        _plain(console, as_json(rows))
    elif console.is_terminal:
        console.print(render_logs(rows))
    else:
        for row in rows:
            _plain(console, "\t".join(_log_cells(row)))


def as_json(rows: Sequence[Run | SpanRow | LogRow]) -> str:
    """Return rows as a JSON array, every field of them."""
    return orjson.dumps([asdict(row) for row in rows], option=orjson.OPT_INDENT_2).decode()


def render_runs(runs: Sequence[Run]) -> Table:
    """Return the runs as a table."""
    table = Table("trace", "name", "start (UTC)", "duration", "spans", "errors", "logs")
    for run in runs:
        table.add_row(*(Text(cell) for cell in _run_cells(run)))
    return table


def render_trace(store: Store, trace_id: str) -> Tree:
    """Return the spans of a trace as a tree. A span whose parent is not in the store is shown at the top.

    Raises:
        ConfigurationError: The store has no span of this trace.
    """
    tree = Tree(Text(f"trace {_safe(trace_id)}", style="bold"))
    path = [tree]
    for depth, span in _walk(_spans(store, trace_id)):
        del path[depth + 1 :]
        path.append(path[depth].add(_line(span)))
    return tree


def render_logs(rows: Sequence[LogRow]) -> Table:
    """Return log records as a table: time, record, event, decision, action, resource, outcome."""
    table = Table("time (UTC)", "record", *_LEDGER_FIELDS, "note")
    for row in rows:
        cells = [Text(cell) for cell in _log_cells(row)]
        if row.conflict:
            cells[-1].stylize("bold red")
        table.add_row(*cells)
    return table


def _spans(store: Store, trace_id: str) -> list[SpanRow]:
    spans = store.spans(trace_id)
    if not spans:
        raise ConfigurationError(f"no span of trace {_safe(trace_id)!r} is in {store.path}", hint="list the runs first")
    return spans


def _walk(spans: Sequence[SpanRow]) -> Iterator[tuple[int, SpanRow]]:
    """Yield each span once with its depth, parents first; loops among parents are cut."""
    known = {span.span_id for span in spans}
    children: dict[str | None, list[SpanRow]] = {}
    for span in spans:
        children.setdefault(span.parent_id if span.parent_id in known else None, []).append(span)
    seen: set[str] = set()
    # Spans of a loop have a parent but no root; they come last, each as a root unless it was reached before.
    for root in [*children.get(None, []), *spans]:
        waiting = [(0, root)]
        while waiting:
            depth, span = waiting.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            yield min(depth, _MAX_DEPTH), span
            waiting += [(depth + 1, child) for child in reversed(children.get(span.span_id, []))]


def _line(span: SpanRow) -> Text:
    failed = span.status == _ERROR
    line = Text(_safe(span.name), style="red" if failed else "")
    line.append(f"  {_duration(span.start_ns, span.end_ns)}", style="dim")
    if failed:
        line.append(f"  error{': ' + _safe(span.message) if span.message else ''}", style="bold red")
    for name in _SHOWN:
        if name in span.attributes:
            line.append(f"  {name}={_safe(span.attributes[name])}", style="dim")
    return line


def _run_cells(run: Run) -> list[str]:
    times = [_time(run.start_ns), _duration(run.start_ns, run.end_ns)]
    return [run.trace_id, _safe(run.name), *times, str(run.spans), str(run.errors), str(run.logs)]


def _log_cells(row: LogRow) -> list[str]:
    fields = _ledger_fields(row)
    cells = [_safe(fields.get(name) or "") for name in _LEDGER_FIELDS]
    note = "conflict: two records have this id" if row.conflict else ""
    return [_time(row.time_ns), _safe(row.record_id or ""), *cells, note]


def _ledger_fields(row: LogRow) -> Mapping[str, Any]:
    """Return what the body says when it is a line of the ledger, else what the record itself says."""
    plain = {"event": row.event, "outcome": row.body}
    if row.record_id is None:
        return plain
    try:
        line = orjson.loads(row.body)
    except orjson.JSONDecodeError:
        return plain
    return line if isinstance(line, dict) else plain


def _safe(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return printable(text)


def _time(nanoseconds: int) -> str:
    moment = datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{nanoseconds // 1_000_000 % 1000:03d}Z"


def _duration(start_ns: int, end_ns: int) -> str:
    milliseconds = (end_ns - start_ns) / 1_000_000
    return f"{milliseconds:.1f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def _plain(console: Console, text: str) -> None:
    # Rich would turn the tabs into blanks.
    console.file.write(f"{text}\n")
