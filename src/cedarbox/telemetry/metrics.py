"""The metrics of this process: how much is decided, denied, carried and asked of models, and how long it takes.

Temporality is cumulative: each line of the spool holds totals since the start of the process. A line that is sent twice
then counts once, and one that was lost takes nothing with it; with deltas both would falsify the sums. Names of paths,
hosts, sessions and agents are not attributes: they have no bounded number, and stand in the ledger.

Names under ``gen_ai.`` are those of semantic-conventions-genai v0.1.0.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics import Counter as SdkCounter
from opentelemetry.sdk.metrics import Histogram as SdkHistogram
from opentelemetry.sdk.metrics import ObservableCounter as SdkObservableCounter
from opentelemetry.sdk.metrics import ObservableUpDownCounter as SdkObservableUpDownCounter
from opentelemetry.sdk.metrics import UpDownCounter as SdkUpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader, MetricsData
from opentelemetry.sdk.resources import Resource

from cedarbox.errors import HostError
from cedarbox.telemetry.attributes import SCHEMA_URL
from cedarbox.telemetry.encode import Changed, metrics_line
from cedarbox.telemetry.spool import Lines

__all__ = ["METRICS", "Metrics"]

METRICS: Final[Mapping[str, tuple[str, str, str, str]]] = {
    "cedarbox.decisions": ("counter", "{decision}", "action, decision", "decisions of the policies and denials"),
    "cedarbox.denials": ("counter", "{decision}", "action", "decisions that were denials"),
    "cedarbox.decision.duration": (
        "histogram",
        "s",
        "action, decision",
        "time until a decision was made and its record on disk",
    ),
    "cedarbox.operation.duration": (
        "histogram",
        "s",
        "operation, outcome",
        "time an operation took, decision included",
    ),
    "cedarbox.egress.bytes": ("counter", "By", "direction", "bytes of connections that are over, seen from the guest"),
    "cedarbox.egress.connections": ("updowncounter", "{connection}", "", "connections that are open"),
    "cedarbox.sandboxes": ("updowncounter", "{sandbox}", "", "sandboxes that are in use"),
    "cedarbox.ledger.records": ("counter", "{record}", "", "records that this process wrote"),
    "cedarbox.shipper.pending": ("updowncounter", "{line}", "", "lines on disk that no collector has acknowledged"),
    "gen_ai.client.inference.duration": (
        "histogram",
        "s",
        "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model, error.type",
        "time a call of a model took",
    ),
    "gen_ai.client.inference.usage.input_tokens": (
        "counter",
        "{token}",
        "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model",
        "tokens of prompts",
    ),
    "gen_ai.client.inference.usage.output_tokens": (
        "counter",
        "{token}",
        "gen_ai.operation.name, gen_ai.provider.name, gen_ai.request.model",
        "tokens of completions",
    ),
}
"""Kind, unit, attributes and meaning by name of the instrument. Attributes without a dot begin with ``cedarbox.``."""

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_INFERENCE_SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Boundaries that the conventions name for gen_ai.client.inference.duration."""

_MAX_VALUES: Final = 128
"""Most different values of one attribute; further ones are counted as ``_OTHER``."""

_NOISE: Final = frozenset({"cedarbox.shipper.pending"})
"""A line of metrics is itself pending for a while, so that this alone must not bring the next one about."""

_CUMULATIVE: Final[dict[type, AggregationTemporality]] = dict.fromkeys(
    (SdkCounter, SdkHistogram, SdkObservableCounter, SdkObservableUpDownCounter, SdkUpDownCounter),
    AggregationTemporality.CUMULATIVE,
)


