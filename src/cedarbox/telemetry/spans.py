"""The spans and metrics of this process: cedarbox's own operations, and the mirrored spans of the Agents SDK."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode
from opentelemetry.util.types import AttributeValue

from cedarbox.telemetry.attributes import ATTRIBUTES, CEDARBOX_RUN_ID, ERROR_TYPE, SCHEMA_URL
from cedarbox.telemetry.bridge import Bridge, Target
from cedarbox.telemetry.metrics import Metrics
from cedarbox.telemetry.redaction import redact
from cedarbox.telemetry.scope import WantedIds, ambient, current_run_id, enter, leave
from cedarbox.telemetry.spool import Spool, SpoolSource, prune
from cedarbox.telemetry.tracing import sealed_bridge

if TYPE_CHECKING:
    from cedarbox.audit.shipper import Source

__all__ = ["AttributeValue", "OperationSpan", "SpanKind", "Telemetry", "error_class"]

_MAX_TEXT: Final = 4096
"""Longest text attribute that holds no content, in characters; longer ones are cut."""

_MAX_CONTENT: Final = 1024 * 1024
"""Longest attribute that holds content, in characters; the OpenTelemetry SDK cuts what is longer."""

_MAX_MARKED: Final = 4096
"""How many marked spans are remembered."""

_LIMITS: Final = {
    "max_span_attributes": 128,
    "max_events": 128,
    "max_links": 128,
    "max_attribute_length": _MAX_CONTENT,
}


class _Provider(TracerProvider):
    """A tracer provider of our own, that no environment variable can silence, sample or relabel.

    Records in the ledger name the span they belong to. ``OTEL_SDK_DISABLED`` and ``OTEL_TRACES_SAMPLER`` are meant for
    the program's telemetry; here they would cut that link without a word.
    """

    def __init__(self, resource: Mapping[str, str], ids: WantedIds) -> None:
        super().__init__(
            sampler=ALWAYS_ON,
            resource=Resource(dict(resource)),
            shutdown_on_exit=False,
            id_generator=ids,
            span_limits=SpanLimits(**_LIMITS),
            meter_provider=NoOpMeterProvider(),
        )
        self._disabled = False


class OperationSpan:
    """A span of one operation while it runs.

    Attributes:
        context: Both ids, for links and children.
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
    """

    def __init__(self, span: Span) -> None:
        self.context = span.get_span_context()
        self.trace_id = f"{self.context.trace_id:032x}"
        self.span_id = f"{self.context.span_id:016x}"
        self.failed = False
        self._span = span

    def set(self, name: str, value: AttributeValue) -> None:
        """Set an attribute. One that is not in `cedarbox.telemetry.attributes`, or may hold content, is left out."""
        if name in ATTRIBUTES and not ATTRIBUTES[name].content:
            self._span.set_attribute(name, value[:_MAX_TEXT] if isinstance(value, str) else value)

    def capture(self, name: str, value: str) -> None:
        """Set an attribute that may hold content, after its capture was permitted; others are left out.

        Args:
            name: As in `cedarbox.telemetry.attributes`.
            value: The content, with secrets hidden and cut to size.
        """
        if name in ATTRIBUTES and ATTRIBUTES[name].content:
            self._span.set_attribute(name, value)

    def link(self, to: SpanContext | None) -> None:
        """Point to a span of the past that this one goes back to; None does nothing."""
        if to is not None and to.is_valid:
            self._span.add_link(to)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the span current for the block, and not after it: for generators, which hand control back in between."""
        token = enter(self._span)
        try:
            yield
        finally:
            leave(token)

    def fail(self, error_type: str, description: str = "") -> None:
        """Mark the operation as failed.

        Args:
            error_type: A class of low cardinality, such as ``policy_denied``, ``timeout`` or an exception's name.
            description: A short text without content; secrets in it are hidden, and it is cut to 256 characters.
        """
        self.failed = True
        self._span.set_attribute(ERROR_TYPE, error_type)
        self._span.set_status(Status(StatusCode.ERROR, redact(description[:1024])[:256] or None))


