"""Attacks on acceptances: an entry that someone signed for one widening, used to get another one past the review."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import change, cli, entities, findings, permit, shared_prover
from tests.unit.repositories import Repository, bundle_files
from tests.unit.signed import make_key

from cedarbox.ed25519 import load_private_key
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.signing import Envelope, sign
from cedarbox.review.diff.acceptance import Accepted, judge, read_accepted, toml_entry
from cedarbox.times import in_utc

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OLD = permit("few", "fork", "context.copies <= 2") + permit("some", "fork", "context.copies == 1", effect="forbid")
NEW = OLD.replace("<= 2", "<= 4")


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


class Site:
    """Two versions of a bundle, an acceptor, and their file."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        make_key(tmp_path, "desk")
        make_key(tmp_path, "mallory")
        self.file = tmp_path / "accepted.toml"

    def diff(self, old: str = OLD, new: str = NEW, **more: str) -> tuple[int, dict[str, Any]]:
        """Compare, with the desk as acceptor; return exit code and report."""
        versions = change(self.path / "policies", old, new, **more)
        given = ("--accepted", self.file, "--acceptor", self.path / "desk.pub", "--json")
        result = cli("diff", *versions, *given)
        return result.exit_code, json.loads(result.stdout)

    def accept(self, old: str = OLD, new: str = NEW, *, key: str = "desk", expires: str = "30d", **more: str) -> None:
        """Accept everything that a change widens."""
        ids = [each["details"]["id"] for each in findings(self.diff(old, new, **more)[1])]
        versions = change(self.path / "policies", old, new, **more)
        given = [part for name in ids for part in ("--widening", name)]
        why = ("--reason", "agreed", "--expires", expires, "--to", self.file)
        result = cli("accept", *versions, *given, "--key", self.path / f"{key}.key", *why)
        assert result.exit_code == 0, result.output

    def edit(self, how: Callable[[str], str]) -> None:
        text = self.file.read_text()
        assert how(text) != text
        self.file.write_text(how(text))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def _why(report: dict[str, Any]) -> str:
    return " ".join(each["message"] for each in findings(report, "D103"))


def test_an_acceptance_replayed_for_another_change(site: Site) -> None:
    """An entry that accepted one change is kept and shown to others: the same policy made wider still, the same edit
    over another base, another policy with that id, the same text for another agent. None of them is accepted."""
    site.accept()
    assert site.diff()[0] == 0
    others: tuple[tuple[str, str, dict[str, str]], ...] = (
        (OLD, NEW.replace("<= 4", "<= 5"), {}),
        (
            OLD + permit("more", "fork", "context.copies == 9"),
            NEW + permit("more", "fork", "context.copies == 9"),
            {},
        ),
        (OLD, OLD + permit("few2", "fork", "context.copies <= 4"), {}),
        (OLD, NEW, {"entities": entities({"coder": (), "other": (), "third": ()})}),
    )
    for old, new, more in others:
        code, report = site.diff(old, new, **more)
        assert (code, len(findings(report, "D103"))) == (1, 1), (old, new)
        assert all(each["suppressed"] is None for each in findings(report))


def test_a_second_widening_behind_an_accepted_one(site: Site) -> None:
    """The change that was accepted gets a second widening of the same action, and one of another action. The first
    makes the entry void, as it changes what the action rests on; the other is found beside the accepted one."""
    site.accept()
    code, report = site.diff(OLD, NEW.replace("copies == 1", "copies == 0"))
    assert (code, len([each for each in findings(report) if each["suppressed"]])) == (1, 0)
    code, report = site.diff(OLD, NEW + permit("shell", "exec"))
    assert code == 1
    assert [(each["policy"], bool(each["suppressed"])) for each in findings(report)] == [
        ("few", True),
        ("shell", False),
    ]


