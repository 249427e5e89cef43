"""What the collector throws away, and when: by age and by size, in the background, in small steps.

The host still holds its ledger; what is here is a copy. All the same the copy is evidence, so it goes last: by size,
metrics, spans and plain log records go before any record of a ledger, and those before any checkpoint. The latest
checkpoint of each stream stays, and age takes no checkpoint. Age is counted from the arrival: a sender cannot have a
record dropped by dating it back, nor kept by dating it ahead. What was dropped is counted in a table.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import time_ns
from typing import Any, Final

from cedarbox.collector.store import Store
from cedarbox.errors import CedarboxError, ConfigurationError
from cedarbox.times import duration_s

__all__ = ["Keeper", "Retention", "parse_age", "parse_size", "sweep"]

_INTERVAL_SECONDS: Final = 30.0
_ROWS: Final = 500
"""Rows that go in one transaction; senders wait for no more than that."""

_PAUSE_SECONDS: Final = 0.01
"""Pause between two steps; a lock alone would let this thread take it again before a sender does."""

_VACUUM_PAGES: Final = 2000
_TARGET: Final = 0.95
"""Part of the largest size that is left when it was exceeded, so that not every sweep has to drop something."""

_SIZES: Final = {
    "": 1,
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("kMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_MIN_SIZE: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Retention:
    """How long and how much is kept.

    Args:
        seconds: Largest age, from the arrival; None for any.
        size: Largest size of the content in bytes; None for any. The file can be larger for a while, by its free pages
            and by the write-ahead log.
    """

    seconds: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class _Cut:
    """Why something is dropped, when, and before which arrival; None for the oldest there is."""

    reason: str
    now: int
    before: int | None


def parse_age(text: str) -> int:
    """Read an age such as ``30d``: a whole number with s, m, h, d or w.

    Returns:
        Seconds.

    Raises:
        ConfigurationError: It is none.
    """
    seconds = duration_s(text)
    if not seconds:
        raise ConfigurationError(f"{text!r} is not an age", hint='write it like "30d": a number with s, m, h, d or w')
    return seconds


def parse_size(text: str) -> int:
    """Read a size such as ``2GiB``: a whole number with B, kB, MB, GB, TB, KiB, MiB, GiB or TiB; at least 1 MiB.

    Returns:
        Bytes.

    Raises:
        ConfigurationError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]{0,3})", text)
    size = int(match[1]) * _SIZES.get(match[2], 0) if match is not None else 0
    if size < _MIN_SIZE:
        raise ConfigurationError(f"{text!r} is not a size of 1 MiB or more", hint='write it like "2GiB" or "500MB"')
    return size


