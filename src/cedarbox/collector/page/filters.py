"""What the reader asked for, read strictly: every value is bounded, and one that cannot be used is said to be so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

from cedarbox.collector.views import RecordFilter

__all__ = ["Filters", "url"]

MAX_VALUE: Final = 200
"""Longest value of a filter, in characters."""

_SECOND: Final = 1_000_000_000
_TIME: Final = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?)?(?: ?(?:Z|UTC))?", re.ASCII
).fullmatch
_TRACE: Final = re.compile(r"[0-9a-fA-F]{32}").fullmatch
_MOMENTS: Final = ("since", "until")
_CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "decision": ("", "allow", "deny"),
    "kind": ("", "all"),
    "with": ("", "denials", "errors"),
}


@dataclass(frozen=True, slots=True)
class Filters:
    """The filters of a page.

    Attributes:
        given: What was asked for, by name; empty for what was not.
        errors: Why one cannot be used, by name.
        moments: Of ``since`` and ``until``, in nanoseconds since 1970 UTC.
        used: Whether any is set.
    """

    given: Mapping[str, str]
    errors: Mapping[str, str] = field(default_factory=dict)
    moments: Mapping[str, int] = field(default_factory=dict)
    used: bool = False

    @classmethod
    def read(cls, query: Mapping[str, str], names: Sequence[str], **defaults: str) -> Filters:
        """Read the filters of a request.

        Args:
            query: Its parameters; others than the named are left alone.
            names: The filters that the page has.
            defaults: What counts where a parameter is missing.
        """
        given, errors, moments = {}, {}, {}
        for name in names:
            value = query.get(name, defaults.get(name, "")).strip()
            if len(value) > MAX_VALUE:
                errors[name] = f"longer than {MAX_VALUE} characters"
                value = value[:MAX_VALUE]
            elif name in _CHOICES and value not in _CHOICES[name]:
                errors[name] = "choose one of the list"
            elif name in _MOMENTS and value:
                found = _moment(value, last=name == "until")
                if found is None:
                    errors[name] = "write it as 2026-01-31 12:00"
                else:
                    moments[name] = found
            given[name] = value
        if moments.keys() >= {"since", "until"} and moments["since"] > moments["until"]:
            errors["until"] = "it is before the beginning"
        used = any(value != defaults.get(name, "") for name, value in given.items())
        return cls(given, errors, moments, used)

    def records(self, **fixed: Any) -> RecordFilter:
        """Return the filter of records that they make.

        Args:
            fixed: Fields of the filter that the page sets.
        """
        wanted: dict[str, Any] = {
            name: self.given[name]
            for name in ("action", "decision", "event", "policy", "principal", "resource", "session")
            if self.given.get(name)
        }
        run = self.given.get("run", "")
        if run:
            wanted["trace_id" if _TRACE(run) else "run"] = run.lower() if _TRACE(run) else run
        moments = {f"{name}_ns": value for name, value in self.moments.items()}
        return RecordFilter(**{**wanted, **moments, **fixed})


def url(path: str, **query: object) -> str:
    """Return a path with a query; None and empty values are left out, but an empty ``event``, which means any."""
    kept = {name: str(value) for name, value in query.items() if value or (name == "event" and value == "")}
    return f"{path}?{urlencode(kept)}" if kept else path


def _moment(text: str, *, last: bool) -> int | None:
    """Return a moment; the last one of a day, a minute or a second that is named without more."""
    match = _TIME(text)
    if match is None:
        return None
    day, clock, second, fraction = match.groups()
    try:
        start = datetime.fromisoformat(f"{day}T{clock or '00:00'}:{second or '00'}").replace(tzinfo=UTC)
    except ValueError:
        return None
    nanoseconds = int(start.timestamp()) * _SECOND + int((fraction or "").ljust(9, "0"))
    if nanoseconds < 0:
        return None
    if not last or fraction:
        return nanoseconds
    length = 86_400 if clock is None else 60 if second is None else 1
    return nanoseconds + length * _SECOND - 1
