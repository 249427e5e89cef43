"""The index of a ledger: hand-over of keys, several processes, the lock, the clock."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.guarded import Guarded
from tests.unit.ledgers import check, child, records_of
from typer.testing import CliRunner

from cedarbox.audit import index as index_module
from cedarbox.audit.contents import shown_key
from cedarbox.audit.files import Lock
from cedarbox.audit.index import Index
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry, format_time, parse_time
from cedarbox.audit.verify import verify_ledger
from cedarbox.cli import app
from cedarbox.ed25519 import load_private_key
from cedarbox.errors import CedarboxError, LedgerError
from cedarbox.settings import load_settings


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_each_group_has_a_key_of_its_own_and_the_file_holds_the_next(directory: Path) -> None:
    keys: list[Ed25519PrivateKey] = []
    for _ in range(3):
        Ledger.open(directory).close()
        keys.append(load_private_key(directory.with_name("ledger.key"))[0])
    seen = check(directory)
    named = [record.entry.attrs["next_key"] for record in seen.index if "next_key" in record.entry.attrs]
    assert len(set(named)) == 6
    assert named[1::2] == [shown_key(key.public_key()) for key in keys]
    assert (directory / "ledger.pub").read_bytes() == directory.with_name("ledger.pub").read_bytes()
    assert directory.with_name("ledger.key").stat().st_mode & 0o777 == 0o600


def test_ledgers_side_by_side_have_keys_of_their_own(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Ledger.open(tmp_path / name).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("one", "one.key", "one.pub", "two", "two.key", "two.pub")
    ]
    assert verify_ledger(tmp_path / "one").ok
    with pytest.raises(LedgerError, match="another key"):
        Ledger.open(tmp_path / "three", signing_key=tmp_path / "one.key")


def test_several_processes_open_record_and_close_at_once(directory: Path) -> None:
    def work() -> None:
        for _ in range(3):
            with Ledger.open(directory, segment_bytes=2000) as ledger:
                for _ in range(5):
                    ledger.append(Entry(event="outcome", attrs={"by": f"{os.getpid()}"}))

    pids = [child(work) for _ in range(6)]
    assert [ended(pid) for pid in pids] == [0] * 6
    seen = check(directory)
    assert len(seen.streams) == 18
    assert sorted(seen.noted("by")) == sorted(str(pid) for pid in pids for _ in range(15))
    assert len(seen.events("ledger.created")) == 1
    assert not seen.events("stream.recovered")
    assert verify_ledger(directory).ok


def test_a_process_that_stops_with_the_lock_does_not_hold_up_others_for_ever(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(directory, segment_bytes=1000) as ledger:
        monkeypatch.setattr(index_module, "LOCK_SECONDS", 0.05)
        with Lock(directory / ".lock", 1.0):
            with pytest.raises(LedgerError, match="another process has the lock"):
                Ledger.open(directory)
            ledger._writer._index._lock = Lock(directory / ".lock", 0.05)
            ledger.append(Entry(event="outcome"))  # it is written, then the segment is full
            with pytest.raises(LedgerError, match="another process has the lock"):
                ledger.append(Entry(event="outcome"))
    Ledger.open(directory).close()
    assert check(directory).events("stream.recovered")[0].entry.attrs["size"] == 3


def test_the_times_of_the_index_do_not_go_back_with_the_clock(directory: Path) -> None:
    Ledger.open(directory).close()
    wall = time.time_ns() - 3_600_000_000_000
    with Index(directory, wall=lambda: wall).locked() as index:
        index.append([Entry(event="key.rotated", attrs={"reason": "test"})])
    seen = check(directory)
    (stepped,) = seen.events("clock.stepped")
    assert stepped.entry.attrs["clock"] == format_time(wall)
    assert int(str(stepped.entry.attrs["offset_ns"])) == parse_time(stepped.time) - wall
    assert stepped.time == seen.index[stepped.seq - 1].time == seen.index[stepped.seq + 1].time
    assert verify_ledger(directory).ok


def test_a_torn_line_of_the_index_is_cut_and_recorded(directory: Path) -> None:
    Ledger.open(directory).close()
    with (directory / "index.jsonl").open("ab") as file:
        file.write(b'{"action":nu')
    with (directory / "index.checkpoints").open("ab") as file:
        file.write(b"cedarbox.local/led")
    Ledger.open(directory).close()
    (recovered,) = check(directory).events("ledger.recovered")
    assert (recovered.entry.attrs["stream"], recovered.entry.attrs["discarded_bytes"]) == ("index", 12)
    assert verify_ledger(directory).ok


def test_a_ledger_of_the_older_format_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    (directory / "20261123T000931123456Z-5f0c2a9e.jsonl").write_bytes(b"")
    with pytest.raises(LedgerError, match=r"older format than cedarbox\.ledger/2; move it aside"):
        Ledger.open(directory)
    assert [path.name for path in directory.iterdir() if path.name != ".lock"] == [
        "20261123T000931123456Z-5f0c2a9e.jsonl"
    ]


def test_a_stream_that_was_recovered_by_mistake_is_written_no_further_than_its_segment(directory: Path) -> None:
    # As on a file system without locks: another process takes the writer for dead.
    ledger = Ledger.open(directory, segment_bytes=1)
    for file in ledger._writer._files:
        file.unlock()
    Ledger.open(directory).close()
    ledger.append(Entry(event="outcome"))
    with pytest.raises(LedgerError, match="the index says that this stream ended"):
        ledger.append(Entry(event="outcome"))
    ledger.close()
    Ledger.open(directory).close()
    assert not verify_ledger(directory).ok


def test_rotate(directory: Path) -> None:
    run = CliRunner().invoke
    with pytest.raises(CedarboxError, match="there is no ledger"):
        run(app, ["audit", "rotate", str(directory), "--reason", "x"], catch_exceptions=False)
    assert not directory.exists()
    with Ledger.open(directory) as ledger:
        before = directory.with_name("ledger.key").read_bytes()
        done = run(app, ["audit", "rotate", str(directory), "--reason", "a backup was lost", "--json"])
        assert done.exit_code == 0
        ledger.append(Entry(event="outcome"))
    told = json.loads(done.stdout)
    assert directory.with_name("ledger.key").read_bytes() != before
    record = records_of(directory / "index.jsonl")[told["seq"]]
    assert record.entry.event == "key.rotated"
    assert record.entry.attrs == {"reason": "a backup was lost", "next_key": told["next_key"]}
    assert verify_ledger(directory).ok
    assert "hands over" in run(app, ["audit", "rotate", str(directory), "--reason", "again"]).stdout
    with pytest.raises(CedarboxError, match="the reason is empty"):
        run(app, ["audit", "rotate", str(directory), "--reason", " "], catch_exceptions=False)


def test_the_size_of_a_segment_is_a_setting(tmp_path: Path) -> None:
    audit = load_settings(audit={"directory": tmp_path / "ledger", "segment_mib": 2}).audit
    assert audit.segment_bytes == 2 * 1024 * 1024
    with pytest.raises(CedarboxError, match="segment_mib"):
        load_settings(audit={"segment_mib": 0})
    guarded = Guarded(tmp_path)
    assert guarded.client.ledger._writer._segment_bytes == 64 * 1024 * 1024
    guarded.client.close()
