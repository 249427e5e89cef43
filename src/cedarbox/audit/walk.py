"""One pass over one stream: find its first bad record and say what was done to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from cedarbox.audit.checkpoint import Checkpoint
from cedarbox.audit.files import stream_files
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, MAX_LINE_BYTES, parse_line
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["Claim", "Finding", "Walk"]

_SELF_EVENTS: Final = frozenset({"ledger.opened", "ledger.recovered", "key.created", "clock.stepped"})


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the verifier says about a stream.

    Args:
        kind: ``edited``, ``deleted``, ``reordered``, ``truncated``, ``spliced``, ``rewritten``, ``key``,
            ``checkpoint``, ``time``, ``unsealed``, ``torn``, ``foreign`` or ``unreadable``; of notes ``open``,
            ``torn``, ``unsigned`` or ``empty``.
        stream: Id of the stream.
        seq: Sequence number of the first bad record, when it can be told.
        line: Its line in the file, from 1.
        message: What is wrong, in one line.
    """

    kind: str
    stream: str
    seq: int | None
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What another stream says about a record.

    Args:
        by: The stream that says so.
        seq: Sequence number, -1 for a stream without records.
        hash: Hash of the record.
    """

    by: str
    seq: int
    hash: str


class Walk:
    """The pass over one stream.

    Args:
        path: The stream file.
        directory: The ledger, to look for spliced records in its other streams.
        claims: What other streams say about this one.
    """

    def __init__(self, path: Path, directory: Path, claims: Sequence[Claim]) -> None:
        self.stream, self._path, self._directory = path.stem, path, directory
        self.findings: list[Finding] = []
        self.notes: list[Finding] = []
        self.has_checkpoints, self.torn_checkpoint = True, False
        self.size, self.prev, self.signed, self.good_checkpoints = 0, GENESIS, 0, 0
        self.closed = False
        self._claims = {claim.seq: claim for claim in reversed(claims)}
        self._conflicts = [claim for claim in claims if self._claims[claim.seq].hash != claim.hash]
        self._heads: dict[int, bytes] = {}
        self._tree = Tree()
        self._time = ""
        self._only_self = True

    def expect(self, checkpoints: Sequence[Checkpoint], bad: str | None) -> None:
        """Take the checkpoints of the stream.

        Args:
            checkpoints: Those whose signature holds, in the order of the file.
            bad: What is wrong with the first one that is bad.
        """
        if bad is not None:
            self._find("key" if "signed" in bad or "signature" in bad else "checkpoint", None, bad)
        last = 0
        for checkpoint in checkpoints:
            if checkpoint.size <= last:
                self._find("checkpoint", None, f"the checkpoint for {checkpoint.size} records is out of order")
                return
            last = checkpoint.size
            self._heads[last] = checkpoint.root

    def run(self) -> None:
        """Walk over the records, then compare the end with what checkpoints and other streams say."""
        before = len(self.findings)
        try:
            with open_regular(self._path) as file:
                whole = self._walk(file)
        except OSError as error:
            self._find("unreadable", None, f"the stream cannot be read: {error.strerror}")
            return
        if whole and len(self.findings) == before:
            self._judge_end()

    def _walk(self, file: BinaryIO) -> bool:
        """Give True when the stream is good up to its end."""
        while line := file.readline(MAX_LINE_BYTES + 1):
            if not line.endswith(b"\n") and len(line) <= MAX_LINE_BYTES:
                return self._torn(len(line))
            if not self._take(line):
                return False
        return True

    def _take(self, line: bytes) -> bool:
        """Take one line; False when it is not the next record."""
        try:
            fields, digest = parse_line(line)
        except LedgerError as error:
            return self._find("edited", self.size, error.message, at=True)
        text = digest.hex()
        if text != fields["hash"] or fields["seq"] != self.size or fields["prev"] != self.prev:
            return self._name_break(fields, text, line)
        if not self._fits(fields):
            return False
        self._tree.append(digest)
        size = self.size + 1
        claim = self._claims.get(self.size)
        if claim is not None and claim.hash != text:
            return self._rewritten(f"{claim.by} names another record {self.size}")
        root = self._heads.get(size)
        if root is not None:
            if root != self._tree.root():
                return self._rewritten(f"the signed checkpoint for {size} records has another root")
            self.signed = size
            self.good_checkpoints += 1
        self.size, self.prev = size, text
        return True

    def _fits(self, fields: dict[str, Any]) -> bool:
        """Check what chain and hash do not: the frame of the stream and the order of times."""
        event, time = fields["event"], fields["time"]
        if self.closed:
            return self._find("spliced", self.size, "there are records after ledger.closed", at=True)
        if time < self._time:
            return self._find("time", self.size, "the time of the record is before that of the one before", at=True)
        self._time = time
        if (event == "ledger.opened") != (self.size == 0):
            return self._find("spliced", self.size, "ledger.opened is not the first record, and only that", at=True)
        if event == "ledger.opened" and fields["attrs"].get("stream") != self.stream:
            return self._find("spliced", 0, "the first record is of another stream", at=True)
        self.closed = event == "ledger.closed"
        self._only_self = self._only_self and event in _SELF_EVENTS
        return True

    def _name_break(self, fields: dict[str, Any], text: str, line: bytes) -> bool:
        """Say what was done where the chain breaks."""
        seq, expected = fields["seq"], self.size
        if text != fields["hash"]:
            return self._find("edited", expected, "the record was changed after it was written", at=True)
        origin = self._elsewhere(line)
        if origin is not None:
            return self._find("spliced", expected, f"the record belongs to the stream {origin}", at=True)
        if seq > expected:
            if self._comes_later(expected):
                message = f"record {seq} stands before record {expected}"
                return self._find("reordered", expected, message, at=True)
            gone = f"record {expected} is gone" if seq == expected + 1 else f"records {expected} to {seq - 1} are gone"
            return self._find("deleted", expected, gone, at=True)
        if seq < expected:
            return self._find("reordered", expected, f"record {seq} stands here again", at=True)
        return self._find("rewritten", expected, "the record does not follow the one before it", at=True)

    def _torn(self, length: int) -> bool:
        if self.closed:
            return self._find("torn", self.size, f"{length} bytes stand after ledger.closed", at=True)
        message = f"{length} bytes of a last line are being written, or were torn when the writer died"
        self.notes.append(Finding("torn", self.stream, self.size, self.size + 1, message))
        return True

    def _rewritten(self, reason: str) -> bool:
        message = f"the history was rewritten somewhere in records {self.signed} to {self.size}: {reason}"
        return self._find("rewritten", self.signed, message)

    def _judge_end(self) -> None:
        """Compare a good stream with what is known about its end."""
        claimed = max(self._claims.values(), key=lambda claim: claim.seq, default=None)
        signed = max(self._heads, default=0)
        if signed > self.size:
            self._find("truncated", self.size, f"a signed checkpoint has {signed} records, the stream has {self.size}")
        elif claimed is not None and claimed.seq >= self.size:
            message = f"{claimed.by} names record {claimed.seq}, the stream has {self.size} records"
            self._find("truncated", self.size, message)
        elif self._conflicts:
            claim = self._conflicts[0]
            self._rewritten(f"{claim.by} names another record {claim.seq}")
        elif not self._only_self and not self._heads and not self.findings:
            reason = "holds none" if self.has_checkpoints else "is gone"
            self._find("checkpoint", 0, f"the file with the checkpoints {reason}")
        elif self.closed and (signed < self.size or self.torn_checkpoint) and not self.findings:
            self._find("unsealed", signed, f"the stream is closed, but its last checkpoint has {signed} records")
        elif not self.closed and not self.findings:
            self._note_open()

    def _note_open(self) -> None:
        unsigned = self.size - self.signed
        message = f"the stream is open, or its writer died; {unsigned} records come after its last checkpoint"
        self.notes.append(Finding("open" if self.size else "empty", self.stream, self.size, None, message))

    def _elsewhere(self, line: bytes) -> str | None:
        """Look for the very same line in the other streams."""
        for path in stream_files(self._directory):
            if path.stem == self.stream:
                continue
            try:
                with open_regular(path) as file:
                    while other := file.readline(MAX_LINE_BYTES + 1):
                        if other == line:
                            return path.stem
            except OSError:
                continue
        return None

    def _comes_later(self, seq: int) -> bool:
        """Look for a record with this sequence number anywhere in the file."""
        wanted = f',"seq":{seq},"session":'.encode()
        try:
            with open_regular(self._path) as file:
                while line := file.readline(MAX_LINE_BYTES + 1):
                    if wanted in line:
                        return True
        except OSError:
            return False
        return False

    def _find(self, kind: str, seq: int | None, message: str, *, at: bool = False) -> bool:
        """Add a finding; ``at`` when it stands in the line that is next. Always gives False."""
        self.findings.append(Finding(kind, self.stream, seq, self.size + 1 if at else None, message))
        return False
