"""A forger's workshop: builds honest ledgers from the text of the format, and keeps every key that a writer erases.

It shares nothing with the writer but the form of records and notes, so that a mistake in the writer does not hide one
in the verifier. What it builds is in memory until `Workshop.save`; tests change it before or after that.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cedarbox.audit.checkpoint import Checkpoint, origin_of, sign_note
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, Entry, JsonValue, format_time, seal
from cedarbox.ed25519 import public_pem, raw_key

__all__ = ["Stream", "Tape", "Workshop", "rechained", "rehashed", "shown"]


def shown(key: Ed25519PrivateKey) -> str:
    """Give the public key as records hold it."""
    return b64encode(raw_key(key.public_key())).decode()


def rechained(lines: list[bytes], changes: dict[int, dict[str, Any]], *, begin: int = 0) -> list[bytes]:
    """Number and hash lines anew from ``begin`` on, as one does who has no key.

    Args:
        lines: All lines of the tape.
        changes: Fields to put into the records, by place.
        begin: The first line that is made anew.
    """
    prev = orjson.loads(lines[begin - 1])["hash"] if begin else GENESIS
    made = lines[:begin]
    for seq, line in enumerate(lines[begin:], begin):
        fields = orjson.loads(line) | {"seq": seq, "prev": prev} | changes.get(seq, {})
        del fields["hash"]
        prev = sha256(b"\x00" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
        made.append(orjson.dumps(fields | {"hash": prev}, option=orjson.OPT_SORT_KEYS) + b"\n")
    return made


def rehashed(line: bytes, **changes: Any) -> bytes:
    """Change fields of one line and make its own hash good."""
    fields = orjson.loads(line) | changes
    del fields["hash"]
    digest = sha256(b"\x00" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps(fields | {"hash": digest}, option=orjson.OPT_SORT_KEYS) + b"\n"


class Tape:
    """A chain of records with its notes.

    Args:
        origin: Origin of the notes.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.lines: list[bytes] = []
        self.notes: list[bytes] = []
        self.tree, self.hash = Tree(), GENESIS

    @property
    def size(self) -> int:
        return len(self.lines)

    def add(self, entry: Entry, time_ns: int) -> None:
        record, line, digest = seal(entry, self.size, format_time(time_ns), self.hash)
        self.hash = record.hash
        self.lines.append(line)
        self.tree.append(digest)

    def note(self, key: Ed25519PrivateKey) -> bytes:
        note = sign_note(Checkpoint(self.origin, self.size, self.tree.root()), key)
        self.notes.append(note)
        return note

    def head(self) -> dict[str, JsonValue]:
        return {"size": self.size, "hash": self.hash, "root": self.tree.root().hex()}

    def refill(self, lines: list[bytes]) -> None:
        """Take other lines; their chain may be as bad as it likes."""
        self.lines, self.tree = list(lines), Tree()
        for line in lines:
            self.hash = orjson.loads(line)["hash"]
            self.tree.append(bytes.fromhex(self.hash))

    def root_at(self, size: int) -> bytes:
        tree = Tree()
        for line in self.lines[:size]:
            tree.append(bytes.fromhex(orjson.loads(line)["hash"]))
        return tree.root()


@dataclass
class Stream:
    """A stream that is being written."""

    name: str
    tape: Tape
    keys: list[Ed25519PrivateKey]
    begins: list[int] = field(default_factory=lambda: [0])
    signed: int = 0
    state: str = "open"
    torn: bytes = b""

    def files(self) -> list[tuple[str, bytes]]:
        """Give the name and content of each segment."""
        ends = [*self.begins[1:], self.tape.size]
        parts = [b"".join(self.tape.lines[begin:end]) for begin, end in zip(self.begins, ends, strict=True)]
        parts[-1] += self.torn
        return [(f"{self.name}.{number:06d}.jsonl", part) for number, part in enumerate(parts)]


