"""Attacks on the keys of the ledger: stolen, put back, replaced, read by others, and on the index that they sign."""

from __future__ import annotations

import os
import shutil
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.forging import Tape, rechained, shown
from tests.unit.ledgers import child, records_of

from cedarbox.audit.checkpoint import origin_of
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.verify import verify_ledger
from cedarbox.ed25519 import load_private_key, private_pem, write_key_pair
from cedarbox.errors import LedgerError


class Site:
    """A ledger that has been written to, its key file, and the first public key, which an auditor has."""

    def __init__(self, directory: Path) -> None:
        self.ledger, self.key, self.trusted = directory / "ledger", directory / "ledger.key", directory / "trusted.pub"
        self.write()
        shutil.copy(directory / "ledger.pub", self.trusted)

    def write(self) -> None:
        with Ledger.open(self.ledger) as ledger:
            ledger.append(Entry(event="decision", decision="deny", resource='File::"/etc/shadow"'))

    def thief(self) -> Ed25519PrivateKey:
        """What somebody has who reads the key file now."""
        return load_private_key(self.key)[0]

    def kinds(self) -> set[str]:
        return {finding.kind for finding in verify_ledger(self.ledger, public_key=self.trusted).findings}

    def everything(self) -> dict[Path, bytes]:
        """All files, so that a refusal can be seen to have written nothing."""
        return {path: path.read_bytes() for path in self.ledger.parent.rglob("*") if path.is_file()}

    def refused(self, match: str) -> None:
        before = self.everything()
        with pytest.raises(LedgerError, match=match):
            Ledger.open(self.ledger)
        assert self.everything() == before


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_stolen_key_file_that_rewrites_the_past(site: Site) -> None:
    """A thief of the key file changes the denial in a closed stream and signs the index anew with that key.

    Whatever the thief signs was signed by another key: the verifier says resigned, and the first bad record.
    """
    stolen = site.thief()
    index = site.ledger / "index.jsonl"
    lines = index.read_bytes().splitlines(keepends=True)
    name = records_of(index)[0].entry.attrs["ledger"]
    tape = Tape(origin_of(str(name), "index"))
    (closed,) = (record.seq for record in records_of(index) if record.entry.event == "stream.closed")
    attrs = dict(records_of(index)[closed].entry.attrs) | {"size": 1}
    tape.refill(rechained(lines, {closed: {"attrs": attrs}}, begin=closed))
    index.write_bytes(b"".join(tape.lines))
    notes = (site.ledger / "index.checkpoints").read_bytes().split(b"\n\n")
    kept = b"\n\n".join(notes[:2]) + b"\n\n"
    (site.ledger / "index.checkpoints").write_bytes(kept + tape.note(stolen) + b"\n")
    (finding,) = (f for f in verify_ledger(site.ledger, public_key=site.trusted).findings if f.stream == "index")
    assert (finding.kind, finding.seq) == ("resigned", closed)
    site.refused("not signed with the key")


def test_a_stolen_key_that_signs_after_it_was_handed_over(site: Site) -> None:
    """A thief keeps a copy of the key file until the ledger was used again, then appends a group signed with it.

    The key has signed once already: the verifier says resigned, and no writer opens the ledger any more.
    """
    stolen = site.thief()
    site.write()
    assert site.kinds() == set()
    index = site.ledger / "index.jsonl"
    records = records_of(index)
    tape = Tape(origin_of(str(records[0].entry.attrs["ledger"]), "index"))
    tape.refill(index.read_bytes().splitlines(keepends=True))
    attrs = {"reason": "mine", "next_key": shown(Ed25519PrivateKey.generate())}
    tape.add(Entry(event="key.rotated", attrs=attrs), 2_000_000_000_000_000_000)
    index.write_bytes(b"".join(tape.lines))
    with (site.ledger / "index.checkpoints").open("ab") as notes:
        notes.write(tape.note(stolen) + b"\n")
    assert site.kinds() == {"resigned"}
    site.refused("not signed with the key")


def test_a_stolen_key_file_after_a_rotation(site: Site) -> None:
    """A thief puts the key file back that was stolen before `cedarbox audit rotate`: the ledger does not open.

    The refusal names the key file; nothing is written.
    """
    old = site.key.read_bytes()
    site.write()
    site.key.write_bytes(old)
    site.refused("the signing key does not fit the index")
    assert site.kinds() == set()


