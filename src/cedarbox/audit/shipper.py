"""The shipper: sends what is on disk to a collector by OTLP over HTTP, and remembers what was acknowledged.

What counts is on disk before the shipper sees it, so the shipper may be late, or die: it goes on from its place. It
sends every line at least once. A line that is sent again carries the same ``audit.record.id``. A batch counts as
acknowledged only when the collector answers 200 and rejects nothing; otherwise the whole batch is sent again.
"""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from cedarbox.audit.files import stream_of
from cedarbox.audit.otlp import LedgerSource
from cedarbox.audit.place import Place
from cedarbox.errors import CedarboxError, ConfigurationError, LedgerError
from cedarbox.files import open_regular

__all__ = ["LedgerSource", "Shipper", "Source"]

_BATCH_LINES: Final = 512
_BATCH_BYTES: Final = 1024 * 1024
_CHUNK: Final = 1024 * 1024
_POLL_SECONDS: Final = 0.2
_FIRST_BACKOFF: Final = 0.1
_LAST_BACKOFF: Final = 30.0
_REQUEST_SECONDS: Final = 10.0


class Source(Protocol):
    """Lines on disk that go to a collector. The files only grow, line by line."""

    @property
    def name(self) -> str:
        """Short name, part of the keys in the place file."""
        ...

    @property
    def path(self) -> str:
        """OTLP path: ``/v1/logs`` or ``/v1/traces``."""
        ...

    def streams(self) -> list[Path]:
        """List the files."""
        ...

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        """Make the protobuf request for lines with their line feeds. ``stream`` is the file name to its first dot."""
        ...


@dataclass(frozen=True, slots=True)
class _Backlog:
    """A file with its key in the place file and how far it was acknowledged."""

    source: Source
    file: Path
    key: str
    offset: int


class _RefusedError(CedarboxError):
    """The collector did not take a batch."""


