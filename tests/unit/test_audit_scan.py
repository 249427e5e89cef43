"""The fast check of records, against the slow one, on lines and pieces to which anything was done."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.redteam.scenes import LONG

from cedarbox.audit import scan
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, Entry, format_time, parse_line, seal
from cedarbox.audit.scan import FRAME, Scanner
from cedarbox.audit.verify import verify_ledger
from cedarbox.errors import LedgerError

BEGIN = 1_790_000_000_900_000_000
ATTRS: tuple[dict[str, Any], ...] = (
    {"argc": 4, "argv": ["python3", "-m", 'a "b"\n'], "user": "sandbox"},
    {"duration_us": 123, "exit_code": 0, "stdout_bytes": 10**14},
    {},
    {"argc": -1, "argv": [], "user": None},
    {"a.b": True, "path": "/tmp/\u00e9\x01\\"},
)
NESTED: dict[str, Any] = {"z": {"y": [1, {"x": "w"}]}}
JUNK = (
    *(b" ", b"\t", b"\x00", b"\x1f", b"\n", b"\r\n", b"\x7f", b"\xff", b"\xc3\xa9", b"\xed\xa0\x80"),
    *(b'"', b"\\", b",", b"}", b"[", b":", b"-", b"0"),
    *(b"\\u0041", b"\\/", b"\\u001F", b"\\u001f", b"\\u000a", b"\\n", b"\\u00e9", b"\\ud800", b'\\"'),
)
NUMBERS = (
    b"1.0",
    b"1e2",
    b"-0",
    b"00",
    b"01",
    b"%d" % 2**53,
    b"%d" % (2**53 - 1),
    b"%d" % 10**15,
    b"%d" % 10**40,
    b"-1",
)


def chain(entries: list[Entry], prev: str = GENESIS, seq: int = 0) -> list[bytes]:
    """Make the lines of records half a second apart."""
    lines = []
    for number, entry in enumerate(entries, seq):
        record, line, _ = seal(entry, number, format_time(BEGIN + number * 500_000_000), prev)
        lines.append(line)
        prev = record.hash
    return lines


def entries(count: int) -> list[Entry]:
    """Make entries of several shapes."""
    return [
        Entry(
            event="decision" if number % 2 else "sandbox.created",
            run="r\u00e9" if number % 3 else None,
            principal='Agent::"a"',
            tool="t\\",
            decision="allow",
            policies=("p", 'q"'),
            trace_id="0a" * 16,
            attrs=ATTRS[number % len(ATTRS)],
        )
        for number in range(count)
    ]


def rehash(line: bytes) -> bytes:
    """State the hash of the content as it is now."""
    cut = line.rfind(b',"hash":"')
    head, tail = line[:cut], line[cut + 74 :].removesuffix(b"\n")
    return head + b',"hash":"' + sha256(b"\x00" + head + tail).hexdigest().encode() + b'"' + tail + b"\n"


def numbers_in(line: bytes) -> list[bytes]:
    fields = orjson.loads(line)
    attrs = fields["attrs"].values()
    return [b":%d" % each for each in (fields["seq"], *attrs) if type(each) is int]


@st.composite
def mutated(draw: st.DrawFn, line: bytes) -> bytes:
    """Do something to a line, and in half of the cases state the hash that fits."""
    kind = draw(st.sampled_from(["flip", "put", "cut", "order", "attrs", "space", "twice", "number", "glue", "value"]))
    place = draw(st.integers(0, len(line) - 2))
    fields = orjson.loads(line)
    changed = line
    if kind == "flip":
        changed = line[:place] + bytes([line[place] ^ draw(st.integers(1, 255))]) + line[place + 1 :]
    elif kind == "put":
        changed = line[:place] + draw(st.sampled_from(JUNK)) + line[place:]
    elif kind == "cut":
        changed = line[:place] + line[place + draw(st.integers(1, 40)) :]
    elif kind == "order":
        changed = orjson.dumps(dict(draw(st.permutations(list(fields.items()))))) + b"\n"
    elif kind == "attrs":
        fields["attrs"] = dict(draw(st.permutations(list(fields["attrs"].items()))))
        changed = orjson.dumps(fields) + b"\n"
    elif kind == "space":
        changed = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode() + b"\n"
    elif kind == "twice":
        key, value = draw(st.sampled_from([*fields.items(), *fields["attrs"].items()]))
        pair = orjson.dumps({key: value})[1:-1]
        changed = line.replace(pair, pair + b"," + pair, 1)
    elif kind == "number":
        number = draw(st.sampled_from(numbers_in(line)))
        changed = line.replace(number, b":" + draw(st.sampled_from(NUMBERS)), 1)
    elif kind == "glue":
        changed = draw(st.sampled_from([line[:-1] + line, line[:-1] + b"," + line, line + line, line[:-1] + b"\r\n"]))
    else:
        key = draw(st.sampled_from(sorted(fields)))
        values = st.sampled_from([None, True, "", "x", "\u00e9", 5, 1.5, [], ["\n"], {"b": 1, "a": 2}, NESTED, "allow"])
        fields[key] = draw(values | st.text(max_size=3))
        changed = orjson.dumps(fields) + b"\n"
    return rehash(changed) if draw(st.booleans()) and b',"hash":"' in changed else changed


def slowly(data: bytes, prev: str, seq: int, time: str) -> list[bytes] | None:
    """Give what a run has as its leaves, found line by line; None if any line is bad."""
    leaves: list[bytes] = []
    framed = False
    for line in data.split(b"\n")[:-1]:
        try:
            fields, digest = parse_line(line + b"\n")
        except LedgerError:
            return None
        framed = framed or fields["event"].encode() in FRAME
        if not framed:
            if (fields["prev"], fields["seq"], fields["hash"]) != (prev, seq, digest.hex()) or fields["time"] < time:
                return None
            leaves.append(digest)
            prev, seq, time = fields["hash"], seq + 1, fields["time"]
    return leaves


@pytest.fixture(scope="module")
def learned() -> Scanner:
    """A scanner that has the shapes of `ATTRS` in its expression."""
    lines = chain(entries(10))
    scanner = Scanner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_LEARN_AFTER", 1)
        assert scanner.run(b"".join(lines), GENESIS.encode(), 0, b"") is not None
    assert {tuple(key.encode() for key in sorted(attrs)) for attrs in ATTRS} == set(scanner._learned)
    return scanner


@given(data=st.data(), number=st.integers(0, 4))
@settings(deadline=None, database=None, max_examples=5000 if LONG else 200)
def test_the_fast_check_of_a_line_agrees_with_the_slow_one(learned: Scanner, data: st.DataObject, number: int) -> None:
    line = data.draw(mutated(chain(entries(5))[number]))
    expected: tuple[bytes, int] | None
    try:
        fields, digest = parse_line(line)
        expected = digest, fields["seq"]
    except LedgerError:
        expected = None
    for scanner in (Scanner(), learned):
        try:
            scanned = scanner(line.removesuffix(b"\n"))
            assert expected == (scanned[5], int(scanned[1]))
        except LedgerError:
            assert expected is None or not line.endswith(b"\n")


@given(data=st.data(), bad=st.integers(0, 9), again=st.booleans())
@settings(deadline=None, database=None, max_examples=5000 if LONG else 200)
def test_no_piece_is_taken_whole_that_is_not_good_line_by_line(
    learned: Scanner, data: st.DataObject, bad: int, again: bool
) -> None:
    lines = chain(entries(10))
    good = b"".join(lines)
    lines[bad] = data.draw(mutated(lines[bad]))
    if again:  # the rest is computed again from what stands there now
        try:
            prev = parse_line(lines[bad])[0]["hash"]
            lines[bad + 1 :] = chain(entries(9 - bad), prev, bad + 1)
        except LedgerError:
            pass
    piece = b"".join(lines)
    for scanner in (Scanner(), learned):
        first = scanner.run(good, GENESIS.encode(), 0, b"")
        assert first is not None
        assert first.leaves == slowly(good, GENESIS, 0, "")
        run = scanner.run(piece, GENESIS.encode(), 0, b"")
        if run is not None:
            assert piece.endswith(b"\n")
            assert run.leaves == slowly(piece, GENESIS, 0, "")
            assert [each.hex().encode() for each in run.leaves] == list(run.hashes)
            assert piece[: run.length].count(b"\n") == len(run.leaves)


def test_a_run_ends_before_the_frame_and_follows_what_was_before() -> None:
    many = entries(4)
    lines = chain([*many[:3], Entry(event="segment.sealed", attrs={"segment": 0}), many[3]])
    piece = b"".join(lines)
    run = Scanner().run(piece, GENESIS.encode(), 0, b"")
    assert run is not None
    assert (len(run.leaves), run.length) == (3, len(b"".join(lines[:3])))
    assert Scanner().run(lines[3], run.hashes[-1], 3, run.time) == ([], (), run.time, 0)
    time = orjson.loads(lines[1])["time"].encode()
    before = orjson.loads(lines[0])["hash"].encode()
    rest = b"".join(lines[1:3])
    assert Scanner().run(rest, before, 1, time) is not None
    assert Scanner().run(rest, before, 2, time) is None
    assert Scanner().run(rest, GENESIS.encode(), 1, time) is None
    assert Scanner().run(rest, before, 1, time[:-2] + b"9Z") is None
    assert Scanner().run(rest + b'{"', before, 1, time) is None
    assert Scanner().run(b"", before, 1, time) is None
    assert b'"tool":"t' in rest
    assert Scanner().run(rest.replace(b'"tool":"t', b'"tool":"u'), before, 1, time) is None


BAD: tuple[tuple[bytes, bytes], ...] = (
    (b'"argc":4,', b'"argc":4,"argc":4,'),
    (b'"argc":4,', b'"argc":4.0,'),
    (b'"argc":4,', b'"argc":04,'),
    (b'"argc":4,', b'"argc":-0,'),
    (b'"argc":4,', b'"argc":%d,' % 2**53),
    (b'"argc":4,"argv":', b'"argv":4,"argc":'),
    (b"sandbox", b"sand\x1fbox"),
    (b"sandbox", b"sand\x00box"),
    (b"sandbox", b"sand\nbox"),
    (b"sandbox", b"sand\xffbox"),
    (b"sandbox", b"sand\xed\xa0\x80box"),
    (b"sandbox", b"sand\\u0041box"),
    (b"sandbox", b"sand\\u001Fbox"),
    (b"sandbox", b"sand\\/box"),
    (b'"decision"', b'"decisions"'),
    (b'"allow"', b'"maybe"'),
    (b"2026-09-21T", b"2026-13-21T"),
    (b"2026-09-21T", b"2026-09-31T"),
    (b"2026-09-21T", b"2026-09-21 "),
    (b"0a0a", b"0A0a"),
    (b',"tool":', b', "tool":'),
)


@pytest.mark.parametrize(("good", "bad"), BAD)
def test_a_bad_line_whose_hash_is_good_is_not_taken(learned: Scanner, good: bytes, bad: bytes) -> None:
    attrs: dict[str, Any] = {"argc": 4, "argv": [], "user": "sandbox"}
    entry = Entry(event="decision", decision="allow", trace_id="0a" * 16, attrs=attrs)
    line = chain([entry])[0]
    assert line.count(good) >= 1
    changed = rehash(line.replace(good, bad, 1))
    for scanner in (Scanner(), learned):
        assert scanner.run(line, GENESIS.encode(), 0, b"") is not None
        assert scanner.run(changed, GENESIS.encode(), 0, b"") is None
        with pytest.raises(LedgerError):
            scanner(changed[:-1])
    with pytest.raises(LedgerError):
        parse_line(changed)


def test_shapes_that_nobody_counts_are_checked_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_MOST_SHAPES", 2)
    monkeypatch.setattr(scan, "_MOST_LEARNED", 1)
    monkeypatch.setattr(scan, "_LEARN_AFTER", 8)
    scanner = Scanner()
    for count in range(1, 30):
        made = [Entry(event="outcome", attrs={f"k{each % 7}": 1, "m": 2}) for each in range(count)]
        piece = b"".join(chain(made))
        assert scanner.run(piece, GENESIS.encode(), 0, b"") is not None
        swapped = rehash(piece.split(b"\n")[0].replace(b'"k0":1,"m":2', b'"m":2,"k0":1') + b"\n")
        assert scanner.run(swapped, GENESIS.encode(), 0, b"") is None
    assert len(scanner._learned) == 1
    assert len(scanner._shapes) == 2


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("scan") / "ledger"
    with Ledger.open(place, segment_bytes=8000) as ledger:
        for entry in entries(30):
            ledger.append(entry)
    return place


@given(data=st.data())
@settings(deadline=None, database=None, max_examples=2000 if LONG else 50)
def test_a_bad_line_in_a_piece_is_named_as_line_by_line(ledger: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(ledger.glob("2*.jsonl"))))
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    bad = data.draw(st.integers(0, len(lines) - 1))
    lines[bad] = data.draw(mutated(lines[bad]))
    path.write_bytes(b"".join(lines))
    try:
        together = verify_ledger(ledger)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Scanner, "run", lambda *_: None)
            one_by_one = verify_ledger(ledger)
    finally:
        path.write_bytes(whole)
    assert together == one_by_one
    assert together.ok == (lines == whole.splitlines(keepends=True))


@given(counts=st.lists(st.integers(0, 40), max_size=8))
@settings(deadline=None, database=None, max_examples=60)
def test_a_tree_that_grows_by_many_is_the_one_that_grows_by_one(counts: list[int]) -> None:
    many, one = Tree(), Tree()
    for number, count in enumerate(counts):
        leaves = [sha256(b"%d %d" % (number, each)).digest() for each in range(count)]
        many.extend(leaves)
        for leaf in leaves:
            one.append(leaf)
        assert (many.size, many.root(), many._roots) == (one.size, one.root(), one._roots)
