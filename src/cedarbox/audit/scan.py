"""Checking the form of many lines fast: what `parse_line` does, for the lines that a ledger mostly has.

One regular expression takes the whole line, so that nothing is parsed into objects and written again. It knows the
canonical form of a record whose ``attrs`` hold strings, integers, booleans, nulls and lists of them under plain keys.
Whatever else there is goes to `parse_line`, which has the last word on what is no record.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeAlias

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
# The hash of a record is over what stands before and after it.
_LINE: Final = (
    rb'(\{"action":' + _MAYBE + rb',"attrs":' + _ATTRS + rb',"bundle":' + _MAYBE + rb',"call_id":' + _MAYBE
    + rb',"decision":(?:null|"allow"|"deny"),"errors":' + _TEXTS + rb',"event":"([a-z._]++)"),"hash":"([0-9a-f]{64})"'
    + rb'(,"outcome":' + _MAYBE + rb',"policies":' + _TEXTS + rb',"prev":"([^"]{64})","principal":' + _MAYBE
    + rb',"resource":' + _MAYBE + rb',"run":' + _MAYBE + rb',"seq":(0|[1-9][0-9]{0,14}+),"session":' + _MAYBE
    + rb',"span_id":(?:null|"[0-9a-f]{16}"),"time":"(([^"]{19})\.[0-9]{9}Z)","tool":' + _MAYBE
    + rb',"trace_id":(?:null|"[0-9a-f]{32}")\})'
)  # fmt: skip
_ONE: Final = re.compile(_LINE, re.DOTALL).fullmatch
_ALL: Final = re.compile(_LINE + rb"\n", re.DOTALL).findall
_BESIDES: Final = len(',"hash":"' + '"' + "\n") + 64
# A key is the only text that a colon follows: quotes inside a text are escaped.
_KEYS_OF: Final = re.compile(rb'"([A-Za-z0-9_.]++)":').findall
_SECOND: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}").fullmatch
_EVENTS: Final = frozenset(event.encode() for event in EVENTS)
_MOST_SHAPES: Final = 4096

Scanned: TypeAlias = "tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]"
"""What the chain needs of a line: the event; the number that it states, in digits; the hash of the record before and
the hash that it states, in hex; the hash of its content in hex and as 32 bytes; the time."""


class Scanner:
    """Checks lines one after the other.

    It remembers the second that it saw last and the keys that stood in order, which are slow to check.
    """

    __slots__ = ("_second", "_shapes")

    def __init__(self) -> None:
        self._second = b""
        self._shapes: set[tuple[bytes, ...]] = set()

    def __call__(self, line: bytes) -> Scanned:
        """Check one line.

        Args:
            line: The line, without its line feed.

        Raises:
            LedgerError: It is not the canonical form of a record.
        """
        match = _ONE(line)
        if match is None or len(line) >= MAX_LINE_BYTES or not (line.isascii() or _is_utf8(line)):
            return _slowly(line)
        return self._taken(match.groups()) or _slowly(line)

    def many(self, data: bytes) -> Iterator[Scanned]:
        """Check lines one after the other.

        Args:
            data: Whole lines, each with its line feed.

        Yields:
            What the chain needs of each.

        Raises:
            LedgerError: The line after the last one that was given is not the canonical form of a record.
        """
        place = 0
        if len(data) < MAX_LINE_BYTES and (data.isascii() or _is_utf8(data)):
            found = _ALL(data)
            # Matches do not overlap: when they are as long as all there is, nothing stands between them.
            if sum(len(each[0]) + len(each[4]) + _BESIDES for each in found) == len(data):
                for each in found:
                    taken = self._taken(each)
                    if taken is None:
                        break
                    place += len(each[0]) + len(each[4]) + _BESIDES
                    yield taken
        yield from map(self, data[place:].split(b"\n")[:-1])

    def _taken(self, found: tuple[bytes, ...]) -> Scanned | None:
        head, attrs, event, stated, tail, prev, seq, time, second = found
        keys = tuple(_KEYS_OF(attrs))
        if (
            (second != self._second and not self._is_second(second))
            or (keys not in self._shapes and not self._in_order(keys))
            or event not in _EVENTS
        ):
            return None
        digest = sha256(b"\x00" + head + tail).digest()
        return event, seq, prev, stated, hexlify(digest), digest, time

    def _in_order(self, keys: tuple[bytes, ...]) -> bool:
        good = sorted(set(keys)) == list(keys)
        if good and len(self._shapes) < _MOST_SHAPES:
            self._shapes.add(keys)
        return good

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
    return (
        fields["event"].encode(),
        b"%d" % fields["seq"],
        fields["prev"].encode(),
        fields["hash"].encode(),
        hexlify(digest),
        digest,
        fields["time"].encode(),
    )
