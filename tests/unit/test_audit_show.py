"""Showing and following the ledger, through the command line in this process, on real ledgers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger, Record, read_records
from cedarbox.audit.browse import browse
from cedarbox.audit.follow import follow_streams
from cedarbox.audit.query import Query, moment
from cedarbox.audit.record import GENESIS, format_time, seal
from cedarbox.cli import app, audit_show
from cedarbox.errors import ConfigurationError, LedgerError

SESSION = "5f0c2a9e-0000-4000-8000-000000000001"
CONNECT: dict[str, Any] = {
    "session": SESSION,
    "principal": "agent",
    "action": "connect",
    "resource": 'Host::"pypi.corp.example"',
}
ENTRIES = (
    Entry(event="decision", decision="allow", policies=("mirror",), tool="exec_command", run="r" * 32, **CONNECT),
    Entry(event="egress.opened", policies=("mirror",), attrs={"address": "10.0.0.7", "port": 443}, **CONNECT),
    Entry(event="egress.closed", outcome="ok", attrs={"address": "10.0.0.7", "bytes_out": 512}, **CONNECT),
    Entry(event="egress.revoked", attrs={"reason": "the policies changed"}, **CONNECT),
    Entry(
        event="decision",
        decision="deny",
        action="exec",
        resource='Executable::"sh"',
        policies=("no-nc",),
        trace_id="ab" * 16,
        attrs={"reason": "no netcat here", "summary": "nc -l 1\x1b[31m\u202e\nfaked  DENY"},
    ),
    Entry(event="approval.granted", action="invokeTool", attrs={"request": "r-1", "approver": "auditor@corp.example"}),
    Entry(event="key.rotated", attrs={"reason": "a laptop was lost"}),
    Entry(event="snapshot.refused", action="snapshot restore", outcome="refused", attrs={"snapshot.name": "s-1"}),
)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "ledger") as opened:
        for entry in ENTRIES:
            opened.append(entry)
    return tmp_path / "ledger"


def nothing(error: LedgerError) -> None:
    """For ledgers in which everything can be read."""
    raise AssertionError(error)


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["audit", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("filters", "events"),
    [
        (["--event", "egress.*"], ["egress.opened", "egress.closed", "egress.revoked"]),
        (["--event", "key.rotated", "--event", "approval.?ranted"], ["approval.granted", "key.rotated"]),
        (["--decision", "deny"], ["decision"]),
        (["--decision", "allow", "--session", SESSION[:8]], ["decision"]),
        (["--run", "rrr", "--principal", "agent", "--action", "connect", "--tool", "exec_command"], ["decision"]),
        (["--resource", "*.corp.example", "--policy", "mirror"], ["decision", "egress.opened"]),
        (["--resource", 'Executable::"*"'], ["decision"]),
        (["--trace", "AB" * 16], ["decision"]),
        (["--policy", "no-such"], []),
        (["--since", "1h", "--event", "key.rotated"], ["key.rotated"]),
        (["--until", "1h"], []),
        (["--since", "2000-01-01", "--until", "2000-01-02T00:00:00+02:00"], []),
        (["--event", "egress.*", "--limit", "2"], ["egress.opened", "egress.closed"]),
        (["--event", "egress.*", "--last", "1"], ["egress.revoked"]),
    ],
)
def test_show_and_export_take_the_same_filters(ledger: Path, filters: list[str], events: list[str]) -> None:
    shown, exported = run("show", ledger, "--json", *filters), run("export", ledger, *filters)
    assert shown[:2] == exported[:2]
    assert [json.loads(line)["event"] for line in shown[1].splitlines()] == events
    assert shown[0] == 0


def test_json_is_the_lines_of_the_ledger(ledger: Path) -> None:
    expected = [record.to_line().decode() for _, record in read_records(ledger)]
    for printed in (run("show", ledger, "--json"), run("export", ledger, "--format", "jsonl")):
        assert [line for line in printed[1].splitlines(keepends=True) if line in expected] == expected


def _plain(directory: Path) -> str:
    return run("show", directory)[1]


def test_a_line_for_a_pipe_says_it_in_words_and_is_one_line(ledger: Path) -> None:
    lines = _plain(ledger).splitlines()
    assert len(lines) == len(list(browse(ledger, Query(), unreadable=nothing)))
    (denied,) = (line for line in lines if "  DENY  " in line and "Executable" in line)
    assert "by no-nc" in denied
    assert "no netcat here" in denied
    assert r"nc -l 1\x1b[31m\u202e\nfaked" in denied
    assert "\x1b" not in _plain(ledger)
    assert sum("  CUT  " in line or "  REFUSED  " in line for line in lines) == 2


@pytest.mark.parametrize("width", [80, 160])
def test_a_terminal_gets_a_table_of_its_width(ledger: Path, width: int) -> None:
    console = Console(force_terminal=True, width=width, highlight=False, markup=False, color_system=None)
    with console.capture() as capture:
        audit_show._show_all(browse(ledger, Query(), unreadable=nothing), console, as_json=False)
    text = capture.get()
    assert max(map(len, text.splitlines())) <= width
    for said in ("DENY", "CUT", "REFUSED", "no-nc", "10.0.0.7", "auditor@corp.example", "a laptop was lost"):
        assert said in text
    # What a command chose to be called drives nothing.
    assert "\x1b[31m" not in text
    assert "\u202e" not in text
    assert ("stream" in text.splitlines()[0]) == (width == 160)


def test_one_record_in_full(ledger: Path) -> None:
    record = next(record for _, record in read_records(ledger) if record.entry.decision == "deny")
    code, out, _ = run("show", ledger, record.seq)
    fields = dict(line.split("\t", 1) for line in out.splitlines())
    assert (code, fields["hash"], fields["prev"], fields["policies"]) == (0, record.hash, record.prev, "no-nc")
    assert fields["  summary"] == r"nc -l 1\x1b[31m\u202e\nfaked  DENY"
    assert run("show", ledger, record.seq, "--json")[1].encode() == record.to_line()
    with pytest.raises(ConfigurationError, match="there is no record 999"):
        run("show", ledger, "999")
    with Ledger.open(ledger):
        pass
    with pytest.raises(ConfigurationError, match=r"streams have a record 0: .*; give --stream"):
        run("show", ledger, "0")


def test_a_line_that_cannot_be_read_is_named_and_the_rest_is_shown(ledger: Path) -> None:
    path = next(path for path in sorted(ledger.glob("2*.jsonl")))
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if b"mirror" in line)
    changed = [lines[at].replace(b"mirror", b"horror"), b"nonsense\n"]
    path.write_bytes(b"".join([*lines[:at], *changed, *lines[at + 1 :], b'{"to']))
    code, out, err = run("show", ledger, "--json")
    assert code == 2
    assert [line.split(": ")[1] for line in err.splitlines()] == [f"{path}:{at + 1}", f"{path}:{at + 2}"]
    assert sum(line.encode() + b"\n" in lines for line in out.splitlines()) == len(lines) - 1
    assert run("export", ledger, "--format", "csv", "--output", ledger.parent / "out.csv")[0] == 2
    assert len((ledger.parent / "out.csv").read_text().splitlines()) >= len(lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--limit", "1", "--last", "1"], "exclude each other"),
        (["--decision", "maybe"], "neither allow nor deny"),
        (["--since", "yesterday"], "is not a time"),
        (["--stream", "nope"], "there is no stream nope"),
        (["--lineage", "nope"], "tells of no snapshot nope"),
        (["1", "2"], "more than a directory"),
    ],
)
def test_bad_input_is_one_line(ledger: Path, arguments: list[str], said: str) -> None:
    with pytest.raises((ConfigurationError, LedgerError), match=said) as caught:
        run("show", ledger, *arguments)
    assert "\n" not in str(caught.value)
    with pytest.raises(LedgerError, match="the ledger cannot be read: No such file"):
        run("show", ledger / "nowhere")


@pytest.mark.parametrize(
    ("text", "time_"),
    [
        ("2026-11-23T09:30:00Z", "2026-11-23T09:30:00.000000000Z"),
        ("2026-11-23T09:30:00.25+01:00", "2026-11-23T08:30:00.250000000Z"),
        ("2026-11-23", "2026-11-23T00:00:00.000000000Z"),
        ("2h", "1970-01-01T01:00:00.000000000Z"),
    ],
)
def test_times_as_people_write_them(text: str, time_: str) -> None:
    assert moment(text, now_ns=3 * 3600 * 10**9) == time_


@pytest.mark.parametrize("text", ["", "2026-11-23T09:30:00", "now", "2h30", "1900-01-01", "99999-01-01"])
def test_times_that_could_mean_anything(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a time"):
        moment(text, now_ns=0)


def _segment(path: Path, first: int, prev: str, events: list[str]) -> str:
    data = b""
    for number, event in enumerate(events, first):
        record, line, _ = seal(Entry(event=event), number, format_time(number * 10**9), prev)
        data, prev = data + line, record.hash
    path.write_bytes(data)
    return prev


def test_segments_of_a_stream_and_the_index_are_read_in_order(tmp_path: Path) -> None:
    stream = "20261123T000931123456Z-5f0c2a9e"
    prev = _segment(tmp_path / f"{stream}.000000.jsonl", 0, GENESIS, ["ledger.opened", "segment.sealed"])
    _segment(tmp_path / f"{stream}.000001.jsonl", 2, prev, ["outcome", "ledger.closed"])
    _segment(tmp_path / "index.jsonl", 0, GENESIS, ["ledger.created", "stream.opened"])
    found = [(name, record.seq) for name, record in browse(tmp_path, Query(), unreadable=nothing)]
    assert found == [(stream, 0), ("index", 0), (stream, 1), ("index", 1), (stream, 2), (stream, 3)]
    only = browse(tmp_path, Query(stream="5f0c2a9e"), unreadable=nothing)
    assert [record.seq for _, record in only] == [0, 1, 2, 3]


def test_following_takes_up_new_segments_and_streams(tmp_path: Path) -> None:
    stream, other = "20261123T000931123456Z-5f0c2a9e", "20261123T000932123456Z-00000001"
    prev = _segment(tmp_path / f"{stream}.000000.jsonl", 0, GENESIS, ["ledger.opened", "segment.sealed"])
    looks = iter(range(4))

    def going_on() -> bool:
        match next(looks):
            case 0:
                return True
            case 1:
                _segment(tmp_path / f"{stream}.000001.jsonl", 2, prev, ["outcome"])
                return True
            case 2:
                _segment(tmp_path / f"{other}.000000.jsonl", 0, GENESIS, ["ledger.opened"])
                _segment(tmp_path / "index.jsonl", 0, GENESIS, ["ledger.created"])
                return True
            case _:
                return False

    coming = follow_streams(tmp_path, every_s=0, last=1, going_on=going_on)
    seen = [(name, record.seq) for name, record in coming]
    assert seen == [(stream, 1), (stream, 2), (other, 0), ("index", 0)]


def test_tail_prints_what_a_writer_appends(ledger: Path) -> None:
    started = threading.Event()

    def write() -> None:
        with Ledger.open(ledger) as opened:
            while not started.wait(0.05):
                opened.append(Entry(event="policy.reloaded", attrs={"of": "another stream"}))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        code, out, _ = run("tail", ledger, "--last", "0", "--event", "policy.reloaded", "--limit", "2", "--json")
    finally:
        started.set()
        writer.join()
    assert code == 0
    records = [Record.from_line(line.encode() + b"\n") for line in out.splitlines()]
    assert [record.entry.attrs["of"] for record in records] == ["another stream"] * 2


def test_tail_ends_quietly(ledger: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> Iterator[None]:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupted)
    code, out, err = run("tail", ledger, "--last", "2")
    assert (code, err) == (130, "")
    assert len(out.splitlines()) == 2
