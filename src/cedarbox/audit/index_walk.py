"""The pass over the index: follow the keys from the one that is pinned, and collect what it says about the streams.

The roots at the ends of the groups are kept, and the notes are read again after the records: whoever appends to the
index meanwhile writes the records of a group before its note, so one group at most has no note yet.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.checkpoint import ledger_id, origin_of
from cedarbox.audit.claims import Claim, End, Facts, Finding, Opened, Seal
from cedarbox.audit.diagnose import changed_with_its_hash, name_break
from cedarbox.audit.files import CHECKPOINTS, INDEX, checkpoints_path, index_path, is_stream_id
from cedarbox.audit.index import FORMAT
from cedarbox.audit.lines import pieces, whole_lines
from cedarbox.audit.merkle import Tree
from cedarbox.audit.notes import Note, notes_in, public_key_from, read_note
from cedarbox.audit.record import GENESIS, MAX_LINE_BYTES, parse_line
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["IndexWalk", "ledger_in"]

_TOLD: Final = frozenset({"stream.opened", "segment.sealed", "stream.closed", "stream.recovered"})


class _Group:
    """The end of a group: its size, the root there, the key it names, and what its records say."""

    __slots__ = ("facts", "key", "root", "size")

    def __init__(self, size: int, root: bytes, key: Ed25519PublicKey | None, facts: list[tuple[int, dict[str, Any]]]):
        self.size, self.root, self.key, self.facts = size, root, key, facts


class IndexWalk:
    """The pass over the index.

    Args:
        directory: The ledger.
        pinned: The key that is trusted.
        anchors: What was saved elsewhere about the index.

    Attributes:
        ledger: Id of the ledger; empty when the first record does not give it.
        streams: What the signed part says about each stream, in the order they were opened.
        size: Number of good records.
        signed: Number of records under good notes.
        good_notes: Number of good notes.
        hash: Hash of the last good record.
        findings: What is wrong.
        notes: What is worth knowing and not wrong.
    """

    def __init__(self, directory: Path, pinned: Ed25519PublicKey, anchors: Sequence[Claim] = ()) -> None:
        self.directory = directory
        self.ledger, self.first_key = "", b""
        self.streams: dict[str, Facts] = {}
        self.size, self.signed, self.good_notes, self.hash = 0, 0, 0, GENESIS
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self._pinned, self._anchors = raw_key(pinned), sorted(anchors, key=lambda claim: claim.size)
        self._tree, self._time = Tree(), ""
        self._groups: list[_Group] = []
        self._open: list[tuple[int, dict[str, Any]]] = []
        self._anchor_roots: dict[int, bytes | None] = {claim.size: None for claim in anchors}

    def group_end(self, seq: int) -> tuple[int, int]:
        """Give the end of the group that a record is in, and the number of groups up to there."""
        number = next(number for number, group in enumerate(self._groups) if group.size > seq)
        return self._groups[number].size, number + 1

    def note_texts(self, count: int) -> list[str]:
        """Give the first notes.

        Raises:
            OSError: They cannot be read.
        """
        return [data.decode() for data, _ in self._read_notes()[:count]]

    @property
    def path(self) -> Path:
        """The file of the index."""
        return index_path(self.directory)

    def run(self) -> None:
        """Read the notes, the records, and the notes again; then compare."""
        try:
            before = self._read_notes()
        except OSError:
            before = None  # it may be missing, or made a moment later
        try:
            broken = not self._walk()
        except FileNotFoundError:
            self._find("deleted", None, f"the index is gone: there is no {self.path.name}")
            return
        except OSError as error:
            self._find("unreadable", None, f"the index cannot be read: {error.strerror}")
            return
        try:
            after = self._read_notes()
        except OSError as error:
            self._find("checkpoint", 0, f"{INDEX}{CHECKPOINTS} cannot be read: {error.strerror}")
            return
        self._compare(before or [], after, broken=broken)

    def _read_notes(self) -> list[tuple[bytes, bool]]:
        with open_regular(checkpoints_path(self.directory, INDEX)) as file:
            return list(notes_in(file, os.fstat(file.fileno()).st_size))

    def lines(self) -> Iterator[bytes]:
        """Give the lines, with their line feeds."""
        return whole_lines(lambda number: None if number else self.path)

    def _walk(self) -> bool:
        """Take the records; False at the first bad one."""
        for piece in pieces(lambda number: None if number else self.path):
            for line in piece.lines():
                if not self._take(line + b"\n"):
                    return False
            if len(piece.rest) > MAX_LINE_BYTES:
                return self._find("edited", self.size, "a line is too long to be a record", at=True)
            if piece.rest:
                self._torn(piece.rest)
        return True

    def _torn(self, rest: bytes) -> None:
        message = f"{len(rest)} bytes of a last line are being written, or were torn when a writer died"
        self.notes.append(Finding("torn", INDEX, self.size, self.size + 1, message))

    def _take(self, line: bytes) -> bool:
        try:
            fields, digest = parse_line(line)
        except LedgerError as error:
            return self._find("edited", self.size, error.message, at=True)
        text = digest.hex()
        if text != fields["hash"] or fields["seq"] != self.size or fields["prev"] != self.hash:
            return False  # what was done is for `_name` to say
        if fields["time"] < self._time:
            return self._find("time", self.size, "the time of the record is before that of the one before", at=True)
        if (fields["event"] == "ledger.created") != (self.size == 0):
            return self._find("spliced", self.size, "ledger.created is not the first record, and only that", at=True)
        if self.size == 0 and not self._created(fields["attrs"]):
            return False
        self._time, self.hash = fields["time"], text
        self._tree.append(digest)
        self.size += 1
        if self.size in self._anchor_roots:
            self._anchor_roots[self.size] = self._tree.root()
        if fields["event"] in _TOLD:
            self._open.append((fields["seq"], fields))
        if "next_key" in fields["attrs"]:
            key = public_key_from(fields["attrs"]["next_key"])
            self._groups.append(_Group(self.size, self._tree.root(), key, self._open))
            self._open = []
        return True

    def _created(self, attrs: Mapping[str, Any]) -> bool:
        key = public_key_from(attrs.get("public_key"))
        if key is None or attrs.get("format") != FORMAT or attrs.get("ledger") != ledger_id(raw_key(key)):
            return self._find("edited", 0, f"the first record is not that of a ledger of format {FORMAT}", at=True)
        self.ledger, self.first_key = attrs["ledger"], raw_key(key)
        return True

    def _compare(self, before: list[tuple[bytes, bool]], after: list[tuple[bytes, bool]], *, broken: bool) -> None:
        key = Ed25519PublicKey.from_public_bytes(self.first_key) if self.first_key else None
        keys = [self.first_key]
        trusted = False
        bad: Finding | None = None
        known = sum(whole for _, whole in before)
        for number, (data, whole) in enumerate(after):
            if key is None or bad is not None:
                break
            if not whole:
                bad = self._loose_end(before, number)
                break
            trusted = trusted or keys[-1] == self._pinned
            bad, more = self._check_note(number, data, key, known=number < known, broken=broken)
            if bad is None and more:
                group = self._groups[number]
                self.signed, self.good_notes = group.size, self.good_notes + 1
                self._learn(group.facts)
                key = group.key
                keys.append(b"" if key is None else raw_key(key))
                if key is None:
                    bad = self._made("key", group.size - 1, "the group does not name the next key")
            elif not more:
                break
        self._conclude(bad, broken=broken, trusted=trusted, keys=keys)

    def _check_note(
        self, number: int, data: bytes, key: Ed25519PublicKey, *, known: bool, broken: bool
    ) -> tuple[Finding | None, bool]:
        """Give what is wrong with a note, and whether it covers a group that was read."""
        begin = self._groups[number - 1].size if number else 0
        try:
            note = read_note(data)
        except LedgerError as error:
            return self._made("checkpoint", begin, f"note {number + 1}: {error.message}"), False
        if note.origin != origin_of(self.ledger, INDEX):
            return self._made("checkpoint", begin, f"note {number + 1} is of another tree"), False
        if number >= len(self._groups) or note.size > self.size:
            if broken or not known:
                return None, False
            if note.size > self.size or note.signed_by(key) != "good":
                return self._beyond(note, key, number, begin), False
        if number >= len(self._groups):
            return self._made("checkpoint", begin, f"note {number + 1} ends no group"), False
        group = self._groups[number]
        bad = self._fits(note, group, key, number, begin)
        return bad, bad is None

    def _beyond(self, note: Note, key: Ed25519PublicKey, number: int, begin: int) -> Finding:
        if number == len(self._groups) and note.signed_by(key) != "good":
            return self._made("resigned", begin, f"note {number + 1} is not signed with the key that is next")
        return self._made("truncated", self.size, f"a note has {note.size} records, the index has {self.size}")

    def _fits(self, note: Note, group: _Group, key: Ed25519PublicKey, number: int, begin: int) -> Finding | None:
        state = note.signed_by(key)
        if (note.size, note.root) == (group.size, group.root):
            if state == "other":
                return self._made("resigned", begin, f"note {number + 1} is not signed with the key handed over to")
            message = f"the signature of note {number + 1} is false"
            return self._made("checkpoint", begin, message) if state == "false" else None
        if state != "good":
            return self._made(
                "checkpoint", begin, f"note {number + 1} is of no such group: it is bad, or some are gone"
            )
        if note.size == group.size and changed_with_its_hash(self.lines, group.size, [(note.size, note.root)]):
            message = f"the record and its hash were changed: record {group.size} names another hash"
            return self._made("edited", group.size - 1, message)
        return self._made("rewritten", begin, f"the signed note for {note.size} records is of other records")

    def _loose_end(self, before: list[tuple[bytes, bool]], number: int) -> Finding | None:
        """Judge bytes that are no whole note: somebody is writing one, or died while writing it."""
        torn = bool(before) and not before[-1][1]
        if torn and len(before) == number + 1 and self.size == (self._groups[number - 1].size if number else 0):
            return self._made("checkpoint", self.size, "bytes that are no note stand after the last note")
        self.notes.append(Finding("torn", INDEX, None, None, "a note is being written, or was torn when a writer died"))
        return None

    def _conclude(self, bad: Finding | None, *, broken: bool, trusted: bool, keys: list[bytes]) -> None:
        if broken and not self.findings:
            self.findings.append(self._name(bad))
        elif bad is not None and (not self.findings or _before(bad, self.findings[0])):
            self.findings[:] = [bad]
        if self.findings:
            pass
        elif self.size == 0:
            self._find("truncated", 0, "the index has no records")
        elif len(self._groups) - self.good_notes + (self.size > self._groups[-1].size if self._groups else 0) > 1:
            self._find("checkpoint", self.signed, f"the notes after {self.signed} records are gone")
        elif self.good_notes == 0:
            self._find("checkpoint", 0, "the index has no note")
        elif self.size > self.signed:
            message = f"{self.size - self.signed} records at the end are not signed yet, or their writer died"
            self.notes.append(Finding("unsigned", INDEX, self.signed, None, message))
        if not trusted:
            self._distrust(keys)
        elif self._pinned != self.first_key:
            message = "the key given is a later one of the ledger: the groups before it are vouched for by it alone"
            self.notes.append(Finding("key", INDEX, None, None, message))
        if not self.findings:
            self._judge_anchors()

    def _distrust(self, keys: list[bytes]) -> None:
        self.streams.clear()
        if self._pinned == keys[-1] and len(keys) > 1:
            self._find("key", None, "the key given has not signed anything yet; give one that has")
        elif not self.findings or self.findings[0].kind not in {"unreadable", "truncated", "checkpoint", "edited"}:
            shown = b64encode(self.first_key).decode()
            self.findings.insert(
                0, self._made("key", None, f"the key given is none of this ledger, which began with {shown}")
            )

    def _judge_anchors(self) -> None:
        agreed = 0
        for claim in self._anchors:
            root = self._anchor_roots[claim.size]
            if claim.size > self.size:
                message = f"{claim.by} has {claim.size} records, the index has {self.size}: it was rolled back"
                self._find("truncated", self.size, message)
                return
            if root != claim.root:
                message = f"{claim.by} has another root for {claim.size} records: there are two histories"
                self._find("forked", agreed, message)
                return
            agreed = claim.size

    def _name(self, bad: Finding | None) -> Finding:
        """Say what was done where the chain breaks."""
        heads = [*((claim.size, claim.root) for claim in self._anchors), *self._signed_heads()]
        found = name_break(self.lines, self.size, self.hash, lambda line: None, heads)
        if bad is not None and bad.seq is not None and bad.seq < found.seq:
            return bad
        return Finding(found.kind, INDEX, found.seq, found.seq + 1, found.message)

    def _signed_heads(self) -> Iterator[tuple[int, bytes]]:
        try:
            notes = self._read_notes()
        except OSError:
            return
        for data, whole in notes:
            try:
                note = read_note(data)
            except LedgerError:
                return
            if whole:
                yield note.size, note.root

    def _learn(self, records: list[tuple[int, dict[str, Any]]]) -> None:
        """Collect what the records of a signed group say about the streams."""
        for seq, fields in records:
            attrs, event = fields["attrs"], fields["event"]
            stream = attrs.get("stream")
            if event == "stream.opened":
                self._learn_opened(seq, fields, attrs, stream)
            elif event in {"segment.sealed", "stream.closed", "stream.recovered"} and isinstance(stream, str):
                facts = self.streams.get(stream)
                if facts is not None:
                    _learn_size(facts, event, attrs, seq)

    def _learn_opened(self, seq: int, fields: dict[str, Any], attrs: Mapping[str, Any], stream: object) -> None:
        key = public_key_from(attrs.get("public_key"))
        if key is None or not isinstance(stream, str) or not is_stream_id(stream):
            self._find("edited", seq, "stream.opened does not name a stream and its key")
            return
        if stream in self.streams:
            self._find("replayed", seq, f"the stream {stream} was opened before")
            return
        self.streams[stream] = Facts(Opened(seq, fields["hash"], attrs["public_key"]))
        live = attrs.get("live")
        for other in live if isinstance(live, list) else ():
            if isinstance(other, Mapping) and other.get("stream") in self.streams:
                claim = _claim(other, f"record {seq} of the index")
                if claim is not None:
                    self.streams[other["stream"]].claims.append(claim)

    def _made(self, kind: str, seq: int | None, message: str) -> Finding:
        return Finding(kind, INDEX, seq, None if seq is None else seq + 1, message)

    def _find(self, kind: str, seq: int | None, message: str, *, at: bool = False) -> bool:
        self.findings.append(Finding(kind, INDEX, seq, self.size + 1 if at else None, message))
        return False


def ledger_in(directory: Path) -> str:
    """Give the id of the ledger that the first record of its index states; empty when there is none."""
    line = next(whole_lines(lambda number: None if number else index_path(directory)), b"")
    try:
        ledger = parse_line(line)[0]["attrs"].get("ledger")
    except LedgerError:
        return ""
    return ledger if isinstance(ledger, str) else ""


def _learn_size(facts: Facts, event: str, attrs: Mapping[str, Any], seq: int) -> None:
    claim = _claim(attrs, f"record {seq} of the index")
    state = attrs.get("state") if event == "stream.recovered" else "ended"
    if claim is not None and state == "ended":
        facts.claims.append(claim)
    if event == "segment.sealed":
        segment, key = attrs.get("segment"), attrs.get("public_key")
        if type(segment) is int and claim is not None and isinstance(key, str):
            facts.seals[segment] = Seal(claim.size, key, seq)
        return
    torn, digest, unsigned = attrs.get("discarded_bytes"), attrs.get("sha256"), attrs.get("unsigned")
    if facts.end is None:
        facts.end = End(
            event == "stream.closed",
            state if isinstance(state, str) else "damaged",
            claim.size if claim is not None else 0,
            unsigned if type(unsigned) is int else 0,
            torn if type(torn) is int else 0,
            digest if isinstance(digest, str) else "",
            seq,
        )


def _claim(attrs: Mapping[str, Any], by: str) -> Claim | None:
    size, root, digest = attrs.get("size"), attrs.get("root"), attrs.get("hash")
    if type(size) is not int or size < 0 or not isinstance(root, str):
        return None
    try:
        return Claim(by, size, bytes.fromhex(root), digest if isinstance(digest, str) else "")
    except ValueError:
        return None


def _before(one: Finding, other: Finding) -> bool:
    return one.seq is not None and other.seq is not None and one.seq < other.seq