def test_an_old_index_put_back(site: Site) -> None:
    """Somebody puts back the index and its checkpoints of yesterday, to hide the streams of today.

    The key file is further on, so no writer goes on from there; the verifier names the streams that are not in it.
    """
    kept = {name: (site.ledger / name).read_bytes() for name in ("index.jsonl", "index.checkpoints")}
    site.write()
    for name, data in kept.items():
        (site.ledger / name).write_bytes(data)
    site.refused("the index was rolled back, or the key was replaced")
    assert site.kinds()


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda path: (path / "index.jsonl").unlink(), "it was deleted"),
        (lambda path: (path / "index.jsonl").write_bytes(b""), "it was deleted"),
        (lambda path: (path / "index.jsonl").write_bytes(b'{"action":nu'), "it was deleted"),
        (lambda path: (path / "index.checkpoints").unlink(), "checkpoints of the index are gone"),
        (lambda path: (path / "index.checkpoints").write_bytes(b""), "does not fit"),
        (lambda path: os.truncate(path / "index.jsonl", 900), "index ends before"),
        (lambda path: (path / "index.jsonl").rename(path / "x") or (path / "index.jsonl").symlink_to("x"), "."),
    ],
    ids=["deleted", "emptied", "cut in the first line", "no notes", "notes emptied", "cut", "a link"],
)
def test_an_index_that_was_taken_away(site: Site, spoil: Callable[[Path], object], match: str) -> None:
    """Somebody deletes, empties or cuts the index or its checkpoints, to have the next writer begin a new one.

    The next writer refuses and writes nothing; the verifier has findings.
    """
    spoil(site.ledger)
    site.refused(match)
    assert site.kinds()


def test_a_key_of_the_attacker_in_the_place_of_the_key(site: Site, tmp_path: Path) -> None:
    """Somebody who can write to the directory of the key puts a key of their own there: the ledger does not open."""
    write_key_pair(tmp_path / "mine.key")
    site.key.write_bytes((tmp_path / "mine.key").read_bytes())
    site.refused("the signing key does not fit the index")


def test_a_next_key_that_was_laid_out_beforehand(site: Site) -> None:
    """Somebody lays a key of their own where the writer puts the next key, to be named by the index.

    The writer removes it and makes one itself: the index names another key.
    """
    mine = Ed25519PrivateKey.generate()
    path = site.key.with_name("ledger.key.next")
    path.write_bytes(private_pem(mine))
    path.chmod(0o600)
    site.write()
    assert site.kinds() == set()
    named = {record.entry.attrs.get("next_key") for record in records_of(site.ledger / "index.jsonl")}
    assert shown(mine) not in named
    assert not path.exists()


@pytest.mark.parametrize("name", ["ledger.key", "ledger.key.next"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read(site: Site, mode: int, name: str) -> None:
    """Others on the host may read or write the key, or the one that comes next: the ledger does not open."""
    path = site.key.with_name(name)
    if not path.exists():
        shutil.copy(site.key, path)
    path.chmod(mode)
    site.refused("chmod 600")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user(site: Site) -> None:
    """The key file belongs to another user, who could change it at any time: the ledger does not open."""
    os.chown(site.key, 12345, -1)
    site.refused("belongs to user 12345")


def test_a_hard_link_that_keeps_the_old_key(site: Site) -> None:
    """A thief makes a hard link to the key file, to have the key when it has been handed over.

    The old key is overwritten as soon as the next one has its name: the link holds zeros.
    """
    link = site.key.with_name("kept")
    os.link(site.key, link)
    before = link.read_bytes()
    site.write()
    assert b"PRIVATE KEY" in before
    assert link.read_bytes() == bytes(len(before))


def test_a_link_in_the_place_of_the_key(tmp_path: Path) -> None:
    """The key file is a link to a disk of its own: what the link leads to is replaced, no old key stays behind it."""
    (tmp_path / "vault").mkdir()
    (tmp_path / "ledger.key").symlink_to("vault/real.key")
    olds = []
    for _ in range(2):
        Ledger.open(tmp_path / "ledger").close()
        olds.append((tmp_path / "vault" / "real.key").read_bytes())
    assert (tmp_path / "ledger.key").is_symlink()
    assert olds[0] != olds[1]
    assert sorted(path.name for path in (tmp_path / "vault").iterdir()) == ["real.key", "real.pub"]
    assert verify_ledger(tmp_path / "ledger", public_key=tmp_path / "vault" / "real.pub").ok


def test_a_search_of_the_disk_for_the_key_of_a_stream(site: Site) -> None:
    """A thief reads every file while a stream is written: its key is in none of them, in no form that it has."""
    with Ledger.open(site.ledger) as ledger:
        ledger.append(Entry(event="outcome"))
        ledger.checkpoint()
        raw = ledger._writer._key.private_bytes_raw()
        pem = private_pem(ledger._writer._key)
        for data in site.everything().values():
            assert raw not in data
            assert b64encode(raw) not in data
            assert raw.hex().encode() not in data
            assert pem not in data


def test_a_dead_writer_whose_child_lives_on(site: Site) -> None:
    """A process is killed while a forked child of it lives: the child can neither write nor make the stream look open.

    The next opening records the stream as recovered.
    """
    read, write = os.pipe()
    ready, tell = os.pipe()

    def parent() -> None:
        ledger = Ledger.open(site.ledger)
        ledger.append(Entry(event="outcome"))

        def left_behind() -> None:
            os.close(write)
            os.write(tell, b"1")
            os.read(read, 1)

        child(left_behind)
        os.read(ready, 1)
        os.kill(os.getpid(), 9)

    os.waitpid(child(parent), 0)
    site.write()
    recovered = [r for r in records_of(site.ledger / "index.jsonl") if r.entry.event == "stream.recovered"]
    assert [record.entry.attrs["size"] for record in recovered] == [2]
    for descriptor in (write, read, ready, tell):
        os.close(descriptor)
    assert site.kinds() == set()
