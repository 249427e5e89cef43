"""Entries and records: what goes into the ledger and the one form it has there.

A record is one line: the canonical JSON (RFC 8785) of a fixed set of keys, with one line feed at its end. Every key is
always present; what is not known is ``null`` or empty. ``hash`` is SHA-256 over a zero byte and the canonical JSON of
the record without ``hash``, so that it is also the leaf hash of RFC 6962 §2.1. ``prev`` is the ``hash`` of the record
before it, and 64 zeros in the first record of a stream.

orjson with sorted keys writes the bytes of RFC 8785 as long as there are no floats, no integers beyond 2^53 - 1, no
lone surrogates, and no keys beyond U+FFFF (RFC 8785 sorts UTF-16 units, orjson sorts bytes of UTF-8). `Entry` refuses
those four.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal, TypeAlias

import orjson

from cedarbox.audit.events import EVENTS
from cedarbox.errors import LedgerError

__all__ = [
    "GENESIS",
    "MAX_LINE_BYTES",
    "Entry",
    "JsonValue",
    "Record",
    "format_time",
    "parse_line",
    "parse_time",
    "seal",
]

JsonValue: TypeAlias = "str | int | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"

GENESIS: Final = "0" * 64
"""``prev`` of the first record of a stream."""

MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""The longest line a reader takes. It bounds the memory that a hostile file can claim."""

