"""What is written down of each save, and what may be done with it. What may not: redteam/test_snapshot_records.py."""

from __future__ import annotations

import io
import json
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshot, LocalSnapshotSpec, NoopSnapshot, SnapshotBase
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.guarded import Guarded

from cedarbox import fork
from cedarbox.errors import PolicyDenied, SnapshotError
from cedarbox.guard import SealedSnapshotSpec
from cedarbox.guard.identity import Caller, within
from cedarbox.guard.kept import KeptSnapshot, bare, kept, saved_of
from cedarbox.guard.saved import Used, measured_in_place

ALL_BUT_ADOPT = '@id("all-but") permit (principal, action, resource) unless { action == Sandbox::Action::"adopt" };'


async def saved(guarded: Guarded, place: Any = None, content: bytes = b"mine") -> SandboxSession:
    """A session that was saved and deleted."""
    session = await guarded.client.create(
        manifest=Manifest(), snapshot=place or LocalSnapshotSpec(base_path=guarded.directory / "saved")
    )
    async with session:
        await session.write(Path("f"), io.BytesIO(content))
    await guarded.client.delete(session)
    return session


async def again(guarded: Guarded, session: SandboxSession) -> SandboxSession:
    """The session, taken up from its serialized state."""
    payload = json.loads(json.dumps(guarded.client.serialize_session_state(session.state)))
    return await guarded.client.resume(guarded.client.deserialize_session_state(payload))


def told(guarded: Guarded, event: str) -> list[dict[str, Any]]:
    return [dict(record.entry.attrs) for record in guarded.records(event)]


async def test_a_save_is_written_down_and_its_restore_names_it(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, ALL_BUT_ADOPT)
    with within(caller=Caller(agent="coder", tool="exec_command", call_id="call-1")):
        session = await saved(guarded)
    (archive,) = (tmp_path / "saved").iterdir()
    (created,) = guarded.records("snapshot.created")
    attrs, entry = created.entry.attrs, created.entry
    assert attrs["snapshot.sha256"] == sha256(archive.read_bytes()).hexdigest()
    assert attrs["snapshot.size_bytes"] == archive.stat().st_size
    assert attrs["snapshot.bundle"] == entry.bundle == guarded.client.gate.engine.bundle.digest
    assert (attrs["snapshot.parent"], attrs["snapshot.kind"], attrs["snapshot.type"]) == ("", "tar", "local")
    assert (entry.principal, entry.tool, entry.call_id) == ("agent", "exec_command", "call-1")
    # Under the same policies it is taken up as before, and saved again as its child.
    session = await again(guarded, session)
    async with session:
        with await session.read(Path("f")) as stream:
            assert stream.read() == b"mine"
    (restored,) = told(guarded, "snapshot.restored")
    assert restored["snapshot.name"] == attrs["snapshot.name"]
    assert restored["snapshot.sha256"] == attrs["snapshot.sha256"]
    child = told(guarded, "snapshot.created")[-1]
    assert child["snapshot.parent"] == attrs["snapshot.name"] != child["snapshot.name"]
    await guarded.client.delete(session)
    assert guarded.records("snapshot.refused") == []


