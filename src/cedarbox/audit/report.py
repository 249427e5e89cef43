"""What a verification came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cedarbox.audit.claims import Finding

__all__ = ["Head", "Report", "Stamped"]


@dataclass(frozen=True, slots=True)
class Head:
    """The last good record of a stream.

    Args:
        stream: Id of the stream.
        seq: Sequence number of the record.
        hash: Hash of the record.
        signed: Number of records under the last good note.
        closed: Whether the stream ends with ``ledger.closed``.
    """

    stream: str
    seq: int
    hash: str
    signed: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Stamped:
    """What the time stamps of a tree say: so many of its records existed at that time, in the form they have now.

    Times are those of the time-stamp server, written as records write them.

    Args:
        stream: Id of the stream, or ``index``.
        stamps: Number of time stamps that hold.
        oldest_size: Number of records under the oldest one.
        oldest_time: Its time.
        newest_size: Number of records under the newest one.
        newest_time: Its time.
    """

    stream: str
    stamps: int
    oldest_size: int
    oldest_time: str
    newest_size: int
    newest_time: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a verification came to.

    Args:
        ok: True when there are no findings.
        streams: Number of streams.
        records: Number of good records in them; those of the index are not counted.
        checkpoints: Number of good notes of the streams.
        findings: What is wrong: of the index first, then by stream, then of what anchors gave.
        notes: What is worth knowing and not wrong, such as a stream that is open or whose writer died.
        heads: The last good record of each stream.
        public_key: The file of the public key.
        key_source: ``given`` by the caller, or found ``beside`` the ledger, where whoever changed the ledger could
            have changed it too.
        ledger: Id of the ledger; empty when it cannot be told.
        index_records: Number of good records in the index.
        index_checkpoints: Number of good notes of the index, which is the number of keys that signed it.
        anchors: Number of notes of this ledger that it was compared with, wherever they were kept.
        cosigned: How many of them are notes that a witness signed.
        stamps: How many of them are notes with a time stamp that holds.
        stamped: What the time stamps say of each tree that has them and agrees with them.
    """

    ok: bool
    streams: int
    records: int
    checkpoints: int
    findings: tuple[Finding, ...]
    notes: tuple[Finding, ...]
    heads: tuple[Head, ...]
    public_key: str
    key_source: Literal["given", "beside"]
    ledger: str = ""
    index_records: int = 0
    index_checkpoints: int = 0
    anchors: int = 0
    cosigned: int = 0
    stamps: int = 0
    stamped: tuple[Stamped, ...] = ()
