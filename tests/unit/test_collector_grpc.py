"""The embedded collector by gRPC, and the exporters of OpenTelemetry itself for all three signals."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.unit.collected import decision, gauge, ledger_lines, ledger_request, metric_request, span, trace_request

from cedarbox.collector import EmbeddedCollector, Store
from cedarbox.errors import ConfigurationError, HostError


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[EmbeddedCollector]:
    with EmbeddedCollector(tmp_path / "store", port=0, grpc_port=0) as running:
        yield running


@pytest.fixture
def channel(collector: EmbeddedCollector) -> Iterator[grpc.Channel]:
    assert collector.grpc_endpoint is not None
    with grpc.insecure_channel(collector.grpc_endpoint) as made:
        yield made


def stub(kind: Any, channel: grpc.Channel) -> Any:
    return kind(channel)


def test_every_signal_is_taken_by_the_stubs_of_opentelemetry(
    collector: EmbeddedCollector, channel: grpc.Channel
) -> None:
    logs = ledger_request(ledger_lines([decision(0)]))
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        assert not stub(LogsServiceStub, channel).Export(logs, compression=compression).HasField("partial_success")
        stub(TraceServiceStub, channel).Export(trace_request(span(1, 1, "op")), compression=compression)
        stub(MetricsServiceStub, channel).Export(metric_request(gauge("g", 0.5)), compression=compression)
    counts = collector.store.queries.counts()
    assert (counts.records, counts.spans, counts.points, counts.conflicts) == (1, 1, 1, 0)


def test_what_cannot_be_read_is_the_fault_of_the_sender(collector: EmbeddedCollector, channel: grpc.Channel) -> None:
    path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
    raw: Any = channel
    calls: dict[str, Callable[[], object]] = {
        "not an OTLP request": lambda: raw.unary_unary(path)(b"\xff\xff"),
        "no valid trace id": lambda: raw.unary_unary(path)(trace_request(span(0, 1, "zeros")).SerializeToString()),
        "one message": lambda: raw.stream_unary(path)(iter([])),
        "is one message": lambda: raw.stream_unary(path)(iter([b"", b""])),
    }
    for reason, call in calls.items():
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason in (refused.value.details() or "")
    with pytest.raises(grpc.RpcError) as unknown:
        raw.unary_unary("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export")(b"")
    assert unknown.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert collector.store.queries.counts().spans == 0


def test_unix_sockets_are_closed_to_other_users(tmp_path: Path) -> None:
    http, rpc = tmp_path / "run" / "http.sock", tmp_path / "run" / "grpc.sock"
    for _ in range(2):
        with EmbeddedCollector(tmp_path / "store", port=0, http_socket=http, grpc_socket=rpc) as collector:
            assert collector.grpc_endpoint is None
            assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
            assert {stat.S_IMODE(path.stat().st_mode) for path in (http, rpc)} == {0o600}
            with grpc.insecure_channel(f"unix:{rpc}") as channel:
                stub(TraceServiceStub, channel).Export(trace_request(span(1, 1, "grpc")))
            import httpx

            with httpx.Client(transport=httpx.HTTPTransport(uds=str(http)), trust_env=False, timeout=60) as client:
                content = trace_request(span(1, 2, "http")).SerializeToString()
                headers = {"content-type": "application/x-protobuf"}
                assert client.post("http://localhost/v1/traces", content=content, headers=headers).is_success
            assert [row.name for row in collector.store.spans(f"{1:032x}")] == ["grpc", "http"]
            with pytest.raises(HostError, match="listens there already"):
                EmbeddedCollector(tmp_path / "other", port=0, http_socket=http).start()
    (tmp_path / "run").chmod(0o755)
    for name in ("http_socket", "grpc_socket"):
        with pytest.raises(HostError, match="other users can reach"):
            EmbeddedCollector(tmp_path / "other", port=0, **{name: tmp_path / "run" / "x"}).start()  # type: ignore[arg-type]


def test_a_port_that_is_taken_is_named(collector: EmbeddedCollector, tmp_path: Path) -> None:
    port = int((collector.grpc_endpoint or "").rpartition(":")[2])
    with pytest.raises(HostError, match=f"port {port} for gRPC"):
        EmbeddedCollector(tmp_path / "second", port=0, grpc_port=port).start()
    with pytest.raises(ConfigurationError, match="70000 is not a TCP port"):
        EmbeddedCollector(tmp_path, grpc_port=70000)


def exporters(collector: EmbeddedCollector, protocol: str) -> tuple[Any, Any, Any]:
    if protocol == "grpc":
        options: dict[str, Any] = {"endpoint": collector.grpc_endpoint, "insecure": True}
        return GrpcSpanExporter(**options), GrpcLogExporter(**options), GrpcMetricExporter(**options)
    url = collector.url
    return (
        OTLPSpanExporter(endpoint=f"{url}/v1/traces"),
        OTLPLogExporter(endpoint=f"{url}/v1/logs"),
        OTLPMetricExporter(endpoint=f"{url}/v1/metrics"),
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_exporters_of_opentelemetry(collector: EmbeddedCollector, protocol: str) -> None:
    spans, logs, metrics = exporters(collector, protocol)
    resource = Resource({"service.name": "other"})
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    view = View(instrument_name="fine", aggregation=ExponentialBucketHistogramAggregation())
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=1e9)
    meters = MeterProvider([reader], resource=resource, views=[view], shutdown_on_exit=False)
    with tracers.get_tracer("t").start_as_current_span("outer") as outer:
        loggers.get_logger("t").emit(body={"deep": [1, b"x"]}, event_name="thing.happened", attributes={"a": 1})
    meter = meters.get_meter("t")
    meter.create_counter("calls", unit="1", description="calls made").add(2, {"who": "a"})
    meter.create_gauge("level").set(1.5)
    for value in (1.0, 7.0, 300.0):
        meter.create_histogram("coarse").record(value)
        meter.create_histogram("fine").record(value)
    for provider in (tracers, loggers, meters):
        assert provider.force_flush() is not False
        provider.shutdown()
    queries = collector.store.queries
    trace_id = f"{outer.get_span_context().trace_id:032x}"
    assert [row.name for row in queries.spans(trace_id)] == ["outer"]
    (log,) = queries.records().rows
    assert (log.event, log.trace_id, log.body, log.attributes) == (
        "thing.happened",
        trace_id,
        '{"deep":[1,"78"]}',
        {"a": 1},
    )
    found = {series.name: series for series in queries.series()}
    assert {name: series.kind for name, series in found.items() if not name.startswith("otel.")} == {
        "calls": "sum",
        "coarse": "histogram",
        "fine": "exponential_histogram",
        "level": "gauge",
    }
    calls = found["calls"]
    assert (calls.monotonic, calls.temporality, calls.unit, calls.description) == (True, 2, "1", "calls made")
    assert (calls.attributes, calls.resource) == ({"who": "a"}, {"service.name": "other"})
    point = queries.points(calls.id)[-1]
    assert (point.value, point.count) == (2.0, None)
    coarse = queries.points(found["coarse"].id)[-1]
    assert (coarse.value, coarse.count, sum(coarse.detail["counts"])) == (308.0, 3, 3)
    assert (coarse.detail["min"], coarse.detail["max"]) == (1.0, 300.0)
    fine = queries.points(found["fine"].id)[-1]
    assert sum(fine.detail["positive"]["counts"]) == 3


def test_a_gap_that_grpc_left_is_closed_by_http(tmp_path: Path, collector: EmbeddedCollector) -> None:
    import httpx

    lines = ledger_lines(decision(number) for number in range(6))
    with grpc.insecure_channel(collector.grpc_endpoint or "") as channel:
        stub(LogsServiceStub, channel).Export(ledger_request(lines[3:]))
    with Store(tmp_path / "store") as other:
        assert other.queries.streams()[0].gaps == ((0, 2),)
        content = ledger_request(lines[:4]).SerializeToString()
        headers = {"content-type": "application/x-protobuf"}
        where = f"{collector.url}/v1/logs"
        httpx.post(where, content=content, headers=headers, trust_env=False, timeout=60).raise_for_status()
        assert (other.queries.streams()[0].records, other.queries.streams()[0].gaps) == (6, ())
