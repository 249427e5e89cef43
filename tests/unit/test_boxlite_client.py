"""The client before a microVM exists: state, manifests, the home."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshot
from agents.sandbox.util.tar_utils import UnsafeTarMemberError
from agents.sandbox.workspace_paths import SandboxPathGrant

from cedarbox.boxlite import (
    BoxLiteSandboxClient,
    BoxLiteSandboxClientOptions,
    BoxLiteSandboxSession,
    BoxLiteSandboxSessionState,
)
from cedarbox.boxlite.archive import spooled_archive
from cedarbox.boxlite.host import check_kvm, default_home, opened
from cedarbox.errors import ConfigurationError, HostError, ImageError

OPTIONS = BoxLiteSandboxClientOptions(image="python:3.12-slim")
DIGEST = "sha256:" + "c" * 64


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[BoxLiteSandboxClient]:
    made = BoxLiteSandboxClient(home=tmp_path / "home")
    yield made
    await made.close()


async def test_create_makes_a_session_and_nothing_else(client: BoxLiteSandboxClient, tmp_path: Path) -> None:
    session = await client.create(options=OPTIONS, manifest=None)
    assert isinstance(session._inner, BoxLiteSandboxSession)
    assert session.state is session._inner.state
    assert isinstance(session.state, BoxLiteSandboxSessionState)
    assert session.state.box_id == ""
    assert not await session.running()
    assert not list((tmp_path / "home" / "boxes").glob("*"))
    assert "state" in vars(session._inner)
    assert type(session._inner).__module__ == "cedarbox.boxlite"
    assert await client.delete(session) is session


async def test_the_state_carries_everything_and_survives_json(client: BoxLiteSandboxClient) -> None:
    options = BoxLiteSandboxClientOptions(
        image=f"mirror.corp.example/a@{DIGEST}",
        cpus=3,
        memory_mib=777,
        workspace_root="/srv/here",
        egress_mode="nic",
        egress_allowlist=("A.example",),
        auto_remove=False,
        boot_timeout_s=77,
        disk_size_gb=5,
        exposed_ports=(8080,),
    )
    state = (await client.create(options=options)).state
    payload = json.loads(json.dumps(client.serialize_session_state(state)))
    again = client.deserialize_session_state(payload)
    assert isinstance(again, BoxLiteSandboxSessionState)
    assert again == state
    assert type(SandboxSessionState.parse(payload)) is BoxLiteSandboxSessionState
    assert (again.image_digest, again.egress_allowlist, again.manifest.root) == (DIGEST, ("a.example",), "/srv/here")
    for name in ("image", "cpus", "memory_mib", "auto_remove", "boot_timeout_s", "disk_size_gb", "exposed_ports"):
        assert getattr(again, name) == getattr(options, name)


@pytest.mark.parametrize(
    "change",
    [
        {"egress_allowlist": ["*"]},
        {"egress_mode": "nic"},
        {"egress_mode": "open"},
        {"cpus": 0},
        {"workspace_root": "/"},
        {"exposed_ports": [80]},
        {"image": None},
    ],
)
async def test_a_state_that_was_tampered_with_is_refused(client: BoxLiteSandboxClient, change: dict[str, Any]) -> None:
    payload = client.serialize_session_state((await client.create(options=OPTIONS)).state)
    with pytest.raises(ConfigurationError, match="saved sandbox state"):
        client.deserialize_session_state({**payload, **change})


async def test_a_foreign_state_is_refused(client: BoxLiteSandboxClient) -> None:
    foreign = SandboxSessionState(type="other", snapshot=NoopSnapshot(id="x"), manifest=Manifest())
    with pytest.raises(TypeError, match="BoxLiteSandboxSessionState"):
        await client.resume(foreign)


async def test_resume_without_its_microvm_starts_over(client: BoxLiteSandboxClient) -> None:
    state = (await client.create(options=OPTIONS)).state
    assert isinstance(state, BoxLiteSandboxSessionState)
    state.box_id, state.workspace_root_ready = "gone", True
    session = await client.resume(state)
    assert isinstance(session.state, BoxLiteSandboxSessionState)
    assert (session.state.box_id, session.state.workspace_root_ready) == ("", False)


@pytest.mark.parametrize("key", ["BOXLITE_EXECUTOR", "Boxlite_Executor", "A=B"])
async def test_reserved_environment_is_refused(client: BoxLiteSandboxClient, key: str) -> None:
    with pytest.raises(ConfigurationError, match="manifest environment"):
        await client.create(options=OPTIONS, manifest=Manifest(environment=Environment(value={key: "guest"})))


async def test_roots(client: BoxLiteSandboxClient) -> None:
    other = BoxLiteSandboxClientOptions(image="python", workspace_root="/other")
    assert (await client.create(options=other, manifest=Manifest())).state.manifest.root == "/other"
    assert (await client.create(options=OPTIONS, manifest=Manifest(root="/mine"))).state.manifest.root == "/mine"
    with pytest.raises(ConfigurationError, match="same path in both"):
        await client.create(options=other, manifest=Manifest(root="/mine"))
    with pytest.raises(ConfigurationError, match="belongs to the system"):
        await client.create(options=OPTIONS, manifest=Manifest(root="/etc"))


async def test_host_directories_are_not_shared(client: BoxLiteSandboxClient, tmp_path: Path) -> None:
    grant = SandboxPathGrant(path="/shared", host_path=str(tmp_path))
    with pytest.raises(ConfigurationError, match="names a directory of the host"):
        await client.create(options=OPTIONS, manifest=Manifest(extra_path_grants=(grant,)))


async def test_one_runtime_a_home(client: BoxLiteSandboxClient, tmp_path: Path) -> None:
    await client.create(options=OPTIONS)
    second = BoxLiteSandboxClient(home=tmp_path / "home")
    with pytest.raises(HostError, match="another process or client uses the BoxLite home"):
        await second.create(options=OPTIONS)
    await client.close()
    await second.create(options=OPTIONS)
    await second.close()


def test_the_home_is_private(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    opened(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    loose = tmp_path / "loose"
    loose.mkdir(mode=0o777)
    loose.chmod(0o777)
    with pytest.raises(HostError, match="others can write"):
        opened(loose)
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="cannot be made"):
        opened(tmp_path / "file")
    assert default_home().parts[-2:] == ("cedarbox", "boxlite")


def test_no_kvm(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="is missing"):
        check_kvm(tmp_path / "kvm")


def test_runtime_and_home_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        BoxLiteSandboxClient(runtime=object(), home=tmp_path)


async def test_a_missing_layout_is_an_image_error(client: BoxLiteSandboxClient, tmp_path: Path) -> None:
    layout = BoxLiteSandboxClientOptions(rootfs=str(tmp_path / "none"))
    session = await client.create(options=layout)
    with pytest.raises((ImageError, HostError)):
        await session.start()
    assert not list((tmp_path / "home" / "boxes").glob("*"))


def tar(*members: tuple[str, bytes, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            archive.addfile(member, io.BytesIO())
    out.seek(0)
    return out


@pytest.mark.parametrize(
    "members",
    [
        [("/etc/passwd", tarfile.REGTYPE, "")],
        [("../up", tarfile.REGTYPE, "")],
        [("a/../../up", tarfile.REGTYPE, "")],
        [("link", tarfile.SYMTYPE, "/etc")],
        [("link", tarfile.SYMTYPE, "../../etc")],
        [("dir", tarfile.SYMTYPE, "other"), ("dir/file", tarfile.REGTYPE, "")],
        [("file", tarfile.REGTYPE, ""), ("hard", tarfile.LNKTYPE, "file")],
        [("dev", tarfile.CHRTYPE, "")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("twice", tarfile.REGTYPE, ""), ("twice", tarfile.REGTYPE, "")],
    ],
)
def test_archives_that_leave_the_workspace_are_refused(members: list[tuple[str, bytes, str]]) -> None:
    with pytest.raises(UnsafeTarMemberError):
        spooled_archive(b"", tar(*members))


def test_a_plain_archive_passes() -> None:
    with spooled_archive(b"", tar(("a", tarfile.DIRTYPE, ""), ("a/b", tarfile.REGTYPE, ""))) as spool:
        assert spool.tell() == 0


def test_what_is_not_an_archive() -> None:
    with pytest.raises(tarfile.TarError):
        spooled_archive(b"", io.BytesIO(b"no archive" * 100))
