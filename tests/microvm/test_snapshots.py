"""Native snapshots of real boxes: a point in time, copy-on-write, checked, and gone when they are removed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from agents.sandbox.errors import SnapshotPersistError, WorkspaceArchiveReadError, WorkspaceArchiveWriteError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec
from tests.microvm.boxes import leftovers, options, state_of, stream
from tests.unit.bundles import PERMIT_ALL, engine

from cedarbox import Ledger, fork, verify_ledger
from cedarbox.audit import read_records
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxSessionState, overlays
from cedarbox.boxlite.disks import backing_chain, disk_of
from cedarbox.boxlite.ending import remove
from cedarbox.boxlite.overlays import MAX_FILES
from cedarbox.boxlite.snapshots import SnapshotInfo, SnapshotReference
from cedarbox.errors import ImageError, PolicyDenied, SnapshotError
from cedarbox.guard import Gate, GuardedClient
from cedarbox.telemetry.spans import Telemetry


@dataclass(frozen=True)
class Saved:
    """A session that was saved and deleted."""

    state: dict[str, object]
    info: SnapshotInfo
    box_id: str


def known(client: BoxLiteSandboxClient) -> list[SnapshotInfo]:
    """The snapshots of the client's home."""
    assert client.snapshots is not None
    return list(client.snapshots.store)


@pytest.fixture(scope="module")
async def saved(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Saved]:
    """A session that wrote before, while and after it was saved, and is deleted."""
    place = tmp_path_factory.mktemp("references")
    session = await client.create(options=options(oci_layout), snapshot=LocalSnapshotSpec(base_path=place))
    await session.start()
    first = state_of(session).box_id
    await session.exec(
        "echo before >before; echo outside >/root/outside; mkfifo pipe; ln before hard; echo made >/etc/made"
    )
    # Counts without sync: what has reached the disk at the stop is in the snapshot, and nothing else ever is.
    await session.exec("(while echo x >>count; do sleep 0.3; done) >/dev/null 2>&1 &")
    await session.stop()
    taken = known(client)[-1]
    # The same session goes on: it boots a clone, and writes.
    assert (
        await session.exec("cat before; echo after >after; wc -c <count >/root/first-count; sync")
    ).stdout == b"before\n"
    assert state_of(session).box_id not in ("", first)
    assert taken.box_id == first
    state = json.loads(json.dumps(client.serialize_session_state(session.state)))
    await session.shutdown()
    await client.delete(session)
    yield Saved(state, taken, first)
    assert client.snapshots is not None
    for info in known(client)[::-1]:
        await client.snapshots.remove(info)
    assert [path for path in leftovers(home) if first in path] == []
    assert list((home / "bases").glob("*.qcow2")) == []


async def resumed(client: BoxLiteSandboxClient, state: dict[str, object]) -> SandboxSession:
    """A session that was taken up again and started."""
    session = await client.resume(client.deserialize_session_state(dict(state)))
    await session.start()
    return session


