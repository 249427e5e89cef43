"""Which span is current, and which ids the next one gets."""

from __future__ import annotations

import contextvars
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import IdGenerator

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.trace import Span

__all__ = ["WantedIds", "ambient", "enter", "leave"]


def enter(span: Span) -> Token[Context]:
    """Make a span current in this context."""
    return otel_context.attach(otel_trace.set_span_in_context(span))


def leave(token: Token[Context]) -> None:
    """Undo `enter`. In another context than that of `enter` there is nothing to undo."""
    # An abandoned async generator is closed from whatever task comes by; a token is valid in its own context only.
    with suppress(ValueError, RuntimeError):
        token.var.reset(token)


def ambient() -> Context:
    """Return the current context, or an empty one when its span has already ended and was left behind."""
    current = otel_trace.get_current_span()
    return Context() if getattr(current, "end_time", None) is not None else otel_context.get_current()


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