class Workshop:
    """A ledger in the making.

    Args:
        root: Where ``ledger`` and the trusted key are put.
        seed: Makes keys, names and times; the same seed makes the same ledger.
    """

    def __init__(self, root: Path, seed: str = "seed") -> None:
        self.root, self.directory, self.trusted = root, root / "ledger", root / "trusted.pub"
        self._seed, self._made, self._time = seed, 0, 1_790_000_000_000_000_000
        self.index_keys = [self.key()]
        first = raw_key(self.index_keys[0].public_key())
        self.ledger = sha256(first).hexdigest()[:16]
        self.index = Tape(origin_of(self.ledger, "index"))
        self.streams: dict[str, Stream] = {}
        created: dict[str, JsonValue] = {
            "format": "cedarbox.ledger/2",
            "ledger": self.ledger,
            "public_key": shown(self.index_keys[0]),
        }
        self.group(("ledger.created", created))

    def key(self) -> Ed25519PrivateKey:
        self._made += 1
        return Ed25519PrivateKey.from_private_bytes(sha256(f"{self._seed} {self._made}".encode()).digest())

    def now(self) -> int:
        self._time += 1_000_037
        return self._time

    def group(self, *records: tuple[str, dict[str, JsonValue]]) -> None:
        """Append a group to the index, sign it, and hand over."""
        following = self.key()
        for number, (event, attrs) in enumerate(records, 1):
            more: dict[str, JsonValue] = {"next_key": shown(following)} if number == len(records) else {}
            self.index.add(Entry(event=event, attrs={**attrs, **more}), self.now())
        self.index.note(self.index_keys[-1])
        self.index_keys.append(following)

    def open(self) -> Stream:
        """Recover what is dead and open a stream."""
        for dead in [each for each in self.streams.values() if each.state == "killed"]:
            self.recover(dead)
        self._made += 1
        name = f"20261127T{self._made:012d}Z-{sha256(f'{self._seed} {self._made}'.encode()).hexdigest()[:8]}"
        stream = Stream(name, Tape(origin_of(self.ledger, name)), [self.key()])
        live: list[JsonValue] = [
            {"stream": each.name, "size": each.signed, "root": each.tape.root_at(each.signed).hex()}
            for each in self.streams.values()
            if each.state == "open"
        ]
        told: dict[str, JsonValue] = {"stream": name, "pid": 1, "boot_id": "b", "live": live}
        self.group(("stream.opened", {**told, "public_key": shown(stream.keys[0])}))
        attrs: dict[str, JsonValue] = {
            "format": "cedarbox.ledger/2",
            "ledger": self.ledger,
            "stream": name,
            "pid": 1,
            "boot_id": "b",
            "public_key": shown(stream.keys[0]),
            "index": {"seq": self.index.size - 1, "hash": self.index.hash},
        }
        stream.tape.add(Entry(event="ledger.opened", attrs=attrs), self.now())
        self.streams[name] = stream
        self.note(stream)
        return stream

    def write(self, stream: Stream, count: int, *, note: bool = True) -> None:
        """Append records, and a note over them."""
        for _ in range(count):
            number = stream.tape.size
            entry = Entry(
                event="decision",
                session="s-3f0c",
                action="connect",
                resource='Host::"mirror.corp.example"',
                decision="deny" if number % 5 == 2 else "allow",
                policies=("internal-mirror.0",),
                attrs={"number": number, "port": 443},
            )
            stream.tape.add(entry, self.now())
        if note and stream.tape.size > stream.signed:
            self.note(stream)

    def note(self, stream: Stream) -> None:
        stream.tape.note(stream.keys[-1])
        stream.signed = stream.tape.size

    def seal(self, stream: Stream) -> None:
        """End a segment and begin the next."""
        following, segment = self.key(), len(stream.begins) - 1
        attrs: dict[str, JsonValue] = {"segment": segment, "next_public_key": shown(following)}
        stream.tape.add(Entry(event="segment.sealed", attrs=attrs), self.now())
        self.note(stream)
        told: dict[str, JsonValue] = {"stream": stream.name, "segment": segment, "public_key": shown(following)}
        self.group(("segment.sealed", told | stream.tape.head()))
        stream.keys.append(following)
        stream.begins.append(stream.tape.size)

    def close(self, stream: Stream) -> None:
        stream.tape.add(Entry(event="ledger.closed", attrs={"stream": stream.name}), self.now())
        self.note(stream)
        self.group(("stream.closed", {"stream": stream.name, **stream.tape.head()}))
        stream.state = "closed"

    def kill(self, stream: Stream, torn: bytes = b"") -> None:
        stream.state, stream.torn = "killed", torn

    def recover(self, stream: Stream, *, cut: bool = True) -> None:
        attrs: dict[str, JsonValue] = {
            "stream": stream.name,
            "state": "ended",
            "unsigned": stream.tape.size - stream.signed,
            "discarded_bytes": len(stream.torn),
            "sha256": sha256(stream.torn).hexdigest(),
            **stream.tape.head(),
        }
        self.group(("stream.recovered", attrs))
        stream.state = "recovered"
        if cut:
            stream.torn = b""

    def resign(self, stream: Stream, keys: list[Ed25519PrivateKey] | None = None) -> None:
        """Make the notes of a stream anew, with its own keys or others, at the sizes they had."""
        sizes = [int(note.split(b"\n")[1]) for note in stream.tape.notes]
        stream.tape.notes.clear()
        for size in sorted({min(size, stream.tape.size) for size in sizes}):
            segment = max(number for number, begin in enumerate(stream.begins) if begin < size)
            key = (keys or stream.keys)[min(segment, len(keys or stream.keys) - 1)]
            stream.tape.notes.append(sign_note(Checkpoint(stream.tape.origin, size, stream.tape.root_at(size)), key))

    def save(self, directory: Path | None = None) -> Path:
        """Write everything; what else lay in the directory is removed."""
        place = directory or self.directory
        place.mkdir(parents=True, exist_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():
            path.unlink()
        pem = public_pem(self.index_keys[0].public_key())
        self.trusted.write_bytes(pem)
        (place / "ledger.pub").write_bytes(pem)
        (place / "index.jsonl").write_bytes(b"".join(self.index.lines))
        (place / "index.checkpoints").write_bytes(b"".join(note + b"\n" for note in self.index.notes))
        for stream in self.streams.values():
            for name, content in stream.files():
                (place / name).write_bytes(content)
            notes = b"".join(note + b"\n" for note in stream.tape.notes)
            (place / f"{stream.name}.checkpoints").write_bytes(notes)
        return place
