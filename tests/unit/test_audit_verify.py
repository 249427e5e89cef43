"""Attacks on a ledger, each named in the report of the verifier."""

from __future__ import annotations

import fcntl
import os
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cedarbox.audit.checkpoint import Checkpoint, iter_notes, open_note, origin_of, sign_note
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.merkle import Tree
from cedarbox.audit.read import read_records
from cedarbox.audit.record import Entry, Record
from cedarbox.audit.verify import Report, verify_ledger
from cedarbox.errors import LedgerError

DENIED = 12


class Victim:
    """A ledger of two closed streams, and what an attacker does to it. The first stream is attacked."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "ledger"
        self.key = root / "ledger.key"
        streams = []
        for _ in range(2):
            with Ledger.open(self.directory) as ledger:
                streams.append(ledger.path)
                for number in range(20):
                    ledger.append(
                        Entry(
                            event="decision", decision="deny" if number == DENIED else "allow", attrs={"number": number}
                        )
                    )
                    if number == 10:
                        ledger.checkpoint()
        self.first, self.second = streams
        self.trusted = root / "trusted.pub"
        shutil.copy(root / "ledger.pub", self.trusted)

    @property
    def notes(self) -> Path:
        return self.first.with_suffix(".checkpoints")

    def lines(self, path: Path | None = None) -> list[bytes]:
        return (path or self.first).read_bytes().splitlines(keepends=True)

    def write(self, lines: list[bytes]) -> None:
        self.first.write_bytes(b"".join(lines))

    def rechain(self, records: list[dict[str, Any]]) -> list[bytes]:
        """Number and hash records anew, as one does who has no key."""
        lines, prev = [], "0" * 64
        for seq, fields in enumerate(records):
            fields |= {"seq": seq, "prev": prev}
            fields.pop("hash", None)
            prev = sha256(b"\x00" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
            lines.append(orjson.dumps(fields | {"hash": prev}, option=orjson.OPT_SORT_KEYS) + b"\n")
        return lines

    def resign(self, key: Ed25519PrivateKey, path: Path) -> None:
        """Make the checkpoints anew with a key."""
        tree = Tree()
        for line in self.lines(path):
            tree.append(bytes.fromhex(orjson.loads(line)["hash"]))
        note = sign_note(Checkpoint(origin_of(path.stem), tree.size, tree.root()), key)
        path.with_suffix(".checkpoints").write_bytes(note + b"\n")

    def verify(self) -> Report:
        return verify_ledger(self.directory, public_key=self.trusted)

    def finding(self) -> tuple[str, str, int | None]:
        """Give kind, stream and number of the only finding."""
        report = self.verify()
        assert not report.ok
        (finding,) = report.findings
        assert finding.message
        return finding.kind, finding.stream, finding.seq


@pytest.fixture
def victim(tmp_path: Path) -> Victim:
    return Victim(tmp_path)


def test_an_untouched_ledger_verifies(victim: Victim) -> None:
    report = victim.verify()
    assert report.ok
    assert (report.streams, report.records, report.checkpoints) == (2, 45, 6)
    assert (report.findings, report.notes, report.key_source) == ((), (), "given")
    assert [(head.stream, head.seq, head.signed, head.closed) for head in report.heads] == [
        (victim.first.stem, 22, 23, True),
        (victim.second.stem, 21, 22, True),
    ]
    assert report.heads[0].hash == Record.from_line(victim.lines()[-1]).hash


def test_the_report_says_that_the_key_lay_beside_the_ledger(victim: Victim) -> None:
    report = verify_ledger(victim.directory)
    assert (report.ok, report.key_source, report.public_key) == (True, "beside", str(victim.key.with_suffix(".pub")))
    victim.key.with_suffix(".pub").unlink()
    assert verify_ledger(victim.directory).public_key == str(victim.directory / "ledger.pub")


def test_edit(victim: Victim) -> None:
    lines = victim.lines()
    lines[14] = lines[14].replace(b'"deny"', b'"allow"')
    victim.write(lines)
    assert victim.finding() == ("edited", victim.first.stem, 14)
    assert victim.verify().findings[0].line == 15


def test_edit_with_its_own_hash_made_good(victim: Victim) -> None:
    lines = victim.lines()
    fields = orjson.loads(lines[14])
    fields["decision"] = "allow"
    del fields["hash"]
    fields["hash"] = sha256(b"\x00" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
    lines[14] = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) + b"\n"
    victim.write(lines)
    assert victim.finding() == ("rewritten", victim.first.stem, 15)


def test_edit_that_leaves_the_meaning(victim: Victim) -> None:
    lines = victim.lines()
    lines[14] = lines[14].replace(b'"seq":', b'"seq": ')
    victim.write(lines)
    assert victim.finding() == ("edited", victim.first.stem, 14)


def test_delete_one(victim: Victim) -> None:
    lines = victim.lines()
    victim.write(lines[:14] + lines[15:])
    assert victim.finding() == ("deleted", victim.first.stem, 14)


def test_delete_the_first(victim: Victim) -> None:
    victim.write(victim.lines()[1:])
    assert victim.finding() == ("deleted", victim.first.stem, 0)


def test_reorder(victim: Victim) -> None:
    lines = victim.lines()
    lines[8], lines[9] = lines[9], lines[8]
    victim.write(lines)
    assert victim.finding() == ("reordered", victim.first.stem, 8)


def test_repeat(victim: Victim) -> None:
    lines = victim.lines()
    victim.write(lines[:9] + lines[8:])
    assert victim.finding() == ("reordered", victim.first.stem, 9)


def test_truncate_tail(victim: Victim) -> None:
    victim.write(victim.lines()[:15])
    assert victim.finding() == ("truncated", victim.first.stem, 15)


def test_truncate_tail_and_checkpoints(victim: Victim) -> None:
    victim.write(victim.lines()[:13])
    notes = list(iter_notes(victim.notes.read_bytes()))
    victim.notes.write_bytes(b"".join(note + b"\n" for note in notes[:2]))
    kind, stream, seq = victim.finding()
    assert (kind, stream, seq) == ("truncated", victim.first.stem, 13)
    assert victim.second.stem in victim.verify().findings[0].message


def test_truncate_the_newest_stream(victim: Victim) -> None:
    victim.second.write_bytes(b"".join(victim.lines(victim.second)[:15]))
    assert victim.finding() == ("truncated", victim.second.stem, 15)
    assert "checkpoint" in victim.verify().findings[0].message


def test_times_that_go_back(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    records[14]["time"] = records[3]["time"]
    victim.write(victim.rechain(records))
    assert victim.finding() == ("time", victim.first.stem, 14)


def test_truncate_in_the_middle_of_a_line(victim: Victim) -> None:
    victim.first.write_bytes(victim.first.read_bytes()[:-50])
    assert victim.finding()[0] == "truncated"


def test_splice_from_another_stream(victim: Victim) -> None:
    lines = victim.lines()
    lines[14] = victim.lines(victim.second)[14]
    victim.write(lines)
    assert victim.finding() == ("spliced", victim.first.stem, 14)
    assert victim.second.stem in victim.verify().findings[0].message


def test_a_stream_in_the_place_of_another(victim: Victim) -> None:
    shutil.copy(victim.second, victim.first)
    findings = victim.verify().findings
    assert [(finding.kind, finding.stream, finding.seq) for finding in findings] == [("spliced", victim.first.stem, 0)]


def test_append_after_the_end(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    victim.write(victim.rechain([*records, records[-2]]))
    assert victim.finding()[0] in {"spliced", "time"}


def test_junk_after_the_end(victim: Victim) -> None:
    victim.first.write_bytes(victim.first.read_bytes() + b"junk")
    assert victim.finding() == ("torn", victim.first.stem, 23)


def test_rechain_without_key(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    records[14]["decision"] = "allow"
    victim.write(victim.rechain(records))
    kind, stream, seq = victim.finding()
    assert (kind, stream) == ("rewritten", victim.first.stem)
    assert seq == 13  # the checkpoint over the first 13 records still holds


def test_delete_and_rechain_without_key(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    del records[5]
    victim.write(victim.rechain(records))
    assert victim.finding() == ("rewritten", victim.first.stem, 2)


def test_rechain_and_drop_the_checkpoints(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    records[14]["decision"] = "allow"
    victim.write(victim.rechain(records))
    victim.notes.unlink()
    assert victim.finding()[0] == "rewritten"  # the later stream names the head
    assert victim.second.stem in victim.verify().findings[0].message


def test_rewrite_with_the_stolen_key(victim: Victim) -> None:
    records = [orjson.loads(line) for line in victim.lines()]
    records[14]["decision"] = "allow"
    victim.write(victim.rechain(records))
    key = load_pem_private_key(victim.key.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    victim.resign(key, victim.first)
    assert victim.finding()[0] == "rewritten"


def test_checkpoint_file_removed(victim: Victim) -> None:
    victim.notes.unlink()
    assert victim.finding() == ("checkpoint", victim.first.stem, 0)


def test_checkpoint_file_emptied(victim: Victim) -> None:
    victim.notes.write_bytes(b"")
    assert victim.finding() == ("checkpoint", victim.first.stem, 0)


def test_last_checkpoint_removed(victim: Victim) -> None:
    notes = list(iter_notes(victim.notes.read_bytes()))
    victim.notes.write_bytes(b"".join(note + b"\n" for note in notes[:-1]))
    assert victim.finding()[0] == "unsealed"


def test_checkpoint_edited(victim: Victim) -> None:
    victim.notes.write_bytes(victim.notes.read_bytes().replace(b"\n13\n", b"\n12\n"))
    assert victim.finding()[0] == "key"
    assert "false" in victim.verify().findings[0].message


def test_checkpoints_of_another_stream(victim: Victim) -> None:
    shutil.copy(victim.second.with_suffix(".checkpoints"), victim.notes)
    assert victim.finding()[0] == "checkpoint"


def test_stream_file_deleted(victim: Victim) -> None:
    victim.first.unlink()
    kinds = {(finding.kind, finding.stream) for finding in victim.verify().findings}
    assert kinds == {("deleted", victim.first.stem)}
    victim.notes.unlink()
    assert victim.finding() == ("deleted", victim.first.stem, None)


def test_newest_stream_file_deleted(victim: Victim) -> None:
    victim.second.unlink()
    assert victim.finding() == ("deleted", victim.second.stem, None)


def test_key_swapped(victim: Victim) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    victim.key.with_suffix(".pub").write_bytes(pem)
    kinds = {finding.kind for finding in verify_ledger(victim.directory).findings}
    assert kinds == {"key"}
    victim.resign(key, victim.first)
    assert victim.finding()[0] == "key"
    assert "not signed with the key" in victim.verify().findings[0].message


def test_a_file_with_a_foreign_name(victim: Victim) -> None:
    (victim.directory / "extra\x1b[31m.jsonl").write_bytes(b"")
    (finding,) = victim.verify().findings
    assert finding.kind == "foreign"
    assert "\x1b" not in finding.stream


def test_a_pipe_in_the_place_of_a_stream_does_not_block(victim: Victim) -> None:
    victim.first.unlink()
    os.mkfifo(victim.first)
    assert victim.finding()[0] == "unreadable"


def test_a_link_in_the_place_of_a_stream_is_refused(victim: Victim) -> None:
    copy = victim.directory.parent / "copy"
    shutil.move(victim.first, copy)
    victim.first.symlink_to(copy)
    assert victim.finding()[0] == "unreadable"


@pytest.mark.parametrize("make", [False, True])
def test_no_ledger_is_an_error_and_not_good(tmp_path: Path, *, make: bool) -> None:
    place = tmp_path / "ledger"
    if make:
        place.mkdir()
    with pytest.raises(LedgerError):
        verify_ledger(place)


def test_no_public_key_is_an_error(victim: Victim) -> None:
    with pytest.raises(LedgerError, match="cannot be read"):
        verify_ledger(victim.directory, public_key=victim.directory / "none.pub")
    (victim.directory / "ledger.pub").unlink()
    victim.key.with_suffix(".pub").unlink()
    with pytest.raises(LedgerError, match="no public key"):
        verify_ledger(victim.directory)


def test_reading_stops_at_a_bad_line(victim: Victim) -> None:
    lines = victim.lines()
    lines[14] = lines[14].replace(b'"deny"', b'"allow"')
    victim.write(lines)
    with pytest.raises(LedgerError, match=r":15: "):
        list(read_records(victim.directory))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Victim, bytes, bytes]:
    victim = Victim(tmp_path_factory.mktemp("shared"))
    return victim, victim.first.read_bytes(), victim.notes.read_bytes()


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
def test_any_change_of_any_byte_is_found_and_nothing_is_raised(
    shared: tuple[Victim, bytes, bytes], data: st.DataObject
) -> None:
    victim, stream, notes = shared
    target, content = data.draw(st.sampled_from([(victim.first, stream), (victim.notes, notes)]))
    start = data.draw(st.integers(0, len(content) - 1))
    end = data.draw(st.integers(start, min(len(content), start + 40)))
    changed = content[:start] + data.draw(st.binary(max_size=20)) + content[end:]
    target.write_bytes(changed)
    try:
        report = victim.verify()
    finally:
        target.write_bytes(content)
    assert report.ok == (changed == content)


@given(data=st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_hostile_files_give_findings(shared: tuple[Victim, bytes, bytes], data: bytes) -> None:
    victim, stream, notes = shared
    victim.first.write_bytes(data)
    victim.notes.write_bytes(data)
    try:
        assert not victim.verify().ok
    finally:
        victim.first.write_bytes(stream)
        victim.notes.write_bytes(notes)


def test_a_note_may_carry_the_signature_of_a_witness(victim: Victim) -> None:
    key = load_pem_private_key(victim.key.read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    origin = origin_of(victim.first.stem)
    note = sign_note(Checkpoint(origin, 5, b"r" * 32), key)
    seen = note + "— witness.corp.example AAAAAAAA\n".encode()
    assert open_note(seen, origin, key.public_key()) == Checkpoint(origin, 5, b"r" * 32)


def test_a_stream_whose_writer_is_just_closing_it_is_no_finding(victim: Victim) -> None:
    notes = list(iter_notes(victim.notes.read_bytes()))
    victim.notes.write_bytes(b"".join(note + b"\n" for note in notes[:-1]))
    with victim.first.open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        report = verify_ledger(victim.directory, public_key=victim.trusted)
    assert report.ok
    assert [note.kind for note in report.notes] == ["open"]
    assert victim.finding()[0] == "unsealed"
