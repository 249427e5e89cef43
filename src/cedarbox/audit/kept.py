"""What anchors gave for a ledger, as it is kept in a directory: comparing with it, and finding what is gone from it.

`cedarbox.audit.anchoring` fills the directory, and records ``ledger.anchored`` after that. So what a record names and
the directory does not have was deleted; or the directory was copied before the ledger was. The other way round nothing
follows: the last anchor of a ledger comes too late to be recorded.

Whoever can write to the directory can take all of it away, and the end of the ledger with it. It counts as far as it is
kept elsewhere.
"""

from __future__ import annotations

import binascii
import os
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from cedarbox.audit.checkpoint import origin_of
from cedarbox.audit.claims import Claim, Finding
from cedarbox.audit.files import INDEX, is_stream_id
from cedarbox.audit.lines import pieces
from cedarbox.audit.notes import Note, notes_in, read_note
from cedarbox.audit.record import parse_line
from cedarbox.audit.report import Stamped
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

if TYPE_CHECKING:
    from cedarbox.audit.timestamps import Stamp

__all__ = ["Kept", "Said", "anchored_in", "read_kept"]

_COSIGNED: Final = ".cosigned"
_TIMESTAMPS: Final = ".timestamps"
_MARK: Final = b'"event":"ledger.anchored"'


@dataclass(frozen=True, slots=True)
class Said:
    """A record which says that an anchor gave something that is kept.

    Args:
        stream: The stream of the record.
        seq: Its sequence number.
        kind: ``rfc3161`` or ``witness``.
        origin: The tree whose note the anchor saw.
        size: Size of the note.
        digest: SHA-256 in hex of the time stamp, or of the note that the witness saw.
        signers: Who signed as a witness.
    """

    stream: str
    seq: int
    kind: str
    origin: str
    size: int
    digest: str
    signers: tuple[str, ...] = ()


