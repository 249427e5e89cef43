"""Records as events of the Open Cybersecurity Schema Framework, for the tools of a security operations centre.

Schema 1.8.0 (16 March 2026, tag ``1.8.0`` of the schema's repository). What a policy decided about goes to the class
of what it is about: network, DNS, process and file activity; all else that was asked for is API Activity, and what the
ledger says of itself is a Base Event. Every event carries the stream, the number and the hash of its record, so that
it can be held against the ledger, and whatever else the record has.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from cedarbox.audit.record import Record

__all__ = ["SCHEMA_VERSION", "ocsf_event"]

SCHEMA_VERSION: Final = "1.8.0"

_BASE, _FILE, _PROCESS, _NETWORK, _DNS, _API = 0, 1001, 1007, 4001, 4003, 6003
_NAMES: Final = {
    _BASE: "Base Event",
    _FILE: "File System Activity",
    _PROCESS: "Process Activity",
    _NETWORK: "Network Activity",
    _DNS: "DNS Activity",
    _API: "API Activity",
}
_OTHER: Final = 99
_FILE_OPERATIONS: Final = {
    "create": 1, "make_directory": 1, "read": 2, "list": 2, "write": 3, "remove": 4, "move": 5, "compare": 8,
}  # fmt: skip
# Activities of API Activity: 1 create, 2 read, 3 update, 4 delete.
_API_ACTIVITIES: Final = {
    "create": 1, "snapshot": 1, "fork": 1, "createAccount": 1, "resume": 3, "restore": 3, "adopt": 3,
    "setEnvironment": 3, "export": 2, "useSecret": 2,
    "sandbox.created": 1, "sandbox.resumed": 3, "sandbox.deleted": 4, "sandbox.revoked": 4,
    "snapshot.created": 1, "snapshot.forked": 1, "snapshot.restored": 3, "snapshot.refused": 3,
    "snapshot.exported": 2, "snapshot.deleted": 4,
    "approval.requested": 1, "approval.granted": 3, "approval.rejected": 3,
}  # fmt: skip
_ACTIVITY_NAMES: Final = {
    _FILE: {1: "Create", 2: "Read", 3: "Update", 4: "Delete", 5: "Rename", 8: "Get Attributes", 12: "Mount"},
    _PROCESS: {1: "Launch", 2: "Terminate"},
    _NETWORK: {1: "Open", 2: "Close", 3: "Reset", 4: "Fail", 5: "Refuse", 7: "Listen"},
    _DNS: {1: "Query"},
    _API: {1: "Create", 2: "Read", 3: "Update", 4: "Delete"},
}
_ABOUT_ITSELF: Final = ("clock.", "key.", "ledger.", "policy.", "segment.", "stream.", "tracing.")
# What went against the wishes of whoever asked, or of the ledger, is worth a look.
_MEDIUM: Final = frozenset({"ledger.recovered", "policy.rejected", "snapshot.refused", "stream.recovered"})
_BAD_ENDS: Final = frozenset({"error", "cancelled", "revoked", "refused"})


def ocsf_event(stream: str, record: Record, *, product_version: str) -> dict[str, Any]:
    """Return the event of a record.

    Args:
        stream: Its stream.
        record: The record.
        product_version: Version of cedarbox.

    Returns:
        Plain values, ready to be written as JSON. ``time`` is in milliseconds since 1970 (UTC), as OCSF has it; the
        record's own time, which is finer, is ``metadata.original_time``.
    """
    entry = record.entry
    class_uid = _class_of(record)
    activity = _activity_of(class_uid, record)
    denied = entry.decision == "deny" or entry.event.endswith((".revoked", ".refused", ".rejected"))
    uid = f"{stream}/{record.seq}"
    event: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": _ACTIVITY_NAMES.get(class_uid, {}).get(activity, entry.action or entry.event),
        "category_uid": class_uid // 1000,
        "class_uid": class_uid,
        "class_name": _NAMES[class_uid],
        "type_uid": class_uid * 100 + activity,
        "severity_id": 3 if denied or entry.event in _MEDIUM else 1,
        "time": _milliseconds(record.time),
        "message": " ".join(filter(None, (entry.event, entry.decision, entry.action, entry.resource, entry.outcome))),
        "metadata": {
            "version": SCHEMA_VERSION,
            "product": {"name": "cedarbox", "version": product_version},
            "uid": uid,
            "sequence": record.seq,
            "original_time": record.time,
            "log_name": stream,
            "event_code": entry.event,
        },
        "unmapped": _unmapped(stream, record),
    }
    if (correlation := entry.run or entry.trace_id) is not None:
        event["metadata"]["correlation_uid"] = correlation
    if entry.outcome is not None or denied:
        failed = denied or entry.outcome in _BAD_ENDS
        event |= {"status_id": 2 if failed else 1, "status": "Failure" if failed else "Success"}
        if isinstance(reason := entry.attrs.get("reason"), str):
            event["status_detail"] = reason
    profiles = []
    if entry.decision is not None or denied:
        event |= _controlled(record, denied=denied)
        profiles.append("security_control")
    event |= _PARTS[class_uid](uid, record)
    if class_uid == _API and entry.trace_id is not None:
        event["trace"] = {"uid": entry.trace_id}
        profiles.append("trace")
    if profiles:
        event["metadata"]["profiles"] = profiles
    return event


def _class_of(record: Record) -> int:
    entry = record.entry
    if entry.event.startswith(_ABOUT_ITSELF):
        return _BASE
    if entry.event.startswith("egress."):
        return _NETWORK
    if entry.event.startswith(("sandbox.", "snapshot.", "approval.")):
        return _API
    return _CLASSES.get(entry.action or "", _API)


_CLASSES: Final = {
    "connect": _NETWORK,
    "connectAnywhere": _NETWORK,
    "exposePort": _NETWORK,
    "resolve": _DNS,
    "exec": _PROCESS,
    "openTerminal": _PROCESS,
    "writeTerminal": _PROCESS,
    "readFile": _FILE,
    "writeFile": _FILE,
    "mountRead": _FILE,
    "mountWrite": _FILE,
}


def _activity_of(class_uid: int, record: Record) -> int:
    activities: dict[int, Callable[[Record], int]] = {
        _NETWORK: _network_activity,
        _DNS: lambda record: 1,
        _PROCESS: _process_activity,
        _FILE: _file_activity,
        _API: lambda record: _API_ACTIVITIES.get(record.entry.event, _API_ACTIVITIES.get(record.entry.action or "", 0)),
    }
    find = activities.get(class_uid)
    return (find(record) if find is not None else 0) or _OTHER


def _network_activity(record: Record) -> int:
    entry = record.entry
    ways = {"egress.opened": 1, "egress.closed": 2, "egress.revoked": 3, "operation.revoked": 3}
    if entry.event in ways:
        return ways[entry.event]
    if entry.decision == "deny" or entry.outcome in _BAD_ENDS:
        return 5 if entry.decision == "deny" else 4
    if entry.action == "exposePort":
        return 7
    return 2 if entry.event == "outcome" else 1


def _process_activity(record: Record) -> int:
    if record.entry.action == "writeTerminal":
        return _OTHER
    return 2 if record.entry.event == "outcome" or record.entry.event.endswith(".revoked") else 1


def _file_activity(record: Record) -> int:
    action = record.entry.action or ""
    if action.startswith("mount"):
        return 12
    return _FILE_OPERATIONS.get(str(record.entry.attrs.get("summary", "")), 2 if action == "readFile" else 3)


def _controlled(record: Record, *, denied: bool) -> dict[str, Any]:
    """The profile ``security_control``."""
    entry = record.entry
    policies = [{"name": policy, "uid": policy} for policy in entry.policies]
    decision = entry.decision or ("deny" if denied else "allow")
    revoked = entry.event.endswith(".revoked")
    # In shadow mode a denial is recorded as one, and what was asked happens all the same.
    through = entry.attrs.get("mode") == "shadow" or not denied
    what: dict[str, Any] = {
        "action_id": 1 if through else 2,
        "action": "Allowed" if through else "Denied",
        "disposition_id": 24 if revoked else 1 if through else 2,
        "disposition": "Access Revoked" if revoked else "Allowed" if through else "Blocked",
    }
    if policies:
        what["authorizations"] = [{"decision": decision, "policy": policy} for policy in policies]
    if entry.bundle is not None:
        what["policy"] = {"name": "policy bundle", "uid": entry.bundle}
    return what


def _actor(record: Record) -> dict[str, Any]:
    entry = record.entry
    actor: dict[str, Any] = {"app_name": entry.tool or "cedarbox"}
    if entry.principal is not None:
        actor["user"] = {"name": entry.principal, "uid": entry.principal}
    if entry.session is not None:
        actor["session"] = {"uid": entry.session}
    return actor


def _device(record: Record) -> dict[str, Any]:
    # 6 is a virtual machine.
    return {"type_id": 6, "type": "Virtual", "name": "sandbox", **_session(record)}


def _session(record: Record) -> dict[str, Any]:
    return {} if record.entry.session is None else {"uid": record.entry.session}


def _of_file(uid: str, record: Record) -> dict[str, Any]:
    path = _id_of(record.entry.resource)
    is_mount = (record.entry.action or "").startswith("mount")
    file = {"name": posixpath.basename(path) or path or "unknown", "path": path, "type_id": 2 if is_mount else 0}
    return {"actor": _actor(record), "device": _device(record), "file": file}


def _of_process(uid: str, record: Record) -> dict[str, Any]:
    entry, attrs = record.entry, record.entry.attrs
    process: dict[str, Any] = {"uid": entry.call_id or uid}
    if entry.action in {"exec", "openTerminal"}:
        process["name"] = _id_of(entry.resource)
    if isinstance(summary := attrs.get("summary"), str) and entry.action != "writeTerminal":
        process["cmd_line"] = summary
    found: dict[str, Any] = {"actor": _actor(record), "device": _device(record), "process": process}
    if type(code := attrs.get("exit_code")) is int:
        found["exit_code"] = code
    return found


def _of_network(uid: str, record: Record) -> dict[str, Any]:
    attrs = record.entry.attrs
    inbound = record.entry.action == "exposePort"
    direction = {"direction_id": 1, "direction": "Inbound"} if inbound else {"direction_id": 2, "direction": "Outbound"}
    found: dict[str, Any] = {
        "connection_info": {**direction, "protocol_num": 6, "protocol_name": "tcp"},
        "src_endpoint": {"name": "sandbox", **_session(record)},
        "dst_endpoint": _destination(record),
    }
    traffic = {name: attrs[name] for name in ("bytes_in", "bytes_out") if type(attrs.get(name)) is int}
    if traffic:
        found["traffic"] = traffic
    return found


def _destination(record: Record) -> dict[str, Any]:
    kind, name = _kind_of(record.entry.resource), _id_of(record.entry.resource)
    attrs = record.entry.attrs
    if kind == "Port":
        return {"name": "sandbox", **({"port": int(name)} if name.isdecimal() and len(name) <= 5 else {})}
    found: dict[str, Any] = {"name": "any address"} if kind == "Backend" else {}
    if kind == "Address":
        found["ip"] = name
    elif kind == "Host":
        found["hostname"] = name
    if isinstance(address := attrs.get("address"), str):
        found["ip"] = address
    if type(port := attrs.get("port")) is int:
        found["port"] = port
    else:
        words = str(attrs.get("summary", "")).split()
        if words[:1] == ["port"] and words[1:2] and words[1].isdecimal():
            found["port"] = int(words[1])
    return found or {"name": name or "unknown"}


def _of_dns(uid: str, record: Record) -> dict[str, Any]:
    return {
        "query": {"hostname": _id_of(record.entry.resource) or "."},
        "src_endpoint": {"name": "sandbox", **_session(record)},
    }


def _of_api(uid: str, record: Record) -> dict[str, Any]:
    entry = record.entry
    found: dict[str, Any] = {
        "actor": _actor(record),
        "api": {"operation": entry.action or entry.event, "service": {"name": "cedarbox"}},
        "src_endpoint": {"name": "sandbox" if entry.session is not None else "cedarbox", **_session(record)},
    }
    if entry.resource is not None:
        name, kind = _id_of(entry.resource), _kind_of(entry.resource)
        found["resources"] = [{"name": name or entry.resource, "uid": entry.resource, "type": kind or "unknown"}]
    return found


def _of_base(uid: str, record: Record) -> dict[str, Any]:
    return {}


_PARTS: Final = {
    _BASE: _of_base,
    _FILE: _of_file,
    _PROCESS: _of_process,
    _NETWORK: _of_network,
    _DNS: _of_dns,
    _API: _of_api,
}


def _unmapped(stream: str, record: Record) -> dict[str, Any]:
    entry = record.entry
    fields: Mapping[str, Any] = {
        "stream": stream,
        "seq": record.seq,
        "hash": record.hash,
        "prev": record.prev,
        **{name: getattr(entry, name) for name in type(entry).__slots__},
    }
    return {"cedarbox": {name: value for name, value in fields.items() if value not in (None, (), {})}}


def _milliseconds(time: str) -> int:
    whole = datetime.fromisoformat(time[:19]).replace(tzinfo=UTC)
    return int(whole.timestamp()) * 1000 + int(time[20:23])


def _kind_of(resource: str | None) -> str:
    return (resource or "").partition('::"')[0].rpartition("::")[2]


def _id_of(resource: str | None) -> str:
    """The id of a Cedar entity, as the record writes it."""
    kind, found, rest = (resource or "").partition('::"')
    return rest.removesuffix('"') if found else kind
