"""The seal on the tracing of the Agents SDK: nothing it traces can leave towards a vendor.

By default the SDK (openai-agents 0.24) posts every trace, with prompts and results, to a fixed vendor address as soon
as a key is in the environment. `seal` closes that for the life of the process:

1. The global trace provider is a `SealedTraceProvider`, so the vendor exporter is never built for it.
2. It takes no other processor. A processor sees prompts, arguments and results, and nothing tells one that keeps them
   from one that posts them; so the answer to all of them is no. Spans go elsewhere by OTLP only, without content.
3. ``set_trace_provider`` refuses, also where it was imported before the seal.
4. The export methods of the vendor exporter raise, whoever built one.

This holds against configuration, libraries and mistakes. It does not hold against hostile Python in this process.
"""

from __future__ import annotations

import queue
import secrets
from types import FunctionType
from typing import TYPE_CHECKING

from agents.tracing import processors as sdk_processors
from agents.tracing import setup
from agents.tracing.processor_interface import TracingExporter
from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor
from agents.tracing.provider import DefaultTraceProvider, SynchronousMultiTracingProcessor

from cedarbox.errors import SealError
from cedarbox.on_import import settle
from cedarbox.telemetry.bridge import Bridge

if TYPE_CHECKING:
    from typing import Any

    from agents.tracing import Span, Trace, TracingProcessor
    from agents.tracing.provider import TraceProvider

__all__ = ["SealedTraceProvider", "is_sealed", "is_switched_off", "seal", "sealed_bridge"]


def _refused(what: object) -> SealError:
    kind = type(what)
    return SealError(
        f"{kind.__module__}.{kind.__qualname__} may not be added to the sealed tracing of the Agents SDK",
        hint="to see the spans, set [otlp] endpoint to your own collector",
    )


class _SealedProcessors(SynchronousMultiTracingProcessor):
    """The SDK's fan-out with one fixed member."""

    def __init__(self, only: TracingProcessor) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # the SDK leaves it without annotations
        self._processors = (only,)

    def add_tracing_processor(self, tracing_processor: TracingProcessor) -> None:
        raise _refused(tracing_processor)

    def set_processors(self, processors: list[TracingProcessor]) -> None:
        if processors:
            raise _refused(processors[0])