def sweep(
    store: Store, retention: Retention, *, now_ns: int | None = None, going_on: Callable[[], bool] = lambda: True
) -> int:
    """Drop what is too old or too much, and give the space back to the file system.

    Args:
        store: What to drop from.
        retention: How much to keep.
        now_ns: The time it is, in nanoseconds since 1970 UTC.
        going_on: Asked between two steps; when it says no, the rest waits for the next time.

    Returns:
        How many rows were dropped.

    Raises:
        HostError: The file cannot be written.
    """
    now, total = time_ns() if now_ns is None else now_ns, 0
    if retention.seconds is not None:
        cut = _Cut("age", now, now - retention.seconds * 1_000_000_000)
        for drop in (_points, _spans, _logs, _records):
            while going_on() and (dropped := store.write(partial(drop, cut=cut))):
                total += dropped
    if retention.size is not None and _used(store) > retention.size:
        cut = _Cut("size", now, None)
        for drop in (_points, _spans, _logs, _records, _checkpoints):
            while going_on() and _used(store) > retention.size * _TARGET:
                dropped = store.write(partial(drop, cut=cut))
                if not dropped:
                    break
                total += dropped
    while total and going_on() and store.write(_orphans):
        pass
    while going_on() and store.pragma("freelist_count"):
        before_pages = store.pragma("freelist_count")
        store.outside(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        if store.pragma("freelist_count") >= before_pages:
            break
    if total:
        store.outside("PRAGMA wal_checkpoint(PASSIVE)")
    return total


class Keeper:
    """Sweeps now and then, from a thread of its own.

    Args:
        store: What to sweep.
        retention: How much to keep.
        interval: Seconds between two sweeps.
    """

    def __init__(self, store: Store, retention: Retention, *, interval: float = _INTERVAL_SECONDS) -> None:
        self._store, self._retention, self._interval = store, retention, interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cedarbox-collector-retention", daemon=True)
        self.last_error = ""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the step under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                sweep(self._store, self._retention, going_on=self._going_on)
                self.last_error = ""
            except CedarboxError as error:
                self.last_error = str(error)
            self._stopping.wait(self._interval)

    def _going_on(self) -> bool:
        return not self._stopping.wait(_PAUSE_SECONDS)


def _used(store: Store) -> int:
    return (store.pragma("page_count") - store.pragma("freelist_count")) * store.pragma("page_size")


def _points(db: sqlite3.Connection, cut: _Cut) -> int:
    test, values = ("WHERE received_ns < ?", [cut.before]) if cut.before is not None else ("", [])
    rows = db.execute(
        f"SELECT series, time_ns, received_ns FROM points {test} ORDER BY received_ns LIMIT ?",  # noqa: S608 - fixed texts
        (*values, _ROWS),
    ).fetchall()
    db.executemany("DELETE FROM points WHERE series = ? AND time_ns = ?", [row[:2] for row in rows])
    return _note(db, "points", cut, [row[2] for row in rows])


def _spans(db: sqlite3.Connection, cut: _Cut) -> int:
    """Drop the runs that nothing arrived of for longest, span by span: in the end a tree is whole or gone."""
    test, values = ("WHERE received_ns < ?", [cut.before]) if cut.before is not None else ("", [])
    runs = db.execute(
        f"SELECT trace_id FROM runs {test} ORDER BY received_ns LIMIT ?",  # noqa: S608 - fixed texts
        (*values, _ROWS),
    ).fetchall()
    arrivals: list[int] = []
    ended = 0
    for (trace_id,) in runs:
        room = _ROWS - len(arrivals)
        rows = db.execute("SELECT id, received_ns FROM spans WHERE trace_id = ? LIMIT ?", (trace_id, room)).fetchall()
        db.executemany("DELETE FROM spans WHERE id = ?", [row[:1] for row in rows])
        arrivals += [row[1] for row in rows]
        if len(rows) == room:
            break
        db.execute("DELETE FROM runs WHERE trace_id = ?", (trace_id,))
        ended += 1
    _note(db, "spans", cut, arrivals)
    return len(arrivals) + ended


def _logs(db: sqlite3.Connection, cut: _Cut) -> int:
    return _drop_logs(db, "logs", "family IS NULL", cut)


def _records(db: sqlite3.Connection, cut: _Cut) -> int:
    return _drop_logs(db, "records", "family IS NOT NULL AND family <> 'checkpoint'", cut)


def _checkpoints(db: sqlite3.Connection, cut: _Cut) -> int:
    older = """family = 'checkpoint' AND EXISTS (SELECT 1 FROM logs n WHERE n.family = 'checkpoint'
        AND n.ledger = logs.ledger AND n.stream = logs.stream AND n.seq > logs.seq)"""
    return _drop_logs(db, "checkpoints", older, cut)


def _drop_logs(db: sqlite3.Connection, what: str, test: str, cut: _Cut) -> int:
    values: list[Any] = []
    if cut.before is not None:
        test, values = f"{test} AND received_ns < ?", [cut.before]
    rows = db.execute(
        f"SELECT id, received_ns FROM logs WHERE {test} ORDER BY id LIMIT ?",  # noqa: S608 - only fixed texts are joined
        (*values, _ROWS),
    ).fetchall()
    ids = [row[:1] for row in rows]
    for table in ("log_policies", "texts", "logs"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", ids)  # noqa: S608 - fixed names
    return _note(db, what, cut, [row[1] for row in rows])


def _orphans(db: sqlite3.Connection) -> int:
    """Drop series and resources that nothing refers to any more."""
    series = db.execute(
        """DELETE FROM series WHERE id IN (SELECT id FROM series s
            WHERE NOT EXISTS (SELECT 1 FROM points WHERE series = s.id) LIMIT ?)""",
        (_ROWS,),
    ).rowcount
    resources = db.execute(
        """DELETE FROM resources WHERE id IN (SELECT id FROM resources r
            WHERE NOT EXISTS (SELECT 1 FROM texts WHERE resource = r.id)
            AND NOT EXISTS (SELECT 1 FROM spans WHERE resource = r.id)
            AND NOT EXISTS (SELECT 1 FROM series WHERE resource = r.id) LIMIT ?)""",
        (_ROWS,),
    ).rowcount
    return series + resources


def _note(db: sqlite3.Connection, what: str, cut: _Cut, arrivals: list[int]) -> int:
    if arrivals:
        db.execute(
            """INSERT INTO dropped VALUES (?,?,?,?,?,?) ON CONFLICT (what, reason) DO UPDATE SET
                rows = rows + excluded.rows, last_ns = excluded.last_ns,
                oldest_ns = min(oldest_ns, excluded.oldest_ns), newest_ns = max(newest_ns, excluded.newest_ns)""",
            (what, cut.reason, len(arrivals), cut.now, min(arrivals), max(arrivals)),
        )
    return len(arrivals)
