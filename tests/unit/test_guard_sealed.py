"""Sealed snapshots and states: what goes in comes out. What must not come out: tests/redteam/test_kept.py."""

from __future__ import annotations

import io
import json
import secrets
import stat
from pathlib import Path

import pytest
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshotSpec, SnapshotBase
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.guarded import Guarded

from cedarbox import harden
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard import GuardedClient, SealedSnapshot, SealedSnapshotSpec
from cedarbox.guard.keys import SandboxKey
from cedarbox.guard.sealing import CHUNK
from cedarbox.guard.states import SEAL
from cedarbox.settings import load_settings


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
async def test_a_snapshot_of_any_size_comes_back_and_can_seek(tmp_path: Path, size: int) -> None:
    content = secrets.token_bytes(size)

    class Dribbling(io.BytesIO):
        """Gives less than it is asked for, as pipes do."""

        def read(self, wanted: int | None = -1, /) -> bytes:
            return super().read(min(wanted or 0, 70_000))

    snapshot = SealedSnapshotSpec(base_path=tmp_path / "s", key=tmp_path / "key").build("one")
    assert not await snapshot.restorable()
    await snapshot.persist(Dribbling(content))
    assert await snapshot.restorable()
    with await snapshot.restore() as stream:
        assert stream.read() == content
        for position in (0, size // 2, max(size - 3, 0)):
            assert stream.seek(position) == position
            assert stream.read(10) == content[position : position + 10]
        assert stream.seek(0, io.SEEK_END) == size
        with pytest.raises(ValueError, match="negative seek"):
            stream.seek(-1)


async def test_a_snapshot_survives_json_and_is_registered(tmp_path: Path) -> None:
    snapshot = SealedSnapshotSpec(base_path=tmp_path / "s", key=tmp_path / "key").build("one")
    assert isinstance(snapshot, SealedSnapshot)
    await snapshot.persist(io.BytesIO(b"content"))
    again = SnapshotBase.parse(json.loads(snapshot.pinned().model_dump_json()))
    assert isinstance(again, SealedSnapshot)
    assert again.model_dump() == snapshot.pinned().model_dump()
    assert again.sha256
    with await again.restore() as stream:
        assert stream.read() == b"content"


def test_the_key_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    first = SandboxKey.load(tmp_path / "keys/key")
    again = SandboxKey.load(tmp_path / "keys/key")
    assert (first.made, again.made) == (True, False)
    assert stat.S_IMODE((tmp_path / "keys/key").stat().st_mode) == 0o600
    assert first.derived(b"a") == again.derived(b"a") != again.derived(b"b")
    assert first.path.read_text().strip() not in repr(first)
    for content in ("", "short\n", "g" * 64 + "\n", "a" * 65 + "\n"):
        first.path.write_text(content)
        with pytest.raises(ConfigurationError, match="not a sandbox key"):
            SandboxKey.load(first.path)
    first.path.unlink()
    first.path.symlink_to(tmp_path / "other")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        SandboxKey.load(first.path)


async def test_the_inner_client_sees_its_own_payload(tmp_path: Path) -> None:
    seen: list[dict[str, object]] = []

    class Watching(BoxLiteSandboxClient):
        def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
            seen.append(dict(payload))
            return super().deserialize_session_state(payload)

    guarded = Guarded(tmp_path / "guard", inner=Watching(home=tmp_path / "home"))
    manifest = Manifest(environment=Environment(value={"LANG": "C"}))
    options = BoxLiteSandboxClientOptions(image="mirror.corp.example/base:1")
    session = await guarded.client.create(options=options, manifest=manifest)
    payload = guarded.client.serialize_session_state(session.state)
    assert {name: value for name, value in payload.items() if name != SEAL} == (
        guarded.client.inner.serialize_session_state(session.state)
    )
    kept = json.loads(json.dumps(payload))
    again = guarded.client.deserialize_session_state(kept)
    assert kept == json.loads(json.dumps(payload))
    assert SEAL not in seen[0]
    assert guarded.client.serialize_session_state(again) == payload
    assert [r.entry.attrs for r in guarded.records("key.created")][-1] == {"key": "sandbox"}


async def test_what_a_guarded_client_is_made_with(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    for lifetime in (0, -1, True):
        with pytest.raises(ConfigurationError, match="lifetime_s"):
            GuardedClient(guarded.client.inner, guarded.client.gate, lifetime_s=lifetime)
    assert isinstance(guarded.client.default_snapshot, NoopSnapshotSpec)


def test_the_settings_reach_the_client(tmp_path: Path) -> None:
    settings = load_settings(
        audit={"directory": tmp_path / "ledger", "signing_key": tmp_path / "keys/ledger.key"},
        sandbox={"image": "mirror.corp.example/base:1", "snapshots": "sealed", "lifetime_s": 60},
    )
    settings = settings.model_copy(update={"otlp": settings.otlp.model_copy(update={"endpoint": None})})
    config = harden(policies=write_bundle(tmp_path / "bundle", PERMIT_ALL), settings=settings)
    assert config.sandbox is not None
    client = config.sandbox.client
    assert isinstance(client, GuardedClient)
    assert client.lifetime_s == 60
    assert config.sandbox.snapshot == SealedSnapshotSpec(base_path=tmp_path / "snapshots", key=client.key.path)
    assert client.key.path == tmp_path / "keys/sandbox.key"
    client.close()  # type: ignore[attr-defined]  # a PolicySandboxClient
    with pytest.raises(ConfigurationError, match="lifetime_s"):
        load_settings(sandbox={"lifetime_s": 0})


async def test_the_manifest_is_decided_where_the_backend_puts_it(tmp_path: Path) -> None:
    write = 'action == Sandbox::Action::"writeFile"'
    policy = f'{PERMIT_ALL} forbid (principal, {write}, resource in Sandbox::GuestPath::"/srv/desk/secret");'
    guarded = Guarded(tmp_path / "guard", policy, inner=BoxLiteSandboxClient(home=tmp_path / "home"))
    options = BoxLiteSandboxClientOptions(image="mirror.corp.example/base:1", workspace_root="/srv/desk")
    manifest = Manifest.model_validate({"entries": {"secret": {"type": "file", "content": b"x"}}})
    with pytest.raises(PolicyDenied):
        await guarded.client.create(options=options, manifest=manifest)
    assert guarded.denied() == [("writeFile", 'GuestPath::"/srv/desk/secret"')]
    assert guarded.records("sandbox.created") == []
