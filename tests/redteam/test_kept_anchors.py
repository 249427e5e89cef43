"""Attacks on the directory with what anchors gave, and on a ledger that is compared with it."""

from __future__ import annotations

import json
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.anchored import AnchoredLedger, anchored_ledger
from tests.unit.shipping import Authority
from tests.unit.stamping import StampServer

from cedarbox.audit import Ledger, read_records
from cedarbox.audit.notes import whole_notes
from cedarbox.audit.timestamps import TimestampAnchor


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[AnchoredLedger]:
    with anchored_ledger(tmp_path) as it:
        yield it


def records_about(scene: AnchoredLedger, kind: str, tree: str) -> list[int]:
    """The records which say that an anchor of this kind has seen a note of a tree."""
    found = [record for _, record in read_records(scene.directory) if record.entry.event == "ledger.anchored"]
    about = [record for record in found if record.entry.attrs["kind"] == kind]
    return [record.seq for record in about if str(record.entry.attrs["origin"]).endswith(f"/{tree}")]


def missing(scene: AnchoredLedger) -> list[int | None]:
    """The records whose anchor is missed."""
    return [finding.seq for finding in scene.verify().findings if finding.kind == "anchor"]


@pytest.mark.parametrize("tree", ["stream", "index"])
@pytest.mark.parametrize("kind", ["rfc3161", "witness"])
def test_delete_the_file_of_an_anchor(scene: AnchoredLedger, kind: str, tree: str) -> None:
    """The time stamps of a stream or of the index are deleted, or the notes that a witness signed.

    The ledger says that they were given: `anchor` names the record, for time stamps also when none is checked.
    """
    name = scene.stream if tree == "stream" else "index"
    (scene.kept / f"{name}.{'timestamps' if kind == 'rfc3161' else 'cosigned'}").unlink()
    expected = records_about(scene, kind, name)
    assert len(expected) == 1
    assert missing(scene) == expected
    assert scene.kinds() == [("anchor", scene.stream)]
    assert [finding.kind for finding in scene.verify(stamps=False).findings] == ["anchor"]


def test_delete_one_time_stamp(scene: AnchoredLedger) -> None:
    """The newest time stamp is cut from its file, and nothing else.

    The others hold; `anchor` names the record of the one that is gone.
    """
    scene.anchor()
    lines = scene.stamps.read_bytes().splitlines(keepends=True)
    scene.stamps.write_bytes(b"".join(lines[:-1]))
    assert scene.kinds() == [("anchor", scene.stream)]
    assert missing(scene) == records_about(scene, "rfc3161", scene.stream)[-1:]
    assert [tree.stamps for tree in scene.verify().stamped] == [1, 1]


@pytest.mark.parametrize("what", ["files", "tokens"])
def test_swap_time_stamps_between_streams(scene: AnchoredLedger, what: str) -> None:
    """The time stamps of the stream and of the index change places, as files, or the tokens in their lines only.

    None holds where it stands, `stamp`; and where the ledger says that it is, it is not: `anchor`.
    """
    paths = (scene.stamps, scene.kept / "index.timestamps")
    mine, other = (path.read_bytes() for path in paths)
    if what == "tokens":
        first, second = json.loads(mine), json.loads(other)
        first["token"], second["token"] = second["token"], first["token"]
        mine, other = json.dumps(second).encode(), json.dumps(first).encode()
    paths[0].write_bytes(other)
    paths[1].write_bytes(mine)
    report = scene.verify()
    assert sorted(finding.kind for finding in report.findings) == ["anchor", "anchor", "stamp", "stamp"]
    assert {finding.stream for finding in report.findings if finding.kind == "stamp"} == {scene.stream, "index"}
    assert (report.stamps, report.stamped) == (0, ())


def test_stamp_it_with_another_authority(scene: AnchoredLedger, tmp_path: Path) -> None:
    """Somebody with an authority of his own stamps the note of today's ledger, and puts that in the place of the stamp.

    It does not hold under the authority that the auditor gives, `stamp`; the real one is missed, `anchor`.
    """
    (tmp_path / "mine").mkdir()
    mine = Authority(tmp_path / "mine", "mine")
    server = StampServer(tmp_path / "mine", mine)
    note = whole_notes((scene.directory / f"{scene.stream}.checkpoints").read_bytes())[0][-1]
    false = TimestampAnchor(server.url, ca_file=mine.path, every_s=0.0, timeout_s=60).take(note)
    server.close()
    scene.stamps.write_bytes(false.content)
    assert scene.kinds() == [("stamp", scene.stream), ("anchor", scene.stream)]
    assert scene.verify().stamps == 1
    assert scene.verify(ca_file=mine.path).stamps == 1
    assert [finding.kind for finding in scene.verify(ca_file=mine.path).findings] == ["stamp", "anchor"]


@pytest.mark.parametrize("cut", ["note", "signature", "within", "end"])
def test_cut_the_cosigned_notes(scene: AnchoredLedger, cut: str) -> None:
    """The file of a witness loses its last note, the signature of the witness below it, or a part of that.

    `anchor` names the record of the note that is gone, and the note that has no end.
    """
    scene.anchor()
    data = scene.cosigned.read_bytes()
    notes = [note + b"\n" for note in whole_notes(data)[0]]
    match cut:
        case "note":
            data = b"".join(notes[:-1])
        case "signature":
            data = b"".join(notes[:-1]) + b"".join(notes[-1].splitlines(keepends=True)[:-2]) + b"\n"
        case "within":
            data = data[:-8]
        case "end":
            data = data[:-1]
    scene.cosigned.write_bytes(data)
    torn: list[int | None] = [None] if cut in {"within", "end"} else []
    last: list[int | None] = [*records_about(scene, "witness", scene.stream)[-1:]]
    assert missing(scene) == torn + last
    assert {kind for kind, _ in scene.kinds()} == {"anchor"}


