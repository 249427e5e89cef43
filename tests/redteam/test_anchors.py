"""Attacks on what vouches for the ledger from outside: time stamps, witnesses, and the copy at the collector."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.unit.shipping import Authority
from tests.unit.stamping import StampServer
from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger, read_records
from cedarbox.audit.anchoring import Anchor, Anchoring, anchors_of
from cedarbox.audit.files import checkpoints_path
from cedarbox.audit.otlp_checkpoints import CheckpointSource
from cedarbox.audit.timestamps import Problem, TimestampAnchor, check
from cedarbox.audit.witness import WitnessAnchor
from cedarbox.cli import app
from cedarbox.collector import Store


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def anchor_once(ledger: Ledger, anchor: Anchor) -> list[str | None]:
    """Show the checkpoint of now to an anchor; return the outcomes on record."""
    ledger.append(Entry(event="decision", decision="allow"))
    ledger.checkpoint()
    Anchoring(ledger.directory, ledger.stream, (anchor,), ledger.append)._round(last=False)
    entries = [record.entry for _, record in read_records(ledger.directory)]
    mine = [entry for entry in entries if entry.event == "ledger.anchored" and ledger.stream in str(entry.attrs)]
    return [entry.outcome for entry in mine]


def stamped(ledger: Ledger, server: StampServer, authority: Authority) -> Path:
    """Have a checkpoint stamped, and the index; return the file of stamps of the stream."""
    anchor = TimestampAnchor(server.url, ca_file=authority.path, every_s=0.0, timeout_s=60)
    assert anchor_once(ledger, anchor)[-1] == "anchored"
    return anchors_of(ledger.directory) / f"{ledger.stream}.timestamps"


def problems(ledger: Ledger, authority: Authority) -> list[str]:
    found: tuple[Problem, ...] = check(ledger.directory, anchors_of(ledger.directory), ca_file=authority.path).problems
    return [problem.kind for problem in found]


@pytest.mark.parametrize("false", ["authority", "purpose", "time", "replayed", "no stamp"])
def test_time_stamp_that_is_not_one(ledger: Ledger, tmp_path: Path, authority: Authority, false: str) -> None:
    """A server answers with the stamp of another authority, of a certificate for something else or an expired one,
    with an older stamp, or with nothing of the kind.

    Nothing of it is kept; ``ledger.anchored`` with the outcome failed is on record, and the run goes on.
    """
    pair = None
    if false == "purpose":
        pair = authority.issue("server", "127.0.0.1")
    if false == "time":
        pair = authority.issue_stamper("old", days=-1)
    (tmp_path / "other").mkdir()
    issuer = Authority(tmp_path / "other", "other") if false == "authority" else authority
    server = StampServer(tmp_path, issuer, pair)
    if false == "purpose":
        server.answers = lambda query: (200, query)  # OpenSSL itself does not stamp with it
    if false == "no stamp":
        server.answers = lambda _: (200, b"\x30\x03\x02\x01\x00")
    if false == "replayed":
        stamped(ledger, server, authority)
        old = server.replies[-1]
        server.answers = lambda _: (200, old)
    anchor = TimestampAnchor(server.url, ca_file=authority.path, every_s=0.0, timeout_s=60)
    assert anchor_once(ledger, anchor)[-1] == "failed"
    server.close()
    assert len(list(anchors_of(ledger.directory).glob("*"))) == (2 if false == "replayed" else 0)
    assert problems(ledger, authority) == [] if false == "replayed" else not anchors_of(ledger.directory).exists()


def test_ledger_that_was_cut_back_behind_a_time_stamp(ledger: Ledger, tmp_path: Path, authority: Authority) -> None:
    """Whoever has the host removes the newest checkpoints with the records that they cover.

    The time stamp of such a checkpoint remains: check names the stream as truncated.
    """
    server = StampServer(tmp_path, authority)
    stamped(ledger, server, authority)
    stamped(ledger, server, authority)
    server.close()
    assert problems(ledger, authority) == []
    path = checkpoints_path(ledger.directory, ledger.stream)
    source = CheckpointSource(ledger.directory)
    path.write_bytes(source.cut(path.read_bytes())[0])
    assert problems(ledger, authority) == ["truncated", "truncated"]
    path.unlink()
    assert problems(ledger, authority) == ["truncated", "truncated"]


def test_ledger_that_was_written_again_behind_a_time_stamp(
    ledger: Ledger, tmp_path: Path, authority: Authority
) -> None:
    """A thief of the key writes the history again, with checkpoints of the same sizes and a good signature.

    The time stamp is of the other root: check names the stream as forked.
    """
    server = StampServer(tmp_path, authority)
    stamped(ledger, server, authority)
    server.close()
    path = checkpoints_path(ledger.directory, ledger.stream)
    notes = [note.decode().split("\n") for note in CheckpointSource(ledger.directory).cut(path.read_bytes())]
    changed = ["\n".join([note[0], note[1], b64encode(bytes(32)).decode(), *note[3:]]) for note in notes]
    path.write_text("".join(changed))
    assert problems(ledger, authority) == ["forked"]


@pytest.mark.parametrize("change", ["time", "size", "token", "note", "stream", "torn"])
def test_time_stamp_that_was_edited(ledger: Ledger, tmp_path: Path, authority: Authority, change: str) -> None:
    """Somebody changes what is kept of a stamp: its time, size, token or checkpoint, moves it, or cuts it.

    check names the line; the stamp counts for nothing.
    """
    server = StampServer(tmp_path, authority)
    path = stamped(ledger, server, authority)
    server.close()
    line = json.loads(path.read_bytes())
    match change:
        case "time":
            line["time"] = "2020-01-01T00:00:00.000000000Z"
        case "size":
            line["size"] += 1
        case "token":
            line["token"] = line["token"][:-12] + "AAAAAAAAAAA="
        case "note":
            line["note"] = line["note"].replace(ledger.stream, f"{ledger.stream[:-1]}x")
    text = json.dumps(line)
    if change == "stream":
        path = path.rename(path.with_name("20261123T000931123456Z-5f0c2a9e.timestamps"))
    path.write_text(text[: len(text) // 2] if change == "torn" else f"{text}\n")
    result = check(ledger.directory, anchors_of(ledger.directory), ca_file=authority.path)
    assert [problem.kind for problem in result.problems] == ["stamp"]
    assert [stamp.stream for stamp in result.stamps] == ["index"]


def test_witness_that_smuggles_a_checkpoint(ledger: Ledger, tmp_path: Path) -> None:
    """The program of the witness prints a checkpoint of its own after an empty line, to be kept as one of the ledger's.

    Only signature lines are taken: nothing is kept, and the failure is on record.
    """
    witness = tmp_path / "witness"
    witness.write_text("#!/bin/sh\nprintf '\\n'\ncat\n")
    witness.chmod(0o755)
    assert anchor_once(ledger, WitnessAnchor((str(witness),), every_s=1.0, timeout_s=60)) == ["failed"]
    assert not anchors_of(ledger.directory).exists()


def test_two_histories_at_the_collector(ledger: Ledger, tmp_path: Path) -> None:
    """A thief ships a checkpoint of the same size with another root, to have the collector's copy say what he wants.

    The collector keeps both; audit anchors names the place and ends with exit code 1.
    """
    source = CheckpointSource(ledger.directory)
    path = checkpoints_path(ledger.directory, ledger.stream)
    note = source.cut(path.read_bytes())[0]
    lines = note.decode().split("\n")
    other = "\n".join([*lines[:2], b64encode(bytes(32)).decode(), *lines[3:]]).encode()
    with Store(tmp_path / "store") as store:
        for one in (note, other):
            store.add_logs(ExportLogsServiceRequest.FromString(source.encode([one], ledger.stream)))
    output = tmp_path / "anchors.checkpoints"
    result = CliRunner().invoke(app, ["audit", "anchors", "--from", str(tmp_path / "store"), "--output", str(output)])
    assert result.exit_code == 1
    assert f"forked: the collector holds two checkpoints {ledger.stream}/checkpoint/" in result.output
    assert sorted(source.cut(output.read_bytes())) == sorted([note, other])