def test_an_entry_that_was_edited(site: Site) -> None:
    """Every value of a signed entry is changed in turn: action, resource, policy, principals, digests, reason, expiry,
    key and signature. None counts any more, even if the change is just what the edited entry says."""
    site.accept()
    whole = site.file.read_text()
    (entry, *_) = read_accepted(site.file)
    values = {
        "action": "exec",
        "resource": "Image",
        "policy": "some",
        "policy_digest": "sha256:" + "0" * 64,
        "base": entry.subject.head,
        "head": entry.subject.base,
        "reason": "never said",
        "expires": "2099-01-01T00:00:00Z",
        "key": "sha256:" + "0" * 64,
        "signature": "A" * 86 + "==",
    }
    keys = [load_private_key(site.path / "desk.key")[0].public_key()]
    found = [each.subject for each in read_accepted(site.file)]
    for name, value in values.items():
        lines = [f'{name} = "{value}"' if line.startswith(f"{name} = ") else line for line in whole.splitlines()]
        site.file.write_text("\n".join(lines) + "\n")
        entries = read_accepted(site.file)
        # The attacker also has it that the change comes to what the entry says.
        verdict = judge(entries, [*found, *(each.subject for each in entries)], keys, NOW, frozenset({"test"}))
        assert (verdict.accepted, len(verdict.refused)) == ({}, 1), name
    site.file.write_text(whole.replace('["coder", "other"]', '["coder"]'))
    code, report = site.diff()
    assert (code, "signature is false" in _why(report)) == (1, True)
    site.file.write_text(whole)
    assert site.diff()[0] == 0


def test_an_entry_of_somebody_else(site: Site) -> None:
    """An entry signed by a key that is no acceptor's, then one that names the acceptor's key and is signed by the
    other. Neither counts."""
    site.accept(key="mallory")
    code, report = site.diff()
    assert (code, "no acceptor" in _why(report)) == (1, True)
    desk, mallory = (load_private_key(site.path / f"{name}.key")[0] for name in ("desk", "mallory"))
    (entry, *_) = read_accepted(site.file)
    meant = Accepted.sign(entry.subject, entry.reason, entry.expires, desk)
    forged = Accepted.sign(entry.subject, entry.reason, entry.expires, mallory)
    mixed = Accepted(meant.subject, meant.reason, meant.expires, meant.key, forged.signature)
    site.file.write_text(toml_entry(mixed))
    code, report = site.diff()
    assert (code, "signature is false" in _why(report)) == (1, True)


def test_an_entry_that_expired(site: Site) -> None:
    """An entry whose time is over is kept in the file. It counts no more, and the report says when it expired."""
    site.accept()
    desk = load_private_key(site.path / "desk.key")[0]
    old = [Accepted.sign(each.subject, each.reason, NOW, desk) for each in read_accepted(site.file)]
    site.file.write_text("".join(map(toml_entry, old)))
    code, report = site.diff()
    assert (code, "it expired at 2026-01-02T00:00:00Z" in _why(report)) == (1, True)


def test_a_signature_made_for_a_bundle(site: Site) -> None:
    """The acceptor also signs bundles, and is brought to sign the payload of an acceptance as one of a bundle. That
    signature does not count: each is made over the type of what is signed as well."""
    desk = load_private_key(site.path / "desk.key")[0]
    site.accept()
    entries = read_accepted(site.file)
    lifted = []
    for each in entries:
        envelope = sign(Envelope(each.payload(), {}), desk)
        lifted.append(Accepted(each.subject, each.reason, each.expires, each.key, envelope.signatures[each.key]))
    site.file.write_text("".join(map(toml_entry, lifted)))
    code, report = site.diff()
    assert (code, "signature is false" in _why(report)) == (1, True)


def test_an_acceptance_of_another_bundle(site: Site) -> None:
    """A bundle takes the name of one whose widening was accepted, or the other way round. The entry is about the name
    and what the action rests on, so a bundle of another name or content is not covered."""
    site.accept()
    renamed = 'name = "other"\nrevision = 2\nschema = 1\n'
    code, report = site.diff(new_metadata=renamed, old_metadata=renamed.replace("2", "1"))
    assert (code, findings(report, "D103")) == (1, [])
    code, report = site.diff(permit("few", "exec"), NEW)
    assert code == 1
    assert all(each["suppressed"] is None for each in findings(report))


def test_a_bundle_that_takes_the_name_of_an_accepted_one(site: Site) -> None:
    """What was accepted for the bundle of a test machine is wanted for that of the plant: both were alike so far, and
    the change gives the one the name of the other. The entry is for what had that name before."""
    test, plant = ('name = "test"\nrevision = 1\nschema = 1\n', 'name = "plant"\nrevision = 1\nschema = 1\n')
    later = test.replace("1", "2", 1)
    site.accept(old_metadata=test, new_metadata=later)
    assert site.diff(old_metadata=test, new_metadata=later)[0] == 0
    code, report = site.diff(old_metadata=plant, new_metadata=later)
    assert (code, [each["suppressed"] for each in findings(report)]) == (1, [None])


