"""An agent of a Chat Completions model edits files: the SDK's real model class against a server on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from agents import Agent, Runner
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Capability, Compaction, Filesystem, Shell
from agents.testing import ScriptedModel
from openai import AsyncOpenAI
from tests.unit.guarded import Guarded
from tests.unit.model_server import chat_call, chat_text, model_server

from cedarbox import capabilities_for
from cedarbox.errors import ConfigurationError

PATCH = """*** Begin Patch
*** Add File: notes.txt
+one
*** End Patch
"""
CHANGE = """*** Begin Patch
*** Update File: notes.txt
@@
-one
+two
*** End Patch
"""


def kinds(capabilities: list[Capability]) -> list[type[Capability]]:
    return [type(capability) for capability in capabilities]


async def test_an_agent_of_a_chat_completions_model_edits_a_file_and_reads_it(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    answers = (
        chat_call("apply_patch", {"patch": PATCH}, "call-1"),
        chat_call("apply_patch", {"patch": CHANGE}, "call-2"),
        chat_call("exec_command", {"cmd": "cat notes.txt", "yield_time_ms": 30_000}, "call-3"),
        chat_text("done"),
    )
    with model_server(*answers) as server:
        async with server.client() as client:
            model = OpenAIChatCompletionsModel("local", openai_client=client)
            agent = SandboxAgent(name="a", model=model, capabilities=capabilities_for(model))
            result = await Runner.run(agent, "go", run_config=guarded.config)
    assert result.final_output == "done"
    offered = {tool["function"]["name"]: tool["type"] for tool in server.bodies[0]["tools"]}
    assert offered.keys() >= {"apply_patch", "view_image", "exec_command"}
    assert set(offered.values()) == {"function"}
    answers_of_tools = [m["content"] for m in server.bodies[-1]["messages"] if m["role"] == "tool"]
    assert "Created" in answers_of_tools[0]
    assert "Updated" in answers_of_tools[1]
    assert "two" in answers_of_tools[2]
    assert ("allow", "invokeTool", 'Tool::"apply_patch"') in guarded.decisions()
    written = [r.entry for r in guarded.records("decision") if r.entry.action == "writeFile"]
    assert {entry.call_id for entry in written} == {"call-1", "call-2"}


@pytest.mark.parametrize("arguments", [{}, {"patch": 5}, {"patch": "not a patch"}, {"patch": "*** Begin Patch\n"}])
async def test_a_patch_that_cannot_be_read_is_an_answer_to_the_model(
    tmp_path: Path, arguments: dict[str, object]
) -> None:
    guarded = Guarded(tmp_path)
    with model_server(chat_call("apply_patch", arguments), chat_text("done")) as server:
        async with server.client() as client:
            model = OpenAIChatCompletionsModel("local", openai_client=client)
            agent = SandboxAgent(name="a", model=model, capabilities=capabilities_for(model))
            await Runner.run(agent, "go", run_config=guarded.config)
    (answer,) = [m["content"] for m in server.bodies[-1]["messages"] if m["role"] == "tool"]
    assert "patch" in answer.lower()
    assert "writeFile" not in {action for _, action, _ in guarded.decisions()}


async def test_what_a_model_takes_depends_on_its_class_its_name_or_its_agent() -> None:
    client = AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="x")
    chat, responses = OpenAIChatCompletionsModel("m", client), OpenAIResponsesModel("m", client)
    defaults, functions = [Filesystem, Shell, Compaction], [Shell, Filesystem]
    assert kinds(capabilities_for(chat)) == functions
    assert kinds(capabilities_for(responses)) == defaults
    assert kinds(capabilities_for(ScriptedModel([]))) == defaults
    assert kinds(capabilities_for("gpt-x")) == defaults
    assert kinds(capabilities_for(None)) == defaults
    assert kinds(capabilities_for("litellm/x")) == functions
    assert kinds(capabilities_for(Agent(name="a", model=chat))) == functions
    with pytest.raises(ConfigurationError, match="int is no model"):
        capabilities_for(5)  # type: ignore[arg-type]  # what is being tested
    await client.close()
