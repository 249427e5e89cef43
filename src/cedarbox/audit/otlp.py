"""Records as OpenTelemetry log events.

The body of an event is the exact line of the record without its line feed, so that a receiver can check hash and chain.
The names ``audit.*`` follow the draft of OpenTelemetry audit logging (opentelemetry-specification pull request 5059).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
    ResourceLogs,
    ScopeLogs,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from cedarbox.audit.checkpoint import ledger_id
from cedarbox.audit.files import index_path, stream_files
from cedarbox.audit.keys import PUBLIC_NAME, load_public_key
from cedarbox.audit.record import parse_line, parse_time
from cedarbox.ed25519 import raw_key
from cedarbox.errors import LedgerError

__all__ = ["LedgerSource", "malformed", "request_of", "text_value"]

_WARNINGS: Final = frozenset(
    {"policy.rejected", "egress.revoked", "ledger.recovered", "clock.stepped", "shipping.left", "stream.recovered"}
)
_TEXTS: Final = ("session", "run", "principal", "tool", "call_id", "action", "resource", "decision", "bundle")


class LedgerSource:
    """The streams of a ledger as a source of the shipper.

    Args:
        directory: The ledger.
    """

    name = "ledger"
    path = "/v1/logs"

    def __init__(self, directory: Path | str) -> None:
        self._directory = Path(directory)

    def streams(self) -> list[Path]:
        """List the index, then the segments of all streams, oldest stream first."""
        files = stream_files(self._directory)
        index = index_path(self._directory)
        return [index, *files] if index.exists() else files

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        """Make an OTLP request of some lines.

        A line that is no record is sent too, with the event name ``cedarbox.malformed``.

        Args:
            lines: Lines with their line feeds.
            stream: Id of the stream.

        Returns:
            A serialized ``ExportLogsServiceRequest``.
        """
        now = time.time_ns()
        return request_of(self._directory, stream, [_event(line, stream, now) for line in lines])


def request_of(directory: Path, stream: str, events: list[LogRecord]) -> bytes:
    """Make an OTLP request of events of one stream.

    Its resource names the stream, the ledger by its id, and the host that sends.

    Args:
        directory: The ledger.
        stream: Id of the stream.
        events: The events.

    Returns:
        A serialized ``ExportLogsServiceRequest``.
    """
    resource = [
        text_value("service.name", "cedarbox"),
        text_value("service.instance.id", stream),
        text_value("host.name", socket.gethostname()),
        text_value("cedarbox.ledger.stream", stream),
    ]
    ledger = _ledger_id(directory)
    if ledger:
        resource.append(text_value("cedarbox.ledger.id", ledger))
    logs = ScopeLogs(scope=InstrumentationScope(name="cedarbox.audit"), log_records=events)
    outer = ResourceLogs(resource=Resource(attributes=resource), scope_logs=[logs])
    return ExportLogsServiceRequest(resource_logs=[outer]).SerializeToString()


def _ledger_id(directory: Path) -> str:
    """Give the id of the ledger; empty when its public key is not there."""
    try:
        return ledger_id(raw_key(load_public_key(directory / PUBLIC_NAME)))
    except LedgerError:
        return ""


def malformed(body: AnyValue, now: int) -> LogRecord:
    """Make the event of a unit that is not what it should be. ``now`` is in nanoseconds since 1970."""
    return LogRecord(
        observed_time_unix_nano=now,
        severity_number=SEVERITY_NUMBER_WARN,
        severity_text="WARN",
        event_name="cedarbox.malformed",
        body=body,
    )


def _event(line: bytes, stream: str, now: int) -> LogRecord:
    body = AnyValue(string_value=line[:-1].decode(errors="replace"))
    try:
        fields, digest = parse_line(line)
    except LedgerError:
        return malformed(body, now)
    warn = fields["decision"] == "deny" or fields["event"] in _WARNINGS or bool(fields["errors"])
    return LogRecord(
        time_unix_nano=parse_time(fields["time"]),
        observed_time_unix_nano=now,
        severity_number=SEVERITY_NUMBER_WARN if warn else SEVERITY_NUMBER_INFO,
        severity_text="WARN" if warn else "INFO",
        event_name=f"cedarbox.{fields['event']}",
        body=body,
        trace_id=bytes.fromhex(fields["trace_id"] or ""),
        span_id=bytes.fromhex(fields["span_id"] or ""),
        attributes=list(_attributes(fields, digest.hex(), stream)),
    )


def _attributes(fields: dict[str, Any], digest: str, stream: str) -> Iterator[KeyValue]:
    yield text_value("audit.record.id", f"{stream}/{fields['seq']}")
    yield KeyValue(key="audit.sequence.number", value=AnyValue(int_value=fields["seq"]))
    yield text_value("audit.prev.hash", fields["prev"])
    yield text_value("cedarbox.record.hash", digest)
    yield text_value("cedarbox.event", fields["event"])
    for key in _TEXTS:
        if fields[key] is not None:
            yield text_value(f"cedarbox.{key}", fields[key])
    if fields["outcome"] is not None:
        yield text_value("audit.outcome", fields["outcome"])
    for key in ("policies", "errors"):
        if fields[key]:
            values = [AnyValue(string_value=item) for item in fields[key]]
            yield KeyValue(key=f"cedarbox.{key}", value=AnyValue(array_value=ArrayValue(values=values)))


def text_value(key: str, value: str) -> KeyValue:
    """Make an attribute that is a text."""
    return KeyValue(key=key, value=AnyValue(string_value=value))
