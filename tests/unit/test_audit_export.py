"""Exports of the ledger: the lines themselves, CSV that no spreadsheet runs, and OCSF events that are valid."""

from __future__ import annotations

import csv
import io
import os
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from typer.testing import CliRunner

from cedarbox.audit import EVENTS, Entry, Ledger, Record
from cedarbox.audit.ocsf import SCHEMA_VERSION, ocsf_event
from cedarbox.audit.record import GENESIS, format_time, seal
from cedarbox.cli import app
from cedarbox.cli.audit_export import _FORMS, COLUMNS, safe_cell
from cedarbox.errors import ConfigurationError
from cedarbox.policy.actions import ACTION_GROUPS

STREAM = "20261123T000931123456Z-5f0c2a9e"

# OCSF 1.8.0: the repository ocsf/ocsf-schema at its tag 1.8.0, `events/` (with what each class extends) and `objects/`.
# Attributes whose requirement is "required", and the activities of each class beside 0 (Unknown) and 99 (Other).
_OF_ALL: Final = frozenset(
    {"activity_id", "category_uid", "class_uid", "metadata", "severity_id", "time", "type_uid"}
)  # events/base_event.json
REQUIRED: Final[Mapping[int, frozenset[str]]] = {
    0: _OF_ALL,
    1001: _OF_ALL | {"actor", "device", "file"},  # events/system/file_activity.json
    1007: _OF_ALL | {"actor", "device", "process"},  # events/system/process_activity.json
    4001: _OF_ALL,  # events/network/network_activity.json
    4003: _OF_ALL,  # events/network/dns_activity.json
    6003: _OF_ALL | {"actor", "api", "src_endpoint"},  # events/application/api_activity.json
}
ACTIVITIES: Final = {0: 0, 1001: 14, 1007: 5, 4001: 7, 4003: 6, 6003: 4}
# Of objects: what is required, and of what at least one is.
OBJECTS: Final[Mapping[str, tuple[set[str], set[str]]]] = {
    "metadata": ({"product", "version"}, set()),
    "product": (set(), {"name", "uid"}),
    "device": ({"type_id"}, {"ip", "uid", "name", "hostname", "instance_uid", "interface_uid", "interface_name"}),
    "actor": (set(), {"process", "user", "invoked_by", "session", "app_name", "app_uid"}),
    "api": ({"operation"}, set()),
    "process": (set(), {"pid", "uid", "cpid"}),
    "file": ({"name", "type_id"}, set()),
    "src_endpoint": (set(), {"ip", "uid", "name", "hostname", "svc_name", "domain"}),
    "dst_endpoint": (set(), {"ip", "uid", "name", "hostname", "svc_name", "domain"}),
    "connection_info": ({"direction_id"}, set()),
    "query": ({"hostname"}, set()),
    "trace": ({"uid"}, set()),
    "policy": (set(), {"name", "type", "uid"}),
    "user": (set(), {"account", "name", "uid"}),
}
# profiles/security_control.json and profiles/trace.json; the trace profile is registered for API Activity alone.
OF_PROFILES: Final = {
    "security_control": {"action_id", "action", "disposition_id", "disposition", "authorizations", "policy"},
    "trace": {"trace"},
}


def record_of(seq: int = 0, **fields: Any) -> Record:
    return seal(Entry(**fields), seq, format_time(1_795_000_000_123_456_789 + seq), GENESIS)[0]


