"""Mounts, users, environment, ports and the jail, on two real boxes: one with mounts, one with a network card."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from agents import RunConfig, Runner
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Shell
from agents.sandbox.manifest import Environment, Manifest
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import Group, User
from agents.testing import ScriptedModel, assistant_message, function_call
from tests.microvm.boxes import options, state_of

from cedarbox import Mount, SecretEnv
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxSession
from cedarbox.boxlite.isolation import check_jail, clean_environments, jail_of
from cedarbox.boxlite.trees import tree_digest
from cedarbox.errors import ConfigurationError, HostError

CANARY = "canary-of-the-host-environment"
SECRET = "value-of-the-secret-that-stays-here"

ATTACKS = """
exec 2>&1
cd /mnt/ro || exit 9
try() { if "$@" >/dev/null; then echo "DONE: $*"; fi; }
try sh -c 'echo x >file'; try sh -c 'echo x >new'; try chmod 777 file; try chown 5 file; try mv file moved; try rm file
try ln -s a link2; try ln file hard; try mkdir dir2; try rmdir dir; try mknod null c 1 3; try mkfifo pipe
try touch file; try truncate -s 0 file
exec 9<file; try truncate -s 0 /proc/self/fd/9; try sh -c 'echo x >/proc/self/fd/9'
try python3 -c 'import os; os.setxattr("file", "user.x", b"1")'
try python3 -c 'import os; os.utime("file", (1, 1))'
try python3 -c '
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
REMOUNT = 32
if libc.mount(b"none", b"/mnt/ro", b"none", REMOUNT, None) and libc.mount(b"/mnt/ro", b"/mnt/ro", None, 4096, None):
    raise OSError(ctypes.get_errno(), "mount")
