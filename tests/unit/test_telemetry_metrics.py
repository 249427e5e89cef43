"""Metrics on disk: what is counted, that it is counted once, and that nothing of the environment stops it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from tests.unit.forking import fork

from cedarbox.telemetry.metrics import METRICS, Metrics
from cedarbox.telemetry.otlp import from_json
from cedarbox.telemetry.spans import Telemetry

_ATTRIBUTES = {
    name: {part if "." in part else f"cedarbox.{part}" for part in about.split(", ") if part}
    for name, (_, _, about, _) in METRICS.items()
}


def _made(directory: Path, **options: Any) -> Metrics:
    return Metrics(directory=directory, resource={"service.name": "test"}, interval_s=3600, **options)


def _requests(directory: Path) -> list[ExportMetricsServiceRequest]:
    lines = [line for path in sorted(directory.glob("metrics-*.jsonl")) for line in path.read_bytes().splitlines()]
    return [from_json(line, ExportMetricsServiceRequest) for line in lines]


def _metrics(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    return {m.name: m for outer in request.resource_metrics for inner in outer.scope_metrics for m in inner.metrics}


def _points(metric: Metric) -> dict[tuple[str, ...], float]:
    if metric.HasField("histogram"):
        return {
            tuple(sorted(a.value.string_value for a in point.attributes)): point.count
            for point in metric.histogram.data_points
        }
    return {
        tuple(sorted(a.value.string_value for a in point.attributes)): point.as_int for point in metric.sum.data_points
    }


def _everything(metrics: Metrics) -> None:
    metrics.decided("exec", "allow", 0.002)
    metrics.decided("connect", "deny", 0.002)
    metrics.operated("exec", "ok", 0.2)
    metrics.carried(bytes_in=70, bytes_out=7)
    metrics.connections(1)
    metrics.sandboxes(1)
    metrics.inferred(provider="_OTHER", model="m", seconds=1.5, error=None, usage=(11, 3))
    metrics.inferred(provider="_OTHER", model="m", seconds=1.5, error="timeout", usage=None)
    metrics.observe(records=lambda: 42, pending=lambda: 5)


def test_every_instrument_is_written_as_the_table_says(tmp_path: Path) -> None:
    metrics = _made(tmp_path)
    _everything(metrics)
    metrics.close()
    (request,) = _requests(tmp_path)
    found = _metrics(request)
    assert set(found) == set(METRICS)
    for name, metric in found.items():
        kind, unit, _, told = METRICS[name]
        assert (metric.unit, metric.description) == (unit, told)
        data = metric.histogram if kind == "histogram" else metric.sum
        assert data.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
        assert metric.HasField("histogram") is (kind == "histogram")
        assert kind == "histogram" or metric.sum.is_monotonic is (kind == "counter")
        keys = {item.key for point in data.data_points for item in point.attributes}
        assert keys <= _ATTRIBUTES[name]
        assert all(0 < point.start_time_unix_nano <= point.time_unix_nano for point in data.data_points)
        assert not any(point.exemplars for point in data.data_points)
    assert _points(found["cedarbox.decisions"]) == {("allow", "exec"): 1, ("connect", "deny"): 1}
    assert _points(found["cedarbox.denials"]) == {("connect",): 1}
    assert _points(found["cedarbox.egress.bytes"]) == {("in",): 70, ("out",): 7}
    assert _points(found["cedarbox.ledger.records"]) == {(): 42}
    assert _points(found["gen_ai.client.inference.usage.input_tokens"]) == {("_OTHER", "chat", "m"): 11}
    spread = found["gen_ai.client.inference.duration"].histogram.data_points[0]
    assert sum(spread.bucket_counts) == spread.count == 1
    assert len(spread.bucket_counts) == len(spread.explicit_bounds) + 1


def test_nothing_is_written_when_nothing_changed(tmp_path: Path) -> None:
    metrics = _made(tmp_path)
    metrics.flush()
    assert metrics.path is None
    pending = [0]
    metrics.observe(pending=lambda: pending[0])
    metrics.sandboxes(1)
    metrics.decided("exec", "allow", 0.1)
    metrics.flush()
    metrics.flush()
    pending[0] = 9
    metrics.flush()
    assert len(_requests(tmp_path)) == 1
    metrics.sandboxes(-1)
    metrics.close()
    metrics.close()
    first, second = _requests(tmp_path)
    assert set(_metrics(second)) == {"cedarbox.sandboxes", "cedarbox.shipper.pending"}
    assert _points(_metrics(first)["cedarbox.sandboxes"]) == {(): 1}
    assert _points(_metrics(second)["cedarbox.sandboxes"]) == {(): 0}


def test_values_that_others_choose_are_bounded(tmp_path: Path) -> None:
    metrics = _made(tmp_path)
    for number in range(1000):
        metrics.inferred(provider="_OTHER", model=f"m{number}", seconds=0.1, error=None, usage=None)
    metrics.close()
    (request,) = _requests(tmp_path)
    points = _points(_metrics(request)["gen_ai.client.inference.duration"])
    assert len(points) == 129
    assert points["_OTHER", "_OTHER", "chat"] == 1000 - 128


def test_threads_lose_no_count(tmp_path: Path) -> None:
    metrics = _made(tmp_path)

    def count() -> None:
        for _ in range(500):
            metrics.decided("exec", "allow", 0.1)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    metrics.flush()
    for thread in threads:
        thread.join()
    metrics.close()
    assert _points(_metrics(_requests(tmp_path)[-1])["cedarbox.decisions"]) == {("allow", "exec"): 2000}


def test_a_forked_child_does_not_tell_the_totals_of_its_parent(tmp_path: Path) -> None:
    metrics = _made(tmp_path)
    metrics.sandboxes(1)
    child = fork()
    if not child:
        metrics.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    metrics.close()
    assert len(_requests(tmp_path)) == 1


def test_a_callback_that_fails_and_a_full_directory_stop_nothing(tmp_path: Path) -> None:
    def broken() -> int:
        raise OSError("gone")

    metrics = _made(tmp_path / "file" / "below")
    (tmp_path / "file").write_text("not a directory")
    metrics.observe(records=broken)
    metrics.sandboxes(1)
    metrics.flush()
    assert metrics.dropped == 1
    (tmp_path / "file").unlink()
    metrics.close()
    (request,) = _requests(tmp_path / "file" / "below")
    assert set(_metrics(request)) == {"cedarbox.sandboxes"}


def test_the_environment_cannot_silence_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "OTEL_SDK_DISABLED": "true",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_METRIC_EXPORT_INTERVAL": "nonsense",
        "OTEL_METRICS_EXEMPLAR_FILTER": "always_on",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other",
        "OTEL_SERVICE_NAME": "other",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    metrics = _made(tmp_path)
    metrics.sandboxes(1)
    metrics.close()
    (request,) = _requests(tmp_path)
    resource = {item.key: item.value.string_value for item in request.resource_metrics[0].resource.attributes}
    assert resource == {"service.name": "test"}
    assert _points(_metrics(request)["cedarbox.sandboxes"]) == {(): 1}


def test_without_an_interval_nothing_is_kept(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path, metrics_interval_s=None)
    _everything(telemetry.metrics)
    telemetry.close()
    assert telemetry.metrics_source().streams() == []


def test_the_source_gives_what_the_lines_hold(tmp_path: Path) -> None:
    telemetry = Telemetry(directory=tmp_path)
    telemetry.metrics.sandboxes(2)
    telemetry.close()
    source = telemetry.metrics_source()
    assert (source.name, source.path) == ("metrics", "/v1/metrics")
    (stream,) = source.streams()
    lines = stream.read_bytes().splitlines(keepends=True)
    sent = ExportMetricsServiceRequest.FromString(source.encode([*lines, b"torn\n"], stream.stem))
    assert _points(_metrics(sent)["cedarbox.sandboxes"]) == {(): 2}
    later = Telemetry(directory=tmp_path)
    assert later.prune(lambda key: stream.stat().st_size if "metrics" in key else -1) == (stream,)
    later.close()
