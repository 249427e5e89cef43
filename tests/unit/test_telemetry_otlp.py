"""OTLP JSON and protobuf say the same."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from cedarbox.errors import ConfigurationError
from cedarbox.telemetry.otlp import from_json, from_protobuf, merge_traces, to_json

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_SIMPLE = st.one_of(
    _TEXT.map(lambda value: AnyValue(string_value=value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: AnyValue(int_value=value)),
    st.booleans().map(lambda value: AnyValue(bool_value=value)),
    st.floats(allow_nan=False).map(lambda value: AnyValue(double_value=value)),
    st.binary(max_size=12).map(lambda value: AnyValue(bytes_value=value)),
)
_KEYS = st.one_of(st.sampled_from(["traceId", "spanId", "parentSpanId", "links"]), _TEXT)


def _containers(values: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    pairs = st.builds(lambda key, value: KeyValue(key=key, value=value), _KEYS, values)
    return st.one_of(
        st.lists(values, max_size=3).map(lambda items: AnyValue(array_value=ArrayValue(values=items))),
        st.lists(pairs, max_size=3).map(lambda items: AnyValue(kvlist_value=KeyValueList(values=items))),
    )


_VALUES = st.recursive(_SIMPLE, _containers, max_leaves=5)
_ATTRIBUTES = st.lists(st.builds(lambda key, value: KeyValue(key=key, value=value), _KEYS, _VALUES), max_size=3)
_TRACE_ID = st.binary(min_size=16, max_size=16).filter(any)
_SPAN_ID = st.binary(min_size=8, max_size=8).filter(any)
_TIME = st.integers(0, 2**64 - 1)
_LINKS = st.builds(lambda trace, span: Span.Link(trace_id=trace, span_id=span), _TRACE_ID, _SPAN_ID)
_SPANS = st.builds(
    lambda trace, span, parent, name, kind, time, attributes, links, code: Span(
        trace_id=trace,
        span_id=span,
        parent_span_id=parent,
        name=name,
        kind=kind,
        start_time_unix_nano=time,
        attributes=attributes,
        links=links,
        status=Status(code=code),
    ),
    _TRACE_ID,
    _SPAN_ID,
    st.one_of(st.just(b""), _SPAN_ID),
    _TEXT,
    st.sampled_from(Span.SpanKind.values()),
    _TIME,
    _ATTRIBUTES,
    st.lists(_LINKS, max_size=2),
    st.sampled_from(Status.StatusCode.values()),
)
_LOGS = st.builds(
    lambda trace, span, name, time, body, attributes: LogRecord(
        trace_id=trace, span_id=span, event_name=name, time_unix_nano=time, body=body, attributes=attributes
    ),
    st.one_of(st.just(b""), _TRACE_ID),
    st.one_of(st.just(b""), _SPAN_ID),
    _TEXT,
    _TIME,
    _VALUES,
    _ATTRIBUTES,
)


def _traces(spans: list[Span]) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=Resource(), scope_spans=[ScopeSpans(spans=spans)])]
    )


def _logs(records: list[LogRecord]) -> ExportLogsServiceRequest:
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=records)])])


@given(st.lists(_SPANS, max_size=3))
def test_traces_survive_both_ways(spans: list[Span]) -> None:
    request = _traces(spans)
    line = to_json(request)
    assert b"\n" not in line
    assert from_json(line, ExportTraceServiceRequest) == request
    assert from_protobuf(request.SerializeToString(), ExportTraceServiceRequest) == request
    for span, document in zip(
        spans,
        (json.loads(line).get("resourceSpans", [{}])[0].get("scopeSpans", [{}])[0].get("spans", [])),
        strict=True,
    ):
        assert document["traceId"] == span.trace_id.hex()
        assert document["spanId"] == span.span_id.hex()


@given(st.lists(_LOGS, max_size=3))
def test_logs_survive_both_ways(records: list[LogRecord]) -> None:
    request = _logs(records)
    assert from_json(to_json(request), ExportLogsServiceRequest) == request
    assert from_protobuf(request.SerializeToString(), ExportLogsServiceRequest) == request


def test_the_example_of_the_specification_is_read() -> None:
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "my.library", "version": "1.0.0"},
                        "spans": [
                            {
                                "traceId": "5B8EFFF798038103D269B633813FC60C",
                                "spanId": "EEE19B7EC3C1B174",
                                "parentSpanId": "EEE19B7EC3C1B173",
                                "name": "I'm a server span",
                                "startTimeUnixNano": "1544712660000000000",
                                "endTimeUnixNano": "1544712661000000000",
                                "kind": 2,
                                "unknownField": {"traceId": 7},
                                "attributes": [{"key": "my.span.attr", "value": {"stringValue": "some value"}}],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    request = from_json(json.dumps(document).encode(), ExportTraceServiceRequest)
    (span,) = request.resource_spans[0].scope_spans[0].spans
    assert span.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert span.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.start_time_unix_nano == 1544712660000000000


def _span_json(**changes: object) -> bytes:
    span = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", **changes}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\x00", "not JSON"),
        (b"[]", "the JSON is not an object"),
        (b"{" * 5000, "not JSON"),
        (b'{"resourceSpans": 5}', "not an OTLP request"),
        (b'{"resourceSpans": [5]}', "not an OTLP request"),
        (b'{"resourceSpans": {"a": 1}}', "not an OTLP request"),
        (b'{"resourceSpans":[{"resource":{"attributes":' + b'[{"value":{"arrayValue":{"values":' * 300, "not JSON"),
        (_span_json(traceId="5b8e"), "traceId is not 32 hexadecimal digits"),
        (_span_json(traceId="W47/95gDgQPSabYzgT/GDA=="), "traceId is not 32 hexadecimal digits"),
        (_span_json(traceId=7), "traceId is not 32 hexadecimal digits"),
        (_span_json(spanId="zz"), "spanId is not 16 hexadecimal digits"),
        (_span_json(parentSpanId="00"), "parentSpanId is not 16 hexadecimal digits"),
        (_span_json(traceId="0" * 32), "no valid trace id"),
        (_span_json(traceId=None), "no valid trace id"),
        (_span_json(startTimeUnixNano="yesterday"), "not an OTLP request"),
        (_span_json(kind=[]), "not an OTLP request"),
        (_span_json().replace(b"traceId", b"trace_id"), "no valid trace id"),
        (_span_json().replace(b"resourceSpans", b"resource_spans"), "no valid trace id"),
    ],
)
def test_bad_json_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        from_json(data, ExportTraceServiceRequest)
    assert reason in caught.value.message
    assert "\n" not in caught.value.message


def test_deep_nesting_is_refused() -> None:
    deep = b'{"arrayValue":{"values":[' * 200 + b"]}}" * 200
    data = b'{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":' + deep + b"}]}}]}"
    with pytest.raises(ConfigurationError):
        from_json(data, ExportTraceServiceRequest)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (from_json, from_protobuf):
        with suppress(ConfigurationError):
            assert isinstance(read(data, ExportTraceServiceRequest), ExportTraceServiceRequest)
        with suppress(ConfigurationError):
            assert isinstance(read(data, ExportLogsServiceRequest), ExportLogsServiceRequest)


def test_wrong_ids_in_protobuf_are_refused() -> None:
    for span in (Span(trace_id=b"1" * 16), Span(trace_id=b"1" * 15, span_id=b"1" * 8), Span(span_id=b"1" * 8)):
        with pytest.raises(ConfigurationError, match="no valid trace id"):
            from_protobuf(_traces([span]).SerializeToString(), ExportTraceServiceRequest)
    with pytest.raises(ConfigurationError, match="of wrong length"):
        from_protobuf(_logs([LogRecord(trace_id=b"1")]).SerializeToString(), ExportLogsServiceRequest)


def test_merging_leaves_out_what_cannot_be_read() -> None:
    good = to_json(_traces([Span(trace_id=b"1" * 16, span_id=b"2" * 8, name="good")]))
    merged = merge_traces([b'{"torn', good, b"", good])
    assert [span.scope_spans[0].spans[0].name for span in merged.resource_spans] == ["good", "good"]