class SealedTraceProvider(DefaultTraceProvider):
    """The SDK's trace provider with one local processor, that cannot be given another.

    Switching tracing off (``set_tracing_disabled``, ``OPENAI_AGENTS_DISABLE_TRACING``, ``tracing_disabled``) is
    honoured: the SDK then makes no spans. The ledger and cedarbox's own spans do not depend on it.

    Attributes:
        bridge: Turns the SDK's spans into OpenTelemetry spans.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bridge = Bridge()
        self._multi_processor = _SealedProcessors(self.bridge)

    def register_processor(self, processor: TracingProcessor) -> None:
        """Refuse a further processor.

        Raises:
            SealError: Always.
        """
        self._multi_processor.add_tracing_processor(processor)

    def set_processors(self, processors: list[TracingProcessor]) -> None:
        """Accept an empty list, which changes nothing, and refuse any other.

        An empty list is how programs switch the vendor's export off; that is already so.

        Raises:
            SealError: The list is not empty.
        """
        self._multi_processor.set_processors(processors)

    def gen_span_id(self) -> str:
        """Return 16 hexadecimal digits, not all zero, so that OpenTelemetry can use the id as it is."""
        return f"{secrets.randbits(64) or 1:016x}"

    def gen_trace_id(self) -> str:
        """Return ``trace_`` and 32 hexadecimal digits, not all zero."""
        return f"trace_{secrets.randbits(128) or 1:032x}"


def seal() -> None:
    """Seal the tracing of the Agents SDK in this process. Calling it again changes nothing.

    Traces made before are cut off: what waits in the SDK's export queues is discarded, not sent.

    Raises:
        SealError: Another library already put its own provider or processor in place (nothing is changed then), or
            the SDK is not one that cedarbox knows.
    """
    if is_sealed():
        return
    with setup._GLOBAL_TRACE_PROVIDER_LOCK:
        previous = setup.GLOBAL_TRACE_PROVIDER
        batches = _batches_of(previous)
        for door, stub in _doors():
            door.__code__ = stub.__code__
        if isinstance(previous, DefaultTraceProvider):
            # Traces that are still open hold this fan-out, not the provider.
            previous._multi_processor._processors = ()
        for batch in batches:
            _cut(batch)
        if sdk_processors._global_processor is not None:
            _cut(sdk_processors._global_processor)
        if sdk_processors._global_exporter is not None:
            _disarm(sdk_processors._global_exporter)
        sealed = SealedTraceProvider()
        if isinstance(previous, DefaultTraceProvider) and previous._manual_disabled is not None:
            sealed.set_disabled(previous._manual_disabled)
        setup.GLOBAL_TRACE_PROVIDER = sealed
    if not is_sealed():
        raise SealError("the tracing of the Agents SDK could not be sealed", hint="install openai-agents 0.24")


def is_sealed() -> bool:
    """Say whether the seal is whole: our provider, its only processor, and every refusing stub still in place."""
    provider = setup.GLOBAL_TRACE_PROVIDER
    if type(provider) is not SealedTraceProvider:
        return False
    fan_out = provider._multi_processor
    return (
        type(fan_out) is _SealedProcessors
        and len(fan_out._processors) == 1
        and fan_out._processors[0] is provider.bridge
        and all(door.__code__ is stub.__code__ for door, stub in _doors())
    )


def is_switched_off() -> bool:
    """Say whether the user has switched the tracing of the Agents SDK off for the whole process."""
    provider = setup.GLOBAL_TRACE_PROVIDER
    if type(provider) is not SealedTraceProvider:
        return True
    provider._refresh_disabled_flag()
    return provider._disabled


def sealed_bridge() -> Bridge:
    """Return the bridge of the sealed provider, sealing first where that was not done.

    Raises:
        SealError: The tracing is not sealed and cannot be.
    """
    seal()
    provider = setup.GLOBAL_TRACE_PROVIDER
    if type(provider) is not SealedTraceProvider:
        raise SealError("the tracing of the Agents SDK is not sealed", hint="import cedarbox before other tracing")
    return provider.bridge


def _batches_of(provider: TraceProvider | None) -> list[BatchTraceProcessor]:
    """Return the processors to cut; refuse whatever has queues that cannot be reached."""
    if provider is None:
        return []
    if type(provider) is SealedTraceProvider:
        return []
    foreign: list[object] = [provider]
    batches: list[BatchTraceProcessor] = []
    if type(provider) is DefaultTraceProvider:
        members = provider._multi_processor._processors
        batches = [member for member in members if isinstance(member, BatchTraceProcessor)]
        foreign = [member for member in members if not isinstance(member, BatchTraceProcessor)]
    for item in foreign:
        kind = type(item)
        raise SealError(
            f"{kind.__module__}.{kind.__qualname__} took over the tracing of the Agents SDK before cedarbox sealed it",
            hint="import cedarbox first and leave that tracing out",
        )
    return batches


class _NoExporter(TracingExporter):
    """Takes the place of an exporter that was cut off."""

    def export(self, items: list[Trace | Span[Any]]) -> None:
        raise SealError(f"{len(items)} traces or spans of the Agents SDK were not exported: its tracing is sealed")


def _cut(batch: BatchTraceProcessor) -> None:
    """Empty the queue of a batch processor and end its thread; nothing of it is exported."""
    exporter, batch._exporter = batch._exporter, _NoExporter()
    batch._shutdown_event.set()
    while True:
        try:
            batch._queue.get_nowait()
        except queue.Empty:
            break
    if isinstance(exporter, BackendSpanExporter):
        _disarm(exporter)


def _disarm(exporter: BackendSpanExporter) -> None:
    """End a retry that is under way: wake it from its wait and close the connection it would use."""
    exporter._request_shutdown()
    exporter.close()  # type: ignore[no-untyped-call] # the SDK leaves it without annotations


def _refuse_provider(provider: TraceProvider) -> None:
    from cedarbox.errors import SealError as Refusal

    raise Refusal(
        "set_trace_provider is refused: the tracing of the Agents SDK is sealed",
        hint="to see the spans, set [otlp] endpoint to your own collector",
    )


def _refuse_export(self: BackendSpanExporter, items: list[Trace | Span[Any]]) -> None:
    from cedarbox.errors import SealError as Refusal

    raise Refusal("trace export to the vendor is refused: the tracing of the Agents SDK is sealed")


def _refuse_export_with_deadline(
    self: BackendSpanExporter, items: list[Trace | Span[Any]], deadline: float | None
) -> None:
    from cedarbox.errors import SealError as Refusal

    raise Refusal("trace export to the vendor is refused: the tracing of the Agents SDK is sealed")


def _doors() -> tuple[tuple[FunctionType, FunctionType], ...]:
    """Pair each way out with the stub whose code must be in its place.

    The code is replaced, not the name: a name may have been imported elsewhere before the seal. Code that runs in
    place of another function sees the globals of that function's module, so a stub imports what it raises.
    """
    pairs = (
        (getattr(setup, "set_trace_provider", None), _refuse_provider),
        (getattr(BackendSpanExporter, "export", None), _refuse_export),
        (getattr(BackendSpanExporter, "_export_with_deadline", None), _refuse_export_with_deadline),
    )
    doors: list[tuple[FunctionType, FunctionType]] = []
    for door, stub in pairs:
        if not isinstance(door, FunctionType) or not isinstance(stub, FunctionType):
            raise SealError(
                "a part of the Agents SDK that must be sealed is missing", hint="install openai-agents 0.24"
            )
        doors.append((door, stub))
    return tuple(doors)


settle()
