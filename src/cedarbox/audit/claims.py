"""What the verifier says, and what it knows about a stream before it reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Claim", "End", "Facts", "Finding", "Mismatch", "Opened", "Seal"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the verifier says about a stream.

    Args:
        kind: ``edited``, ``deleted``, ``reordered``, ``truncated``, ``spliced``, ``forked``, ``replayed``,
            ``resigned``, ``rewritten``, ``torn``, ``unsealed``, ``time``, ``key``, ``checkpoint``, ``foreign`` or
            ``unreadable``; ``anchor``: what the record says that an anchor gave is gone, or cannot be used;
            ``stamp``: a time stamp that does not hold; of notes ``open``, ``recovered``, ``unsigned``, ``torn``,
            ``empty``, ``key`` or ``stamp``.
        stream: Id of the stream, or ``index``.
        seq: Sequence number of the first bad record, when it can be told.
        line: Its line in its file, from 1, when it can be told.
        message: What is wrong, in one line.
    """

    kind: str
    stream: str
    seq: int | None
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands elsewhere about a stream.

    Args:
        by: Who says so, for messages.
        size: Number of records.
        root: Merkle root over them, 32 bytes.
        hash: Hash of the last of them in hex; empty when it is not said.
    """

    by: str
    size: int
    root: bytes
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """How a stream was opened.

    Args:
        seq: Sequence number of ``stream.opened`` in the index.
        hash: Its hash in hex.
        public_key: The first key of the stream, in base64 as the index has it.
    """

    seq: int
    hash: str
    public_key: str


@dataclass(frozen=True, slots=True)
class End:
    """How a stream ended.

    Args:
        closed: Whether its writer closed it; else it was found dead.
        state: ``ended``, ``missing`` or ``damaged``.
        size: Number of records, when the state is ``ended``.
        unsigned: How many of them came after the last note.
        torn_bytes: Bytes after the last line feed that were to be cut.
        torn_sha256: Their SHA-256 in hex.
        seq: The record of the index that says so.
    """

    closed: bool
    state: str
    size: int
    unsigned: int = 0
    torn_bytes: int = 0
    torn_sha256: str = ""
    seq: int = -1


@dataclass(frozen=True, slots=True)
class Seal:
    """The end of a segment.

    Args:
        size: Number of records up to it.
        public_key: Key of the next segment, in base64 as the index has it.
        seq: The record of the index that says so.
    """

    size: int
    public_key: str
    seq: int


@dataclass(slots=True)
class Facts:
    """What the index says about a stream.

    Args:
        opened: How it was opened.
        claims: What is said about its records, in no order.
        seals: The end of each sealed segment.
        end: How it ended; None when the index does not say that it did.
    """

    opened: Opened
    claims: list[Claim] = field(default_factory=list)
    seals: dict[int, Seal] = field(default_factory=dict)
    end: End | None = None


class Mismatch(NamedTuple):
    """Where the tree is not the one that it should be.

    Args:
        seq: First record that may be bad when what stands there is not signed.
        forked: The same when it is.
        size: The size at which it was seen.
        reason: Who says so.
    """

    seq: int
    forked: int
    size: int
    reason: str