def check(event: Mapping[str, Any]) -> None:
    """Hold an event to the tables above."""
    uid, activity = event["class_uid"], event["activity_id"]
    assert REQUIRED[uid] <= event.keys()
    assert (event["category_uid"], event["type_uid"]) == (uid // 1000, uid * 100 + activity)
    assert activity == 99 or 1 <= activity <= ACTIVITIES[uid]
    assert event["activity_name"]
    assert event["severity_id"] in range(7)
    assert event.get("status_id") in {None, 1, 2}
    assert event["metadata"]["version"] == SCHEMA_VERSION
    profiles = event["metadata"].get("profiles", [])
    for profile, names in OF_PROFILES.items():
        assert profile in profiles or not names & event.keys()
    assert "trace" not in profiles or uid == 6003
    stack: list[Any] = [{name: value for name, value in event.items() if name != "unmapped"}]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack += item
        if not isinstance(item, dict):
            continue
        for name, value in item.items():
            stack.append(value)
            if name in OBJECTS and isinstance(value, dict):
                needed, one_of = OBJECTS[name]
                assert needed <= value.keys()
                assert not one_of or one_of & value.keys()


RESOURCES: Final = {"network": 'Host::"a.example"', "storage": 'GuestPath::"/w/a"', "execution": 'Executable::"sh"'}


@pytest.mark.parametrize("action", [*ACTION_GROUPS, "file read", None])
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "full"])
def test_every_decision_and_outcome_is_a_valid_event(action: str | None, bare: bool) -> None:
    known: dict[str, Any] = {
        "session": "s-1", "run": "r" * 32, "trace_id": "ab" * 16, "principal": "agent", "tool": "t", "call_id": "c-1",
        "policies": ("one", "two"), "bundle": "sha256:00",
        "resource": RESOURCES.get(ACTION_GROUPS.get(action or "", "")),
        "attrs": {"summary": "port 443 tls", "reason": "said so", "exit_code": 3, "address": "10.0.0.7", "bytes_in": 4},
    }  # fmt: skip
    fields = {} if bare else known
    for more in ({"decision": "allow"}, {"decision": "deny"}, {"outcome": "ok"}, {"outcome": "error"}):
        name = "decision" if "decision" in more else "outcome"
        record = record_of(7, event=name, action=action, **fields, **more)
        event = orjson.loads(orjson.dumps(ocsf_event(STREAM, record, product_version="1")))
        check(event)
        assert event["time"] == 1_795_000_000_123
        assert event["unmapped"]["cedarbox"]["hash"] == record.hash
        assert (event["metadata"]["uid"], event["metadata"]["sequence"]) == (f"{STREAM}/7", 7)
        if name == "decision":
            assert (event["action_id"], event["disposition_id"]) == ((2, 2) if more["decision"] == "deny" else (1, 1))
            assert event["severity_id"] == (3 if more["decision"] == "deny" else 1)
        if not bare and name == "decision":
            assert [each["policy"]["uid"] for each in event["authorizations"]] == ["one", "two"]


@pytest.mark.parametrize("name", sorted(EVENTS - {"decision", "outcome"}))
def test_every_event_of_the_ledger_is_a_valid_event(name: str) -> None:
    for attrs in ({}, {"address": "10.0.0.7", "port": 443, "bytes_out": 1, "reason": "said so"}):
        check(ocsf_event(STREAM, record_of(event=name, attrs=attrs), product_version="1"))


def test_a_check_that_would_find_what_is_missing() -> None:
    event = ocsf_event(STREAM, record_of(event="decision", action="exec", decision="deny"), product_version="1")
    check(event)
    changes: list[dict[str, Any]] = [
        {"process": {}},
        {"type_uid": 1},
        {"activity_id": 6},
        {"metadata": {"version": "1.8.0"}},
    ]
    for broken in changes:
        with pytest.raises((AssertionError, KeyError)):
            check({**event, **broken})


@pytest.mark.parametrize(
    ("fields", "class_uid", "activity"),
    [
        ({"event": "decision", "action": "connect", "decision": "deny"}, 4001, 5),
        ({"event": "egress.opened", "action": "connect"}, 4001, 1),
        ({"event": "egress.closed", "action": "connect"}, 4001, 2),
        ({"event": "egress.revoked", "action": "connect"}, 4001, 3),
        ({"event": "outcome", "action": "connect", "outcome": "error"}, 4001, 4),
        ({"event": "decision", "action": "resolve", "decision": "allow"}, 4003, 1),
        ({"event": "decision", "action": "exec", "decision": "allow"}, 1007, 1),
        ({"event": "outcome", "action": "exec", "outcome": "ok"}, 1007, 2),
        ({"event": "decision", "action": "writeFile", "attrs": {"summary": "remove"}}, 1001, 4),
        ({"event": "decision", "action": "mountRead", "decision": "allow"}, 1001, 12),
        ({"event": "decision", "action": "create", "decision": "allow"}, 6003, 1),
        ({"event": "snapshot.deleted"}, 6003, 4),
        ({"event": "ledger.opened"}, 0, 99),
    ],
)
def test_records_go_to_the_class_of_what_they_are_about(fields: dict[str, Any], class_uid: int, activity: int) -> None:
    event = ocsf_event(STREAM, record_of(**fields), product_version="1")
    assert (event["class_uid"], event["activity_id"]) == (class_uid, activity)


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "'=1", '"=1', "\uff1d1", "a;=1", "a,@x", "a\n+1", "a|-1"],
)
def test_no_cell_is_a_formula(text: str) -> None:
    safe = safe_cell(text)
    assert safe.replace("'", "") == text.replace("'", "")
    for cell in (part for line in safe.splitlines() for part in line.replace("|", ";").replace(",", ";").split(";")):
        assert cell.strip(' \t\r\n"')[:1] not in {"=", "+", "-", "@", "\uff1d"}


