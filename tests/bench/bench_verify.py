"""Measure the verifier against the least that any verifier does: parse each line as JSON and hash it.

Usage: python tests/bench/bench_verify.py [--directory DIR] [--records N] [--keep]

The ledger is written by the writer: decisions and outcomes as an agent's run has them, in segments of the usual size.
Times are those of the processor, on one core; the ratio is what counts, the absolute figures are those of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
from hashlib import sha256
from pathlib import Path
from time import perf_counter, process_time

import orjson

from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry
from cedarbox.audit.verify import verify_ledger


def entry(number: int) -> Entry:
    """Give the entry of a decision or of an outcome; no two are the same."""
    call = f"call_{sha256(b'%d' % (number // 2)).hexdigest()[:24]}"
    trace = sha256(b"trace %d" % (number // 40)).hexdigest()[:32]
    span = sha256(b"span %d" % number).hexdigest()[:16]
    if number % 2:
        return Entry(
            event="outcome",
            session="s-3f0c91aa",
            run=f"r-{number // 4000:08x}",
            trace_id=trace,
            span_id=span,
            tool="exec_command",
            call_id=call,
            action="exec",
            outcome="exited" if number % 3 else "timed out",
            attrs={"exit_code": number % 7, "stdout_bytes": number * 37 % 65536, "duration_us": number * 911 % 900_000},
        )
    path = f"/workspace/src/module_{number % 997}/test_{number % 89}.py"
    return Entry(
        event="decision",
        session="s-3f0c91aa",
        run=f"r-{number // 4000:08x}",
        trace_id=trace,
        span_id=span,
        principal='Agent::"local-coder"',
        tool="exec_command",
        call_id=call,
        action="write" if number % 3 else "exec",
        resource=f'Path::"{path}"',
        decision="allow" if number % 11 else "deny",
        policies=("workspace-write.0",) if number % 11 else (),
        bundle="sha256:" + "ab" * 32,
        attrs={"argv": ["python3", "-m", "pytest", path], "argc": 4, "user": "sandbox"},
    )


async def write(ledger: Ledger, records: int) -> None:
    """Write records from many tasks, so that they share syncs."""
    numbers = iter(range(records))

    async def work() -> None:
        for number in numbers:
            await ledger.record(entry(number))

    await asyncio.gather(*(work() for _ in range(512)))


def bare(directory: Path) -> int:
    """Parse and hash every line; gives how many there are."""
    count = 0
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as file:
            for line in file:
                orjson.loads(line)
                sha256(line).digest()
                count += 1
    return count


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on a disk with 800 bytes for each record")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--keep", action="store_true", help="leave the ledger in DIR/verified, or use the one there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        place = (options.directory if options.keep else Path(name)) / "verified" / "ledger"
        if not place.exists():
            start = perf_counter()
            with Ledger.open(place) as ledger:
                asyncio.run(write(ledger, options.records))
            print(f"written in {perf_counter() - start:.0f} s")
        rates = {}
        for turn in range(2):  # the second turn finds the files in memory
            start = process_time()
            count = bare(place)
            rates["bare"] = count / (process_time() - start)
            start, wall = process_time(), perf_counter()
            report = verify_ledger(place)
            passed, waited = process_time() - start, perf_counter() - wall
            rates["verify"] = (report.records + report.index_records) / passed
            print(f"turn {turn + 1}: {report.records} records, ok: {report.ok}, {waited:.1f} s by the clock")
        size = sum(path.stat().st_size for path in place.glob("*.jsonl"))
        segments = len(list(place.glob("*.jsonl"))) - 1
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{size / count:.0f} bytes a record, {segments} segments, {report.checkpoints} notes")
        print(f"{memory:.0f} MiB of memory at most, this program's own included")
        print(f"JSON parse and SHA-256 alone: {rates['bare']:.0f} records a second")
        print(f"verify: {rates['verify']:.0f} records a second, ratio {rates['verify'] / rates['bare']:.2f}")


if __name__ == "__main__":
    main()