class _Provider(MeterProvider):
    """A meter provider of our own, that ``OTEL_SDK_DISABLED`` and ``OTEL_METRICS_*`` do not reach."""

    def __init__(self, resource: Mapping[str, str], readers: Iterable[MetricReader]) -> None:
        super().__init__(
            tuple(readers),
            resource=Resource(dict(resource)),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._disabled = False


class _Reader(MetricReader):
    """Writes what has changed since the last time as one line of the spool."""

    def __init__(self, directory: Path) -> None:
        super().__init__(preferred_temporality=dict(_CUMULATIVE))
        self._directory, self._changed, self._pid = directory, Changed(), os.getpid()
        self.lines: Lines | None = None
        self.dropped = 0

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        if os.getpid() != self._pid:
            # A forked child has a copy of the totals, which are the parent's to tell.
            return
        new = self._changed.of(metrics_data, ignored=_NOISE)
        if new is None:
            return
        try:
            # Made with the first line, so that a process of which nothing is counted leaves no file.
            self.lines = self.lines or Lines(self._directory, "metrics")
            written = self.lines.append(metrics_line(new))
        except (HostError, TypeError, ValueError):
            written = False
        if written:
            self._changed.written(metrics_data)
        else:
            self.dropped += 1

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        if self.lines is not None:
            self.lines.close()


class Metrics:
    """Instruments, and the thread that writes them down now and then and at the end.

    Without a directory nothing is kept.

    Args:
        directory: Where the lines wait for the collector, beside the spans.
        resource: Resource attributes.
        interval_s: Seconds between two lines. Nothing is written when nothing changed.
    """

    def __init__(self, *, directory: Path | None, resource: Mapping[str, str], interval_s: float = 60.0) -> None:
        self._reader = _Reader(directory) if directory is not None else None
        self._provider = _Provider(resource, (self._reader,) if self._reader is not None else ())
        self._meter: Meter = self._provider.get_meter("cedarbox", schema_url=SCHEMA_URL)
        self._decisions = self._meter.create_counter(*_named("cedarbox.decisions"))
        self._denials = self._meter.create_counter(*_named("cedarbox.denials"))
        self._deciding = self._histogram("cedarbox.decision.duration", _SECONDS)
        self._operating = self._histogram("cedarbox.operation.duration", _SECONDS)
        self._bytes = self._meter.create_counter(*_named("cedarbox.egress.bytes"))
        self._connections = self._meter.create_up_down_counter(*_named("cedarbox.egress.connections"))
        self._sandboxes = self._meter.create_up_down_counter(*_named("cedarbox.sandboxes"))
        self._inference = self._histogram("gen_ai.client.inference.duration", _INFERENCE_SECONDS)
        self._input = self._meter.create_counter(*_named("gen_ai.client.inference.usage.input_tokens"))
        self._output = self._meter.create_counter(*_named("gen_ai.client.inference.usage.output_tokens"))
        self._seen: dict[str, set[str]] = {}
        self._over, self._writing = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        if self._reader is not None and math.isfinite(interval_s):
            self._thread = threading.Thread(target=self._run, args=(interval_s,), name="cedarbox-metrics", daemon=True)
            self._thread.start()

    @property
    def dropped(self) -> int:
        """How many lines could not be written."""
        return self._reader.dropped if self._reader is not None else 0

    @property
    def path(self) -> Path | None:
        """The file of this process, once there is one."""
        return self._reader.lines.path if self._reader is not None and self._reader.lines is not None else None

    def decided(self, action: str, decision: str, seconds: float) -> None:
        """Count a decision that is on record.

        Args:
            action: The Cedar action, or the operation that could not be named.
            decision: ``allow`` or ``deny``.
            seconds: From the question to the record.
        """
        about = {"cedarbox.action": self._bounded("action", action), "cedarbox.decision": decision}
        self._decisions.add(1, about)
        self._deciding.record(seconds, about)
        if decision == "deny":
            self._denials.add(1, {"cedarbox.action": about["cedarbox.action"]})

    def operated(self, operation: str, outcome: str, seconds: float) -> None:
        """Count an operation that is over: ``ok``, ``error``, ``cancelled``, ``revoked`` or ``denied``."""
        about = {"cedarbox.operation": self._bounded("operation", operation), "cedarbox.outcome": outcome}
        self._operating.record(seconds, about)

    def carried(self, *, bytes_in: int, bytes_out: int) -> None:
        """Count the bytes of a connection that is over."""
        self._bytes.add(bytes_in, {"cedarbox.direction": "in"})
        self._bytes.add(bytes_out, {"cedarbox.direction": "out"})

    def connections(self, change: int) -> None:
        """Count a connection that was opened, 1, or is over, -1."""
        self._connections.add(change)

    def sandboxes(self, change: int) -> None:
        """Count a sandbox that was made or taken up, 1, or is gone, -1."""
        self._sandboxes.add(change)

    def inferred(
        self, *, provider: str, model: str, seconds: float, error: str | None, usage: tuple[int, int] | None
    ) -> None:
        """Count a call of a model.

        Args:
            provider: As ``gen_ai.provider.name``.
            model: The model's name; of very many different ones the later are counted as ``_OTHER``.
            seconds: Until the answer was whole, or the call failed.
            error: Class of the error; None when there was none.
            usage: Tokens in and out, when the server told them.
        """
        about = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": self._bounded("model", model),
        }
        failed = {"error.type": self._bounded("error", error)} if error is not None else {}
        self._inference.record(seconds, about | failed)
        if usage is not None:
            self._input.add(usage[0], about)
            self._output.add(usage[1], about)

    def observe(self, *, records: Callable[[], int] | None = None, pending: Callable[[], int] | None = None) -> None:
        """Say where totals come from that others keep. A callback that fails leaves its metric out.

        Args:
            records: Gives the number of ledger records that this process wrote.
            pending: Gives the number of lines that wait for the collector.
        """
        if records is not None:
            name, unit, told = _named("cedarbox.ledger.records")
            self._meter.create_observable_counter(name, [_observing(records)], unit, told)
        if pending is not None:
            name, unit, told = _named("cedarbox.shipper.pending")
            self._meter.create_observable_up_down_counter(name, [_observing(pending)], unit, told)

    def flush(self) -> None:
        """Write down what has changed."""
        if self._reader is not None and not self._over.is_set():
            with self._writing:
                self._reader.collect()

    def close(self) -> None:
        """Write down what has changed a last time and close the file. Idempotent."""
        if self._over.is_set():
            return
        self.flush()
        self._over.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(5.0)
        if self._reader is not None:
            self._provider.shutdown()

    def _run(self, interval_s: float) -> None:
        while not self._over.wait(interval_s):
            self.flush()

    def _histogram(self, name: str, boundaries: tuple[float, ...]) -> Histogram:
        return self._meter.create_histogram(*_named(name), explicit_bucket_boundaries_advisory=boundaries)

    def _bounded(self, kind: str, value: str) -> str:
        seen = self._seen.setdefault(kind, set())
        if value in seen:
            return value
        if len(seen) >= _MAX_VALUES:
            return "_OTHER"
        seen.add(value)
        return value


def _named(name: str) -> tuple[str, str, str]:
    _, unit, _, told = METRICS[name]
    return name, unit, told


def _observing(read: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(options: CallbackOptions) -> Iterable[Observation]:
        try:
            return [Observation(read())]
        except Exception:  # noqa: BLE001 - what cannot be told now is told with the next line
            return []

    return observe
