"""What is shown of the store, and that what came over the network cannot drive the terminal."""

from __future__ import annotations

import io
import json
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from rich.console import Console

from cedarbox.collector import Store, render_logs, render_trace, show_logs, show_runs, show_trace
from cedarbox.errors import ConfigurationError, HostError

TRACE = b"\x01" * 16
HEX = TRACE.hex()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as made:
        yield made


def span(
    number: int,
    name: str,
    parent: int = 0,
    *,
    start: int = 0,
    error: bool = False,
    attributes: Mapping[str, str] | None = None,
) -> Span:
    return Span(
        trace_id=TRACE,
        span_id=number.to_bytes(8),
        parent_span_id=parent.to_bytes(8) if parent else b"",
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 1_500_000,
        status=Status(code=Status.STATUS_CODE_ERROR, message="why") if error else None,
        attributes=[KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in (attributes or {}).items()],
    )


def add(store: Store, *spans: Span) -> None:
    scope = ScopeSpans(spans=spans)
    store.add_spans(ExportTraceServiceRequest(resource_spans=[ResourceSpans(scope_spans=[scope])]))


def add_log(store: Store, body: str, *, time: int = 1_000_000_000, event: str = "e", **attributes: str) -> None:
    pairs = [
        KeyValue(key=key.replace("__", "."), value=AnyValue(string_value=text)) for key, text in attributes.items()
    ]
    record = LogRecord(
        time_unix_nano=time, event_name=event, trace_id=TRACE, body=AnyValue(string_value=body), attributes=pairs
    )
    scope = ScopeLogs(log_records=[record])
    store.add_logs(ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[scope])]))


def text_of(store: Store, *, terminal: bool = False) -> str:
    out = io.StringIO()
    show_trace(store, HEX, Console(file=out, force_terminal=terminal, width=250, no_color=True))
    return out.getvalue()


def test_the_tree_follows_the_parents(store: Store) -> None:
    add(store, span(1, "run"), span(2, "b", 1, start=20), span(3, "a", 1, start=10), span(4, "deep", 2, start=30))
    assert text_of(store) == "run  1.5 ms\n  a  1.5 ms\n  b  1.5 ms\n    deep  1.5 ms\n"
    drawn = text_of(store, terminal=True)
    assert f"trace {HEX}" in drawn
    assert "└── deep" in drawn


def test_failures_and_decisions_are_shown(store: Store) -> None:
    attributes = {"error.type": "policy_denied", "cedarbox.policy.decision": "deny"}
    add(store, span(1, "exec", error=True, attributes=attributes))
    expected = "exec  1.5 ms  error: why  error.type=policy_denied  cedarbox.policy.decision=deny\n"
    assert text_of(store) == expected


def test_lost_parents_and_loops_are_shown_all_the_same(store: Store) -> None:
    add(store, span(1, "orphan", 99), span(2, "loop a", 3), span(3, "loop b", 2), span(4, "self", 4))
    shown = text_of(store)
    assert sorted(line.split("  1.5")[0].strip() for line in shown.splitlines()) == [
        "loop a",
        "loop b",
        "orphan",
        "self",
    ]


def test_a_deep_chain_is_shown(store: Store) -> None:
    add(store, *(span(number, f"s{number}", number - 1) for number in range(1, 3001)))
    assert len(text_of(store).splitlines()) == 3000
    assert "s3000" in text_of(store, terminal=True)


def test_control_characters_and_markup_are_written_out(store: Store) -> None:
    add(store, span(1, "\x1b]0;owned\x07[red]x[/red]\n\u202e", error=True))
    add_log(store, '{"event":"\\u001b[2J","decision":"[bold]allow"}', audit__record__id="s/\x1b[1m1")
    out = io.StringIO()
    console = Console(file=out, width=300, no_color=True)
    show_trace(store, HEX, console)
    show_logs(store.logs(), console)
    show_runs(store, console)
    assert "\x1b" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "\\x1b]0;owned\\x07[red]x[/red]\\n\\u202e" in out.getvalue()
    assert "[bold]allow" in out.getvalue()


