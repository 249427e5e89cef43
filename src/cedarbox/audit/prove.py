"""Prove that one record is in a ledger, to somebody who has nothing but its first public key.

The proof holds the record as it stands in its file, the RFC 6962 path from it to the root of a signed note of its
stream, and the index with its notes up to where the key of that note is named. Of a stream whose writer died, the root
that the index vouches for takes the place of a note for the records after the last one. `cedarbox.audit.standalone`
checks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from cedarbox.audit.claims import Facts
from cedarbox.audit.files import INDEX, check_ledger
from cedarbox.audit.index_walk import IndexWalk
from cedarbox.audit.keys import find_public_key, load_public_key
from cedarbox.audit.merkle import inclusion_path
from cedarbox.audit.notes import Note
from cedarbox.audit.record import JsonValue
from cedarbox.audit.scan import Scanner
from cedarbox.audit.walk import StreamWalk
from cedarbox.errors import LedgerError

__all__ = ["FORMAT", "prove_record"]

FORMAT = "cedarbox.proof/1"
_VERIFY = "run: cedarbox audit verify"


def prove_record(
    directory: Path | str, seq: int, *, stream: str | None = None, public_key: Path | str | None = None
) -> dict[str, JsonValue]:
    """Make the proof of one record. The ledger may be in use meanwhile.

    Args:
        directory: The ledger.
        seq: Sequence number of the record.
        stream: Its stream, or the part of its id behind the dash; it may be left out when the ledger has one only.
        public_key: The public key that you trust (PEM). Default: the one beside the directory, else inside.

    Returns:
        The proof, as it is written in JSON.

    Raises:
        LedgerError: There is no such record, nothing signed covers it yet, or the ledger does not verify up to there.
    """
    place = Path(directory)
    check_ledger(place)
    key = load_public_key(find_public_key(place) if public_key is None else Path(public_key))
    index = IndexWalk(place, key)
    index.run()
    if index.findings:
        first = index.findings[0]
        raise LedgerError(f"{place}: the index does not verify: {first.kind}: {first.message}", hint=_VERIFY)
    name = _name(index, stream)
    facts = index.streams[name]
    walk = StreamWalk(place, name, index.ledger, facts, wanted=seq)
    walk.run()
    note = walk.covering
    if note is None:
        _check_recovered(walk, facts, seq)
    size, named = (note.size, _key_record(facts, note)) if note is not None else _recovered(facts)
    end, groups = index.group_end(named)
    leaves = (digest for _, digest in _leaves(walk))
    try:
        path = inclusion_path(leaves, seq, size)
        notes = index.note_texts(groups)
    except (OSError, ValueError) as error:
        raise LedgerError(f"{name}: the stream changed while it was read", hint=_VERIFY) from error
    return {
        "format": FORMAT,
        "stream": name,
        "seq": seq,
        "record": next(line for line, _ in islice(_leaves(walk), seq, None)),
        "note": None if note is None else note.data.decode(),
        "path": [node.hex() for node in path],
        "index": [line.decode().removesuffix("\n") for line in islice(index.lines(), end)],
        "index_notes": notes,
    }


def _name(index: IndexWalk, stream: str | None) -> str:
    streams = list(index.streams)
    if stream is None and len(streams) != 1:
        hint = "give --stream, one of those that `cedarbox audit verify --json` lists"
        raise LedgerError(f"the ledger has {len(streams)} streams, and each has a record of every number", hint=hint)
    if stream == INDEX:
        message = "a record of the index has no proof of its own"
        raise LedgerError(message, hint="hand out index.jsonl and index.checkpoints, which verify as a whole")
    found = streams if stream is None else [name for name in streams if stream in (name, name.rpartition("-")[2])]
    if len(found) != 1:
        what = "several streams" if found else "no stream"
        raise LedgerError(f"the ledger has {what} {stream}", hint="its name is that of its files up to the first dot")
    (name,) = found
    return name


def _check_recovered(walk: StreamWalk, facts: Facts, seq: int) -> None:
    """Refuse a record that neither a note nor the index vouches for.

    Raises:
        LedgerError: It is such a one.
    """
    if walk.findings:
        first = walk.findings[0]
        raise LedgerError(f"{walk.stream}: the stream does not verify: {first.kind}: {first.message}", hint=_VERIFY)
    if not 0 <= seq < walk.size:
        raise LedgerError(f"{walk.stream}: there is no record {seq}", hint=f"the last one is {walk.size - 1}")
    if facts.end is None:
        raise LedgerError(
            f"{walk.stream}: nothing signed covers record {seq} yet, the last note is over {walk.signed} records",
            hint="its writer signs within a second or two; if it died, the next one to open the ledger does",
        )


def _recovered(facts: Facts) -> tuple[int, int]:
    assert facts.end is not None  # noqa: S101 - checked before
    return facts.end.size, facts.end.seq


def _key_record(facts: Facts, note: Note) -> int:
    """Give the record of the index that names the key of a note."""
    seals = [seal for seal in facts.seals.values() if seal.size < note.size]
    return max((seal.seq for seal in seals), default=facts.opened.seq)


def _leaves(walk: StreamWalk) -> Iterator[tuple[str, bytes]]:
    scan = Scanner()
    for line in walk.lines():
        yield line.decode().removesuffix("\n"), scan(line.removesuffix(b"\n"))[5]
