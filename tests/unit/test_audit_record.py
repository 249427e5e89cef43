"""The form of a record: canonical, complete, strict."""

from __future__ import annotations

import json
from enum import StrEnum
from hashlib import sha256
from typing import Any, cast

import orjson
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from cedarbox.audit.clock import Clock
from cedarbox.audit.events import EVENTS
from cedarbox.audit.merkle import Tree
from cedarbox.audit.record import GENESIS, Entry, JsonValue, Record, format_time, seal
from cedarbox.errors import LedgerError

TIME = "2026-11-23T00:09:31.123456789Z"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.text(st.characters(exclude_categories=["Cs"], max_codepoint=0xFFFF))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ENTRIES = st.builds(
    Entry,
    event=st.sampled_from(sorted(EVENTS)),
    session=st.none() | TEXTS,
    trace_id=st.none() | st.text("0123456789abcdef", min_size=32, max_size=32),
    span_id=st.none() | st.text("0123456789abcdef", min_size=16, max_size=16),
    resource=st.none() | TEXTS,
    decision=st.sampled_from(["allow", "deny", None]),
    policies=st.lists(TEXTS, max_size=3).map(tuple),
    errors=st.lists(TEXTS, max_size=3).map(tuple),
    attrs=st.dictionaries(KEYS, VALUES, max_size=5),
)


def line_of(**changes: Any) -> bytes:
    """Write a well-formed line whose fields may be wrong; its hash is right for what it says."""
    fields = orjson.loads(seal(Entry(event="decision"), 3, TIME, GENESIS)[1]) | changes
    del fields["hash"]
    fields["hash"] = sha256(b"\x00" + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) + b"\n"


@given(ENTRIES, st.integers(0, 2**53 - 1))
def test_a_line_is_rfc_8785_and_its_hash_is_the_rfc_6962_leaf(entry: Entry, seq: int) -> None:
    record, line, digest = seal(entry, seq, TIME, GENESIS)
    fields = json.loads(line)
    assert line == rfc8785.dumps(fields) + b"\n"
    assert fields.pop("hash") == digest.hex() == record.hash
    assert digest == sha256(b"\x00" + rfc8785.dumps(fields)).digest()
    assert record.to_line() == line
    assert Record.from_line(line) == record


def test_every_key_is_always_there() -> None:
    assert sorted(json.loads(seal(Entry(event="outcome"), 0, TIME, GENESIS)[1])) == [
        *("action", "attrs", "bundle", "call_id", "decision", "errors", "event", "hash", "outcome", "policies", "prev"),
        *("principal", "resource", "run", "seq", "session", "span_id", "time", "tool", "trace_id"),
    ]


@pytest.mark.parametrize(
    "attrs",
    [
        {"a": 1.0},
        {"a": [1, {"b": float("nan")}]},
        {"a": 2**53},
        {"a": -(2**53)},
        {"\U0001f600": 1},
        {"a": {"\ud800": 1}},
        {"a": "\udcff"},
        {"a": b"bytes"},
        {"a": {1, 2}},
        {1: "a"},
        [("a", 1)],
    ],
)
def test_attrs_that_have_no_canonical_form_are_refused(attrs: object) -> None:
    with pytest.raises(LedgerError):
        Entry(event="decision", attrs=cast("dict[str, JsonValue]", attrs))


def test_attrs_that_are_too_deep_are_refused() -> None:
    value: JsonValue = 1
    for _ in range(40):
        value = [value]
    with pytest.raises(LedgerError, match="levels deep"):
        Entry(event="decision", attrs={"a": value})


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "decided"},
        {"event": "decision", "trace_id": "A" * 32},
        {"event": "decision", "trace_id": "0" * 31},
        {"event": "decision", "span_id": "0" * 17},
        {"event": "decision", "decision": "maybe"},
        {"event": "decision", "decision": ["allow"]},
        {"event": "decision", "policies": "policy0"},
        {"event": "decision", "policies": (1,)},
        {"event": "decision", "session": 7},
        {"event": "decision", "resource": "\ud800"},
        {"event": None},
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(LedgerError):
        Entry(**fields)


def test_an_entry_keeps_no_hold_on_what_the_caller_gave() -> None:
    inner = ["a"]
    attrs: dict[str, JsonValue] = {"list": inner}
    entry = Entry(event="decision", attrs=attrs)
    inner.append("b")
    attrs["more"] = 1
    assert entry.attrs == {"list": ("a",)}


