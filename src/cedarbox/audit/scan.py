"""Checking the form of many lines fast: what `parse_line` does, for the lines that a ledger mostly has.

One regular expression takes the whole line, so that nothing is parsed into objects and written again. It knows the
canonical form of a record whose ``attrs`` hold strings, integers, booleans, nulls and lists of them under plain keys.
Whatever else there is goes to `parse_line`, which has the last word on what is no record.
"""

from __future__ import annotations

import re
from binascii import hexlify
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple

from cedarbox.audit.record import EVENTS, MAX_LINE_BYTES, parse_line

__all__ = ["Scanned", "Scanner"]

_TEXT: Final = rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))[^"\\\x00-\x1f]*+)*+"'
_MAYBE: Final = rb"(?:null|" + _TEXT + rb")"
_TEXTS: Final = rb"\[(?:" + _TEXT + rb"(?:," + _TEXT + rb")*+)?+\]"
# Fifteen digits are below 2^53; longer ones are for parse_line.
_PLAIN: Final = rb"(?:" + _TEXT + rb"|0|-?[1-9][0-9]{0,14}+|null|true|false)"
_VALUE: Final = rb"(?:" + _PLAIN + rb"|\[(?:" + _PLAIN + rb"(?:," + _PLAIN + rb")*+)?+\])"
_PAIR: Final = rb'"[A-Za-z0-9_.]++":' + _VALUE
_ATTRS: Final = rb"(\{(?:" + _PAIR + rb"(?:," + _PAIR + rb")*+)?+\})"
_LINE: Final = re.compile(
    rb'\{"action":' + _MAYBE + rb',"attrs":' + _ATTRS + rb',"bundle":' + _MAYBE + rb',"call_id":' + _MAYBE
    + rb',"decision":(?:null|"allow"|"deny"),"errors":' + _TEXTS + rb',"event":"([a-z._]++)","hash":"([^"]{64})"'
    + rb',"outcome":' + _MAYBE + rb',"policies":' + _TEXTS + rb',"prev":"([0-9a-f]{64})","principal":' + _MAYBE
    + rb',"resource":' + _MAYBE + rb',"run":' + _MAYBE + rb',"seq":(0|[1-9][0-9]{0,14}+),"session":' + _MAYBE
    + rb',"span_id":(?:null|"[0-9a-f]{16}"),"time":"(([^"]{19})\.[0-9]{9}Z)","tool":' + _MAYBE
    + rb',"trace_id":(?:null|"[0-9a-f]{32}")\}',
    re.DOTALL,
).fullmatch  # fmt: skip
# A key is the only text that a colon follows: quotes inside a text are escaped.
_KEYS_OF: Final = re.compile(rb'"([A-Za-z0-9_.]++)":').findall
_SECOND: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}").fullmatch
_EVENTS: Final = frozenset(event.encode() for event in EVENTS)
_HASH_BEFORE: Final = len(b',"hash":"')
_HASH_AFTER: Final = 64 + 1


class Scanned(NamedTuple):
    """What the chain needs of a line.

    Args:
        event: The event.
        seq: The number that the line states, in digits.
        prev: The hash of the record before, in hex.
        stated: The hash that the line states, in hex.
        hash: The hash of its content, in hex.
        digest: The same as 32 bytes.
        time: The time.
    """

    event: bytes
    seq: bytes
    prev: bytes
    stated: bytes
    hash: bytes
    digest: bytes
    time: bytes


class Scanner:
    """Checks lines one after the other; it remembers the second that it saw last, since dates are slow to check."""

    __slots__ = ("_second",)

    def __init__(self) -> None:
        self._second = b""

    def __call__(self, line: bytes) -> Scanned:
        """Check one line.

        Args:
            line: The line, without its line feed.

        Raises:
            LedgerError: It is not the canonical form of a record.
        """
        match = _LINE(line)
        if match is None:
            return _slowly(line)
        attrs, event, stated, prev, seq, time, second = match.groups()
        keys = _KEYS_OF(attrs)
        if (
            (second != self._second and not self._is_second(second))
            or (len(keys) > 1 and sorted(set(keys)) != keys)
            or event not in _EVENTS
            or not (line.isascii() or _is_utf8(line))
            or len(line) >= MAX_LINE_BYTES
        ):
            return _slowly(line)
        cut = match.start(3)
        digest = sha256(b"".join((b"\x00", line[: cut - _HASH_BEFORE], line[cut + _HASH_AFTER :]))).digest()
        digits = hexlify(digest)
        if digits != stated:
            return _slowly(line)  # where the stated one may be no hash at all
        return Scanned(event, seq, prev, stated, digits, digest, time)

    def _is_second(self, text: bytes) -> bool:
        try:
            good = _SECOND(text) is not None and datetime.fromisoformat(text.decode()) is not None
        except ValueError:
            return False
        if good:
            self._second = text
        return good


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _slowly(line: bytes) -> Scanned:
    fields, digest = parse_line(line + b"\n")
    return Scanned(
        fields["event"].encode(),
        b"%d" % fields["seq"],
        fields["prev"].encode(),
        fields["hash"].encode(),
        hexlify(digest),
        digest,
        fields["time"].encode(),
    )
