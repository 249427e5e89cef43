"""Connections that only read, so that a page never waits for a sender, nor a sender for a page."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

from cedarbox.collector.schema import open_reader
from cedarbox.errors import ConfigurationError, HostError

__all__ = ["Reader"]

_KEPT: Final = 4
"""Connections that are kept open for the next query."""

_SECONDS: Final = 10.0
"""How long one query may take; a search that matches little may have to read everything."""

_STEPS: Final = 20_000
"""Virtual machine instructions between two looks at the clock."""


class Reader:
    """Runs queries on the file. Usable from several threads.

    Args:
        path: The file.
        seconds: How long one query may take.
    """

    def __init__(self, path: Path, *, seconds: float = _SECONDS) -> None:
        self.path, self._seconds = path, seconds
        self._free: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close the connections that are not in use; the others are closed when they are done. Idempotent."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for db in free:
            db.close()

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Give all rows of one query.

        Raises:
            ConfigurationError: It took too long.
            HostError: The file cannot be read.
        """
        with self._connection() as db:
            deadline = monotonic() + self._seconds
            db.set_progress_handler(lambda: monotonic() > deadline, _STEPS)
            try:
                return db.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                    raise ConfigurationError(
                        f"the search took longer than {self._seconds:g} s", hint="narrow it, by time for instance"
                    ) from None
                raise _unreadable(self.path, error) from error
            except sqlite3.Error as error:
                raise _unreadable(self.path, error) from error

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise HostError(f"{self.path}: could not be read: it is closed", hint="the collector has stopped")
            db = self._free.pop() if self._free else None
        if db is None:
            db = open_reader(self.path)
        try:
            yield db
        finally:
            with self._lock:
                keep = not self._closed and len(self._free) < _KEPT
                if keep:
                    self._free.append(db)
            if not keep:
                db.close()


def _unreadable(path: Path, error: sqlite3.Error) -> HostError:
    return HostError(f"{path}: could not be read: {error}", hint="check the file")
