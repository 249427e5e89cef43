"""The layout of the collector's file, and how it is opened.

What is filtered by is a column, so that no query has to read JSON. The long texts of a log record are in a table of
their own: a search over a million records then reads the narrow rows only.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from cedarbox.errors import HostError

__all__ = ["FILE_NAME", "VERSION", "open_reader", "open_writer"]

FILE_NAME: Final = "collector.db"

VERSION: Final = 2

_BUSY_SECONDS: Final = 10.0
"""How long to wait for another process that holds the file."""

_WAL_BYTES: Final = 64 * 1024 * 1024
"""The write-ahead log is cut back to this size once its content is in the file."""

_INCREMENTAL: Final = 2  # PRAGMA auto_vacuum: 0 none, 1 full, 2 incremental

_SCHEMA: Final = (
    "CREATE TABLE resources (id INTEGER PRIMARY KEY, attributes TEXT NOT NULL UNIQUE)",
    # `family` is the part of the ledger's event before its dot, `decision_seq` the decision that a record belongs to.
    """CREATE TABLE logs (
        id INTEGER PRIMARY KEY, received_ns INTEGER NOT NULL, time_ns INTEGER NOT NULL, event TEXT NOT NULL,
        severity INTEGER NOT NULL, ledger TEXT NOT NULL, record_id TEXT, digest BLOB NOT NULL, trace_id TEXT,
        span_id TEXT, stream TEXT, seq INTEGER, family TEXT, kind TEXT, decision TEXT, action TEXT, session TEXT,
        principal TEXT, run TEXT, tool TEXT, resource TEXT, outcome TEXT, policies TEXT, decision_seq INTEGER,
        conflict INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE texts (
        id INTEGER PRIMARY KEY, body TEXT NOT NULL, attributes TEXT NOT NULL, resource INTEGER NOT NULL)""",
    "CREATE INDEX texts_by_resource ON texts (resource)",
    "CREATE UNIQUE INDEX logs_by_record ON logs (ledger, record_id, digest) WHERE record_id IS NOT NULL",
    "CREATE INDEX logs_by_time ON logs (time_ns, id)",
    "CREATE INDEX logs_by_family ON logs (family, time_ns, id) WHERE family IS NOT NULL",
    "CREATE INDEX logs_by_event ON logs (event, time_ns, id)",
    "CREATE INDEX logs_by_trace ON logs (trace_id, time_ns, id) WHERE trace_id IS NOT NULL",
    "CREATE INDEX logs_by_session ON logs (session, time_ns, id) WHERE session IS NOT NULL",
    "CREATE INDEX logs_by_run ON logs (run, time_ns, id) WHERE run IS NOT NULL",
    "CREATE INDEX logs_by_denial ON logs (time_ns, id) WHERE decision = 'deny'",
    "CREATE INDEX logs_by_action ON logs (action, time_ns, id) WHERE action IS NOT NULL",
    "CREATE INDEX logs_by_decision ON logs (stream, decision_seq) WHERE decision_seq IS NOT NULL",
    "CREATE INDEX logs_checkpoints ON logs (ledger, stream, seq) WHERE family = 'checkpoint'",
    "CREATE INDEX logs_plain ON logs (id) WHERE family IS NULL",
    "CREATE INDEX logs_conflicts ON logs (id) WHERE conflict = 1",
    """CREATE TABLE log_policies (
        policy TEXT, time_ns INTEGER, id INTEGER, PRIMARY KEY (policy, time_ns, id)) WITHOUT ROWID""",
    "CREATE INDEX log_policies_by_log ON log_policies (id)",
    # The sequence numbers of a stream that arrived, as disjoint ranges: what is missing is what is between them.
    """CREATE TABLE ranges (
        ledger TEXT, stream TEXT, first INTEGER, last INTEGER NOT NULL, PRIMARY KEY (ledger, stream, first))
        WITHOUT ROWID""",
    """CREATE TABLE spans (
        id INTEGER PRIMARY KEY, received_ns INTEGER NOT NULL, trace_id TEXT NOT NULL, span_id TEXT NOT NULL,
        parent_id TEXT, name TEXT NOT NULL, kind INTEGER NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
        status INTEGER NOT NULL, message TEXT NOT NULL, attributes TEXT NOT NULL, events TEXT,
        links TEXT, resource INTEGER NOT NULL)""",
    "CREATE UNIQUE INDEX spans_by_id ON spans (trace_id, span_id)",
    "CREATE INDEX spans_by_resource ON spans (resource)",
    """CREATE TABLE runs (
        trace_id TEXT PRIMARY KEY, received_ns INTEGER NOT NULL, name TEXT NOT NULL, rooted INTEGER NOT NULL,
        start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, spans INTEGER NOT NULL, errors INTEGER NOT NULL,
        logs INTEGER NOT NULL, denials INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX runs_by_start ON runs (start_ns, trace_id)",
    "CREATE INDEX runs_by_arrival ON runs (received_ns)",
    """CREATE TABLE series (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL, description TEXT NOT NULL,
        temporality INTEGER NOT NULL, monotonic INTEGER NOT NULL, attributes TEXT NOT NULL, resource INTEGER NOT NULL,
        UNIQUE (name, kind, unit, temporality, monotonic, attributes, resource))""",
    "CREATE INDEX series_by_resource ON series (resource)",
    """CREATE TABLE points (
        series INTEGER, time_ns INTEGER, received_ns INTEGER NOT NULL, start_ns INTEGER NOT NULL, value REAL,
        count INTEGER, detail TEXT, PRIMARY KEY (series, time_ns)) WITHOUT ROWID""",
    "CREATE INDEX points_by_arrival ON points (received_ns)",
    """CREATE TABLE dropped (
        what TEXT, reason TEXT, rows INTEGER NOT NULL, last_ns INTEGER NOT NULL, oldest_ns INTEGER NOT NULL,
        newest_ns INTEGER NOT NULL, PRIMARY KEY (what, reason)) WITHOUT ROWID""",
    f"PRAGMA user_version = {VERSION}",
)


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, and make it when it is missing (mode 0600, its directory 0700).

    Raises:
        HostError: It cannot be used, or another version of cedarbox made it.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise HostError(
            f"{path}: the collector cannot keep its data here: {error}", hint="choose a directory you can write to"
        ) from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise HostError(
            f"{path}: not a usable collector file: {error}", hint="move it away, a new one is made"
        ) from error
    except HostError:
        db.close()
        raise
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading only. It must be there, made by `open_writer`.

    Raises:
        HostError: It cannot be read.
    """
    try:
        db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA query_only = ON")
        db.execute("PRAGMA mmap_size = 1073741824")
    except sqlite3.Error as error:
        raise HostError(f"{path}: could not be read: {error}", hint="check the file") from error
    return db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in {0, VERSION}:
        raise HostError(
            f"{path}: made by another version of cedarbox (layout {version}, this one writes {VERSION})",
            hint="move the file away, or name another directory; the ledger keeps the records all the same",
        )
    if version == 0 and db.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone() is not None:
        raise HostError(
            f"{path}: another program made this file",
            hint="name another directory; it is left as it is",
        )
    if version == 0:
        # It has to be said before the first table, and before the write-ahead log.
        db.execute(f"PRAGMA auto_vacuum = {_INCREMENTAL}")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    db.execute("PRAGMA cache_size = -65536")
    db.execute("BEGIN IMMEDIATE")
    try:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        for statement in _SCHEMA if version == 0 else ():
            db.execute(statement)
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
