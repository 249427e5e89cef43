"""RECEIVES: the embedded OTLP receiver, its store, and what is shown of it."""

from cedarbox.collector.server import DEFAULT_PORT, EmbeddedCollector, serve
from cedarbox.collector.show import render_logs, render_runs, render_trace, show_logs, show_runs, show_trace
from cedarbox.collector.store import LogRow, Run, SpanRow, Store

__all__ = [
    "DEFAULT_PORT",
    "EmbeddedCollector",
    "LogRow",
    "Run",
    "SpanRow",
    "Store",
    "render_logs",
    "render_runs",
    "render_trace",
    "serve",
    "show_logs",
    "show_runs",
    "show_trace",
]
