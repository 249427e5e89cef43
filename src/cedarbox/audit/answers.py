"""What a collector says to an OTLP request."""

from __future__ import annotations

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from cedarbox.audit.target import AwayError, RefusedError
from cedarbox.errors import ConfigurationError

__all__ = ["SERVICES", "check_answer"]

SERVICES = {
    "/v1/logs": "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/v1/traces": "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/v1/metrics": "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
}
"""The gRPC method for each OTLP/HTTP path (opentelemetry-proto, ``collector/*/v1/*_service.proto``)."""


def check_answer(path: str, content: bytes) -> None:
    """Take only a full acknowledgement.

    Args:
        path: The OTLP path of the request.
        content: The answer in protobuf.

    Raises:
        AwayError: The answer is not OTLP: whatever gave it is no collector.
        RefusedError: Something was rejected.
    """
    try:
        rejected, reason = _partial(path, content)
    except DecodeError as error:
        raise AwayError("the answer of the collector is not OTLP protobuf", answered=True) from error
    if rejected:
        raise RefusedError(f"the collector rejected {rejected} of a batch: {reason[:200]!a}", rejected=rejected)


def _partial(path: str, content: bytes) -> tuple[int, str]:
    match path:
        case "/v1/logs":
            logs = ExportLogsServiceResponse.FromString(content).partial_success
            return logs.rejected_log_records, logs.error_message
        case "/v1/traces":
            spans = ExportTraceServiceResponse.FromString(content).partial_success
            return spans.rejected_spans, spans.error_message
        case "/v1/metrics":
            points = ExportMetricsServiceResponse.FromString(content).partial_success
            return points.rejected_data_points, points.error_message
        case _:
            raise ConfigurationError(f"{path} is no signal of OTLP")
