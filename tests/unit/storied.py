"""A story with agents, denials, connections and snapshots, told to the embedded collector by the real shipper."""

from __future__ import annotations

import asyncio
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

import pytest
from agents import RunConfig, Runner
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Shell
from agents.sandbox.manifest import Manifest
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec
from agents.testing import ScriptedModel, assistant_message, function_call
from tests.unit.asking import get
from tests.unit.brokering import MIRROR, OTHER, raw_server, talk
from tests.unit.bundles import write_bundle
from tests.unit.carried import Carrying
from tests.unit.relaying import real_relay
from tests.unit.whole import Names

from cedarbox import PolicyDenied, PolicySandboxClient, fork
from cedarbox.carriers import carrier_of
from cedarbox.egress.channel import ChannelLimits
from cedarbox.guard.session import GuardedSession
from cedarbox.settings import load_settings

__all__ = ["HOSTILE", "POLICIES", "tell"]

HOSTILE: Final = "<img src=x onerror=alert(1)>\u202ewolla\u202c & 'q' \"d\" \x1b[31m"
"""A command with markup, an override of the direction of text, and a control character."""

POLICIES: Final = f"""\
// What this site permits its agents.
@id("site-agents") @reason("agents of this site work in a sandbox")
permit (principal in Sandbox::AgentGroup::"agents", action, resource)
unless {{ action == Sandbox::Action::"connect" }};

// What leaves the sandbox goes to the mirror.
@id("mirror-only") @reason("the mirror of this site")
permit (principal, action == Sandbox::Action::"connect", resource == Sandbox::Host::"{MIRROR}")
when {{ context.ipClass == Sandbox::IpClass::"loopback" }};

@id("no-admin") @reason("the administration of the mirror is not for agents")
@advice("ask the team that runs the mirror")
forbid (principal, action == Sandbox::Action::"connect", resource)
when {{ context has http && context.http.path like "/admin*" }};

@id("no-secrets-of-the-host") @reason("files with credentials stay on the host")
forbid (principal, action == Sandbox::Action::"exec", resource)
when {{ context.commandLine like "*shadow*" || context.commandLine like "*id_rsa*" }};

@id("no-markup") @reason("no markup in commands")
forbid (principal, action == Sandbox::Action::"exec", resource)
when {{ context.commandLine like "*onerror*" }};

@id("few-forks") @reason("four copies at most")
forbid (principal, action == Sandbox::Action::"fork", resource)
when {{ context.copies > 4 }};
"""


async def tell(directory: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Play the story; return whether the collector has all of it.

    Args:
        directory: For the ledger in ``ledger``, its keys, the policies in ``bundle``, the snapshots.
        endpoint: Of the collector.
        monkeypatch: Names the hosts below ``example``.
    """
    names = Names.known(monkeypatch)
    names.answers[OTHER] = [["127.0.0.1"]]
    settings = load_settings(
        audit={"directory": directory / "ledger", "signing_key": directory / "ledger.key"},
        otlp={"spans": directory / "spans", "endpoint": endpoint},
    )
    client = PolicySandboxClient(
        Carrying(), policies=write_bundle(directory / "bundle", POLICIES, metadata=_METADATA), settings=settings
    )
    client.carrier = carrier_of(settings.egress)
    try:
        await _build(client)
        await _prowl(client)
        await _connect(client)
        await _branch(client, directory / "snapshots")
    finally:
        delivered = await asyncio.to_thread(client.close, flush=20.0)
    return delivered


_METADATA: Final = 'name = "corp-site"\nrevision = 7\nschema = 1\n'


def _config(client: PolicySandboxClient) -> RunConfig:
    sandbox = SandboxRunConfig(client=client, snapshot=NoopSnapshotSpec())
    return RunConfig(sandbox=sandbox, trace_include_sensitive_data=False)


def _calls(*commands: str) -> list[Any]:
    return [
        function_call(
            "exec_command", {"cmd": command, "yield_time_ms": 30_000}, call_id=f"call-{number}-{len(command)}"
        )
        for number, command in enumerate(commands)
    ]


async def _build(client: PolicySandboxClient) -> None:
    steps: list[Any] = [
        _calls("printf 'print(42)\\n' > answer.py", "ls -la", "cat /etc/hostname"),
        _calls("python3 answer.py", "cat /etc/shadow"),
        _calls("false"),
        [assistant_message("It prints 42.")],
    ]
    model = ScriptedModel(steps, emit_traces=True)
    agent = SandboxAgent(name="release-engineer", model=model, capabilities=[Shell()])
    await Runner.run(agent, "Write a program and run it.", run_config=_config(client))


async def _prowl(client: PolicySandboxClient) -> None:
    steps: list[Any] = [
        _calls(f"echo '{HOSTILE}'", "cat ~/.ssh/id_rsa"),
        _calls("echo '" + "long " * 400 + "'"),
        [assistant_message("I could not.")],
    ]
    model = ScriptedModel(steps, emit_traces=True)
    agent = SandboxAgent(name="prowler <b>bold</b>", model=model, capabilities=[Shell()])
    await Runner.run(agent, "Look around.", run_config=_config(client))


async def _connect(client: PolicySandboxClient) -> None:
    session = await client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    assert isinstance(session, GuardedSession)
    try:
        async with session, raw_server() as server:
            serve = cast("Any", session._inner).serve
            async with real_relay(serve, limits=ChannelLimits()) as relay:
                await talk(relay.port, get(server.port, "/simple/numpy/"))
                await talk(relay.port, get(server.port, "/simple/requests/"))
                await talk(relay.port, get(server.port, "/admin/users"))
                await talk(relay.port, get(server.port, "/", host=OTHER))
    finally:
        await client.delete(session)


async def _branch(client: PolicySandboxClient, snapshots: Path) -> None:
    session = await client.create(manifest=Manifest(), snapshot=LocalSnapshotSpec(base_path=snapshots), options=None)
    await session.start()
    await session.write(Path("parent.txt"), io.BytesIO(b"parent"))
    await session.stop()
    await session.shutdown()
    await client.delete(session)
    for copy in await fork(client, session.state, 2):
        await copy.stop()
        await copy.shutdown()
        await client.delete(copy)
    with suppress(PolicyDenied):
        await fork(client, session.state, 9)
