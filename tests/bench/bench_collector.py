"""Records a second of the collector, beside bare inserts into SQLite with the same durability, in one run.

Usage: python -m tests.bench.bench_collector [records]
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import grpc
import httpx
from tests.unit.collected import decision, ledger_lines, ledger_request

from cedarbox.collector import EmbeddedCollector, Store

BATCH = 512
EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"


def bare(directory: Path, bodies: Sequence[Sequence[str]]) -> None:
    """One table without an index, a commit for each batch."""
    db = sqlite3.connect(directory / "bare.db", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE logs (id INTEGER PRIMARY KEY, body TEXT)")
    for batch in bodies:
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO logs VALUES (NULL, ?)", [(body,) for body in batch])
        db.execute("COMMIT")
    db.close()


def shared(batches: Sequence[bytes], senders: int, send: Callable[[bytes], object]) -> None:
    parts = [batches[number::senders] for number in range(senders)]
    threads = [threading.Thread(target=lambda part: [send(batch) for batch in part], args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def by_http(directory: Path, batches: Sequence[bytes], senders: int) -> None:
    headers = {"content-type": "application/x-protobuf"}
    with (
        EmbeddedCollector(directory, port=0) as collector,
        httpx.Client(base_url=collector.url, trust_env=False, timeout=60) as client,
    ):
        shared(
            batches,
            senders,
            lambda batch: client.post("/v1/logs", content=batch, headers=headers).raise_for_status(),
        )


def by_grpc(directory: Path, batches: Sequence[bytes], senders: int) -> None:
    with EmbeddedCollector(directory, port=0, grpc_port=0) as collector:
        channel: Any = grpc.insecure_channel(collector.grpc_endpoint or "")
        with channel:
            export = channel.unary_unary(EXPORT)
            shared(batches, senders, export)


def main() -> None:
    records = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    lines = ledger_lines(
        decision(number, session=f"s{number // 200}", trace_id=f"{number // 40 + 1:032x}") for number in range(records)
    )
    groups = [lines[first : first + BATCH] for first in range(0, records, BATCH)]
    requests = [ledger_request(group) for group in groups]
    batches = [request.SerializeToString() for request in requests]
    bodies = [[line.decode() for line in group] for group in groups]

    def stored(directory: Path) -> None:
        with Store(directory) as store:
            for request in requests:
                store.add_logs(request)

    runs: list[tuple[str, Callable[[Path], None]]] = [
        ("bare inserts, one table, no index", lambda directory: bare(directory, bodies)),
        ("Store.add_logs", stored),
        ("HTTP, 1 sender", lambda directory: by_http(directory, batches, 1)),
        ("HTTP, 4 senders", lambda directory: by_http(directory, batches, 4)),
        ("gRPC, 1 sender", lambda directory: by_grpc(directory, batches, 1)),
        ("gRPC, 4 senders", lambda directory: by_grpc(directory, batches, 4)),
    ]
    print("Senders and collector are one process here; the CPU time is that of both.")
    print(f"{records} records of {len(lines[-1])} bytes, {BATCH} in a request, each request committed with an fsync")
    for name, run in runs:
        with tempfile.TemporaryDirectory() as directory:
            begin, used = perf_counter(), process_time()
            run(Path(directory))
            seconds, used = perf_counter() - begin, process_time() - used
        print(f"{name:36} {records / seconds:10,.0f} records/s  {records / used:10,.0f} records per CPU second")


if __name__ == "__main__":
    main()
