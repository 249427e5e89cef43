"""Verify a cedarbox ledger, or the proof of one record, with nothing but Python's standard library (3.8 or later).

One file, made to be read before it is trusted. It shares no code with cedarbox: signatures (Ed25519, RFC 8032), hash
tree (RFC 6962), signed notes (C2SP) and canonical JSON (RFC 8785, as far as records use it) are checked below.

    python3 -I cedarbox_verify.py proof PROOF.json --public-key ledger.pub
    python3 -I cedarbox_verify.py ledger DIRECTORY --public-key ledger.pub [--anchor FILE]...

The public key is the first one of the ledger, from a place that you trust. Exit code 0: it holds. 1: it does not, and
the first bad record is named. 2: wrong arguments, or the key, the proof or an anchor cannot be read. Let nobody write
to the ledger meanwhile, or verify a copy.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import re
import stat
import sys
from datetime import datetime
from typing import Any, Dict, Iterator, List, Optional, Tuple

__all__ = ["Bad", "Unusable", "check_ledger", "check_proof", "load_key", "main", "verify_signature"]

Note = Tuple[str, int, bytes, bytes, List[Tuple[str, bytes]]]


class Bad(Exception):
    """What is looked at does not hold."""


class Unusable(Exception):
    """What was given cannot be used."""


# Ed25519, RFC 8032 §5.1. Points are extended coordinates (X, Y, Z, T) with x = X/Z, y = Y/Z, x*y = T/Z.
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = Tuple[int, int, int, int]


def _add(one: Point, other: Point) -> Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def _point(data: bytes) -> Optional[Point]:
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


def _base() -> Point:
    y = 4 * pow(5, P - 2, P) % P
    point = _point(y.to_bytes(32, "little"))
    if point is None:
        raise AssertionError("the base point is on the curve")
    return point


def verify_signature(key: bytes, message: bytes, signature: bytes) -> bool:
    """Verify an Ed25519 signature (RFC 8032 §5.1.7).

    Args:
        key: The public key, 32 bytes.
        message: What was signed.
        signature: The signature, 64 bytes.
    """
    public = _point(key) if len(key) == 32 else None
    s = int.from_bytes(signature[32:], "little")
    if public is None or len(signature) != 64 or s >= ORDER:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    base, minus = _base(), (P - public[0], public[1], 1, P - public[3])
    both, total = _add(base, minus), (0, 1, 1, 0)
    for bit in range(252, -1, -1):  # total = s * base - h * public
        total = _add(total, total)
        pair = (s >> bit & 1, h >> bit & 1)
        if pair != (0, 0):
            total = _add(total, both if pair == (1, 1) else base if pair == (1, 0) else minus)
    inverse = pow(total[2], P - 2, P)
    x, y = total[0] * inverse % P, total[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little") == signature[:32]


# Records.
GENESIS = "0" * 64
FORMAT = "cedarbox.ledger/2"
TEXTS = ("session", "run", "principal", "tool", "call_id", "action", "resource", "bundle", "outcome")
OTHERS = ("attrs", "decision", "errors", "event", "hash", "policies", "prev", "seq", "span_id", "time", "trace_id")
KEYS = set(TEXTS + OTHERS)
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
STREAM_NAME = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{8}")
SEGMENT_NAME = re.compile(r"([0-9]{8}T[0-9]{12}Z-[0-9a-f]{8})\.([0-9]{6})\.jsonl")
MOST_BYTES = 16 * 1024 * 1024


def _refuse(text: str) -> Any:
    raise ValueError("no record holds the number " + text[:20])


def read_record(line: bytes) -> Tuple[Dict[str, Any], bytes]:
    """Check the form of a line, with its line feed, and its hash; give its fields and its leaf hash."""
    if not line.endswith(b"\n") or len(line) > MOST_BYTES:
        raise Bad("the line has no end or is too long")
    try:
        text = line[:-1].decode()
        fields = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
        if not isinstance(fields, dict) or set(fields) != KEYS or _written(fields) != line[:-1]:
            raise Bad("the line is not the canonical JSON of a record")
        _check_fields(fields)
    except (ValueError, RecursionError):
        raise Bad("the line is not the canonical JSON of a record") from None
    content = _written({key: value for key, value in fields.items() if key != "hash"})
    leaf = hashlib.sha256(b"\x00" + content).digest()
    if leaf.hex() != fields["hash"]:
        raise Bad("the hash of the record is not that of its content")
    return fields, leaf


def _written(value: Any) -> bytes:
    # With keys below U+10000, the order of code points is that of UTF-16.
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _check_fields(fields: Dict[str, Any]) -> None:
    seq, time, decision = fields["seq"], fields["time"], fields["decision"]
    good = type(seq) is int and 0 <= seq < 2**53 and isinstance(fields["event"], str)
    good = good and isinstance(time, str) and TIME.fullmatch(time) is not None and bool(_moment(time))
    good = good and all(fields[key] is None or isinstance(fields[key], str) for key in TEXTS)
    good = good and (decision is None or decision in ("allow", "deny"))
    for key, length in (("prev", 64), ("hash", 64)):
        good = good and _is_hex(fields[key], length)
    for key, length in (("trace_id", 32), ("span_id", 16)):
        good = good and (fields[key] is None or _is_hex(fields[key], length))
    for key in ("policies", "errors"):
        good = good and isinstance(fields[key], list) and all(isinstance(item, str) for item in fields[key])
    if not (good and isinstance(fields["attrs"], dict) and _plain(fields["attrs"], 0)):
        raise Bad("a field of the record has a value that no record has")


def _moment(time: str) -> datetime:
    return datetime.strptime(time[:19], "%Y-%m-%dT%H:%M:%S")


def _is_hex(value: Any, length: int) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{%d}" % length, value) is not None


def _plain(value: Any, depth: int) -> bool:
    if value is None or isinstance(value, (bool, str)):
        return True
    if isinstance(value, int):
        return -(2**53) < value < 2**53
    if depth >= 16:
        return False
    if isinstance(value, dict):
        return all(max(key, default="") < "\U00010000" and _plain(item, depth + 1) for key, item in value.items())
    return isinstance(value, list) and all(_plain(item, depth + 1) for item in value)


# The tree, RFC 6962 §2.1: the roots of its full subtrees, the largest first.
def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class Chain:
    """Records that follow each other, and the tree over them."""

    def __init__(self) -> None:
        self.size, self.hash, self.time = 0, GENESIS, ""
        self.roots: List[Tuple[int, bytes]] = []

    def take(self, line: bytes) -> Dict[str, Any]:
        """Take the next line."""
        fields, leaf = read_record(line)
        if fields["seq"] != self.size or fields["prev"] != self.hash:
            raise Bad("the record is not the one that comes next")
        if fields["time"] < self.time:
            raise Bad("its time is before that of the one before")
        self.size, self.hash, self.time = self.size + 1, fields["hash"], fields["time"]
        height = 0
        while self.roots and self.roots[-1][0] == height:
            leaf, height = _node(self.roots.pop()[1], leaf), height + 1
        self.roots.append((height, leaf))
        return fields

    def root(self) -> bytes:
        """Give the root over the records up to now."""
        roots = [root for _, root in self.roots]
        root = roots.pop() if roots else hashlib.sha256().digest()
        while roots:
            root = _node(roots.pop(), root)
        return root


def path_root(leaf: bytes, index: int, size: int, path: List[bytes]) -> bytes:
    """Give the root that an inclusion proof leads to (the algorithm of RFC 9162 §2.1.3.2)."""
    number, last, root = index, size - 1, leaf
    for node in path:
        if last == 0:
            raise Bad("the path is too long")
        if number & 1 or number == last:
            root = _node(node, root)
            while not number & 1 and number:
                number, last = number >> 1, last >> 1
        else:
            root = _node(root, node)
        number, last = number >> 1, last >> 1
    if last:
        raise Bad("the path is too short")
    return root


# Signed notes.
def split_notes(data: bytes) -> Tuple[List[bytes], bytes]:
    """Cut a file of notes into whole notes and what is left."""
    parts = data.split(b"\n\n")
    count = (len(parts) - 1) // 2
    notes = [parts[2 * number] + b"\n\n" + parts[2 * number + 1] + b"\n" for number in range(count)]
    return notes, b"\n\n".join(parts[2 * count :])


def read_note(data: bytes) -> Note:
    """Check the form of a note: origin, size, root, and lines of signatures."""
    try:
        match = re.fullmatch("([^\n]*)\n([1-9][0-9]{0,15})\n([^\n]*)\n\n((?:\u2014 [^ \n]+ [^ \n]+\n)+)", data.decode())
        if match is None:
            raise Bad("it has not the form of a note")
        signatures = []
        for line in match[4].split("\n")[:-1]:
            name, blob = line.split(" ")[1:]
            signatures.append((name, _from_base64(blob)))
        root = _from_base64(match[3])
    except ValueError:
        raise Bad("it has not the form of a note") from None
    if len(root) != 32 or any(len(blob) < 5 for _, blob in signatures):
        raise Bad("it has not the form of a note")
    return match[1], int(match[2]), root, data[: data.index(b"\n\n") + 1], signatures


def _from_base64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError("not the one way to write it")
    return data


def signed_by(note: Note, key: bytes) -> bool:
    """Whether the first signature that claims to be by a key is by it."""
    name, _, _, text, signatures = note
    wanted = hashlib.sha256(name.encode() + b"\n\x01" + key).digest()[:4]
    ours = [blob[4:] for signer, blob in signatures if signer == name and blob[:4] == wanted]
    return bool(ours) and verify_signature(key, text, ours[0])


def read_key(text: Any) -> bytes:
    """Read a public key as records hold it."""
    try:
        key = _from_base64(text) if isinstance(text, str) else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise Bad("a public key is not the base64 of 32 bytes")
    return key


# The index: groups of records, each signed with the key that the group before it named.
class Index:
    """What the index says, as far as it is signed.

    Args:
        lines: Its lines, with line feeds.
        notes: Its whole notes, in order.
        pinned: The key that is trusted.
    """

    def __init__(self, lines: Iterator[bytes], notes: List[bytes], pinned: bytes) -> None:
        self.chain, self.ledger, self.first_key, self.signed = Chain(), "", b"", 0
        self.streams: Dict[str, Dict[str, Any]] = {}
        self.roots: Dict[int, bytes] = {}
        group: List[Dict[str, Any]] = []
        key, trusted, ended, unsigned = b"", False, True, 0
        for line in lines:
            fields = _at("index", self.chain, line)
            attrs = fields["attrs"]
            if self.chain.size == 1:
                key = self.first_key = self._created(fields)
            elif fields["event"] == "ledger.created":
                raise Bad("index: record %d: the ledger was created before" % fields["seq"])
            self.roots[self.chain.size] = self.chain.root()
            group.append(fields)
            ended = "next_key" in attrs
            if not ended:
                continue
            if not notes or unsigned:
                unsigned += 1
                continue
            trusted = trusted or key == pinned
            self._check(notes.pop(0), key)
            for each in group:
                self._learn(each)
            key, group, self.signed = read_key(attrs["next_key"]), [], self.chain.size
        if notes or unsigned + (not ended) > 1:
            raise Bad("index: record %d: records or notes are gone after this" % self.signed)
        if not trusted:
            raise Bad("index: the key given signed nothing in this ledger")

    def _created(self, fields: Dict[str, Any]) -> bytes:
        attrs = fields["attrs"]
        key = read_key(attrs.get("public_key"))
        self.ledger = hashlib.sha256(key).hexdigest()[:16]
        if (fields["event"], attrs.get("format"), attrs.get("ledger")) != ("ledger.created", FORMAT, self.ledger):
            raise Bad("index: record 0 is not that of a ledger of format " + FORMAT)
        return key

    def _check(self, data: bytes, key: bytes) -> None:
        note = read_note(data)
        expected = ("cedarbox.local/ledger/%s/index" % self.ledger, self.chain.size, self.chain.root())
        if note[:3] != expected or not signed_by(note, key):
            raise Bad("index: record %d: no good note over what follows" % self.signed)

    def _learn(self, fields: Dict[str, Any]) -> None:
        event, attrs = fields["event"], fields["attrs"]
        name = attrs.get("stream")
        if event == "stream.opened":
            if not isinstance(name, str) or not STREAM_NAME.fullmatch(name) or name in self.streams:
                raise Bad("index: record %d: it opens no stream, or one that is open" % fields["seq"])
            opened = {"seq": fields["seq"], "hash": fields["hash"]}
            keys = [read_key(attrs.get("public_key"))]
            for other in attrs.get("live") or ():
                if other["stream"] in self.streams:
                    self._claim(other["stream"], other)
            self.streams[name] = {"opened": opened, "keys": keys, "claims": [], "seals": [], "end": None}
        elif name in self.streams and event in ("segment.sealed", "stream.closed", "stream.recovered"):
            stream, state = self.streams[name], attrs.get("state", "ended")
            if state == "ended":
                self._claim(name, attrs)
            if event == "segment.sealed":
                stream["seals"].append((attrs["size"], attrs["public_key"]))
                stream["keys"].append(read_key(attrs["public_key"]))
            elif stream["end"] is None:
                stream["end"] = dict(attrs, closed=event == "stream.closed", state=state)

    def _claim(self, name: str, attrs: Dict[str, Any]) -> None:
        self.streams[name]["claims"].append((attrs["size"], bytes.fromhex(attrs["root"])))


def _at(stream: str, chain: Chain, line: bytes) -> Dict[str, Any]:
    try:
        return chain.take(line)
    except Bad as error:
        raise Bad("%s: record %d: %s" % (stream, chain.size, error)) from None


class StreamCheck:
    """The records of one stream over all its segments."""

    def __init__(self, place: str, name: str, ledger: str, facts: Dict[str, Any]) -> None:
        self.place, self.name, self.ledger, self.facts = place, name, ledger, facts
        self.chain, self.signed = Chain(), 0
        self.key, self.next_key, self.segment, self.sealed, self.closed = facts["keys"][0], b"", 0, False, False

    def run(self, segments: int, anchors: List[Tuple[int, bytes]]) -> None:
        """Check everything.

        Args:
            segments: Number of segments that the directory has.
            anchors: Sizes and roots that were kept elsewhere.

        Raises:
            Bad: Something does not hold.
        """
        notes, rest = split_notes(read_file(os.path.join(self.place, self.name + ".checkpoints"), missing=b""))
        origin = "cedarbox.local/ledger/%s/%s" % (self.ledger, self.name)
        wanted = {}
        last = 0
        for data in notes:
            note = read_note(data)
            if note[0] != origin or note[1] <= last:
                raise Bad("%s: record %d: a note is of another stream or place" % (self.name, last))
            last, wanted[note[1]] = note[1], note
        claims: Dict[int, List[bytes]] = {}
        for size, root in self.facts["claims"] + anchors:
            claims.setdefault(size, []).append(root)
        claims.pop(0, None)
        for number in range(segments):
            self._segment(number, wanted, claims)
        if wanted or claims:
            raise Bad("%s: record %d: it and those after it are gone" % (self.name, self.chain.size))
        self._end(rest)

    def _segment(self, number: int, notes: Dict[int, Note], claims: Dict[int, List[bytes]]) -> None:
        path = os.path.join(self.place, "%s.%06d.jsonl" % (self.name, number))
        for line in lines_of(path):
            if not line.endswith(b"\n") and len(line) <= MOST_BYTES:
                self._torn(line)
                return
            if number != self.segment:
                if not self.sealed:
                    self._bad("the segment before does not end as it must")
                self.segment, self.sealed, self.key = number, False, self.next_key
            if self.closed or self.sealed or self._ended():
                self._bad("there are records after the end")
            self._take(line)
            root = self.chain.root() if self.chain.size in notes or self.chain.size in claims else b""
            note = notes.pop(self.chain.size, None)
            if note is not None:
                if note[2] != root or not signed_by(note, self.key):
                    raise Bad("%s: record %d: no good note over what follows" % (self.name, self.signed))
                self.signed = self.chain.size
            if any(claimed != root for claimed in claims.pop(self.chain.size, ())):
                raise Bad("%s: record %d: this or a later one was changed" % (self.name, self.signed))

    def _take(self, line: bytes) -> None:
        fields = _at(self.name, self.chain, line)
        event, attrs, seq = fields["event"], fields["attrs"], fields["seq"]
        if (event == "ledger.opened") != (seq == 0):
            self._bad("ledger.opened is not the first record, and only that", seq)
        if seq == 0:
            expected = (FORMAT, self.ledger, self.name, self.facts["keys"][0], self.facts["opened"])
            told = tuple(attrs.get(key) for key in ("format", "ledger", "stream")), attrs.get("index")
            if (*told[0], read_key(attrs.get("public_key")), told[1]) != expected:
                self._bad("the first record is not what the index says", 0)
        self.closed = event == "ledger.closed"
        if event == "segment.sealed":
            self.sealed, self.next_key = True, read_key(attrs.get("next_public_key"))
            seals = self.facts["seals"]
            told_key = (seq + 1, attrs["next_public_key"])
            if attrs.get("segment") != self.segment or (self.segment < len(seals) and seals[self.segment] != told_key):
                self._bad("the end of the segment is not what the index says", seq)

    def _ended(self) -> bool:
        end = self.facts["end"]
        return end is not None and end["state"] == "ended" and self.chain.size >= end["size"]

    def _torn(self, rest: bytes) -> None:
        end = self.facts["end"]
        if self.closed or self.sealed:
            self._bad("bytes stand after the end")
        if self._ended():
            told = (end.get("discarded_bytes"), end.get("sha256"))
            if (len(rest), hashlib.sha256(rest).hexdigest()) != told:
                self._bad("bytes stand after the end")

    def _end(self, rest: bytes) -> None:
        end, size = self.facts["end"], self.chain.size
        if self.segment > len(self.facts["seals"]):
            raise Bad("index: it does not name segment %d of %s" % (self.segment, self.name))
        if end is not None and end["closed"]:
            if not self.closed or self.signed < size or rest:
                self._bad("the stream is closed, but not signed to its end", self.signed)
        elif size > 1 and not self.signed:
            self._bad("there is no good note", 0)
        elif end is not None and (end["state"] != "ended" or self.signed < size - (end.get("unsigned") or 0)):
            self._bad("the stream is not what was recovered", self.signed)

    def _bad(self, message: str, seq: Optional[int] = None) -> None:
        raise Bad("%s: record %d: %s" % (self.name, self.chain.size if seq is None else seq, message))


# Files.
def read_file(path: str, missing: Optional[bytes] = None) -> bytes:
    """Read a regular file; ``missing`` when there is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Bad("%s: it is not a regular file" % path)
            return file.read()
    except FileNotFoundError:
        if missing is None:
            raise Bad("%s: it is gone" % path) from None
        return missing
    except OSError as error:
        raise Bad("%s: it cannot be read: %s" % (path, error.strerror)) from None


