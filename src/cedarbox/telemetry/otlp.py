"""OTLP requests as JSON and as protobuf, in both directions.

The JSON form differs from protobuf's own JSON in two points (OTLP 1.9, "JSON Protobuf Encoding"): trace and span ids
are hexadecimal, not base64, and enums are numbers. Everything else, such as 64-bit integers as strings and bytes in
base64, is protobuf's.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cedarbox.errors import ConfigurationError

__all__ = ["from_json", "from_protobuf", "merge_traces", "to_json"]

_Request = TypeVar("_Request", ExportTraceServiceRequest, ExportLogsServiceRequest, ExportMetricsServiceRequest)

_JSON_DEPTH: Final = 100
"""Deepest JSON that protobuf's parser takes (its default)."""

_HEX: Final = {"traceId": re.compile(r"(?:[0-9a-fA-F]{32})?"), "spanId": re.compile(r"(?:[0-9a-fA-F]{16})?")}


def to_json(request: Message) -> bytes:
    """Return an export request as one line of OTLP/JSON, without a line feed.

    Args:
        request: An ``ExportTraceServiceRequest`` or ``ExportLogsServiceRequest``.
    """
    document = json_format.MessageToDict(request, use_integers_for_enums=True)
    for holder, key, _ in _ids(document):
        holder[key] = base64.b64decode(holder[key]).hex()
    return orjson.dumps(document)


def from_json(data: bytes, kind: type[_Request]) -> _Request:
    """Read an export request from OTLP/JSON. Unknown fields are ignored, as OTLP demands.

    Args:
        data: The JSON text in UTF-8.
        kind: The message class to read.

    Raises:
        ConfigurationError: The data is not such a request; the message says what is wrong.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigurationError("not an OTLP request: the JSON is not an object")
    for holder, key, shape in _ids(document):
        holder[key] = _base64_of(holder[key], key, shape)
    message = kind()
    try:
        json_format.ParseDict(document, message, ignore_unknown_fields=True, max_recursion_depth=_JSON_DEPTH)
    except (json_format.ParseError, RecursionError, ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ConfigurationError(f"not an OTLP request: {_first_line(error)}") from error
    _check_ids(message)
    return message


def from_protobuf(data: bytes, kind: type[_Request]) -> _Request:
    """Read an export request from protobuf.

    Raises:
        ConfigurationError: The data is not such a request, or an id in it has the wrong length.
    """
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError) as error:
        raise ConfigurationError(f"not an OTLP request: {_first_line(error)}") from error
    _check_ids(message)
    return message


def merge_traces(lines: Iterable[bytes]) -> ExportTraceServiceRequest:
    """Join lines of OTLP/JSON traces into one request. Lines that cannot be read are left out."""
    merged = ExportTraceServiceRequest()
    for line in lines:
        try:
            merged.MergeFrom(from_json(line, ExportTraceServiceRequest))
        except ConfigurationError:
            continue
    return merged


def _base64_of(value: object, key: str, shape: re.Pattern[str]) -> str:
    if not isinstance(value, str) or not shape.fullmatch(value):
        digits = 32 if shape is _HEX["traceId"] else 16
        raise ConfigurationError(f"not an OTLP request: {key} is not {digits} hexadecimal digits")
    return base64.b64encode(bytes.fromhex(value)).decode("ascii")


def _ids(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, re.Pattern[str]]]:
    """Find the ids by their place in the schema: an attribute may well be called traceId too."""
    for span in _items(document, "resourceSpans", "scopeSpans", "spans"):
        yield from _keys(span, parent=True)
        for link in _listed(span, "links"):
            yield from _keys(link)
    for record in _items(document, "resourceLogs", "scopeLogs", "logRecords"):
        yield from _keys(record)


def _keys(holder: dict[str, Any], *, parent: bool = False) -> Iterator[tuple[dict[str, Any], str, re.Pattern[str]]]:
    for key in ("traceId", "spanId", "parentSpanId") if parent else ("traceId", "spanId"):
        if holder.get(key) is not None:
            yield holder, key, _HEX["traceId" if key == "traceId" else "spanId"]


def _check_ids(message: Message) -> None:
    """Refuse ids of a wrong length (trace 16 bytes, span 8, W3C Trace Context §3.2.2), and spans without ids."""
    if isinstance(message, ExportTraceServiceRequest):
        spans = (span for outer in message.resource_spans for inner in outer.scope_spans for span in inner.spans)
        for span in spans:
            good = len(span.trace_id) == 16 and len(span.span_id) == 8 and len(span.parent_span_id) in {0, 8}
            if not good or not any(span.trace_id) or not any(span.span_id):
                raise ConfigurationError("not an OTLP request: a span has no valid trace id, span id or parent")
    elif isinstance(message, ExportLogsServiceRequest):
        records = (item for outer in message.resource_logs for inner in outer.scope_logs for item in inner.log_records)
        for record in records:
            if len(record.trace_id) not in {0, 16} or len(record.span_id) not in {0, 8}:
                raise ConfigurationError("not an OTLP request: a log record has a trace or span id of wrong length")


def _items(document: dict[str, Any], *path: str) -> list[dict[str, Any]]:
    found = [document]
    for key in path:
        found = [item for holder in found for item in _listed(holder, key)]
    return found


def _listed(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = holder.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0][:200] or type(error).__name__