@pytest.mark.parametrize("recorded", [True, False], ids=["anchored", "never anchored"])
def test_empty_the_directory_of_anchors(scene: AnchoredLedger, tmp_path: Path, *, recorded: bool) -> None:
    """Everything in the directory is removed; or the ledger was rolled back to a time when it had no anchor, too.

    `anchor` names each record whose anchor is gone; and a directory without any anchor is a finding by itself.
    """
    if not recorded:
        with Ledger.open(tmp_path / "young" / "ledger") as young:
            scene.directory = young.directory
        shutil.copy(young.directory / "ledger.pub", scene.trusted)
    for path in scene.kept.iterdir():
        path.unlink()
    findings = scene.verify().findings
    expected = [record.seq for _, record in read_records(scene.directory) if record.entry.event == "ledger.anchored"]
    assert [finding.seq for finding in findings] == [*expected, None]
    assert {finding.kind for finding in findings} == {"anchor"}
    assert len(expected) == (4 if recorded else 0)


@pytest.mark.parametrize("kept", ["timestamps", "cosigned"])
def test_roll_the_ledger_back_behind_an_anchor(scene: AnchoredLedger, tmp_path: Path, kept: str) -> None:
    """The whole ledger is replaced by an older copy of itself, an honest one, from before its last anchor.

    What the anchor saw is longer than what is there: `truncated`, by the time stamp alone and by the witness alone.
    """
    shutil.copytree(scene.directory, tmp_path / "old")
    scene.anchor()
    for path in scene.kept.iterdir():
        if path.suffix != f".{kept}":
            path.unlink()
    scene.directory = tmp_path / "old"
    assert scene.verify().findings[0].kind == "truncated"
    assert scene.verify().findings[0].stream == scene.stream
    assert scene.stream not in {tree.stream for tree in scene.verify().stamped}


def test_drop_the_note_that_was_stamped(scene: AnchoredLedger) -> None:
    """The checkpoint that was stamped is taken out of the ledger; the records and the later checkpoints remain.

    The time stamp knows it: `truncated`. Nothing is said of when the records existed.
    """
    scene.anchor()
    path = scene.directory / f"{scene.stream}.checkpoints"
    stamped = json.loads(scene.stamps.read_bytes().splitlines()[0])["note"].encode() + b"\n"
    assert stamped in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(stamped, b""))
    assert scene.kinds() == [("truncated", scene.stream)]
    assert [tree.stream for tree in scene.verify().stamped] == ["index"]


def test_anchors_of_another_ledger(scene: AnchoredLedger, tmp_path: Path) -> None:
    """The directory is replaced by that of another ledger, whose stamps are real and whose witness is the same.

    They are of another tree, `stamp` and `anchor`; and those of this ledger are missed.
    """
    (tmp_path / "other").mkdir()
    with anchored_ledger(tmp_path / "other") as other:
        shutil.rmtree(scene.kept)
        scene.kept.mkdir()
        for path in other.kept.iterdir():
            shutil.copy(path, scene.kept / path.name.replace(other.stream, scene.stream))
        report = scene.verify(ca_file=other.authority.path)
    assert sorted(finding.kind for finding in report.findings) == ["anchor"] * 6 + ["stamp"] * 2
    assert (report.anchors, report.stamped) == (0, ())


def test_files_among_the_anchors_that_are_of_no_stream(scene: AnchoredLedger) -> None:
    """Files with names that would write to the auditor's terminal, a directory, and a link are put among the anchors.

    Each is named, harmlessly, as `foreign` or `unreadable`; no link is followed.
    """
    for suffix in ("timestamps", "cosigned"):
        (scene.kept / f"\x1b[2Jall is well\udce9.{suffix}").write_bytes(b"")
    (scene.kept / "20261231T000000000000Z-0a0a0a0a.timestamps").mkdir()
    (scene.kept / "20261231T000000000000Z-0a0a0a0a.cosigned").symlink_to(scene.cosigned)
    findings = scene.verify().findings
    assert sorted(finding.kind for finding in findings) == ["foreign", "foreign", "unreadable", "unreadable"]
    assert all(f"{finding.stream}{finding.message}".isprintable() for finding in findings)


def test_record_an_anchor_that_never_was(scene: AnchoredLedger) -> None:
    """Whoever writes to the ledger records an anchor of another tree, or one without a proof, to be believed later.

    Nothing of the kind is in the directory: `anchor` names each such record.
    """
    entry = next(r.entry for _, r in read_records(scene.directory) if r.entry.attrs.get("kind") == "rfc3161")
    origin = str(entry.attrs["origin"])
    other = origin.replace(f"/{scene.verify().ledger}/", f"/{'0' * 16}/")
    changes = (
        {"origin": origin[:-1]},
        {"origin": other},
        {"token_sha256": b64encode(bytes(8)).decode()},
        {"kind": "witness"},
    )
    false = [
        scene.ledger.append(type(entry)(event=entry.event, outcome=entry.outcome, attrs={**entry.attrs, **change})).seq
        for change in changes
    ]
    scene.ledger.checkpoint()
    assert missing(scene) == false


def test_put_another_witness_in_the_place_of_one(scene: AnchoredLedger) -> None:
    """The name of the witness below a note is replaced by another one; the note stays as it is.

    The ledger says who signed: `anchor` names the record.
    """
    scene.cosigned.write_bytes(scene.cosigned.read_bytes().replace(b"witness.corp.example", b"nobody.corp.example"))
    assert missing(scene) == records_about(scene, "witness", scene.stream)
