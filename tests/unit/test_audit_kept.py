"""Verification with what anchors gave: what it reports of a ledger in order, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.anchored import AnchoredLedger, anchored_ledger
from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger, read_records, verify_ledger
from cedarbox.cli import app
from cedarbox.errors import ConfigurationError, LedgerError


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[AnchoredLedger]:
    with anchored_ledger(tmp_path) as it:
        yield it


def verify(scene: AnchoredLedger, *arguments: str | Path) -> Any:
    command = ["audit", "verify", scene.directory, "--public-key", scene.trusted, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def test_a_ledger_that_agrees_with_its_anchors(scene: AnchoredLedger) -> None:
    scene.anchor()
    report = scene.verify()
    assert report.findings == ()
    assert (report.anchors, report.cosigned, report.stamps) == (6, 3, 3)
    index, stream = report.stamped
    lines = [json.loads(line) for line in scene.stamps.read_bytes().splitlines()]
    assert (stream.stream, stream.stamps, index.stream, index.stamps) == (scene.stream, 2, "index", 1)
    # The server's time has whole seconds: of two stamps of one second the larger tree existed then too.
    first = [line["size"] for line in lines if line["time"] == lines[0]["time"]]
    assert (stream.oldest_size, stream.oldest_time) == (first[-1], lines[0]["time"])
    assert (stream.newest_size, stream.newest_time) == (lines[1]["size"], lines[1]["time"])
    assert index.oldest_time == index.newest_time <= stream.newest_time


@pytest.mark.skipif(
    os.environ.get("CEDARBOX_LONG") != "1", reason="each process imports everything; set CEDARBOX_LONG=1"
)
def test_processes_share_the_streams_and_find_the_same(scene: AnchoredLedger) -> None:
    Ledger.open(scene.directory).close()
    assert scene.verify(jobs=2) == scene.verify()
    scene.stamps.unlink()
    assert scene.verify(jobs=2) == scene.verify()
    assert [finding.kind for finding in scene.verify(jobs=2).findings] == ["anchor"]


def test_the_command_says_what_was_stamped_and_when(scene: AnchoredLedger) -> None:
    options = ("--anchors", scene.kept, "--timestamp-ca", scene.authority.path)
    line = json.loads(scene.stamps.read_bytes())
    shown = verify(scene, *options)
    assert shown.exit_code == 0, shown.output
    said = (
        f"stream {scene.stream}: records up to {line['size'] - 1} existed at {line['time']}, says the time-stamp server"
    )
    assert f"stamped: {said}" in shown.stdout
    assert "4 anchors (2 cosigned notes, 2 time stamps)" in shown.stdout
    found = json.loads(verify(scene, *options, "--json").stdout)
    assert (found["ok"], found["anchors"], found["cosigned"], found["stamps"]) == (True, 4, 2, 2)
    assert [tree["stream"] for tree in found["stamped"]] == ["index", scene.stream]
    assert found["stamped"][1]["newest_time"] == line["time"]


def test_without_authorities_no_time_stamp_counts(scene: AnchoredLedger) -> None:
    report = scene.verify(stamps=False)
    assert (report.ok, report.anchors, report.stamps, report.stamped) == (True, 2, 0, ())
    (note,) = (note for note in report.notes if note.kind == "stamp")
    assert note.message.startswith("2 time stamps")


def test_without_the_directory_none_is_read(scene: AnchoredLedger) -> None:
    shutil.rmtree(scene.kept)
    report = verify_ledger(scene.directory, public_key=scene.trusted)
    assert (report.ok, report.anchors) == (True, 0)
    assert "0 anchors (0 cosigned notes, 0 time stamps)" in verify(scene).stdout


def test_an_anchor_that_came_too_late_for_a_record_counts(scene: AnchoredLedger) -> None:
    scene.ledger.append(Entry(event="outcome"))
    scene.ledger.close()
    scene.anchoring._round(last=True)
    records = [record for _, record in read_records(scene.directory) if record.entry.event == "ledger.anchored"]
    report = scene.verify()
    assert (report.ok, report.stamps + report.cosigned) == (True, len(records) + 4)


def test_a_witness_that_only_looks_leaves_nothing_that_could_be_gone(scene: AnchoredLedger) -> None:
    witness = scene.trusted.with_name("witness")
    witness.write_text("#!/bin/sh\ncat > /dev/null\n")
    before = scene.verify().cosigned
    scene.anchor()
    report = scene.verify()
    assert (report.findings, report.cosigned) == ((), before)


def test_what_cannot_be_used_is_said(scene: AnchoredLedger, tmp_path: Path) -> None:
    for arguments in (("--timestamp-ca", scene.authority.path), ("--anchors", scene.kept, "--timestamp-ca", "/no.pem")):
        assert isinstance(verify(scene, *arguments).exception, ConfigurationError)
    with pytest.raises(ConfigurationError, match="no time stamps"):
        verify_ledger(scene.directory, public_key=scene.trusted, timestamp_ca=scene.authority.path)
    for place in (tmp_path / "nothing", scene.stamps, Path("a\0b")):
        with pytest.raises(LedgerError, match="the anchors cannot be read"):
            verify_ledger(scene.directory, public_key=scene.trusted, kept=place)
