"""The files that hold ended spans, and metrics, until a collector has acknowledged them: an OTLP/JSON request a line.

A spool is not evidence, the ledger is: lines are written without fsync, and a line that cannot be written is counted
and dropped rather than failing the run.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from cedarbox.errors import HostError
from cedarbox.telemetry.encode import span_line
from cedarbox.telemetry.otlp import merge_metrics, merge_traces

__all__ = ["Lines", "Spool", "SpoolSource", "prune"]

_NAME: Final = "spans"
_PATHS: Final = {"spans": "/v1/traces", "metrics": "/v1/metrics"}


class Lines:
    """Appends lines to ``<directory>/<kind>-<start>-<pid>-<random>.jsonl``, a file of this process.

    The file has mode 0600 and is locked (flock) while it is open, so that `prune` leaves it alone.

    Args:
        directory: Made with mode 0700 when missing.
        kind: ``spans`` or ``metrics``.

    Raises:
        HostError: The directory or the file cannot be made.
    """

    def __init__(self, directory: Path, kind: str) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.path = directory / f"{kind}-{stamp}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        self.dropped = 0
        self._lock = threading.Lock()
        self._torn = False
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise HostError(
                f"{directory}: {kind} cannot be kept here: {error.strerror}", hint="choose a directory you can write to"
            ) from error

    def append(self, line: bytes) -> bool:
        """Append one line; count it as dropped when it is empty, on a full disk, and after `close`.

        Returns:
            Whether it was written.
        """
        with self._lock:
            if self._fd < 0 or not line:
                self.dropped += 1
                return False
            # After a short write the rest of that line is missing: end it, so that only it is lost.
            data = b"\n" + line if self._torn else line
            try:
                written = os.write(self._fd, data)
            except OSError:
                written = 0
            if written < len(data):
                self._torn = self._torn or written > 0
                self.dropped += 1
                return False
            self._torn = False
            return True

    def close(self) -> None:
        """Close the file. Idempotent."""
        with self._lock:
            if self._fd < 0:
                return
            fd, self._fd = self._fd, -1
            os.close(fd)


class Spool(SpanProcessor):
    """Appends each ended span of this process to a file of its own.

    Args:
        directory: Made with mode 0700 when missing.

    Raises:
        HostError: The directory or the file cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self._lines = Lines(directory, _NAME)
        self.path = self._lines.path

    @property
    def dropped(self) -> int:
        """How many spans could not be written."""
        return self._lines.dropped

    def on_end(self, span: ReadableSpan) -> None:
        """Append one span; count it as dropped when it cannot be written or encoded."""
        try:
            line = span_line(span)
        except (TypeError, ValueError):
            line = b""
        self._lines.append(line)

    def shutdown(self) -> None:
        """Close the file."""
        self._lines.close()


class SpoolSource:
    """A kind of spool files as a source of the shipper.

    Attributes:
        name: ``spans`` or ``metrics``.
        path: OTLP/HTTP path, ``/v1/traces`` or ``/v1/metrics``.
    """

    def __init__(self, directory: Path | None, kind: Literal["spans", "metrics"] = "spans") -> None:
        self.name: str = kind
        self.path = _PATHS[kind]
        self._directory = directory

    def streams(self) -> list[Path]:
        """Return the spool files, oldest first."""
        return sorted(self._directory.glob(f"{self.name}-*.jsonl")) if self._directory is not None else []

    def encode(self, lines: Sequence[bytes], stream: str) -> bytes:
        """Return what these lines hold as one protobuf export request; unreadable lines are left out.

        Args:
            lines: Lines of a spool file.
            stream: Not used: a span or a metric names its process itself, as ``service.instance.id``.
        """
        if self.name == _NAME:
            return merge_traces(lines).SerializeToString()
        return merge_metrics(lines).SerializeToString()


def prune(directory: Path, acknowledged: Callable[[str], int]) -> tuple[Path, ...]:
    """Remove the spool files of processes that have ended, where the collector has acknowledged every line.

    Args:
        directory: The spool directory.
        acknowledged: Gives the offset in bytes up to which the collector acknowledged a file, 0 when it acknowledged
            nothing. It is asked by the key that the shipper uses, ``spans/<file name>`` or ``metrics/<file name>``. A
            file that is not acknowledged to its last line end stays.

    Returns:
        The files that were removed.
    """
    return tuple(
        path
        for kind in sorted(_PATHS)
        for path in sorted(directory.glob(f"{kind}-*.jsonl"))
        if _prune_one(path, acknowledged(f"{kind}/{path.name}"))
    )


def _prune_one(path: Path, acknowledged: int) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if acknowledged < _whole_lines(fd):
            return False
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _whole_lines(fd: int) -> int:
    """Return the offset just after the last line feed: what a dead writer left after it is no line."""
    end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - 65_536)
        place = os.pread(fd, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
