"""The process that uses a sandbox is killed: the sandbox goes, its disk stays, and it is found again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

import pytest
from agents.sandbox.errors import SandboxError
from tests.microvm.boxes import leftovers, state_of

from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.errors import CedarboxError, HostError


async def test_a_process_killed_with_9_leaves_a_sandbox_that_is_found_again(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path
) -> None:
    before = leftovers(home)
    script = f"""
import asyncio, json, sys
from pathlib import Path
from cedarbox.boxlite import BoxLiteSandboxClient
from tests.microvm.boxes import options
async def main():
    client = BoxLiteSandboxClient(home=Path({str(home)!r}))
    session = await client.create(options=options(Path({str(oci_layout)!r})))
    await session.start()
    await session.exec("echo survived >survived; sync; (sleep 600 &)")
    print(json.dumps(client.serialize_session_state(session.state)), flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    client._open()
    with pytest.raises(HostError, match="another process or client"):
        BoxLiteSandboxClient(home=home)._open()
    await client.close()
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert child.stdout is not None
    line = await child.stdout.readline()
    with pytest.raises(HostError, match="another process or client"):
        client._open()
    child.kill()
    await child.wait()
    state = client.deserialize_session_state(json.loads(line))
    # BoxLite's watchdog ends the microVM within 30 s (measured on BoxLite 0.10.8).
    end = time.monotonic() + 180
    while any("boxlite-shim" in entry for entry in leftovers(home)) and time.monotonic() < end:  # noqa: ASYNC110 - other processes
        await asyncio.sleep(0.5)
    assert not any("boxlite-shim" in entry for entry in leftovers(home))
    session = await client.resume(state)
    await session.start()
    assert state_of(session).box_id == getattr(state, "box_id", "")
    assert (await session.exec("cat survived")).stdout == b"survived\n"

    # A client that is closed gives its home up, although somebody still holds a session of it.
    payload = client.serialize_session_state(session.state)
    await client.close()
    other = BoxLiteSandboxClient(home=home)
    found = await other.resume(other.deserialize_session_state(payload))
    assert state_of(found).box_id == state_of(session).box_id
    await other.delete(found)
    await other.close()
    with pytest.raises((CedarboxError, SandboxError), match="closed"):
        await session.exec("true")
    assert leftovers(home) == before
