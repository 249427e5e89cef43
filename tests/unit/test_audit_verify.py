"""The verifier on honest ledgers, at work and at rest, and on files that hold anything."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.redteam.scenes import LONG, alone
from tests.unit.forging import Workshop
from tests.unit.ledgers import child
from typer.testing import CliRunner

from cedarbox.audit import standalone
from cedarbox.audit.browse import read_records
from cedarbox.audit.index import Index
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import GENESIS, Entry, format_time, parse_line, seal
from cedarbox.audit.scan import Scanner
from cedarbox.audit.verify import verify_ledger
from cedarbox.cli import app
from cedarbox.ed25519 import public_pem
from cedarbox.errors import LedgerError

SEGMENT = 2000  # some four records


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A ledger by the writer: two streams, one of them of several segments, and a rotation between them."""
    place = tmp_path / "ledger"
    for number in range(2):
        with Ledger.open(place, segment_bytes=SEGMENT if number else 1_000_000) as ledger:
            for count in range(15):
                ledger.append(Entry(event="decision", decision="allow", attrs={"count": count}))
        with Index(place).locked() as index:
            index.append([Entry(event="key.rotated", attrs={"reason": "test"})])
    return place


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    """A forger's ledger: closed, recovered with and without torn bytes, dead, open; several segments."""
    shop = Workshop(tmp_path)
    first = shop.open()
    shop.write(first, 4)
    second = shop.open()
    shop.write(second, 3)
    shop.seal(second)
    shop.write(second, 2)
    shop.close(first)
    shop.write(second, 2, note=False)
    shop.kill(second, b'{"action":"to')
    third = shop.open()
    shop.write(third, 3)
    shop.seal(third)
    shop.kill(third)
    shop.close(shop.open())
    shop.write(shop.open(), 2)
    shop.save()
    return shop


def test_a_ledger_of_the_writer_verifies(directory: Path) -> None:
    report = verify_ledger(directory, public_key=directory.with_name("ledger.pub"))
    assert (report.ok, report.findings, report.notes, report.key_source) == (True, (), (), "given")
    assert report.records == len(list(read_records(directory)))
    assert report.streams == len(report.heads) == 2
    assert [head.closed for head in report.heads] == [True, True]
    assert [head.signed for head in report.heads] == [head.seq + 1 for head in report.heads]
    lines = [orjson.loads(line) for line in (directory / "index.jsonl").read_bytes().splitlines()]
    assert report.index_records == len(lines)
    assert report.index_checkpoints == sum("next_key" in line["attrs"] for line in lines)
    assert [line["attrs"]["ledger"] for line in lines[:1]] == [report.ledger]
    assert len(list(directory.glob("*.000001.jsonl"))) == 1


def test_the_report_says_that_the_key_lay_beside_the_ledger(directory: Path) -> None:
    beside = directory.with_name("ledger.pub")
    report = verify_ledger(directory)
    assert (report.ok, report.key_source, report.public_key) == (True, "beside", str(beside.absolute()))
    beside.unlink()
    assert verify_ledger(directory).public_key == str((directory / "ledger.pub").absolute())


def test_what_is_not_wrong_is_told(shop: Workshop) -> None:
    report = verify_ledger(shop.directory, public_key=shop.trusted)
    assert report.findings == ()
    assert [note.kind for note in report.notes] == ["recovered", "recovered", "open"]
    third = list(shop.streams.values())[2]
    assert report.notes[1].stream == third.name


@pytest.mark.long
def test_processes_that_share_the_work_come_to_the_same(shop: Workshop) -> None:
    if not LONG:
        pytest.skip("each process imports everything; set CEDARBOX_LONG=1")
    read: list[int] = []
    one = verify_ledger(shop.directory, public_key=shop.trusted, progress=read.append)
    size = sum(path.stat().st_size for path in shop.directory.glob("2*.jsonl"))
    assert sum(read) == size
    read.clear()
    assert verify_ledger(shop.directory, public_key=shop.trusted, jobs=2, progress=read.append) == one
    assert sum(read) == size


