"""Records as OpenTelemetry log events.

The body of an event is the exact line of the record without its line feed, so that a receiver can check hash and chain.
The names ``audit.*`` follow the draft of OpenTelemetry audit logging (opentelemetry-specification pull request 5059).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
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

from cedarbox.audit.files import stream_files
from cedarbox.audit.record import parse_line
from cedarbox.errors import LedgerError

__all__ = ["LedgerSource"]

_WARNINGS: Final = frozenset({"policy.rejected", "egress.revoked", "ledger.recovered", "clock.stepped"})
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
        """List the stream files, oldest first."""
        return stream_files(self._directory)

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
        logs = ScopeLogs(
            scope=InstrumentationScope(name="cedarbox.audit"), log_records=[_event(line, stream, now) for line in lines]
        )
        resource = Resource(attributes=[_text("service.name", "cedarbox"), _text("cedarbox.ledger.stream", stream)])
        return ExportLogsServiceRequest(
            resource_logs=[ResourceLogs(resource=resource, scope_logs=[logs])]
        ).SerializeToString()


def _event(line: bytes, stream: str, now: int) -> LogRecord:
    body = AnyValue(string_value=line[:-1].decode(errors="replace"))
    try:
        fields, digest = parse_line(line)
    except LedgerError:
        return LogRecord(
            observed_time_unix_nano=now,
            severity_number=SEVERITY_NUMBER_WARN,
            severity_text="WARN",
            event_name="cedarbox.malformed",
            body=body,
        )
    warn = fields["decision"] == "deny" or fields["event"] in _WARNINGS or bool(fields["errors"])
    return LogRecord(
        time_unix_nano=_nanoseconds(fields["time"]),
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
    yield _text("audit.record.id", f"{stream}/{fields['seq']}")
    yield KeyValue(key="audit.sequence.number", value=AnyValue(int_value=fields["seq"]))
    yield _text("audit.prev.hash", fields["prev"])
    yield _text("cedarbox.record.hash", digest)
    yield _text("cedarbox.event", fields["event"])
    for key in _TEXTS:
        if fields[key] is not None:
            yield _text(f"cedarbox.{key}", fields[key])
    if fields["outcome"] is not None:
        yield _text("audit.outcome", fields["outcome"])
    for key in ("policies", "errors"):
        if fields[key]:
            values = [AnyValue(string_value=item) for item in fields[key]]
            yield KeyValue(key=f"cedarbox.{key}", value=AnyValue(array_value=ArrayValue(values=values)))


def _text(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def _nanoseconds(text: str) -> int:
    seconds = int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
    return max(0, seconds * 1_000_000_000 + int(text[20:29]))
