"""What the records of an index say, taken line by line: the groups with their keys, and the streams that are open."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cedarbox.audit.chain import Chain
from cedarbox.audit.files import is_stream_id
from cedarbox.audit.record import parse_time
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError

__all__ = ["Contents", "Group", "OpenStream", "TornLine", "read_key", "shown_key"]

_STREAM_EVENTS: Final = frozenset({"segment.sealed", "stream.closed", "stream.opened", "stream.recovered"})


@dataclass(frozen=True, slots=True)
class Group:
    """A group of records that one note covers.

    Args:
        size: Number of records in the index up to its end.
        root: Merkle root over them, 32 bytes.
        next_key: The key that signs the next group.
    """

    size: int
    root: bytes
    next_key: Ed25519PublicKey


@dataclass(slots=True)
class OpenStream:
    """A stream that was neither closed nor recovered.

    Args:
        stream: Its id.
        keys: The keys of its segments, in order.
    """

    stream: str
    keys: list[Ed25519PublicKey] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TornLine:
    """A torn last line of a stream that is on record.

    Args:
        stream: The stream.
        length: Its length in bytes.
        sha256: Its hash in hex.
    """

    stream: str
    length: int
    sha256: str


class Contents:
    """The records of an index up to now.

    Attributes:
        chain: Their chain and tree.
        groups: The groups that have their last record, in order.
        streams: The open streams by id, in the order they were opened.
        torn: The torn lines that the last group, or what is there of the next one, has on record.
        time_ns: Time of the last record, in nanoseconds since 1970; 0 before the first.
    """

    def __init__(self) -> None:
        self.chain = Chain()
        self.groups: list[Group] = []
        self.streams: dict[str, OpenStream] = {}
        self.torn: list[TornLine] = []
        self.time_ns = 0
        self._first_key: Ed25519PublicKey | None = None

    @property
    def whole(self) -> bool:
        """Whether the last record ends a group; True before the first."""
        return self.chain.size == (self.groups[-1].size if self.groups else 0)

    def key_of(self, group: int) -> Ed25519PublicKey | None:
        """Give the key that signs a group; None for the first one while there is no record."""
        return self.groups[group - 1].next_key if group else self._first_key

    def take(self, line: bytes) -> None:
        """Take the next line.

        Args:
            line: The line with its line feed.

        Raises:
            LedgerError: It does not follow the one before it, or is no record of an index.
        """
        seq, fresh = self.chain.size, self.whole
        self.chain.take(line)
        if fresh:
            self.torn = []
        try:
            fields = orjson.loads(line)
            event, attrs = fields["event"], fields["attrs"]
            self.time_ns = parse_time(fields["time"])
            if (event == "ledger.created") != (seq == 0):
                raise LedgerError(f"record {seq}: ledger.created is the first record, and only that")
            if seq == 0:
                self._first_key = read_key(attrs["public_key"])
            self._note(event, attrs)
            if "next_key" in attrs:
                self.groups.append(Group(seq + 1, self.chain.tree.root(), read_key(attrs["next_key"])))
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"record {seq}: it is no record of an index") from error

    def _note(self, event: str, attrs: Mapping[str, Any]) -> None:
        if event not in _STREAM_EVENTS:
            return
        stream = attrs["stream"]
        if type(stream) is not str or not is_stream_id(stream):
            raise ValueError(stream)
        if event == "stream.opened":
            self.streams[stream] = OpenStream(stream, [read_key(attrs["public_key"])])
        elif event == "segment.sealed":
            key = read_key(attrs["public_key"])
            if stream in self.streams:
                self.streams[stream].keys.append(key)
        else:
            self.streams.pop(stream, None)
            if attrs.get("discarded_bytes"):
                self.torn.append(TornLine(stream, attrs["discarded_bytes"], attrs["sha256"]))


def shown_key(key: Ed25519PublicKey) -> str:
    """Write a public key as records hold it: its 32 bytes in base64."""
    return b64encode(raw_key(key)).decode()


def read_key(text: str) -> Ed25519PublicKey:
    """Read a public key as records hold it.

    Raises:
        ValueError: It is none.
    """
    return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
