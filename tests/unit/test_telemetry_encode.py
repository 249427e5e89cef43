"""Our own encoding of a span says what OpenTelemetry's encoder says."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceState,
    set_span_in_context,
)

from cedarbox.telemetry.encode import span_line
from cedarbox.telemetry.otlp import from_json

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_VALUES = st.one_of(
    _TEXT,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=8),
    st.lists(_TEXT, max_size=3),
    st.lists(st.integers(-5, 5), max_size=3),
)
_ATTRIBUTES = st.dictionaries(_TEXT.filter(bool), _VALUES, max_size=4)
_PROVIDER = TracerProvider(sampler=ALWAYS_ON, resource=Resource({"service.name": "s", "n": 1}), shutdown_on_exit=False)
_TRACER = _PROVIDER.get_tracer("scope", "1.2", schema_url="https://schema.example/1")
_PARENT = SpanContext(5, 7, is_remote=True, trace_state=TraceState([("a", "b")]))


def _read(span: ReadableSpan) -> ExportTraceServiceRequest:
    line = span_line(span)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return from_json(line, ExportTraceServiceRequest)


@given(_TEXT, st.sampled_from(SpanKind), _ATTRIBUTES, st.booleans(), st.sampled_from(StatusCode), _TEXT)
def test_it_equals_the_encoder_of_opentelemetry(
    name: str, kind: SpanKind, attributes: dict[str, Any], child: bool, code: StatusCode, message: str
) -> None:
    context = set_span_in_context(NonRecordingSpan(_PARENT)) if child else None
    span = _TRACER.start_span(name, context, kind, attributes, links=[Link(_PARENT, {"l": 1})] if child else [])
    span.add_event("event", attributes)
    span.set_status(Status(code, message if code is StatusCode.ERROR else None))
    span.end()
    assert isinstance(span, ReadableSpan)
    assert _read(span) == encode_spans([span])


def test_text_that_is_not_unicode_is_kept_readable() -> None:
    span = _TRACER.start_span("bad \udc80", attributes={"path": "a\udcffb", "good": "x"})
    span.end()
    assert isinstance(span, ReadableSpan)
    (kept,) = _read(span).resource_spans[0].scope_spans[0].spans
    assert kept.name == "bad ?"
    assert {item.key: item.value.string_value for item in kept.attributes} == {"path": "a?b", "good": "x"}


def test_numbers_that_json_or_int64_cannot_hold() -> None:
    attributes = {"big": 2**70, "inf": float("inf"), "low": float("-inf"), "nan": float("nan")}
    span = _TRACER.start_span("numbers", attributes=attributes)
    span.end()
    assert isinstance(span, ReadableSpan)
    (kept,) = _read(span).resource_spans[0].scope_spans[0].spans
    values = {item.key: item.value for item in kept.attributes}
    assert values["big"].string_value == str(2**70)
    assert values["inf"].double_value == float("inf")
    assert values["low"].double_value == float("-inf")
    assert str(values["nan"].double_value) == "nan"
