"""Line charts as drawings: the page has no script that could draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

__all__ = ["Chart", "Line", "Series", "chart"]

WIDTH: Final = 600
HEIGHT: Final = 140

_GRID: Final = 4
_GAP: Final = 1.5


@dataclass(frozen=True, slots=True)
class Series:
    """What is drawn: points of (nanoseconds since 1970 UTC, value), in order of time."""

    name: str
    points: Sequence[tuple[int, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """A series as a path.

    Attributes:
        name: Of the series.
        path: For the attribute ``d``.
        dots: Where the path has a point alone, which a line does not show.
        last: The last value.
        highest: The highest value.
    """

    name: str
    path: str
    dots: Sequence[tuple[float, float]]
    last: float
    highest: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart in units of the drawing, `WIDTH` by `HEIGHT`.

    Attributes:
        title: What it shows.
        unit: Of its values: ``ns``, ``By``, or nothing for a count.
        lines: Its lines.
        start_ns: Left end of the axis.
        end_ns: Right end of the axis.
        top: Value at the upper end.
        grid: (y, value) of the horizontal lines.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    start_ns: int
    end_ns: int
    top: float
    grid: Sequence[tuple[float, float]]


def chart(title: str, unit: str, series: Sequence[Series], *, start_ns: int, end_ns: int, step_ns: int) -> Chart | None:
    """Draw a chart; None when there is nothing to draw.

    Args:
        title: What it shows.
        unit: ``ns``, ``By``, or nothing for a count.
        series: Its lines.
        start_ns: Left end of the axis.
        end_ns: Right end of the axis.
        step_ns: Distance of two points; where one is missing the line is broken.
    """
    drawn = [line for line in series if line.points]
    if not drawn:
        return None
    top = _round_up(max((value for line in drawn for _, value in line.points), default=0.0))
    lines = [_line(line, (start_ns, end_ns), top, step_ns) for line in drawn]
    grid = [(round(HEIGHT - HEIGHT * step / _GRID, 1), top * step / _GRID) for step in range(_GRID + 1)]
    return Chart(title, unit, lines, start_ns, end_ns, top, grid)


def _line(series: Series, axis: tuple[int, int], top: float, step_ns: int) -> Line:
    start, end = axis
    places = [
        (round((time - start) * WIDTH / (end - start), 1), round(HEIGHT - max(0.0, value) * HEIGHT / top, 1))
        for time, value in series.points
    ]
    broken = [True, *(after[0] - before[0] > _GAP * step_ns for before, after in pairwise(series.points)), True]
    path = " ".join(f"{'M' if breaks else 'L'}{x} {y}" for breaks, (x, y) in zip(broken, places, strict=False))
    dots = [place for place, (before, after) in zip(places, pairwise(broken), strict=True) if before and after]
    values = [value for _, value in series.points]
    return Line(series.name, path, dots, values[-1], max(values))


def _round_up(value: float) -> float:
    """Return the next of 1, 2, 4, 10, 20, 40, … so that a quarter of it can be read."""
    if value <= 0:
        return 4.0
    scale = 1.0
    while scale * 10 < value:
        scale *= 10
    while scale >= value * 10:
        scale /= 10
    return next(scale * step for step in (1, 2, 4, 8, 10) if scale * step >= value)
