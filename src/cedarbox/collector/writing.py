"""Putting spans, log records and metric points into the tables, inside a transaction that the store holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cedarbox.collector.metrics import PointInput, SeriesKey
from cedarbox.collector.rows import MAX_INTEGER, LogInput, SpanInput

__all__ = ["insert_logs", "insert_points", "insert_spans"]

_ERROR: Final = 2
_MAX_POLICIES: Final = 64
"""Policies of one decision that can be searched by; all of them are in the body."""

_INSERT_LOG: Final = "INSERT OR IGNORE INTO logs VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
_INSERT_SPAN: Final = "INSERT OR IGNORE INTO spans VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"


@dataclass(slots=True)
class _Run:
    """What a batch adds to a run."""

    name: str = ""
    rooted: bool = False
    start_ns: int = MAX_INTEGER
    end_ns: int = 0
    first_ns: int = MAX_INTEGER
    spans: int = 0
    errors: int = 0
    logs: int = 0
    denials: int = 0


@dataclass(slots=True)
class _Batch:
    db: sqlite3.Connection
    received_ns: int
    runs: dict[str, _Run] = field(default_factory=dict)
    resources: dict[str, int] = field(default_factory=dict)

    def run(self, trace_id: str) -> _Run:
        run = self.runs.get(trace_id)
        if run is None:
            run = self.runs[trace_id] = _Run()
        return run

    def resource(self, attributes: str) -> int:
        known = self.resources.get(attributes)
        if known is None:
            found = self.db.execute("SELECT id FROM resources WHERE attributes = ?", (attributes,)).fetchone()
            if found is None:
                cursor = self.db.execute("INSERT INTO resources VALUES (NULL, ?)", (attributes,))
                found = (cursor.lastrowid,)
            known = self.resources[attributes] = found[0]
        return known


def insert_spans(db: sqlite3.Connection, spans: Iterable[SpanInput], received_ns: int) -> int:
    """Insert spans that are not there yet, by trace and span id.

    Returns:
        How many were new.
    """
    batch, new = _Batch(db, received_ns), 0
    for span in spans:
        row = (
            received_ns,
            span.trace_id,
            span.span_id,
            span.parent_id,
            span.name,
            span.kind,
            span.start_ns,
            span.end_ns,
            span.status,
            span.message,
            span.attributes,
            span.events,
            span.links,
            batch.resource(span.resource),
        )
        if db.execute(_INSERT_SPAN, row).rowcount != 1:
            continue
        new += 1
        run = batch.run(span.trace_id)
        run.spans += 1
        run.errors += span.status == _ERROR
        run.end_ns = max(run.end_ns, span.end_ns)
        root = span.parent_id is None
        if (root and not run.rooted) or (root is run.rooted and span.start_ns < run.first_ns):
            run.name, run.rooted, run.first_ns = span.name, root, span.start_ns
        run.start_ns = min(run.start_ns, span.start_ns)
    _add_to_runs(batch)
    return new


def insert_logs(db: sqlite3.Connection, logs: Iterable[LogInput], received_ns: int) -> int:
    """Insert log records; one with the id and the body of an earlier one is left out.

    Returns:
        How many were new.
    """
    batch, new = _Batch(db, received_ns), 0
    arrived: dict[tuple[str, str], list[int]] = {}
    policies: list[tuple[str, int, int]] = []
    for log in logs:
        cursor = db.execute(_INSERT_LOG, _log_row(log, received_ns))
        if cursor.rowcount != 1:
            continue
        new += 1
        row_id = cursor.lastrowid or 0
        db.execute(
            "INSERT INTO texts VALUES (?,?,?,?)", (row_id, log.body, log.attributes, batch.resource(log.resource))
        )
        if log.record_id is not None:
            _mark_conflict(db, log, row_id)
        if log.line and log.stream is not None and log.seq is not None:
            arrived.setdefault((log.ledger, log.stream), []).append(log.seq)
        policies.extend((policy, log.time_ns, row_id) for policy in _policies(log.line)[:_MAX_POLICIES])
        if log.trace_id is not None:
            run = batch.run(log.trace_id)
            run.logs += 1
            run.denials += log.kind == "decision" and log.line.get("decision") == "deny"
            run.start_ns, run.end_ns = min(run.start_ns, log.time_ns), max(run.end_ns, log.time_ns)
    db.executemany("INSERT OR IGNORE INTO log_policies VALUES (?,?,?)", policies)
    for (ledger, stream), numbers in arrived.items():
        _add_to_ranges(db, ledger, stream, numbers)
    _add_to_runs(batch)
    return new


def insert_points(db: sqlite3.Connection, points: Iterable[tuple[SeriesKey, str, PointInput]], received_ns: int) -> int:
    """Insert points; a second one of the same series and time is left out.

    Returns:
        How many were new.
    """
    batch, new = _Batch(db, received_ns), 0
    series: dict[SeriesKey, int] = {}
    for key, description, point in points:
        series_id = series.get(key)
        if series_id is None:
            series_id = series[key] = _series(batch, key, description)
        row = (series_id, point.time_ns, received_ns, point.start_ns, point.value, point.count, point.detail)
        new += db.execute("INSERT OR IGNORE INTO points VALUES (?,?,?,?,?,?,?)", row).rowcount == 1
    return new


def _log_row(log: LogInput, received_ns: int) -> tuple[object, ...]:
    line = log.line
    attrs = line.get("attrs")
    decision_seq = attrs.get("decision_seq") if isinstance(attrs, dict) else None
    good = type(decision_seq) is int and 0 <= decision_seq <= MAX_INTEGER
    policies = _policies(line)
    return (
        received_ns,
        log.time_ns,
        log.event,
        log.severity,
        log.ledger,
        log.record_id,
        log.digest,
        log.trace_id,
        log.span_id,
        log.stream,
        log.seq,
        log.kind.partition(".")[0] if log.kind else None,
        log.kind,
        _text(line, "decision"),
        _text(line, "action"),
        _text(line, "session"),
        _text(line, "principal"),
        _text(line, "run"),
        _text(line, "tool"),
        _text(line, "resource"),
        _text(line, "outcome"),
        "\n".join(policies) or None,
        decision_seq if good else None,
        0,
    )


def _text(line: Mapping[str, Any], key: str) -> str | None:
    value = line.get(key)
    return value if isinstance(value, str) else None


def _policies(line: Mapping[str, Any]) -> list[str]:
    found = line.get("policies")
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _mark_conflict(db: sqlite3.Connection, log: LogInput, row_id: int) -> None:
    others = db.execute(
        "SELECT id FROM logs WHERE ledger = ? AND record_id = ? AND id <> ?", (log.ledger, log.record_id, row_id)
    ).fetchall()
    if others:
        db.executemany("UPDATE logs SET conflict = 1 WHERE id = ?", [*others, (row_id,)])


def _add_to_ranges(db: sqlite3.Connection, ledger: str, stream: str, numbers: list[int]) -> None:
    for first, last in _joined(sorted(set(numbers))):
        # Every range that overlaps or touches the new one becomes one with it. The last that begins at or before it is
        # the only one that can reach into it from below.
        before = db.execute(
            "SELECT first, last FROM ranges WHERE ledger = ? AND stream = ? AND first <= ? ORDER BY first DESC LIMIT 1",
            (ledger, stream, first),
        ).fetchone()
        low = before[0] if before is not None and before[1] >= first - 1 else first
        (high,) = db.execute(
            "SELECT max(last) FROM ranges WHERE ledger = ? AND stream = ? AND first BETWEEN ? AND ?",
            (ledger, stream, low, last + 1),
        ).fetchone()
        db.execute(
            "DELETE FROM ranges WHERE ledger = ? AND stream = ? AND first BETWEEN ? AND ?",
            (ledger, stream, low, last + 1),
        )
        top = max(last, high if high is not None else last)
        db.execute("INSERT INTO ranges VALUES (?,?,?,?)", (ledger, stream, low, top))


def _joined(numbers: list[int]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for number in numbers:
        if joined and number == joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], number)
        else:
            joined.append((number, number))
    return joined


def _add_to_runs(batch: _Batch) -> None:
    for trace_id, added in batch.runs.items():
        row = batch.db.execute(
            "SELECT name, rooted, start_ns, end_ns, spans, errors, logs, denials FROM runs WHERE trace_id = ?",
            (trace_id,),
        ).fetchone()
        name, rooted, start, end, spans, errors, logs, denials = row or ("", 0, MAX_INTEGER, 0, 0, 0, 0, 0)
        earlier = added.first_ns < start or spans == 0
        if added.spans and ((added.rooted and not rooted) or (added.rooted == bool(rooted) and earlier)):
            name, rooted = added.name, int(added.rooted)
        batch.db.execute(
            "INSERT OR REPLACE INTO runs VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                trace_id,
                batch.received_ns,
                name,
                rooted,
                min(start, added.start_ns),
                max(end, added.end_ns),
                spans + added.spans,
                errors + added.errors,
                logs + added.logs,
                denials + added.denials,
            ),
        )


def _series(batch: _Batch, key: SeriesKey, description: str) -> int:
    row = (
        key.name,
        key.kind,
        key.unit,
        key.temporality,
        int(key.monotonic),
        key.attributes,
        batch.resource(key.resource),
    )
    found = batch.db.execute(
        """SELECT id FROM series WHERE name = ? AND kind = ? AND unit = ? AND temporality = ? AND monotonic = ?
        AND attributes = ? AND resource = ?""",
        row,
    ).fetchone()
    if found is not None:
        return int(found[0])
    cursor = batch.db.execute("INSERT INTO series VALUES (NULL,?,?,?,?,?,?,?,?)", (*row[:3], description, *row[3:]))
    return cursor.lastrowid or 0
