"""Mounts before a microVM exists: what is refused, what a state keeps, and what policies are asked."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from tests.unit.guarded import Guarded

from cedarbox import Mount, PolicyDenied
from cedarbox.boxlite import (
    BoxLiteSandboxClient,
    BoxLiteSandboxClientOptions,
    BoxLiteSandboxSession,
    BoxLiteSandboxSessionState,
)
from cedarbox.boxlite.holders import inherited_settings
from cedarbox.boxlite.mounts import mark, pinned, recheck
from cedarbox.errors import CanonicalizationError, ConfigurationError, HostError
from cedarbox.guard.facts import mounting
from cedarbox.policy.entities import Base

PERMIT_CREATE = """
@id("create") permit (principal, action in [Sandbox::Action::"create", Sandbox::Action::"resume"], resource);
"""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    return made


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[BoxLiteSandboxClient]:
    made = BoxLiteSandboxClient(home=tmp_path / "home")
    yield made
    await made.close()


def options(*mounts: Any, **values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(**{"image": "python:3.12-slim", "mounts": mounts, **values})


def state_of(session: SandboxSession) -> BoxLiteSandboxSessionState:
    assert isinstance(session.state, BoxLiteSandboxSessionState)
    return session.state


@pytest.mark.parametrize(
    "guest",
    [
        "", "data", "/", "//mnt/a", "/mnt/a/", "/mnt/../etc", "/mnt/./a", "/mnt//a", "/mnt/a\nb", "/mnt/\udcff", "/etc",
        "/etc/ssl", "/proc/1", "/sys", "/dev/shm", "/usr/lib", "/bin", "/run/x", "/tmp/x", "/mnt", "/home", "/var",
        "/root", "/.cedarbox", "/.cedarbox/mounts", "/workspace", 7, None,
    ],
)  # fmt: skip
def test_guest_paths_that_are_refused(shared: Path, guest: Any) -> None:
    with pytest.raises(ConfigurationError, match="mounts") as caught:
        options(Mount(str(shared), guest))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("guest", ["/mnt/a", "/workspace/data", "/data", "/var/lib/data", "/home/agent/x", "/a b"])
def test_guest_paths_that_are_taken(shared: Path, guest: str) -> None:
    assert options(Mount(shared, guest)).mounts == (Mount(str(shared), guest, True),)


def test_host_paths_that_are_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "root").symlink_to("/")
    for host, says in (
        (str(tmp_path / "missing"), "No such file"),
        (str(tmp_path / "file"), "not a directory"),
        (str(tmp_path / "dangling"), "No such file"),
        (str(tmp_path / "root"), "never shared"),
        ("/", "never shared"),
        ("/proc", "never shared"),
        ("/dev/shm", "never shared"),
        ("relative", "not absolute"),
        ("~nobody-of-this-name/x", "mounts"),
        ("a\0b", "not a path"),
        ("", "not a path"),
    ):
        with pytest.raises(ConfigurationError, match=says) as caught:
            options(Mount(host, "/mnt/a"))
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    "mounts", ["/a", [7], [{"host": "/x"}], [{"host": "/x", "guest": "/mnt/a", "mode": "rw"}], {"a": 1}]
)
def test_what_is_no_list_of_mounts(mounts: Any) -> None:
    with pytest.raises(ConfigurationError, match="mounts"):
        BoxLiteSandboxClientOptions(image="python", mounts=mounts)


def test_mounts_in_each_other_are_refused(shared: Path) -> None:
    (shared / "below").mkdir()
    (shared.parent / "link").symlink_to(shared / "below")
    other = shared.parent / "other"
    other.mkdir()
    with pytest.raises(ConfigurationError, match="in each other in the guest"):
        options(Mount(shared, "/mnt/a"), Mount(other, "/mnt/a/b"))
    with pytest.raises(ConfigurationError, match="in each other on the host"):
        options(Mount(shared, "/mnt/a"), Mount(shared.parent / "link", "/mnt/b"))
    with pytest.raises(ConfigurationError, match="hide the workspace"):
        options(Mount(shared, "/srv/a"), workspace_root="/srv/a/work")
    assert len(options(Mount(shared, "/mnt/a"), Mount(other, "/mnt/ab")).mounts) == 2
    with pytest.raises(ConfigurationError, match="at most"):
        options(*[Mount(other, f"/mnt/{number}") for number in range(17)])


def test_options_with_mounts_survive_json(shared: Path) -> None:
    made = options(Mount(shared, "/mnt/a", read_only=False))
    again = BaseSandboxClientOptions.parse(json.loads(json.dumps(made.model_dump(mode="json"))))
    assert again == made


async def test_the_boxlite_home_is_never_shared(client: BoxLiteSandboxClient, tmp_path: Path) -> None:
    (tmp_path / "home" / "boxes").mkdir(parents=True)
    (tmp_path / "home").chmod(0o700)
    for host in (tmp_path, tmp_path / "home", tmp_path / "home" / "boxes"):
        with pytest.raises(ConfigurationError, match="BoxLite home"):
            await client.create(options=options(Mount(host, "/mnt/a")))


async def test_a_state_keeps_the_very_directory(client: BoxLiteSandboxClient, shared: Path) -> None:
    link = shared.parent / "link"
    link.symlink_to(shared)
    state = state_of(await client.create(options=options(Mount(link, "/mnt/a"))))
    (mount,) = state.mounts
    status = shared.stat()
    assert (mount.host, mount.real) == (str(link), str(shared.resolve()))
    assert (mount.device, mount.inode) == (status.st_dev, status.st_ino)
    payload = json.loads(json.dumps(client.serialize_session_state(state)))
    again = client.deserialize_session_state(payload)
    assert again == state
    assert state.options().mounts == (Mount(str(link), "/mnt/a"),)
    for change in ({"guest": "/etc"}, {"real": "/"}, {"real": "/a/../b"}, {"guest": "/workspace"}, {"inode": "x"}):
        changed = {**payload, "mounts": [{**payload["mounts"][0], **change}]}
        with pytest.raises(ConfigurationError):
            client.deserialize_session_state(changed)


def test_what_is_swapped_afterwards_is_refused(shared: Path) -> None:
    link = shared.parent / "link"
    link.symlink_to(shared)
    mount = pinned(Mount(link, "/mnt/a"))
    recheck((mount,))
    other = shared.parent / "other"
    other.mkdir()
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(HostError, match="not the directory that it was"):
        recheck((mount,))
    link.unlink()
    with pytest.raises(HostError, match="is gone"):
        recheck((mount,))
    link.symlink_to(shared)
    shared.rename(shared.parent / "moved")
    shared.mkdir()
    with pytest.raises(HostError, match="not the directory that it was"):
        recheck((mount,))


def test_a_microvm_with_other_mounts_has_another_name(shared: Path) -> None:
    one, other = pinned(Mount(shared, "/mnt/a")), pinned(Mount(shared, "/mnt/a", read_only=False))
    assert mark(()) == ""
    assert len({mark(()), mark((one,)), mark((other,)), mark((one, other))}) == 4


async def test_a_clone_is_not_taken_for_one_with_other_mounts(client: BoxLiteSandboxClient, shared: Path) -> None:
    plain = state_of(await client.create(options=options()))
    sharing = state_of(await client.create(options=options(Mount(shared, "/mnt/a"))))
    assert inherited_settings(plain) != inherited_settings(sharing)


async def test_the_client_says_what_it_would_mount(client: BoxLiteSandboxClient, shared: Path) -> None:
    link = shared.parent / "link"
    link.symlink_to(shared)
    pinned_image = "mirror.corp.example/a@sha256:" + "c" * 64
    chosen = options(Mount(link, "/mnt/a", read_only=False), image=pinned_image)
    expected = ((str(link), str(shared.resolve()), "/mnt/a", True),)
    assert client.describe_sandbox(chosen)["mounts"] == expected
    assert client.describe_sandbox((await client.create(options=chosen)).state)["mounts"] == expected


@pytest.mark.parametrize("read_only", [True, False])
async def test_nothing_is_made_without_a_policy_for_the_mount(tmp_path: Path, shared: Path, read_only: bool) -> None:
    chosen = options(Mount(shared, "/mnt/a", read_only=read_only))
    other = "Write" if read_only else "Read"
    rule = f'@id("m") permit (principal, action == Sandbox::Action::"mount{other}", resource);'
    inner = BoxLiteSandboxClient(home=tmp_path / "home")
    guarded = Guarded(tmp_path, PERMIT_CREATE + rule, inner=inner)
    action = "mountRead" if read_only else "mountWrite"
    with pytest.raises(PolicyDenied):
        await guarded.client.create(options=chosen)
    assert guarded.denied() == [(action, f'HostPath::"{shared.resolve()}"')]
    assert not (tmp_path / "home").exists()

    state = state_of(await inner.create(options=chosen))
    with pytest.raises(PolicyDenied):
        await guarded.client.resume(state)
    assert guarded.denied()[1:] == [(action, f'HostPath::"{shared.resolve()}"')]
    await inner.close()


async def test_a_mount_is_decided_by_its_real_path(tmp_path: Path, shared: Path) -> None:
    link = tmp_path / "innocent"
    link.symlink_to(shared)
    rule = (
        '@id("m") permit (principal, action == Sandbox::Action::"mountRead", resource) '
        f'when {{ resource == Sandbox::HostPath::"{shared.resolve()}" && context.isSymlink }};'
    )
    inner = BoxLiteSandboxClient(home=tmp_path / "home")
    guarded = Guarded(tmp_path, PERMIT_CREATE + rule, inner=inner)
    session = await guarded.client.create(options=options(Mount(link, "/mnt/a")))
    assert state_of(session).mounts[0].real == str(shared.resolve())
    (made,) = guarded.records("sandbox.created")
    assert made.entry.attrs["mounts"] == (f"{shared.resolve()} at /mnt/a, read-only",)
    with pytest.raises(PolicyDenied):
        await guarded.client.create(options=options(Mount(shared, "/mnt/a")))
    await inner.close()


def test_a_path_with_two_spellings_cannot_be_named() -> None:
    base = Base(at=datetime.now(UTC), backend="boxlite")
    real = "/srv/" + unicodedata.normalize("NFD", "ä")
    with pytest.raises(CanonicalizationError, match="normal form C"):
        mounting(real, real, "/mnt/a", writable=False)(base)


async def test_writing_back_is_decided_when_it_happens(tmp_path: Path, shared: Path) -> None:
    guarded = Guarded(tmp_path, PERMIT_CREATE, inner=BoxLiteSandboxClient(home=tmp_path / "home"))
    session = await guarded.client.create(options=options())
    assert isinstance(session._inner, BoxLiteSandboxSession)
    assert session._inner.permission is not None
    with pytest.raises(PolicyDenied):
        async with session._inner.permission(str(shared), "/mnt/a"):
            pytest.fail("this must not be reached")
    assert guarded.denied() == [("mountWrite", f'HostPath::"{shared}"')]
