"""What vouches for a ledger from outside: a time-stamp server, a witness, and what a collector holds."""

from __future__ import annotations

import subprocess
import sys
import threading
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.shipping import PATIENCE, Authority, until
from tests.unit.stamping import StampServer
from typer.testing import CliRunner

from cedarbox import PolicySandboxClient
from cedarbox.audit import Entry, Ledger, Record, read_records
from cedarbox.audit.anchoring import Anchor, AnchorError, Anchoring, anchors_of
from cedarbox.audit.checkpoint import key_id
from cedarbox.audit.notes import whole_notes as cut
from cedarbox.audit.timestamps import TimestampAnchor, check
from cedarbox.audit.witness import WitnessAnchor
from cedarbox.cli import app
from cedarbox.collector import EmbeddedCollector
from cedarbox.errors import ConfigurationError, LedgerError
from cedarbox.settings import load_settings


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger") as it:
        yield it


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> Iterator[StampServer]:
    it = StampServer(tmp_path, authority)
    yield it
    it.close()


def stamping(server: StampServer, authority: Authority) -> TimestampAnchor:
    return TimestampAnchor(server.url, ca_file=authority.path, every_s=0.0, timeout_s=60)


def anchoring(ledger: Ledger, *anchors: Anchor) -> Anchoring:
    return Anchoring(ledger.directory, ledger.stream, anchors, ledger.append)


def anchored(ledger: Ledger) -> list[Record]:
    """The anchors of the stream; those of the index are recorded beside them."""
    found = [record for _, record in read_records(ledger.directory) if record.entry.event == "ledger.anchored"]
    return [record for record in found if ledger.stream in str(record.entry.attrs)]


def newest_note(ledger: Ledger) -> bytes:
    ledger.checkpoint()
    return whole_notes((ledger.directory / f"{ledger.stream}.checkpoints").read_bytes())[-1]


def whole_notes(data: bytes) -> list[bytes]:
    return cut(data)[0]


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path),)


def test_a_checkpoint_is_stamped_and_the_stamp_holds_offline(
    ledger: Ledger, server: StampServer, authority: Authority, tmp_path: Path
) -> None:
    it = anchoring(ledger, stamping(server, authority))
    it.start()
    until(lambda: len(anchored(ledger)) == 1)
    assert it.stop(PATIENCE)
    server.close()
    stamps = check(ledger.directory, anchors_of(ledger.directory), ca_file=authority.path)
    assert stamps.problems == ()
    first = next(stamp for stamp in stamps.stamps if stamp.stream == ledger.stream)
    facts = anchored(ledger)[0].entry
    assert {stamp.stream for stamp in stamps.stamps} == {ledger.stream, "index"}
    assert (facts.outcome, facts.attrs["kind"]) == ("anchored", "rfc3161")
    assert (facts.attrs["size"], facts.attrs["time"]) == (first.size, first.time)
    assert first.note in whole_notes((ledger.directory / f"{ledger.stream}.checkpoints").read_bytes())
    line = orjson.loads((anchors_of(ledger.directory) / f"{ledger.stream}.timestamps").read_bytes().split(b"\n")[0])
    (tmp_path / "token.tsr").write_bytes(b64decode(line["token"]))
    (tmp_path / "note").write_bytes(first.note)
    command = ["openssl", "ts", "-verify", "-data", str(tmp_path / "note"), "-in", str(tmp_path / "token.tsr")]
    done = subprocess.run([*command, "-CAfile", str(authority.path)], capture_output=True, text=True, check=False)
    assert "Verification: OK" in done.stdout + done.stderr


def test_an_anchor_leads_to_no_further_anchor(ledger: Ledger, server: StampServer, authority: Authority) -> None:
    it = anchoring(ledger, stamping(server, authority))
    for expected in (1, 2, 3):
        ledger.append(Entry(event="decision", decision="allow"))
        for _ in range(5):
            ledger.checkpoint()
            it._round(last=False)
        assert len(anchored(ledger)) == expected