_MAX_INTEGER: Final = 2**53 - 1  # RFC 8785 §3.2.2.3: numbers are IEEE 754 doubles
_MAX_DEPTH: Final = 16
_FIRST_SECOND: Final = -30_610_224_000  # 1000-01-01T00:00:00Z
_END_SECOND: Final = 253_402_300_800  # 10000-01-01T00:00:00Z
_HEX_TRACE: Final = re.compile(r"[0-9a-f]{32}").fullmatch
_HEX_SPAN: Final = re.compile(r"[0-9a-f]{16}").fullmatch
_HEX_HASH: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z").fullmatch
_TEXT_KEYS: Final = ("session", "run", "principal", "tool", "call_id", "action", "resource", "bundle", "outcome")
_KEYS: Final = frozenset(
    {*_TEXT_KEYS, "attrs", "decision", "errors", "event", "hash", "policies", "prev", "seq", "span_id", "time"}
    | {"trace_id"}
)
_HASH_KEY: Final = b',"hash":"'
_HASH_SPAN: Final = len(_HASH_KEY) + 64 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a caller wants to be remembered. The ledger adds order, time and hashes.

    Content (file bytes, output, prompts) does not belong here: put sizes and digests in ``attrs``.

    Args:
        event: One of `EVENTS`.
        session: Id of the sandbox session.
        run: Id of the agent run.
        trace_id: OpenTelemetry trace id, 32 lower-case hex digits.
        span_id: OpenTelemetry span id, 16 lower-case hex digits.
        principal: Who asked, as a Cedar entity.
        tool: Name of the tool that led to this.
        call_id: Id of the tool call.
        action: The Cedar action.
        resource: The canonical Cedar resource.
        decision: The answer of the policy engine.
        policies: Ids of the policies that determined the decision.
        errors: Errors of the policy engine, one line each.
        bundle: Digest of the policy bundle.
        outcome: What came of it, in a word or two.
        attrs: Further facts, copied at construction. No floats, no integers beyond 2^53 - 1, no keys with characters
            beyond U+FFFF, at most 16 levels deep.

    Raises:
        LedgerError: A field has the wrong type or a value that no record can hold.
    """

    event: str
    session: str | None = None
    run: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    principal: str | None = None
    tool: str | None = None
    call_id: str | None = None
    action: str | None = None
    resource: str | None = None
    decision: Literal["allow", "deny"] | None = None
    policies: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    bundle: str | None = None
    outcome: str | None = None
    attrs: Mapping[str, JsonValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check every field and copy the containers."""
        values = {key: getattr(self, key) for key in self.__slots__}
        _check_entry(values)
        object.__setattr__(self, "policies", tuple(self.policies))
        object.__setattr__(self, "errors", tuple(self.errors))
        object.__setattr__(self, "attrs", _plain("attrs", self.attrs, 0))


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the ledger.

    Args:
        seq: Position in its stream, from 0.
        time: UTC with nine digits of fraction, such as ``2026-11-23T00:09:31.123456789Z``. It never goes back in a
            stream; `cedarbox.audit.clock` says what happens when the clock of the host does.
        entry: What is remembered.
        prev: ``hash`` of the record before it, or `GENESIS`.
        hash: SHA-256 of the record without this key, in hex.
    """

    seq: int
    time: str
    entry: Entry
    prev: str
    hash: str

    def to_line(self) -> bytes:
        """Give the line of this record, line feed included."""
        return _with_hash(*_encode(self.entry, self.seq, self.time, self.prev), self.hash)

    @classmethod
    def from_line(cls, line: bytes) -> Record:
        """Read one line strictly.

        Args:
            line: The bytes of the line, line feed included.

        Raises:
            LedgerError: The line is not the canonical form of a record, or its hash is not the hash of its content.
        """
        fields, digest = parse_line(line)
        if digest.hex() != fields["hash"]:
            raise LedgerError("the hash of the record is not the hash of its content")
        entry = Entry(**{key: fields[key] for key in Entry.__slots__})
        return cls(fields["seq"], fields["time"], entry, fields["prev"], fields["hash"])


def seal(entry: Entry, seq: int, time: str, prev: str) -> tuple[Record, bytes, bytes]:
    """Make the next record of a stream.

    Args:
        entry: What is to be remembered.
        seq: Its position in the stream.
        time: Its time, as `format_time` writes it.
        prev: ``hash`` of the record before it.

    Returns:
        The record, its line, and its hash as 32 bytes.

    Raises:
        LedgerError: The entry was changed after its construction and can no longer be written.
    """
    try:
        head, tail = _encode(entry, seq, time, prev)
    except TypeError as error:
        raise LedgerError(f"the entry {entry.event} cannot be written as JSON: {error}") from error
    digest = sha256(b"\x00" + head + b"," + tail).digest()
    text = digest.hex()
    return Record(seq, time, entry, prev, text), _with_hash(head, tail, text), digest


def parse_line(line: bytes) -> tuple[dict[str, Any], bytes]:
    """Check the form of one line and compute its hash, without comparing it with the hash that the line states.

    Args:
        line: The bytes of the line, line feed included.

    Returns:
        The fields by name, and the computed hash as 32 bytes.

    Raises:
        LedgerError: The line is not the canonical form of a record.
    """
    if not line.endswith(b"\n") or len(line) > MAX_LINE_BYTES:
        raise LedgerError("the line has no line feed at its end or is too long")
    text = line[:-1]
    try:
        fields = orjson.loads(text)
        if type(fields) is not dict or fields.keys() != _KEYS:
            raise LedgerError("the line does not have exactly the keys of a record")
        if orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) != text:
            raise LedgerError("the line is not in canonical form (RFC 8785)")
    except (ValueError, TypeError, RecursionError) as error:
        raise LedgerError("the line is not JSON in UTF-8") from error
    _check_entry(fields)
    _plain("attrs", fields["attrs"], 0)
    _check_chain(fields)
    # A quote inside a JSON string is escaped, and nothing after this key holds an object: the last match is the key.
    cut = text.rfind(_HASH_KEY)
    return fields, sha256(b"\x00" + text[:cut] + text[cut + _HASH_SPAN :]).digest()


def format_time(nanoseconds: int) -> str:
    """Write a time as records hold it.

    Args:
        nanoseconds: Nanoseconds since 1970-01-01T00:00:00Z.

    Raises:
        LedgerError: The time is not within the years 1000 to 9999, which have four digits.
    """
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    if not _FIRST_SECOND <= seconds < _END_SECOND:
        raise LedgerError(
            f"the clock says {seconds} seconds since 1970, which no record can hold", hint="set the clock of the host"
        )
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def parse_time(text: str) -> int:
    """Read a time as records hold it, in nanoseconds since 1970-01-01T00:00:00Z; never below 0."""
    seconds = int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
    return max(0, seconds * 1_000_000_000 + int(text[20:29]))


def _encode(entry: Entry, seq: int, time: str, prev: str) -> tuple[bytes, bytes]:
    """Give the canonical JSON without ``hash`` in two parts, cut at the comma where ``hash`` belongs."""
    head = orjson.dumps(
        {
            "action": entry.action,
            "attrs": entry.attrs,
            "bundle": entry.bundle,
            "call_id": entry.call_id,
            "decision": entry.decision,
            "errors": entry.errors,
            "event": entry.event,
        },
        option=orjson.OPT_SORT_KEYS,
    )
    tail = orjson.dumps(
        {
            "outcome": entry.outcome,
            "policies": entry.policies,
            "prev": prev,
            "principal": entry.principal,
            "resource": entry.resource,
            "run": entry.run,
            "seq": seq,
            "session": entry.session,
            "span_id": entry.span_id,
            "time": time,
            "tool": entry.tool,
            "trace_id": entry.trace_id,
        }
    )
    return head[:-1], tail[1:]


def _with_hash(head: bytes, tail: bytes, digest: str) -> bytes:
    return b"".join((head, _HASH_KEY, digest.encode(), b'",', tail, b"\n"))


def _check_entry(values: Mapping[str, Any]) -> None:
    """Check the fields of an entry, which may come from a caller or from a hostile line."""
    event = values["event"]
    if not isinstance(event, str) or event not in EVENTS:
        raise LedgerError(f"{_shown(event)} is not an event of the ledger", hint="use one of cedarbox.audit.EVENTS")
    for key in _TEXT_KEYS:
        value = values[key]
        if value is not None and not (type(value) is str and value.isascii()):
            _check_text(key, value)
    _check_hex("trace_id", values["trace_id"], _HEX_TRACE)
    _check_hex("span_id", values["span_id"], _HEX_SPAN)
    decision = values["decision"]
    if decision is not None and not (isinstance(decision, str) and decision in {"allow", "deny"}):
        raise LedgerError(f"decision is {_shown(decision)}", hint='it is "allow", "deny" or None')
    for key in ("policies", "errors"):
        items = values[key]
        if not isinstance(items, (tuple, list)):
            raise LedgerError(f"{key} is {_shown(items)}", hint="it is a tuple of strings")
        for item in items:
            if not (type(item) is str and item.isascii()):
                _check_text(key, item)
    if not isinstance(values["attrs"], Mapping):
        raise LedgerError(f"attrs is {_shown(values['attrs'])}", hint="it is a mapping with string keys")


def _check_chain(fields: Mapping[str, Any]) -> None:
    """Check the fields that the ledger adds."""
    seq, time = fields["seq"], fields["time"]
    if type(seq) is not int or not 0 <= seq <= _MAX_INTEGER:
        raise LedgerError(f"seq is {_shown(seq)}")
    _check_hex("prev", fields["prev"] or "", _HEX_HASH)
    _check_hex("hash", fields["hash"] or "", _HEX_HASH)
    try:
        valid = type(time) is str and _TIME(time) is not None and datetime.fromisoformat(time[:19]) is not None
    except ValueError:
        valid = False
    if not valid:
        raise LedgerError(f"time is {_shown(time)}")


def _check_text(key: str, value: object) -> None:
    if not isinstance(value, str):
        raise LedgerError(f"{key} is {_shown(value)}", hint="it is a string")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise LedgerError(
                f"{key} has a lone surrogate", hint="decode bytes with errors='backslashreplace'"
            ) from error


def _check_hex(key: str, value: object, match: Any) -> None:
    if value is not None and (type(value) is not str or match(value) is None):
        raise LedgerError(f"{key} is {_shown(value)}", hint="it is lower-case hex of fixed length")


def _plain(where: str, value: object, depth: int) -> JsonValue:
    """Copy a value into plain dicts, tuples, strings and integers, and refuse what canonical JSON cannot hold."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is str and value.isascii():
        return value
    if isinstance(value, str):
        _check_text(where, value)
        return str.__str__(value)
    if isinstance(value, int):
        if -_MAX_INTEGER <= value <= _MAX_INTEGER:
            return int(value)
        raise LedgerError(f"{where} is an integer beyond 2^53 - 1", hint="give it as a string")
    if depth >= _MAX_DEPTH:
        raise LedgerError(f"attrs is more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        result: dict[str, JsonValue] = {}
        for key, item in value.items():
            if not isinstance(key, str) or (not key.isascii() and max(key) > "\uffff"):
                raise LedgerError(f"{where} has the key {_shown(key)}", hint="use strings below U+10000")
            _check_text(f"a key of {where}", key)
            result[str.__str__(key)] = _plain(where, item, depth + 1)
        return result
    if isinstance(value, (list, tuple)):
        return tuple(_plain(where, item, depth + 1) for item in value)
    raise LedgerError(
        f"{where} holds a {type(value).__name__}", hint="use strings, integers, booleans, lists, mappings"
    )


def _shown(value: object) -> str:
    """Show a value in a message, shortened and without control characters."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
