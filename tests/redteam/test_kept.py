"""Attacks on what is kept of a sandbox between two runs: saved states, snapshots, images.

On the SDK's real unix-local backend where a workspace is restored, and on real BoxLite clients and Docker's real states
where the refusal comes before any machine. Each asserts what did not happen, and the record that shows it.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from agents import RunConfig, Runner
from agents.run_config import SandboxRunConfig
from agents.sandbox import SandboxAgent
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import LocalSnapshot, LocalSnapshotSpec, NoopSnapshotSpec, SnapshotBase
from agents.sandbox.snapshot_defaults import default_local_snapshot_base_dir
from agents.testing import ScriptedModel, assistant_message
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.imaging import Image, unpacked

from cedarbox import fork
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions
from cedarbox.errors import ConfigurationError, ImageError, PolicyDenied, SnapshotError
from cedarbox.guard import GuardedClient, SealedSnapshot, SealedSnapshotSpec
from cedarbox.guard.sealing import CHUNK, HEADER, TAG

DIGEST = f"sha256:{'c' * 64}"


def forbid(action: str, condition: str = "true") -> str:
    return (
        f'{PERMIT_ALL} @id("no") @reason("forbidden here") '
        f'forbid (principal, action == Sandbox::Action::"{action}", resource) when {{ {condition} }};'
    )


class Watched(BoxLiteSandboxClient):
    """A real client that must not take anything up."""

    async def resume(self, state: Any) -> SandboxSession:
        raise AssertionError(f"the backend was asked to resume {state.session_id}")


def reasons(guarded: Guarded) -> str:
    return "\n".join(str(r.entry.attrs["reason"]) for r in guarded.records("decision") if r.entry.decision == "deny")


async def content_of(session: SandboxSession) -> bytes:
    with await session.read(Path("f")) as stream:
        return bytes(stream.read())


async def of_boxlite(guarded: Guarded, **options: Any) -> dict[str, Any]:
    made = BoxLiteSandboxClientOptions(image=f"mirror.corp.example/base@{DIGEST}", **options)
    session = await guarded.client.create(options=made)
    payload: dict[str, Any] = json.loads(json.dumps(guarded.client.serialize_session_state(session.state)))
    return payload


@pytest.mark.parametrize(
    "change",
    [
        {"egress_allowlist": ["evil.example"]},
        {"image_digest": f"sha256:{'d' * 64}"},
        {"image": "mirror.corp.example/evil:1"},
        {"policy_bundle": "sha256:" + "e" * 64},
        {"cpus": 64},
        {"mounts": [{"host": "/etc", "guest": "/data", "read_only": False}]},
        {"cedarbox_seal": "1:" + "0" * 64},
        {"cedarbox_seal": None},
        {"cedarbox_seal": "\udcff"},
        {"extra": 1},
    ],
    ids=lambda change: next(iter(change)) if change else "",
)
async def test_a_state_edited_between_two_runs(tmp_path: Path, change: dict[str, Any]) -> None:
    """A saved state gets a wider network, another image, bundle, size or mount. The seal refuses any edit before the
    backend sees it; the ledger has a denied `resume` of that session.
    """
    guarded = Guarded(tmp_path / "guard", inner=Watched(home=tmp_path / "home"))
    payload = await of_boxlite(guarded, cpus=2)
    with pytest.raises(ConfigurationError, match=r"has no seal|not the one that was saved"):
        guarded.client.deserialize_session_state({**payload, **change})
    assert guarded.client.deserialize_session_state(payload).type == "boxlite"
    entry = guarded.records("decision")[-1].entry
    assert (entry.decision, entry.action, entry.session) == ("deny", "resume", payload["session_id"])


async def test_a_state_of_the_raw_client_or_of_another_site(tmp_path: Path) -> None:
    """A state that was saved without a guard, and one sealed with another key. Both are refused, and recorded."""
    guarded = Guarded(tmp_path / "guard", inner=Watched(home=tmp_path / "home"))
    other = Guarded(tmp_path / "other", inner=Watched(home=tmp_path / "elsewhere"))
    raw = {name: value for name, value in (await of_boxlite(guarded)).items() if name != "cedarbox_seal"}
    with pytest.raises(ConfigurationError, match="has no seal"):
        guarded.client.deserialize_session_state(raw)
    with pytest.raises(ConfigurationError, match="not the one"):
        guarded.client.deserialize_session_state(await of_boxlite(other))
    assert [action for action, _ in guarded.denied()] == ["resume", "resume"]


@pytest.mark.parametrize(
    ("change", "action"),
    [
        ({"egress_mode": "nic", "egress_allowlist": ("evil.example",)}, "connect"),
        ({"cpus": 64}, "resume"),
        ({"image": f"mirror.corp.example/evil@sha256:{'d' * 64}", "image_digest": f"sha256:{'d' * 64}"}, "resume"),
    ],
    ids=["egress", "cpus", "image"],
)
async def test_a_state_object_that_was_widened(tmp_path: Path, change: dict[str, Any], action: str) -> None:
    """The program itself changes the state object, which has no seal. Resuming is decided on what it says now: the
    wider network, the size, the image; denied, and nothing is taken up.
    """
    policies = f"""{PERMIT_ALL}
        @id("net") forbid (principal, action == Sandbox::Action::"connect", resource);
        @id("size") forbid (principal, action == Sandbox::Action::"resume", resource)
            when {{ context has vcpus && context.vcpus > 2 }};
        @id("image") forbid (principal, action == Sandbox::Action::"resume", resource)
            when {{ resource has digest && resource.digest != "{DIGEST}" }};"""
    guarded = Guarded(tmp_path / "guard", policies, inner=Watched(home=tmp_path / "home"))
    state = guarded.client.deserialize_session_state(await of_boxlite(guarded, cpus=2))
    with pytest.raises(PolicyDenied):
        await guarded.client.resume(state.model_copy(update=change))
    assert [name for name, _ in guarded.denied()] == [action]


async def test_a_docker_state_that_gets_a_network(tmp_path: Path) -> None:
    """Docker's state says `network_mode: none`; without it the container could reach everything: `connectAnywhere`,
    deny, before Docker is asked. The SDK's class needs the docker package; one with the fields that are read stands in.
    """

    class State(SandboxSessionState):
        type: Literal["docker_as_read"] = "docker_as_read"
        image: str = "mirror.corp.example/base:1"
        network_mode: Literal["none"] | None = "none"

    class Client(UnixLocalSandboxClient):
        backend_id = "docker"

        async def resume(self, state: Any) -> SandboxSession:
            raise AssertionError("resumed")

    guarded = Guarded(tmp_path, forbid("connectAnywhere"), inner=Client())
    state = State(manifest=Manifest(), snapshot=NoopSnapshotSpec().build("s"))
    with pytest.raises(AssertionError, match="resumed"):
        await guarded.client.resume(state)
    with pytest.raises(PolicyDenied):
        await guarded.client.resume(state.model_copy(update={"network_mode": None}))
    assert guarded.denied() == [("connectAnywhere", 'Backend::"docker"')]


async def test_a_layer_swapped_in_an_image_layout(tmp_path: Path) -> None:
    """One layer of a local image is replaced after the image was permitted. Every digest is checked before each boot:
    no sandbox is made, and the ledger has a denied `create`.
    """
    image = Image()
    layout = unpacked(tmp_path / "image", image.files())
    policy = forbid("create", f'!(resource has digest && resource.digest == "{image.digest}")')
    guarded = Guarded(tmp_path / "guard", policy, inner=BoxLiteSandboxClient(home=tmp_path / "home"))
    options = BoxLiteSandboxClientOptions(rootfs=str(layout))
    assert await guarded.client.create(options=options)
    layer = layout / "blobs/sha256" / image.manifest["layers"][0]["digest"].removeprefix("sha256:")
    layer.write_bytes(bytes(byte ^ 1 for byte in layer.read_bytes()))
    with pytest.raises(ImageError):
        await guarded.client.create(options=options)
    assert len(guarded.records("sandbox.created")) == 1
    assert guarded.denied() == [("create", 'Image::"unknown"')]
    assert not list((tmp_path / "home").glob("boxes/*"))


async def test_the_default_snapshot_in_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without a snapshot gets the SDK's own: the workspace in clear below the home directory. The guard replaces
    it, in a run and in create; asking for that very directory changes nothing. The record says `none`.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    guarded = Guarded(tmp_path / "guard")
    agent = SandboxAgent(name="a", model=ScriptedModel([[assistant_message("done")]]))
    await Runner.run(agent, "go", run_config=RunConfig(sandbox=SandboxRunConfig(client=guarded.client)))
    asked = LocalSnapshotSpec(base_path=default_local_snapshot_base_dir())
    session = await guarded.client.create(snapshot=asked)
    async with session:
        await session.write(Path("f"), io.BytesIO(b"secret"))
    await guarded.client.delete(session)
    assert not list(tmp_path.rglob("*.tar"))
    assert not (tmp_path / "state").exists()
    assert {r.entry.attrs["snapshot"] for r in guarded.records("sandbox.created")} == {"none"}
    assert "snapshot" not in [action for _, action, _ in guarded.decisions()]


async def test_a_snapshot_class_that_says_it_is_none(tmp_path: Path) -> None:
    """A spec of type `noop` that saves in clear all the same. It is told by its class: `snapshot`, deny."""

    class Lying(NoopSnapshotSpec):
        def build(self, snapshot_id: str) -> SnapshotBase:
            return LocalSnapshot(id=snapshot_id, base_path=tmp_path / "clear")

    guarded = Guarded(tmp_path / "guard", forbid("snapshot", 'context.store == Sandbox::SnapshotStore::"unknown"'))
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await guarded.client.create(snapshot=Lying())
    assert not (tmp_path / "clear").exists()
    assert [action for action, _ in guarded.denied()] == ["snapshot"]


class Saved:
    """A workspace of three chunks, saved sealed by a guarded session that is gone, and what resumes it."""

    def __init__(self, directory: Path) -> None:
        in_clear = 'context.store != Sandbox::SnapshotStore::"sealed"'
        self.guarded = Guarded(directory / "guard", forbid("snapshot", in_clear))
        self.client = GuardedClient(UnixLocalSandboxClient(), self.guarded.client.gate, snapshots="sealed")
        self.content = secrets.token_bytes(2 * CHUNK + 1000)
        self.payload: dict[str, object] = {}

    async def make(self) -> Path:
        session = await self.client.create(manifest=Manifest())
        async with session:
            await session.write(Path("f"), io.BytesIO(self.content))
        self.payload = json.loads(json.dumps(self.client.serialize_session_state(session.state)))
        await self.client.delete(session)
        snapshot = session.state.snapshot
        assert isinstance(snapshot, SealedSnapshot)
        return snapshot.path

    async def restored(self) -> bytes:
        session = await self.client.resume(self.client.deserialize_session_state(self.payload))
        try:
            async with session:
                return await content_of(session)
        finally:
            await self.client.delete(session)


@pytest.fixture
async def saved(tmp_path: Path) -> tuple[Saved, Path]:
    made = Saved(tmp_path)
    return made, await made.make()


async def test_a_sealed_snapshot_has_nothing_in_clear(saved: tuple[Saved, Path]) -> None:
    """A workspace is saved and its files are searched for its content. Nothing is in clear; both files are 0600;
    what is restored is what was saved, and the ledger names its digest.
    """
    made, path = saved
    data = path.read_bytes()
    assert made.content[:64] not in data
    assert b"ustar" not in data
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(made.client.key.path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208  # hidden drafts too
    assert await made.restored() == made.content
    created = made.guarded.records("snapshot.created")
    assert [len(str(r.entry.attrs["snapshot.sha256"])) for r in created] == [64, 64]


def _flip(data: bytearray) -> bytes:
    data[HEADER + CHUNK // 2] ^= 1
    return bytes(data)


def _swap(data: bytearray) -> bytes:
    size = CHUNK + TAG
    first, second = data[HEADER : HEADER + size], data[HEADER + size : HEADER + 2 * size]
    return bytes(data[:HEADER] + second + first + data[HEADER + 2 * size :])


TAMPERED: dict[str, Callable[[bytearray], bytes]] = {
    "a bit flipped": _flip,
    "chunks swapped": _swap,
    "cut off in a chunk": lambda data: bytes(data[:-7]),
    "cut off between chunks": lambda data: bytes(data[: HEADER + 2 * (CHUNK + TAG)]),
    "a chunk twice": lambda data: bytes(data[: HEADER + CHUNK + TAG] + data[HEADER:]),
    "a chunk left out": lambda data: bytes(data[:HEADER] + data[HEADER + CHUNK + TAG :]),
    "something at the end": lambda data: bytes(data) + b"x" * TAG,
    "another salt": lambda data: bytes(data[: HEADER - 1]) + b"\0" + bytes(data[HEADER:]),
    "the header alone": lambda data: bytes(data[:HEADER]),
    "nothing": lambda _: b"",
    "a plain archive": lambda data: b"\0" * len(data),
}


@pytest.mark.parametrize("how", TAMPERED)
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "not pinned"])
async def test_a_sealed_snapshot_that_was_changed(saved: tuple[Saved, Path], how: str, pinned: bool) -> None:
    """A sealed snapshot is cut, spliced, reordered or flipped on the disk. Nothing of it is handed out, also where the
    state does not name its digest; the ledger has a denied `restore`.
    """
    made, path = saved
    path.write_bytes(TAMPERED[how](bytearray(path.read_bytes())))
    state = made.client.deserialize_session_state(made.payload)
    assert isinstance(state.snapshot, SealedSnapshot)
    state.snapshot = state.snapshot if pinned else state.snapshot.model_copy(update={"sha256": ""})
    session = await made.client.resume(state)
    with pytest.raises(SnapshotError):
        await session.start()
    root = Path(session.state.manifest.root)
    assert not root.exists() or list(root.iterdir()) == []
    assert made.guarded.denied() == [("restore", f'Snapshot::"{state.snapshot.id}"')]
    assert made.guarded.records("snapshot.restored") == []
    await made.client.delete(session)


async def test_a_sealed_snapshot_of_another_session_or_another_time(saved: tuple[Saved, Path], tmp_path: Path) -> None:
    """The file of another session is put in place, then an older one of the same session, then none. Each is refused
    with a denied `restore`: the file is bound to its session, and the state to its digest.
    """
    made, path = saved
    mine, other, older = dict(made.payload), await made.make(), tmp_path / "older"
    made.payload = mine
    shutil.move(path, older)
    shutil.copy(other, path)
    with pytest.raises(SnapshotError, match="another session"):
        await made.restored()
    # It is taken up with what was saved, and saved again; then the former file is put back.
    shutil.copy(older, path)
    session = await made.client.resume(made.client.deserialize_session_state(made.payload))
    async with session:
        await session.write(Path("f"), io.BytesIO(b"newer"))
    made.payload = made.client.serialize_session_state(session.state)
    await made.client.delete(session)
    shutil.copy(older, path)
    with pytest.raises(SnapshotError, match="an older one"):
        await made.restored()
    path.unlink()
    with pytest.raises(SnapshotError, match="cannot be read"):
        await made.restored()
    assert made.guarded.denied() == [("restore", f'Snapshot::"{path.stem}"')] * 3


async def test_a_sealed_snapshot_with_another_key(saved: tuple[Saved, Path]) -> None:
    """The key is replaced, missing, or readable by others. No byte is handed out; none is made in its place."""
    made, path = saved
    key = made.client.key.path
    snapshot = SealedSnapshot(id=path.stem, base_path=path.parent, key=key)
    kept = key.read_bytes()
    key.write_text(secrets.token_hex(32) + "\n")
    with pytest.raises(SnapshotError, match="another key"):
        await snapshot.restore()
    key.write_bytes(kept)
    key.chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        await snapshot.restore()
    key.unlink()
    with pytest.raises(ConfigurationError, match="give the key that sealed it"):
        await snapshot.restore()
    assert not key.exists()


@pytest.mark.parametrize("name", ["../escaped", "a/b", "", ".hidden", "a\0b"])
async def test_a_sealed_snapshot_that_would_be_written_elsewhere(tmp_path: Path, name: str) -> None:
    """The id of a snapshot climbs out of its directory. Nothing is written."""
    snapshot = SealedSnapshotSpec(base_path=tmp_path / "s", key=tmp_path / "key").build(name)
    with pytest.raises(SnapshotError, match="not the id"):
        await snapshot.persist(io.BytesIO(b"x"))
    assert [path.name for path in tmp_path.rglob("*")] == ["key"]


async def test_a_save_that_is_interrupted_leaves_the_old_one(tmp_path: Path) -> None:
    """The source fails in the middle of a save. The snapshot that was there is whole, and no draft is left."""
    snapshot = SealedSnapshotSpec(base_path=tmp_path / "s", key=tmp_path / "key").build("one")
    await snapshot.persist(io.BytesIO(b"old"))

    class Breaking(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > CHUNK:
                raise OSError(5, "Input/output error")
            return super().read(size)

    with pytest.raises(SnapshotError, match="cannot be written"):
        await snapshot.persist(Breaking(b"x" * 3 * CHUNK))
    with await snapshot.restore() as stream:
        assert stream.read() == b"old"
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["one.sealed"]


async def test_more_forks_than_are_permitted(saved: tuple[Saved, Path], tmp_path: Path) -> None:
    """Two forks are permitted and three are asked for. `fork` is denied once, before any is made or copied."""
    made, path = saved
    denying = Guarded(tmp_path / "two", forbid("fork", "context.copies > 2"))
    made.guarded.client.gate.engine = denying.client.gate.engine
    state = made.client.deserialize_session_state(made.payload)
    with pytest.raises(PolicyDenied, match="forbidden here"):
        await fork(made.client, state, 3)
    assert [name.name for name in path.parent.iterdir()] == [path.name]
    assert made.guarded.denied() == [("fork", f'Snapshot::"{path.stem}"')]
    for session in await fork(made.client, state, 2):
        assert await content_of(session) == made.content
        await session.shutdown()
        await made.client.delete(session)
    assert len(list(path.parent.iterdir())) == 3