def lines_of(path: str) -> Iterator[bytes]:
    """Read a regular file line by line."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Bad("%s: it is not a regular file" % path)
            line = file.readline(MOST_BYTES + 1)
            while line:
                yield line
                line = file.readline(MOST_BYTES + 1)
    except OSError as error:
        raise Bad("%s: it cannot be read: %s" % (path, error.strerror)) from None


def load_key(path: str) -> bytes:
    """Load a public key: PEM of an Ed25519 key, or the base64 of its 32 bytes.

    Raises:
        Unusable: It is none.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(4096).decode("ascii")
        if "-----BEGIN PUBLIC KEY-----" not in text:
            return _from_base64(text.strip())[:32].ljust(32, b"\0")
        data = base64.b64decode("".join(text.split("-----")[2].split()), validate=True)
    except (OSError, ValueError, IndexError) as error:
        raise Unusable("%s: the public key cannot be read: %s" % (path, error)) from None
    if len(data) != 44 or data[:12] != bytes.fromhex("302a300506032b6570032100"):
        raise Unusable("%s: it is no Ed25519 public key" % path)
    return data[12:]


def _anchors(paths: List[str], ledger: str) -> Dict[str, List[Tuple[int, bytes]]]:
    found: Dict[str, List[Tuple[int, bytes]]] = {}
    for path in paths:
        try:
            notes, rest = split_notes(read_file(path).rstrip(b"\n") + b"\n\n")
            for data in notes:
                origin, size, root = read_note(data)[:3]
                before, _, name = origin.rpartition("/")
                if before == "cedarbox.local/ledger/" + ledger:
                    found.setdefault(name, []).append((size, root))
        except Bad as error:
            # Of a file that cannot be read the error names the path itself.
            name = "" if str(error).startswith(path + ":") else path + ": it is no anchor: "
            raise Unusable("%s%s" % (name, error)) from None
        if rest or not found:
            raise Unusable("%s: no note in it is of the ledger %s" % (path, ledger))
    return found


