"""One pass over one stream: find its first bad record and say what was done to it.

At every size for which there is a note, or something that stands elsewhere about the stream, the tree is compared.
Where the tree is another one, the pass goes on without saying more: if what stands there now has a good signature too,
there are two signed histories; if not, it was computed again by somebody who has no key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.checkpoint import origin_of
from cedarbox.audit.claims import Claim, Facts, Finding, Mismatch
from cedarbox.audit.diagnose import changed_with_its_hash, name_break
from cedarbox.audit.ends import judge_state
from cedarbox.audit.files import checkpoints_path, segment_path
from cedarbox.audit.index import FORMAT
from cedarbox.audit.lines import Piece, pieces, whole_lines
from cedarbox.audit.merkle import Tree
from cedarbox.audit.notes import Note, NoteCursor, public_key_from
from cedarbox.audit.record import GENESIS, MAX_LINE_BYTES, parse_line
from cedarbox.audit.scan import Run, Scanner
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["StreamWalk"]

_NEVER: Final = -1


class StreamWalk:
    """The pass over one stream.

    Args:
        directory: The ledger.
        stream: Id of the stream.
        ledger: Id of the ledger.
        facts: What the index says about it; None when the index does not have it.
        anchors: What was saved elsewhere about it.
        last_segment: Number of the last segment that the directory lists; -1 for none.
        wanted: A record whose first good note is kept; -1 for none.
        elsewhere: Gives the other stream that has a line, if one has.
        seen: Told how many bytes were read.

    Attributes:
        size: Number of good records.
        hash: Hash of the last of them.
        signed: Number of records under the last good note.
        good_notes: Number of good notes.
        closed: Whether the last good record is ``ledger.closed``.
        segments: Number of segments that were read.
        segment: Number of the last one that has a record.
        names: The stream that its first record names; empty when there is no good one.
        index_seq: The record of the index that its first record names; -1 when it does not.
        covering: The first good note that covers the wanted record.
        findings: What is wrong.
        notes: What is worth knowing and not wrong.
    """

    def __init__(
        self,
        directory: Path,
        stream: str,
        ledger: str,
        facts: Facts | None,
        *,
        anchors: Sequence[Claim] = (),
        last_segment: int = -1,
        wanted: int = -1,
        elsewhere: Callable[[bytes], str | None] = lambda line: None,
        seen: Callable[[int], object] | None = None,
    ) -> None:
        self.directory, self.stream, self.ledger, self.facts = directory, stream, ledger, facts
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self.size, self.hash, self.signed, self.good_notes = 0, GENESIS, 0, 0
        self.closed, self.segments, self.names, self.index_seq = False, 0, "", -1
        self._elsewhere, self._seen, self._last_segment = elsewhere, seen, last_segment
        self.segment = 0
        self._wanted = wanted
        self.covering: Note | None = None
        self._tree, self._time, self._scan = Tree(), b"", Scanner()
        claims = [*(facts.claims if facts is not None else ()), *anchors]
        self._claims = sorted((claim for claim in claims if claim.size), key=lambda claim: claim.size)
        self._claimed = 0
        self._agreed = 0
        self._key: Ed25519PublicKey | None = public_key_from(facts.opened.public_key) if facts is not None else None
        self._next_key: Ed25519PublicKey | None = None
        self._sealed = False
        self._begin = 0
        self._pending: Mismatch | None = None
        self._cursor = NoteCursor(origin_of(ledger, stream))
        self._end_size = facts.end.size if facts is not None and facts.end and facts.end.state == "ended" else _NEVER

    def path_of(self, segment: int) -> Path:
        """Give the file of a segment."""
        return segment_path(self.directory, self.stream, segment)

    def lines(self) -> Iterator[bytes]:
        """Give the lines of all segments, with their line feeds."""
        return whole_lines(self.path_of)

    def run(self) -> None:
        """Walk over the records, then compare the end with what is known about it."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(open_regular(checkpoints_path(self.directory, self.stream)))
                self._cursor.read(file, os.fstat(file.fileno()).st_size)
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    self._cursor.bad = f"the file with the notes cannot be read: {error.strerror}"
            try:
                whole = self._walk()
            except FileNotFoundError:
                if self._last_segment > 0:
                    self._find("deleted", 0, "segment 0 is gone")
                else:
                    self._find("deleted", None, "the stream is gone")
                return
            except OSError as error:
                self._find("unreadable", self.size, f"segment {self.segments} cannot be read: {error.strerror}")
                return
        if whole:
            self._judge_end()
        elif self._pending is not None and not self.findings:
            self._settle()

    def _walk(self) -> bool:
        """Take the records; False at the first bad one."""
        for piece in pieces(self.path_of, self._seen):
            self.segments = piece.segment + 1
            if piece.segment and piece.data and self._begin_segment(piece) is False:
                return False
            if piece.data and not self._take(piece.data):
                return False
            if piece.last:
                if len(piece.rest) > MAX_LINE_BYTES:
                    return self._find("edited", self.size, "a line is too long to be a record", at=True)
                if piece.rest and not self._torn(piece):
                    return False
        return True

    def _begin_segment(self, piece: Piece) -> bool:
        if not self._sealed:
            if self.segment == piece.segment:
                return True
            if self._follows(piece.lines()[0]):
                message = f"segment {piece.segment - 1} does not end with segment.sealed"
                return self._find("spliced", self.size, message, at=True)
            return True  # the chain says what is missing
        self._sealed, self._key, self._next_key = False, self._next_key, None
        self._begin, self.segment = self.size, piece.segment
        return True

    def _follows(self, line: bytes) -> bool:
        try:
            _, seq, prev, *_ = self._scan(line)
        except LedgerError:
            return False
        return seq == b"%d" % self.size and prev == self.hash.encode()

    def _take(self, data: bytes) -> bool:
        """Take lines of one segment; False at the first that is not the next record."""
        place = 0
        while place < len(data):
            if self.size and not self.closed and not self._sealed:
                run = self._scan.run(data[place:], self.hash.encode(), self.size, self._time)
                if run is None or self.size <= self._end_size < self.size + len(run.leaves):
                    return all(map(self._take_one, data[place:].split(b"\n")[:-1]))
                if not self._take_run(run):
                    return False
                place += run.length
            if place < len(data):
                end = data.index(b"\n", place)
                if not self._take_one(data[place:end]):
                    return False
                place = end + 1
        return True

    def _take_run(self, run: Run) -> bool:
        begin, end, done = self.size, self.size + len(run.leaves), 0
        while self.size < end:
            stop = self._next_stop()
            self.size = stop if self.size < stop < end else end
            self._tree.extend(run.leaves[done : self.size - begin])
            done = self.size - begin
            self.hash = run.hashes[done - 1].decode()
            if self.size == stop and not self._compare():
                return False
        self._time = run.time
        return True

    def _take_one(self, line: bytes) -> bool:
        try:
            event, seq, prev, stated, digits, digest, time = self._scan(line)
        except LedgerError as error:
            return self._find("edited", self.size, error.message, at=True)
        if prev != self.hash.encode() or stated != digits or seq != b"%d" % self.size:
            return self._break()
        if not self._fits(event, time, line):
            return False
        self._tree.append(digest)
        self.size, self.hash, self._time = self.size + 1, digits.decode(), time
        return self.size != self._next_stop() or self._compare()

    def _next_stop(self) -> int:
        stops = [self._cursor.note.size] if self._cursor.note is not None else []
        if self._claimed < len(self._claims):
            stops.append(self._claims[self._claimed].size)
        return min(stops, default=_NEVER)

    def _fits(self, event: bytes, time: bytes, line: bytes) -> bool:  # noqa: PLR0911  # one return for each check
        """Check what chain and hash do not: the frame of the stream and the order of times."""
        if self.closed or self.size == self._end_size:
            return self._find("spliced", self.size, "there are records after the end of the stream", at=True)
        if self._sealed:
            return self._find("spliced", self.size, "there are records after segment.sealed in the segment", at=True)
        if time < self._time:
            return self._find("time", self.size, "the time of the record is before that of the one before", at=True)
        if (event == b"ledger.opened") != (self.size == 0):
            return self._find("spliced", self.size, "ledger.opened is not the first record, and only that", at=True)
        if event == b"ledger.opened":
            return self._opened(parse_line(line + b"\n")[0]["attrs"])
        self.closed = event == b"ledger.closed"
        if event == b"segment.sealed":
            return self._seal(parse_line(line + b"\n")[0]["attrs"])
        return True

    def _opened(self, attrs: dict[str, Any]) -> bool:
        names = attrs.get("stream")
        self.names = names if isinstance(names, str) else ""
        index = attrs.get("index")
        if isinstance(index, dict) and type(index.get("seq")) is int:
            self.index_seq = index["seq"]
        if self.names != self.stream:
            return self._find("spliced", 0, "the first record is of another stream", at=True)
        if attrs.get("ledger") != self.ledger or attrs.get("format") != FORMAT:
            return self._find("spliced", 0, "the first record is of another ledger", at=True)
        if self.facts is None:
            self._key = public_key_from(attrs.get("public_key"))
            return True
        opened = self.facts.opened
        if attrs.get("public_key") != opened.public_key:
            return self._find("key", 0, "the first record has another key than the index names", at=True)
        if index != {"seq": opened.seq, "hash": opened.hash}:
            return self._find("spliced", 0, "the first record does not name its record in the index", at=True)
        return True

    def _seal(self, attrs: dict[str, Any]) -> bool:
        self._next_key = public_key_from(attrs.get("next_public_key"))
        if self._next_key is None or attrs.get("segment") != self.segment:
            return self._find("spliced", self.size, "segment.sealed does not name its segment and a key", at=True)
        told = self.facts.seals.get(self.segment) if self.facts is not None else None
        if told is not None and (told.size, told.public_key) != (self.size + 1, attrs["next_public_key"]):
            return self._find("key", self.size, "the index names another end of the segment or another key", at=True)
        self._sealed = True
        return True

    def _compare(self) -> bool:
        """Compare the tree with the note and the claims for this size. False to stop here."""
        root = self._tree.root()
        signed = False
        while (note := self._cursor.note) is not None and note.size == self.size:
            if not self._compare_note(note, root):
                return False
            signed = signed or (note.root == root and self.signed == self.size)
            self._cursor.advance()
        while self._claimed < len(self._claims) and self._claims[self._claimed].size == self.size:
            claim = self._claims[self._claimed]
            self._claimed += 1
            if claim.root == root and claim.hash in {"", self.hash}:
                signed = True
                if self._pending is None:
                    self._agreed = self.size
            elif self._pending is None:
                reason = f"{claim.by} has another root for {self.size} records"
                self._pending = Mismatch(self._vouched(), self._agreed, self.size, reason)
                if self.signed == self.size:
                    return self._forked()
        if signed and self._pending is not None and self._pending.size <= self.size:
            return self._forked()
        return True

    def _compare_note(self, note: Note, root: bytes) -> bool:  # noqa: PLR0911  # one return for each outcome
        state = note.signed_by(self._key) if self._key is not None else "other"
        if note.root == root:
            if state == "good":
                self.signed, self.good_notes = self.size, self.good_notes + 1
                if self.covering is None and 0 <= self._wanted < self.size and self._pending is None:
                    self.covering = note
                return True
            if self._pending is not None:
                return True
            if state == "other":
                message = f"the note for {self.size} records is signed with a key that the index does not name"
                return self._find("resigned", self._vouched(), message)
            return self._find(
                "checkpoint", self._vouched(), f"the signature of the note for {self.size} records is false"
            )
        if self._pending is not None:
            return True
        if state != "good":
            return self._find("checkpoint", self._vouched(), f"the note for {self.size} records is of no such history")
        if changed_with_its_hash(self.lines, self.size, [(note.size, note.root)]):
            message = f"the record and its hash were changed: record {self.size} names another hash"
            return self._find("edited", self.size - 1, message)
        reason = f"the signed note for {self.size} records has another root"
        self._pending = Mismatch(self._vouched(), self._vouched(), self.size, reason)
        return True

    def _vouched(self) -> int:
        """Number of records that a good note or an agreeing claim covers."""
        return max(self.signed, self._agreed)

    def _forked(self) -> bool:
        assert self._pending is not None  # noqa: S101 - the caller looked
        _, seq, size, reason = self._pending
        message = f"there are two histories of records {seq} to {size - 1}, and this one is signed too: {reason}"
        return self._find("forked", seq, message)

    def _settle(self) -> None:
        assert self._pending is not None  # noqa: S101 - the caller looked
        seq, _, size, reason = self._pending
        self._find("rewritten", seq, f"the history was rewritten somewhere in records {seq} to {size - 1}: {reason}")

    def _break(self) -> bool:
        if self._pending is not None:
            return False
        found = name_break(self.lines, self.size, self.hash, self._elsewhere, self._heads())
        return self._find(found.kind, found.seq, found.message, at=found.seq == self.size)

    def _heads(self) -> Iterator[tuple[int, bytes]]:
        """Give the sizes and roots that notes and claims have after the last good record."""
        for claim in self._claims[self._claimed :]:
            yield claim.size, claim.root
        while (note := self._cursor.note) is not None:
            yield note.size, note.root
            self._cursor.advance()

    def _torn(self, piece: Piece) -> bool:
        rest = len(piece.rest)
        end = self.facts.end if self.facts is not None else None
        if self.closed or self._sealed:
            return self._find("torn", self.size, f"{rest} bytes stand after the end", at=True)
        over = end is not None and end.state == "ended" and self.size >= end.size
        if over and end is not None and (rest, sha256(piece.rest).hexdigest()) != (end.torn_bytes, end.torn_sha256):
            return self._find("torn", self.size, f"{rest} bytes stand after the end", at=True)
        message = f"{rest} bytes of a last line are being written, or were torn when the writer died"
        self.notes.append(Finding("torn", self.stream, self.size, None, message))
        return True

    def _judge_end(self) -> None:
        """Compare a stream whose records are good with what is known about its end."""
        if self._pending is not None:
            self._settle()
            return
        note, claim = self._cursor.note, self._claims[self._claimed] if self._claimed < len(self._claims) else None
        listed = self._last_segment >= self.segments
        if listed or (self._sealed and (note is not None or claim is not None)):
            self._find("deleted", self.size, f"segment {self.segments} is gone")
        elif claim is not None:
            message = f"{claim.by} has {claim.size} records, the stream has {self.size}"
            self._find("truncated", self.size, message)
        elif note is not None:
            good = self._key is not None and note.signed_by(self._key) == "good"
            what = "a signed note" if good else "a note that nobody signed"
            message = f"{what} has {note.size} records, the stream has {self.size}"
            self._find("truncated" if good else "checkpoint", self.size, message)
        elif self._cursor.bad is not None:
            self._find("checkpoint", self._vouched(), self._cursor.bad)
        elif self.facts is not None:
            wrong, known = judge_state(
                self.stream, self.facts, self.size, self.signed, closed=self.closed, torn=self._cursor.torn
            )
            self.findings += wrong
            self.notes += known

    def _find(self, kind: str, seq: int | None, message: str, *, at: bool = False) -> bool:
        """Add a finding; ``at`` when it stands in the line that is next. Always gives False."""
        if self._pending is not None and kind not in {"forked", "rewritten"}:
            return False  # a history that was computed again may be anything
        line = self.size - self._begin + 1 if at else None
        self.findings.append(Finding(kind, self.stream, seq, line, message))
        return False
