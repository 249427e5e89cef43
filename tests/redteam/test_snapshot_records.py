"""Attacks on what is restored: the archive, what is said of it, the policies it was made under, where it came from.

On the SDK's real unix-local backend and its real local and remote snapshots. Each asserts that nothing of what was put
in place reaches a workspace, and the records that show it: a denial, and ``snapshot.refused``.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshot, LocalSnapshotSpec, RemoteSnapshot, RemoteSnapshotSpec, SnapshotBase
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.guarded import Guarded

from cedarbox import fork
from cedarbox.audit.browse import read_records
from cedarbox.audit.lineage import lineage_of
from cedarbox.errors import PolicyDenied, SnapshotError
from cedarbox.guard import SealedSnapshotSpec
from cedarbox.guard.kept import KeptSnapshot, bare, saved_of

OTHER = '@id("all-but") permit (principal, action, resource) unless { action == Sandbox::Action::"adopt" };'
ADOPTING = PERMIT_ALL + " // another text, so another bundle"


async def session_of(guarded: Guarded, place: Any, content: bytes) -> SandboxSession:
    """A session that was saved and deleted."""
    session = await guarded.client.create(manifest=Manifest(), snapshot=place)
    async with session:
        await session.write(Path("f"), io.BytesIO(content))
    await guarded.client.delete(session)
    return session


async def saved(guarded: Guarded, content: bytes = b"mine") -> tuple[dict[str, object], Path]:
    """The serialized state of a session that was saved, and its archive."""
    place = LocalSnapshotSpec(base_path=guarded.directory / "saved")
    session = await session_of(guarded, place, content)
    payload: dict[str, object] = json.loads(json.dumps(guarded.client.serialize_session_state(session.state)))
    inner = bare(session.state.snapshot)
    assert isinstance(inner, LocalSnapshot)
    return payload, inner.base_path / f"{inner.id}.tar"


def archive(content: bytes) -> bytes:
    """An archive with another file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo("f")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


async def restored(guarded: Guarded, payload: dict[str, object]) -> bytes:
    session = await guarded.client.resume(guarded.client.deserialize_session_state(payload))
    try:
        async with session:
            with await session.read(Path("f")) as stream:
                return bytes(stream.read())
    finally:
        await guarded.client.delete(session)


def refusals(guarded: Guarded) -> list[str]:
    return [str(record.entry.attrs["reason"]) for record in guarded.records("snapshot.refused")]


def under_other_policies(guarded: Guarded, policies: str) -> Guarded:
    """The same site after its policies were edited."""
    write_bundle(guarded.directory / "bundle", policies)
    return Guarded(guarded.directory, policies)


async def test_an_archive_swapped_between_two_runs(tmp_path: Path) -> None:
    """The archive of a saved workspace, in clear on the disk, is replaced by another. The state names its SHA-256:
    nothing of it is unpacked; `restore`, deny, and `snapshot.refused` with both digests.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded)
    path.write_bytes(archive(b"planted"))
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        await restored(guarded, payload)
    assert guarded.denied() == [("restore", f'Snapshot::"{path.stem}"')]
    (reason,) = refusals(guarded)
    entry = guarded.records("snapshot.refused")[0].entry
    assert str(entry.attrs["snapshot.sha256"]) in reason
    assert guarded.records("snapshot.restored") == []


async def test_an_archive_swapped_while_it_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive is overwritten in the moment after it was compared with its digest. What was compared is a copy that
    nobody else can write: the workspace gets what was saved, and `snapshot.restored` names its digest.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded)
    real = KeptSnapshot.restore

    async def racing(self: KeptSnapshot, *, dependencies: Dependencies | None = None) -> io.IOBase:
        content = await real(self, dependencies=dependencies)
        path.write_bytes(archive(b"planted"))
        return content

    monkeypatch.setattr(KeptSnapshot, "restore", racing)
    assert await restored(guarded, payload) == b"mine"
    (entry,) = (record.entry for record in guarded.records("snapshot.restored"))
    (created, *_) = (record.entry for record in guarded.records("snapshot.created"))
    assert entry.attrs["snapshot.sha256"] == created.attrs["snapshot.sha256"]


async def test_an_older_archive_of_the_same_session_put_back(tmp_path: Path) -> None:
    """A session is saved twice and its first archive put back, which is genuine. The state names the second: refused,
    with a denied `restore`.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded, b"first")
    shutil.copy(path, tmp_path / "first.tar")
    session = await guarded.client.resume(guarded.client.deserialize_session_state(payload))
    async with session:
        await session.write(Path("f"), io.BytesIO(b"second"))
    payload = guarded.client.serialize_session_state(session.state)
    await guarded.client.delete(session)
    shutil.copy(tmp_path / "first.tar", path)
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        await restored(guarded, payload)
    assert len(refusals(guarded)) == 1


