"""What a ledger record says, read from its exact line and from nothing else that was sent with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from cedarbox.audit.record import parse_line
from cedarbox.collector.rows import RECORD_ID
from cedarbox.collector.store import LogRow
from cedarbox.errors import LedgerError

__all__ = ["Seen", "seen"]

_TEXTS: Final = ("action", "bundle", "call_id", "outcome", "principal", "resource", "run", "session", "tool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A record as the collector has it. Everything but ``row`` is from the line.

    Attributes:
        row: What was received.
        stream: Its stream, from the id under which it was sent; empty when it has none.
        seq: Its number in the stream, from the same id.
        sound: The line is a canonical record, its hash is that of its content, and it has the number it was sent under.
        fault: What is wrong when it is not.
    """

    row: LogRow
    stream: str
    seq: int | None
    sound: bool
    fault: str
    event: str
    decision: str | None
    policies: Sequence[str]
    errors: Sequence[str]
    attrs: Mapping[str, Any]
    hash: str
    prev: str
    action: str | None
    bundle: str | None
    call_id: str | None
    outcome: str | None
    principal: str | None
    resource: str | None
    run: str | None
    session: str | None
    tool: str | None

    @property
    def reason(self) -> str | None:
        """Why it was decided so, or how it ended, where the record says it."""
        for name in ("reason", "message", "error.type"):
            if isinstance(value := self.attrs.get(name), str):
                return value
        return None

    @property
    def summary(self) -> str | None:
        """What was asked for, in a line."""
        value = self.attrs.get("summary")
        return value if isinstance(value, str) else None

    @property
    def told(self) -> str:
        """What the record of an outcome says of it, in a few words."""
        said = []
        for name, words in _TOLD:
            value = self.attrs.get(name)
            if type(value) is int and (value or name != "exit_code"):
                said.append(words.format(value))
        return ", ".join(said)

    @property
    def denied(self) -> bool:
        """Whether it is a denial, or says that something was refused, rejected, revoked, or did not go well."""
        return self.decision == "deny"

    @property
    def adverse(self) -> bool:
        """Whether it says that something was refused or cut."""
        return self.denied or self.event.rpartition(".")[2] in _ADVERSE


_TOLD: Final = (
    ("exit_code", "exit code {}"),
    ("output_bytes", "{:,} B out"),
    ("stdout_bytes", "{:,} B out"),
    ("stderr_bytes", "{:,} B to stderr"),
    ("bytes_out", "{:,} B sent"),
    ("bytes_in", "{:,} B received"),
    ("bytes", "{:,} B"),
)
_ADVERSE: Final = frozenset({"malformed", "recovered", "refused", "rejected", "revoked", "stepped"})


def seen(row: LogRow) -> Seen:
    """Read one log record. It need not be a record of a ledger."""
    stream, seq = _id(row.record_id)
    fields, fault = _fields(row, seq)
    attrs = fields.get("attrs")
    return Seen(
        row=row,
        stream=stream,
        seq=seq,
        sound=not fault,
        fault=fault,
        event=_string(fields, "event") or row.event.removeprefix("cedarbox.") or "log",
        decision=_string(fields, "decision"),
        policies=_strings(fields, "policies"),
        errors=_strings(fields, "errors"),
        attrs=attrs if isinstance(attrs, dict) else {},
        hash=_string(fields, "hash") or "",
        prev=_string(fields, "prev") or "",
        **{name: _string(fields, name) for name in _TEXTS},
    )


def _id(record_id: str | None) -> tuple[str, int | None]:
    stream, slash, number = (record_id or "").rpartition("/")
    if not slash or not number.isascii() or not number.isdecimal() or len(number) > 16:
        return record_id or "", None
    return stream, int(number)


def _fields(row: LogRow, seq: int | None) -> tuple[Mapping[str, Any], str]:
    if row.record_id is None:
        return {}, f"no ledger record: it came without {RECORD_ID}"
    try:
        fields, digest = parse_line(row.body.encode(errors="surrogatepass") + b"\n")
    except LedgerError as error:
        return _loose(row.body), f"{error.message}"
    if digest.hex() != fields["hash"]:
        return fields, "the hash of the record is not the hash of its content"
    if fields["seq"] != seq:
        return fields, f"it was sent as number {seq} and says that it is number {fields['seq']}"
    for name, sent in (
        ("event", row.event.removeprefix("cedarbox.")),
        ("trace_id", row.trace_id),
        ("span_id", row.span_id),
    ):
        if fields[name] != sent:
            return fields, f"it was sent with the {name} {sent} and says {fields[name]}"
    return fields, ""


def _loose(body: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _string(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) else None


def _strings(fields: Mapping[str, Any], name: str) -> Sequence[str]:
    value = fields.get(name)
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, (list, tuple)) else ()
