"""Checking many lines fast: what `parse_line` does and the chain, for the lines that a ledger mostly has.

One regular expression takes a whole line, so that nothing is parsed into objects and written again. It knows the
canonical form of a record whose ``attrs`` hold strings, integers, booleans, nulls and lists of them under plain keys.
Whatever else there is goes to `parse_line`, which has the last word on what is no record.

Lines are taken many at a time: one search finds them all, and then each check is made for all of them. That says only
whether everything is good. Where it is not, the caller goes from line to line.
"""

from __future__ import annotations

import re
from binascii import hexlify
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final, NamedTuple, TypeAlias

from cedarbox.audit.events import EVENTS
from cedarbox.audit.record import MAX_LINE_BYTES, parse_line

__all__ = ["FRAME", "Run", "Scanned", "Scanner"]

FRAME: Final = frozenset({b"ledger.opened", b"ledger.closed", b"segment.sealed"})
"""The events at the ends of streams and segments."""

# The class is written without a negation, which would cost another step for each character.
_CHARS: Final = rb"[ !#-\[\]-\xff]*+"
_TEXT: Final = rb'"' + _CHARS + rb'(?:\\(?:["\\bfnrt]|u00(?:0[0-7bef]|1[0-9a-f]))' + _CHARS + rb')*+"'
_MAYBE: Final = rb"(?:null|" + _TEXT + rb")"
_TEXTS: Final = rb"\[(?:" + _TEXT + rb"(?:," + _TEXT + rb")*+)?+\]"
# Fifteen digits are below 2^53; longer ones are for parse_line.
_PLAIN: Final = rb"(?:" + _TEXT + rb"|0|-?[1-9][0-9]{0,14}+|null|true|false)"
_VALUE: Final = rb"(?:" + _PLAIN + rb"|\[(?:" + _PLAIN + rb"(?:," + _PLAIN + rb")*+)?+\])"
_PAIR: Final = rb'"[A-Za-z0-9_.]++":' + _VALUE
_ATTRS: Final = rb"(\{(?:" + _PAIR + rb"(?:," + _PAIR + rb")*+)?+\})"
_HEX: Final = rb"[0-9a-f]{64}"
# Any 64 bytes will do where the hash is compared with one that was computed.
_ANY: Final = rb'[^"]{64}'


def _line(attrs: bytes, event: bytes, digest: bytes) -> bytes:
    """Give the expression for a line. The hash of a record is over its head and its tail."""
    return (
        rb'(?P<head>\{"action":' + _MAYBE + rb',"attrs":' + attrs + rb',"bundle":' + _MAYBE + rb',"call_id":' + _MAYBE
        + rb',"decision":(?:null|"allow"|"deny"),"errors":' + _TEXTS + rb',"event":"' + event + rb'"),"hash":"('
        + digest + rb')"(?P<tail>,"outcome":' + _MAYBE + rb',"policies":' + _TEXTS + rb',"prev":"(' + digest
        + rb')","principal":' + _MAYBE + rb',"resource":' + _MAYBE + rb',"run":' + _MAYBE
        + rb',"seq":(0|[1-9][0-9]{0,14}+),"session":' + _MAYBE + rb',"span_id":(?:null|"[0-9a-f]{16}"),"time":"'
        + rb'([^"]{19}\.[0-9]{9}Z)","tool":' + _MAYBE + rb',"trace_id":(?:null|"[0-9a-f]{32}")\})'
    )  # fmt: skip


_EVENTS: Final = frozenset(event.encode() for event in EVENTS)
# The two that nearly all records have are tried first.
_COMMON: Final = sorted(_EVENTS - FRAME, key=lambda event: (event not in {b"decision", b"outcome"}, event))
_EVENT: Final = rb"(?:" + b"|".join(map(re.escape, _COMMON)) + rb"|(" + b"|".join(map(re.escape, FRAME)) + rb"))"
_ONE: Final = re.compile(_line(_ATTRS, rb"([a-z._]++)", _HEX), re.DOTALL).fullmatch
_BESIDES: Final = len(',"hash":"' + '"' + "\n") + 64
# A key is the only text that a colon follows: quotes inside a text are escaped.
_KEYS_OF: Final = re.compile(rb'"([A-Za-z0-9_.]++)":').findall
_SECOND: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}").fullmatch
_SECOND_LENGTH: Final = len("2026-11-23T00:09:31")
_MOST_SHAPES: Final = 4096
_MOST_LEARNED: Final = 16
# To compile an expression takes as long as to check the keys of some ten thousand records.
_LEARN_AFTER: Final = 16384

Scanned: TypeAlias = "tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes]"
"""What the chain needs of a line: the event; the number that it states, in digits; the hash of the record before and
the hash that it states, in hex; the hash of its content in hex and as 32 bytes; the time."""

_Shape: TypeAlias = "tuple[bytes, ...]"
_Found: TypeAlias = "list[tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]]"


