"""Spans of what a guest does of its own accord, and of snapshots: where they hang and what they point to."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from agents.sandbox.manifest import Manifest
from agents.sandbox.snapshot import LocalSnapshotSpec
from agents.tracing import custom_span, trace
from tests.unit.bundles import PERMIT_ALL
from tests.unit.carried import Carried, connect_to
from tests.unit.guarded import Guarded
from tests.unit.spanned import chain, named, spans_of

from cedarbox import fork
from cedarbox.guard.session import GuardedSession
from cedarbox.telemetry import attributes as names

_CLIENT = 3


async def _talk(site: Carried, session: GuardedSession, host: str) -> None:
    guest = await site.guest(session, connect_to(host))
    assert await guest.told() == "open"
    await guest.close()


async def _until(done: Path) -> None:
    while not done.exists():  # noqa: ASYNC110 - a command of the guest makes it
        await asyncio.sleep(0.01)


async def test_a_connection_is_below_the_command_that_runs_alone(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    with trace("outer"):
        async with site.session() as session:
            with custom_span("somewhere else"):
                go, ready = tmp_path / "go", tmp_path / "ready"
                text = f"touch {ready}; while [ ! -e {go} ]; do sleep 0.02; done"
                first = asyncio.create_task(session.exec(text))
                await _until(ready)
                await _talk(site, session, "one.example")
                second = asyncio.create_task(session.exec(text.replace("ready", "again")))
                await _until(tmp_path / "again")
                await _talk(site, session, "two.example")
                go.touch()
                await asyncio.gather(first, second)
            await _talk(site, session, "none.example")
    site.guarded.client.close()
    spans = spans_of(tmp_path)
    carried = {span.attributes[names.SERVER_ADDRESS]: span for span in named(spans, "egress connect")}
    run = ["invoke_workflow outer"]
    assert chain(spans, carried["one.example"])[:2] == ["egress connect", "exec"]
    assert chain(spans, carried["two.example"]) == ["egress connect", "sandbox create", *run]
    assert chain(spans, carried["none.example"]) == ["egress connect", "sandbox create", *run]
    assert {span.trace for span in spans} == {spans[0].trace}
    for span in carried.values():
        assert span.kind == _CLIENT
        assert span.attributes[names.NETWORK_PROTOCOL_NAME] == "tls"
        assert span.attributes[names.CEDARBOX_EGRESS_BYTES_OUT] == 0
        assert names.CEDARBOX_RECORD_SEQ in span.attributes


async def test_a_connection_is_below_the_process_that_goes_on(tmp_path: Path) -> None:
    site = Carried(tmp_path)
    async with site.session() as session:
        update = await session.pty_exec_start("sleep", "30", shell=False, yield_time_s=0.05)
        assert update.process_id is not None
        await _talk(site, session, "one.example")
        await session.pty_terminate_all()
        await _talk(site, session, "two.example")
    site.guarded.client.close()
    spans = spans_of(tmp_path)
    carried = {span.attributes[names.SERVER_ADDRESS]: span for span in named(spans, "egress connect")}
    assert chain(spans, carried["one.example"]) == ["egress connect", "exec", "sandbox create"]
    assert chain(spans, carried["two.example"]) == ["egress connect", "sandbox create"]


async def test_a_fork_points_to_the_snapshot_it_came_from(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, PERMIT_ALL)
    client = guarded.client
    session = await client.create(snapshot=LocalSnapshotSpec(base_path=tmp_path / "saved"), manifest=Manifest())
    await session.start()
    await session.stop()
    forks = await fork(client, session.state, 2)
    for each in (session, *forks):
        await each.shutdown()
        await client.delete(each)
    client.close()
    spans = spans_of(tmp_path)
    (made,) = [span for span in named(spans, "snapshot create") if names.CEDARBOX_OUTCOME_SEQ in span.attributes]
    copies = named(spans, "snapshot fork")
    assert [span.links for span in copies] == [(made.id,)] * 2
    assert {span.attributes[names.CEDARBOX_SNAPSHOT_OF] for span in copies} == {str(session.state.session_id)}
    assert len({span.attributes[names.CEDARBOX_SNAPSHOT_ID] for span in copies}) == 2
    assert uuid.UUID(copies[0].attributes[names.CEDARBOX_SNAPSHOT_ID])


async def test_file_operations_have_spans(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await guarded.client.create(manifest=Manifest())
    async with session:
        root = Path(session.state.manifest.root)
        await session.mkdir(root / "d", parents=True)
        await session.exec("echo x > d/a")
        assert await session.read_bounded(root / "d" / "a", max_bytes=10) == b"x\n"
        await session.ls(root / "d")
        await session.mv(root / "d" / "a", root / "d" / "b")
        await session.rm(root / "d", recursive=True)
    await guarded.client.delete(session)
    guarded.client.close()
    spans = spans_of(tmp_path)
    (read,), (listed,), (removed,) = (named(spans, f"file {name}") for name in ("read", "list", "remove"))
    assert read.attributes[names.CEDARBOX_FILE_BYTES] == 2
    assert listed.attributes[names.CEDARBOX_FILE_ENTRIES] == 1
    assert removed.attributes[names.CEDARBOX_FILE_RECURSIVE] is True
    assert len(named(spans, "file make_directory")) == len(named(spans, "file move")) == 1
    assert {span.attributes[names.SANDBOX_SESSION_ID] for span in spans if names.SANDBOX_SESSION_ID in span.attributes}
    assert {span.trace for span in spans} == {spans[0].trace}
