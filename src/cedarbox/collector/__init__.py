"""RECEIVES: the embedded OTLP receiver, its store, and what is shown of it."""

from cedarbox.collector.grpc import DEFAULT_GRPC_PORT
from cedarbox.collector.limits import Limits
from cedarbox.collector.queries import MAX_PAGE, Queries
from cedarbox.collector.retention import Retention
from cedarbox.collector.server import DEFAULT_PORT, EmbeddedCollector, serve
from cedarbox.collector.show import render_logs, render_runs, render_trace, show_logs, show_runs, show_trace
from cedarbox.collector.store import Store
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

__all__ = [
    "Connection",
    "Counts",
    "DEFAULT_GRPC_PORT",
    "DEFAULT_PORT",
    "Dropped",
    "EmbeddedCollector",
    "Limits",
    "LogRow",
    "MAX_PAGE",
    "Page",
    "Point",
    "Queries",
    "RecordFilter",
    "Retention",
    "Run",
    "Series",
    "SpanRow",
    "Store",
    "StreamState",
    "render_logs",
    "render_runs",
    "render_trace",
    "serve",
    "show_logs",
    "show_runs",
    "show_trace",
]