class Run(NamedTuple):
    """Records that follow one after the other.

    Args:
        leaves: The hash of each as 32 bytes.
        hashes: The hash of each in hex.
        time: The time of the last one.
        length: How many bytes their lines have.
    """

    leaves: list[bytes]
    hashes: tuple[bytes, ...]
    time: bytes
    length: int


class Scanner:
    """Checks lines.

    It remembers the second that it saw last and the shapes of ``attrs``, their keys in order, which are slow to check.
    The shapes that most records have become part of the expression.
    """

    __slots__ = ("_learned", "_search", "_second", "_shapes", "_unlearned")

    def __init__(self) -> None:
        self._second = b""
        self._shapes: Counter[_Shape] = Counter()
        self._learned: list[_Shape] = []
        self._unlearned = 0
        self._search = _search_for(self._learned)

    def __call__(self, line: bytes) -> Scanned:
        """Check the form of one line.

        Args:
            line: The line, without its line feed.

        Raises:
            LedgerError: It is not the canonical form of a record.
        """
        match = _ONE(line)
        if match is None or len(line) >= MAX_LINE_BYTES or not (line.isascii() or _is_utf8(line)):
            return _slowly(line)
        head, attrs, event, stated, tail, prev, seq, time = match.groups()
        if not (event in _EVENTS and self._is_second(time[:_SECOND_LENGTH]) and self._in_order(attrs)):
            return _slowly(line)
        digest = sha256(b"\x00" + head + tail).digest()
        return event, seq, prev, stated, hexlify(digest), digest, time

    def run(self, data: bytes, prev: bytes, seq: int, time: bytes) -> Run | None:
        """Check the form of lines and that they are the next records.

        Args:
            data: Whole lines, each with its line feed.
            prev: Hash of the record before them, in hex.
            seq: Number of the first one.
            time: Time of the record before them, or empty.

        Returns:
            The records before the first one with an event of `FRAME`. None when anything is wrong with any line, and
            when any line is of a form that is for `parse_line`.
        """
        if len(data) >= MAX_LINE_BYTES or not (data.isascii() or _is_utf8(data)):
            return None
        found = self._search(data)
        columns = list(zip(*found, strict=True))
        # Matches do not overlap: when they are as long as all there is, nothing stands between them.
        if not found or _length(columns) != len(data):
            return None
        if any(columns[2]):
            del found[next(number for number, frame in enumerate(columns[2]) if frame) :]
            if not found:
                return Run([], (), time, 0)
            columns = list(zip(*found, strict=True))
        heads, attrs, _, stated, tails, prevs, seqs, times = columns
        leaves = [sha256(b"\x00" + head + tail).digest() for head, tail in zip(heads, tails, strict=True)]
        good = (
            hexlify(b"".join(leaves)) == b"".join(stated)
            and prevs == (prev, *stated[:-1])
            and list(seqs) == [b"%d" % number for number in range(seq, seq + len(found))]
            and sorted((time, *times)) == [time, *times]
            and all(map(self._is_second, {each[:_SECOND_LENGTH] for each in times}))
            and all(map(self._in_order, filter(None, attrs)))
        )
        if self._unlearned >= _LEARN_AFTER:
            self._learn()
        return Run(leaves, stated, times[-1], _length(columns)) if good else None

    def _in_order(self, attrs: bytes) -> bool:
        keys = tuple(_KEYS_OF(attrs))
        if keys not in self._shapes:
            if sorted(set(keys)) != list(keys):
                return False
            if len(self._shapes) >= _MOST_SHAPES:
                return True
        self._shapes[keys] += 1
        self._unlearned += 1
        return True

    def _learn(self) -> None:
        often = [shape for shape, times in self._shapes.most_common(_MOST_LEARNED) if times >= _LEARN_AFTER // 32]
        learned = (self._learned + often)[:_MOST_LEARNED]
        if learned != self._learned:
            self._learned, self._search = learned, _search_for(learned)
        self._shapes = Counter(dict.fromkeys(self._shapes, 0))
        self._unlearned = 0

    def _is_second(self, text: bytes) -> bool:
        if text == self._second:
            return True
        try:
            good = _SECOND(text) is not None and datetime.fromisoformat(text.decode()) is not None
        except ValueError:
            return False
        if good:
            self._second = text
        return good


def _search_for(shapes: Sequence[_Shape]) -> Callable[[bytes], _Found]:
    """Make the search for all lines; of the attrs that have one of the shapes it gives nothing back."""
    pairs = (b",".join(b'"%b":%b' % (re.escape(key), _VALUE) for key in shape) for shape in shapes)
    known = b"".join(rb"\{" + each + rb"\}|" for each in pairs)
    return re.compile(_line(rb"(?>" + known + _ATTRS + rb")", _EVENT, _ANY) + rb"\n", re.DOTALL).findall


def _length(columns: Sequence[Sequence[bytes]]) -> int:
    heads, tails = columns[0], columns[4]
    return sum(map(len, heads)) + sum(map(len, tails)) + _BESIDES * len(heads)


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
