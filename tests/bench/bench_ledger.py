"""Measure the ledger against a bare write and fdatasync of the same bytes, in the same run on the same disk.

Usage: python -m tests.bench.bench_ledger [--directory DIR] [--records N] [--verify N] [--execs N] [--rounds N]

The ratios are what counts: the absolute figures are those of the disk, and of whatever else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.guarded import Guarded

from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.verify import verify_ledger

ENTRY = Entry(
    event="decision",
    session="s-3f0c",
    run="r-91aa",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    principal='Agent::"local-coder"',
    tool="exec_command",
    call_id="call_0001",
    action="connect",
    resource='Host::"mirror.corp.example"',
    decision="allow",
    policies=("internal-mirror.0",),
    bundle="sha256:" + "ab" * 32,
    attrs={"port": 443, "protocol": "tcp"},
)


def run_threads(writers: int, records: int, step: Callable[[], object]) -> tuple[float, float, float]:
    """Give steps per second, and the median and 99th percentile of one step in milliseconds."""
    times: list[float] = []

    def work() -> None:
        own = []
        for _ in range(records // writers):
            start = perf_counter()
            step()
            own.append(perf_counter() - start)
        times.extend(own)

    threads = [threading.Thread(target=work) for _ in range(writers)]
    start = perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = perf_counter() - start
    return len(times) / passed, *percentiles(times)


def percentiles(times: list[float]) -> tuple[float, float]:
    """Give the median and the 99th percentile, in milliseconds."""
    ordered = sorted(times)
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3


def run_tasks(ledger: Ledger, tasks: int, records: int) -> float:
    """Give records per second of that many asyncio tasks."""

    async def work() -> None:
        for _ in range(records // tasks):
            await ledger.record(ENTRY)

    async def main() -> float:
        start = perf_counter()
        await asyncio.gather(*(work() for _ in range(tasks)))
        return records // tasks * tasks / (perf_counter() - start)

    return asyncio.run(main())


def bench_appends(place: Path, records: int, verify: int) -> None:
    """Print rate and latency of the ledger and of a bare write, with 1, 8 and 64 writers."""
    with Ledger.open(place / "size") as ledger:
        line = ledger.append(ENTRY).to_line()
    descriptor = os.open(place / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def bare() -> None:
        os.write(descriptor, line)
        os.fdatasync(descriptor)

    print(f"{len(line)} bytes per record; ratio: ledger to bare write and fdatasync by as many writers")
    print(f"{'':24}{'per s':>10}{'p50 ms':>10}{'p99 ms':>10}{'rate ratio':>12}{'p50 ratio':>12}{'p99 ratio':>12}")
    with Ledger.open(place / "ledger") as ledger:
        for writers in (1, 8, 64):
            wanted = records * min(writers, 8)
            before = run_threads(writers, wanted // 2, bare)
            ours = run_threads(writers, wanted, partial(ledger.append, ENTRY))
            after = run_threads(writers, wanted // 2, bare)
            base = [(a + b) / 2 for a, b in zip(before, after, strict=True)]
            ratios = "".join(f"{a / b:12.2f}" for a, b in zip(ours, base, strict=True))
            print(f"{f'bare, writers: {writers}':24}{base[0]:10.0f}{base[1]:10.3f}{base[2]:10.3f}")
            print(f"{f'ledger, writers: {writers}':24}{ours[0]:10.0f}{ours[1]:10.3f}{ours[2]:10.3f}{ratios}")
        print(f"{'ledger, 64 asyncio tasks':24}{run_tasks(ledger, 64, records * 8):10.0f}")
        run_tasks(ledger, 512, verify)
    os.close(descriptor)
    start = perf_counter()
    report = verify_ledger(place / "ledger")
    passed = perf_counter() - start
    print(f"verify: {report.records} records, {report.records / passed:.0f} per s, ok: {report.ok}")


def bench_openings(place: Path, rounds: int) -> None:
    """Print what opening and closing cost, with a short index and with the one that these rounds made."""
    opened, closed = [], []
    for _ in range(rounds):
        start = perf_counter()
        ledger = Ledger.open(place / "openings")
        middle = perf_counter()
        ledger.close()
        opened.append(middle - start)
        closed.append(perf_counter() - middle)
    tenth = max(1, rounds // 10)
    for name, times in (("open", opened), ("close", closed)):
        p50, p99 = percentiles(times)
        early, late = median(times[:tenth]) * 1e3, median(times[-tenth:]) * 1e3
        print(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms; first tenth {early:.2f} ms, last tenth {late:.2f} ms")
    print(f"index: {(place / 'openings' / 'index.jsonl').stat().st_size / rounds:.0f} bytes per opening and closing")


async def bench_execs(place: Path, execs: int) -> None:
    """Print what an exec costs with decision and outcome on record, against the bare unix-local client."""
    clients = {"bare": UnixLocalSandboxClient(), "guarded": (guarded := Guarded(place / "guarded")).client}
    sessions: dict[str, SandboxSession] = {}
    for name, client in clients.items():
        sessions[name] = await client.create(snapshot=NoopSnapshotSpec(), manifest=None, options=None)
        await sessions[name].start()
    times: dict[str, list[float]] = {name: [] for name in clients}
    for _ in range(execs):
        for name, session in sessions.items():  # in turns: whatever else the machine does meets both
            start = perf_counter()
            result = await session.exec("true")
            times[name].append(perf_counter() - start)
            assert result.exit_code == 0
    records: list[float] = []
    for _ in range(execs):
        start = perf_counter()
        await guarded.client.ledger.record(ENTRY)
        records.append(perf_counter() - start)
    for name, session in sessions.items():
        await session.shutdown()
        await clients[name].delete(session)
    guarded.client.close()
    bare, ours = percentiles(times["bare"]), percentiles(times["guarded"])
    print(f"exec, bare unix-local:    p50 {bare[0]:.2f} ms, p99 {bare[1]:.2f} ms")
    print(f"exec, guarded unix-local: p50 {ours[0]:.2f} ms, p99 {ours[1]:.2f} ms; ratio of p50 {ours[0] / bare[0]:.2f}")
    share = 2 * percentiles(records)[0]
    print(f"of that, two records at {share / 2:.2f} ms: {share / ours[0]:.0%} of the guarded exec")


def run(step: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function to its end."""

    async def main() -> None:
        await step()

    asyncio.run(main())


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--verify", type=int, default=50_000, help="records for the verifier")
    parser.add_argument("--execs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=200, help="openings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        bench_appends(Path(name), options.records, options.verify)
        bench_openings(Path(name), options.rounds)
        run(partial(bench_execs, Path(name), options.execs))


if __name__ == "__main__":
    main()
