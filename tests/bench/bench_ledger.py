"""Measure the ledger against a bare write and fdatasync of the same bytes, in the same run on the same disk.

Usage: python tests/bench/bench_ledger.py [--directory DIR] [--records N] [--verify N]

The ratios are what counts: the absolute figures are those of the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

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
    times.sort()
    return len(times) / passed, times[len(times) // 2] * 1e3, times[len(times) * 99 // 100] * 1e3


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


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to measure")
    parser.add_argument("--records", type=int, default=3000)
    parser.add_argument("--verify", type=int, default=50_000, help="records for the verifier")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        place = Path(name)
        with Ledger.open(place / "size") as ledger:
            line = ledger.append(ENTRY).to_line()
        descriptor = os.open(place / "bare", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def bare() -> None:
            os.write(descriptor, line)
            os.fdatasync(descriptor)

        print(f"{len(line)} bytes per record; ratio: ledger to bare write and fdatasync by one writer")
        print(f"{'':16}{'per s':>10}{'p50 ms':>10}{'p99 ms':>10}{'rate ratio':>12}{'p50 ratio':>12}")
        base, median, tail = run_threads(1, options.records, bare)
        print(f"{'bare, 1 writer':16}{base:10.0f}{median:10.3f}{tail:10.3f}{1:12.2f}{1:12.2f}")
        with Ledger.open(place / "ledger") as ledger:
            for writers in (1, 8, 64):
                records = options.records * min(writers, 8)
                rate, p50, p99 = run_threads(writers, records, partial(ledger.append, ENTRY))
                label = f"{writers} writer{'s' if writers > 1 else ''}"
                print(f"{label:16}{rate:10.0f}{p50:10.3f}{p99:10.3f}{rate / base:12.2f}{p50 / median:12.2f}")
            rate = run_tasks(ledger, 64, options.records * 8)
            print(f"{'64 asyncio tasks':16}{rate:10.0f}{'':20}{rate / base:12.2f}")
            run_tasks(ledger, 512, options.verify)
        os.close(descriptor)
        start = perf_counter()
        report = verify_ledger(place / "ledger")
        passed = perf_counter() - start
        print(f"verify: {report.records} records, {report.records / passed:.0f} per s, ok: {report.ok}")


if __name__ == "__main__":
    main()
