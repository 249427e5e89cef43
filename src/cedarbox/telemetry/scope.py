"""Which span is current, which run it belongs to, and which ids the next one gets."""

from __future__ import annotations

import contextvars
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator

from cedarbox.telemetry.attributes import CEDARBOX_SDK_SPAN

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span, SpanContext

__all__ = [
    "WantedIds",
    "ambient",
    "current_context",
    "current_run_id",
    "enter",
    "in_run",
    "leave",
    "tell_mirror",
    "under",
]

_RUN: contextvars.ContextVar[str | None] = contextvars.ContextVar("cedarbox_run_id", default=None)


@contextmanager
def in_run(run_id: str) -> Iterator[None]:
    """Say that spans that start inside this block, and in tasks started in it, belong to a guarded run."""
    token = _RUN.set(run_id)
    try:
        yield
    finally:
        with suppress(ValueError):
            _RUN.reset(token)


def current_run_id() -> str | None:
    """Return the id of the guarded run in whose context this runs, if any."""
    return _RUN.get()


@contextmanager
def under(parent: SpanContext | None) -> Iterator[None]:
    """Make spans that start inside this block children of a span that may have ended; None changes nothing."""
    token = None
    if parent is not None and parent.is_valid:
        token = otel_context.attach(otel_trace.set_span_in_context(otel_trace.NonRecordingSpan(parent)))
    try:
        yield
    finally:
        if token is not None:
            leave(token)


def current_context() -> SpanContext | None:
    """Return the ids of the current span; None when there is none."""
    context = otel_trace.get_current_span().get_span_context()
    return context if context.is_valid else None


def tell_mirror(kind: str, attributes: Mapping[str, str]) -> bool:
    """Add to the current span what its SDK span does not know, if it mirrors one of a kind.

    Args:
        kind: The kind of SDK span, such as ``function``.
        attributes: By names of `cedarbox.telemetry.attributes`.

    Returns:
        Whether the current span mirrors one of that kind.
    """
    current = otel_trace.get_current_span()
    if (getattr(current, "attributes", None) or {}).get(CEDARBOX_SDK_SPAN) != kind:
        return False
    current.set_attributes(dict(attributes))
    return True


def enter(span: Span) -> Token[Context]:
    """Make a span current in this context."""
    return otel_context.attach(otel_trace.set_span_in_context(span))


def leave(token: Token[Context]) -> None:
    """Undo `enter`. In another context than that of `enter` there is nothing to undo."""
    # An abandoned async generator is closed from whatever task comes by; a token is valid in its own context only.
    with suppress(ValueError, RuntimeError):
        token.var.reset(token)


def ambient(home: SpanContext | None = None) -> Context:
    """Return the current context; where it has no span, or one that has ended and was left behind, that of ``home``."""
    current = otel_trace.get_current_span()
    if current.get_span_context().is_valid and getattr(current, "end_time", None) is None:
        return otel_context.get_current()
    return Context() if home is None else otel_trace.set_span_in_context(otel_trace.NonRecordingSpan(home), Context())


class WantedIds(IdGenerator):
    """Random ids, except where the caller has asked for certain ones."""

    def __init__(self) -> None:
        self._wanted: contextvars.ContextVar[tuple[int, int]] = contextvars.ContextVar("wanted", default=(0, 0))

    @contextmanager
    def wanting(self, *, trace_id: int = 0, span_id: int = 0) -> Iterator[None]:
        """Give spans that start inside this block these ids; 0 means random."""
        token = self._wanted.set((trace_id, span_id))
        try:
            yield
        finally:
            self._wanted.reset(token)

    def generate_trace_id(self) -> int:
        """Return 128 bits, not all zero."""
        return self._wanted.get()[0] or secrets.randbits(128) or 1

    def generate_span_id(self) -> int:
        """Return 64 bits, not all zero."""
        return self._wanted.get()[1] or secrets.randbits(64) or 1
