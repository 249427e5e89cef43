"""A change of policy reaches what already goes on in a real microVM."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.microvm.boxes import leftovers, options
from tests.microvm.wires import ticking
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.boxlite import BoxLiteSandboxClient, Mount

_NAME, _ADDRESS = "ticks.corp.example", "192.0.2.10"
_LISTEN = """
import socket, sys
to = socket.create_connection((sys.argv[1], 80), 30)
to.sendall(b"GET / HTTP/1.1\\r\\nHost: " + sys.argv[1].encode() + b"\\r\\n\\r\\n")
while data := to.recv(4096):
    sys.stdout.write(data.decode())
    sys.stdout.flush()
"""


def forbidding(*actions: str) -> str:
    listed = ", ".join(f'Sandbox::Action::"{action}"' for action in actions)
    return f'{PERMIT_ALL} @id("no") @reason("withdrawn") forbid (principal, action in [{listed}], resource);'


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - another machine does it
        await asyncio.sleep(0.05)


@pytest.mark.skipif(os.environ.get("CEDARBOX_RIG") != "1", reason="makes an interface: only in the emulated machine")
async def test_a_reload_cuts_a_live_command_a_terminal_a_connection_and_a_mount(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded = Guarded(tmp_path, inner=client)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("shared")
    with ticking(_NAME, _ADDRESS) as server:
        mounts = (Mount(str(tmp_path / "data"), "/mnt/data"),)
        chosen = options(oci_layout, egress_mode="nic", egress_allowlist=(_NAME,), mounts=mounts)
        session = await guarded.client.create(snapshot=NoopSnapshotSpec(), options=chosen)
        try:
            await session.start()
            # A command and a terminal, while the sandbox itself stays permitted.
            loop = "echo $$ >{}; while :; do sleep 1; done"
            command = asyncio.create_task(session.exec(loop.format("one")))
            terminal = await session.pty_exec_start(loop.format("two"), tty=True, yield_time_s=1)
            assert terminal.process_id is not None
            guarded.rewrite(forbidding("exec"))
            first = await guarded.client.reload()
            assert (await command).exit_code == 126
            guarded.rewrite(forbidding("openTerminal"))
            second = await guarded.client.reload()
            left = await session.exec("for f in one two; do kill -0 $(cat $f) 2>/dev/null && echo $f; done; true")
            assert (left.stdout, left.exit_code) == (b"", 0)

            # A connection and a mount: the machine goes, and with it everything that it had open.
            assert (await session.exec("cat /mnt/data/file")).stdout == b"shared"
            listening = await session.pty_exec_start("python3", "-c", _LISTEN, _NAME, shell=False, yield_time_s=1)
            assert listening.process_id is not None
            await until(lambda: server.ticks > 10)
            guarded.rewrite(forbidding("connect", "mountRead"))
            third = await guarded.client.reload()
            swapped = time.monotonic()
            await until(lambda: server.gone == server.connected)
            ticks = server.ticks
            await asyncio.sleep(1)
            assert server.ticks == ticks
            after = server.last_tick - swapped
            refused = await session.exec("cat /mnt/data/file")
            shim = [line for line in leftovers(home) if "boxlite-shim" in line]
        finally:
            await guarded.client.delete(session)
    assert [(cut.event, cut.action) for cut in first.cuts] == [("operation.revoked", "exec")]
    assert [(cut.event, cut.action) for cut in second.cuts] == [("terminal.revoked", "openTerminal")]
    assert "sandbox.revoked" in {cut.event for cut in third.cuts}
    assert all(cut.ended for change in (first, second, third) for cut in change.cuts)
    assert (refused.exit_code, refused.stdout, shim) == (126, b"", [])
    revoked = [record.entry for record in guarded.records("sandbox.revoked")]
    assert {(entry.action, entry.policies) for entry in revoked} == {("connect", ("no",)), ("mountRead", ("no",))}
    with capsys.disabled():
        told = {cut.event: round(cut.seconds * 1000) for change in (first, second, third) for cut in change.cuts}
        print(f"\nmilliseconds from the swap to the end: {told}; the last byte {after * 1000:+.0f} ms from the return")