@pytest.mark.parametrize(
    "field", ["sha256", "bundle", "parent", "name", "session", "image_digest", "seal", "size_bytes"]
)
async def test_what_is_said_of_a_snapshot_changed(tmp_path: Path, field: str) -> None:
    """A program keeps the snapshot itself, as JSON in its database, where somebody changes its digest, its bundle, its
    parent. What was written down is sealed under the sandbox key: nothing is made; `restore`, deny, `snapshot.refused`.
    """
    guarded = Guarded(tmp_path)
    session = await session_of(guarded, LocalSnapshotSpec(base_path=tmp_path / "saved"), b"mine")
    kept = json.loads(session.state.snapshot.model_dump_json())
    kept["saved"][field] = 1 if field == "size_bytes" else guarded.client.gate.engine.bundle.digest + "0"
    snapshot = SnapshotBase.parse(kept)
    with pytest.raises(SnapshotError, match="not what was written down"):
        await guarded.client.create(manifest=Manifest(), snapshot=snapshot)
    assert len(guarded.records("sandbox.created")) == 1
    assert guarded.denied() == [("restore", f'Snapshot::"{snapshot.id}"')]
    assert len(refusals(guarded)) == 1


async def test_what_is_said_of_one_snapshot_put_on_another(tmp_path: Path) -> None:
    """What was written down of a snapshot that was made under the policies in force is moved to another session's, with
    its archive. It is sealed for one id: refused, with a denied `restore`.
    """
    guarded = Guarded(tmp_path)
    place = LocalSnapshotSpec(base_path=tmp_path / "saved")
    first = (await session_of(guarded, place, b"first")).state.snapshot
    second = (await session_of(guarded, place, b"second")).state.snapshot
    shutil.copy(tmp_path / "saved" / f"{second.id}.tar", tmp_path / "saved" / f"{first.id}.tar")
    moved = first.model_copy(update={"saved": saved_of(second)})
    with pytest.raises(SnapshotError, match="not what was written down"):
        await guarded.client.create(manifest=Manifest(), snapshot=moved)
    assert guarded.denied() == [("restore", f'Snapshot::"{first.id}"')]