class Telemetry:
    """Spans of this process. Without a directory nothing is kept, but spans have ids all the same.

    Args:
        directory: Where ended spans wait for the collector (see `cedarbox.telemetry.spool`); None keeps nothing.
        service_name: The resource's ``service.name``.
        resource: Further resource attributes; they win over ours.
        metrics_interval_s: Seconds between two lines of metrics; None keeps none.

    Attributes:
        metrics: Counts what is done.

    Raises:
        HostError: The directory cannot be used.
    """

    def __init__(
        self,
        *,
        directory: Path | None,
        service_name: str = "cedarbox",
        resource: Mapping[str, str] | None = None,
        metrics_interval_s: float | None = 60.0,
    ) -> None:
        self._spool = Spool(directory) if directory is not None else None
        self._directory = directory
        described = {"service.name": service_name, "telemetry.sdk.language": "python"}
        if self._spool is not None:
            described["service.instance.id"] = self._spool.path.stem.removeprefix("spans-")
        ids, described = WantedIds(), described | dict(resource or {})
        self.metrics = Metrics(
            directory=None if metrics_interval_s is None else directory,
            resource=described,
            interval_s=metrics_interval_s or 60.0,
        )
        self._provider = _Provider(described, ids)
        if self._spool is not None:
            self._provider.add_span_processor(self._spool)
        self._tracer = self._provider.get_tracer("cedarbox", schema_url=SCHEMA_URL)
        self._target = Target(self._tracer, ids)
        self._attached: list[Bridge] = []
        self._marked: OrderedDict[str, SpanContext] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def operation(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        home: SpanContext | None = None,
    ) -> Iterator[OperationSpan]:
        """Run a block inside a span, under the span that is current.

        An exception sets ``error.type`` to its class name (``cancelled`` for a cancelled task, ``timeout`` for a
        timeout; a class set by `OperationSpan.fail` before stays) and passes through. Its text is not kept.

        Args:
            name: Name of low cardinality, such as ``exec python3``.
            attributes: Attributes known at the start.
            kind: OpenTelemetry span kind.
            home: Its parent where no span is current.
        """
        operation = self._started(name, attributes, kind, home)
        try:
            with operation.current():
                yield operation
        except BaseException as error:
            if not operation.failed:
                operation.fail(error_class(error))
            raise
        finally:
            operation._span.end()

    @contextmanager
    def aside(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Iterator[OperationSpan]:
        """Run a block beside a span as `operation` does, without making it current: see `OperationSpan.current`."""
        operation = self._started(name, attributes, kind)
        try:
            yield operation
        except GeneratorExit:
            # Whoever read the stream has had enough; nothing went wrong.
            raise
        except BaseException as error:
            if not operation.failed:
                operation.fail(error_class(error))
            raise
        finally:
            operation._span.end()

    def mark(self, name: str, span: OperationSpan) -> None:
        """Remember the span of something that later ones go back to, such as a snapshot."""
        with self._lock:
            self._marked[name] = span.context
            self._marked.move_to_end(name)
            while len(self._marked) > _MAX_MARKED:
                self._marked.popitem(last=False)

    def marked(self, name: str) -> SpanContext | None:
        """Return the ids of the span that was marked with this name in this process, if any."""
        with self._lock:
            return self._marked.get(name)

    def _started(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None,
        kind: SpanKind,
        home: SpanContext | None = None,
    ) -> OperationSpan:
        known = {key: value for key, value in (attributes or {}).items() if key in ATTRIBUTES}
        known = {key: value for key, value in known.items() if not ATTRIBUTES[key].content}
        if (run := current_run_id()) is not None:
            known[CEDARBOX_RUN_ID] = run
        return OperationSpan(self._tracer.start_span(name, context=ambient(home), kind=kind, attributes=known))

    def source(self) -> Source:
        """Return the spans as a source for the shipper: OTLP traces to ``/v1/traces``."""
        return SpoolSource(self._directory)

    def metrics_source(self) -> Source:
        """Return the metrics as a source for the shipper: OTLP metrics to ``/v1/metrics``."""
        return SpoolSource(self._directory, "metrics")

    @property
    def dropped(self) -> int:
        """How many spans could not be written since the start, for want of disk or because they ended too late."""
        return self._spool.dropped if self._spool is not None else 0

    def attach(self) -> None:
        """Take the spans of Agents SDK runs that begin from now on; needs one `detach` for each call.

        Of several attached in a process the latest gets the spans, so none is kept twice.

        Raises:
            SealError: The tracing of the Agents SDK cannot be sealed.
        """
        bridge = sealed_bridge()
        with self._lock:
            bridge.attach(self._target)
            self._attached.append(bridge)

    def detach(self) -> None:
        """Undo one `attach`; does nothing when not attached."""
        with self._lock:
            if self._attached:
                self._attached.pop().detach(self._target)

    def prune(self, acknowledged: Callable[[str], int]) -> tuple[Path, ...]:
        """Remove spool files, of spans and of metrics, of ended processes that the collector has acknowledged.

        Args:
            acknowledged: Gives the acknowledged offset in bytes for a key of the shipper, such as ``spans/<file
                name>``; 0 when nothing was acknowledged. Call it before a shipper starts.

        Returns:
            The files that were removed.
        """
        return prune(self._directory, acknowledged) if self._directory is not None else ()

    def close(self) -> None:
        """Detach, write down the metrics and close the spools. Spans that end later are dropped. Idempotent."""
        while self._attached:
            self.detach()
        self.metrics.close()
        self._provider.shutdown()


def error_class(error: BaseException) -> str:
    """Return what ``error.type`` says of an exception: its class, ``cancelled`` or ``timeout``."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, TimeoutError):
        return "timeout"
    return type(error).__qualname__
