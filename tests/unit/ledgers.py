"""A check of a ledger that shares nothing with the verifier, and children that die where they are told to."""

from __future__ import annotations

import os
import signal
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from tests.unit.forking import fork

from cedarbox.audit.record import GENESIS, Record

__all__ = ["NO_WRITE", "Checked", "check", "child", "dying_at", "heads", "records_of"]

CHANGES = ("open", "write", "pwrite", "ftruncate", "link", "unlink", "replace", "mkdir")
"""What changes files. Death before a sync is no other state of them than death after the write before it."""

NO_WRITE = 77


@dataclass
class Checked:
    """What `check` saw: the records of each stream and of the index, and how many notes held."""

    index: list[Record] = field(default_factory=list)
    streams: dict[str, list[Record]] = field(default_factory=dict)
    notes: int = 0

    def events(self, event: str) -> list[Record]:
        """The records of the index with this event."""
        return [record for record in self.index if record.entry.event == event]

    def noted(self, key: str) -> list[Any]:
        """An attribute of every record of the streams that has it."""
        records = (record for stream in self.streams.values() for record in stream)
        return [record.entry.attrs[key] for record in records if key in record.entry.attrs]


def records_of(*paths: Path) -> list[Record]:
    """The records in some files, each by its exact line."""
    return [Record.from_line(line + b"\n") for path in paths for line in path.read_bytes().split(b"\n")[:-1]]


def check(directory: Path, public_key: Path | None = None) -> Checked:
    """Check everything in a ledger that nobody writes: chains, trees, notes, keys, ends."""
    pem = (public_key or directory / "ledger.pub").read_bytes()
    first = load_pem_public_key(pem)
    assert isinstance(first, Ed25519PublicKey)
    name = sha256(first.public_bytes_raw()).hexdigest()[:16]
    seen = Checked(index=chained(directory / "index.jsonl"))
    roots = heads(seen.index)
    key, begun = first, 0
    for size, root, text, signature in notes_of(directory / "index.checkpoints", f"{name}/index"):
        group, begun = seen.index[begun:size], size
        key.verify(signature, text)
        assert root == roots[size]
        assert [record.seq for record in group if "next_key" in record.entry.attrs] == [size - 1]
        key = key_in(group[-1], "next_key")
        seen.notes += 1
    assert begun == len(seen.index)
    for record in seen.events("stream.opened"):
        stream = str(record.entry.attrs["stream"])
        about = [other for other in seen.index if other.entry.attrs.get("stream") == stream]
        seen.streams[stream] = check_stream(directory, name, stream, about, seen)
    written = {path.name.split(".")[0] for path in directory.glob("*.jsonl") if path.stat().st_size}
    assert written - {"index"} <= set(seen.streams)
    return seen


def check_stream(directory: Path, name: str, stream: str, about: list[Record], seen: Checked) -> list[Record]:
    """Check one stream against what the index says about it."""
    paths = sorted(directory.glob(f"{stream}.*.jsonl"))
    assert [int(path.name.split(".")[1]) for path in paths] == list(range(len(paths)))
    records = chained(*paths)
    roots = heads(records)
    sealed = [record for record in about if record.entry.event == "segment.sealed"]
    keys = [key_in(about[0], "public_key"), *(key_in(record, "public_key") for record in sealed)]
    ends = [record.entry.attrs["size"] for record in sealed]
    if records:
        attrs = records[0].entry.attrs
        assert attrs["index"] == {"seq": about[0].seq, "hash": about[0].hash}
        assert (attrs["stream"], attrs["ledger"], attrs["format"]) == (stream, name, "cedarbox.ledger/2")
    last = 0
    for size, root, text, signature in notes_of(directory / f"{stream}.checkpoints", f"{name}/{stream}"):
        keys[sum(1 for end in ends if isinstance(end, int) and end < size)].verify(signature, text)
        assert root == roots[size]
        assert size > last
        last, seen.notes = size, seen.notes + 1
    (over,) = (record for record in about if record.entry.event in {"stream.closed", "stream.recovered"})
    assert over.entry.attrs.get("state", "ended") == "ended"
    for record in [*sealed, over]:
        covered = record.entry.attrs["size"]
        assert isinstance(covered, int)
        assert record.entry.attrs["root"] == roots[covered].hex()
        assert record.entry.attrs["hash"] == (records[covered - 1].hash if covered else GENESIS)
    assert over.entry.attrs["size"] == len(records)
    assert over.entry.attrs.get("unsigned", 0) == len(records) - last
    return records


def chained(*paths: Path) -> list[Record]:
    """The records in some files, which must follow each other and end with a line feed."""
    assert all(path.read_bytes()[-1:] in {b"", b"\n"} for path in paths)
    records = records_of(*paths)
    assert [record.prev for record in records] == [GENESIS, *(record.hash for record in records)][: len(records)]
    assert [record.seq for record in records] == list(range(len(records)))
    assert [record.time for record in records] == sorted(record.time for record in records)
    return records


def heads(records: list[Record]) -> list[bytes]:
    """The root of RFC 6962 over the first 0, 1, 2, … records, by the recursion of its section 2.1."""
    leaves = [bytes.fromhex(record.hash) for record in records]
    known: dict[tuple[int, int], bytes] = {}

    def root(begin: int, end: int) -> bytes:
        if end - begin < 2:
            return leaves[begin] if end > begin else sha256().digest()
        if (begin, end) not in known:
            middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
            known[begin, end] = sha256(b"\x01" + root(begin, middle) + root(middle, end)).digest()
        return known[begin, end]

    return [root(0, size) for size in range(len(leaves) + 1)]


def notes_of(path: Path, origin: str) -> Iterator[tuple[int, bytes, bytes, bytes]]:
    """Size, root, signed text and signature of each note."""
    parts = path.read_text().split("\n\n")
    for text, signature in zip(parts[0:-1:2], parts[1:-1:2], strict=False):  # what follows the last gap is torn
        name, size, root = text.split("\n")
        assert name == f"cedarbox.local/ledger/{origin}"
        yield int(size), b64decode(root), f"{text}\n".encode(), b64decode(signature.split(" ")[2])[4:]


def key_in(record: Record, attribute: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(b64decode(str(record.entry.attrs[attribute])))


def child(work: Callable[[], object]) -> int:
    """Do something in a forked child; gives its process id."""
    pid = fork()
    if pid:
        return pid
    code = 99
    try:
        work()
        code = 0
    finally:
        os._exit(code)


@contextmanager
def dying_at(number: int, *, half: bool = False) -> Iterator[Callable[[], int]]:
    """Kill this process at the ``number``-th change of a file that it makes, counted from 1; gives the count.

    Args:
        number: Which change; 0 for none.
        half: Make half of it before, when it is a write; exit with `NO_WRITE` when it is none.
    """
    count = 0
    real = {name: getattr(os, name) for name in CHANGES}

    def counted(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            if name == "open" and not args[1] & os.O_CREAT:
                return real[name](*args, **options)
            count += 1
            if count == number:
                if half and name != "write":
                    os._exit(NO_WRITE)
                if half:
                    real[name](args[0], bytes(args[1])[: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*args, **options)

        return call

    for name in CHANGES:
        setattr(os, name, counted(name))
    try:
        yield lambda: count
    finally:
        for name in CHANGES:
            setattr(os, name, real[name])
