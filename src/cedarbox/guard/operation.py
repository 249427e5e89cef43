"""An operation while it runs: what its outcome record and its span will say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from opentelemetry.trace import SpanContext

from cedarbox.audit import JsonValue, Record
from cedarbox.telemetry import attributes
from cedarbox.telemetry.metrics import Metrics
from cedarbox.telemetry.spans import OperationSpan, Telemetry

__all__ = ["NOWHERE", "Captures", "Home", "Operation", "Watch", "link_snapshots", "timed"]


class Operation:
    """An operation that was allowed, while it runs: collects what its outcome record will say."""

    def __init__(self, span: OperationSpan, decision: Record | None, session: str | None) -> None:
        self.span, self.decision, self.session = span, decision, session
        self.outcome = "ok"
        self.facts: dict[str, JsonValue] = {}

    def set(self, name: str, value: str | int | bool) -> None:
        """Add a fact to the outcome record and the span: a size, an exit code, a digest; never content."""
        self.facts[name] = value
        if name in attributes.FACTS:
            self.span.set(attributes.FACTS[name], value)

    def tell(self, facts: Mapping[str, JsonValue]) -> None:
        """Add several facts; a list or nothing at all goes into the record only."""
        for name, value in facts.items():
            if isinstance(value, str | int):
                self.set(name, value)
            else:
                self.facts[name] = value

    def failed(self, error: BaseException) -> None:
        """Note how the act ended when it did not succeed."""
        cancelled = isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt))
        self.outcome = "cancelled" if cancelled else "error"
        self.facts["error.type"] = type(error).__name__


class Watch:
    """An operation whose time is taken, and how it ended."""

    def __init__(self) -> None:
        self.operation: Operation | None = None
        self.outcome = "ok"


@dataclass(frozen=True, slots=True)
class Home:
    """Where a sandbox was made or taken up.

    Attributes:
        span: The span that was current then.
        run: The guarded run, if there was one.
    """

    span: SpanContext | None
    run: str | None


@dataclass(frozen=True, slots=True)
class Captures:
    """What was decided about content.

    Attributes:
        known: Whether it may be captured, by digest of the bundle, run or session, and kind.
        asking: Locks of what is being decided; they come and go.
    """

    known: dict[tuple[str, str, str], bool] = field(default_factory=dict)
    asking: dict[tuple[str, str, str, int], asyncio.Lock] = field(default_factory=dict)


NOWHERE: Final = Home(None, None)
"""The home of what belongs to no session."""


@contextmanager
def timed(metrics: Metrics, verb: str) -> Iterator[Watch]:
    """Count the operation that the block is, by what its watch says of its end."""
    watch, begun = Watch(), time.perf_counter()
    try:
        yield watch
    finally:
        outcome = watch.operation.outcome if watch.operation is not None else watch.outcome
        metrics.operated(verb, outcome, time.perf_counter() - begun)


def link_snapshots(telemetry: Telemetry, event: str, operation: Operation) -> None:
    """Have what goes back to a snapshot point to the span in which it was made, where that was in this process.

    Args:
        telemetry: Remembers the spans.
        event: The event that is about to be recorded.
        operation: What it is the record of; its facts name the snapshots.
    """
    if not event.startswith("snapshot."):
        return
    made = operation.facts.get("snapshot.id")
    past = operation.facts.get("snapshot.from", made if event == "snapshot.restored" else None)
    operation.span.link(telemetry.marked(f"snapshot/{past}"))
    if event in {"snapshot.created", "snapshot.forked"}:
        telemetry.mark(f"snapshot/{made}", operation.span)