@dataclass(slots=True)
class _Files:
    """What the files of a directory have.

    Args:
        tokens: The tree that a file is named after, and SHA-256 of a token in it.
        signers: By tree and SHA-256 of a note: who signed it, once for each time that it is there.
        claims: What the cosigned notes say, by tree.
        findings: What is wrong with them.
    """

    tokens: set[tuple[str, str]] = field(default_factory=set)
    signers: dict[tuple[str, str], list[Counter[str]]] = field(default_factory=dict)
    claims: dict[str, list[Claim]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class Kept:
    """A directory of anchors.

    Args:
        directory: Where it is.
        ledger: Id of the ledger.
        claims: What it says, by stream.
        cosigned: Number of its notes of witnesses.
        stamps: Its time stamps that hold.
        tokens: Number of time stamps in it, whether they hold or not.
        checked: Whether there are authorities to check them with.
        findings: What is wrong with it.
        disputed: What is wrong with the ledger when the stamps are right; the walk over the records says so as well.
    """

    directory: Path
    ledger: str
    claims: dict[str, list[Claim]]
    cosigned: int
    stamps: tuple[Stamp, ...]
    tokens: int
    checked: bool
    findings: list[Finding]
    disputed: list[Finding]
    _files: _Files

    def missing(self, said: Iterable[Said]) -> list[Finding]:
        """Find what records name and the directory does not have. It is read again for what was kept meanwhile."""
        gone = [each for each in said if not self._has(each)]
        if gone:
            self._files = _read_files(self.directory, self.ledger)
        return [
            Finding("anchor", each.stream, each.seq, None, f"{_named(each)} is not in {self.directory}")
            for each in gone
            if not self._has(each)
        ]

    def empty(self) -> list[Finding]:
        """Find that there is nothing to compare with, where the caller says that there is."""
        findings = []
        if not (self.claims or self.tokens or self.findings):
            findings.append(Finding("anchor", INDEX, None, None, f"{self.directory} has no anchor of this ledger"))
        elif self.checked and not (self.stamps or self.findings or self.disputed):
            findings.append(Finding("stamp", INDEX, None, None, f"{self.directory} has no time stamp of this ledger"))
        return findings

    def notes(self) -> list[Finding]:
        """Say what was not looked at."""
        if self.checked or not self.tokens:
            return []
        message = f"{self.tokens} time stamps in {self.directory} were not checked: there is no file of authorities"
        return [Finding("stamp", INDEX, None, None, message)]

    def stamped(self, good: Set[str]) -> tuple[Stamped, ...]:
        """Tell what the stamps say of the trees that agree with them.

        Args:
            good: The trees that were compared with `claims`, and nothing was found.
        """
        agreed = good - {finding.stream for finding in self.disputed}
        trees: dict[str, list[Stamp]] = {}
        for stamp in self.stamps:
            if stamp.stream in agreed:
                trees.setdefault(stamp.stream, []).append(stamp)
        found = []
        for stream, stamps in sorted(trees.items(), key=lambda item: (item[0] != INDEX, item[0])):
            # Two stamps of the same second: the smaller tree says less of the newest, the larger more of the oldest.
            old, new = (
                min(stamps, key=lambda one: (one.time, -one.size)),
                max(stamps, key=lambda one: (one.time, one.size)),
            )
            found.append(Stamped(stream, len(stamps), old.size, old.time, new.size, new.time))
        return tuple(found)

    def _has(self, said: Said) -> bool:
        tree = said.origin.rpartition("/")[2]
        if said.origin != origin_of(self.ledger, tree):
            return False
        if said.kind == "rfc3161":
            return (tree, said.digest) in self._files.tokens
        wanted = Counter(said.signers)
        return bool(wanted) and any(wanted <= there for there in self._files.signers.get((tree, said.digest), ()))


def read_kept(directory: Path, ledger: str, place: Path, ca_file: Path | None) -> Kept:
    """Read a directory of anchors.

    The signatures of the notes are not looked at, neither the ledger's nor those of witnesses: a note counts because
    of where it was kept. A note with a time stamp counts when the stamp holds.

    Args:
        directory: The directory with ``<stream>.cosigned`` and ``<stream>.timestamps``.
        ledger: Id of the ledger.
        place: The ledger directory.
        ca_file: PEM file of the authorities that may vouch for the time-stamp server; None to check no time stamp.

    Raises:
        LedgerError: The directory cannot be read.
        ConfigurationError: The file of authorities cannot be used.
    """
    files = _read_files(directory, ledger)
    claims = {stream: list(each) for stream, each in files.claims.items()}
    cosigned = sum(map(len, claims.values()))
    findings = list(files.findings)
    disputed: list[Finding] = []
    stamps: tuple[Stamp, ...] = ()
    if ca_file is not None:
        from cedarbox.audit.timestamps import check  # late, because it needs much that only time stamps do

        result = check(place, directory, ca_file=ca_file, ledger_id=ledger)
        stamps = result.stamps
        for problem in result.problems:
            where = "" if problem.line is None else f", line {problem.line}"
            message = f"{problem.stream}{_TIMESTAMPS}{where}: {problem.message}"
            known = disputed if problem.kind in {"truncated", "forked"} else findings
            known.append(Finding(problem.kind, problem.stream, None, problem.line, message))
        for stamp in stamps:
            note = read_note(stamp.note)
            by = f"the time stamp of {stamp.time}"
            claims.setdefault(stamp.stream, []).append(Claim(by, note.size, note.root))
    return Kept(
        directory, ledger, claims, cosigned, stamps, len(files.tokens), ca_file is not None, findings, disputed, files
    )


def anchored_in(paths: Callable[[int], Path | None], stream: str, size: int) -> Iterator[Said]:
    """Give the records about anchors whose gift is kept, among the first ``size`` records of a stream."""
    try:
        for piece in pieces(paths):
            if _MARK not in piece.data:
                continue
            for line in piece.lines():
                if _MARK in line and (said := _said(line, stream)) is not None and said.seq < size:
                    yield said
    except OSError:
        return  # the walk over the records names it


def _said(line: bytes, stream: str) -> Said | None:
    try:
        fields: Any = parse_line(line + b"\n")[0]
    except LedgerError:
        return None
    attrs = fields["attrs"]
    kind, signers = attrs.get("kind"), attrs.get("signers")
    if fields["event"] != "ledger.anchored" or fields["outcome"] != "anchored" or kind not in {"rfc3161", "witness"}:
        return None
    if kind == "witness" and signers == []:
        return None  # it only looked at the note
    digest = attrs.get("token_sha256" if kind == "rfc3161" else "note_sha256")
    size = attrs.get("size")
    names = tuple(str(name) for name in signers) if kind == "witness" and isinstance(signers, list) else ()
    return Said(
        stream, fields["seq"], kind, str(attrs.get("origin")), size if type(size) is int else 0, str(digest), names
    )


def _named(said: Said) -> str:
    what = "the time stamp" if said.kind == "rfc3161" else "the note that a witness signed"
    tree = ascii(said.origin.rpartition("/")[2]).strip("'")
    return f"{what} of the first {said.size} records of {tree}, which this record names,"


def _read_files(directory: Path, ledger: str) -> _Files:
    try:
        paths = sorted(directory.iterdir())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its path has a NUL"
        raise LedgerError(
            f"{directory}: the anchors cannot be read: {reason}", hint="give the directory with what anchors gave"
        ) from None
    files = _Files()
    for path in paths:
        try:
            if path.suffix == _COSIGNED and path.stem != INDEX and not is_stream_id(path.stem):
                name = ascii(path.stem).strip("'")
                files.findings.append(Finding("foreign", name, None, None, "the cosigned notes are of no stream"))
            elif path.suffix == _COSIGNED:
                _read_cosigned(path, ledger, files)
            elif path.suffix == _TIMESTAMPS:
                with open_regular(path) as file:
                    files.tokens |= {(path.stem, digest) for line in file if (digest := _token(line))}
        except OSError as error:
            message = f"{path.name} cannot be read: {error.strerror}"
            if path.suffix == _COSIGNED:  # the check of time stamps names its own
                files.findings.append(Finding("unreadable", path.stem, None, None, message))
    return files


def _read_cosigned(path: Path, ledger: str, files: _Files) -> None:
    with open_regular(path) as file:
        for number, (data, whole) in enumerate(notes_in(file, os.fstat(file.fileno()).st_size), 1):
            try:
                note = _note(data, origin_of(ledger, path.stem), whole=whole)
            except LedgerError as error:
                message = f"{path.name}: note {number} cannot be used: {error.message}"
                files.findings.append(Finding("anchor", path.stem, None, None, message))
                continue
            claim = Claim(f"the cosigned note in {path.name}", note.size, note.root)
            files.claims.setdefault(path.stem, []).append(claim)
            for digest, signers in _shown(note):
                files.signers.setdefault((path.stem, digest), []).append(Counter(signers))


def _note(data: bytes, origin: str, *, whole: bool) -> Note:
    if not whole:
        raise LedgerError("it has no end")
    note = read_note(data)
    if note.origin != origin:
        raise LedgerError("it is of another tree")
    return note


def _shown(note: Note) -> Iterator[tuple[str, Sequence[str]]]:
    """Give each note that the witness may have seen, and who signed below it: nothing says where that begins."""
    lines = note.data.splitlines(keepends=True)
    first = len(lines) - len(note.signatures)
    for end in range(first + 1, len(lines)):
        names = [name for name, _ in note.signatures[end - first :]]
        yield sha256(b"".join(lines[:end])).hexdigest(), names


def _token(line: bytes) -> str:
    """Give the SHA-256 of the token in a line; empty when there is none."""
    try:
        fields: Any = orjson.loads(line)
        return sha256(b64decode(fields["token"], validate=True)).hexdigest()
    except (ValueError, binascii.Error, KeyError, TypeError):
        return ""
