"""Points of metrics that the exporters of the SDK do not send."""

from __future__ import annotations

import math
from pathlib import Path

from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    Histogram,
    HistogramDataPoint,
    Metric,
    Sum,
    Summary,
)
from tests.unit.collected import START_NS, gauge, metric_request, text

from cedarbox.collector import Store


def test_summaries_deltas_and_odd_numbers(tmp_path: Path) -> None:
    summary = Summary()
    point = summary.data_points.add(time_unix_nano=START_NS, count=3, sum=6.0)
    point.quantile_values.add(quantile=0.5, value=2.0)
    delta = Sum(aggregation_temporality=AGGREGATION_TEMPORALITY_DELTA)
    delta.data_points.add(time_unix_nano=START_NS, start_time_unix_nano=START_NS - 5, as_int=-4)
    delta.data_points.add(time_unix_nano=START_NS + 1)
    delta.data_points.add(time_unix_nano=START_NS + 2, as_int=9, flags=1)
    odd = Histogram(data_points=[HistogramDataPoint(time_unix_nano=2**64 - 1, count=2**64 - 1, sum=math.inf)])
    metrics = [
        Metric(name="summary", summary=summary),
        Metric(name="delta", sum=delta),
        Metric(name="odd", histogram=odd),
        Metric(name="nan", gauge=gauge("nan", math.nan).gauge),
        Metric(name="nothing"),
    ]
    with Store(tmp_path) as store:
        store.add_metrics(metric_request(*metrics))
        queries = store.queries
        found = {series.name: series for series in queries.series()}
        (kept,) = queries.points(found["summary"].id)
        assert (kept.value, kept.count, kept.detail) == (6.0, 3, {"quantiles": [[0.5, 2.0]]})
        assert found["delta"].temporality == 1
        points = queries.points(found["delta"].id)
        assert [(point.value, point.start_ns) for point in points] == [(-4.0, START_NS - 5), (None, 0)]
        (kept,) = queries.points(found["odd"].id)
        assert (kept.time_ns, kept.count, kept.value) == (2**63 - 1, 2**63 - 1, None)
        assert [point.value for point in queries.points(found["nan"].id)] == [None]
        assert "nothing" not in found


def test_points_make_one_series_in_order_and_once(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for step in (3, 1, 2, 3):
            store.add_metrics(metric_request(gauge("level", step / 2, START_NS + step)))
        labelled = gauge("level", 9.0)
        labelled.gauge.data_points[0].attributes.append(text("k", "v"))
        store.add_metrics(metric_request(labelled))
        plain, other = store.queries.series("level")
        if plain.attributes:
            plain, other = other, plain
        assert [point.value for point in store.queries.points(plain.id)] == [0.5, 1.0, 1.5]
        assert [point.value for point in store.queries.points(plain.id, limit=2)] == [1.0, 1.5]
        assert [point.value for point in store.queries.points(plain.id, until_ns=START_NS + 1)] == [0.5]
        assert other.attributes == {"k": "v"}
