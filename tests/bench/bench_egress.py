"""Egress of real microVMs: the broker against a network card in one run, and how long a revoked connection lives.

Makes an interface and boots two microVMs, so it runs in the rig::

    tests/rig/run --timeout 1800 -- python -m tests.bench.bench_egress rates
    tests/rig/run --timeout 600 -- python -m tests.bench.bench_egress revocation
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.microvm.boxes import options
from tests.microvm.given import GIVEN
from tests.microvm.web import Answer, Asked, big, serving
from tests.microvm.wires import ticking, wired
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient, Mount

__all__ = ["main"]

_NAME, _ADDRESS, _PROXY = "rates.corp.example", "192.0.2.31", 3128
_FORBIDDEN = f'{PERMIT_ALL} @id("no") forbid (principal, action == Sandbox::Action::"connect", resource);'
_LISTEN = (
    "import socket; s = socket.create_connection(('127.0.0.1', 3128)); "
    f"s.sendall(b'GET http://{_NAME}/ HTTP/1.1\\r\\nHost: {_NAME}\\r\\n\\r\\n'); "
    "[None for _ in iter(lambda: s.recv(4096), b'')]"
)


def _app(asked: Asked) -> Answer:
    return Answer.of(b"hello") if asked.path == "/hello" else big(asked)


@asynccontextmanager
async def _box(client: Any, layout: Path, given: Path, **values: Any) -> AsyncIterator[SandboxSession]:
    chosen = options(layout, mounts=(Mount(str(given), GIVEN),), **values)
    session: SandboxSession = await client.create(snapshot=NoopSnapshotSpec(), options=chosen)
    try:
        await session.start()
        yield session
    finally:
        await client.delete(session)


async def _measured(session: SandboxSession, *arguments: object) -> dict[str, float]:
    result = await session.exec("python3", f"{GIVEN}/egress_guest.py", *map(str, arguments), shell=False)
    assert result.exit_code == 0, (result.stdout + result.stderr).decode(errors="replace")
    rates: dict[str, float] = json.loads(result.stdout)
    return rates


async def rates(layout: Path, scratch: Path, megabytes: int, connections: int) -> None:
    """Measure one mode after the other, and print each rate and the ratio."""
    given = scratch / "given"
    given.mkdir()
    shutil.copy(Path(__file__).parent / "egress_guest.py", given)
    inner = BoxLiteSandboxClient(home=scratch / "home")
    guarded = Guarded(scratch, PERMIT_ALL, inner=inner)
    try:
        with wired([_ADDRESS], names={_NAME: [_ADDRESS]}), serving(_app, _ADDRESS):
            card = {"egress_mode": "nic", "egress_allowlist": (_NAME,)}
            async with _box(inner, layout, given, **card) as session:
                by_card = await _measured(session, _NAME, megabytes, connections)
            async with _box(guarded.client, layout, given) as session:
                by_broker = await _measured(session, _NAME, megabytes, connections, _PROXY)
    finally:
        guarded.client.close()
        await inner.close()
    print("| | broker | card | broker / card |\n|---|---|---|---|")
    for name, rate in by_broker.items():
        print(f"| {name} | {rate:.2f} | {by_card[name]:.2f} | {rate / by_card[name]:.2f} |", flush=True)


async def revocation(layout: Path, scratch: Path, times: int) -> None:
    """Swap the policy while a connection carries ticks; print when the server could send the last one."""
    given = scratch / "given"
    given.mkdir()
    inner = BoxLiteSandboxClient(home=scratch / "home")
    guarded = Guarded(scratch, PERMIT_ALL, inner=inner)
    asked, returned, noticed = [], [], []
    try:
        with ticking(_NAME, _ADDRESS) as server:
            async with _box(guarded.client, layout, given) as session:
                for _ in range(times):
                    before = server.ticks
                    task = asyncio.create_task(session.exec("python3", "-c", _LISTEN, shell=False))
                    while server.ticks < before + 20:
                        assert not task.done(), task.result().stderr.decode(errors="replace")
                        await asyncio.sleep(0.05)
                    guarded.rewrite(_FORBIDDEN)
                    begun = time.monotonic()
                    change = await guarded.client.reload()
                    ended = time.monotonic()
                    while server.gone < server.connected:  # noqa: ASYNC110 - threads do it
                        await asyncio.sleep(0.01)
                    asked.append(server.last_tick - begun)
                    returned.append(server.last_tick - ended)
                    noticed += [cut.seconds for cut in change.cuts if cut.action == "connect"]
                    await task
                    guarded.rewrite(PERMIT_ALL)
                    await guarded.client.reload()
    finally:
        guarded.client.close()
        await inner.close()
    print("| from | to | median ms | most ms |\n|---|---|---|---|")
    for start, end, seconds in (
        ("reload called", "last byte sent by the server", asked),
        ("reload returned", "last byte sent by the server", returned),
        ("swap", "connection over, as the guard says", noticed),
    ):
        if seconds:
            told = f"{statistics.median(seconds) * 1000:.0f} | {max(seconds) * 1000:.0f}"
            print(f"| {start} | {end} | {told} |", flush=True)


def main() -> None:
    """Run one of them."""
    parser = argparse.ArgumentParser(prog="tests.bench.bench_egress", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rates", "revocation"])
    parser.add_argument("--layout", type=Path, default=os.environ.get("CEDARBOX_TEST_LAYOUT"), help="OCI layout")
    parser.add_argument("--megabytes", type=int, default=16)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--times", type=int, default=5)
    chosen = parser.parse_args()
    if chosen.layout is None:
        parser.error("give --layout, or CEDARBOX_TEST_LAYOUT")
    with tempfile.TemporaryDirectory() as made:
        scratch, layout = Path(made), Path(chosen.layout)
        if chosen.what == "rates":
            asyncio.run(rates(layout, scratch, chosen.megabytes, chosen.connections))
        else:
            asyncio.run(revocation(layout, scratch, chosen.times))


if __name__ == "__main__":
    main()
