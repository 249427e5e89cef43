"""``cedarbox egress watch`` and what it reads with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger
from cedarbox.cli import app

_HOST = 'Host::"mirror.corp.example"'


def _filled(directory: Path) -> Ledger:
    ledger = Ledger.open(directory)
    ledger.append(Entry(event="decision", action="exec", resource='Executable::"sh"', decision="allow"))
    ledger.append(
        Entry(
            event="decision", action="connect", resource=_HOST, decision="allow", policies=("mirror",), session="s" * 32
        )
    )
    ledger.append(
        Entry(event="egress.closed", action="connect", resource=_HOST, attrs={"bytes_in": 7, "reason": "idle"})
    )
    ledger.append(
        Entry(
            event="decision", action="connect", resource='Host::"evil.example"', decision="deny", attrs={"reason": "no"}
        )
    )
    ledger.append(Entry(event="egress.revoked", action="connect", resource=_HOST, decision="deny", policies=("off",)))
    return ledger


def test_what_is_there_is_shown_and_nothing_but_egress(tmp_path: Path) -> None:
    _filled(tmp_path / "ledger").close()
    shown = CliRunner().invoke(app, ["egress", "watch", str(tmp_path / "ledger"), "--once"])
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert len(lines) == 4
    assert "allow" in lines[0]
    assert _HOST in lines[0]
    assert "mirror" in lines[0]
    assert "closed" in lines[1]
    assert "bytes_in 7" in lines[1]
    assert "deny" in lines[2]
    assert "evil.example" in lines[2]
    assert "cut" in lines[3]
    assert "off" in lines[3]


def test_denials_only_and_as_json(tmp_path: Path) -> None:
    _filled(tmp_path / "ledger").close()
    shown = CliRunner().invoke(app, ["egress", "watch", str(tmp_path / "ledger"), "--once", "--denied", "--json"])
    records = [json.loads(line) for line in shown.output.splitlines()]
    assert [(record["event"], record["decision"]) for record in records] == [
        ("decision", "deny"),
        ("egress.revoked", "deny"),
    ]


def test_no_ledger_is_one_line(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "cedarbox", "egress", "watch", str(tmp_path / "none")]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none: the ledger cannot be read: No such file or directory" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_connections_are_shown_as_they_happen(tmp_path: Path) -> None:
    with _filled(tmp_path / "ledger") as ledger:
        program = [sys.executable, "-m", "cedarbox", "egress", "watch", str(tmp_path / "ledger"), "--json", "--past"]
        process = subprocess.Popen(program, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for _ in range(4):
                process.stdout.readline()
            ledger.append(Entry(event="egress.opened", action="connect", resource=_HOST))
            assert json.loads(process.stdout.readline())["event"] == "egress.opened"
            os.kill(process.pid, signal.SIGINT)
            assert process.wait(120) == 130
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