async def test_the_archive_of_another_session_put_in_place(tmp_path: Path) -> None:
    """The archive of one session is copied over that of another; both are genuine. The digest is of one of them:
    nothing of the other session reaches the workspace, and the ledger has a denied `restore`.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded)
    _, other = await saved(guarded, b"of somebody else")
    shutil.copy(other, path)
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        await restored(guarded, payload)
    assert guarded.denied() == [("restore", f'Snapshot::"{path.stem}"')]


async def test_a_snapshot_of_former_policies(tmp_path: Path) -> None:
    """A workspace is saved, the policies are edited, and the run is resumed. It is refused before anything is made,
    with one line that names the action to permit: `adopt`, deny, and `snapshot.refused` with both bundles.
    """
    guarded = Guarded(tmp_path)
    former = guarded.client.gate.engine.bundle.digest
    payload, path = await saved(guarded)
    later = under_other_policies(guarded, OTHER)
    with pytest.raises(PolicyDenied, match=r'permit Sandbox::Action::"adopt"') as caught:
        await restored(later, payload)
    assert str(caught.value).count("\n") == 0
    assert ("adopt", f'Snapshot::"{path.stem}"') in later.denied()
    entry = later.records("snapshot.refused")[0].entry
    assert (entry.attrs["made_under"], entry.attrs["in_force"]) == (former, later.client.gate.engine.bundle.digest)
    assert later.records("sandbox.resumed") == []
    with pytest.raises(PolicyDenied, match="adopt"):
        await fork(later.client, later.client.deserialize_session_state(payload), 2)
    assert later.records("snapshot.forked") == []
    assert list((tmp_path / "saved").iterdir()) == [path]


async def test_policies_that_change_between_the_decision_and_the_start(tmp_path: Path) -> None:
    """A saved session is taken up under the policies that it was saved under, and these change before it starts. The
    start asks again: `adopt`, deny, and nothing is restored.
    """
    guarded = Guarded(tmp_path)
    payload, _ = await saved(guarded)
    session = await guarded.client.resume(guarded.client.deserialize_session_state(payload))
    guarded.client.gate.engine = Guarded(tmp_path / "other", OTHER).client.gate.engine
    with pytest.raises(PolicyDenied, match="adopt"):
        await session.start()
    assert guarded.records("snapshot.restored") == []
    assert len(refusals(guarded)) == 1
    await guarded.client.delete(session)


@pytest.mark.parametrize("given", ["a local one", "a sealed one", "in the state"])
async def test_a_snapshot_that_nobody_wrote_down(tmp_path: Path, given: str) -> None:
    """An archive that was saved without a guard, or planted where a session that was never saved will look. Under which
    policies it was made nobody knows, so they count as others: `adopt`, deny.
    """
    guarded = Guarded(tmp_path, OTHER)
    snapshot: SnapshotBase = LocalSnapshot(id="planted", base_path=tmp_path / "saved")
    if given == "a sealed one":
        snapshot = SealedSnapshotSpec(base_path=tmp_path / "saved", key=guarded.client.key.path).build("planted")
    await snapshot.persist(io.BytesIO(archive(b"planted")))
    if given == "in the state":
        session = await guarded.client.create(manifest=Manifest(), snapshot=LocalSnapshotSpec(base_path=tmp_path))
        session.state.snapshot = snapshot
        asked = guarded.client.resume(session.state)
    else:
        asked = guarded.client.create(manifest=Manifest(), snapshot=snapshot)
    with pytest.raises(PolicyDenied, match="nobody knows which policy bundle"):
        await asked
    assert guarded.denied() == [("adopt", 'Snapshot::"planted"')]
    assert [record.entry.attrs["made_under"] for record in guarded.records("snapshot.refused")] == ["unknown"]


async def test_an_archive_that_the_program_hands_over(tmp_path: Path) -> None:
    """A session is filled from an archive that no session here handed out: `adopt`, deny. One that was handed out under
    the policies in force is taken.
    """
    guarded = Guarded(tmp_path, OTHER)
    session = await guarded.client.create(manifest=Manifest())
    async with session:
        with pytest.raises(PolicyDenied, match="adopt"):
            await session.hydrate_workspace(io.BytesIO(archive(b"planted")))
        await session.write(Path("f"), io.BytesIO(b"mine"))
        with await session.persist_workspace() as content:
            await session.hydrate_workspace(content)
        with await session.read(Path("f")) as stream:
            assert stream.read() == b"mine"
    await guarded.client.delete(session)
    assert [action for action, _ in guarded.denied()] == ["adopt"]


async def test_a_snapshot_deleted_so_that_a_run_begins_anew(tmp_path: Path) -> None:
    """The archive, or the one that forks were to start from, is deleted, so that the run would begin with an empty
    workspace as if it had never been saved. It is refused: `restore`, deny, `snapshot.refused`; no fork is made.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded)
    path.unlink()
    with pytest.raises(SnapshotError, match="cannot be read"):
        await restored(guarded, payload)
    with pytest.raises(SnapshotError, match="cannot be read"):
        await fork(guarded.client, guarded.client.deserialize_session_state(payload), 2, at_once=1)
    assert set(guarded.denied()) == {("restore", f'Snapshot::"{path.stem}"')}
    assert len(refusals(guarded)) == 2
    assert guarded.records("snapshot.forked") == []


