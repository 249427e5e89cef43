"""Which records are wanted: one question for everything that shows or hands out records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final

from cedarbox.audit.record import Record, format_time
from cedarbox.errors import ConfigurationError
from cedarbox.times import duration_s

__all__ = ["Query", "moment"]

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a record has to be. What is not said is not asked; all that is said has to hold.

    Attributes:
        events: Patterns of events, of which one has to fit; ``*``, ``?`` and ``[…]`` as in file names.
        decision: ``allow`` or ``deny``.
        session: Id of a sandbox session, or its beginning.
        run: Id of a run, or its beginning.
        principal: Id of an agent.
        action: A Cedar action.
        resource: A pattern of the resource as the record writes it, such as ``Host::"*.corp.example"``. A pattern
            without quotation marks is also tried on the id inside them.
        tool: Name of a tool.
        policy: Id of a policy, one of those that determined the decision.
        since: The first time, as :func:`moment` writes it.
        until: The first time that is too late.
        stream: Id of a stream, or the part of it behind the dash, or ``index``.
        trace: A trace id.
    """

    events: tuple[str, ...] = ()
    decision: str | None = None
    session: str | None = None
    run: str | None = None
    principal: str | None = None
    action: str | None = None
    resource: str | None = None
    tool: str | None = None
    policy: str | None = None
    since: str | None = None
    until: str | None = None
    stream: str | None = None
    trace: str | None = None
    _tests: tuple[Callable[[Record], bool], ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        """Keep the tests that there are: most questions have one or two."""
        object.__setattr__(self, "_tests", tuple(self._made()))

    def of_stream(self, stream: str) -> bool:
        """Whether records of this stream are wanted at all."""
        return self.stream in {None, stream, stream.rpartition("-")[2]}

    def fits(self, record: Record) -> bool:
        """Whether a record of a stream that is wanted is wanted."""
        return all(test(record) for test in self._tests)

    def _made(self) -> list[Callable[[Record], bool]]:
        tests: list[Callable[[Record], bool]] = []
        if (since := self.since) is not None:
            tests.append(lambda record: record.time >= since)
        if (until := self.until) is not None:
            tests.append(lambda record: record.time < until)
        if events := self.events:
            tests.append(lambda record: any(fnmatchcase(record.entry.event, event) for event in events))
        exact: dict[str, str] = {
            name: value
            for name in ("decision", "principal", "action", "tool")
            if (value := getattr(self, name)) is not None
        }
        if self.trace is not None:
            exact["trace_id"] = self.trace.lower()
        tests += [_equal(name, value) for name, value in exact.items()]
        tests += [_begins(name, value) for name in ("session", "run") if (value := getattr(self, name)) is not None]
        if (policy := self.policy) is not None:
            tests.append(lambda record: policy in record.entry.policies)
        if (pattern := self.resource) is not None:
            tests.append(lambda record: _names(record.entry.resource, pattern))
        return tests


def moment(text: str, *, now_ns: int) -> str:
    """Read a time as people write it.

    Args:
        text: RFC 3339 such as ``2026-11-23T09:30:00Z``, a date alone, or how long ago, such as ``2h``.
        now_ns: The present, in nanoseconds since 1970 (UTC).

    Returns:
        The time as records hold it, see :func:`cedarbox.audit.record.format_time`.

    Raises:
        ConfigurationError: It is none of them.
    """
    seconds = duration_s(text)
    if seconds is not None:
        return format_time(max(0, now_ns - seconds * _NS))
    try:
        read = datetime.fromisoformat(text)
        exact = read if read.tzinfo is not None else read.replace(tzinfo=UTC)
        whole = int(exact.replace(microsecond=0).timestamp())
    except (ValueError, OverflowError):
        whole = -1
    # A time of day without a zone could be meant in any.
    if whole < 0 or (read.tzinfo is None and len(text) > len("2026-11-23")):
        raise ConfigurationError(f"{text!r} is not a time", hint="write it like 2026-11-23T09:30:00Z, 2026-11-23 or 2h")
    return format_time(whole * _NS + exact.microsecond * 1000)


def _equal(name: str, value: str) -> Callable[[Record], bool]:
    return lambda record: getattr(record.entry, name) == value


def _begins(name: str, value: str) -> Callable[[Record], bool]:
    return lambda record: (getattr(record.entry, name) or "").startswith(value)


def _names(resource: str | None, pattern: str) -> bool:
    if resource is None:
        return False
    if fnmatchcase(resource, pattern):
        return True
    return '"' not in pattern and fnmatchcase(resource.partition('::"')[2].removesuffix('"'), pattern)
