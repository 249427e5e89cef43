"""A remote BoxLite on the wire: BoxLite's real REST client, driven by our client, against the server of rest_server."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import boxlite  # type: ignore[import-untyped]  # a native module
import pytest
from agents.sandbox.errors import (
    ExecTimeoutError,
    ExecTransportError,
    WorkspaceArchiveReadError,
    WorkspaceReadNotFoundError,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from tests.unit.rest_server import KEY, Server, rest, serving

from cedarbox import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, Mount
from cedarbox.boxlite import machine
from cedarbox.boxlite.remote import is_remote
from cedarbox.errors import ConfigurationError, HostError
from cedarbox.guard.facts import facts_of

DIGEST = "sha256:" + "0" * 64
IMAGE = f"mirror.corp.example/python@{DIGEST}"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "guest") as made:
        yield made


def options(**values: Any) -> BoxLiteSandboxClientOptions:
    return BoxLiteSandboxClientOptions(**{"image": IMAGE, "boot_timeout_s": 60.0, **values})


async def started(server: Server, **values: Any) -> tuple[BoxLiteSandboxClient, SandboxSession]:
    client = BoxLiteSandboxClient(runtime=server.runtime())
    root = str(server.root.parent / "workspace")
    session = await client.create(options=options(workspace_root=root, **values))
    assert server.requests == []
    await session.start()
    return client, session


async def content(session: SandboxSession, path: str) -> bytes:
    with await session.read(Path(path)) as stream:
        data: bytes = stream.read()
        return data


async def test_the_life_of_a_remote_sandbox(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kvm() -> None:
        raise HostError("KVM of this host is none of its business")

    monkeypatch.setattr(machine, "check_kvm", no_kvm)
    client, session = await started(server, cpus=3, memory_mib=777)
    async with session:
        (created,) = server.sent("POST", "boxes")
        # The promise that matters most is on the wire, and no path, port or secret of this host is.
        assert re.fullmatch(r"cedarbox-[0-9a-f]{32}-n[0-9a-f]{32}", created.pop("name"))
        assert created.pop("entrypoint")[0] == "/bin/sh"
        assert created == {
            "image": IMAGE,
            "cpus": 3,
            "memory_mib": 777,
            "network": {"mode": "disabled"},
            "cmd": [],
            "user": "0:0",
            "detach": False,
            "auto_delete": 0,
        }
        result = await session.exec("printf 'a\\0\\377b'; printf 'c\\n' >&2; exit 7")
        assert (result.stdout, result.stderr, result.exit_code) == (b"a\0\xffb", b"c\n", 7)
        for sent in server.sent("POST", "exec"):
            assert sent["env"].keys() <= {"CEDARBOX_EXEC"}
        with pytest.raises(ExecTimeoutError):
            await session.exec("sleep 60", timeout=1)
        await session.write(Path("a/b"), io.BytesIO(b"\0\xff" * 200_000))
        assert await content(session, "a/b") == b"\0\xff" * 200_000
        with pytest.raises(WorkspaceReadNotFoundError):
            await session.read(Path("absent"))
        with await session.persist_workspace() as saved:
            await session.exec("rm -rf a")
            await session.hydrate_workspace(saved)
        assert len(await content(session, "a/b")) == 400_000
        assert await session.running()
    assert not await session.running()
    assert [box["status"] for box in server.boxes.values()] == ["stopped"]
    await client.delete(session)
    assert server.boxes == {}
    # Nothing went another way: no copy, no snapshot, no volume, no image.
    assert {path.split("/")[3] for _, path, _ in server.requests if path.count("/") > 2} == {"start", "stop", "exec"}


async def test_a_user_is_refused_because_the_wire_drops_it(server: Server) -> None:
    box = await server.runtime().create(boxlite.BoxOptions(image="a"), None)
    execution = await box.exec("/bin/true", user="1000")
    await execution.wait()
    # This is why: BoxLite takes the user and does not send it, so that the command runs as root.
    assert server.sent("POST", "exec") == [{"command": "/bin/true", "tty": False}]
    server.requests.clear()
    _, session = await started(server)
    before = len(server.requests)
    with pytest.raises(ExecTransportError, match="user of a command is not sent") as caught:
        await session.exec("id", user="someone")
    assert caught.value.context["retry_safe"] is True
    with pytest.raises(ExecTransportError, match="user of a command is not sent"):
        await session.pty_exec_start("id", user="someone")
    with pytest.raises(WorkspaceArchiveReadError):
        await session.read(Path("x"), user="someone")
    assert all("someone" not in str(body) for _, _, body in server.requests[before:])


async def test_an_allow_list_is_sent(server: Server) -> None:
    server.card("eth0", up=True)
    client, session = await started(server, egress_mode="nic", egress_allowlist=("a.example", "*.b.example"))
    (created,) = server.sent("POST", "boxes")
    assert created["network"] == {"mode": "enabled", "allow_net": ["a.example", "*.b.example"]}
    await client.delete(session)


async def test_a_network_card_that_nobody_asked_for_is_noticed(server: Server) -> None:
    server.card("eth0", up=True)
    with pytest.raises(HostError, match=r"has a network card \(eth0\), asked for none"):
        await started(server)
    assert server.boxes == {}


async def test_a_guest_whose_cards_cannot_be_seen_is_refused(server: Server) -> None:
    (server.root / "sys").rename(server.root / "elsewhere")
    with pytest.raises(HostError, match="cannot be told whether"):
        await started(server)
    assert server.boxes == {}


async def test_a_session_is_taken_up_again(server: Server) -> None:
    client, session = await started(server)
    saved = client.serialize_session_state(session.state)
    other = BoxLiteSandboxClient(runtime=server.runtime())
    again: Any = await other.resume(other.deserialize_session_state(dict(saved)))
    await again.start()
    assert [again.state.box_id] == list(server.boxes)
    # Not when the state asks for another network than the one it was made with.
    wider: Any = await other.resume(
        other.deserialize_session_state({**saved, "egress_mode": "nic", "egress_allowlist": ["a.example"]})
    )
    assert wider.state.box_id == ""
    # Nor when it is gone.
    await client.delete(session)
    gone: Any = await other.resume(other.deserialize_session_state(dict(saved)))
    assert gone.state.box_id == ""


@pytest.mark.parametrize(
    ("values", "what"),
    [
        (lambda path: {"image": None, "rootfs": str(path)}, "rootfs"),
        (lambda path: {"mounts": (Mount(path, "/mnt/x"),)}, "mounts"),
        (lambda _: {"exposed_ports": (80,), "egress_mode": "nic", "egress_allowlist": ("a.example",)}, "exposed_ports"),
        (lambda _: {"workspace_persistence": "native"}, "workspace_persistence"),
        (lambda _: {"egress_allowlist": ("a.example",)}, "egress_allowlist"),
    ],
)
async def test_what_it_cannot_do_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Path, values: Callable[[Path], dict[str, Any]], what: str
) -> None:
    client = BoxLiteSandboxClient(runtime=server.runtime())
    chosen = options(**values(tmp_path))
    with pytest.raises(ConfigurationError, match=f"^{what}: "):
        await client.create(options=chosen)
    with pytest.raises(ConfigurationError, match=f"^{what}: "):
        client.describe_sandbox(chosen)
    assert server.requests == []


async def test_local_and_remote_are_told_apart_without_a_request_or_a_box(server: Server, tmp_path: Path) -> None:
    assert is_remote(server.runtime())
    assert is_remote(rest("http://127.0.0.1:1"))
    assert server.requests == []
    local = boxlite.Boxlite(boxlite.Options(home_dir=str(tmp_path / "home")))
    assert not is_remote(local)
    assert await local.list_info() == []
    with pytest.raises(ConfigurationError, match=r"is not a boxlite\.Boxlite"):
        BoxLiteSandboxClient(runtime=object())


def test_the_guard_is_told_the_truth() -> None:
    client: Any = BoxLiteSandboxClient(runtime=rest("http://127.0.0.1:1", key=KEY))
    facts = facts_of(client, options())
    # The policies that ship permit a microVM of this host; a server of somebody's has to be permitted by name.
    assert (facts.isolation, facts.egress, facts.ports, facts.snapshots) == ("hosted", (), (), ("tar",))
    assert (facts.digest, facts.repository) == (DIGEST, "mirror.corp.example/python")
    assert facts_of(client, options(egress_mode="nic", egress_allowlist=("a.example",))).egress == ("a.example",)
