"""OTLP logs and traces as rows of the store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

__all__ = ["MAX_INTEGER", "RECORD_ID", "LogInput", "SpanInput", "as_json", "log_inputs", "span_inputs"]

RECORD_ID: Final = "audit.record.id"
"""Attribute that names a ledger record, ``<stream>/<seq>`` (OpenTelemetry audit logging draft)."""

MAX_INTEGER: Final = 2**63 - 1
"""SQLite integers are signed; an OTLP time beyond the year 2262 is cut to this."""

_LEDGER: Final = "cedarbox.ledger.id"
_CHECKPOINT: Final = "checkpoint"
_LINE_KEYS: Final = frozenset({"event", "hash", "prev", "seq", "time"})
"""What a body must have to be taken for a line of the ledger. Whether it is an honest one, the verifier says."""


@dataclass(frozen=True, slots=True)
class SpanInput:
    """One span as it goes into the store. Times are nanoseconds since 1970 UTC.

    Attributes:
        events: JSON array of objects with ``time_ns``, ``name`` and ``attributes``; None without events.
        links: JSON array of objects with ``trace_id``, ``span_id`` and ``attributes``; None without links.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: str
    events: str | None
    links: str | None
    resource: str


@dataclass(frozen=True, slots=True)
class LogInput:
    """One log record as it goes into the store. Times are nanoseconds since 1970 UTC.

    Attributes:
        ledger: Id of the ledger that the sender names; empty when it names none.
        line: The fields of the ledger line that is its body; empty when the body is none.
        stream: Stream of a ledger record or of a checkpoint.
        seq: Place in the stream; of a checkpoint its size.
    """

    ledger: str
    record_id: str | None
    digest: bytes
    time_ns: int
    event: str
    severity: int
    trace_id: str | None
    span_id: str | None
    body: str
    attributes: str
    resource: str
    line: dict[str, Any]
    stream: str | None
    seq: int | None
    kind: str | None


def span_inputs(request: ExportTraceServiceRequest) -> Iterator[SpanInput]:
    """Give the spans of a request."""
    for outer in request.resource_spans:
        resource = as_json(outer.resource.attributes)
        for inner in outer.scope_spans:
            for span in inner.spans:
                yield SpanInput(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex() if any(span.parent_span_id) else None,
                    span.name,
                    span.kind,
                    min(span.start_time_unix_nano, MAX_INTEGER),
                    min(span.end_time_unix_nano, MAX_INTEGER),
                    span.status.code,
                    span.status.message,
                    as_json(span.attributes),
                    _events(span),
                    _links(span),
                    resource,
                )


def log_inputs(request: ExportLogsServiceRequest) -> Iterator[LogInput]:
    """Give the log records of a request."""
    for outer in request.resource_logs:
        about = _mapping(outer.resource.attributes)
        resource = orjson.dumps(about).decode()
        ledger = about.get(_LEDGER)
        for inner in outer.scope_logs:
            for record in inner.log_records:
                yield _log(record, resource, ledger if isinstance(ledger, str) else "")


def as_json(attributes: Iterable[KeyValue]) -> str:
    """Give attributes as one JSON object; bytes are hexadecimal there, and infinities and NaN are texts."""
    return orjson.dumps(_mapping(attributes)).decode()


def _events(span: Span) -> str | None:
    events = [
        {
            "time_ns": min(event.time_unix_nano, MAX_INTEGER),
            "name": event.name,
            "attributes": _mapping(event.attributes),
        }
        for event in span.events
    ]
    return orjson.dumps(events).decode() if events else None


def _links(span: Span) -> str | None:
    links = [
        {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(), "attributes": _mapping(link.attributes)}
        for link in span.links
    ]
    return orjson.dumps(links).decode() if links else None


def _log(record: LogRecord, resource: str, ledger: str) -> LogInput:
    attributes = _mapping(record.attributes)
    body = _value(record.body)
    text = body if isinstance(body, str) else orjson.dumps(body).decode()
    found = attributes.get(RECORD_ID)
    record_id = found if isinstance(found, str) else None
    stream, seq, kind, line = _place(record_id, text, record.event_name)
    return LogInput(
        ledger,
        record_id,
        sha256(text.encode()).digest(),
        min(record.time_unix_nano or record.observed_time_unix_nano, MAX_INTEGER),
        f"cedarbox.{kind}" if kind else record.event_name,
        record.severity_number,
        record.trace_id.hex() if any(record.trace_id) else _text(line, "trace_id"),
        record.span_id.hex() if any(record.span_id) else _text(line, "span_id"),
        text,
        orjson.dumps(attributes).decode(),
        resource,
        line,
        stream,
        seq,
        kind,
    )


def _place(record_id: str | None, body: str, event: str) -> tuple[str | None, int | None, str | None, dict[str, Any]]:
    """Give stream, place in it, event and line of a ledger record or a checkpoint, by its id; nothing for others."""
    if record_id is None:
        return None, None, None, {}
    stream, _, number = record_id.rpartition("/")
    if not stream or not number.isdecimal() or len(number) > 16:
        return None, None, None, {}
    if event == "cedarbox.checkpoint":
        of, _, word = stream.rpartition("/")
        return (of, int(number), _CHECKPOINT, {}) if of and word == _CHECKPOINT else (None, None, None, {})
    try:
        line = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, None, None, {}
    if not isinstance(line, dict) or not line.keys() >= _LINE_KEYS or line["seq"] != int(number):
        return None, None, None, {}
    kind = line["event"]
    return (stream, int(number), kind, line) if isinstance(kind, str) else (None, None, None, {})


def _text(line: dict[str, Any], key: str) -> str | None:
    value = line.get(key)
    return value if isinstance(value, str) else None


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
        case "double_value":
            number = value.double_value
            return number if math.isfinite(number) else str(number)
        case _:
            return getattr(value, kind)
