"""How the page lays out spans, writes values, reads filters, and draws charts and lineages."""

from __future__ import annotations

import html
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cedarbox.cli import app
from cedarbox.collector import EmbeddedCollector
from cedarbox.collector.page import PageOptions
from cedarbox.collector.page.charts import HEIGHT, Series, chart
from cedarbox.collector.page.filters import Filters, url
from cedarbox.collector.page.lineage import lineage
from cedarbox.collector.page.records import Seen, seen
from cedarbox.collector.page.shown import bare, count, duration, moment, shown, size
from cedarbox.collector.page.waterfall import MAX_INDENT, WIDTH, waterfall
from cedarbox.collector.views import LogRow, SpanRow
from cedarbox.errors import BundleError


def span(name: str, parent: str | None = None, start: int = 0, end: int = 100, **attributes: Any) -> SpanRow:
    named = {key.replace("__", "."): value for key, value in attributes.items()}
    return SpanRow("t", name, parent, name, 1, start, end, 2 if "error.type" in named else 0, "", named, {})


def record(seq: int, event: str, session: str | None = None, **attrs: str) -> Seen:
    found = seen(LogRow(f"s/{seq}", seq, f"cedarbox.{event}", 9, None, None, "{}", {}, {}, False))
    named = {key.replace("__", "."): value for key, value in attrs.items()}
    fields = {name: getattr(found, name) for name in Seen.__dataclass_fields__}
    return Seen(**{**fields, "event": event, "session": session, "attrs": named})


@settings(max_examples=50)
@given(
    st.text(
        st.sampled_from(
            "ab<&'\"\\\t\x00\x1b\x9b\u00ad\u0300\u0336\u05d0\u200b\u202e\u2028\u2066\u3164\ufeff\U000e0001é漢"
        )
    )
)
def test_what_is_shown_is_the_text_and_nothing_that_cannot_be_seen(text: str) -> None:
    plain = html.unescape(re.sub(r"<[^>]+>", "", str(shown(text, 10_000))))
    assert plain == bare(text, 10_000)
    assert plain.isprintable()
    if text.isascii() and text.isprintable():
        assert plain == text


def test_long_texts_are_cut_with_a_note() -> None:
    assert str(shown("x" * 1300, 10)) == f'<bdi>{"x" * 10}</bdi> <span class="cut">… 1,290 more</span>'


def test_numbers_have_their_units() -> None:
    assert [duration(value) for value in (0, 1500, 42_100_000, 9_990_000_000, 61e9, 7_260e9, -1)] == [
        "0.00 µs", "1.50 µs", "42.1 ms", "9.99 s", "1 min 01 s", "2 h 01 min", "ends before it begins",
    ]  # fmt: skip
    assert [size(value) for value in (0, 1023, 1536, 5 * 2**30, None, "x", True)] == [
        "0 B", "1023 B", "1.50 KiB", "5.00 GiB", "", "", "",
    ]  # fmt: skip
    assert count(1234567) == "1,234,567"
    assert 'datetime="1970-01-01T00:00:01.002Z" title="1970-01-01 00:00:01.002003004 UTC"' in moment(1_002_003_004)


def test_the_waterfall_follows_the_parents_and_the_time() -> None:
    spans = [span("run"), span("b", "run", 60, 80), span("a", "run", 20, 60), span("deep", "a", 20, 30)]
    denied = {"cedarbox__policy__decision": "deny", "error__type": "policy_denied"}
    spans.append(span("no", "a", 30, 31, **denied))
    spans.append(span("bad", None, 90, 100, error__type="timeout"))
    fall = waterfall(sorted(spans, key=lambda one: one.start_ns))
    assert [(row.span.name, row.depth, row.children, row.closes) for row in fall.rows] == [
        ("run", 0, True, 0), ("a", 1, True, 0), ("deep", 2, False, 0), ("no", 2, False, 1), ("b", 1, False, 1),
        ("bad", 0, False, 0),
    ]  # fmt: skip
    assert [row.span.name for row in fall.rows if row.denied] == ["no"]
    assert [row.span.name for row in fall.rows if row.failed] == ["bad"]
    assert (fall.rows[0].inside, fall.failed) == (1, 1)
    assert (fall.rows[1].bar.x, fall.rows[1].bar.width) == (WIDTH * 0.2, WIDTH * 0.4)
    only = waterfall(spans, notable_only=True)
    assert [row.span.name for row in only.rows] == ["run", "a", "no", "bad"]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 50), st.integers(0, 50)), max_size=40))
def test_every_span_has_its_row_and_every_level_is_closed(edges: list[tuple[int, int, int, int]]) -> None:
    spans = [
        span(str(own), str(parent) if parent != own else None, start, start + length)
        for own, parent, start, length in {edge[0]: edge for edge in edges}.values()
    ]
    fall = waterfall(spans)
    assert sorted(row.span.span_id for row in fall.rows) == sorted(one.span_id for one in spans)
    assert sum(row.children for row in fall.rows) == sum(row.closes for row in fall.rows)
    level = 0
    for row in fall.rows:
        assert 0 <= row.bar.x <= WIDTH
        assert 0 < row.bar.width <= WIDTH
        assert row.depth <= MAX_INDENT
        level += row.children - row.closes
        assert level >= 0


