"""Verify a ledger: is every record still there, unchanged, in its place, and under a signed note?

One public key is enough, the first one of the ledger (`docs of the format`: `cedarbox.audit.index`). The index is
followed from it, group by group; it names the streams, their keys, and where each ended.

What can be found with the ledger and that key: records, segments and streams that were edited, deleted, reordered,
repeated or taken from elsewhere; histories that were computed again; notes by a key that was never handed over to, and
so whatever a thief of today's key did to the past. What cannot, without an anchor:

- an old copy of the whole directory, or, what is the same, the end of the index cut off between two groups together
  with everything that came after it: nothing in what is left names what is gone;
- a history of the index that a thief of the key signed from the group on that was next when it was stolen;
- a stream that the index does not say the end of: its records after the last place that the index names may have been
  cut at a note, and after the last note they may be anything. A stream is in that state while it is open, and from
  the death of its writer until the next one opens the ledger.

For those, keep notes elsewhere and give them as ``anchors``: of a tree that is smaller than an anchor, the verifier
says ``truncated``; of one that has another root, ``forked``. So do the notes that witnesses signed and those with a
time stamp that holds, in a directory that is kept elsewhere (`cedarbox.audit.kept`).

Memory is bounded by the index, about a kilobyte for each stream, and two megabytes for the stream at hand; a line may
have up to 16 MiB.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.anchors import read_anchors
from cedarbox.audit.checkpoint import ledger_id
from cedarbox.audit.claims import Claim, Facts, Finding
from cedarbox.audit.files import (
    CHECKPOINTS,
    INDEX,
    STREAM,
    check_ledger,
    checkpoints_path,
    index_path,
    is_segment,
    is_stream_id,
    segment_of,
    segment_path,
    stream_of,
)
from cedarbox.audit.index_walk import IndexWalk, ledger_in
from cedarbox.audit.kept import Kept, Said, anchored_in, read_kept
from cedarbox.audit.keys import PUBLIC_NAME, find_public_key, load_public_key
from cedarbox.audit.lines import whole_lines
from cedarbox.audit.report import Head, Report, Stamped
from cedarbox.audit.walk import StreamWalk
from cedarbox.ed25519 import raw_key
from cedarbox.errors import ConfigurationError, LedgerError

__all__ = ["Finding", "Head", "Report", "Stamped", "verify_ledger"]


@dataclass(frozen=True, slots=True)
class _Task:
    """A stream to walk over."""

    directory: Path
    stream: str
    ledger: str
    facts: Facts | None
    anchors: tuple[Claim, ...]
    last_segment: int
    anchored: bool


@dataclass(frozen=True, slots=True)
class _Walked:
    """What came of it."""

    stream: str
    size: int
    hash: str
    signed: int
    good_notes: int
    closed: bool
    segment: int
    names: str
    index_seq: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    anchored: tuple[Said, ...]


@dataclass(slots=True)
class _Listing:
    """The names in a ledger."""

    segments: dict[str, int] = field(default_factory=dict)
    strangers: list[Finding] = field(default_factory=list)
    lonely: list[str] = field(default_factory=list)


def verify_ledger(
    directory: Path | str,
    *,
    public_key: Path | str | None = None,
    anchors: Sequence[Path | str] = (),
    kept: Path | str | None = None,
    timestamp_ca: Path | str | None = None,
    jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Report:
    """Verify a ledger. It may be in use meanwhile.

    Args:
        directory: The ledger.
        public_key: The public key that you trust (PEM): the first one of the ledger, or a later one that it handed
            over to. Default: the one beside the directory, else inside.
        anchors: Files of notes of this ledger that were kept elsewhere.
        kept: The directory with what anchors gave, kept elsewhere; None for none. Whatever the ledger says to be in it
            must be there.
        timestamp_ca: Authorities (PEM) that may vouch for the time-stamp server; None to check no time stamp.
        jobs: How many processes share the streams.
        progress: Told how many bytes of the streams were read since it was told last.

    Returns:
        The report; whatever the files hold leads to a finding, not to an error.

    Raises:
        LedgerError: There is no ledger, it is of an older format, or there is no usable public key or anchor.
        ConfigurationError: ``timestamp_ca`` cannot be used, or is given without ``kept``.
    """
    if timestamp_ca is not None and kept is None:
        raise ConfigurationError("there are authorities but no time stamps", hint="give the directory of the anchors")
    place = Path(directory)
    listing = _list(place)
    key_path = find_public_key(place) if public_key is None else Path(public_key)
    key = load_public_key(key_path)
    ledger = ledger_in(place) or ledger_id(raw_key(key))
    claims = read_anchors([Path(path) for path in anchors], ledger)
    given = None if kept is None else read_kept(Path(kept), ledger, place, _path(timestamp_ca))
    for stream, each in () if given is None else given.claims.items():
        claims.setdefault(stream, []).extend(each)
    index = _index(place, key, claims)
    listing = _list(place)
    walks = _walk_all(_tasks(place, index, listing, claims, anchored=given is not None), jobs, progress)
    unsure = {walk.stream for walk in walks if _newer(walk, index)}
    if unsure:
        # A stream, or a segment, that was begun after the index was read: the index names it before it has records.
        index = _index(place, key, claims)
        tasks = _tasks(place, index, listing, claims, anchored=given is not None)
        again = {walk.stream: walk for walk in _walk_all([task for task in tasks if task.stream in unsure], 1, None)}
        # Meanwhile there may be more segments; the index must name those that were there before it was read.
        walks = [replace(again[walk.stream], segment=walk.segment) if walk.stream in again else walk for walk in walks]
    findings = [*index.findings, *_public_key_inside(place, index), *listing.strangers]
    findings += _missing(place, index, listing, claims, {walk.stream for walk in walks})
    for walk in walks:
        findings += _judged(walk, index)
    stamped: tuple[Stamped, ...] = ()
    if given is not None:
        named = {finding.stream for finding in findings}
        stamped = given.stamped({INDEX, *(walk.stream for walk in walks if not walk.findings)} - named)
        findings += _compared(place, given, walks, index, named)
        index.notes += given.notes()
    return Report(
        not findings,
        len(walks),
        sum(walk.size for walk in walks),
        sum(walk.good_notes for walk in walks),
        tuple(findings),
        tuple(index.notes) + tuple(note for walk in walks for note in walk.notes),
        tuple(Head(walk.stream, walk.size - 1, walk.hash, walk.signed, walk.closed) for walk in walks if walk.size),
        str(key_path),
        "beside" if public_key is None else "given",
        index.ledger,
        index.size,
        index.good_notes,
        sum(len(each) for each in claims.values()),
        0 if given is None else given.cosigned,
        0 if given is None else len(given.stamps),
        stamped,
    )


def _path(path: Path | str | None) -> Path | None:
    return None if path is None else Path(path)


def _compared(
    place: Path, kept: Kept, walks: Sequence[_Walked], index: IndexWalk, named: set[str]
) -> Iterator[Finding]:
    """Give what is wrong with the anchors, and what they say against a stream for which nothing was found."""
    yield from (finding for finding in kept.disputed if finding.stream not in named)
    yield from kept.findings
    said = list(anchored_in(lambda number: None if number else index_path(place), INDEX, index.size))
    yield from kept.missing([*said, *(each for walk in walks for each in walk.anchored)])
    yield from kept.empty()


def _index(place: Path, key: Ed25519PublicKey, claims: Mapping[str, list[Claim]]) -> IndexWalk:
    index = IndexWalk(place, key, claims.get(INDEX, ()))
    index.run()
    return index


def _list(place: Path) -> _Listing:
    """List a ledger.

    Raises:
        LedgerError: There is none, or one of an older format.
    """
    listing = _Listing()
    names = check_ledger(place)
    for name in names:
        stem, dot, suffix = name.rpartition(".")
        if f"{dot}{suffix}" == STREAM and stem != INDEX:
            path = place / name
            if is_segment(path):
                listing.segments[stream_of(path)] = max(listing.segments.get(stream_of(path), -1), segment_of(path))
            else:
                listing.strangers.append(_stranger(name, "the file is not a segment of a stream"))
        elif f"{dot}{suffix}" == CHECKPOINTS and stem != INDEX:
            if is_stream_id(stem):
                listing.lonely.append(stem)
            else:
                listing.strangers.append(_stranger(name, "the notes are of no stream of a ledger"))
    listing.lonely = [stream for stream in listing.lonely if stream not in listing.segments]
    return listing


def _stranger(name: str, message: str) -> Finding:
    return Finding("foreign", ascii(name.rpartition(".")[0]).strip("'"), None, None, message)


def _tasks(
    place: Path, index: IndexWalk, listing: _Listing, claims: Mapping[str, list[Claim]], *, anchored: bool
) -> list[_Task]:
    return [
        _Task(place, stream, index.ledger, index.streams.get(stream), tuple(claims.get(stream, ())), last, anchored)
        for stream, last in sorted(listing.segments.items())
    ]


def _walk_all(tasks: list[_Task], jobs: int, progress: Callable[[int], object] | None) -> list[_Walked]:
    if jobs <= 1 or len(tasks) <= 1:
        return [_walk(task, progress) for task in tasks]
    # A fork would copy the locks of threads that this process has.
    with ProcessPoolExecutor(min(jobs, len(tasks)), get_context("spawn")) as pool:
        results = []
        for task, walked in zip(tasks, pool.map(_walk, tasks), strict=True):
            results.append(walked)
            if progress is not None:
                progress(_bytes(task))
        return results


def _bytes(task: _Task) -> int:
    total = 0
    for segment in range(task.last_segment + 1):
        path = segment_path(task.directory, task.stream, segment)
        total += path.stat().st_size if path.is_file() else 0
    return total


def _walk(task: _Task, progress: Callable[[int], object] | None = None) -> _Walked:
    walk = StreamWalk(
        task.directory,
        task.stream,
        task.ledger,
        task.facts,
        anchors=task.anchors,
        last_segment=task.last_segment,
        elsewhere=lambda line: _elsewhere(task.directory, task.stream, line),
        seen=progress,
    )
    walk.run()
    return _Walked(
        walk.stream,
        walk.size,
        walk.hash,
        walk.signed,
        walk.good_notes,
        walk.closed,
        walk.segment,
        walk.names,
        walk.index_seq,
        tuple(walk.findings),
        tuple(walk.notes),
        tuple(anchored_in(walk.path_of, task.stream, walk.size)) if task.anchored else (),
    )


def _elsewhere(directory: Path, stream: str, line: bytes) -> str | None:
    """Look for the very same line in the index and the other streams."""
    for path in sorted(directory.glob(f"*{STREAM}")):
        other = stream_of(path)
        if other != stream and (other == INDEX or is_stream_id(other)) and line in whole_lines(_only(path)):
            return "the index" if other == INDEX else f"the stream {other}"
    return None


def _only(path: Path) -> Callable[[int], Path | None]:
    return lambda number: None if number else path


def _newer(walk: _Walked, index: IndexWalk) -> bool:
    """Whether a stream has records that an index read before it does not name yet."""
    facts = index.streams.get(walk.stream)
    if facts is None:
        return walk.size > 0 or bool(walk.findings)
    return walk.segment > len(facts.seals)


def _judged(walk: _Walked, index: IndexWalk) -> list[Finding]:
    """Give the findings of a stream, and what it says about the index."""
    if walk.stream in index.streams:
        if not walk.findings and _newer(walk, index):
            message = f"the stream {walk.stream} has segment {walk.segment}, which the index does not name"
            return [] if index.findings else [Finding("truncated", INDEX, index.size, None, message)]
        return list(walk.findings)
    if index.findings or not (walk.size or walk.findings or any(note.kind == "torn" for note in walk.notes)):
        return []  # what the index has lost cannot be told from what it never had
    if walk.names in index.streams:
        message = f"the records of the stream {walk.names} stand here a second time"
        return [Finding("replayed", walk.stream, 0, 1, message)]
    if walk.names == walk.stream and walk.index_seq >= index.size:
        message = f"the stream {walk.stream} names record {walk.index_seq}, the index has {index.size}: it was cut"
        return [Finding("truncated", INDEX, index.size, None, message)]
    return [Finding("foreign", walk.stream, None, None, "the index does not name this stream")]


def _missing(
    place: Path,
    index: IndexWalk,
    listing: _Listing,
    claims: Mapping[str, list[Claim]],
    walked: set[str],
) -> list[Finding]:
    """Find streams that are named somewhere and have no file."""
    findings = []
    named = dict.fromkeys(index.streams, "the index names")
    named |= {stream: "an anchor names" for stream in claims if stream != INDEX and stream not in named}
    named |= {stream: "has notes" for stream in listing.lonely if stream not in named and _noted(place, stream)}
    for stream, by in sorted(named.items()):
        if stream not in walked and not os.path.lexists(segment_path(place, stream, 0)):
            what = (
                "the stream has notes, but its records are gone"
                if by == "has notes"
                else f"the stream that {by} is gone"
            )
            findings.append(Finding("deleted", stream, None, None, what))
    return findings


def _noted(place: Path, stream: str) -> bool:
    """Whether a stream has notes; an empty file is what remains when the disk was full before it could be made."""
    try:
        return checkpoints_path(place, stream).lstat().st_size > 0
    except OSError:
        return False


def _public_key_inside(place: Path, index: IndexWalk) -> list[Finding]:
    """Compare the copy of the first public key, for readers that trust it."""
    path = place / PUBLIC_NAME
    if not index.first_key or not os.path.lexists(path):
        return []
    try:
        good = raw_key(load_public_key(path)) == index.first_key
    except LedgerError:
        good = False
    return [] if good else [Finding("key", PUBLIC_NAME, None, None, "the file is not the first key of this ledger")]