def test_an_entry_that_counts_for_too_long(site: Site) -> None:
    """An acceptor whose clock is years ahead, or who signs without the command, signs until the year 9999. The command
    signs for 366 days at most, and no entry counts that says more."""
    site.accept(expires="366d")
    assert site.diff()[0] == 0
    desk = load_private_key(site.path / "desk.key")[0]
    (entry,) = read_accepted(site.file)
    for expires in (entry.expires + timedelta(days=2), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)):
        site.file.write_text(toml_entry(Accepted.sign(entry.subject, entry.reason, expires, desk)))
        code, report = site.diff()
        assert (code, "more than 366 days from now" in _why(report)) == (1, True)


def test_a_time_that_is_written_otherwise(site: Site) -> None:
    """A signed entry ends on a day without a time, in another zone, in a leap second, in the year 10000 or in digits of
    another script. There is one way to write a moment, and the file is refused with any other."""
    site.accept()
    whole = site.file.read_text()
    (entry,) = read_accepted(site.file)
    for text in (
        "2030-01-01",
        "2030-01-01T00:00:00+00:00",
        "2030-01-01T00:00:60Z",
        "2030-1-1T0:0:0Z",
        "10000-01-01T00:00:00Z",
        "\u0662\u0660\u0663\u0660-01-01T00:00:00Z",
    ):
        site.file.write_text(whole.replace(in_utc(entry.expires), text))
        with pytest.raises(BundleError, match=r"accepted\.toml:3: expires must be like"):
            read_accepted(site.file)


def test_an_entry_counts_until_its_second(site: Site) -> None:
    """At the second at which it expires an entry counts no more; a second one that has not expired does."""
    site.accept()
    (entry,) = read_accepted(site.file)
    desk = load_private_key(site.path / "desk.key")[0]
    later = Accepted.sign(entry.subject, entry.reason, entry.expires + timedelta(seconds=1), desk)
    keys, last = [desk.public_key()], entry.expires - timedelta(microseconds=1)
    for entries, now, count in (
        ([entry], last, 1),
        ([entry], entry.expires, 0),
        ([later, entry], entry.expires, 1),
        ([entry, later], entry.expires, 1),
        ([entry, later], later.expires, 0),
    ):
        assert len(judge(entries, [entry.subject], keys, now, frozenset({"test"})).accepted) == count


def test_a_pipeline_whose_clock_is_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the pipeline shows a time before the base was committed, at which an entry still counted. It is not
    earlier than that, and the report says so."""
    repository = Repository(tmp_path / "site")
    monkeypatch.chdir(repository.top)
    make_key(tmp_path, "desk")
    repository.commit(bundle_files(OLD))
    made = repository.git("cat-file", "commit", "HEAD")
    (tmp_path / "commit").write_text(re.sub(r"(?m)^(committer .* )\d+( .*)$", r"\g<1>4102444800\g<2>", made) + "\n")
    base = repository.git("hash-object", "-t", "commit", "-w", str(tmp_path / "commit"))
    repository.write(bundle_files(NEW))
    (one,) = findings(json.loads(cli("diff", "HEAD", "--json").stdout))
    given = ("--key", tmp_path / "desk.key", "--reason", "agreed", "--expires", "1d", "--to", tmp_path / "file")
    assert cli("accept", "HEAD", "--widening", one["details"]["id"], *given).exit_code == 0
    counts = ("--accepted", tmp_path / "file", "--acceptor", tmp_path / "desk.pub", "--json")
    assert cli("diff", "HEAD", *counts).exit_code == 0
    repository.commit()
    assert cli("diff", "HEAD~1", "HEAD", *counts).exit_code == 0
    result = cli("diff", base, "HEAD", *counts)
    report = json.loads(result.stdout)
    assert (result.exit_code, "it expired at" in _why(report)) == (1, True)
    assert any("was committed at 2100-01-01T00:00:00Z" in note for note in report["notes"])


@pytest.mark.parametrize("how", ["replaced", "new", "a link", "in a submodule"])
def test_an_acceptor_whose_key_the_change_can_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The pipeline takes the key of the acceptor from the checkout, and the change puts another one there, one way or
    another. The key is refused. One that is as it was counts, and one that the pipeline itself has put there."""
    repository = Repository(tmp_path / "site")
    monkeypatch.chdir(repository.top)
    for name in ("desk", "mallory"):
        make_key(tmp_path, name)
    desk, mallory = ((tmp_path / f"{name}.pub").read_text() for name in ("desk", "mallory"))
    keys = {} if how == "new" else {"../../keys/desk.pub": desk}
    repository.commit({**bundle_files(OLD), **keys})
    (tmp_path / "accepted.toml").write_text("")
    given = ("--accepted", tmp_path / "accepted.toml", "--acceptor", "keys/desk.pub")
    if how != "new":
        assert cli("diff", "HEAD", *given).exit_code == 0
    if how == "a link":
        (repository.top / "keys/desk.pub").unlink()
        (repository.top / "keys/desk.pub").symlink_to("other.pub")
    if how == "in a submodule":
        other = Repository(tmp_path / "other")
        other.commit({"desk.pub": mallory}, ".")
        repository.git("rm", "-r", "--quiet", "keys")
        repository.git("submodule", "--quiet", "add", str(other.top), "keys")
    else:
        repository.write({"other.pub" if how == "a link" else "desk.pub": mallory}, "keys")
    repository.commit()
    result = cli("diff", "HEAD~1", *given)
    assert isinstance(result.exception, ConfigurationError)
    assert re.search("the change (replaces it|brings it along)", str(result.exception))
    repository.write({"pipeline.pub": desk}, ".")
    assert cli("diff", "HEAD", *given[:3], "pipeline.pub").exit_code == 0