def test_an_anchor_is_asked_no_more_often_than_it_is_set(
    ledger: Ledger, server: StampServer, authority: Authority
) -> None:
    it = anchoring(ledger, TimestampAnchor(server.url, ca_file=authority.path, every_s=3600, timeout_s=60))
    for _ in range(4):
        ledger.append(Entry(event="decision", decision="allow"))
        ledger.checkpoint()
        it._round(last=False)
    assert len(server.queries) == 2  # for the stream and for the index
    it._round(last=True)
    assert len(server.queries) == 3


def test_a_server_that_is_away_is_recorded_once_and_stops_nothing(
    ledger: Ledger, server: StampServer, authority: Authority
) -> None:
    it = anchoring(ledger, stamping(server, authority))
    server.answers = lambda _: (503, b"")
    for _ in range(3):
        ledger.append(Entry(event="decision", decision="allow"))
        ledger.checkpoint()
        it._round(last=False)
    assert [record.entry.outcome for record in anchored(ledger)] == ["failed"]
    assert "503" in it.last_error
    server.answers = None
    it._round(last=False)
    assert [record.entry.outcome for record in anchored(ledger)] == ["failed", "anchored"]
    assert it.last_error == ""


WITNESS = """
import sys
from base64 import b64encode
from hashlib import sha256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
key = load_pem_private_key(open(sys.argv[1], "rb").read(), None)
text = sys.stdin.buffer.read().split(b"\\n\\n")[0] + b"\\n"
name = b"witness.corp.example\\n\\x01" + key.public_key().public_bytes_raw()
blob = sha256(name).digest()[:4] + key.sign(text)
sys.stdout.buffer.write("\\N{EM DASH} witness.corp.example ".encode() + b64encode(blob) + b"\\n")
"""


def test_a_witness_signs_and_its_signature_is_kept_with_the_note(
    ledger: Ledger, authority: Authority, tmp_path: Path
) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "witness.key").write_bytes(pem)
    (tmp_path / "witness.py").write_text(WITNESS)
    command = (sys.executable, "-P", str(tmp_path / "witness.py"), str(tmp_path / "witness.key"))
    note = newest_note(ledger)
    it = anchoring(ledger, WitnessAnchor(command, every_s=0.0, timeout_s=60))
    it._round(last=False)
    assert it.last_error == ""
    (entry,) = (record.entry for record in anchored(ledger))
    assert (entry.outcome, entry.attrs["signers"]) == ("anchored", ("witness.corp.example",))
    (kept,) = whole_notes((anchors_of(ledger.directory) / f"{ledger.stream}.cosigned").read_bytes())
    assert kept.startswith(note)
    blob = b64decode(kept.decode().splitlines()[-1].split(" ")[2])
    public = load_pem_private_key(pem, None).public_key()
    assert isinstance(public, type(key.public_key()))
    assert blob[:4] == key_id("witness.corp.example", public)
    public.verify(blob[4:], note.split(b"\n\n")[0] + b"\n")


def test_a_witness_may_say_nothing_and_sees_nothing_but_the_note(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_TOKEN", "secret")
    command = script(tmp_path / "witness", f'cat > "{tmp_path}/seen"; env > "{tmp_path}/env"')
    given = WitnessAnchor(command, every_s=1, timeout_s=60).take(note := newest_note(ledger))
    assert (given.content, given.facts["signatures"]) == (b"", 0)
    assert (tmp_path / "seen").read_bytes() == note
    assert "secret" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("text", "timeout", "said"),
    [
        ("exit 3", 30, "code 3"),
        ("sleep 300 & sleep 300", 0.2, "did not end"),
        ("echo hello", 30, "no signature"),
        ("printf '\\342\\200\\224 a.example AAAA'", 30, "no end"),
        ("printf '\\342\\200\\224 a.example AAAA\\n'", 30, "no signature"),
        ("printf '\\n\\nother\\n'", 30, "no signature"),
        ("printf '\\377\\n'", 30, "not UTF-8"),
        ("head -c 100000 /dev/zero", 30, "too much"),
        ("kill -9 $$", 30, "code -9"),
    ],
)
def test_a_witness_that_fails_is_said(ledger: Ledger, tmp_path: Path, text: str, timeout: float, said: str) -> None:
    anchor = WitnessAnchor(script(tmp_path / "witness", text), every_s=1, timeout_s=timeout)
    with pytest.raises(AnchorError, match=said):
        anchor.take(newest_note(ledger))
    with pytest.raises(AnchorError, match="cannot be run"):
        WitnessAnchor(("/no/such/program",), every_s=1, timeout_s=1).take(b"")


