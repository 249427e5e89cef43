"""What a change of policy takes: from the swap of the engine to the end of what it denies.

Run it: python -m tests.bench.bench_reload
Eight terminals of a guarded unix-local sandbox, that write all the time, are cut by a reload, round after round. Beside
it, in the same run, the SDK's own session ends as many, with no policy, no record and no question asked.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import tempfile
import time
from pathlib import Path

from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

_ROUNDS = 40
_TERMINALS = 8
_WRITES = "while :; do echo tick; sleep 0.01; done"
_FORBID = PERMIT_ALL + '@id("no") forbid (principal, action == Sandbox::Action::"openTerminal", resource);'


async def _open(session: SandboxSession) -> None:
    for _ in range(_TERMINALS):
        update = await session.pty_exec_start(_WRITES, tty=True, yield_time_s=0.25)
        assert update.process_id is not None


def _shown(name: str, seconds: list[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    return f"{name:28} median {statistics.median(ordered) * 1000:7.1f} ms  p99 {p99 * 1000:7.1f} ms  n {len(ordered)}"


async def _measure(directory: Path) -> tuple[list[float], list[float]]:
    guarded, bare = Guarded(directory), UnixLocalSandboxClient()
    cut: list[float] = []
    raw: list[float] = []
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    plain = await bare.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    async with session, plain:
        for _ in range(_ROUNDS):
            await _open(session)
            guarded.rewrite(_FORBID)
            change = await guarded.client.reload()
            assert len(change.cuts) == _TERMINALS
            cut += [one.seconds for one in change.cuts]
            guarded.rewrite(PERMIT_ALL)
            await guarded.client.reload()
            await _open(plain)
            started = time.monotonic()
            await plain.pty_terminate_all()
            raw.append(time.monotonic() - started)
    await guarded.client.delete(session)
    await bare.delete(plain)
    guarded.client.close()
    return cut, raw


def main() -> None:
    """Print both."""
    with tempfile.TemporaryDirectory() as directory:
        cut, raw = asyncio.run(_measure(Path(directory)))
    print(_shown("reload, to each cut", cut))
    print(_shown("bare, all terminals", raw))
    print(f"ratio of the medians {statistics.median(cut) / statistics.median(raw):.2f}")


if __name__ == "__main__":
    main()
