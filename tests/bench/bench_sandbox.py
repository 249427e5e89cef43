"""Sandboxes on real BoxLite: what a fork and a resume cost against a cold start, and whether cycles leave anything.

Needs a machine whose KVM boots a BoxLite guest, or the rig::

    tests/rig/run --timeout 3000 -- python -m tests.bench.bench_sandbox starts
    tests/rig/run --timeout 3000 -- python -m tests.bench.bench_sandbox cycles --cycles 200
    tests/rig/run --timeout 600 -- python -m tests.bench.bench_sandbox files --megabytes 100
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec

from cedarbox import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, fork

__all__ = ["main"]


def _options(layout: Path) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(rootfs=str(layout), cpus=1, memory_mib=256, boot_timeout_s=240.0)


async def _gone(client: BoxLiteSandboxClient, session: SandboxSession) -> None:
    await session.shutdown()
    await client.delete(session)


async def starts(layout: Path, forks: int, times: int) -> None:
    """Time cold starts, resumes and forks in one run, and print them as ratios to the cold start."""
    with tempfile.TemporaryDirectory() as scratch:
        home, place = Path(scratch) / "home", Path(scratch) / "references"
        client = BoxLiteSandboxClient(home=home)
        try:
            begun = time.monotonic()
            session = await client.create(options=_options(layout), snapshot=LocalSnapshotSpec(base_path=place))
            await session.start()
            print(f"first start, image unpacked: {time.monotonic() - begun:.1f} s", flush=True)
            cold = []
            for _ in range(times):
                other = await client.create(options=_options(layout), snapshot=NoopSnapshotSpec())
                begun = time.monotonic()
                await other.start()
                cold.append(time.monotonic() - begun)
                await _gone(client, other)
            base = statistics.median(cold)
            print(f"cold start: median {base:.2f} s of {_list(cold)}", flush=True)
            await session.exec("head -c 20000000 /dev/urandom >parent; sha256sum parent >parent.sum")
            begun = time.monotonic()
            await session.stop()
            saved = time.monotonic() - begun
            begun = time.monotonic()
            assert (await session.exec("sha256sum -c parent.sum")).ok()
            print(f"snapshot: {saved / base:.2f} of a cold start; back to a command after it: "
                  f"{(time.monotonic() - begun) / base:.2f}", flush=True)  # fmt: skip
            state = client.serialize_session_state(session.state)
            await _gone(client, session)
            resumed = []
            for _ in range(times):
                again = await client.resume(client.deserialize_session_state(dict(state)))
                begun = time.monotonic()
                await again.start()
                resumed.append(time.monotonic() - begun)
                assert (await again.exec("sha256sum -c parent.sum")).ok()
                await _gone(client, again)
            print(f"resume: {statistics.median(resumed) / base:.2f} of a cold start, {_list(resumed)}", flush=True)
            begun = time.monotonic()
            made = await fork(client, client.deserialize_session_state(dict(state)), forks)
            spent = time.monotonic() - begun
            print(f"fork of {forks}: {spent:.1f} s, each {spent / forks / base:.2f} of a cold start", flush=True)
            for number, one in enumerate(made):
                assert (await one.exec("sha256sum -c parent.sum && ! ls only-* 2>/dev/null")).ok()
                await one.exec(f"echo {number} >only-{number}; sync")
            for number, one in enumerate(made):
                assert (await one.exec("ls only-*")).stdout == f"only-{number}\n".encode()
            print(f"each of the {forks} sees its parent's files and none of the others'", flush=True)
            for one in made:
                await _gone(client, one)
        finally:
            await client.close()


async def cycles(layout: Path, count: int) -> None:
    """Create, start, run a command and delete, over and over; print what is left at intervals."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        client = BoxLiteSandboxClient(home=home)
        try:
            print("cycle  files  disk_mb  processes  descriptors  threads  rss_mb  seconds", flush=True)
            begun = time.monotonic()
            for number in range(1, count + 1):
                session = await client.create(options=_options(layout), snapshot=NoopSnapshotSpec())
                await session.start()
                assert (await session.exec("echo", str(number), shell=False)).stdout == f"{number}\n".encode()
                await _gone(client, session)
                if number in (1, 2, 5) or number % 10 == 0:
                    await asyncio.sleep(1)
                    print(f"{number:5}  {_left(home)}  {time.monotonic() - begun:7.0f}", flush=True)
        finally:
            await client.close()


async def files(layout: Path, megabytes: int) -> None:
    """Write and read one large file, and print what that did to this process's memory."""
    with tempfile.TemporaryDirectory() as scratch:
        client = BoxLiteSandboxClient(home=Path(scratch) / "home")
        try:
            session = await client.create(options=_options(layout), snapshot=NoopSnapshotSpec())
            await session.start()
            block = os.urandom(1_000_000)
            with tempfile.TemporaryFile() as source:
                for _ in range(megabytes):
                    source.write(block)
                before = _peak_mb()
                source.seek(0)
                begun = time.monotonic()
                await session.write(Path("large"), cast("io.IOBase", source))
                written, between = time.monotonic() - begun, _peak_mb()
            begun = time.monotonic()
            actual = hashlib.sha256()
            with await session.read(Path("large")) as stream:
                while chunk := stream.read(1 << 20):
                    actual.update(chunk)
            read = time.monotonic() - begun
            expected = hashlib.sha256()
            for _ in range(megabytes):
                expected.update(block)
            same = actual.hexdigest() == expected.hexdigest()
            print(
                f"{megabytes} MB in: {written:.0f} s, out: {read:.0f} s, the same bytes: {same}, "
                f"peak memory of this process: {before:.0f} MB before, {between:.0f} MB after writing, "
                f"{_peak_mb():.0f} MB after reading",
                flush=True,
            )
            await _gone(client, session)
        finally:
            await client.close()


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _left(home: Path) -> str:
    # The log grows by lines, and it is one file; the databases are BoxLite's own.
    files = [path for path in home.rglob("*") if path.is_file() and "images" not in path.parts]
    disk = sum(path.stat().st_blocks * 512 for path in files if "logs" not in path.parts) / 1e6
    me = Path("/proc/self")
    children = sum(1 for path in Path("/proc").glob("[0-9]*") if _mentions(path, home))
    status = dict(line.split(":", 1) for line in (me / "status").read_text().splitlines())
    rss = int(status["VmRSS"].split()[0]) / 1000
    descriptors = sum(1 for _ in (me / "fd").iterdir())
    return f"{len(files):5}  {disk:7.1f}  {children:9}  {descriptors:11}  {int(status['Threads']):7}  {rss:6.1f}"


def _mentions(process: Path, home: Path) -> bool:
    try:
        return str(home).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


def _list(seconds: list[float]) -> str:
    return "[" + ", ".join(f"{value:.2f}" for value in seconds) + "]"


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="tests.bench.bench_sandbox", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["starts", "cycles", "files"])
    parser.add_argument("--layout", type=Path, default=os.environ.get("CEDARBOX_TEST_LAYOUT"), help="OCI layout")
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--forks", type=int, default=8)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    if given.layout is None:
        parser.error("give --layout, or CEDARBOX_TEST_LAYOUT")
    if given.what == "files":
        asyncio.run(files(Path(given.layout), given.megabytes))
    elif given.what == "starts":
        asyncio.run(starts(Path(given.layout), given.forks, given.times))
    else:
        asyncio.run(cycles(Path(given.layout), given.cycles))


if __name__ == "__main__":
    main()
