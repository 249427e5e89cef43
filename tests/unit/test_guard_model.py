"""No way to a hosted tool, a vendor's model or an unguarded run: the real Runner, whatever brings the attempt."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
from agents import (
    Agent,
    CodeInterpreterTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    ModelSettings,
    RunConfig,
    RunHooks,
    Runner,
    ToolSearchTool,
    WebSearchTool,
    function_tool,
    handoff,
)
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.sandbox.capabilities import Compaction, Filesystem, Shell
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.testing import ScriptedModel, assistant_message, function_call
from openai import AsyncOpenAI
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.errors import ConfigurationError, PolicyDenied, UnsupportedToolError
from cedarbox.guard import is_in_force

NO_HOSTED = (
    PERMIT_ALL + '@id("local-only") forbid (principal, action == Sandbox::Action::"invokeTool", resource) '
    'unless { [Sandbox::ToolKind::"function", Sandbox::ToolKind::"custom"].contains(resource.kind) };'
)
LOCAL_MODELS = (
    NO_HOSTED + '@id("local-models") forbid (principal, action == Sandbox::Action::"useModel", resource) '
    'unless { resource.locality == Sandbox::Locality::"in_process" };'
)


@pytest.fixture
def guarded(tmp_path: Path) -> Guarded:
    return Guarded(tmp_path, NO_HOSTED)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    attempts: list[object] = []

    def refuse(*where: object, **_: object) -> NoReturn:
        attempts.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


def says(text: str = "done") -> ScriptedModel:
    return ScriptedModel([[assistant_message(text)]])


HOSTED = [
    WebSearchTool(),
    FileSearchTool(vector_store_ids=["v"]),
    CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": {"type": "auto"}}),
    HostedMCPTool(
        tool_config={"type": "mcp", "server_label": "x", "server_url": "http://x.example", "require_approval": "never"}
    ),
    ImageGenerationTool(tool_config={"type": "image_generation"}),
    ToolSearchTool(),
    LocalShellTool(executor=lambda _: ""),
]


@pytest.mark.parametrize("tool", HOSTED, ids=lambda tool: tool.name)
async def test_a_tool_that_runs_elsewhere_is_refused_before_the_model_is_called(guarded: Guarded, tool: Any) -> None:
    model = says()
    extra = [_deferred] if isinstance(tool, ToolSearchTool) else []
    with pytest.raises(PolicyDenied):
        await Runner.run(Agent(name="a", tools=[tool, *extra], model=model), "go", run_config=guarded.config)
    assert model.calls == ()


@function_tool(defer_loading=True)
def _deferred() -> str:
    """Exists so that a tool search has something to find."""
    return ""


async def test_streaming_does_not_go_around(guarded: Guarded) -> None:
    model = says()
    result = Runner.run_streamed(Agent(name="a", tools=[WebSearchTool()], model=model), "go", run_config=guarded.config)
    with pytest.raises(PolicyDenied):
        async for _ in result.stream_events():
            pass
    assert model.calls == ()


async def test_a_handoff_to_an_agent_with_its_own_model_does_not_go_around(guarded: Guarded) -> None:
    model = says()
    second = Agent(name="second", tools=[WebSearchTool()], model=model)
    to_second = handoff(second)
    first = Agent(
        name="first",
        model=ScriptedModel([[function_call(to_second.tool_name, {}, call_id="h")]]),
        handoffs=[to_second],
    )
    with pytest.raises(PolicyDenied):
        await Runner.run(first, "go", run_config=guarded.config)
    assert model.calls == ()


async def test_a_nested_agent_with_its_own_run_config_does_not_go_around(guarded: Guarded) -> None:
    model = says("leaked")
    nested = Agent(name="nested", tools=[WebSearchTool()], model=model)
    tool = nested.as_tool("helper", "helps", run_config=RunConfig())
    outer = Agent(
        name="outer",
        tools=[tool],
        model=ScriptedModel([[function_call("helper", {"input": "x"}, call_id="n")], [assistant_message("done")]]),
    )
    await Runner.run(outer, "go", run_config=guarded.config)
    assert model.calls == ()
    assert ("invokeTool", 'Tool::"web_search"') in guarded.denied()


async def test_a_tool_that_a_hook_adds_does_not_go_around(guarded: Guarded) -> None:
    class Adds(RunHooks[None]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            agent.tools.append(WebSearchTool())

    model = says()
    with pytest.raises(PolicyDenied):
        await Runner.run(Agent(name="a", model=model), "go", run_config=guarded.config, hooks=Adds())
    assert model.calls == ()


@pytest.mark.parametrize(
    "settings",
    [
        ModelSettings(extra_body={"tools": [{"type": "web_search"}]}),
        ModelSettings(extra_args={"tools": [{"type": "web_search"}]}),
        ModelSettings(extra_body={"web_search_options": {}}),
        ModelSettings(extra_args={"prompt": {"id": "pmpt_1"}}),
        ModelSettings(extra_body={"a parameter of tomorrow": 1}),
    ],
    ids=["body", "args", "options", "prompt", "unknown"],
)
async def test_parameters_that_smuggle_a_tool_are_refused(guarded: Guarded, settings: ModelSettings) -> None:
    model = says()
    with pytest.raises(PolicyDenied):
        await Runner.run(Agent(name="a", model=model, model_settings=settings), "go", run_config=guarded.config)
    assert model.calls == ()


async def test_a_stored_prompt_is_decided(tmp_path: Path) -> None:
    no_templates = '@id("no-templates") forbid (principal, action == Sandbox::Action::"useServerState", resource);'
    guarded = Guarded(tmp_path, PERMIT_ALL + no_templates)
    model = says()
    with pytest.raises(PolicyDenied, match="no-templates"):
        await Runner.run(Agent(name="a", model=model, prompt={"id": "pmpt_1"}), "go", run_config=guarded.config)
    assert model.calls == ()


@pytest.mark.parametrize(
    ("capabilities", "named"),
    [
        (None, "apply_patch"),
        ([Filesystem()], "apply_patch"),
        ([Shell(), Compaction()], "compaction"),
    ],
    ids=["default", "filesystem", "compaction"],
)
async def test_a_chat_completions_model_gets_one_clear_error_before_any_network(
    guarded: Guarded, no_network: list[object], capabilities: Any, named: str
) -> None:
    client = AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0)
    model = OpenAIChatCompletionsModel("local", openai_client=client)
    chosen = {} if capabilities is None else {"capabilities": capabilities}
    with pytest.raises(UnsupportedToolError, match=rf"{named}.*cedarbox\.capabilities_for"):
        await Runner.run(SandboxAgent(name="a", model=model, **chosen), "go", run_config=guarded.config)
    assert no_network == []
    await client.close()


@pytest.mark.parametrize("kind", [OpenAIChatCompletionsModel, OpenAIResponsesModel])
async def test_a_model_elsewhere_is_refused_before_any_network(
    tmp_path: Path, no_network: list[object], kind: type[Any]
) -> None:
    guarded = Guarded(tmp_path, LOCAL_MODELS)
    client = AsyncOpenAI(base_url="https://API.models.example./v1", api_key="x", max_retries=0)
    with pytest.raises(PolicyDenied):
        await Runner.run(Agent(name="a", model=kind("m", openai_client=client)), "go", run_config=guarded.config)
    assert no_network == []
    assert guarded.denied() == [("useModel", 'ModelEndpoint::"api.models.example"')]
    await client.close()


async def test_a_model_class_that_does_not_say_where_it_sends_is_refused(tmp_path: Path) -> None:
    guarded = Guarded(tmp_path)
    from agents.models.interface import Model

    class Elsewhere(Model):
        async def get_response(self, *_: Any, **__: Any) -> NoReturn:
            raise AssertionError("called")

        def stream_response(self, *_: Any, **__: Any) -> NoReturn:
            raise AssertionError("called")

    with pytest.raises(PolicyDenied, match="does not say"):
        await Runner.run(Agent(name="a", model=Elsewhere()), "go", run_config=guarded.config)


async def test_the_default_model_of_a_vendor_is_refused(
    tmp_path: Path, no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    guarded = Guarded(tmp_path, LOCAL_MODELS)
    with pytest.raises(PolicyDenied):
        await Runner.run(Agent(name="a"), "go", run_config=guarded.config)
    assert no_network == []


@pytest.mark.parametrize(
    "config",
    [
        None,
        RunConfig(),
        RunConfig(sandbox=SandboxRunConfig(client=UnixLocalSandboxClient())),
        {"workflow_name": "x"},
    ],
    ids=["none", "plain", "raw client", "dict"],
)
async def test_a_run_without_guard_is_refused_once_cedarbox_is_in_force(guarded: Guarded, config: Any) -> None:
    assert is_in_force()
    model = says()
    with pytest.raises(ConfigurationError):
        await Runner.run(SandboxAgent(name="a", model=model, capabilities=[]), "go", run_config=config)
    assert model.calls == ()


async def test_a_raw_session_is_refused(guarded: Guarded) -> None:
    raw = UnixLocalSandboxClient()
    session = await raw.create()
    config = RunConfig(sandbox=SandboxRunConfig(client=guarded.client, session=session))
    with pytest.raises(ConfigurationError, match="unguarded"):
        await Runner.run(SandboxAgent(name="a", model=says(), capabilities=[]), "go", run_config=config)
    await raw.delete(session)


async def test_a_tool_call_is_decided_recorded_and_named_in_what_it_does(guarded: Guarded) -> None:
    model = ScriptedModel(
        [
            [
                function_call("exec_command", {"cmd": "echo one", "yield_time_ms": 30_000}, call_id="call-1"),
                function_call("exec_command", {"cmd": "echo two", "yield_time_ms": 30_000}, call_id="call-2"),
            ],
            [assistant_message("done")],
        ]
    )
    await Runner.run(SandboxAgent(name="worker", model=model, capabilities=[Shell()]), "go", run_config=guarded.config)
    commands = {
        r.entry.attrs["summary"]: (r.entry.tool, r.entry.call_id)
        for r in guarded.records("decision")
        if r.entry.action == "exec"
    }
    assert commands == {"echo one": ("exec_command", "call-1"), "echo two": ("exec_command", "call-2")}
    runs = {r.entry.run for r in guarded.records() if r.entry.tool}
    assert len(runs) == 1
    assert None not in runs


async def test_a_denied_tool_call_is_an_answer_to_the_model(tmp_path: Path) -> None:
    # The tool is offered in the first turn; the policy denies calling it by the name of the tool call it comes from.
    rule = (
        '@id("not-that") @reason("not that one") forbid (principal, action == Sandbox::Action::"invokeTool", resource) '
        'when { context.base has tool && context.base.tool == "greet" };'
    )
    guarded = Guarded(tmp_path, PERMIT_ALL + rule)
    called = []

    @function_tool
    def greet() -> str:
        """Greet."""
        called.append(True)
        return "hello"

    model = ScriptedModel([[function_call("greet", {}, call_id="g")], [assistant_message("done")]])
    result = await Runner.run(Agent(name="a", model=model, tools=[greet]), "go", run_config=guarded.config)
    assert called == []
    assert any("not that one" in str(item.to_input_item()) for item in result.new_items)