def test_a_later_key_vouches_for_what_came_before(shop: Workshop) -> None:
    for key in shop.index_keys[:-1]:
        shop.trusted.write_bytes(public_pem(key.public_key()))
        report = verify_ledger(shop.directory, public_key=shop.trusted)
        assert report.ok
        assert ("key" in [note.kind for note in report.notes]) == (key is not shop.index_keys[0])
    shop.trusted.write_bytes(public_pem(shop.index_keys[-1].public_key()))
    (finding,) = verify_ledger(shop.directory, public_key=shop.trusted).findings
    assert (finding.kind, "has not signed anything yet" in finding.message) == ("key", True)
    assert not alone(shop)


def test_anchors_of_an_honest_ledger_hold(shop: Workshop, tmp_path: Path) -> None:
    anchors = []
    for path in shop.directory.glob("*.checkpoints"):
        anchors.append(tmp_path / path.name)
        shutil.copy(path, anchors[-1])
    shop.write(list(shop.streams.values())[-1], 5)
    shop.save()
    report = verify_ledger(shop.directory, public_key=shop.trusted, anchors=anchors)
    assert report.findings == ()
    assert report.anchors > 10
    assert alone(shop, anchors)


def test_an_anchor_of_a_stream_that_is_not_there_tells_that_it_is_gone(shop: Workshop, tmp_path: Path) -> None:
    line = shop.index.notes[-1].replace(b"/index", b"/20261231T000000000000Z-0a0a0a0a")
    (tmp_path / "anchor").write_bytes(line + b"\n")
    (finding,) = verify_ledger(shop.directory, public_key=shop.trusted, anchors=[tmp_path / "anchor"]).findings
    assert (finding.kind, finding.stream) == ("deleted", "20261231T000000000000Z-0a0a0a0a")


@pytest.mark.parametrize("content", [b"", b"junk", b"a\n\n\xff\n\n", None])
def test_an_anchor_that_cannot_be_used_is_an_error_and_not_good(
    shop: Workshop, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "anchor").write_bytes(content)
    with pytest.raises(LedgerError, match="anchor"):
        verify_ledger(shop.directory, public_key=shop.trusted, anchors=[tmp_path / "anchor"])
    other = Workshop(tmp_path / "other", "another")
    (tmp_path / "anchor").write_bytes(other.index.notes[0] + b"\n")
    with pytest.raises(LedgerError, match="no note in it is of the ledger"):
        verify_ledger(shop.directory, public_key=shop.trusted, anchors=[tmp_path / "anchor"])


def test_what_is_no_ledger_is_an_error_and_not_good(tmp_path: Path) -> None:
    place = tmp_path / "ledger"
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(place)
    place.mkdir()
    with pytest.raises(LedgerError, match="there is no ledger in it"):
        verify_ledger(place)
    (place / "20261123T000931123456Z-5f0c2a9e.jsonl").write_bytes(b"")
    with pytest.raises(LedgerError, match="format 1"):
        verify_ledger(place)


def test_no_public_key_is_an_error(directory: Path) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(directory, public_key=directory / "none.pub")
    (directory / "ledger.pub").unlink()
    directory.with_name("ledger.pub").unlink()
    with pytest.raises(LedgerError, match="no public key"):
        verify_ledger(directory)


def test_a_file_with_a_foreign_name(shop: Workshop) -> None:
    for name in ("extra\x1b[31m.jsonl", "20261123T000931123456Z-5f0c2a9e.jsonl", "extra.checkpoints"):
        path = shop.directory / name
        path.write_bytes(b"")
        (finding,) = verify_ledger(shop.directory, public_key=shop.trusted).findings
        assert finding.kind == "foreign"
        assert "\x1b" not in finding.stream
        assert not alone(shop)
        path.unlink()
    lonely = shop.directory / "20261123T000931123456Z-5f0c2a9e.checkpoints"
    lonely.write_bytes(b"")  # what remains when the disk was full before the stream could be made
    assert verify_ledger(shop.directory, public_key=shop.trusted).ok
    assert alone(shop)
    lonely.write_bytes(b"x")
    assert [found.kind for found in verify_ledger(shop.directory, public_key=shop.trusted).findings] == ["deleted"]
    assert not alone(shop)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("ledger.pub")])
def test_what_is_no_plain_file_neither_blocks_nor_counts(shop: Workshop, make: Callable[[Path], None]) -> None:
    for name in sorted(path.name for path in shop.directory.iterdir() if path.name != "ledger.pub"):
        path = shop.directory / name
        content = path.read_bytes()
        path.unlink()
        make(path)
        report = verify_ledger(shop.directory, public_key=shop.trusted)
        assert not report.ok, name
        assert not alone(shop)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(content)
    assert verify_ledger(shop.directory, public_key=shop.trusted).ok