'
grep ' /mnt/ro ' /proc/mounts; cat file
"""


@pytest.fixture(scope="module")
def canary() -> Iterator[None]:
    """A secret in this process's environment, there before BoxLite starts anything."""
    os.environ["CEDARBOX_TEST_CANARY"] = CANARY
    os.environ["CEDARBOX_TEST_SECRET"] = SECRET
    yield
    del os.environ["CEDARBOX_TEST_CANARY"], os.environ["CEDARBOX_TEST_SECRET"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the host with a tree to read and a tree to write."""
    made = tmp_path_factory.mktemp("shared")
    for name in ("ro", "rw"):
        (made / name / "dir").mkdir(parents=True)
        (made / name / "file").write_text("content")
        (made / name / "link").symlink_to("file")
    return made


@pytest.fixture(scope="module")
async def box(
    canary: None, client: BoxLiteSandboxClient, oci_layout: Path, shared: Path
) -> AsyncIterator[SandboxSession]:
    """A started session with both kinds of mounts and no network card."""
    mounts = (Mount(shared / "ro", "/mnt/ro"), Mount(shared / "rw", "/workspace/rw", read_only=False))
    manifest = Manifest(environment=Environment(value={"TOKEN": SecretEnv(reference="env:CEDARBOX_TEST_SECRET")}))
    made = await client.create(options=options(oci_layout, mounts=mounts), manifest=manifest)
    await made.start()
    yield made
    await client.delete(made)


@pytest.fixture(scope="module")
async def networked(
    canary: None, client: BoxLiteSandboxClient, oci_layout: Path, box: SandboxSession
) -> AsyncIterator[SandboxSession]:
    """A started session with a network card, a published port and a user; the first session is stopped before."""
    await box.shutdown()
    chosen = options(oci_layout, egress_mode="nic", egress_allowlist=("10.99.99.99",), exposed_ports=(8080,))
    made = await client.create(
        options=chosen,
        manifest=Manifest(users=[User(name="coder")], groups=[Group(name="team", users=[User(name="agent")])]),
    )
    await made.start()
    yield made
    await client.delete(made)


async def sh(session: SandboxSession, script: str, *, user: str | None = None) -> str:
    result = await session.exec("sh", "-c", script, shell=False, user=user, timeout=240.0)
    assert result.ok(), (result.stdout, result.stderr)
    return result.stdout.decode()


async def pid_of(session: SandboxSession) -> int:
    assert isinstance(session._inner, BoxLiteSandboxSession)
    pid = (await session._inner._machine.box.info()).state.pid
    assert pid is not None
    return pid


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


async def test_the_jail_is_on_and_shows_nothing_of_this_process(box: SandboxSession) -> None:
    pid = await pid_of(box)
    jailers, shim = jail_of(pid)
    assert [environment_of(jailer).strip(b"\0") for jailer in jailers] == [b""] * 2
    names = {line.partition(b"=")[0] for line in environment_of(shim).rstrip(b"\0").split(b"\0")}
    assert names == {b"PATH", b"HOME", b"LD_LIBRARY_PATH", b"PWD"}
    check_jail(pid, network_card=False, mounts=state_of(box).mounts)
    with pytest.raises(HostError, match="without a jail"):
        check_jail(shim, network_card=False)


async def test_a_read_only_mount_is_read_only_for_root(box: SandboxSession, shared: Path) -> None:
    before = tree_digest(shared / "ro")
    said = await sh(box, ATTACKS)
    assert "DONE" not in said
    assert " virtiofs ro," in said
    assert said.endswith("content")
    (shared / "ro" / "later").write_text("live")
    assert await sh(box, "cat /mnt/ro/later") == "live"
    (shared / "ro" / "later").unlink()
    assert tree_digest(shared / "ro") == before
    # Also for whoever breaks out of the guest into the process on the host that serves it.
    _, shim = jail_of(await pid_of(box))
    with pytest.raises(OSError, match="Read-only file system"):
        Path(f"/proc/{shim}/root{(shared / 'ro').resolve()}/new").touch()


async def test_a_writable_mount_comes_back_when_the_session_stops(box: SandboxSession, shared: Path) -> None:
    target = shared / "rw"
    await sh(
        box,
        "cd /workspace/rw && chmod 600 file && chown 7 file && mv file moved && ln -s moved link2 && rm link"
        " && mkdir -p deep/er && printf new >deep/er/file && touch dir/x && ln -s ../moved dir/up",
    )
    assert sorted(path.name for path in target.iterdir()) == ["dir", "file", "link"]
    await box.stop()
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == [
        "deep", "deep/er", "deep/er/file", "dir", "dir/up", "dir/x", "link2", "moved",
    ]  # fmt: skip
    assert ((target / "moved").read_text(), (target / "link2").readlink()) == ("content", Path("moved"))
    assert (target / "moved").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in shared.iterdir() if "cedarbox" in path.name] == []

    before = target.stat().st_ino
    await box.stop()
    assert target.stat().st_ino == before, "what did not change is left alone"


async def test_nothing_is_lost_when_both_sides_changed(box: SandboxSession, shared: Path) -> None:
    target = shared / "rw"
    await sh(box, "printf guest >/workspace/rw/deep/er/file")
    (target / "host").write_text("host")
    with pytest.raises(HostError, match="changed on the host meanwhile"):
        await box.stop()
    assert ((target / "host").read_text(), (target / "deep/er/file").read_text()) == ("host", "new")
    (kept,) = shared.glob("rw.cedarbox-*")
    assert (kept / "deep/er/file").read_text() == "guest"
    assert not (kept / "host").exists()

    (target / "host").unlink()
    await sh(box, "ln -s /etc/passwd /workspace/rw/out")
    with pytest.raises(HostError, match="may be outside of it"):
        await box.stop()
    (archive,) = shared.glob("rw.cedarbox-*.tar")
    assert archive.stat().st_size > 0
    assert (target / "deep/er/file").read_text() == "new"
    await sh(box, "rm /workspace/rw/out")


async def test_a_secret_is_only_in_the_command_that_gets_it(
    box: SandboxSession, client: BoxLiteSandboxClient, home: Path
) -> None:
    assert await sh(box, 'printf %s "$TOKEN"') == SECRET
    payload = json.dumps(client.serialize_session_state(box.state))
    assert SECRET not in payload
    assert "env:CEDARBOX_TEST_SECRET" in payload
    for path in (*(home / "logs").iterdir(), *(home / "db").iterdir(), *(home / "boxes").rglob("logs/*")):
        assert SECRET.encode() not in path.read_bytes(), path
        assert CANARY.encode() not in path.read_bytes(), path


async def test_no_key_of_boxlite_gets_through(box: SandboxSession) -> None:
    values = box.state.manifest.environment.value
    # U+FF3F and U+FF22 look like a low line and a B.
    for key in ("BOXLITE_EXECUTOR", "boxlite_executor", "BOXLITE\uff3fEXECUTOR", "\uff22OXLITE_EXECUTOR"):
        values[key] = "guest"
        try:
            with pytest.raises(ConfigurationError):
                await box.exec("id", shell=False)
            with pytest.raises(ConfigurationError):
                await box.pty_exec_start("id", shell=False)
        finally:
            del values[key]
    assert (await box.exec("id", shell=False)).ok()


async def test_a_port_is_reached_on_loopback_only(networked: SandboxSession) -> None:
    await sh(networked, "mkdir -p /srv/www && printf served >/srv/www/file")
    serve = "cd /srv/www && (setsid python3 -m http.server 8080 >/dev/null 2>&1 </dev/null &)"
    wait = "until python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8080))' 2>/dev/null; do :; done"
    await sh(networked, f"{serve}; {wait}")
    endpoint = await networked.resolve_exposed_port(8080)
    assert endpoint.host == "127.0.0.1"
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(b"GET /file HTTP/1.0\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.0 200")
    assert answer.endswith(b"served")
    # proc_net_tcp(5): addresses in hex, least significant byte first; state 0A is LISTEN.
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    listening = [line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{endpoint.port:04X}")]
    assert listening == [f"0100007F:{endpoint.port:04X}"]


async def test_an_agent_runs_as_its_user(networked: SandboxSession) -> None:
    shown = function_call("exec_command", {"cmd": "id -un; id -u; sudo -n id", "yield_time_ms": 60_000}, call_id="c")
    model = ScriptedModel([[shown], [assistant_message("done")]])
    agent = SandboxAgent(name="worker", model=model, capabilities=[Shell()], run_as="coder")
    result = await Runner.run(agent, "go", run_config=RunConfig(sandbox=SandboxRunConfig(session=networked)))
    output = next(str(item.to_input_item()) for item in result.new_items if item.type == "tool_call_output_item")
    assert "coder" in output
    assert "uid=0" not in output
    # The image has no useradd; the user agent was there before.
    assert (await sh(networked, "id -u; id -gn", user="coder")).split() == ["1002", "coder"]
    assert (await sh(networked, "id -u; id -Gn agent", user="agent")).split() == ["1000", "agent", "team"]


async def test_a_card_costs_the_filter_and_nothing_else(networked: SandboxSession) -> None:
    pid = await pid_of(networked)
    check_jail(pid, network_card=True)
    jailers, shim = jail_of(pid)
    assert [environment_of(jailer).strip(b"\0") for jailer in jailers] == [b""] * 2
    clean_environments(jailers)
    with pytest.raises(HostError, match="without a seccomp filter"):
        check_jail(pid, network_card=False)
    assert CANARY.encode() not in environment_of(shim)
