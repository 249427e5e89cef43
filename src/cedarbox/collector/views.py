"""What the queries of the store give. Every time is in nanoseconds since 1970 UTC; all texts came over the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

__all__ = [
    "Connection",
    "Counts",
    "Dropped",
    "LogRow",
    "Page",
    "Point",
    "RecordFilter",
    "Run",
    "Series",
    "SpanRow",
    "StreamState",
]

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[_Row]):
    """A part of a long answer.

    Attributes:
        rows: Newest first.
        next: Cursor of the part that follows (older rows); None at the end.
    """

    rows: list[_Row]
    next: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One trace in short.

    Attributes:
        name: Name of its root span; of its earliest span while no root has arrived; empty when there are only logs.
        logs: Log records that name the trace.
        denials: Decisions among them that deny.
    """

    trace_id: str
    name: str
    start_ns: int
    end_ns: int
    spans: int
    errors: int
    logs: int
    denials: int = 0


@dataclass(frozen=True, slots=True)
class SpanRow:
    """One span; status is OTLP's: 0 unset, 1 ok, 2 error.

    Attributes:
        events: Each with ``time_ns``, ``name`` and ``attributes``.
        links: Each with ``trace_id``, ``span_id`` and ``attributes``.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: int
    start_ns: int
    end_ns: int
    status: int
    message: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]] = ()
    links: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class LogRow:
    """One log record. A ledger record has a ``record_id``; its exact line is the body.

    Attributes:
        conflict: Another record with the same id but another body was received: one of the two is not the ledger's.
        line: The fields of the line when the body is a line of the ledger, else empty. Nothing of it is verified here.
        id: Number of the record in this store.
        ledger: Id of the ledger that the sender named; empty when it named none.
        stream: Stream of a ledger record or of a checkpoint.
        seq: Place in the stream; of a checkpoint its size.
    """

    record_id: str | None
    time_ns: int
    event: str
    severity: int
    trace_id: str | None
    span_id: str | None
    body: str
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    conflict: bool
    line: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    ledger: str = ""
    stream: str | None = None
    seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which log records to give; every test that is set must be met.

    Args:
        family: Part of the ledger's event before its dot: ``decision``, ``outcome``, ``egress``, ``snapshot``,
            ``approval``, ``ledger``, ``stream``, ``policy``, ``sandbox``, ``checkpoint`` and so on.
        event: Event of the ledger such as ``egress.opened``, or the event name of a log record such as
            ``cedarbox.egress.opened``.
        action: Cedar action.
        decision: ``allow`` or ``deny``.
        session: Id of the sandbox session.
        principal: Cedar entity.
        run: Id of the agent run, as in the ledger.
        trace_id: 32 hexadecimal digits.
        tool: Name of the tool.
        policy: Id of a policy that determined the decision.
        stream: Stream of the ledger.
        ledger: Id of the ledger.
        resource: Part of the resource, letters of any case.
        text: Part of the whole line, letters of any case (ASCII).
        since_ns: Earliest time.
        until_ns: Latest time.
        conflicts: Only records whose id was received with more than one body.
    """

    family: str | None = None
    event: str | None = None
    action: str | None = None
    decision: str | None = None
    session: str | None = None
    principal: str | None = None
    run: str | None = None
    trace_id: str | None = None
    tool: str | None = None
    policy: str | None = None
    stream: str | None = None
    ledger: str | None = None
    resource: str | None = None
    text: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None
    conflicts: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection of a sandbox to the outside: what opened it and what became of it.

    Attributes:
        stream: Stream of its records.
        decision_seq: Sequence number of the decision that admitted it.
        opened_ns: None when no ``egress.opened`` was received, as when the dial failed.
        closed_ns: None while it is open, or when its end was not received.
        revoked: A change of the policies cut it.
        bytes_out: From the sandbox; None while unknown.
        bytes_in: To the sandbox; None while unknown.
        facts: The ``attrs`` of the latest of its records.
    """

    ledger: str
    stream: str
    decision_seq: int
    opened_ns: int | None
    closed_ns: int | None
    revoked: bool
    session: str | None
    principal: str | None
    trace_id: str | None
    action: str | None
    resource: str | None
    outcome: str | None
    policies: tuple[str, ...]
    bytes_out: int | None
    bytes_in: int | None
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream of a ledger, as far as it has arrived.

    Attributes:
        records: How many of its records arrived, dropped ones included.
        last_seq: Highest sequence number that arrived; -1 when only checkpoints did.
        gaps: First and last of each run of sequence numbers that are missing: lost, or not yet arrived. When a
            checkpoint covers more than arrived, the last one reaches to its end.
        checkpoint: Size that the latest checkpoint covers; None without one.
        last_event: Event of the last record; ``ledger.closed`` when the stream was ended in order.
        last_ns: Time of the last record.
        conflicts: Records of it whose id was received with more than one body.
    """

    ledger: str
    stream: str
    records: int
    last_seq: int
    gaps: tuple[tuple[int, int], ...]
    checkpoint: int | None
    last_event: str | None
    last_ns: int | None
    conflicts: int


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a metric.

    Attributes:
        kind: ``gauge``, ``sum``, ``histogram``, ``exponential_histogram`` or ``summary``.
        temporality: OTLP's: 0 unspecified, 1 delta, 2 cumulative.
        monotonic: A sum that only grows.
    """

    id: int
    name: str
    kind: str
    unit: str
    description: str
    temporality: int
    monotonic: bool
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a series.

    Attributes:
        value: Of a gauge or a sum its value, of the others the sum of what was measured; None when unknown.
        count: How many measurements; None of a gauge or a sum.
        detail: ``bounds`` and ``counts`` of a histogram; ``scale``, ``zero_count``, ``zero_threshold``, ``positive``
            and ``negative`` (``offset``, ``counts``) of an exponential one; ``quantiles`` (pairs) of a summary; ``min``
            and ``max`` when known.
    """

    time_ns: int
    start_ns: int
    value: float | None
    count: int | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention took away, added up by kind and reason.

    Attributes:
        what: ``spans``, ``points``, ``logs``, ``records`` (of a ledger) or ``checkpoints``.
        reason: ``age`` or ``size``.
        last_ns: When it last happened.
        oldest_ns: Earliest arrival of what was dropped.
        newest_ns: Latest arrival of what was dropped.
    """

    what: str
    reason: str
    rows: int
    last_ns: int
    oldest_ns: int
    newest_ns: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the store holds. Sizes are bytes.

    Attributes:
        logs: Log records of all kinds, those of ledgers included.
        records: Records of ledgers.
        file_bytes: The file with its write-ahead log, on disk.
        free_bytes: Part of the file that holds nothing.
    """

    runs: int
    spans: int
    logs: int
    records: int
    checkpoints: int
    decisions: int
    denials: int
    conflicts: int
    series: int
    points: int
    file_bytes: int
    free_bytes: int
