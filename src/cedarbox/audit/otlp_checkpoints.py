"""Signed checkpoints as OpenTelemetry log events.

A checkpoint that a collector on another host holds is an anchor: who has this host, its keys too, cannot take it back.
``cedarbox audit verify --anchor`` compares a ledger with what the collector has: a ledger that was cut is shorter than
it, and one that was written again has another root.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord

from cedarbox.audit.files import CHECKPOINTS, INDEX, is_stream_id, stream_of
from cedarbox.audit.notes import read_note, whole_notes
from cedarbox.audit.otlp import malformed, request_of, text_value
from cedarbox.errors import LedgerError

__all__ = ["CHECKPOINT_EVENT", "CheckpointSource"]

CHECKPOINT_EVENT: Final = "cedarbox.checkpoint"
"""Event name of a checkpoint."""


class CheckpointSource:
    """The signed checkpoints of a ledger as a source of the shipper, so that a copy of each is out of its reach.

    Each note is a log event ``cedarbox.checkpoint`` whose body is the exact text of the note. The unit of the files is
    a note with the empty line that follows it.

    Args:
        directory: The ledger.
    """

    name = "checkpoints"
    path = "/v1/logs"

    def __init__(self, directory: Path | str) -> None:
        self._directory = Path(directory)

    def streams(self) -> list[Path]:
        """List the checkpoint files.

        Raises:
            LedgerError: The directory cannot be read.
        """
        try:
            paths = sorted(path for path in self._directory.iterdir() if path.suffix == CHECKPOINTS)
        except OSError as error:
            raise LedgerError(f"{self._directory}: the ledger cannot be read: {error.strerror}") from error
        return [path for path in paths if is_stream_id(stream_of(path)) or path.stem == INDEX]

    def cut(self, data: bytes) -> list[bytes]:
        """Cut the whole notes off the beginning of some bytes, each with the empty line after it."""
        return [note + b"\n" for note in whole_notes(data)[0]]

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        """Make an OTLP request of some notes. One that is malformed is sent too, as ``cedarbox.malformed``.

        Args:
            lines: Notes, each with the empty line after it.
            stream: Id of the stream.
        """
        now = time.time_ns()
        return request_of(self._directory, stream, [_checkpoint(note[:-1], stream, now) for note in lines])


def _checkpoint(note: bytes, stream: str, now: int) -> LogRecord:
    body = AnyValue(string_value=note.decode(errors="replace"))
    try:
        head = read_note(note)
    except LedgerError:
        return malformed(body, now)
    return LogRecord(
        time_unix_nano=now,
        observed_time_unix_nano=now,
        severity_number=SEVERITY_NUMBER_INFO,
        severity_text="INFO",
        event_name="cedarbox.checkpoint",
        body=body,
        attributes=[
            text_value("audit.record.id", f"{stream}/checkpoint/{head.size}"),
            text_value("cedarbox.event", "checkpoint"),
            text_value("cedarbox.checkpoint.origin", head.origin),
            KeyValue(key="cedarbox.checkpoint.size", value=AnyValue(int_value=head.size)),
            text_value("cedarbox.checkpoint.root", head.root.hex()),
        ],
    )