def check_ledger(place: str, key: bytes, anchors: List[str]) -> str:
    """Verify a ledger.

    Args:
        place: Its directory.
        key: The public key that is trusted, 32 bytes.
        anchors: Files of notes that were kept elsewhere.

    Returns:
        What was verified, in one line.

    Raises:
        Bad: Something does not hold; the message names the first bad record.
        Unusable: There is no such directory, or an anchor cannot be used.
    """
    try:
        names = sorted(os.listdir(place))
    except OSError as error:
        raise Unusable("%s: the ledger cannot be read: %s" % (place, error.strerror)) from None
    segments: Dict[str, int] = {}
    noted = []
    for name in names:
        match = SEGMENT_NAME.fullmatch(name)
        if match is not None:
            segments[match[1]] = max(segments.get(match[1], 0), int(match[2]) + 1)
        elif name.endswith(".checkpoints") and STREAM_NAME.fullmatch(name[:-12]):
            noted.append(name[:-12])
        elif name.endswith((".jsonl", ".checkpoints")) and name not in ("index.jsonl", "index.checkpoints"):
            raise Bad("%s: no ledger has such a file" % name)
    path = os.path.join(place, "index.jsonl")
    notes, rest = split_notes(read_file(os.path.join(place, "index.checkpoints")))
    index = Index((line for line in lines_of(path) if line.endswith(b"\n") or len(line) > MOST_BYTES), notes, key)
    if rest and index.signed == index.chain.size:
        raise Bad("index: bytes that are no note stand after the last note")
    if "ledger.pub" in names and _inside(place) != index.first_key:
        raise Bad("ledger.pub: it is not the first key of this ledger")
    kept = _anchors(anchors, index.ledger)
    for size, root in kept.pop("index", []):
        if index.roots.get(size) != root:
            raise Bad("index: it is older than an anchor, or another history")
    for name in noted:
        empty = not read_file(os.path.join(place, name + ".checkpoints"))
        if name not in segments and name not in index.streams and not empty:
            raise Bad("%s: it has notes, but its records are gone" % name)
    records = 0
    for name in sorted({*index.streams, *segments, *kept}):
        if name not in index.streams and name in segments and name not in kept and not _holds(place, name, segments):
            continue  # it was about to be opened
        if name not in segments or name not in index.streams:
            raise Bad("%s: the stream is gone, or the index does not name it" % name)
        check = StreamCheck(place, name, index.ledger, index.streams[name])
        check.run(segments[name], kept.get(name, []))
        records += check.chain.size
    told = (index.ledger, records, len(index.streams), index.chain.size)
    return "the ledger %s verifies: %d records in %d streams, %d records in the index" % told


