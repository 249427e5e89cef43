"""Where the embedded collector keeps spans, log records and metrics: one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cedarbox.collector.metrics import metric_inputs
from cedarbox.collector.queries import Queries
from cedarbox.collector.rows import log_inputs, span_inputs
from cedarbox.collector.schema import FILE_NAME, open_writer
from cedarbox.collector.views import LogRow, RecordFilter, Run, SpanRow
from cedarbox.collector.writing import insert_logs, insert_points, insert_spans
from cedarbox.errors import HostError

__all__ = ["FILE_NAME", "LogRow", "Run", "SpanRow", "Store"]

_FILTERED: Final = 10_000
"""Records that are read to find those with an attribute."""


class Store:
    """Spans, log records and metrics on disk (SQLite, write-ahead log, synchronous=FULL).

    Usable from several threads and processes.

    Args:
        directory: Made with mode 0700 when missing; the file in it has mode 0600.

    Attributes:
        path: The file.
        queries: What can be asked of it.

    Raises:
        HostError: The directory or the file cannot be used, or another version of cedarbox made the file.
    """

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory) / FILE_NAME
        self._lock = threading.Lock()
        self._db = open_writer(self.path)
        self.queries = Queries(self.path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        self.queries.close()
        with self._lock:
            self._db.close()

    def add_spans(self, request: ExportTraceServiceRequest) -> None:
        """Keep spans, on disk when this returns. A span that is already there, by trace and span id, is left as it is.

        Raises:
            HostError: The spans could not be written; none of them is kept then.
        """
        ready = list(span_inputs(request))
        self.write(lambda db: insert_spans(db, ready, time_ns()))

    def add_logs(self, request: ExportLogsServiceRequest) -> None:
        """Keep log records, on disk when this returns.

        A record with the ``audit.record.id`` and the body of an earlier one is left out. With the id but another body
        it is kept beside the first, and both are marked as a conflict. Ids are told apart by the ledger that the
        resource names (``cedarbox.ledger.id``).

        Raises:
            HostError: The records could not be written; none of them is kept then.
        """
        ready = list(log_inputs(request))
        self.write(lambda db: insert_logs(db, ready, time_ns()))

    def add_metrics(self, request: ExportMetricsServiceRequest) -> None:
        """Keep the points of metrics, on disk when this returns. A second one of a series and time is left out.

        Raises:
            HostError: The points could not be written; none of them is kept then.
        """
        ready = list(metric_inputs(request))
        self.write(lambda db: insert_points(db, ready, time_ns()))

    def write(self, change: Callable[[sqlite3.Connection], int]) -> int:
        """Do something in a transaction, on disk when this returns.

        Returns:
            What it gave.

        Raises:
            HostError: It could not be written; nothing of it is kept then.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                result = change(self._db)
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                raise HostError(
                    f"{self.path}: could not be written: {error}", hint="free the disk or the file; the sender retries"
                ) from error
            except BaseException:
                self._roll_back()
                raise
            return result

    def outside(self, statement: str) -> None:
        """Run a statement that must stand outside of a transaction, such as ``PRAGMA incremental_vacuum``.

        Raises:
            HostError: It failed.
        """
        with self._lock:
            try:
                self._db.execute(statement).fetchall()
            except sqlite3.Error as error:
                raise HostError(f"{self.path}: could not be written: {error}", hint="check the disk") from error

    def pragma(self, name: str) -> int:
        """Give the number that a pragma of SQLite holds, such as ``page_count``.

        Raises:
            HostError: It cannot be read.
        """
        with self._lock:
            try:
                (row,) = self._db.execute(f"PRAGMA {name}").fetchall()
            except sqlite3.Error as error:
                raise HostError(f"{self.path}: could not be read: {error}", hint="check the file") from error
            return int(row[0])

    def runs(self, *, limit: int = 100) -> list[Run]:
        """Return the latest traces, newest first."""
        return self.queries.runs(limit=limit).rows

    def spans(self, trace_id: str) -> list[SpanRow]:
        """Return the spans of a trace, in order of their start."""
        return self.queries.spans(trace_id)

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
            attributes: Attributes with the text value they must have, among the latest 10,000 that meet the rest.
            since_ns: Earliest time, in nanoseconds since 1970 UTC.
            limit: How many at most.
        """
        where = RecordFilter(trace_id=trace_id, event=event, since_ns=since_ns)
        if record_id is not None:
            rows = [
                row
                for row in self.queries.record(record_id)
                if trace_id in {None, row.trace_id} and event in {None, row.event} and row.time_ns >= (since_ns or 0)
            ]
        else:
            rows = self._latest(where, _FILTERED if attributes else limit)[::-1]
        wanted = (attributes or {}).items()
        return [row for row in rows if all(row.attributes.get(name) == value for name, value in wanted)][-limit:]

    def _latest(self, where: RecordFilter, limit: int) -> list[LogRow]:
        rows: list[LogRow] = []
        cursor = None
        while len(rows) < limit:
            page = self.queries.records(where, limit=limit - len(rows), cursor=cursor)
            rows += page.rows
            cursor = page.next
            if cursor is None:
                break
        return rows

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            return
