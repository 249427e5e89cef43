"""The spans of a run as rows of a waterfall, in the order of a tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.collector.store import SpanRow

__all__ = ["WIDTH", "Bar", "Row", "Waterfall", "waterfall"]

WIDTH: Final = 1000
"""Length of the time axis, in units of the drawing."""

MAX_ROWS: Final = 1000
"""Most spans on a page; a longer run is shown page by page."""

MAX_INDENT: Final = 24
"""Deepest indentation; what is deeper is shown at this one."""

_ERROR: Final = 2
_TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a span lies on the time axis.

    Attributes:
        x: Its beginning, in units.
        width: Its length; never so short that it cannot be seen.
    """

    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One span of the waterfall.

    Attributes:
        span: The span.
        depth: Its distance from the top, bounded.
        bar: Its place on the axis.
        children: Whether the next row is inside it.
        closes: How many levels end after this row.
        offset_ns: Its beginning, from that of the run.
        denied: A policy denied it.
        failed: It ended with an error that is no denial.
        inside: How many spans below it were denied or failed.
        seq: The sequence number of the ledger record of its decision.
        lost: Its parent is not among the spans that were received.
    """

    span: SpanRow
    depth: int
    bar: Bar
    children: bool
    closes: int
    offset_ns: int
    denied: bool
    failed: bool
    inside: int
    seq: int | None
    lost: bool

    @property
    def notable(self) -> bool:
        """Whether it is marked."""
        return self.denied or self.failed


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The rows, and the axis above them.

    Attributes:
        rows: In the order of the tree.
        total: How many rows there are in all.
        failed: How many spans ended with an error that is no denial.
        start_ns: Beginning of the axis, since 1970 UTC.
        length_ns: Its length.
        ticks: Times along it, from its beginning, at equal distances.
    """

    rows: Sequence[Row]
    total: int
    failed: int
    start_ns: int
    length_ns: int
    ticks: Sequence[float]


def waterfall(spans: Sequence[SpanRow], *, notable_only: bool = False, first: int = 0) -> Waterfall:
    """Lay out the spans of one run.

    A span whose parent was not received stands at the top; so does the first of a circle.

    Args:
        spans: All of them.
        notable_only: Keep denials, errors, and what they are in.
        first: How many rows to leave out at the beginning.
    """
    start = min((span.start_ns for span in spans), default=0)
    length = max(1, max((span.end_ns for span in spans), default=0) - start)
    order = list(_walk(spans))
    inside = _inside(order)
    known = {span.span_id for span in spans}
    kept = [
        (depth, span)
        for (depth, span), below in zip(order, inside, strict=True)
        if not notable_only or below or _denied(span) or _failed(span)
    ]
    below_of = {id(span): below for (_, span), below in zip(order, inside, strict=True)}
    page = kept[first : first + MAX_ROWS]
    rows = []
    # A page that begins in the middle of the tree begins at the depth of its first row.
    base = page[0][0] if page else 0
    depth_before = 0
    for index, (depth, span) in enumerate(page):
        level = min(max(0, depth - base), depth_before + 1 if index else 0, MAX_INDENT)
        after = page[index + 1][0] - base if index + 1 < len(page) else 0
        after = min(max(0, after), level + 1, MAX_INDENT)
        rows.append(
            Row(
                span=span,
                depth=min(depth, MAX_INDENT),
                bar=_bar(span, start, length),
                children=after > level,
                closes=max(0, level - after),
                offset_ns=span.start_ns - start,
                denied=_denied(span),
                failed=_failed(span),
                inside=below_of[id(span)],
                seq=_seq(span),
                lost=span.parent_id is not None and span.parent_id not in known,
            )
        )
        depth_before = level
    ticks = [length * step / _TICKS for step in range(_TICKS + 1)]
    return Waterfall(rows, len(kept), sum(map(_failed, spans)), start, length, ticks)


def _walk(spans: Sequence[SpanRow]) -> Iterable[tuple[int, SpanRow]]:
    children: dict[str | None, list[SpanRow]] = defaultdict(list)
    known = {span.span_id for span in spans}
    for span in spans:
        children[span.parent_id if span.parent_id in known else None].append(span)
    seen: set[str] = set()
    # What is left after the first pass is in a circle.
    for tops in (children[None], spans):
        stack = [(0, span) for span in reversed(tops)]
        while stack:
            depth, span = stack.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            yield depth, span
            stack.extend((depth + 1, child) for child in reversed(children[span.span_id]))


def _inside(order: Sequence[tuple[int, SpanRow]]) -> list[int]:
    """Count, for each, the marked spans below it."""
    counts = [0] * len(order)
    above: list[int] = []
    for index, (depth, span) in enumerate(order):
        del above[depth:]
        if _denied(span) or _failed(span):
            for place in above:
                counts[place] += 1
        above.append(index)
    return counts


def _bar(span: SpanRow, start: int, length: int) -> Bar:
    x = (span.start_ns - start) * WIDTH / length
    width = max(3.0, (span.end_ns - span.start_ns) * WIDTH / length)
    return Bar(round(min(x, WIDTH - 3.0), 2), round(min(width, WIDTH), 2))


def _denied(span: SpanRow) -> bool:
    return span.attributes.get("cedarbox.policy.decision") == "deny" or (
        span.status == _ERROR and span.attributes.get("error.type") == "policy_denied"
    )


def _failed(span: SpanRow) -> bool:
    return span.status == _ERROR and not _denied(span)


def _seq(span: SpanRow) -> int | None:
    value: Any = span.attributes.get("cedarbox.record.seq")
    return value if type(value) is int else None
