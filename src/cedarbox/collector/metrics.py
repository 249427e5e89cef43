"""OTLP metrics as rows of the store: a series for each set of attributes, and its points."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    ExponentialHistogramDataPoint,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    SummaryDataPoint,
)

from cedarbox.collector.rows import MAX_INTEGER, as_json

__all__ = ["PointInput", "SeriesKey", "metric_inputs"]

_NO_RECORDED_VALUE: Final = 1
"""DataPointFlags.FLAG_NO_RECORDED_VALUE_MASK: the series has ended, and the point has no value."""


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What makes points one series.

    Attributes:
        kind: ``gauge``, ``sum``, ``histogram``, ``exponential_histogram`` or ``summary``.
        temporality: OTLP's: 0 unspecified, 1 delta, 2 cumulative.
        attributes: JSON object.
        resource: JSON object.
    """

    name: str
    kind: str
    unit: str
    temporality: int
    monotonic: bool
    attributes: str
    resource: str


@dataclass(frozen=True, slots=True)
class PointInput:
    """One point. Times are nanoseconds since 1970 UTC.

    Attributes:
        value: Of a gauge or a sum its value, of the others the sum of what was measured; None when unknown.
        count: How many measurements; None of a gauge or a sum.
        detail: JSON object with the buckets or the quantiles; None of a gauge or a sum.
    """

    time_ns: int
    start_ns: int
    value: float | None
    count: int | None
    detail: str | None


def metric_inputs(request: ExportMetricsServiceRequest) -> Iterator[tuple[SeriesKey, str, PointInput]]:
    """Give each point with its series and the description of the metric."""
    for outer in request.resource_metrics:
        resource = as_json(outer.resource.attributes)
        for inner in outer.scope_metrics:
            for metric in inner.metrics:
                for key, point in _points(metric, resource):
                    yield key, metric.description, point


def _points(metric: Metric, resource: str) -> Iterator[tuple[SeriesKey, PointInput]]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data: Any = getattr(metric, kind)
    temporality = getattr(data, "aggregation_temporality", 0)
    monotonic = bool(getattr(data, "is_monotonic", False))
    for point in data.data_points:
        if point.flags & _NO_RECORDED_VALUE:
            continue
        key = SeriesKey(metric.name, kind, metric.unit, temporality, monotonic, as_json(point.attributes), resource)
        value, count, detail = _content(point)
        yield (
            key,
            PointInput(
                min(point.time_unix_nano, MAX_INTEGER),
                min(point.start_time_unix_nano, MAX_INTEGER),
                value,
                count,
                detail,
            ),
        )


def _content(
    point: NumberDataPoint | HistogramDataPoint | ExponentialHistogramDataPoint | SummaryDataPoint,
) -> tuple[float | None, int | None, str | None]:
    if isinstance(point, NumberDataPoint):
        kind = point.WhichOneof("value")
        return (_finite(getattr(point, kind)) if kind else None), None, None
    detail: dict[str, Any]
    if isinstance(point, SummaryDataPoint):
        detail = {"quantiles": [[_finite(item.quantile), _finite(item.value)] for item in point.quantile_values]}
        return _finite(point.sum), min(point.count, MAX_INTEGER), _dumped(detail)
    if isinstance(point, HistogramDataPoint):
        detail = {"bounds": _finites(point.explicit_bounds), "counts": list(point.bucket_counts)}
    else:
        detail = {
            "scale": point.scale,
            "zero_count": point.zero_count,
            "zero_threshold": _finite(point.zero_threshold),
            "positive": {"offset": point.positive.offset, "counts": list(point.positive.bucket_counts)},
            "negative": {"offset": point.negative.offset, "counts": list(point.negative.bucket_counts)},
        }
    for name in ("min", "max"):
        if point.HasField(name):
            detail[name] = _finite(getattr(point, name))
    return (_finite(point.sum) if point.HasField("sum") else None), min(point.count, MAX_INTEGER), _dumped(detail)


def _finites(values: Iterable[float]) -> list[float | None]:
    return [_finite(value) for value in values]


def _finite(value: float) -> float | None:
    """Give a number that JSON and SQLite can hold; infinities and NaN become None."""
    number = float(value)
    return number if math.isfinite(number) else None


def _dumped(detail: dict[str, Any]) -> str:
    return orjson.dumps(detail).decode()
