"""Requests of OTLP for the tests of the collector, made of real records and by the real encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from cedarbox.audit.otlp import LedgerSource
from cedarbox.audit.record import GENESIS, Entry, format_time, seal

START_NS = 1_790_000_000_000_000_000
MILLISECOND = 1_000_000
STREAM = "20261123T000931123456Z-5f0c2a9e"


def text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def ledger_lines(entries: Iterable[Entry], *, first: int = 0) -> list[bytes]:
    """Seal entries to the lines of a stream, a millisecond apart."""
    lines, prev = [], GENESIS
    for seq, entry in enumerate(entries, first):
        record, line, _ = seal(entry, seq, format_time(START_NS + seq * MILLISECOND), prev)
        lines.append(line)
        prev = record.hash
    return lines


def ledger_request(
    lines: Sequence[bytes], stream: str = STREAM, *, ledger: str | None = None
) -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest.FromString(LedgerSource(Path("nowhere")).encode(lines, stream))
    if ledger is not None:
        request.resource_logs[0].resource.attributes.append(text("cedarbox.ledger.id", ledger))
    return request


def log_request(event: str, body: str, *, time_ns: int = START_NS, **attributes: str) -> ExportLogsServiceRequest:
    record = LogRecord(
        event_name=event,
        body=AnyValue(string_value=body),
        time_unix_nano=time_ns,
        attributes=[text(key.replace("__", "."), value) for key, value in attributes.items()],
    )
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])


def trace_request(*spans: Span, service: str = "tests") -> ExportTraceServiceRequest:
    resource = Resource(attributes=[text("service.name", service)])
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=list(spans))])]
    )


def span(trace: int, number: int, name: str, *, parent: int | None = None, error: bool = False) -> Span:
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent is not None else b"",
        name=name,
        start_time_unix_nano=START_NS + number * MILLISECOND,
        end_time_unix_nano=START_NS + (number + 5) * MILLISECOND,
        status=Status(code=Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET),
    )


def metric_request(*metrics: Metric) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=list(metrics))])]
    )


def gauge(name: str, value: float, time_ns: int = START_NS) -> Metric:
    return Metric(name=name, gauge=Gauge(data_points=[NumberDataPoint(time_unix_nano=time_ns, as_double=value)]))


def decision(number: int, **fields: Any) -> Entry:
    """A decision as the gate records it."""
    values: dict[str, Any] = {
        "session": "session-1",
        "run": "run-1",
        "trace_id": f"{1:032x}",
        "span_id": f"{number + 1:016x}",
        "principal": 'Cedarbox::Agent::"a"',
        "action": "exec",
        "resource": f'Cedarbox::Program::"/usr/bin/tool{number}"',
        "decision": "allow",
        "policies": ("permit-tools",),
    }
    return Entry(event="decision", **values | fields)
