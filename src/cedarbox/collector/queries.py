"""The questions that are asked of the store: runs, spans, records with filters, connections, streams, metrics, counts.

Long answers come in pages, newest first; the cursor of a page names the last row of it, so that what arrives meanwhile
moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import orjson

from cedarbox.audit.events import EVENTS
from cedarbox.collector.reader import Reader
from cedarbox.collector.views import (
    Connection,
    Counts,
    Dropped,
    LogRow,
    Page,
    Point,
    RecordFilter,
    Run,
    Series,
    SpanRow,
    StreamState,
)
from cedarbox.errors import ConfigurationError

__all__ = ["MAX_PAGE", "Queries"]

MAX_PAGE: Final = 10_000
"""Most rows of one page."""

_RUN: Final = "trace_id, name, start_ns, end_ns, spans, errors, logs, denials"
_LOG: Final = """l.record_id, l.time_ns, l.event, l.severity, l.trace_id, l.span_id, t.body, t.attributes, r.attributes,
    l.conflict, l.id, l.ledger, l.stream, l.seq"""
_LOG_FROM: Final = "logs l JOIN texts t ON t.id = l.id JOIN resources r ON r.id = t.resource"
_EQUAL: Final = ("family", "action", "decision", "session", "principal", "run", "tool", "stream", "ledger")
_MOMENT_MAX: Final = 2**63 - 1


class Queries:
    """Reads the file of a store; usable from several threads, and while another process writes it.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._reader.close()

    def runs(self, *, limit: int = 100, cursor: str | None = None, failed: bool = False) -> Page[Run]:
        """Give traces, the latest start first.

        Args:
            limit: Rows of the page.
            cursor: `Page.next` of the page before.
            failed: Only those with an error or a denial.

        Raises:
            ConfigurationError: The cursor is none.
        """
        tests, values = ["1"], []
        if cursor is not None:
            start, _, trace = cursor.partition(".")
            tests.append("(start_ns, trace_id) < (?, ?)")
            values += [_number(start, cursor), trace]
        if failed:
            tests.append("(errors > 0 OR denials > 0)")
        limit = _limit(limit)
        rows = self._reader.rows(
            f"SELECT {_RUN} FROM runs WHERE {' AND '.join(tests)} ORDER BY start_ns DESC, trace_id DESC LIMIT ?",  # noqa: S608 - only fixed texts are joined
            (*values, limit + 1),
        )
        runs = [Run(*row) for row in rows[:limit]]
        return Page(runs, f"{runs[-1].start_ns}.{runs[-1].trace_id}" if len(rows) > limit else None)

    def run(self, trace_id: str) -> Run | None:
        """Give one trace in short; None when nothing of it arrived."""
        rows = self._reader.rows(f"SELECT {_RUN} FROM runs WHERE trace_id = ?", (trace_id.lower(),))  # noqa: S608 - fixed text
        return Run(*rows[0]) if rows else None

    def spans(self, trace_id: str, *, limit: int = MAX_PAGE) -> list[SpanRow]:
        """Give the spans of a trace in order of their start, the first ones when there are more than the limit."""
        rows = self._reader.rows(
            """SELECT s.trace_id, s.span_id, s.parent_id, s.name, s.kind, s.start_ns, s.end_ns, s.status, s.message,
                s.attributes, r.attributes, s.events, s.links
            FROM spans s JOIN resources r ON r.id = s.resource WHERE s.trace_id = ?
            ORDER BY s.start_ns, s.span_id LIMIT ?""",
            (trace_id.lower(), limit),
        )
        return [_span_row(row) for row in rows]

    def records(
        self, where: RecordFilter | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> Page[LogRow]:
        """Give log records that meet a filter, newest first.

        Args:
            where: The filter; all records without one.
            limit: Rows of the page.
            cursor: `Page.next` of the page before, of the same filter.

        Raises:
            ConfigurationError: The cursor is none, or the search took too long.
        """
        tests, values = _tests(where or RecordFilter())
        if cursor is not None:
            time, _, row_id = cursor.partition(".")
            tests.append("(l.time_ns, l.id) < (?, ?)")
            values += [_number(time, cursor), _number(row_id, cursor)]
        limit = _limit(limit)
        rows = self._reader.rows(
            f"""SELECT {_LOG} FROM {_LOG_FROM} WHERE {" AND ".join(tests) or "1"}
            ORDER BY l.time_ns DESC, l.id DESC LIMIT ?""",  # noqa: S608 - only fixed texts are joined
            (*values, limit + 1),
        )
        found = [_log_row(row) for row in rows[:limit]]
        return Page(found, f"{found[-1].time_ns}.{found[-1].id}" if len(rows) > limit else None)

    def record(self, record_id: str, *, ledger: str | None = None) -> list[LogRow]:
        """Give the record with an id (``<stream>/<seq>``), oldest arrival first: more than one when they conflict."""
        tests, values = ["l.record_id = ?"], [record_id]
        ledgers = [ledger] if ledger is not None else [row[0] for row in self._ledgers()]
        rows: list[tuple[Any, ...]] = []
        for name in ledgers:
            rows += self._reader.rows(
                f"SELECT {_LOG} FROM {_LOG_FROM} WHERE l.ledger = ? AND {tests[0]} ORDER BY l.id",  # noqa: S608 - fixed text
                (name, *values),
            )
        return [_log_row(row) for row in rows]

    def of_decision(self, stream: str, seq: int) -> list[LogRow]:
        """Give what was recorded of a decision later: its outcome, the connection it admitted."""
        rows = self._reader.rows(
            f"SELECT {_LOG} FROM {_LOG_FROM} WHERE l.stream = ? AND l.decision_seq = ? ORDER BY l.time_ns, l.id",  # noqa: S608 - fixed text
            (stream, seq),
        )
        return [_log_row(row) for row in rows]

    def connections(
        self, where: RecordFilter | None = None, *, limit: int = 100, cursor: str | None = None
    ) -> Page[Connection]:
        """Give the connections of sandboxes, the latest first, each joined from the records of its start and its end.

        Args:
            where: Filter on the record that stands for the connection: its ``egress.opened``, or its end when it was
                never opened.
            limit: Rows of the page.
            cursor: `Page.next` of the page before, of the same filter.
        """
        tests, values = _tests(replace(where or RecordFilter(), family="egress"))
        tests.append("l.decision_seq IS NOT NULL")
        tests.append(
            """(l.kind = 'egress.opened' OR NOT EXISTS (SELECT 1 FROM logs o WHERE o.stream = l.stream
            AND o.decision_seq = l.decision_seq AND o.ledger = l.ledger AND o.family = 'egress'
            AND (o.kind = 'egress.opened' OR o.id < l.id)))"""
        )
        if cursor is not None:
            time, _, row_id = cursor.partition(".")
            tests.append("(l.time_ns, l.id) < (?, ?)")
            values += [_number(time, cursor), _number(row_id, cursor)]
        limit = _limit(limit)
        rows = self._reader.rows(
            f"""SELECT l.ledger, l.stream, l.decision_seq, l.time_ns, l.id FROM logs l JOIN texts t ON t.id = l.id
            WHERE {" AND ".join(tests)} ORDER BY l.time_ns DESC, l.id DESC LIMIT ?""",  # noqa: S608 - only fixed texts are joined
            (*values, limit + 1),
        )
        found = [self._connection(*row[:3]) for row in rows[:limit]]
        return Page(found, f"{rows[limit - 1][3]}.{rows[limit - 1][4]}" if len(rows) > limit else None)

    def streams(self) -> list[StreamState]:
        """Give every stream of every ledger, in order of their names."""
        ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for ledger, stream, first, last in self._reader.rows(
            "SELECT ledger, stream, first, last FROM ranges ORDER BY ledger, stream, first"
        ):
            ranges.setdefault((ledger, stream), []).append((first, last))
        sizes = {
            (ledger, stream): size
            for ledger, stream, size in self._reader.rows(
                "SELECT ledger, stream, max(seq) FROM logs WHERE family = 'checkpoint' GROUP BY ledger, stream"
            )
        }
        conflicts = {
            (ledger, stream): count
            for ledger, stream, count in self._reader.rows(
                "SELECT ledger, stream, count(DISTINCT record_id) FROM logs WHERE conflict = 1 GROUP BY ledger, stream"
            )
        }
        keys = sorted(ranges.keys() | sizes.keys())
        return [self._stream(key, ranges.get(key, []), sizes.get(key), conflicts.get(key, 0)) for key in keys]

    def series(self, name: str | None = None) -> list[Series]:
        """Give the series of a metric, or all, in order of their names."""
        test, values = ("s.name = ?", (name,)) if name is not None else ("1", ())
        rows = self._reader.rows(
            f"""SELECT s.id, s.name, s.kind, s.unit, s.description, s.temporality, s.monotonic, s.attributes,
                r.attributes
            FROM series s JOIN resources r ON r.id = s.resource WHERE {test}
            ORDER BY s.name, s.attributes, s.id LIMIT ?""",  # noqa: S608 - only fixed texts are joined
            (*values, MAX_PAGE),
        )
        return [Series(*[*row[:6], bool(row[6]), orjson.loads(row[7]), orjson.loads(row[8])]) for row in rows]

    def points(self, series: int, *, since_ns: int = 0, until_ns: int = _MOMENT_MAX, limit: int = 1000) -> list[Point]:
        """Give the latest points of a series within a time, oldest first."""
        rows = self._reader.rows(
            """SELECT time_ns, start_ns, value, count, detail FROM points
            WHERE series = ? AND time_ns BETWEEN ? AND ? ORDER BY time_ns DESC LIMIT ?""",
            (series, since_ns, until_ns, _limit(limit)),
        )
        return [Point(*[*row[:4], orjson.loads(row[4]) if row[4] else {}]) for row in reversed(rows)]

    def dropped(self) -> list[Dropped]:
        """Give what retention took away."""
        rows = self._reader.rows(
            "SELECT what, reason, rows, last_ns, oldest_ns, newest_ns FROM dropped ORDER BY what, reason"
        )
        return [Dropped(*row) for row in rows]

    def counts(self) -> Counts:
        """Count what is there."""
        (row,) = self._reader.rows(
            """SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM spans), (SELECT count(*) FROM logs),
                (SELECT count(*) FROM logs WHERE family IS NOT NULL),
                (SELECT count(*) FROM logs WHERE family = 'checkpoint'),
                (SELECT count(*) FROM logs WHERE family = 'decision'),
                (SELECT count(*) FROM logs WHERE decision = 'deny' AND family = 'decision'),
                (SELECT count(*) FROM logs WHERE conflict = 1),
                (SELECT count(*) FROM series), (SELECT count(*) FROM points),
                (SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size)"""
        )
        size = 0
        for suffix in ("", "-wal"):
            with suppress(OSError):
                size += self._reader.path.with_name(self._reader.path.name + suffix).stat().st_size
        return Counts(*[*row[:3], row[3] - row[4], *row[4:10], size, row[10]])

    def _ledgers(self) -> list[tuple[str]]:
        # A loose index scan: one step for each ledger, where DISTINCT would read every record.
        return self._reader.rows(
            """WITH RECURSIVE known(name) AS (
                SELECT min(ledger) FROM logs WHERE record_id IS NOT NULL
                UNION ALL
                SELECT (SELECT min(ledger) FROM logs WHERE record_id IS NOT NULL AND ledger > name) FROM known
                WHERE name IS NOT NULL)
            SELECT name FROM known WHERE name IS NOT NULL LIMIT 1000"""
        )

    def _connection(self, ledger: str, stream: str, decision_seq: int) -> Connection:
        rows = self._reader.rows(
            """SELECT l.kind, l.time_ns, l.session, l.principal, l.trace_id, l.action, l.resource, l.outcome,
                l.policies, t.body
            FROM logs l JOIN texts t ON t.id = l.id
            WHERE l.stream = ? AND l.decision_seq = ? AND l.ledger = ? AND l.family = 'egress' ORDER BY l.seq, l.id""",
            (stream, decision_seq, ledger),
        )
        times = {row[0]: row[1] for row in rows}
        last = rows[-1]
        facts = _line(last[9]).get("attrs")
        facts = facts if isinstance(facts, dict) else {}
        return Connection(
            ledger,
            stream,
            decision_seq,
            times.get("egress.opened"),
            times.get("egress.closed", times.get("egress.revoked")),
            "egress.revoked" in times,
            session=last[2],
            principal=last[3],
            trace_id=last[4],
            action=last[5],
            resource=last[6],
            outcome=last[7],
            policies=tuple(last[8].split("\n")) if last[8] else (),
            bytes_out=_integer(facts.get("bytes_out")),
            bytes_in=_integer(facts.get("bytes_in")),
            facts=facts,
        )

    def _stream(
        self, key: tuple[str, str], ranges: Sequence[tuple[int, int]], size: int | None, conflicts: int
    ) -> StreamState:
        ledger, stream = key
        ends = [-1, *(last for _, last in ranges)]
        starts = [*(first for first, _ in ranges), max(size or 0, ends[-1] + 1)]
        gaps = tuple((end + 1, start - 1) for end, start in zip(ends, starts, strict=True) if start > end + 1)
        last = self._reader.rows(
            "SELECT kind, time_ns FROM logs WHERE ledger = ? AND record_id = ? ORDER BY id LIMIT 1",
            (ledger, f"{stream}/{ends[-1]}"),
        )
        event, time = last[0] if last else (None, None)
        records = sum(last - first + 1 for first, last in ranges)
        return StreamState(ledger, stream, records, ends[-1], gaps, size, event, time, conflicts)


def _tests(where: RecordFilter) -> tuple[list[str], list[object]]:
    tests: list[str] = []
    values: list[object] = []

    def test(text: str, *given: object) -> None:
        tests.append(text)
        values.extend(given)

    for name in _EQUAL:
        value = getattr(where, name)
        if value is not None:
            test(f"l.{name} = ?", value)
    if where.event is not None:
        test("l.event = ?", f"cedarbox.{where.event}" if where.event in EVENTS else where.event)
    if where.trace_id is not None:
        test("l.trace_id = ?", where.trace_id.lower())
    if where.policy is not None:
        test("l.id IN (SELECT id FROM log_policies WHERE policy = ?)", where.policy)
    if where.resource is not None:
        test("l.resource LIKE ? ESCAPE '\\'", _like(where.resource))
    if where.text is not None:
        test("t.body LIKE ? ESCAPE '\\'", _like(where.text))
    if where.since_ns is not None or where.until_ns is not None:
        test(
            "l.time_ns BETWEEN ? AND ?", where.since_ns or 0, _MOMENT_MAX if where.until_ns is None else where.until_ns
        )
    if where.conflicts:
        test("l.conflict = 1")
    return tests, values


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _limit(limit: int) -> int:
    return max(1, min(limit, MAX_PAGE))


def _number(text: str, cursor: str) -> int:
    if not text.isdecimal() or not text.isascii() or len(text) > 19:
        raise ConfigurationError(f"{cursor!a} is not a cursor", hint="use that of the page before")
    return min(int(text), _MOMENT_MAX)


def _integer(value: object) -> int | None:
    return value if type(value) is int else None


def _line(body: str) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _span_row(row: Sequence[Any]) -> SpanRow:
    attributes, resource, events, links = (orjson.loads(text) if text else [] for text in row[9:13])
    return SpanRow(*[*row[:9], attributes, resource, events, links])


def _log_row(row: Iterable[Any]) -> LogRow:
    values = list(row)
    body, stream = values[6], values[12]
    line = _line(body) if stream is not None and values[2] != "cedarbox.checkpoint" else {}
    attributes, resource = orjson.loads(values[7]), orjson.loads(values[8])
    return LogRow(*[*values[:7], attributes, resource, bool(values[9]), line, *values[10:]])
