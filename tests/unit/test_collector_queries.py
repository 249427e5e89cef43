"""What can be asked of the collector's store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.collected import (
    MILLISECOND,
    START_NS,
    STREAM,
    decision,
    ledger_lines,
    ledger_request,
    log_request,
    span,
    trace_request,
)

from cedarbox.audit.record import Entry
from cedarbox.collector import RecordFilter, Store
from cedarbox.collector.reader import Reader
from cedarbox.errors import ConfigurationError, HostError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as made:
        yield made


def seqs(store: Store, **fields: object) -> list[int | None]:
    return [row.seq for row in store.queries.records(RecordFilter(family="decision", **fields)).rows]  # type: ignore[arg-type]


def test_decisions_are_found_by_every_filter(store: Store) -> None:
    entries = [
        decision(0),
        decision(1, decision="deny", policies=("forbid-rm", "forbid-all"), resource='Program::"50%_off"'),
        decision(2, session="session-2", run="run-2", trace_id=f"{2:032x}"),
        decision(3, action="connect", principal='Agent::"other"', tool="fetch"),
        Entry(event="outcome", session="session-1", outcome="ok", attrs={"decision_seq": 3}),
    ]
    store.add_logs(ledger_request(ledger_lines(entries)))
    assert seqs(store) == [3, 2, 1, 0]
    assert seqs(store, decision="deny") == [1]
    assert seqs(store, action="connect") == [3]
    assert seqs(store, session="session-2") == [2]
    assert seqs(store, run="run-2") == [2]
    assert seqs(store, trace_id=f"{2:032X}") == [2]
    assert seqs(store, principal='Agent::"other"') == [3]
    assert seqs(store, tool="fetch") == [3]
    assert seqs(store, policy="forbid-all") == [1]
    assert seqs(store, policy="forbid") == []
    assert seqs(store, resource="TOOL2") == [2]
    assert seqs(store, resource="0%_o") == [1]
    assert seqs(store, resource="%") == [1]
    assert seqs(store, text="forbid-RM") == [1]
    assert seqs(store, since_ns=START_NS + 2 * MILLISECOND) == [3, 2]
    assert seqs(store, until_ns=START_NS + MILLISECOND, decision="allow") == [0]
    assert seqs(store, stream=STREAM, ledger="") == [3, 2, 1, 0]
    assert seqs(store, ledger="another") == []
    assert [row.seq for row in store.queries.records(RecordFilter(event="outcome")).rows] == [4]
    assert [row.seq for row in store.queries.records(RecordFilter(event="cedarbox.outcome")).rows] == [4]
    (row,) = store.queries.of_decision(STREAM, 3)
    assert (row.seq, row.line["outcome"]) == (4, "ok")


def test_pages_have_every_record_once_while_others_arrive(store: Store) -> None:
    lines = ledger_lines(decision(number) for number in range(25))
    # Equal times must not hide a record at the edge of a page.
    store.add_logs(ledger_request(lines[:20]))
    for number in range(10):
        store.add_logs(log_request("same", str(number), time_ns=START_NS + 5 * MILLISECOND))
    found, cursor, pages = [], None, 0
    while True:
        page = store.queries.records(limit=4, cursor=cursor)
        found += [row.id for row in page.rows]
        pages, cursor = pages + 1, page.next
        if cursor is None:
            break
        if pages == 2:
            store.add_logs(ledger_request(lines[20:]))
    assert len(found) == len(set(found)) == 30
    for broken in ("x", "1.x", "-1.1", "1", "٣.1", "9" * 30 + ".1"):
        with pytest.raises(ConfigurationError, match="is not a cursor"):
            store.queries.records(cursor=broken)


def test_runs_count_errors_and_denials(store: Store) -> None:
    store.add_spans(trace_request(span(1, 3, "child", parent=2, error=True)))
    assert store.queries.runs().rows[0].name == "child"
    store.add_spans(trace_request(span(1, 2, "root"), span(1, 3, "child", parent=2, error=True)))
    store.add_spans(trace_request(span(2, 1, "quiet")))
    store.add_logs(ledger_request(ledger_lines([decision(0), decision(1, decision="deny")])))
    second, first = store.queries.runs().rows
    assert (first.name, first.spans, first.errors, first.logs, first.denials) == ("root", 2, 1, 2, 1)
    assert (second.name, second.errors, second.denials) == ("quiet", 0, 0)
    assert (first.start_ns, first.end_ns) == (START_NS, START_NS + 8 * MILLISECOND)
    assert [run.name for run in store.queries.runs(failed=True).rows] == ["root"]
    page = store.queries.runs(limit=1)
    assert page.next is not None
    rest = store.queries.runs(limit=1, cursor=page.next)
    assert {page.rows[0].name, rest.rows[0].name} == {"root", "quiet"}
    assert rest.next is None
    assert store.queries.run(f"{1:032X}") in {first, second}
    assert store.queries.run("f" * 32) is None


def test_events_and_links_of_spans_are_kept(store: Store) -> None:
    made = span(1, 1, "op")
    made.events.add(name="exception", time_unix_nano=START_NS).attributes.add(key="k").value.int_value = 7
    made.links.add(trace_id=b"l" * 16, span_id=b"s" * 8)
    store.add_spans(trace_request(made, span(1, 2, "bare")))
    kept, bare = store.queries.spans(f"{1:032x}")
    assert kept.events == [{"time_ns": START_NS, "name": "exception", "attributes": {"k": 7}}]
    assert kept.links == [{"trace_id": (b"l" * 16).hex(), "span_id": (b"s" * 8).hex(), "attributes": {}}]
    assert (list(bare.events), list(bare.links)) == ([], [])


def test_connections_are_joined_from_their_records(store: Store) -> None:
    host = 'Host::"a.example"'
    entries = [
        decision(0, action="connect", resource=host),
        Entry(event="egress.opened", session="session-1", action="connect", resource=host, attrs={"decision_seq": 0}),
        decision(2, action="connect"),
        Entry(event="egress.closed", action="connect", outcome="unreachable", attrs={"decision_seq": 2}),
        Entry(
            event="egress.closed",
            session="session-1",
            action="connect",
            resource=host,
            policies=("p", "q"),
            outcome="ok",
            attrs={"decision_seq": 0, "bytes_in": 12, "bytes_out": 34},
        ),
        Entry(event="egress.opened", action="connect", resource=host, attrs={"decision_seq": 9}),
    ]
    store.add_logs(ledger_request(ledger_lines(entries)))
    open_one, failed, done = store.queries.connections().rows
    assert (done.decision_seq, done.bytes_in, done.bytes_out, done.outcome) == (0, 12, 34, "ok")
    assert (done.opened_ns, done.closed_ns) == (START_NS + MILLISECOND, START_NS + 4 * MILLISECOND)
    assert done.policies == ("p", "q")
    assert (failed.decision_seq, failed.opened_ns, failed.outcome) == (2, None, "unreachable")
    assert (open_one.decision_seq, open_one.closed_ns, open_one.revoked, open_one.bytes_in) == (9, None, False, None)
    page = store.queries.connections(limit=2)
    assert [item.decision_seq for item in page.rows] == [9, 2]
    assert [item.decision_seq for item in store.queries.connections(cursor=page.next).rows] == [0]
    assert [item.decision_seq for item in store.queries.connections(RecordFilter(session="session-1")).rows] == [0]


def test_missing_sequence_numbers_are_named(store: Store) -> None:
    lines = ledger_lines(decision(number) for number in range(10))
    for part in (lines[7:9], lines[2:4], lines[3:5], lines[6:7], lines[2:3]):
        store.add_logs(ledger_request(part))
    (state,) = store.queries.streams()
    assert (state.records, state.last_seq, state.gaps) == (6, 8, ((0, 1), (5, 5)))
    assert (state.last_event, state.checkpoint) == ("decision", None)
    store.add_logs(
        log_request("cedarbox.checkpoint", "note", audit__record__id=f"{STREAM}/checkpoint/12", other="kept")
    )
    (state,) = store.queries.streams()
    assert (state.checkpoint, state.gaps) == (12, ((0, 1), (5, 5), (9, 11)))
    (checkpoint,) = store.queries.records(RecordFilter(family="checkpoint")).rows
    assert (checkpoint.body, checkpoint.stream, checkpoint.seq) == ("note", STREAM, 12)
    assert checkpoint.attributes["other"] == "kept"
    store.add_logs(ledger_request(lines))
    (state,) = store.queries.streams()
    assert (state.records, state.gaps, state.conflicts) == (10, ((10, 11),), 0)


def test_ids_of_two_ledgers_do_not_meet(store: Store) -> None:
    """The index of every ledger is a stream of the same name."""
    for ledger, event in (("a" * 16, "exec"), ("b" * 16, "connect")):
        store.add_logs(ledger_request(ledger_lines([decision(0, action=event)]), "index", ledger=ledger))
    assert [(state.ledger[0], state.records, state.conflicts) for state in store.queries.streams()] == [
        ("a", 1, 0),
        ("b", 1, 0),
    ]
    assert len(store.queries.record("index/0")) == 2
    (row,) = store.queries.record("index/0", ledger="b" * 16)
    assert row.line["action"] == "connect"


def test_counts(store: Store) -> None:
    store.add_spans(trace_request(span(1, 1, "root")))
    store.add_logs(ledger_request(ledger_lines([decision(0), decision(1, decision="deny")])))
    store.add_logs(log_request("plain", "x"))
    store.add_logs(log_request("cedarbox.checkpoint", "n", audit__record__id="s/checkpoint/1"))
    counts = store.queries.counts()
    assert (counts.runs, counts.spans, counts.logs, counts.records, counts.checkpoints) == (1, 1, 4, 2, 1)
    assert (counts.decisions, counts.denials, counts.conflicts) == (2, 1, 0)
    assert counts.file_bytes > 0


def test_a_search_that_takes_too_long_is_cut(store: Store) -> None:
    for _ in range(20):
        store.add_logs(ledger_request(ledger_lines(decision(number) for number in range(100))))
        store.add_logs(log_request("x", "y" * 1000))
    reader = Reader(store.path, seconds=-1.0)
    with pytest.raises(ConfigurationError, match="narrow it"):
        reader.rows("SELECT count(*) FROM texts a, texts b, texts c WHERE a.body || b.body LIKE '%q%'")
    reader.close()


def test_every_filter_has_an_index_to_use(store: Store) -> None:
    """A page of a million records must not sort them: each plan walks an index in the order of the answer."""
    from cedarbox.collector import queries

    filters = [
        RecordFilter(),
        RecordFilter(family="decision"),
        RecordFilter(event="egress.opened"),
        RecordFilter(family="decision", session="s"),
        RecordFilter(run="r"),
        RecordFilter(trace_id="t"),
        RecordFilter(family="decision", decision="deny", action="exec"),
        RecordFilter(family="decision", policy="p", since_ns=1),
    ]
    with sqlite3.connect(store.path) as db:
        for where in filters:
            tests, values = queries._tests(where)
            plan = db.execute(
                f"EXPLAIN QUERY PLAN SELECT l.id FROM logs l WHERE {' AND '.join(tests) or '1'} "
                "ORDER BY l.time_ns DESC, l.id DESC LIMIT 10",
                values,
            ).fetchall()
            text = "; ".join(row[3] for row in plan)
            assert "USING INDEX logs_" in text or "USING COVERING INDEX logs_" in text, (where, text)
            assert "USE TEMP B-TREE FOR ORDER BY" not in text, (where, text)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.close()
    with pytest.raises(HostError, match="has stopped"):
        store.runs()
    with pytest.raises(HostError, match="could not be written"):
        store.add_logs(log_request("e", "b"))


def test_a_file_of_another_layout_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "collector.db") as db:
        db.execute("CREATE TABLE spans (x)")
        db.execute("PRAGMA user_version = 1")
    before = (tmp_path / "collector.db").read_bytes()
    with pytest.raises(HostError, match=r"collector\.db: made by another version of cedarbox \(layout 1, .* 2\)"):
        Store(tmp_path)
    assert (tmp_path / "collector.db").read_bytes() == before
