"""What the collector drops, in which order, and what it says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.collected import (
    STREAM,
    decision,
    gauge,
    ledger_lines,
    ledger_request,
    log_request,
    metric_request,
    span,
    trace_request,
)

from cedarbox.collector import RecordFilter, Store
from cedarbox.collector.retention import Keeper, Retention, parse_age, parse_size, sweep
from cedarbox.errors import ConfigurationError

DAY_NS = 86_400 * 1_000_000_000


def fill(store: Store, *, size: int = 100) -> None:
    for number in range(20):
        store.add_spans(trace_request(*(span(number + 1, inner + 1, "x" * size) for inner in range(10))))
        store.add_logs(log_request("plain", f"{number}" * size))
        store.add_metrics(metric_request(gauge(f"g{number}", 1.0)))
    lines = ledger_lines(decision(number, attrs={"summary": "s" * size}) for number in range(300))
    store.add_logs(ledger_request(lines))
    for upto in (100, 200, 300):
        store.add_logs(log_request("cedarbox.checkpoint", "n" * size, audit__record__id=f"{STREAM}/checkpoint/{upto}"))


def held(store: Store) -> tuple[int, int, int, int, int]:
    counts = store.queries.counts()
    plain = counts.logs - counts.records - counts.checkpoints
    return counts.points, counts.spans, plain, counts.records, counts.checkpoints


def test_age_takes_all_but_checkpoints(tmp_path: Path) -> None:
    import time

    with Store(tmp_path) as store:
        fill(store)
        assert sweep(store, Retention(seconds=86_400)) == 0
        assert held(store) == (20, 200, 20, 300, 3)
        sweep(store, Retention(seconds=86_400), now_ns=time.time_ns() + 2 * DAY_NS)
        assert held(store) == (0, 0, 0, 0, 3)
        assert {(item.what, item.reason, item.rows) for item in store.queries.dropped()} == {
            ("points", "age", 20),
            ("spans", "age", 200),
            ("logs", "age", 20),
            ("records", "age", 300),
        }
        assert store.queries.runs().rows == []
        assert store.queries.series() == []
        assert store.queries.records(RecordFilter(family="decision", policy="permit-tools")).rows == []
        # What arrived is remembered beyond it: dropped is not missing.
        (state,) = store.queries.streams()
        assert (state.records, state.gaps, state.checkpoint) == (300, (), 300)


def test_size_takes_evidence_last_and_the_latest_checkpoint_never(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        fill(store, size=2000)
        seen = [held(store)]
        full = store.pragma("page_count") * store.pragma("page_size")
        for part in range(8, -1, -2):
            sweep(store, Retention(size=full * part // 10))
            seen.append(held(store))
            if part:
                assert store.pragma("page_count") * store.pragma("page_size") <= full * part // 10
        for points, spans, plain, records, checkpoints in seen:
            assert records == 300 or (points, spans, plain) == (0, 0, 0)
            assert checkpoints == 3 or records == 0
        assert seen[-1] == (0, 0, 0, 0, 1)
        (kept,) = store.queries.records(RecordFilter(family="checkpoint")).rows
        assert kept.seq == 300
        assert {item.what for item in store.queries.dropped()} == {
            "points",
            "spans",
            "logs",
            "records",
            "checkpoints",
        }


def test_the_space_goes_back_to_the_file_system(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        fill(store, size=3000)
        store.outside("PRAGMA wal_checkpoint(TRUNCATE)")
        before = store.path.stat().st_size
        sweep(store, Retention(size=1024 * 1024))
        store.outside("PRAGMA wal_checkpoint(TRUNCATE)")
        assert store.path.stat().st_size <= 1024 * 1024 < before


def test_records_are_received_while_it_sweeps(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        fill(store, size=3000)
        keeper = Keeper(store, Retention(size=1024 * 1024), interval=0.001)
        keeper.start()
        for number in range(50):
            store.add_spans(trace_request(span(1000 + number, 1, "late")))
        while not store.queries.dropped():
            store.add_spans(trace_request(span(2000, 1, "later")))
        keeper.stop()
        assert keeper.last_error == ""


def test_a_span_that_arrives_after_its_run_was_dropped_makes_it_again(tmp_path: Path) -> None:
    import time

    with Store(tmp_path) as store:
        store.add_spans(trace_request(span(1, 1, "early")))
        sweep(store, Retention(seconds=1), now_ns=time.time_ns() + DAY_NS)
        store.add_spans(trace_request(span(1, 2, "late")))
        (run,) = store.queries.runs().rows
        assert (run.name, run.spans) == ("late", 1)


def test_ages_and_sizes_are_read_strictly() -> None:
    assert parse_age("30d") == 30 * 86_400
    assert [parse_size(text) for text in ("2GiB", "500MB", "1048576", "1 MiB", "5000kB")] == [
        2 * 1024**3,
        500_000_000,
        1_048_576,
        1_048_576,
        5_000_000,
    ]
    for broken in ("0d", "30", "d", "-1d", "1.5d", "30D", ""):
        with pytest.raises(ConfigurationError, match="is not an age"):
            parse_age(broken)
    for broken in ("2GIB", "0", "1kB", "-2GiB", "", "9" * 20, "5 XB"):
        with pytest.raises(ConfigurationError, match="is not a size"):
            parse_size(broken)
