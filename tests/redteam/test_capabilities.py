"""Attacks through the capabilities of a sandbox agent, its memory above all."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents import Agent, ModelSettings, Runner
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Compaction, Filesystem, Memory, Shell
from agents.sandbox.config import MemoryGenerateConfig
from agents.testing import ScriptedModel, assistant_message, function_call
from tests.redteam.attacks import denying, refused, responses_model, says
from tests.unit.guarded import Guarded
from tests.unit.model_server import model_server, response_text

LOOPBACK = 'ModelEndpoint::"127.0.0.1"'


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_memory_with_a_model_of_a_vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streamed: bool) -> None:
    """Memory would send the whole run to a vendor's model when the sandbox stops. It is asked about up front.

    The record is a denial of useModel for the vendor's host; neither that model nor the agent's own is called.
    """
    guarded = Guarded(tmp_path, denying("useModel", when='resource.locality != Sandbox::Locality::"in_process"'))
    model = says()
    with model_server(response_text("leaked")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        agent = SandboxAgent(name="a", model=model, capabilities=[Shell(), Filesystem(), Memory()])
        await refused(guarded, agent, match="Memory of agent 'a' would call", streamed=streamed)
    assert (server.requests, model.calls) == ([], ())
    assert guarded.denied() == [("useModel", LOOPBACK)]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_memory_that_brings_a_hosted_tool_when_the_sandbox_stops(tmp_path: Path, streamed: bool) -> None:
    """Memory runs an agent of its own when the sandbox stops, outside the run. That run is under the same guard.

    The records show the model of that run asked about, and its command decided under the run's own identity.
    """
    guarded = Guarded(tmp_path)
    phase = ScriptedModel(
        [
            [function_call("exec_command", {"cmd": "echo from-memory"}, call_id="m")],
            [assistant_message('{"rollout_slug": "", "rollout_summary": "", "raw_memory": ""}')],
        ]
    )
    memory = Memory(generate=MemoryGenerateConfig(phase_one_model=phase, phase_two_model=says()))
    agent = SandboxAgent(name="a", model=says(), capabilities=[Shell(), Filesystem(), memory])
    if streamed:
        result = Runner.run_streamed(agent, "go", run_config=guarded.config)
        async for _ in result.stream_events():
            pass
    else:
        await Runner.run(agent, "go", run_config=guarded.config)
    assert len(phase.calls) == 2
    commands = [r.entry for r in guarded.records("decision") if r.entry.attrs.get("summary") == "echo from-memory"]
    assert [(entry.call_id, entry.run is None) for entry in commands] == [("m", False)]


@pytest.mark.parametrize("kind", ["shell", "filesystem", "memory", "compaction", "unknown"])
async def test_capability_that_is_not_permitted(tmp_path: Path, kind: str) -> None:
    """An agent has a capability that the policies deny; a subclass that calls itself a shell is not one.

    The record is a denial of useCapability; no sandbox is made and the model is not called.
    """

    class Disguised(Shell):
        pass

    guarded = Guarded(tmp_path, denying("useCapability", f'Capability::"{kind}"'))
    memory, model = Memory(generate=None), says()
    last = Disguised() if kind == "unknown" else Shell()
    agent = SandboxAgent(name="a", model=model, capabilities=[Filesystem(), memory, Compaction(), last])
    await refused(guarded, agent)
    assert model.calls == ()
    assert guarded.denied() == [("useCapability", f'Capability::"{kind}"')]
    assert guarded.records("sandbox.created") == []


async def test_compaction_by_the_server_without_the_capability(tmp_path: Path) -> None:
    """The settings have the server compact the conversation, without the capability that would be asked about.

    The record is a denial of useCapability for compaction; nothing arrives.
    """
    guarded = Guarded(tmp_path, denying("useCapability", 'Capability::"compaction"'))
    settings = ModelSettings(context_management=[{"type": "compaction", "compact_threshold": 1000}])
    with model_server(response_text("leaked")) as server:
        await refused(guarded, Agent(name="a", model=responses_model(server), model_settings=settings))
    assert server.requests == []
    assert guarded.denied() == [("useCapability", 'Capability::"compaction"')]
