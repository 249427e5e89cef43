"""Charts of the metrics that were sent, where they were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from cedarbox.collector.page.charts import Chart, chart
from cedarbox.collector.page.charts import Series as Drawn
from cedarbox.collector.queries import Queries
from cedarbox.collector.views import Point, Series

__all__ = ["from_metrics"]

_MAX_LINES: Final = 4
_MAX_SERIES: Final = 64
_CUMULATIVE: Final = 2
_NS: Final = 1_000_000_000
_MEANS: Final = (
    ("cedarbox.decision.duration", "Time to decide and record, on average", "cedarbox.decision"),
    ("cedarbox.operation.duration", "Time of operations, on average", "cedarbox.operation"),
    ("gen_ai.client.inference.duration", "Time of model calls, on average", "gen_ai.request.model"),
)
_LEVELS: Final = (
    ("cedarbox.sandboxes", "Sandboxes that exist"),
    ("cedarbox.egress.connections", "Connections that are open"),
)


def from_metrics(queries: Queries, since: int, until: int, step: int) -> list[Chart | None]:
    """Draw what was sent of the metrics of cedarbox.

    Args:
        queries: Of the store.
        since: Left end, in nanoseconds since 1970 UTC.
        until: Right end.
        step: Distance of two points.
    """
    charts = []
    for name, title, by in _MEANS:
        grouped: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
        for series in queries.series(name)[:_MAX_SERIES]:
            label = str(series.attributes.get(by, "all"))
            for time, total, number in _changes(series, _points(queries, series, since, until)):
                cell = grouped[label][time - time % step]
                cell[0] += total * _NS
                cell[1] += number
        lines = [
            Drawn(label, [(time, total / number) for time, (total, number) in sorted(cells.items()) if number])
            for label, cells in sorted(grouped.items(), key=lambda item: -sum(cell[1] for cell in item[1].values()))
        ]
        charts.append(chart(title, "ns", lines[:_MAX_LINES], start_ns=since, end_ns=until - step, step_ns=step))
    for name, title in _LEVELS:
        levels: dict[int, float] = defaultdict(float)
        for series in queries.series(name)[:_MAX_SERIES]:
            latest = {point.time_ns - point.time_ns % step: point for point in _points(queries, series, since, until)}
            for time, point in latest.items():
                levels[time] += point.value or 0.0
        charts.append(
            chart(
                title,
                "",
                [Drawn("all processes", sorted(levels.items()))],
                start_ns=since,
                end_ns=until - step,
                step_ns=step,
            )
        )
    return charts


def _points(queries: Queries, series: Series, since: int, until: int) -> Sequence[Point]:
    return queries.points(series.id, since_ns=since, until_ns=until)


def _changes(series: Series, points: Sequence[Point]) -> Iterable[tuple[int, float, float]]:
    """Yield (time, sum, count) of what was measured between two points; a series that began again begins at 0."""
    if series.temporality != _CUMULATIVE:
        yield from ((point.time_ns, point.value or 0.0, float(point.count or 0)) for point in points)
        return
    if points:
        first = points[0]
        yield first.time_ns, first.value or 0.0, float(first.count or 0)
    for before, after in pairwise(points):
        again = after.start_ns != before.start_ns
        total = (after.value or 0.0) - (0.0 if again else before.value or 0.0)
        number = float(after.count or 0) - (0.0 if again else float(before.count or 0))
        if number > 0:
            yield after.time_ns, total, number
