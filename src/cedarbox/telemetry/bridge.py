"""Turns the spans of the Agents SDK into OpenTelemetry spans, without any content.

The ids are kept: an OpenTelemetry span has the id of the SDK span it mirrors, and the trace has the id of the SDK trace
(unless the caller's own OpenTelemetry span is current, then the run joins that trace). So a span whose parent has
already ended, or whose trace was started before the seal, still names the right parent.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from agents.tracing.processor_interface import TracingProcessor
from opentelemetry import trace as otel_trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from cedarbox.on_import import settle
from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.describe import Description, describe, error_type
from cedarbox.telemetry.redaction import clip
from cedarbox.telemetry.scope import WantedIds, ambient, current_run_id, enter, leave

if TYPE_CHECKING:
    from contextvars import Token

    from agents.tracing import Span, Trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

__all__ = ["Bridge", "Target"]

_MAX_TRACES = 4096
"""How many traces are remembered after their end; the Agents SDK 0.24 remembers as many started ones."""

_HEX_TRACE = re.compile(r"(?:trace_)?([0-9a-f]{32})")
_HEX_SPAN = re.compile(r"[0-9a-f]{16}")

_SDK_SANDBOX = "sandbox."
"""How the Agents SDK 0.24 names the spans of its session wrapper: ``sandbox.exec``, ``sandbox.start`` and so on."""

_CHAT = "chat"

_KNOWN_BY_THE_SDK = frozenset(
    {
        names.GEN_AI_RESPONSE_ID,
        names.GEN_AI_RESPONSE_MODEL,
        names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS,
        names.GEN_AI_USAGE_INPUT_TOKENS,
        names.GEN_AI_USAGE_OUTPUT_TOKENS,
        names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS,
        names.SERVER_PORT,
    }
)
"""What the SDK's span of a model call says and the guard, which makes the call's own span, does not know."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where mirrored spans go: a tracer, and the id generator of its provider."""

    tracer: Tracer
    ids: WantedIds


@dataclass(frozen=True, slots=True)
class _Root:
    target: Target
    context: SpanContext


@dataclass(frozen=True, slots=True)
class _Open:
    span: OtelSpan
    token: Token[Context]