def test_filters_are_read_strictly() -> None:
    names = ("since", "until", "decision", "event", "run")
    read = Filters.read({"since": "2026-01-31", "until": "2026-01-31", "run": "A" * 32}, names, event="decision")
    assert read.moments["until"] - read.moments["since"] == 86_400 * 10**9 - 1
    assert (read.records().trace_id, read.records().event) == ("a" * 32, "decision")
    assert Filters.read({"until": "2026-01-31 12:00"}, names).moments["until"] % (60 * 10**9) == 60 * 10**9 - 1
    assert Filters.read({"since": "2026-01-31T12:00:00.5Z"}, names).moments["since"] % 10**9 == 5 * 10**8
    wrong = {"since": "2026-02-30", "until": "١٢", "decision": "perhaps", "run": "x" * 201}
    assert Filters.read(wrong, names).errors.keys() == wrong.keys()
    assert Filters.read({"since": "2026-01-02", "until": "2026-01-01"}, names).errors.keys() == {"until"}
    assert not Filters.read({"event": "decision"}, names, event="decision").used
    assert url("/d", policy='a&b="', event="", cursor=None) == "/d?policy=a%26b%3D%22&event="


def test_a_chart_is_broken_where_nothing_was_measured() -> None:
    drawn = chart("t", "", [Series("a", [(0, 1.0), (10, 3.0), (50, 2.0)])], start_ns=0, end_ns=50, step_ns=10)
    assert drawn is not None
    assert drawn.top == 4
    assert drawn.lines[0].path == f"M0.0 {HEIGHT * 0.75} L120.0 {HEIGHT * 0.25} M600.0 {HEIGHT * 0.5}"
    assert drawn.lines[0].dots == [(600.0, HEIGHT * 0.5)]
    assert chart("t", "", [Series("a", [])], start_ns=0, end_ns=50, step_ns=10) is None


@pytest.mark.parametrize("named", [False, True], ids=["by id", "by name"])
def test_a_snapshot_stands_below_the_one_it_came_from(named: bool) -> None:
    name = {"snapshot__name": "first"} if named else {}
    other = {"snapshot__name": "second", "snapshot__parent": "first"} if named else {}
    forked = {"snapshot__id": "b", "snapshot__of": "box-1"}
    roots = lineage(
        [
            record(3, "snapshot.created", "box-2", snapshot__id="b", **other),
            record(1, "snapshot.created", "box-1", snapshot__id="a", **name),
            record(2, "snapshot.forked", "box-2", **forked),
            record(4, "snapshot.refused", "box-3", snapshot__id="gone"),
        ]
    )
    assert [(node.snapshot, node.kind) for node in roots] == [
        ("gone", "refused"),
        ("first" if named else "a", "snapshot"),
    ]
    (child,) = roots[1].children
    assert [one.event for one in child.records] == ["snapshot.forked", "snapshot.created"]
    assert child.session == "box-2"


def test_lineages_that_go_round_are_drawn_all_the_same() -> None:
    circle = [
        record(1, "snapshot.created", snapshot__id="a", snapshot__parent="b"),
        record(2, "snapshot.created", snapshot__id="b", snapshot__parent="a"),
        record(3, "snapshot.created", snapshot__id="c", snapshot__parent="c"),
    ]

    def names(nodes: Any) -> list[str]:
        return [name for node in nodes for name in (node.snapshot, *names(node.children))]

    assert sorted(names(lineage(circle))) == ["a", "b", "c"]


def test_a_bundle_that_cannot_be_used_is_an_error_before_anything_listens(tmp_path: Path) -> None:
    collector = EmbeddedCollector(tmp_path / "kept", port=0, page=PageOptions(policies=(tmp_path / "none",)))
    with pytest.raises(BundleError, match="cannot read the policy bundle"):
        collector.start()
    options = ["collector", "serve", "--directory", str(tmp_path / "kept"), "--port", "0", "--no-grpc"]
    ended = CliRunner().invoke(app, [*options, "--policies", str(tmp_path / "none")])
    assert isinstance(ended.exception, BundleError)


def test_the_wheel_has_the_templates_and_static_files(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    (wheel,) = WheelBuilder(str(root)).build(directory=str(tmp_path), versions=["standard"])
    packed = set(zipfile.ZipFile(wheel).namelist())
    page = root / "src" / "cedarbox" / "collector" / "page"
    wanted = {
        str(path.relative_to(root / "src"))
        for path in page.rglob("*")
        if path.suffix in {".html", ".css", ".js", ".svg", ".py"}
    }
    assert len(wanted) > 20
    assert wanted <= packed
