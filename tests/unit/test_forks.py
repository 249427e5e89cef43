"""Forks, on the SDK's real unix-local backend, guarded and not. On BoxLite: tests/microvm/test_snapshots.py."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_client import BaseSandboxClient
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox import PolicyDenied, fork
from cedarbox.errors import ConfigurationError, SnapshotError


async def saved(client: BaseSandboxClient[Any], directory: Path) -> Any:
    """The state of a session that was saved and deleted."""
    session = await client.create(
        manifest=Manifest(), snapshot=LocalSnapshotSpec(base_path=directory / "snapshots"), options=None
    )
    await session.start()
    await session.write(Path("parent.txt"), io.BytesIO(b"parent"))
    await session.stop()
    await session.shutdown()
    await client.delete(session)
    return session.state


async def test_forks_see_the_parent_and_not_each_other(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    state = await saved(client, tmp_path)
    sessions = await fork(client, state, 3, at_once=2)
    for number, session in enumerate(sessions):
        assert (await session.exec("cat parent.txt")).stdout == b"parent"
        await session.write(Path("mine.txt"), io.BytesIO(str(number).encode()))
    assert [(await session.exec("cat mine.txt")).stdout for session in sessions] == [b"0", b"1", b"2"]
    assert len({session.state.session_id for session in sessions} | {state.session_id}) == 4
    # A fork saves beside its parent, not over it.
    await sessions[0].stop()
    assert len(list((tmp_path / "snapshots").glob("*.tar"))) == 4
    for session in sessions:
        await session.shutdown()
        await client.delete(session)


async def test_every_fork_is_decided_and_recorded(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    state = await saved(guarded.client, tmp_path)
    sessions = await fork(guarded.client, state, 2)
    forked = guarded.records("snapshot.forked")
    assert {record.entry.session for record in forked} == {str(session.state.session_id) for session in sessions}
    assert {record.entry.attrs["snapshot.of"] for record in forked} == {str(state.session_id)}
    restores = [resource for decision, action, resource in guarded.decisions() if action == "restore"]
    assert len(set(restores)) == 2
    assert len(guarded.records("snapshot.created")) == 1
    for session in sessions:
        await session.shutdown()
        await guarded.client.delete(session)


async def test_a_fork_that_may_not_restore_makes_nothing(tmp_path: Path) -> None:
    denying = PERMIT_ALL + '\n@id("no") forbid (principal, action == Sandbox::Action::"restore", resource);'
    guarded = Guarded(tmp_path, denying)
    state = await saved(guarded.client, tmp_path)
    made = len(guarded.records("sandbox.created"))
    with pytest.raises(PolicyDenied):
        await fork(guarded.client, state, 2)
    assert len(guarded.records("sandbox.created")) == made
    assert guarded.records("snapshot.forked") == []


async def test_creating_a_sandbox_with_a_snapshot_that_exists_is_restoring_it(tmp_path: Path) -> None:
    denying = PERMIT_ALL + '\n@id("no") forbid (principal, action == Sandbox::Action::"restore", resource);'
    guarded = Guarded(tmp_path, denying)
    state = await saved(guarded.client, tmp_path)
    with pytest.raises(PolicyDenied):
        await guarded.client.create(manifest=Manifest(), snapshot=state.snapshot)
    assert ("deny", "restore") in [(decision, action) for decision, action, _ in guarded.decisions()]


async def test_one_fork_that_fails_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    class Breaking(UnixLocalSandboxClient):
        """Fails at the third session after the first."""

        made = 0

        async def create(self, **arguments: Any) -> Any:
            self.made += 1
            if self.made == 4:
                raise RuntimeError("the third fork")
            return await super().create(**arguments)

    client = Breaking()
    state = await saved(client, tmp_path)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(RuntimeError, match="the third fork"):
        await fork(client, state, 5, at_once=1)
    assert set(tmp_path.rglob("*")) == before


async def test_what_cannot_be_forked(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create(manifest=Manifest(), snapshot=NoopSnapshotSpec(), options=None)
    with pytest.raises(SnapshotError, match="was not saved"):
        await fork(client, session.state, 1)
    for n in (0, -1, True, 257, "2"):
        with pytest.raises(ConfigurationError, match="n: "):
            await fork(client, session.state, n)  # type: ignore[arg-type]  # what a caller may pass all the same
    await client.delete(session)
