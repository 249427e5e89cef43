"""Where the embedded collector keeps spans and logs: one SQLite file."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cedarbox.collector.rows import log_rows, span_rows
from cedarbox.errors import HostError

__all__ = ["FILE_NAME", "LogRow", "Run", "SpanRow", "Store"]

FILE_NAME: Final = "collector.db"

_VERSION: Final = 1
_BUSY_SECONDS: Final = 10.0
"""How long to wait for another process that holds the file."""

_SCHEMA: Final = (
    """CREATE TABLE spans (
        trace_id TEXT NOT NULL, span_id TEXT NOT NULL, parent_id TEXT, name TEXT NOT NULL, kind INTEGER NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, status INTEGER NOT NULL, message TEXT NOT NULL,
        attributes TEXT NOT NULL, resource TEXT NOT NULL, PRIMARY KEY (trace_id, span_id))""",
    """CREATE TABLE logs (
        id INTEGER PRIMARY KEY, record_id TEXT, digest TEXT NOT NULL, time_ns INTEGER NOT NULL, event TEXT NOT NULL,
        severity INTEGER NOT NULL, trace_id TEXT, span_id TEXT, body TEXT NOT NULL, attributes TEXT NOT NULL,
        resource TEXT NOT NULL, UNIQUE (record_id, digest))""",
    "CREATE INDEX logs_by_trace ON logs (trace_id)",
    "CREATE INDEX logs_by_time ON logs (time_ns)",
    f"PRAGMA user_version = {_VERSION}",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One trace in short. Times are nanoseconds since 1970 UTC."""

    trace_id: str
    name: str
    start_ns: int
    end_ns: int
    spans: int
    errors: int
    logs: int


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span. Times are nanoseconds since 1970 UTC; status is OTLP's: 0 unset, 1 ok, 2 error."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogRow:
    """One log record. A ledger record has a ``record_id``; its exact line is the body.

    Attributes:
        conflict: Another record with the same id but another body was received: one of the two is not the ledger's.
    """

    record_id: str | None
    time_ns: int
    event: str
    severity: int
    trace_id: str | None
    span_id: str | None
    body: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    conflict: bool


class Store:
    """Spans and logs on disk (SQLite, write-ahead log, synchronous=FULL). Usable from several threads and processes.

    Args:
        directory: Made with mode 0700 when missing; the file in it has mode 0600.

    Raises:
        HostError: The directory or the file cannot be used.
    """

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory) / FILE_NAME
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise HostError(
                f"{self.path}: the collector cannot keep its data here: {error}",
                hint="choose a directory you can write to",
            ) from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._db.close()
            raise HostError(
                f"{self.path}: not a usable collector file: {error}", hint="move it away, a new one is made"
            ) from error
        except HostError:
            self._db.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            self._db.close()

    def add_spans(self, request: ExportTraceServiceRequest) -> None:
        """Keep spans, on disk when this returns. A span that is already there, by trace and span id, is left as it is.

        Raises:
            HostError: The spans could not be written; none of them is kept then.
        """
        self._insert("INSERT OR IGNORE INTO spans VALUES (?,?,?,?,?,?,?,?,?,?,?)", span_rows(request))

    def add_logs(self, request: ExportLogsServiceRequest) -> None:
        """Keep log records, on disk when this returns.

        A record with the ``audit.record.id`` and the body of an earlier one is left out. With the id but another body
        it is kept beside the first, and both are marked as a conflict.

        Raises:
            HostError: The records could not be written; none of them is kept then.
        """
        self._insert("INSERT OR IGNORE INTO logs VALUES (NULL,?,?,?,?,?,?,?,?,?,?)", log_rows(request))

    def runs(self, *, limit: int = 100) -> list[Run]:
        """Return the latest traces, newest first."""
        rows = self._select(
            """SELECT s.trace_id,
                coalesce(max(CASE WHEN s.parent_id IS NULL THEN s.name END), min(s.name)),
                min(s.start_ns), max(s.end_ns), count(*), sum(s.status = 2),
                (SELECT count(*) FROM logs l WHERE l.trace_id = s.trace_id)
            FROM spans s GROUP BY s.trace_id ORDER BY min(s.start_ns) DESC LIMIT ?""",
            (limit,),
        )
        return [Run(*row) for row in rows]

    def spans(self, trace_id: str) -> list[SpanRow]:
        """Return the spans of a trace, in order of their start."""
        rows = self._select(
            """SELECT trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, message, attributes, resource
            FROM spans WHERE trace_id = ? ORDER BY start_ns, span_id""",
            (trace_id.lower(),),
        )
        return [SpanRow(*_values(row, 9)) for row in rows]

    def logs(
        self,
        *,
        trace_id: str | None = None,
        event: str | None = None,
        record_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        since_ns: int | None = None,
        limit: int = 1000,
    ) -> list[LogRow]:
        """Return the latest log records that meet every filter, oldest first.

        Args:
            trace_id: 32 hexadecimal digits.
            event: Event name.
            record_id: ``<stream>/<seq>`` of a ledger record.
            attributes: Attributes with the text value they must have.
            since_ns: Earliest time, in nanoseconds since 1970 UTC.
            limit: How many at most.
        """
        tests: list[tuple[str, object]] = []
        if trace_id is not None:
            tests.append(("l.trace_id = ?", trace_id.lower()))
        if event is not None:
            tests.append(("l.event = ?", event))
        if record_id is not None:
            tests.append(("l.record_id = ?", record_id))
        if since_ns is not None:
            tests.append(("l.time_ns >= ?", since_ns))
        for name, value in (attributes or {}).items():
            tests.append(("EXISTS (SELECT 1 FROM json_each(l.attributes) j WHERE j.key = ? AND j.value = ?)", name))
            tests.append(("", value))
        where = " AND ".join(test for test, _ in tests if test) or "1"
        rows = self._select(
            f"""SELECT record_id, time_ns, event, severity, trace_id, span_id, body, attributes, resource,
                record_id IS NOT NULL AND EXISTS (
                    SELECT 1 FROM logs o WHERE o.record_id = l.record_id AND o.digest <> l.digest)
            FROM logs l WHERE {where} ORDER BY time_ns DESC, id DESC LIMIT ?""",  # noqa: S608 - only fixed texts are joined
            (*(value for _, value in tests), limit),
        )
        found = [LogRow(*_values(row, 7)) for row in rows]
        return found[::-1]

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for statement in _SCHEMA if version == 0 else ():
                self._db.execute(statement)
        if version not in {0, _VERSION}:
            raise HostError(
                f"{self.path}: made by another version of cedarbox (layout {version})",
                hint="use that version, or another directory",
            )

    def _insert(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        ready = list(rows)
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(statement, ready)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                if self._db_in_transaction():
                    self._db.execute("ROLLBACK")
                raise HostError(
                    f"{self.path}: could not be written: {error}", hint="free the disk or the file; the sender retries"
                ) from error

    def _db_in_transaction(self) -> bool:
        try:
            return self._db.in_transaction
        except sqlite3.Error:
            return False

    def _select(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise HostError(f"{self.path}: could not be read: {error}", hint="check the file") from error


def _values(row: tuple[Any, ...], texts: int) -> list[Any]:
    """Read the two JSON columns, attributes and resource, that follow the first columns; what comes then is a flag."""
    return [
        *row[:texts],
        *(orjson.loads(text) for text in row[texts : texts + 2]),
        *(bool(flag) for flag in row[texts + 2 :]),
    ]