def test_a_change_that_brings_its_own_acceptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change replaces the public key of the acceptor in the repository, and puts a file where the name of the key
    in the base would be looked for. The key is taken from the base: the entry by the new key does not count, and one
    by the old key does."""
    repository = Repository(tmp_path / "site")
    monkeypatch.chdir(repository.top)
    make_key(tmp_path, "desk")
    make_key(tmp_path, "mallory")
    desk, mallory = ((tmp_path / f"{name}.pub").read_text() for name in ("desk", "mallory"))
    repository.commit({**bundle_files(OLD), "../../keys/desk.pub": desk})
    repository.git("checkout", "--quiet", "-b", "change")
    repository.write({**bundle_files(NEW), "../../keys/desk.pub": mallory, "../../main:keys/desk.pub": mallory})
    for name, counts in (("mallory", False), ("desk", True)):
        (one,) = findings(json.loads(cli("diff", "--json").stdout))
        given = ("--key", tmp_path / f"{name}.key", "--reason", "agreed", "--expires", "1d", "--to", tmp_path / name)
        assert cli("accept", "--widening", one["details"]["id"], *given).exit_code == 0
        result = cli("diff", "--accepted", tmp_path / name, "--acceptor", "main:keys/desk.pub")
        assert result.exit_code == (0 if counts else 1)
    for text in (
        "main:keys/none.pub",
        "main:keys",
        "main:../x",
        "nope:keys/desk.pub",
        "main:policies/site/bundle.toml",
    ):
        refused = cli("diff", "--accepted", tmp_path / "desk", "--acceptor", text)
        assert isinstance(refused.exception, ConfigurationError), text


def test_a_file_of_acceptances_that_is_none(site: Site) -> None:
    """Files that are damaged, carry more than entries, or entries with keys that nobody signs. Each is refused in one
    line that names the file, and nothing is accepted."""
    site.accept()
    whole = site.file.read_text()
    for content in (
        whole.replace("[[accepted]]", "[[accepted]"),
        whole.replace("reason =", "comment ="),
        whole + "\n[everything]\naccepted = true\n",
        whole + 'note = "x"\n',
        whole.replace('reason = "agreed"', 'reason = ""'),
        "\x00",
        "accepted = 1",
    ):
        site.file.write_text(content)
        versions = change(site.path / "policies", OLD, NEW)
        result = cli("diff", *versions, "--accepted", site.file, "--acceptor", site.path / "desk.pub")
        assert result.exit_code != 0
        assert str(site.file) in str(result.exception)
        assert str(result.exception).isprintable()


def test_an_acceptance_of_what_is_no_widening(site: Site) -> None:
    """Someone is to sign an id that the change does not have, made up or of another change. Nothing is signed: the
    widening is searched again where it is accepted, and the file stays as it was."""
    site.accept()
    before = site.file.read_bytes()
    (known, *_) = [each["details"]["id"] for each in findings(site.diff()[1])]
    for old, new, name in ((OLD, OLD, known), (OLD, NEW, "0" * 16), (OLD, NEW, "../x")):
        versions = change(site.path / "policies", old, new)
        why = ("--reason", "x", "--expires", "1d", "--to", site.file, "--key", site.path / "desk.key")
        result = cli("accept", *versions, "--widening", name, *why)
        assert result.exit_code != 0
        assert "no widening" in str(result.exception)
    assert site.file.read_bytes() == before
    shutil.rmtree(site.path / "policies")