def test_enums_are_written_by_value() -> None:
    class Mode(StrEnum):
        BROKER = "broker"

    assert (
        b'"attrs":{"mode":"broker"}' in seal(Entry(event="decision", attrs={"mode": Mode.BROKER}), 0, TIME, GENESIS)[1]
    )


def test_a_line_made_well_is_read() -> None:
    assert Record.from_line(line_of(session="s")).entry.session == "s"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"{}\n",
        b"[]\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        line_of()[:-1],
        line_of() + b"\n",
        b" " + line_of(),
        line_of().replace(b'"seq":3', b'"seq":3.0'),
        line_of().replace(b'"seq":3', b'"seq":3,"seq":3'),
        line_of(extra=1),
        line_of(seq=-1),
        line_of(seq=True),
        line_of(seq="3"),
        line_of(prev="0"),
        line_of(prev=None),
        line_of(time="2026-11-23T00:09:31Z"),
        line_of(time="2026-13-23T00:09:31.123456789Z"),
        line_of(time=5),
        line_of(event="x"),
        line_of(attrs=[]),
        line_of(attrs={"a": 1.5}),
        line_of(decision="yes"),
        line_of(policies=None),
        line_of(trace_id="x"),
        line_of(session="a").replace(b'"session":"a"', b'"session":"b"'),
    ],
)
def test_a_line_that_is_not_exactly_a_record_is_refused(line: bytes) -> None:
    with pytest.raises(LedgerError):
        Record.from_line(line)


def test_a_line_that_is_not_canonical_is_refused_even_with_a_hash_that_fits() -> None:
    line = line_of()
    text = line[:-1].replace(b'"seq":3', b'"seq": 3')
    cut = text.index(b',"hash":"')
    digest = sha256(b"\x00" + text[:cut] + text[cut + 74 :]).hexdigest().encode()
    with pytest.raises(LedgerError, match="canonical"):
        Record.from_line(text[:cut] + b',"hash":"' + digest + b'"' + text[cut + 74 :] + b"\n")


@given(st.binary(max_size=200))
def test_hostile_bytes_give_a_ledger_error(data: bytes) -> None:
    with pytest.raises(LedgerError):
        Record.from_line(data + b"\n")


def test_a_key_that_looks_like_the_hash_does_not_fool_the_reader() -> None:
    entry = Entry(event="decision", attrs={"a": 1, "hash": "0" * 64, "z": ',"hash":"' + "1" * 64})
    record, line, _ = seal(entry, 0, TIME, GENESIS)
    assert Record.from_line(line) == record


def test_times_are_written_with_nine_digits() -> None:
    assert format_time(1_795_392_571_000_000_007) == "2026-11-23T00:09:31.000000007Z"


@given(st.lists(st.binary(max_size=8), max_size=40))
def test_the_tree_head_is_that_of_rfc_6962(leaves: list[bytes]) -> None:
    def mth(part: list[bytes]) -> bytes:
        if len(part) < 2:
            return part[0] if part else sha256().digest()
        k = 1 << ((len(part) - 1).bit_length() - 1)
        return sha256(b"\x01" + mth(part[:k]) + mth(part[k:])).digest()

    hashes = [sha256(b"\x00" + leaf).digest() for leaf in leaves]
    tree = Tree()
    for digest in hashes:
        tree.append(digest)
    assert tree.size == len(leaves)
    assert tree.root() == mth(hashes)


def test_the_clock_goes_on_after_a_step_back_and_says_so() -> None:
    second = 1_000_000_000
    walls = iter([1000 * second, 1001 * second, 401 * second, 402 * second, 1003 * second])
    steadies = iter(range(5 * second, 100 * second, second))
    clock = Clock(lambda: next(walls), lambda: next(steadies))
    assert clock.now() == (1001 * second, None)
    time, step = clock.now()
    assert time == 1002 * second
    assert step is not None
    assert (step.by_ns, step.wall_ns, step.offset_ns) == (-601 * second, 401 * second, 601 * second)
    assert clock.now() == (1003 * second, None)
    time, step = clock.now()
    assert (time, step and step.offset_ns) == (1003 * second, 0)
    assert step is not None
    assert step.by_ns == 600 * second


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 10**10)), min_size=1, max_size=30))
def test_time_never_goes_back(readings: list[tuple[int, int]]) -> None:
    walls = iter([0, *(wall for wall, _ in readings)])
    total, steady = 0, [0]
    for _, passed in readings:
        total += passed
        steady.append(total)
    steadies = iter(steady)
    clock = Clock(lambda: next(walls), lambda: next(steadies))
    times = [clock.now()[0] for _ in readings]
    assert times == sorted(times)
