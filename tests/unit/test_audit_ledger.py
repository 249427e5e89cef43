"""The ledger: durable, in order, alone in its file, and closed to all when the disk fails."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.unit.ledgers import check, child, heads, records_of

from cedarbox.audit.browse import read_records
from cedarbox.audit.clock import Clock
from cedarbox.audit.ledger import CHECKPOINT_RECORDS, Ledger
from cedarbox.audit.notes import read_note, whole_notes
from cedarbox.audit.record import Entry, Record
from cedarbox.audit.verify import verify_ledger
from cedarbox.ed25519 import write_key_pair
from cedarbox.errors import LedgerError


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_stream_has_its_frame_and_private_files(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        record = ledger.append(Entry(event="decision", decision="deny", attrs={"port": 443}))
        assert record == records_of(ledger.path)[-1]
    assert [item.entry.event for item in records_of(ledger.path)] == ["ledger.opened", "decision", "ledger.closed"]
    assert [item.entry.event for item in records_of(directory / "index.jsonl")] == [
        *("ledger.created", "stream.opened", "stream.closed")
    ]
    assert ledger.path == directory / f"{ledger.stream}.000000.jsonl"
    checkpoints = directory / f"{ledger.stream}.checkpoints"
    assert mode_of(directory) == 0o700
    files = (ledger.path, checkpoints, directory / "index.jsonl", directory / "index.checkpoints", directory / ".lock")
    assert {mode_of(path) for path in files} == {0o600}
    assert mode_of(directory.parent / "ledger.key") == 0o600
    assert (directory.parent / "ledger.pub").read_bytes() == (directory / "ledger.pub").read_bytes()
    report = verify_ledger(directory)
    assert (report.ok, report.findings, report.notes) == (True, (), ())
    assert check(directory).notes == 4


def test_closing_twice_is_nothing_and_appending_afterwards_is_refused(directory: Path) -> None:
    ledger = Ledger.open(directory)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.append(Entry(event="outcome"))
    with pytest.raises(LedgerError, match="closed"):
        ledger.checkpoint()
    assert records_of(ledger.path)[-1].entry.event == "ledger.closed"


async def test_a_note_has_its_place_before_what_is_recorded_later_and_before_the_end(directory: Path) -> None:
    ledger = Ledger.open(directory)
    for number in range(200):
        ledger.note(Entry(event="egress.opened", attrs={"n": number}))
    waited = await ledger.record(Entry(event="decision"))
    ledger.note(Entry(event="egress.closed"))
    ledger.close()
    records = [record for _, record in read_records(directory)]
    noted = [record for record in records if record.entry.event == "egress.opened"]
    assert [record.entry.attrs["n"] for record in noted] == list(range(200))
    assert noted[-1].seq == waited.seq - 1
    assert [record.entry.event for record in records[-2:]] == ["egress.closed", "ledger.closed"]
    assert verify_ledger(directory).ok
    with pytest.raises(LedgerError, match="closed"):
        ledger.note(Entry(event="egress.opened"))


def test_threads_share_one_chain(directory: Path) -> None:
    got: list[Record] = []

    def work(name: str) -> None:
        got.extend(
            ledger.append(Entry(event="decision", session=name, attrs={"number": number})) for number in range(150)
        )

    with Ledger.open(directory) as ledger:
        threads = [threading.Thread(target=work, args=(f"s{index}",)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    written = records_of(ledger.path)
    assert sorted(got, key=lambda record: record.seq) == written[1:-1]
    for name in {record.entry.session for record in got}:
        numbers = [record.entry.attrs["number"] for record in written if record.entry.session == name]
        assert numbers == list(range(150))
    assert verify_ledger(directory).ok


async def test_a_cancelled_waiter_neither_loses_nor_doubles_the_record(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        tasks = [asyncio.create_task(ledger.record(Entry(event="outcome", attrs={"n": n}))) for n in range(200)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    kept = [result for result in results if isinstance(result, Record)]
    assert len(kept) == 100
    written = records_of(ledger.path)
    assert [item.entry.attrs["n"] for item in written if item.entry.event == "outcome"] == list(range(200))
    assert set(map(repr, kept)) <= set(map(repr, written))


def test_checkpoints_come_by_number_and_on_demand(directory: Path) -> None:
    notes = 0
    with Ledger.open(directory) as ledger:
        ledger.append(Entry(event="outcome"))
        ledger.checkpoint()
        ledger.checkpoint()
        checkpoints = directory / f"{ledger.stream}.checkpoints"
        notes = checkpoints.read_text().count("— ")
        for _ in range(CHECKPOINT_RECORDS + 1):  # the last is answered after the checkpoint
            ledger.append(Entry(event="outcome"))
        assert checkpoints.read_text().count("— ") > notes
    assert notes == 2
    assert verify_ledger(directory).ok


def test_a_checkpoint_comes_by_itself_when_it_is_quiet(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        last = ledger.append(Entry(event="outcome"))
        signed = threading.Event()
        for _ in range(600):
            if f"\n{last.seq + 1}\n" in (directory / f"{ledger.stream}.checkpoints").read_text():
                signed.set()
                break
            signed.wait(0.05)
        assert signed.is_set()


def test_the_index_names_the_streams_that_are_written_meanwhile(directory: Path) -> None:
    with Ledger.open(directory) as first:
        first.append(Entry(event="outcome"))
    with Ledger.open(directory) as second:
        second.append(Entry(event="outcome"))
        second.checkpoint()
        with Ledger.open(directory) as third:
            opened = records_of(directory / "index.jsonl")[-1].entry
    root = heads(records_of(second.path)[:2])[2].hex()
    assert opened.attrs["stream"] == third.stream
    assert opened.attrs["live"] == ({"stream": second.stream, "size": 2, "root": root},)
    assert list(check(directory).streams) == [first.stream, second.stream, third.stream]
    assert verify_ledger(directory).ok
    assert next(stream for stream, _ in read_records(directory)) == first.stream


def test_a_full_segment_is_sealed_and_the_next_one_has_another_key(directory: Path) -> None:
    with Ledger.open(directory, segment_bytes=4000) as ledger:
        got = [ledger.append(Entry(event="outcome", attrs={"number": number})) for number in range(30)]
    paths = sorted(directory.glob(f"{ledger.stream}.*.jsonl"))
    assert ledger.path == paths[-1]
    assert len(paths) > 3
    assert all(4000 <= path.stat().st_size < 6000 for path in paths[:-1])
    seen = check(directory)
    sealed = seen.events("segment.sealed")
    assert [record.entry.attrs["segment"] for record in sealed] == list(range(len(paths) - 1))
    named = [record.entry.attrs["next_public_key"] for path in paths[:-1] for record in records_of(path)[-1:]]
    assert named == [record.entry.attrs["public_key"] for record in sealed]
    assert len(set(named)) == len(paths) - 1
    assert [record for record in seen.streams[ledger.stream] if record.entry.event == "outcome"] == got
    assert [record for _, record in read_records(directory)] == seen.streams[ledger.stream]
    assert verify_ledger(directory).ok


def test_threads_share_one_chain_over_segments(directory: Path) -> None:
    def work(name: str) -> None:
        for number in range(100):
            ledger.append(Entry(event="decision", attrs={"by": f"{name}.{number}"}))

    with Ledger.open(directory, segment_bytes=20_000) as ledger:
        threads = [threading.Thread(target=work, args=(str(index),)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen = check(directory)
    assert len(seen.events("segment.sealed")) > 10
    assert sorted(seen.noted("by")) == sorted(f"{index}.{number}" for index in range(8) for number in range(100))


def die(work: Callable[[], object]) -> None:
    """Do something in a forked child that then dies by kill -9."""

    def until_death() -> None:
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.waitstatus_to_exitcode(os.waitpid(child(until_death), 0)[1]) == -signal.SIGKILL


def test_a_torn_last_line_is_cut_and_recorded(directory: Path) -> None:
    torn = b'{"action":nu'

    def work() -> None:
        ledger = Ledger.open(directory)
        ledger.append(Entry(event="outcome"))
        with ledger.path.open("ab") as file:
            file.write(torn)

    die(work)
    (path,) = directory.glob("*.000000.jsonl")
    whole = path.read_bytes().removesuffix(torn)
    Ledger.open(directory).close()
    (recovered,) = check(directory).events("stream.recovered")
    assert recovered.entry.attrs["stream"] == path.name.split(".")[0]
    assert recovered.entry.attrs["state"] == "ended"
    assert recovered.entry.attrs["discarded_bytes"] == len(torn)
    assert recovered.entry.attrs["sha256"] == sha256(torn).hexdigest()
    assert (recovered.entry.attrs["size"], recovered.entry.attrs["unsigned"]) == (2, 1)
    assert path.read_bytes() == whole
    assert verify_ledger(directory).ok


@pytest.mark.parametrize(
    ("spoil", "state", "message"),
    [
        (lambda path: path.unlink(), "missing", "segment 0 is gone"),
        (lambda path: next(path.parent.glob("2*.checkpoints")).unlink(), "missing", "checkpoints are gone"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b'"seq":1,', b'"seq":7,')), "damaged", "record 1"),
        (lambda path: os.truncate(path, path.read_bytes().index(b"\n") + 1), "damaged", "2 records were signed"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0\0\n"), "damaged", "record 2"),
        (lambda path: path.with_name(path.name.replace("000000", "000001")).write_bytes(b""), "damaged", "segment 1"),
        (lambda path: path.chmod(0) or path.unlink() or path.mkdir(), "damaged", "cannot be read"),
    ],
    ids=["gone", "no checkpoints", "edited", "cut", "garbage", "a segment too many", "a directory"],
)
def test_a_damaged_stream_is_on_record_and_stops_nobody(
    directory: Path, spoil: Callable[[Path], object], state: str, message: str
) -> None:
    def work() -> None:
        ledger = Ledger.open(directory)
        ledger.append(Entry(event="outcome"))
        ledger.checkpoint()

    die(work)
    (path,) = directory.glob("*.000000.jsonl")
    spoil(path)
    left = path.read_bytes() if path.is_file() else None
    with Ledger.open(directory) as ledger:
        ledger.append(Entry(event="outcome"))
    recovered = [r for r in records_of(directory / "index.jsonl") if r.entry.event == "stream.recovered"]
    assert [record.entry.attrs["state"] for record in recovered] == [state]
    assert message in str(recovered[0].entry.attrs["message"])
    assert left == (path.read_bytes() if path.is_file() else None)
    assert not verify_ledger(directory).ok


def test_a_stream_in_use_is_not_touched_by_another_opening(directory: Path) -> None:
    with Ledger.open(directory) as first:
        first.append(Entry(event="outcome"))
        with first.path.open("ab") as file:
            file.write(b'{"half')
        with Ledger.open(directory):
            pass
        assert all(r.entry.event != "stream.recovered" for r in records_of(directory / "index.jsonl"))
        assert first.path.read_bytes().endswith(b'{"half')


def test_a_forked_child_is_refused_and_holds_no_lock(directory: Path) -> None:
    def work() -> None:
        ledger = Ledger.open(directory)
        read, write = os.pipe()
        ready, tell = os.pipe()

        def in_child() -> None:
            os.close(write)
            with pytest.raises(LedgerError, match="forked child"):
                ledger.append(Entry(event="outcome"))
            ledger.close()
            os.write(tell, b"1")
            os.read(read, 1)  # until the test ends

        child(in_child)
        os.read(ready, 1)
        ledger.append(Entry(event="outcome"))

    die(work)
    # The child lives and had copies of the descriptors: the writer is known to be dead all the same.
    Ledger.open(directory).close()
    seen = check(directory)
    assert [record.entry.attrs["size"] for record in seen.events("stream.recovered")] == [2]


def test_an_entry_that_is_too_long_harms_no_other(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        with pytest.raises(LedgerError, match="bytes long"):
            ledger.append(Entry(event="outcome", attrs={"output": "x" * 2_000_000}))
        ledger.append(Entry(event="outcome"))
    assert verify_ledger(directory).ok


def test_a_step_of_the_clock_is_recorded(directory: Path) -> None:
    step = [0]
    ticks = iter(range(10**18, 10**19, 1000))

    def steady() -> int:
        return next(ticks)

    with Ledger.open(directory, clock=Clock(lambda: steady() + step[0], steady)) as ledger:
        ledger.append(Entry(event="outcome"))
        step[0] = -3_600_000_000_000
        ledger.append(Entry(event="outcome"))
        ledger.append(Entry(event="outcome"))
    written = records_of(ledger.path)
    assert [item.entry.event for item in written[1:]] == [
        *("outcome", "clock.stepped", "outcome", "outcome", "ledger.closed")
    ]
    assert [item.time for item in written] == sorted(item.time for item in written)
    assert abs(int(str(written[2].entry.attrs["offset_ns"])) - 3_600_000_000_000) < 1_000_000
    assert verify_ledger(directory).ok


@pytest.mark.parametrize("by_s", [-3600, 3600])
def test_a_step_of_the_clock_while_a_stream_opens_comes_after_its_first_record(directory: Path, by_s: int) -> None:
    ticks = iter(range(10**18, 10**19, 1000))
    step = [0]
    clock = Clock(lambda: next(ticks) + step[0], lambda: next(ticks))
    step[0] = by_s * 1_000_000_000
    with Ledger.open(directory, clock=clock) as ledger:
        ledger.append(Entry(event="outcome"))
    opened, stepped, *rest = records_of(ledger.path)
    assert [item.entry.event for item in (opened, stepped, *rest)] == [
        *("ledger.opened", "clock.stepped", "outcome", "ledger.closed")
    ]
    assert opened.time == stepped.time <= rest[0].time
    assert abs(int(str(stepped.entry.attrs["by_ns"])) - step[0]) < 1_000_000
    report = verify_ledger(directory)
    assert (report.findings, report.notes) == ((), ())
    assert {1, 2} <= {
        read_note(note).size for note in whole_notes((directory / f"{ledger.stream}.checkpoints").read_bytes())[0]
    }
    assert check(directory)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_signing_key_that_others_can_read_is_refused(directory: Path, mode: int) -> None:
    Ledger.open(directory).close()
    (directory.parent / "ledger.key").chmod(mode)
    with pytest.raises(LedgerError, match="chmod 600"):
        Ledger.open(directory)


def test_another_signing_key_is_refused(directory: Path, tmp_path: Path) -> None:
    Ledger.open(directory).close()
    with pytest.raises(LedgerError, match="cannot be read"):
        Ledger.open(directory, signing_key=tmp_path / "other.key")
    write_key_pair(tmp_path / "other.key")
    with pytest.raises(LedgerError, match="does not fit the index"):
        Ledger.open(directory, signing_key=tmp_path / "other.key")
    (tmp_path / "ledger.key").write_text("nonsense")
    with pytest.raises(LedgerError, match="PEM"):
        Ledger.open(directory)


def test_a_directory_that_others_can_write_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(LedgerError, match="chmod 700"):
        Ledger.open(directory)


def test_a_directory_that_is_a_file_is_refused(directory: Path) -> None:
    directory.write_text("")
    with pytest.raises(LedgerError, match="cannot be used"):
        Ledger.open(directory)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small disk needs root on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(small_disk: Path, tmp_path: Path) -> None:
    ledger = Ledger.open(small_disk / "ledger", signing_key=tmp_path / "ledger.key")
    acknowledged: list[Record] = []
    reason = ""
    for number in range(10_000):
        try:
            acknowledged.append(ledger.append(Entry(event="decision", attrs={"number": number})))
        except LedgerError as error:
            reason = str(error)
            break
    assert "No space left" in reason
    assert len(acknowledged) > 50
    shutil.copy(small_disk / "ledger" / "ledger.pub", tmp_path / "trusted.pub")
    with pytest.raises(LedgerError, match="No space left"):
        ledger.append(Entry(event="outcome"))
    with pytest.raises(LedgerError, match="No space left"):
        asyncio.run(ledger.record(Entry(event="outcome")))
    ledger.close()
    assert records_of(ledger.path)[1:] == acknowledged
    assert ledger.path.read_bytes().endswith(b"\n")
    assert verify_ledger(small_disk / "ledger", public_key=tmp_path / "trusted.pub").ok
    with pytest.raises(LedgerError, match="No space left"):
        Ledger.open(small_disk / "ledger", signing_key=tmp_path / "ledger.key")
    assert not (tmp_path / "ledger.key.next").exists()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    Ledger.open(small_disk / "ledger", signing_key=tmp_path / "ledger.key").close()
    assert acknowledged == check(small_disk / "ledger").streams[ledger.stream][1:]


def test_a_write_that_fails_in_part_is_taken_back(directory: Path) -> None:
    (directory.parent / "count").touch()

    def work() -> None:
        # A limit on the size of files makes write(2) take a part and then fail with EFBIG, for any user.
        ledger = Ledger.open(directory)
        size = ledger.path.stat().st_size
        line = len(ledger.append(Entry(event="outcome")).to_line())
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10 * line + 100, resource.RLIM_INFINITY))
        with suppress(LedgerError):
            for number in range(20):
                ledger.append(Entry(event="outcome"))
                os.truncate(directory.parent / "count", number + 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        with pytest.raises(LedgerError, match="File too large"):
            ledger.append(Entry(event="outcome"))

    assert os.waitstatus_to_exitcode(os.waitpid(child(work), 0)[1]) == 0
    count = (directory.parent / "count").stat().st_size
    (path,) = directory.glob("*.000000.jsonl")
    assert 5 < count <= 10
    assert [record.entry.event for record in records_of(path)[1:]] == ["outcome"] * count
    assert path.read_bytes().endswith(b"\n")
    report = verify_ledger(directory)
    assert (report.ok, [note.kind for note in report.notes]) == (True, ["open"])


def test_a_ledger_in_use_verifies_at_any_moment(directory: Path) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with Ledger.open(directory) as ledger:
                for _ in range(40):
                    ledger.append(Entry(event="outcome"))

    Ledger.open(directory).close()
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        findings = [verify_ledger(directory).findings for _ in range(40)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert findings == [()] * 40
    assert len(check(directory).streams) > 2


def test_the_hash_chain_is_written_as_said(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        ledger.append(Entry(event="outcome"))
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert lines[0]["prev"] == "0" * 64
    assert [line["prev"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    assert [line["seq"] for line in lines] == [0, 1, 2]


@pytest.mark.parametrize("bad", [{"directory": ""}, {"directory": "a\0b"}, {"segment_bytes": 0}, {"segment_bytes": -1}])
def test_what_no_ledger_can_be_opened_with(directory: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        Ledger.open(**{"directory": directory, **bad})
    assert not directory.exists()


@pytest.mark.parametrize("year", [500, 11_000])
def test_a_clock_that_jumps_out_of_what_a_record_can_hold(directory: Path, year: int) -> None:
    wall, steady = [time.time_ns()], [0]
    ledger = Ledger.open(directory, clock=Clock(lambda: wall[0], lambda: steady[0]))
    ledger.append(Entry(event="outcome"))
    wall[0] = (year - 1970) * 31_556_952 * 1_000_000_000
    for _ in range(2):
        with pytest.raises(LedgerError, match="set the clock"):
            ledger.append(Entry(event="outcome"))
    ledger.close()
    with Ledger.open(directory) as again:
        again.append(Entry(event="outcome"))
    assert verify_ledger(directory).findings == ()
