"""The ledger: durable, in order, alone in its file, and closed to all when the disk fails."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cedarbox.audit.clock import Clock
from cedarbox.audit.ledger import CHECKPOINT_RECORDS, Ledger
from cedarbox.audit.read import read_records
from cedarbox.audit.record import Entry, Record
from cedarbox.audit.verify import verify_ledger
from cedarbox.errors import LedgerError

WRITERS = """
import os, sys
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry

def say(text):
    os.write(1, text.encode())  # one write, so that a kill leaves no half of a line

def write():
    ledger = Ledger.open(sys.argv[1])
    number = 0
    while True:
        record = ledger.append(Entry(event="decision", attrs={"number": number, "padding": "x" * (number % 700)}))
        say(f"{ledger.stream} {record.seq} {record.hash}\\n")
        number += 1

for turn in range(10):
    child = os.fork()
    if child == 0:
        say(f"{os.getpid()}\\n")
        write()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    say("killed\\n")
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def records_of(path: Path) -> list[Record]:
    return [Record.from_line(line + b"\n") for line in path.read_bytes().split(b"\n")[:-1]]


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_stream_has_its_frame_and_private_files(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        record = ledger.append(Entry(event="decision", decision="deny", attrs={"port": 443}))
        assert record == records_of(ledger.path)[-1]
    assert [item.entry.event for item in records_of(ledger.path)] == [
        *("ledger.opened", "key.created", "decision", "ledger.closed")
    ]
    assert ledger.path == directory / f"{ledger.stream}.jsonl"
    assert mode_of(directory) == 0o700
    assert {mode_of(path) for path in (ledger.path, ledger.path.with_suffix(".checkpoints"))} == {0o600}
    assert mode_of(directory.parent / "ledger.key") == 0o600
    assert (directory.parent / "ledger.pub").read_bytes() == (directory / "ledger.pub").read_bytes()
    report = verify_ledger(directory)
    assert (report.ok, report.records, report.checkpoints, report.notes) == (True, 4, 2, ())


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
    assert sorted(got, key=lambda record: record.seq) == written[2:-1]
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
        notes = ledger.path.with_suffix(".checkpoints").read_text().count("— ")
        for _ in range(CHECKPOINT_RECORDS + 1):  # the last is answered after the checkpoint
            ledger.append(Entry(event="outcome"))
        assert ledger.path.with_suffix(".checkpoints").read_text().count("— ") > notes
    assert notes == 2
    assert verify_ledger(directory).ok


def test_a_checkpoint_comes_by_itself_when_it_is_quiet(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        last = ledger.append(Entry(event="outcome"))
        signed = threading.Event()
        for _ in range(600):
            report = verify_ledger(directory)
            if report.heads[0].signed == last.seq + 1:
                signed.set()
                break
            signed.wait(0.05)
        assert signed.is_set()


def test_the_next_stream_names_the_heads_of_the_others(directory: Path) -> None:
    with Ledger.open(directory) as first:
        first.append(Entry(event="outcome"))
    with Ledger.open(directory) as second, Ledger.open(directory) as third:
        heads = records_of(third.path)[0].entry.attrs["heads"]
    last = records_of(first.path)[-1]
    opened = records_of(second.path)[0]
    assert heads == tuple(
        sorted(
            (
                {"stream": first.stream, "seq": last.seq, "hash": last.hash},
                {"stream": second.stream, "seq": 0, "hash": opened.hash},
            ),
            key=lambda head: str(head["stream"]),
        )
    )
    assert verify_ledger(directory).ok
    assert next(stream for stream, _ in read_records(directory)) == first.stream
    assert len(list(read_records(directory))) == verify_ledger(directory).records


def test_kill_9_loses_no_acknowledged_record(directory: Path) -> None:
    acknowledged: dict[str, dict[int, str]] = {}
    with subprocess.Popen([sys.executable, "-c", WRITERS, str(directory)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for turn in range(10):
            writer = int(process.stdout.readline())
            lines = [process.stdout.readline() for _ in range(5 + 13 * turn)]
            os.kill(writer, signal.SIGKILL)
            lines += iter(process.stdout.readline, b"killed\n")
            for line in lines:
                stream, seq, digest = line.decode().split()
                acknowledged.setdefault(stream, {})[int(seq)] = digest
    assert process.returncode == 0
    Ledger.open(directory).close()
    report = verify_ledger(directory)
    assert report.findings == ()
    assert report.streams == 11
    assert [note.kind for note in report.notes] == ["open"] * 10
    for stream, hashes in acknowledged.items():
        written = {record.seq: record.hash for record in records_of(directory / f"{stream}.jsonl")}
        assert hashes.items() <= written.items()
    assert sum(map(len, acknowledged.values())) > 500


def test_a_torn_last_line_is_cut_and_recorded(directory: Path) -> None:
    with Ledger.open(directory) as first:
        first.append(Entry(event="outcome"))
    whole = first.path.read_bytes()
    lines = whole.split(b"\n")
    torn = lines[-2][:100]
    first.path.write_bytes(b"\n".join([*lines[:-2], torn]))
    notes = first.path.with_suffix(".checkpoints")
    notes.write_bytes(b"\n\n".join(notes.read_bytes().split(b"\n\n")[:2]) + b"\n\n")
    before = verify_ledger(directory)
    assert (before.ok, [note.kind for note in before.notes]) == (True, ["torn", "open"])
    with Ledger.open(directory) as second:
        recovered = records_of(second.path)[1].entry
    assert recovered.event == "ledger.recovered"
    assert recovered.attrs["stream"] == first.stream
    assert recovered.attrs["discarded_bytes"] == len(torn)
    assert first.path.read_bytes() == b"\n".join(lines[:-2]) + b"\n"
    assert verify_ledger(directory).ok


def test_a_stream_in_use_is_not_touched_by_another_opening(directory: Path) -> None:
    with Ledger.open(directory) as first:
        first.append(Entry(event="outcome"))
        with first.path.open("ab") as file:
            file.write(b'{"half')
        with Ledger.open(directory) as second:
            assert all(record.entry.event != "ledger.recovered" for record in records_of(second.path))
        assert first.path.read_bytes().endswith(b'{"half')


def test_a_forked_child_is_refused(directory: Path) -> None:
    # In a process of its own: this one has threads, and newer Pythons warn about a fork then.
    script = """
import os, sys, warnings
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.errors import LedgerError
warnings.simplefilter("ignore")
ledger = Ledger.open(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        ledger.append(Entry(event="outcome"))
    except LedgerError as error:
        ledger.close()
        os._exit(7 if "forked child" in str(error) else 1)
    os._exit(2)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
ledger.append(Entry(event="outcome"))
sys.exit(status)
"""
    assert subprocess.run([sys.executable, "-c", script, str(directory)], check=False).returncode == 7
    report = verify_ledger(directory)
    assert (report.ok, report.records, report.notes) == (True, 4, ())  # the parent closed it at its end


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
    assert [item.entry.event for item in written[2:]] == [
        *("outcome", "clock.stepped", "outcome", "outcome", "ledger.closed")
    ]
    assert [item.time for item in written] == sorted(item.time for item in written)
    assert abs(int(str(written[3].entry.attrs["offset_ns"])) - 3_600_000_000_000) < 1_000_000
    assert verify_ledger(directory).ok


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_signing_key_that_others_can_read_is_refused(directory: Path, mode: int) -> None:
    Ledger.open(directory).close()
    (directory.parent / "ledger.key").chmod(mode)
    with pytest.raises(LedgerError, match="chmod 600"):
        Ledger.open(directory)


def test_another_signing_key_is_refused(directory: Path, tmp_path: Path) -> None:
    Ledger.open(directory).close()
    with pytest.raises(LedgerError, match="another key"):
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
    assert records_of(ledger.path)[2:] == acknowledged
    assert ledger.path.read_bytes().endswith(b"\n")
    assert verify_ledger(small_disk / "ledger", public_key=tmp_path / "trusted.pub").ok


def test_a_write_that_fails_in_part_is_taken_back(directory: Path) -> None:
    # A limit on the size of files makes write(2) take a part and then fail with EFBIG, for any user.
    script = """
import resource, sys
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.errors import LedgerError
ledger = Ledger.open(sys.argv[1])
size = ledger.path.stat().st_size
line = len(ledger.append(Entry(event="outcome")).to_line())
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10 * line + 100, resource.RLIM_INFINITY))
count = 1
try:
    while True:
        ledger.append(Entry(event="outcome"))
        count += 1
except LedgerError as error:
    assert "File too large" in str(error), error
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    ledger.append(Entry(event="outcome"))
except LedgerError:
    print(count)
"""
    done = subprocess.run([sys.executable, "-c", script, str(directory)], check=True, stdout=subprocess.PIPE)
    count = int(done.stdout)
    (path,) = directory.glob("*.jsonl")
    assert 5 < count <= 10
    assert [record.entry.event for record in records_of(path)[2:]] == ["outcome"] * count
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
    assert verify_ledger(directory).streams > 2


def test_the_hash_chain_is_written_as_said(directory: Path) -> None:
    with Ledger.open(directory) as ledger:
        ledger.append(Entry(event="outcome"))
    lines = [json.loads(line) for line in ledger.path.read_text().splitlines()]
    assert lines[0]["prev"] == "0" * 64
    assert [line["prev"] for line in lines[1:]] == [line["hash"] for line in lines[:-1]]
    assert [line["seq"] for line in lines] == [0, 1, 2, 3]