def test_a_segment_that_the_index_does_not_name_yet_is_waited_for_and_then_missed(shop: Workshop) -> None:
    stream = shop.open()
    lines, notes = list(shop.index.lines), list(shop.index.notes)
    shop.seal(stream)
    shop.write(stream, 1)
    shop.save()
    assert verify_ledger(shop.directory, public_key=shop.trusted).ok
    shop.index.refill(lines)
    shop.index.notes = notes
    shop.save()
    (finding,) = verify_ledger(shop.directory, public_key=shop.trusted).findings
    assert (finding.kind, finding.stream, finding.seq) == ("truncated", "index", len(lines))
    assert not alone(shop)


@pytest.mark.parametrize("state", ["missing", "damaged"])
def test_a_stream_that_was_found_missing_or_damaged_stays_a_finding(shop: Workshop, state: str) -> None:
    stream = shop.open()
    shop.group(("stream.recovered", {"stream": stream.name, "state": state, "size": 0, "root": "", "hash": ""}))
    shop.save()
    (finding,) = verify_ledger(shop.directory, public_key=shop.trusted).findings
    assert finding.stream == stream.name
    assert state in finding.message
    assert not alone(shop)


def test_a_ledger_in_use_verifies_at_any_moment(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            with Ledger.open(directory, segment_bytes=SEGMENT) as ledger:
                for number in range(40):
                    ledger.append(Entry(event="outcome", attrs={"number": number}))
                    if number % 16 == 0:
                        ledger.checkpoint()

    Ledger.open(directory).close()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        reports = [verify_ledger(directory)]
        # On a busy machine a dozen verifications can be over before the writers come to their first record.
        while len(reports) < (400 if LONG else 12) or reports[-1].records == reports[0].records:
            reports.append(verify_ledger(directory))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert [report.findings for report in reports if not report.ok] == []
    assert reports[-1].records > reports[0].records
    final = verify_ledger(directory)
    assert (final.ok, final.notes) == (True, ())
    assert standalone.main(["ledger", str(directory), "--public-key", str(directory / "ledger.pub")]) == 0
    assert len(list(directory.glob("*.jsonl"))) > final.streams + 1, "there were segments"


def test_a_writer_that_was_killed_gives_no_alarm_before_or_after_its_recovery(tmp_path: Path) -> None:
    directory, chance = tmp_path / "ledger", random.Random(7)
    Ledger.open(directory).close()

    def busy() -> None:
        while True:
            with Ledger.open(directory, segment_bytes=SEGMENT) as ledger:
                for number in range(20):
                    ledger.append(Entry(event="outcome", attrs={"number": number}))

    for _ in range(200 if LONG else 8):
        pids = [child(busy) for _ in range(chance.choice((1, 2)))]
        time.sleep(chance.uniform(0.02, 0.12))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert verify_ledger(directory).findings == ()
    # A busy machine may have let none of them come to its work. This one is killed at it.
    ready, told = os.pipe()

    def at_work() -> None:
        ledger = Ledger.open(directory)
        ledger.append(Entry(event="outcome"))
        os.write(told, b"x")
        signal.pause()

    pid = child(at_work)
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(told)
    key = standalone.load_key(str(directory / "ledger.pub"))
    assert "verifies" in standalone.check_ledger(str(directory), key, [])
    Ledger.open(directory).close()
    report = verify_ledger(directory)
    assert report.findings == ()
    assert any(note.kind == "recovered" for note in report.notes)
    assert {note.kind for note in report.notes} <= {"recovered"}
    assert "verifies" in standalone.check_ledger(str(directory), key, [])


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workshop, dict[Path, bytes]]:
    shop = Workshop(tmp_path_factory.mktemp("shared"))
    first, second = shop.open(), shop.open()
    shop.write(first, 4)
    shop.seal(second)
    shop.write(second, 3)
    shop.close(first)
    shop.close(second)
    shop.save()
    return shop, {path: path.read_bytes() for path in sorted(shop.directory.iterdir()) if path.name != "ledger.pub"}