def _inside(place: str) -> bytes:
    try:
        return load_key(os.path.join(place, "ledger.pub"))
    except Unusable:
        return b""


def _holds(place: str, name: str, segments: Dict[str, int]) -> bool:
    paths = [os.path.join(place, "%s.%06d.jsonl" % (name, number)) for number in range(segments[name])]
    return any(
        read_file(path) for path in [*paths, os.path.join(place, name + ".checkpoints")] if os.path.lexists(path)
    )


def check_proof(proof: Any, key: bytes) -> str:
    """Verify the proof of one record.

    Args:
        proof: What the JSON of the proof holds.
        key: The first public key of the ledger, 32 bytes.

    Returns:
        What was verified, in one line.

    Raises:
        Bad: It does not hold.
    """
    if not isinstance(proof, dict) or proof.get("format") != "cedarbox.proof/1" or set(proof) != PROOF_KEYS:
        raise Bad("it is not a proof of the format cedarbox.proof/1")
    name, seq, texts = proof["stream"], proof["seq"], [proof["record"], *_texts(proof, "index")]
    if not isinstance(name, str) or type(seq) is not int or not all(isinstance(text, str) for text in texts):
        raise Bad("a field of the proof has another type than it must have")
    path = [bytes.fromhex(text) if _is_hex(text, 64) else b"" for text in _texts(proof, "path")]
    lines = [text.encode() + b"\n" for text in texts]
    index = Index(iter(lines[1:]), [text.encode() for text in _texts(proof, "index_notes")], key)
    if index.first_key != key or index.signed != index.chain.size or name not in index.streams:
        raise Bad("the index that comes with the proof does not name the stream")
    stream = index.streams[name]
    fields, leaf = read_record(lines[0])
    if fields["seq"] != seq or not all(path):
        raise Bad("the proof is of another record, or its path is malformed")
    if proof["note"] is None:
        end = stream["end"]
        if end is None or end["closed"] or end["state"] != "ended" or seq >= end["size"]:
            raise Bad("the index does not vouch for the record, and there is no note")
        size, root, by = end["size"], bytes.fromhex(end["root"]), "the index"
    else:
        note = read_note(proof["note"].encode() if isinstance(proof["note"], str) else b"")
        size, root, by = note[1], note[2], "a note of its stream"
        if note[0] != "cedarbox.local/ledger/%s/%s" % (index.ledger, name) or seq >= size:
            raise Bad("the note is of another stream, or does not cover the record")
        ends = [end for end, _ in stream["seals"]]
        segment = len([end for end in ends if end < size])
        if not signed_by(note, stream["keys"][segment]):
            raise Bad("the note is not signed with the key that the index names")
    if path_root(leaf, seq, size, path) != root:
        raise Bad("the path does not lead from the record to the root")
    told = (seq, name, index.ledger, by, size, fields["time"], fields["event"], fields["hash"])
    return "record %d of stream %s in ledger %s is under the root that %s has for %d records: %s %s %s" % told


