"""The life of real boxes: made, stopped, found again, replaced, removed; and an agent in one."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest
from agents import RunConfig, Runner
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Shell
from agents.sandbox.entries import File
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call
from tests.microvm.boxes import content, leftovers, options, state_of, stream

from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.errors import HostError, ImageError


async def test_the_whole_life(client: BoxLiteSandboxClient, home: Path, oci_layout: Path, tmp_path: Path) -> None:
    before = leftovers(home)
    manifest = Manifest(entries={"given.txt": File(content=b"given")}, environment=Environment(value={"WHO": "me"}))
    session = await client.create(
        options=options(oci_layout, workspace_persistence="tar"),
        manifest=manifest,
        snapshot=LocalSnapshotSpec(base_path=tmp_path),
    )
    assert not await session.running()
    await session.start()
    assert await session.running()
    first = state_of(session).box_id
    assert first
    assert (state_of(session).image_digest or "").startswith("sha256:")
    assert (await session.exec("echo $WHO; cat given.txt")).stdout == b"me\ngiven"
    await session.write(Path("made.bin"), stream(bytes(range(256))))
    await session.exec("echo lost >/root/outside")

    # Deleted, the workspace comes back from its archive in another microVM with the same settings.
    await session.stop()
    await session.shutdown()
    saved = client.serialize_session_state(session.state)
    await client.delete(session)
    assert leftovers(home) == before
    session = await client.resume(client.deserialize_session_state(saved))
    await session.start()
    assert state_of(session).box_id not in ("", first)
    assert await content(session, "made.bin") == bytes(range(256))
    assert (await session.exec("cat given.txt; cat /root/outside")).stdout == b"given"
    names = (await session.exec("ls /sys/class/net")).stdout.split()
    assert set(names) <= {b"lo", b"dummy0"}
    await client.delete(session)
    assert leftovers(home) == before
    await client.delete(session)


# A process that is killed leaves the same, and the test of that is not left out.
@pytest.mark.long
async def test_what_was_stopped_is_found_again_with_its_disk(client: BoxLiteSandboxClient, oci_layout: Path) -> None:
    session = await client.create(options=options(oci_layout))
    await session.start()
    first = state_of(session).box_id
    await session.exec("echo kept >/root/outside")
    await session.shutdown()
    assert not await session.running()
    payload = json.loads(json.dumps(client.serialize_session_state(session.state)))
    session = await client.resume(client.deserialize_session_state(payload))
    await session.start()
    assert state_of(session).box_id == first
    assert (await session.exec("cat /root/outside")).stdout == b"kept\n"
    await client.delete(session)


@pytest.mark.parametrize(
    "seconds", [0, pytest.param(1.5, marks=pytest.mark.long), pytest.param(4.5, marks=pytest.mark.long)]
)
async def test_a_cancelled_start_leaves_nothing(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path, seconds: float
) -> None:
    before = leftovers(home)
    session = await client.create(options=options(oci_layout))
    task = asyncio.create_task(session.start())
    while leftovers(home) == before:  # noqa: ASYNC110 - it is another process
        await asyncio.sleep(0.05)
    await asyncio.sleep(seconds)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert leftovers(home) == before
    assert state_of(session).box_id == ""


async def test_a_start_that_takes_too_long_leaves_nothing(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path
) -> None:
    before = leftovers(home)
    session = await client.create(options=options(oci_layout, boot_timeout_s=1))
    with pytest.raises(HostError, match="did not start within 1 s"):
        await session.start()
    assert leftovers(home) == before


async def test_a_swapped_layer_is_not_booted(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path, tmp_path: Path
) -> None:
    before = leftovers(home)
    layout = tmp_path / "oci"
    shutil.copytree(oci_layout, layout)
    layer = max((layout / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(layer.read_bytes())
    data[len(data) // 2] ^= 1
    layer.chmod(0o644)
    layer.write_bytes(data)
    session = await client.create(options=options(layout))
    with pytest.raises(ImageError, match="not what its digest says"):
        await session.start()
    assert leftovers(home) == before


async def test_images_that_do_not_exist(client: BoxLiteSandboxClient, home: Path, tmp_path: Path) -> None:
    before = leftovers(home)
    session = await client.create(options=options(tmp_path / "missing"))
    with pytest.raises(ImageError, match="No such file"):
        await session.start()
    session = await client.create(options=options(tmp_path, rootfs=None, image="localhost:1/missing:1"))
    with pytest.raises((ImageError, HostError)) as caught:
        await session.start()
    assert "\n" not in str(caught.value)
    assert leftovers(home) == before


# The example and the demonstration do the same, and more.
@pytest.mark.long
async def test_an_agent_runs_in_a_box(client: BoxLiteSandboxClient, home: Path, oci_layout: Path) -> None:
    before = leftovers(home)
    assert client.snapshots is not None
    known = list(client.snapshots.store)
    command = "uname -s; ls /sys/class/net"
    model = ScriptedModel(
        [
            [function_call("exec_command", {"cmd": command, "yield_time_ms": 60_000}, call_id="call-1")],
            [assistant_message("done")],
        ]
    )
    agent = SandboxAgent(name="coder", instructions="Work.", model=model, capabilities=[Shell()])
    config = RunConfig(tracing_disabled=True, sandbox=SandboxRunConfig(client=client, options=options(oci_layout)))
    result = await Runner.run(agent, "Look around.", run_config=config)
    assert result.final_output == "done"
    outputs = [str(item.output) for item in result.new_items if item.type == "tool_call_output_item"]
    assert len(outputs) == 1
    assert "Linux" in outputs[0]
    assert "eth0" not in outputs[0]
    # The SDK keeps the workspace of a run unless it is told not to: that is one snapshot, and nothing else is left.
    snapshots = client.snapshots
    assert snapshots is not None
    (kept,) = [info for info in snapshots.store if info not in known]
    assert [entry for entry in leftovers(home) if entry not in before] == [str(home / "boxes" / kept.box_id)]
    await snapshots.remove(kept)
    assert leftovers(home) == before