@given(data=st.data())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    database=None,
    max_examples=3000 if LONG else 50,
)
def test_any_change_of_any_byte_is_found_and_nothing_is_raised(
    shared: tuple[Workshop, dict[Path, bytes]], data: st.DataObject
) -> None:
    shop, contents = shared
    path = data.draw(st.sampled_from(sorted(contents)))
    content = contents[path]
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    changed = content[:start] + data.draw(st.binary(max_size=20)) + content[end:]
    assume(changed != content)
    # What stands last in the index may be half an append of a writer that was killed.
    honest = path.name.startswith("index") and content.startswith(changed[: len(content) - 700])
    path.write_bytes(changed)
    try:
        report = verify_ledger(shop.directory, public_key=shop.trusted)
        assert alone(shop) == report.ok
    finally:
        path.write_bytes(content)
    assert not report.ok or honest


@given(data=st.binary(max_size=400), name=st.integers(0, 100))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
    database=None,
    max_examples=2000 if LONG else 30,
)
def test_files_that_hold_anything_give_findings(
    shared: tuple[Workshop, dict[Path, bytes]], data: bytes, name: int
) -> None:
    shop, contents = shared
    path = sorted(contents)[name % len(contents)]
    path.write_bytes(data)
    try:
        assert not verify_ledger(shop.directory, public_key=shop.trusted).ok
        assert not alone(shop)
    finally:
        path.write_bytes(contents[path])


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "Z", 'é"', "\\"]), inner),
    max_leaves=4,
)
TEXT = st.none() | st.text(st.characters(codec="utf-8"), max_size=12)


@given(
    tool=TEXT,
    run=TEXT,
    policies=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=3),
    attrs=st.dictionaries(st.text(max_size=5, alphabet="ab_.é"), VALUES, max_size=4),
    place=st.integers(0, 800),
    junk=st.binary(max_size=3),
)
@settings(deadline=None, database=None, max_examples=5000 if LONG else 50)
def test_the_fast_check_of_a_line_says_what_the_slow_one_says(
    tool: str | None, run: str | None, policies: list[str], attrs: dict[str, object], place: int, junk: bytes
) -> None:
    entry = Entry(event="outcome", tool=tool, run=run, policies=tuple(policies), attrs=attrs)  # type: ignore[arg-type]
    _, line, digest = seal(entry, 7, format_time(1_790_000_000_123_456_789), GENESIS)
    scanned = Scanner()(line[:-1])
    assert scanned == Scanner()(line[:-1])
    assert (scanned[1], scanned[5], scanned[3]) == (b"7", digest, digest.hex().encode())
    fields, leaf = standalone.read_record(line)
    assert (leaf, fields["attrs"]) == (digest, orjson.loads(line)["attrs"])
    changed = line[:place] + junk + line[place + len(junk) :]
    results: list[bytes | None] = []
    for fast in (False, True):
        try:
            results.append(Scanner()(changed.removesuffix(b"\n"))[5] if fast else parse_line(changed)[1])
        except LedgerError:
            results.append(None)
    assert results[0] == results[1] or not changed.endswith(b"\n")


def test_reading_stops_at_a_bad_line(directory: Path) -> None:
    path = min(directory.glob("*.000000.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"count":3', b'"count":4', 1))
    with pytest.raises(LedgerError, match=r":5: "):
        list(read_records(directory))


def test_the_command_prints_what_was_found(directory: Path) -> None:
    trusted = str(directory.with_name("ledger.pub"))
    anchor = directory.with_name("anchor")
    shutil.copy(directory / "index.checkpoints", anchor)
    arguments = ["audit", "verify", str(directory), "--public-key", trusted, "--anchor", str(anchor)]
    good = CliRunner().invoke(app, arguments)
    assert (good.exit_code, good.stdout.splitlines()[-1].partition(":")[0]) == (0, "the ledger verifies")
    assert "found beside" in CliRunner().invoke(app, arguments[:3]).stdout
    path = min(directory.glob("*.000000.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"count":3', b'"count":4', 1))
    bad = CliRunner().invoke(app, arguments)
    assert bad.exit_code == 1
    stream = path.name.partition(".")[0]
    assert f"edited: stream {stream}, record 4, line 5: the record was changed after it was written" in bad.stdout
    told = orjson.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert [(found["kind"], found["seq"]) for found in told["findings"]] == [("edited", 4)]