def test_an_unknown_trace_is_an_error(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="list the runs first"):
        render_trace(store, "00" * 16)


def test_runs(store: Store) -> None:
    add(store, span(1, "run flow", start=1_000_000_000), span(2, "child", 1, start=1_001_000_000, error=True))
    add_log(store, "text")
    (run,) = store.runs()
    assert (run.name, run.spans, run.errors, run.logs) == ("run flow", 2, 1, 1)
    out = io.StringIO()
    show_runs(store, Console(file=out, width=40))
    assert out.getvalue() == f"{HEX}\trun flow\t1970-01-01T00:00:01.000Z\t2.5 ms\t2\t1\t1\n"


def test_logs_show_what_the_ledger_says(store: Store) -> None:
    body = '{"event":"decision","decision":"deny","action":"connect","resource":"Host::x","outcome":null}'
    add_log(store, body, event="cedarbox.decision", audit__record__id="s/1", cedarbox__decision="deny")
    add_log(store, "plain text", time=2_000_000_000, event="other")
    out = io.StringIO()
    show_logs(store.logs(), Console(file=out, width=40))
    assert out.getvalue().splitlines() == [
        "1970-01-01T00:00:01.000Z\ts/1\tdecision\tdeny\tconnect\tHost::x\t\t",
        "1970-01-01T00:00:02.000Z\t\tother\t\t\t\tplain text\t",
    ]
    assert render_logs(store.logs()).row_count == 2


def test_json_has_every_field(store: Store) -> None:
    add(store, span(1, "run", attributes={"any.attribute": "value"}))
    out = io.StringIO()
    show_trace(store, HEX, Console(file=out, width=40, force_terminal=True), json=True)
    (shown,) = json.loads(out.getvalue())
    assert shown["attributes"] == {"any.attribute": "value"}
    assert shown["trace_id"] == HEX


def test_filters(store: Store) -> None:
    add_log(store, "1", time=1, event="a", k="x", audit__record__id="s/1")
    add_log(store, "2", time=2, event="b", k="y' OR 1=1 --")
    add_log(store, "3", time=3, event="b", k="x", other="y")

    def bodies(**filters: Any) -> list[str]:
        return [row.body for row in store.logs(**filters)]

    assert bodies() == ["1", "2", "3"]
    assert bodies(event="b") == ["2", "3"]
    assert bodies(attributes={"k": "x"}) == ["1", "3"]
    assert bodies(attributes={"k": "x", "other": "y"}) == ["3"]
    assert bodies(attributes={"k": "y' OR 1=1 --"}) == ["2"]
    assert bodies(record_id="s/1") == ["1"]
    assert bodies(since_ns=2, trace_id=HEX) == ["2", "3"]
    assert bodies(trace_id="00") == []
    assert bodies(limit=1) == ["3"]


def test_values_of_every_kind_and_extreme_times_are_kept(store: Store) -> None:
    nested = KeyValueList(values=[KeyValue(key="k", value=AnyValue(bytes_value=b"\x01"))])
    values = [AnyValue(int_value=-(2**63)), AnyValue(double_value=0.5), AnyValue(kvlist_value=nested), AnyValue()]
    wild = span(1, "run", start=0)
    wild.end_time_unix_nano = 2**64 - 1
    wild.attributes.append(KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=values))))
    add(store, wild)
    (row,) = store.spans(HEX)
    assert row.attributes == {"list": [-(2**63), 0.5, {"k": "01"}, None]}
    assert row.end_ns == 2**63 - 1
    assert "run" in text_of(store)


def test_the_file_is_private_and_durable(store: Store) -> None:
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    with sqlite3.connect(store.path) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_unusable_files_are_errors_with_a_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="choose a directory"):
        Store(tmp_path / "file")
    (tmp_path / "collector.db").write_bytes(b"not a database" * 100)
    with pytest.raises(HostError, match="move it away"):
        Store(tmp_path)
    newer = tmp_path / "newer"
    Store(newer).close()
    with sqlite3.connect(newer / "collector.db") as other:
        other.execute("PRAGMA user_version = 9")
    other.close()
    with pytest.raises(HostError, match="another version"):
        Store(newer)
