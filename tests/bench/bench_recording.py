"""What deciding, recording and showing costs a command in a real microVM, against the same command without cedarbox.

Needs a machine whose KVM boots a BoxLite guest, or the rig::

    tests/rig/run --timeout 900 -- python -m tests.bench.bench_recording --commands 60
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec

from cedarbox import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, PolicySandboxClient
from cedarbox.settings import load_settings

__all__ = ["main"]


async def _milliseconds(session: SandboxSession) -> float:
    begun = time.perf_counter()
    done = await session.exec("true")
    took = time.perf_counter() - begun
    assert done.exit_code == 0, done
    return took * 1000


async def compare(layout: Path, commands: int) -> None:
    """Run the same command in two microVMs of one home in turn, one of them guarded; print medians and ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        settings = load_settings(
            audit={"directory": place / "ledger"}, otlp={"endpoint": None, "spans": place / "spans"}
        )
        bare = BoxLiteSandboxClient(home=place / "home")
        options = BoxLiteSandboxClientOptions(
            rootfs=str(layout), cpus=1, memory_mib=256, boot_timeout_s=240.0, egress_mode="none"
        )
        guarded = PolicySandboxClient(bare, policies=Path("policies/airgapped"), settings=settings)
        sessions = []
        try:
            for client in (bare, guarded):
                session = await client.create(options=options, snapshot=NoopSnapshotSpec())
                sessions.append((client, session))
                await session.start()
            times: tuple[list[float], list[float]] = ([], [])
            for number in range(commands):
                for which, (_, session) in enumerate(sessions):
                    took = await _milliseconds(session)
                    if number >= 3:
                        times[which].append(took)
        finally:
            for client, session in sessions:
                await session.shutdown()
                await client.delete(session)
            guarded.close(flush=0)
            await bare.close()
        without, with_all = (statistics.median(values) for values in times)
        ratio = statistics.median(b / a for a, b in zip(*times, strict=True))
        print(f"exec true, bare client: median {without:.1f} ms; guarded and recorded: {with_all:.1f} ms", flush=True)
        print(f"ratio of pairs: median {ratio:.2f}; added: {with_all - without:.2f} ms of {len(times[0])} pairs")


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--commands", type=int, default=60)
    given = parser.parse_args()
    asyncio.run(compare(Path(os.environ["CEDARBOX_TEST_LAYOUT"]), given.commands))


if __name__ == "__main__":
    main()