def test_harmless_cells_stay_as_they_are() -> None:
    for text in ("", "exec", 'Host::"a.example"', "2026-11-23T00:09:31.123456789Z", "sha256:00", "a - b = c", "{}"):
        assert safe_cell(text) == text


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "ledger") as opened:
        opened.append(Entry(event="decision", action="exec", decision="deny", resource='=cmd|"/c calc"!A1'))
        opened.append(Entry(event="outcome", action="exec", outcome="ok", attrs={"summary": 'a "quoted"\nline'}))
    return tmp_path / "ledger"


def export(*arguments: object) -> tuple[int, bytes]:
    result = CliRunner().invoke(app, ["audit", "export", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout_bytes


def test_csv_has_its_columns_and_every_record_a_row(ledger: Path) -> None:
    code, out = export(ledger, "--format", "csv", "--action", "exec")
    rows = list(csv.DictReader(io.StringIO(out.decode(), newline="")))
    assert code == 0
    assert tuple(rows[0]) == COLUMNS
    assert rows[0]["resource"].startswith("'=cmd")
    assert orjson.loads(rows[1]["attrs"]) == {"summary": 'a "quoted"\nline'}


def test_a_file_appears_whole_or_not_at_all(ledger: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert export(ledger, "--format", "ocsf", "--output", path) == (0, b"")
    assert path.stat().st_mode & 0o777 == 0o600
    for line in path.read_bytes().splitlines():
        check(orjson.loads(line))
    with pytest.raises(ConfigurationError, match="cannot be written"):
        export(ledger, "--output", tmp_path / "nowhere" / "out.jsonl")
    before = set(tmp_path.iterdir())
    with pytest.raises(ConfigurationError):
        export(ledger, "--since", "never", "--output", tmp_path / "other")
    assert set(tmp_path.iterdir()) == before


def _peak(directory: Path, count: int, form: str) -> int:
    """The most memory that exporting a ledger of so many records takes, in bytes."""
    directory.mkdir()
    prev = GENESIS
    with (directory / f"{STREAM}.000000.jsonl").open("wb") as file:
        for number in range(count):
            entry = Entry(event="outcome", action="exec", outcome="ok", attrs={"summary": "x" * 100})
            record, line, _ = seal(entry, number, format_time(number), prev)
            file.write(line)
            prev = record.hash
    tracemalloc.start()
    try:
        assert export(directory, "--format", form, "--output", directory / "out")[0] == 0
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", _FORMS if os.environ.get("CEDARBOX_LONG") else ["ocsf"])
def test_a_larger_ledger_takes_no_more_memory(tmp_path: Path, form: str) -> None:
    count = 20_000 if os.environ.get("CEDARBOX_LONG") else 1_200
    small, large = _peak(tmp_path / "small", 300, form), _peak(tmp_path / "large", count, form)
    # A record takes more than a kibibyte in memory; that many would be held by whoever held them.
    assert large - small < 200 * (count - 300)
    with (tmp_path / "large" / "out").open("rb") as file:
        assert sum(1 for _ in file) >= count


@pytest.mark.parametrize("form", _FORMS)
def test_each_record_is_written_before_the_next_but_one_is_read(form: str) -> None:
    read = 0

    def records() -> Iterator[tuple[str, Record]]:
        nonlocal read
        for number in range(100):
            read += 1
            yield STREAM, record_of(number, event="outcome", outcome="ok")

    for written, _ in enumerate(_FORMS[form](records()), 1):
        assert read - written <= 1
    assert read == 100