async def test_a_remote_store_that_answers_with_something_else(tmp_path: Path) -> None:
    """The service that keeps a remote snapshot gives back another content than it was given. It is compared before the
    first byte is unpacked: `restore`, deny.
    """

    class Store:
        kept = b""

        async def upload(self, snapshot_id: str, data: io.IOBase) -> None:
            self.kept = data.read()

        async def download(self, snapshot_id: str) -> io.IOBase:
            return io.BytesIO(self.kept)

        async def exists(self, snapshot_id: str) -> bool:
            return bool(self.kept)

    guarded, store = Guarded(tmp_path), Store()
    dependencies = Dependencies().bind_value("store", store)
    guarded.client.inner._dependencies = dependencies
    session = await guarded.client.create(
        manifest=Manifest(), snapshot=RemoteSnapshotSpec(client_dependency_key="store")
    )
    async with session:
        await session.write(Path("f"), io.BytesIO(b"mine"))
    assert isinstance(bare(session.state.snapshot), RemoteSnapshot)
    payload = guarded.client.serialize_session_state(session.state)
    await guarded.client.delete(session)
    assert await restored(guarded, payload) == b"mine"
    payload = guarded.client.serialize_session_state(session.state)
    store.kept = archive(b"planted")
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        await restored(guarded, payload)
    assert [action for action, _ in guarded.denied()] == ["restore"]


async def test_a_lineage_that_lies(tmp_path: Path) -> None:
    """The parent of a save is rewritten so that it seems to come from an approved one, and the snapshot restored. Its
    description is sealed: refused. The lineage goes on telling the parent that was written down, and the refusal.
    """
    guarded = Guarded(tmp_path)
    place = LocalSnapshotSpec(base_path=tmp_path / "saved")
    approved = saved_of((await session_of(guarded, place, b"approved")).state.snapshot)
    lying = (await session_of(guarded, place, b"of nobody knows where")).state.snapshot
    said = saved_of(lying)
    assert approved is not None
    assert said is not None
    claimed = lying.model_copy(update={"saved": said.model_copy(update={"parent": approved.name})})
    with pytest.raises(SnapshotError, match="not what was written down"):
        await guarded.client.create(manifest=Manifest(), snapshot=claimed)
    lineage = lineage_of(read_records(tmp_path / "ledger"))
    saves = {edge.target: edge.source for edge in lineage.edges if edge.event == "saved"}
    assert saves == {approved.name: "", said.name: ""}
    assert lineage.nodes[said.name].refused == 1


async def test_an_export_of_something_else_than_was_saved(tmp_path: Path) -> None:
    """The archive is swapped before it is exported to a file. The file is not written, and what stood there is left:
    `restore`, deny, and no `snapshot.exported`.
    """
    guarded = Guarded(tmp_path)
    payload, path = await saved(guarded)
    path.write_bytes(archive(b"planted"))
    (tmp_path / "out.tar").write_bytes(b"former")
    state = guarded.client.deserialize_session_state(payload)
    with pytest.raises(SnapshotError, match="does not hold what was saved"):
        await guarded.client.export_snapshot(state, tmp_path / "out.tar")
    assert (tmp_path / "out.tar").read_bytes() == b"former"
    assert guarded.records("snapshot.exported") == []
    assert len(refusals(guarded)) == 1


async def test_an_export_through_a_link_to_where_it_may_not_go(tmp_path: Path) -> None:
    """The destination leads through a directory that is a link to one where exports are forbidden. It is decided on the
    real path: `export`, deny; nothing is written there.
    """
    (tmp_path / "closed").mkdir()
    (tmp_path / "open").symlink_to("closed")
    where = f'context.destination like "{tmp_path}/closed/*"'
    policies = f'{PERMIT_ALL} forbid (principal, action == Sandbox::Action::"export", resource) when {{ {where} }};'
    guarded = Guarded(tmp_path / "guard", policies)
    payload, path = await saved(guarded)
    with pytest.raises(PolicyDenied):
        await guarded.client.export_snapshot(
            guarded.client.deserialize_session_state(payload), tmp_path / "open" / "out.tar"
        )
    assert list((tmp_path / "closed").iterdir()) == []
    assert guarded.denied() == [("export", f'Snapshot::"{path.stem}"')]
