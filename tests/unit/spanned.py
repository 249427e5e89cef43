"""The spans that a guarded client left on disk, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from cedarbox.telemetry.otlp import from_json

__all__ = ["Spanned", "chain", "named", "spans_of"]


@dataclass(frozen=True)
class Spanned:
    """One span; ``links`` are span ids, ``attributes`` plain values."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    failed: bool
    links: tuple[str, ...]
    attributes: dict[str, Any]
    resource: dict[str, Any]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def spans_of(directory: Path) -> list[Spanned]:
    """Return the ended spans of a guarded client that writes below a directory, in order of their end."""
    found = []
    for path in sorted((directory / "spans").glob("spans-*.jsonl")):
        for line in path.read_bytes().splitlines():
            for outer in from_json(line, ExportTraceServiceRequest).resource_spans:
                resource = {item.key: _value(item.value) for item in outer.resource.attributes}
                found += [
                    Spanned(
                        span.name,
                        span.kind,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.status.code == span.status.STATUS_CODE_ERROR,
                        tuple(link.span_id.hex() for link in span.links),
                        {item.key: _value(item.value) for item in span.attributes},
                        resource,
                    )
                    for inner in outer.scope_spans
                    for span in inner.spans
                ]
    return found


def named(spans: list[Spanned], name: str) -> list[Spanned]:
    """Return the spans of a name."""
    return [span for span in spans if span.name == name]


def chain(spans: list[Spanned], span: Spanned) -> list[str]:
    """Return the names from a span up to its root."""
    by_id = {each.id: each for each in spans}
    names = [span.name]
    while span.parent in by_id:
        span = by_id[span.parent]
        names.append(span.name)
    return names