class Shipper:
    """Ships in a thread of its own. Nothing that goes wrong here fails or delays the run.

    Args:
        endpoint: Base URL of the collector, such as ``http://127.0.0.1:4318``.
        sources: What to ship.
        place: JSON file with the acknowledged offset of each stream; made when missing.
        headers: Further HTTP headers, for authentication say.

    Raises:
        ConfigurationError: The endpoint is no http or https URL.
    """

    def __init__(
        self, endpoint: str, sources: Sequence[Source], *, place: Path, headers: Mapping[str, str] | None = None
    ) -> None:
        parts = urlsplit(endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(
                f"{endpoint!r} is no address of a collector", hint='give one like "http://127.0.0.1:4318"'
            )
        self._endpoint, self._sources = endpoint.rstrip("/"), tuple(sources)
        self._headers = dict(headers or {}) | {
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
        }
        self._place = Place(place)
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_error = ""

    @property
    def last_error(self) -> str:
        """Why the last attempt failed; empty after a success."""
        return self._last_error

    @property
    def pending(self) -> int:
        """Number of lines that are on disk and not acknowledged.

        Raises:
            LedgerError: The files cannot be read.
        """
        return sum(_complete(backlog.file, backlog.offset)[1] for backlog in self._backlogs())

    def start(self) -> None:
        """Start the thread; nothing happens when it runs already."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="cedarbox-shipper", daemon=True)
            self._thread.start()

    def flush(self, timeout: float) -> bool:
        """Wait until all that is on disk now has been acknowledged.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            True when it has been; False also when the files cannot be read.
        """
        deadline = monotonic() + timeout
        try:
            targets = {backlog.key: _complete(backlog.file, backlog.offset)[0] for backlog in self._backlogs()}
        except (OSError, CedarboxError) as error:
            self._last_error = str(error)
            return False
        self._wake.set()
        with self._changed:
            return self._changed.wait_for(
                lambda: all(self._place.offset(key) >= target for key, target in targets.items()),
                max(0.0, deadline - monotonic()),
            )

    def stop(self, timeout: float = 5.0) -> bool:
        """Flush, then end the thread.

        Args:
            timeout: Seconds to wait at most for the flush.

        Returns:
            True when all that was on disk has been acknowledged. What has not been is sent after the next start.
        """
        thread = self._thread
        done = self.flush(timeout if thread is not None and thread.is_alive() else 0.0)
        self._stopping.set()
        self._wake.set()
        if thread is not None:
            thread.join(1.0)  # it may sit in a request to a collector that hangs; it is a daemon
        return done

    def _backlogs(self) -> list[_Backlog]:
        result = []
        for source in self._sources:
            for file in source.streams():
                key = f"{source.name}/{file.name}"
                result.append(_Backlog(source, file, key, self._place.offset(key)))
        return result

    def _run(self) -> None:
        backoff = _FIRST_BACKOFF
        with httpx.Client(trust_env=False, timeout=_REQUEST_SECONDS, headers=self._headers) as client:
            while not self._stopping.is_set():
                failed, sent = self._round(client)
                if failed:
                    self._rest(backoff)
                    backoff = min(backoff * 2, _LAST_BACKOFF)
                    continue
                backoff = _FIRST_BACKOFF
                if not sent:
                    self._rest(_POLL_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Wait; a flush or a stop ends the wait at once."""
        self._wake.wait(seconds)
        self._wake.clear()

    def _round(self, client: httpx.Client) -> tuple[bool, bool]:
        """Send one batch of each stream. Gives whether any failed, and whether any was sent."""
        failed = sent = False
        try:
            backlogs = self._backlogs()
        except (OSError, CedarboxError) as error:
            self._last_error = str(error)
            return True, False
        for backlog in backlogs:
            if self._stopping.is_set():
                break
            try:
                sent = self._ship(client, backlog) or sent
            except httpx.HTTPError as error:
                self._last_error = f"{self._endpoint}: {type(error).__name__}: {error}"
                return True, sent  # the collector is away, for the other streams too
            except Exception as error:  # noqa: BLE001 - a source of any kind must not end the thread
                self._last_error = f"{backlog.key}: {error}"
                failed = True
        if not failed:
            self._last_error = ""
        return failed, sent

    def _ship(self, client: httpx.Client, backlog: _Backlog) -> bool:
        """Send one batch and remember the answer. Gives False when there is nothing to send."""
        if backlog.file.stat().st_size <= backlog.offset:
            return False
        lines = _read(backlog.file, backlog.offset)
        if not lines:
            return False
        body = gzip.compress(backlog.source.encode(lines, stream_of(backlog.file)), compresslevel=1, mtime=0)
        answer = client.post(f"{self._endpoint}{backlog.source.path}", content=body)
        _check_answer(answer, backlog.source.path)
        with self._changed:
            self._place.advance(backlog.key, backlog.offset + sum(map(len, lines)))
            self._changed.notify_all()
        return True


def _check_answer(answer: httpx.Response, path: str) -> None:
    """Take only a full acknowledgement.

    Raises:
        _RefusedError: The status is not 200, the body is no OTLP answer, or something was rejected.
    """
    if answer.status_code != httpx.codes.OK:
        raise _RefusedError(f"the collector answered {answer.status_code}")
    try:
        if path == "/v1/logs":
            logs = ExportLogsServiceResponse.FromString(answer.content).partial_success
            rejected, reason = logs.rejected_log_records, logs.error_message
        else:
            spans = ExportTraceServiceResponse.FromString(answer.content).partial_success
            rejected, reason = spans.rejected_spans, spans.error_message
    except DecodeError as error:
        raise _RefusedError("the answer of the collector is not OTLP protobuf") from error
    if rejected:
        raise _RefusedError(f"the collector rejected {rejected} of a batch: {reason!a}")


def _read(file: Path, offset: int) -> list[bytes]:
    """Read whole lines from an offset, a batch at most; one line at least when it is whole."""
    lines: list[bytes] = []
    size = 0
    with open_regular(file) as stream:
        stream.seek(offset)
        while len(lines) < _BATCH_LINES and size < _BATCH_BYTES:
            line = stream.readline()
            if not line.endswith(b"\n"):
                break
            lines.append(line)
            size += len(line)
    return lines


def _complete(file: Path, offset: int) -> tuple[int, int]:
    """Give where the last whole line after an offset ends, and how many whole lines there are after it."""
    end, count = offset, 0
    try:
        with open_regular(file) as stream:
            position = stream.seek(offset)
            while chunk := stream.read(_CHUNK):
                last = chunk.rfind(b"\n")
                if last >= 0:
                    end, count = position + last + 1, count + chunk.count(b"\n")
                position += len(chunk)
    except OSError as error:
        raise LedgerError(f"{file}: the stream cannot be read: {os.strerror(error.errno or 0)}") from error
    return end, count
