"""From the bytes of a request to what is on disk, the same for HTTP and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cedarbox.collector.store import Store
from cedarbox.telemetry.otlp import from_json, from_protobuf

__all__ = ["PATHS", "SERVICES", "Signal", "keep"]

Signal = Literal["traces", "logs", "metrics"]

PATHS: Final[Mapping[str, Signal]] = MappingProxyType(
    {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}
)
"""The paths of OTLP/HTTP."""

SERVICES: Final[Mapping[str, Signal]] = MappingProxyType(
    {
        "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
        "opentelemetry.proto.collector.logs.v1.LogsService": "logs",
        "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    }
)
"""The services of OTLP/gRPC; each has the one method ``Export``."""


def keep(store: Store, signal: Signal, body: bytes, *, json: bool = False) -> None:
    """Decode a request and keep it; it is on disk when this returns.

    Args:
        store: Where to.
        signal: What it is said to hold.
        body: The request as protobuf, or as JSON.
        json: Whether it is JSON.

    Raises:
        ConfigurationError: It is no such request.
        HostError: It cannot be kept.
    """
    match signal:
        case "traces":
            traces = ExportTraceServiceRequest
            store.add_spans(from_json(body, traces) if json else from_protobuf(body, traces))
        case "logs":
            logs = ExportLogsServiceRequest
            store.add_logs(from_json(body, logs) if json else from_protobuf(body, logs))
        case "metrics":
            metrics = ExportMetricsServiceRequest
            store.add_metrics(from_json(body, metrics) if json else from_protobuf(body, metrics))