async def test_a_sealed_save_is_told_by_its_content(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await saved(guarded, SealedSnapshotSpec(base_path=tmp_path / "saved", key=guarded.client.key.path))
    with await session.state.snapshot.restore() as stream:
        content = stream.read()
    (attrs,) = told(guarded, "snapshot.created")
    assert (attrs["snapshot.sha256"], attrs["snapshot.size_bytes"]) == (sha256(content).hexdigest(), len(content))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert "./f" in tar.getnames()


async def test_a_snapshot_of_former_policies_is_taken_up_where_adopt_is_permitted(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, ALL_BUT_ADOPT)
    session = await saved(guarded)
    former = guarded.client.gate.engine.bundle.digest
    one = f'context.madeUnder == "{former}" && context.inForce != context.madeUnder'
    adopting = f'{ALL_BUT_ADOPT} permit (principal, action == Sandbox::Action::"adopt", resource) when {{ {one} }};'
    write_bundle(tmp_path / "bundle", adopting)
    later = Guarded(tmp_path, adopting)
    session = await again(later, session)
    async with session:
        with await session.read(Path("f")) as stream:
            assert stream.read() == b"mine"
    # From here on it is a snapshot of the policies in force.
    now = saved_of(session.state.snapshot)
    assert now is not None
    assert now.bundle == later.client.gate.engine.bundle.digest
    await later.client.delete(session)
    assert [verdict for verdict, action, _ in later.decisions() if action == "adopt"] == ["allow"]


async def test_a_state_survives_json_with_what_is_known_of_its_snapshot(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await saved(guarded)
    payload = json.loads(json.dumps(guarded.client.serialize_session_state(session.state)))
    snapshot = guarded.client.deserialize_session_state(payload).snapshot
    assert isinstance(snapshot, KeptSnapshot)
    assert isinstance(snapshot.inner, LocalSnapshot)
    assert saved_of(snapshot) == saved_of(session.state.snapshot)
    assert SnapshotBase.parse(json.loads(snapshot.model_dump_json())) == snapshot


async def test_a_fork_is_the_same_save_in_another_place(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, ALL_BUT_ADOPT)
    session = await saved(guarded)
    forks = await fork(guarded.client, session.state, 2)
    of = saved_of(session.state.snapshot)
    assert of is not None
    for attrs in told(guarded, "snapshot.forked"):
        assert (attrs["snapshot.name"], attrs["snapshot.sha256"]) == (of.name, of.sha256)
        assert attrs["snapshot.id"] != session.state.snapshot.id == attrs["snapshot.from"]
    assert {attrs["snapshot.name"] for attrs in told(guarded, "snapshot.restored")} == {of.name}
    await forks[0].stop()
    assert told(guarded, "snapshot.created")[-1]["snapshot.parent"] == of.name
    for each in forks:
        await each.shutdown()
        await guarded.client.delete(each)


async def test_a_failed_fork_records_what_it_takes_away(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path, f'{PERMIT_ALL} forbid (principal, action == Sandbox::Action::"create", resource);')
    raw = guarded.client.inner
    session = await raw.create(
        manifest=Manifest(), snapshot=LocalSnapshotSpec(base_path=tmp_path / "saved"), options=None
    )
    async with session:
        await session.write(Path("f"), io.BytesIO(b"mine"))
    await raw.delete(session)
    with pytest.raises(PolicyDenied):
        await fork(guarded.client, session.state, 1)
    (attrs,) = told(guarded, "snapshot.deleted")
    assert attrs["snapshot.id"] != session.state.snapshot.id
    assert [path.stem for path in (tmp_path / "saved").iterdir()] == [session.state.snapshot.id]


async def test_an_export_is_decided_measured_and_recorded(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    session = await saved(guarded)
    path = await guarded.client.export_snapshot(session.state, tmp_path / "out.tar")
    assert path == (tmp_path / "out.tar").resolve()
    assert path.stat().st_mode & 0o777 == 0o600
    (attrs,) = told(guarded, "snapshot.exported")
    assert attrs["snapshot.sha256"] == sha256(path.read_bytes()).hexdigest()
    assert (attrs["snapshot.size_bytes"], attrs["destination"]) == (path.stat().st_size, str(path))
    assert ("allow", "export", f'Snapshot::"{session.state.snapshot.id}"') in guarded.decisions()
    with pytest.raises(SnapshotError, match="cannot be written"):
        await guarded.client.export_snapshot(session.state, tmp_path / "nowhere" / "out.tar")
    with pytest.raises(SnapshotError, match="cannot be told"):
        await guarded.client.export_snapshot(session.state, "/")
    fresh = await guarded.client.create(manifest=Manifest())
    with pytest.raises(SnapshotError, match="was not saved"):
        await guarded.client.export_snapshot(fresh.state, tmp_path / "out.tar")
    await guarded.client.delete(fresh)


async def test_a_snapshot_is_removed_and_that_is_recorded(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    for place in (None, SealedSnapshotSpec(base_path=tmp_path / "saved", key=guarded.client.key.path)):
        session = await saved(guarded, place)
        await guarded.client.delete_snapshot(session.state)
        assert list((tmp_path / "saved").iterdir()) == []
        known = saved_of(session.state.snapshot)
        assert known is not None
        assert told(guarded, "snapshot.deleted")[-1]["snapshot.name"] == known.name
    fresh = await guarded.client.create(manifest=Manifest())
    with pytest.raises(SnapshotError, match="cannot be removed here"):
        await guarded.client.delete_snapshot(fresh.state)
    assert len(guarded.records("snapshot.deleted")) == 2
    await guarded.client.delete(fresh)


async def test_an_archive_that_cannot_be_read_twice_is_counted_as_it_passes(tmp_path: Path) -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    snapshot = kept(LocalSnapshot(id="one", base_path=tmp_path))
    await snapshot.persist(Pipe(b"content"))
    assert isinstance(snapshot, KeptSnapshot)
    assert snapshot._taken is not None
    assert snapshot._taken.sha256 == sha256(b"content").hexdigest()
    assert await measured_in_place(Pipe(b"x")) is None


def test_what_is_kept_and_what_is_not(tmp_path: Path) -> None:
    local = LocalSnapshot(id="one", base_path=tmp_path)
    assert kept(kept(local)) == kept(local)
    assert bare(kept(local)) == local
    nothing = NoopSnapshot(id="one")
    assert kept(nothing) is nothing
    with pytest.raises(ValueError, match="has the id of the one inside"):
        KeptSnapshot(id="two", inner=local)


@pytest.mark.parametrize(("take", "used"), [([512], []), ([512, 1], [1]), ([-1], [1]), ([2000], [1])])
def test_a_look_is_no_restore(take: list[int], used: list[int]) -> None:
    seen: list[int] = []
    with Used(io.BytesIO(b"x" * 1000), lambda: seen.append(1)) as stream:
        for size in take:
            stream.read(size)
    assert seen == used