class Bridge(TracingProcessor):
    """The only processor of the sealed provider.

    Spans go to the target that was attached last when their trace began. With no target attached nothing is made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._targets: list[Target] = []
        self._roots: OrderedDict[str, _Root] = OrderedDict()
        self._open: dict[tuple[str, str], _Open] = {}
        self._passed: dict[tuple[str, str], OtelSpan] = {}

    def attach(self, target: Target) -> None:
        """Send the spans of traces that begin from now on to this target. Attachments stack and count."""
        with self._lock:
            self._targets.append(target)

    def detach(self, target: Target) -> None:
        """Undo the latest `attach` of this target; does nothing when it is not attached."""
        with self._lock:
            for place in reversed(range(len(self._targets))):
                if self._targets[place] is target:
                    del self._targets[place]
                    return

    def on_trace_start(self, trace: Trace) -> None:
        """Start the span of a whole run."""
        target = self._target()
        if target is None:
            return
        attributes = {
            names.CEDARBOX_SDK_SPAN: "trace",
            names.CEDARBOX_SDK_TRACE_ID: clip(trace.trace_id),
            names.GEN_AI_OPERATION_NAME: "invoke_workflow",
            names.GEN_AI_AGENT_NAME: clip(trace.name),
            **_run(),
        }
        group = getattr(trace, "group_id", None)
        if isinstance(group, str):
            attributes[names.GEN_AI_CONVERSATION_ID] = clip(group)
        name = f"invoke_workflow {clip(trace.name)}"
        with target.ids.wanting(trace_id=_trace_id(trace.trace_id)):
            span = target.tracer.start_span(name, context=ambient(), kind=SpanKind.INTERNAL, attributes=attributes)
        self._remember(trace.trace_id, _Root(target, span.get_span_context()))
        self._opened((trace.trace_id, ""), span)

    def on_trace_end(self, trace: Trace) -> None:
        """End the span of a whole run."""
        opened = self._open.pop((trace.trace_id, ""), None)
        if opened is not None:
            leave(opened.token)
            opened.span.end()

    def on_span_start(self, span: Span[Any]) -> None:
        """Start the mirror of an SDK span, under the mirror of its parent, and make it current."""
        root = self._root(span.trace_id)
        if root is None:
            return
        data = describe(span.span_data, ended=False)
        own = _own_operation(root.context.trace_id)
        if own is not None and _is_told_by(own, data):
            # The operation already is the span of what the SDK traces a second time.
            self._passed[span.trace_id, span.span_id] = own
            return
        operation = own.get_span_context() if own is not None else None
        parent = otel_trace.set_span_in_context(NonRecordingSpan(operation or self._parent(span, root)))
        span_id = int(span.span_id, 16) if _HEX_SPAN.fullmatch(span.span_id) else 0
        with root.target.ids.wanting(trace_id=root.context.trace_id, span_id=span_id):
            mirror = root.target.tracer.start_span(data.name, parent, data.kind, {**data.attributes, **_run()})
        self._opened((span.trace_id, span.span_id), mirror)

    def on_span_end(self, span: Span[Any]) -> None:
        """End the mirror of an SDK span with what is known only now: usage, outcome, error class."""
        passed = self._passed.pop((span.trace_id, span.span_id), None)
        if passed is not None:
            told = describe(span.span_data, ended=True).attributes
            passed.set_attributes({key: value for key, value in told.items() if key in _KNOWN_BY_THE_SDK})
        opened = self._open.pop((span.trace_id, span.span_id), None)
        if opened is None:
            return
        leave(opened.token)
        data = describe(span.span_data, ended=True)
        opened.span.update_name(data.name)
        opened.span.set_attributes(data.attributes)
        if span.error is not None:
            opened.span.set_attribute(names.ERROR_TYPE, error_type(span.error))
            opened.span.set_status(Status(StatusCode.ERROR))
        opened.span.end()

    def shutdown(self) -> None:
        """Do nothing: whoever attached a tracer closes it."""

    def force_flush(self) -> None:
        """Do nothing: ended spans are written at once."""

    def _target(self) -> Target | None:
        with self._lock:
            return self._targets[-1] if self._targets else None

    def _opened(self, key: tuple[str, str], span: OtelSpan) -> None:
        self._open[key] = _Open(span, enter(span))

    def _remember(self, trace_id: str, root: _Root) -> None:
        with self._lock:
            self._roots[trace_id] = root
            self._roots.move_to_end(trace_id)
            while len(self._roots) > _MAX_TRACES:
                self._roots.popitem(last=False)

    def _root(self, trace_id: str) -> _Root | None:
        with self._lock:
            known = self._roots.get(trace_id)
        if known is not None:
            return known
        target = self._target()
        if target is None:
            return None
        # A trace begun before anything was attached, or resumed: it has an id, but no span of its own.
        made = _Root(target, _context(_trace_id(trace_id), 0))
        self._remember(trace_id, made)
        return made

    def _parent(self, span: Span[Any], root: _Root) -> SpanContext:
        if span.parent_id is None:
            return root.context
        key = (span.trace_id, span.parent_id)
        if key in self._passed:
            return self._passed[key].get_span_context()
        opened = self._open.get(key)
        if opened is not None:
            return opened.span.get_span_context()
        if _HEX_SPAN.fullmatch(span.parent_id):
            return _context(root.context.trace_id, int(span.parent_id, 16))
        return root.context


def _run() -> dict[str, str]:
    run = current_run_id()
    return {names.CEDARBOX_RUN_ID: run} if run is not None else {}


def _is_told_by(own: OtelSpan, data: Description) -> bool:
    known = getattr(own, "attributes", None) or {}
    if data.name.startswith(_SDK_SANDBOX):
        return names.SANDBOX_OPERATION in known
    return data.attributes.get(names.GEN_AI_OPERATION_NAME) == _CHAT == known.get(names.GEN_AI_OPERATION_NAME)


def _own_operation(trace_id: int) -> OtelSpan | None:
    """Return the current span if it is an operation of ours in this trace, and not the mirror of an SDK span."""
    current = otel_trace.get_current_span(ambient())
    context = current.get_span_context()
    known = getattr(current, "attributes", None) or {}
    ours = names.SANDBOX_OPERATION in known or known.get(names.GEN_AI_OPERATION_NAME) == _CHAT
    if context.trace_id != trace_id or not ours or names.CEDARBOX_SDK_SPAN in known:
        return None
    return current


def _trace_id(sdk_id: str) -> int:
    """Return the 128-bit id for an SDK trace id: its own digits, or a digest of an id of another shape."""
    digits = _HEX_TRACE.fullmatch(sdk_id)
    value = int(digits.group(1), 16) if digits else 0
    return value or int.from_bytes(sha256(sdk_id.encode("utf-8", "surrogatepass")).digest()[:16])


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


settle()
