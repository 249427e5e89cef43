"""How a record reads: a verdict, what it is about, and what came of it, in words for one line.

Records hold text that a model or a guest chose. It is shown with control characters written out, so that it cannot
drive the terminal of whoever reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from rich.text import Text

from cedarbox.audit import Record
from cedarbox.text import printable

__all__ = ["STYLES", "Told", "details", "plain_line", "styled", "tell"]

STYLES: Final = {"DENY": "bold red", "CUT": "bold red", "REFUSED": "bold red", "REJECTED": "bold red"} | {
    "error": "yellow", "allow": "green", "granted": "green"
}  # fmt: skip
"""Colours beside the words, which say it all without them."""

_ENDS: Final = {"revoked": "CUT", "refused": "REFUSED", "rejected": "REJECTED"}
_FIRST: Final = (
    "reason", "mode", "summary", "approver", "request", "statement", "destination", "snapshot.name", "snapshot.parent",
    "address", "port", "bytes_out", "bytes_in", "milliseconds", "exit_code", "error.type",
)  # fmt: skip
# What a line has no room for and `show SEQ` tells.
_LEFT_OUT: Final = frozenset({"decision_seq", "statement", "snapshot.id", "snapshot.type", "snapshot.of", "isolated"})
_MAX_VALUE: Final = 160
_DIGEST: Final = 64


@dataclass(frozen=True, slots=True)
class Told:
    """A record in words.

    Attributes:
        verdict: ``allow``, ``DENY``, ``CUT``, ``REFUSED``, ``REJECTED``, an outcome, or what the event says happened.
        what: What it is about.
        facts: What else is worth a line, name and value.
        policies: The policies that determined it.
    """

    verdict: str
    what: str
    facts: tuple[str, ...]
    policies: tuple[str, ...]


def tell(record: Record) -> Told:
    """Put a record in words."""
    entry = record.entry
    kind, _, end = entry.event.partition(".")
    if entry.event == "decision":
        verdict = "DENY" if entry.decision == "deny" else "allow"
        about = ""
    elif entry.event == "outcome":
        verdict, about = entry.outcome or "", ""
    else:
        verdict, about = _ENDS.get(end, end), kind
    if (entry.action or "").startswith(about):
        about = ""
    what = " ".join(filter(None, (about, entry.action, entry.resource)))
    facts = list(_facts(entry.attrs))
    if entry.event not in {"decision", "outcome"} and entry.outcome not in {None, "ok", "refused"}:
        facts.insert(0, f"outcome {entry.outcome}")
    facts += [f"error {error}" for error in entry.errors if error != entry.attrs.get("reason")]
    return Told(verdict, printable(what), tuple(map(printable, facts)), tuple(map(printable, entry.policies)))


def plain_line(stream: str, record: Record) -> str:
    """Return one line without colours or columns, for a pipe."""
    told, entry = tell(record), record.entry
    parts = [
        record.time,
        f"{stream.rpartition('-')[2]}/{record.seq}",
        entry.event,
        told.verdict,
        told.what,
        *([f"by {', '.join(told.policies)}"] if told.policies else []),
        *told.facts,
        *(f"{name} {printable(value)}" for name in ("session", "run", "tool") if (value := getattr(entry, name))),
    ]
    return "  ".join(filter(None, parts))


def details(stream: str, record: Record) -> Iterator[tuple[str, str]]:
    """Yield all that a record holds, field by field; several lines for policies, errors and attributes."""
    entry = record.entry
    yield "stream", stream
    yield "seq", str(record.seq)
    yield "time", record.time
    for name in type(entry).__slots__:
        value = getattr(entry, name)
        if name == "attrs":
            for key, item in value.items():
                yield f"  {printable(key)}", printable(_json(item))
        elif isinstance(value, tuple):
            for item in value or ("-",):
                yield name, printable(str(item))
        else:
            yield name, "-" if value is None else printable(str(value))
    yield "prev", record.prev
    yield "hash", record.hash


def styled(text: str) -> Text:
    """Return a verdict with its colour."""
    return Text(text, STYLES.get(text, ""))


def _facts(attrs: Mapping[str, Any]) -> Iterator[str]:
    names = [name for name in _FIRST if name in attrs] + [name for name in attrs if name not in _FIRST]
    for name in names:
        value = attrs[name]
        if name in _LEFT_OUT or value in (None, "", [], {}):
            continue
        text = value if isinstance(value, str) else _json(value)
        if len(text) > _MAX_VALUE:
            text = f"{text[:_MAX_VALUE]}…"
        yield text if name in {"reason", "summary"} else f"{name.removeprefix('snapshot.')} {_short(text)}"


def _short(text: str) -> str:
    bare = text.removeprefix("sha256:")
    is_digest = len(bare) == _DIGEST and all(char in "0123456789abcdef" for char in bare)
    return f"{text[: len(text) - len(bare) + 12]}…" if is_digest else text


def _json(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