def test_without_anchors_nothing_runs(ledger: Ledger) -> None:
    before = threading.active_count()
    it = anchoring(ledger)
    it.start()
    assert threading.active_count() == before
    assert it.stop(0.0)


def test_a_guarded_client_anchors_its_ledger_and_its_end(tmp_path: Path, authority: Authority) -> None:
    seen = tmp_path / "seen"
    command = script(tmp_path / "witness", f'cat >> "{seen}"; echo >> "{seen}"')
    settings = load_settings(
        audit={
            "directory": tmp_path / "ledger",
            "signing_key": tmp_path / "ledger.key",
            "witness": {"command": command, "every_s": 3600},
        },
        otlp={"spans": tmp_path / "spans"},
    )
    settings = settings.model_copy(update={"otlp": settings.otlp.model_copy(update={"endpoint": None})})
    client = PolicySandboxClient(
        UnixLocalSandboxClient(), policies=write_bundle(tmp_path / "bundle", PERMIT_ALL), settings=settings
    )
    until(lambda: any(record.entry.event == "ledger.anchored" for _, record in read_records(tmp_path / "ledger")))
    stream = client.ledger.stream
    assert client.close(flush=PATIENCE)
    notes = whole_notes((tmp_path / "ledger" / f"{stream}.checkpoints").read_bytes())
    assert notes[-1] in whole_notes(seen.read_bytes())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_a_ledger_whose_process_ended_is_shipped_and_its_checkpoints_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.append(Entry(event="decision", decision="allow"))
    monkeypatch.setenv("CEDARBOX_OTLP__ENDPOINT", "http://127.0.0.1:9")
    away = run("audit", "ship", "ledger", "--once", "--timeout", "0.3", "--json")
    assert away.exit_code == 1
    assert orjson.loads(away.stdout)["pending_records"] > 0
    with EmbeddedCollector(tmp_path / "store", port=0) as collector:
        monkeypatch.setenv("CEDARBOX_OTLP__ENDPOINT", collector.url)
        done = run("audit", "ship", "ledger", "--once", "--again")
        assert done.exit_code == 0, done.output
        rows = collector.store.logs()
    lines = [line for path in (tmp_path / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    assert set(lines) <= {row.body for row in rows}
    out = run("audit", "anchors", "--from", "store", "--output", "anchors.checkpoints")
    assert out.exit_code == 0
    notes = b"".join(path.read_bytes() for path in sorted((tmp_path / "ledger").glob("*.checkpoints")))
    assert sorted(whole_notes((tmp_path / "anchors.checkpoints").read_bytes())) == sorted(whole_notes(notes))
    check_it = ("audit", "verify", "ledger", "--public-key", "ledger/ledger.pub", "--anchor", "anchors.checkpoints")
    assert run(*check_it).exit_code == 0, run(*check_it).output
    stream = next((tmp_path / "ledger").glob("2*.jsonl"))
    stream.write_bytes(b"".join(stream.read_bytes().splitlines(keepends=True)[:1]))
    (tmp_path / "ledger" / f"{stream.name.split('.')[0]}.checkpoints").write_bytes(b"")
    cut_back = run(*check_it)
    assert cut_back.exit_code == 1
    assert "truncated" in cut_back.output


def test_shipping_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("ship", "nothing"), ("anchors", "--from", "nothing", "--output", "x")):
        result = run("audit", *arguments)
        assert isinstance(result.exception, (ConfigurationError, LedgerError))
    assert not (tmp_path / "x").exists()


def test_an_older_answer_for_the_same_checkpoint_is_refused(
    ledger: Ledger, server: StampServer, authority: Authority
) -> None:
    note, anchor = newest_note(ledger), stamping(server, authority)
    anchor.take(note)
    old = server.replies[-1]
    server.answers = lambda _: (200, old)
    with pytest.raises(AnchorError, match="Nonce"):
        anchor.take(note)