def _flip(path: Path, position: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


async def test_a_point_in_time_that_outlives_its_sandbox(client: BoxLiteSandboxClient, saved: Saved) -> None:
    counts = []
    for _ in range(2):
        session = await resumed(client, saved.state)
        listing = (
            await session.exec("ls -A; cat before /root/outside; cat /etc/made; test -p pipe && echo pipe")
        ).stdout
        assert listing == b"before\ncount\nhard\npipe\nbefore\noutside\nmade\npipe\n"
        # Nothing counts any more, and what was counted is the same each time.
        counts.append((await session.exec("wc -c <count; sleep 1; wc -c <count; ls /root/first-count")).stdout)
        await session.exec("echo later >later; rm -rf before /root/outside; sync")
        await session.shutdown()
        await client.delete(session)
    assert counts[0] == counts[1]
    once, twice = counts[0].split()
    assert int(once) == int(twice) > 0


async def test_what_is_known_of_a_snapshot(client: BoxLiteSandboxClient, home: Path, saved: Saved) -> None:
    info = saved.info
    assert info.image_digest.startswith("sha256:")
    assert (info.parent, info.session) == ("", saved.state["session_id"])
    # Frozen: one layer of its own above the image's disk, both digested.
    assert len(info.layers) == 2
    assert 0 < info.size_bytes < 64 * 1024 * 1024
    assert client.snapshots is not None
    assert client.snapshots.store.load(SnapshotReference(info.id, info.sha256)) == info
    chain = backing_chain(disk_of(home, info.box_id), home)
    assert chain[-1].path.parent.name == "disk-images"


async def test_one_flipped_byte_is_refused(client: BoxLiteSandboxClient, home: Path, saved: Saved) -> None:
    before = leftovers(home)
    layers = [layer for layer in backing_chain(disk_of(home, saved.info.box_id), home) if not layer.empty]
    assert client.snapshots is not None
    description = client.snapshots.store.path(saved.info.id)
    for path in (description, *(layer.path for layer in layers)):
        position = path.stat().st_size // 2 if path == description else 1024 * 1024 - 70_000
        _flip(path, position)
        try:
            with pytest.raises((SnapshotError, ImageError)):
                await resumed(client, saved.state)
        finally:
            _flip(path, position)
    # Mended, it is accepted again, so it was the byte that was refused.
    client.snapshots.store.verify(saved.info)
    assert leftovers(home) == before


@pytest.mark.long
async def test_however_often_it_was_forked_a_snapshot_boots(
    client: BoxLiteSandboxClient, home: Path, saved: Saved
) -> None:
    snapshots, state = client.snapshots, client.deserialize_session_state(dict(saved.state))
    assert snapshots is not None
    assert isinstance(state, BoxLiteSandboxSessionState)
    files = set((home / "bases").iterdir())
    for number in range(MAX_FILES + 1):
        clone = await snapshots.start_from(saved.info, state, f"clone-{number}")
        assert len(backing_chain(disk_of(home, clone.id), home)) == 3
        await remove(snapshots.runtime, clone.id, force=True)
    session = await resumed(client, saved.state)
    assert (await session.exec("cat before")).stdout == b"before\n"
    await session.shutdown()
    await client.delete(session)
    # BoxLite keeps an empty file for each clone until the snapshot goes.
    left = set((home / "bases").iterdir()) - files
    assert all(path.stat().st_size <= 256 * 1024 for path in left)


@pytest.mark.long
async def test_a_chain_of_snapshots_is_removed_from_its_end(
    client: BoxLiteSandboxClient, home: Path, saved: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshots = client.snapshots
    assert snapshots is not None
    # As if it were the ninth: clones of the second get a disk of their own with what both hold.
    monkeypatch.setattr(overlays, "MAX_FILES", 3)
    session = await resumed(client, saved.state)
    await session.exec("echo second >second")
    with await session.persist_workspace() as saved_bytes:
        reference = saved_bytes.read()
    second = known(client)[-1]
    assert reference == second.reference.encoded()
    assert second.parent == saved.info.id
    assert len(backing_chain(disk_of(home, second.box_id), home)) > 3
    assert len(backing_chain(disk_of(home, state_of(session).box_id), home)) == 2
    # Saved again without a command in between, it is the same snapshot.
    with await session.persist_workspace() as saved_bytes:
        assert saved_bytes.read() == reference
    await session.exec("rm before; echo third >third")
    await session.hydrate_workspace(stream(reference))
    assert (await session.exec("cat before second; ls third")).stdout == b"before\nsecond\n"
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        await session.hydrate_workspace(stream(reference.replace(b'"sha256":"', b'"sha256":"0', 1)[:-1] + b"}"))
    assert "not the one that was saved" in str(caught.value.context)
    with pytest.raises(SnapshotError, match="in use"):
        await snapshots.remove(second)
    await session.shutdown()
    await client.delete(session)
    pruned = await snapshots.prune(keep=1)
    assert (pruned.removed, [info.id for info in pruned.in_use]) == ((), [saved.info.id])
    await snapshots.remove(second)
    assert [info.id for info in known(client)] == [saved.info.id]
    assert second.box_id not in str(leftovers(home))


@pytest.mark.long
async def test_a_reference_that_cannot_be_kept_leaves_no_snapshot(
    client: BoxLiteSandboxClient, home: Path, oci_layout: Path, tmp_path: Path, saved: Saved
) -> None:
    before, place = leftovers(home), tmp_path / "references"
    session = await client.create(options=options(oci_layout), snapshot=LocalSnapshotSpec(base_path=place))
    await session.start()
    await session.exec("echo kept >kept")
    place.write_text("not a directory")
    with pytest.raises(SnapshotPersistError):
        await session.stop()
    assert [info.id for info in known(client)] == [saved.info.id]
    assert (await session.exec("cat kept")).stdout == b"kept\n"
    # A microVM that died is not saved as if it were whole.
    await session.shutdown()
    with pytest.raises(WorkspaceArchiveReadError):
        await session.persist_workspace()
    await client.delete(session)
    assert leftovers(home) == before


async def test_forks_see_their_parent_and_not_each_other_and_are_on_the_record(
    client: BoxLiteSandboxClient, home: Path, saved: Saved, tmp_path: Path
) -> None:
    before = leftovers(home)
    ledger = Ledger.open(tmp_path / "ledger", signing_key=tmp_path / "ledger.key")
    gate = Gate(
        engine=engine(tmp_path / "bundle", PERMIT_ALL),
        ledger=ledger,
        telemetry=Telemetry(directory=tmp_path / "spans"),
        principal="agent",
        backend=client.backend_id,
    )
    guarded = GuardedClient(client, gate)
    same_policies = '@id("same-policies") forbid (principal, action == Sandbox::Action::"adopt", resource);'
    strict = Gate(
        engine=engine(tmp_path / "strict", f"{PERMIT_ALL} {same_policies}"),
        ledger=ledger,
        telemetry=gate.telemetry,
        principal="agent",
        backend=client.backend_id,
    )
    # It was saved under no policies at all, so whether it may be restored under these is asked.
    with pytest.raises(PolicyDenied, match="adopt"):
        await fork(GuardedClient(client, strict), client.deserialize_session_state(dict(saved.state)), 1)
    assert leftovers(home) == before
    sessions = await fork(guarded, client.deserialize_session_state(dict(saved.state)), 2)
    try:
        assert len({state_of(session).box_id for session in sessions} | {saved.box_id}) == 3
        seen = [(await session.exec("cat before count")).stdout for session in sessions]
        assert len(set(seen)) == 1
        assert seen[0].startswith(b"before\n")
        for number, session in enumerate(sessions):
            await session.exec(f"echo {number} >mine; touch only-{number}; sync")
        for number, session in enumerate(sessions):
            assert (await session.exec("cat mine; ls only-*")).stdout == f"{number}\nonly-{number}\n".encode()
        # What one of them saves tells where it came from and under which policies.
        await sessions[0].stop()
        mine = known(client)[-1]
        assert (mine.parent, mine.policy_bundle) == (saved.info.id, gate.engine.bundle.digest)
    finally:
        for session in sessions:
            await session.shutdown()
            await guarded.delete(session)
        ledger.close()
    assert verify_ledger(tmp_path / "ledger").ok
    entries = [record.entry for _, record in read_records(tmp_path / "ledger")]
    assert len([entry for entry in entries if entry.event == "snapshot.refused"]) == 1
    restored = [entry.attrs for entry in entries if entry.event == "snapshot.restored"]
    assert [attrs["snapshot.native.sha256"] for attrs in restored] == [saved.info.sha256] * 2
    assert len([entry for entry in entries if entry.event == "snapshot.forked"]) == 2
    (created,) = (entry.attrs for entry in entries if entry.event == "snapshot.created")
    assert created["snapshot.native.id"] == mine.id
    assert created["snapshot.bundle"] == gate.engine.bundle.digest
    assert created["snapshot.image_digest"] == mine.image_digest
    assert created["snapshot.parent"] == saved.info.id
    assert client.snapshots is not None
    await client.snapshots.remove(mine)
    assert leftovers(home) == before