PROOF_KEYS = {"format", "record", "stream", "seq", "note", "path", "index", "index_notes"}


def _texts(proof: Dict[str, Any], name: str) -> List[str]:
    if not isinstance(proof[name], list) or not all(isinstance(text, str) for text in proof[name]):
        raise Bad("a field of the proof has another type than it must have")
    return list(proof[name])


def main(arguments: Optional[List[str]] = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        epilog="Exit code 0: it verifies. 1: it does not. 2: something cannot be read, or the verdict not be written. "
        "Example: python3 -I -S %(prog)s ledger copy/of/ledger --public-key ledger.pub",
    )
    parser.add_argument("what", choices=["ledger", "proof"], help="what is verified")
    parser.add_argument("path", help="directory of the ledger, or file of the proof")
    parser.add_argument("--public-key", required=True, help="first public key of the ledger (PEM or base64)")
    parser.add_argument("--anchor", action="append", default=[], help="file of notes that was kept elsewhere")
    options = parser.parse_args(arguments)
    try:
        key = load_key(options.public_key)
        if options.what == "ledger":
            told = check_ledger(options.path, key, options.anchor)
        else:
            told = check_proof(_load_proof(options.path), key)
    except Unusable as error:
        return _say(sys.stderr, "error: %s" % error, 2)
    except Bad as error:
        return _say(sys.stdout, "DOES NOT VERIFY: %s" % error, 1)
    return _say(sys.stdout, told, 0)


def _say(stream: Any, line: str, code: int) -> int:
    # Names of files and records hold what others chose: it must not drive the terminal of the auditor.
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in line)
    try:
        stream.write(safe.encode("ascii", "backslashreplace").decode() + "\n")
        stream.flush()
    except OSError:
        # Nobody has the verdict; what is left of it would fail again at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 2
    return code


def _load_proof(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise Unusable("%s: the proof cannot be read: %s" % (path, error)) from None


if __name__ == "__main__":
    sys.exit(main())
