"""OTLP requests as rows of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = ["RECORD_ID", "log_rows", "span_rows"]

RECORD_ID: Final = "audit.record.id"
"""Attribute that names a ledger record, ``<stream>/<seq>`` (OpenTelemetry audit logging draft)."""

_MAX_INTEGER: Final = 2**63 - 1
"""SQLite integers are signed; an OTLP time beyond the year 2262 is cut to this."""


def span_rows(request: ExportTraceServiceRequest) -> Iterator[tuple[object, ...]]:
    """Yield (trace_id, span_id, parent_id, name, kind, start_ns, end_ns, status, message, attributes, resource)."""
    for outer in request.resource_spans:
        resource = _json(outer.resource.attributes)
        for inner in outer.scope_spans:
            for span in inner.spans:
                yield (
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() if any(span.parent_span_id) else None,
                    span.name,
                    span.kind,
                    min(span.start_time_unix_nano, _MAX_INTEGER),
                    min(span.end_time_unix_nano, _MAX_INTEGER),
                    span.status.code,
                    span.status.message,
                    _json(span.attributes),
                    resource,
                )


def log_rows(request: ExportLogsServiceRequest) -> Iterator[tuple[object, ...]]:
    """Yield (record_id, digest, time_ns, event, severity, trace_id, span_id, body, attributes, resource)."""
    for outer in request.resource_logs:
        resource = _json(outer.resource.attributes)
        for inner in outer.scope_logs:
            for record in inner.log_records:
                attributes = _mapping(record.attributes)
                body = _value(record.body)
                text = body if isinstance(body, str) else orjson.dumps(body).decode()
                record_id = attributes.get(RECORD_ID)
                yield (
                    record_id if isinstance(record_id, str) else None,
                    sha256(text.encode()).hexdigest(),
                    min(record.time_unix_nano or record.observed_time_unix_nano, _MAX_INTEGER),
                    record.event_name,
                    record.severity_number,
                    record.trace_id.hex() if any(record.trace_id) else None,
                    record.span_id.hex() if any(record.span_id) else None,
                    text,
                    orjson.dumps(attributes).decode(),
                    resource,
                )


def _json(attributes: Iterable[KeyValue]) -> str:
    return orjson.dumps(_mapping(attributes)).decode()


def _mapping(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {item.key: _value(item.value) for item in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    match kind:
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _mapping(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case _:
            return getattr(value, kind)
