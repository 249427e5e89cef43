"""Attacks through the tools of an agent: tools that run on the host, tools of MCP servers, tools that were left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agents import (
    Agent,
    ApplyPatchTool,
    AsyncComputer,
    CodeInterpreterTool,
    ComputerTool,
    CustomTool,
    FileSearchTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    ModelSettings,
    ProgrammaticToolCallingTool,
    Runner,
    ShellTool,
    Tool,
    ToolSearchTool,
    WebSearchTool,
    function_tool,
)
from agents.editor import ApplyPatchOperation
from agents.testing import ScriptedModel, assistant_message, function_call
from openai.types.responses import (
    ResponseApplyPatchToolCall,
    ResponseComputerToolCall,
    ResponseFunctionShellToolCall,
)
from openai.types.responses.response_apply_patch_tool_call import OperationCreateFile
from openai.types.responses.response_computer_tool_call import ActionScreenshot
from openai.types.responses.response_function_shell_tool_call import Action as ShellCommands
from openai.types.responses.response_output_item import LocalShellCall, LocalShellCallAction
from tests.redteam.attacks import REMOVE, denying, refused, responses_model, says
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.model_server import model_server, response_text

# Offering a tool is not part of a tool call, so what is denied here is running it.
NOT_WHEN_CALLED = PERMIT_ALL + (
    '@id("no") forbid (principal, action == Sandbox::Action::"invokeTool", resource) when { context.base has tool };'
)


class Screen(AsyncComputer):
    """A screen of this host that notes what is done with it."""

    environment = "ubuntu"
    dimensions = (8, 8)

    def __init__(self) -> None:
        self.done: list[str] = []

    async def screenshot(self) -> str:
        self.done.append("screenshot")
        return ""

    async def click(self, x: int, y: int, button: Any) -> None: ...
    async def double_click(self, x: int, y: int) -> None: ...
    async def scroll(self, x: int, y: int, scroll_x: int, scroll_y: int) -> None: ...
    async def type(self, text: str) -> None: ...
    async def wait(self) -> None: ...
    async def move(self, x: int, y: int) -> None: ...
    async def keypress(self, keys: list[str]) -> None: ...
    async def drag(self, path: list[tuple[int, int]]) -> None: ...


class Editor:
    """An editor of this host that notes what is done with it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def create_file(self, operation: ApplyPatchOperation) -> None:
        self.done.append(operation.path)

    update_file = delete_file = create_file


def note(ran: list[Any], request: Any) -> str:
    """Be the executor of a shell."""
    ran.append(request)
    return ""


@function_tool
def step() -> str:
    """Do something here."""
    return "from here"


@function_tool(defer_loading=True)
def deferred() -> str:
    """Exists so that a tool search has something to find."""
    return ""


async def call(context: Any, text: str) -> str:
    """Answer a custom tool."""
    return text


MCP: Any = {"type": "mcp", "server_label": "x", "server_url": "http://x.example", "require_approval": "never"}
HOSTED_SHELL: Any = {"type": "container_auto"}
EVERY_TYPE: dict[str, Tool] = {
    "function": step,
    "custom": CustomTool(name="c", description="d", on_invoke_tool=call),
    "apply_patch": ApplyPatchTool(editor=Editor()),
    "shell": ShellTool(executor=lambda _: ""),
    "local_shell": LocalShellTool(executor=lambda _: ""),
    "computer": ComputerTool(computer=Screen()),
    "hosted_web_search": WebSearchTool(),
    "hosted_file_search": FileSearchTool(vector_store_ids=["v"]),
    "hosted_code_interpreter": CodeInterpreterTool(
        tool_config={"type": "code_interpreter", "container": {"type": "auto"}}
    ),
    "hosted_image_generation": ImageGenerationTool(tool_config={"type": "image_generation"}),
    "hosted_mcp": HostedMCPTool(tool_config=MCP),
    "hosted_shell": ShellTool(environment=HOSTED_SHELL),
    "hosted_tool_search": ToolSearchTool(),
    "hosted_programmatic": ProgrammaticToolCallingTool(),
}


@pytest.mark.parametrize("kind", EVERY_TYPE)
async def test_tool_of_each_type_that_the_sdk_has(tmp_path: Path, kind: str) -> None:
    """Every type of tool is offered to a model. Each is asked about as the kind that it is.

    The record is a denial of invokeTool for that tool; the model is not called.
    """
    guarded = Guarded(tmp_path, denying("invokeTool", when=f'resource.kind == Sandbox::ToolKind::"{kind}"'))
    tool, model = EVERY_TYPE[kind], says()
    if kind == "hosted_tool_search":
        await refused(guarded, Agent(name="a", tools=[tool, deferred], model=model))
    else:
        await refused(guarded, Agent(name="a", tools=[tool], model=model))
    assert model.calls == ()
    assert guarded.denied() == [("invokeTool", f'Tool::"{tool.name}"')]


async def test_agent_as_a_tool_is_a_function(tmp_path: Path) -> None:
    """An agent is given to another as a tool. It is a function of this process, and denied as one.

    The record is a denial of invokeTool for its name; neither model is called.
    """
    guarded = Guarded(tmp_path, denying("invokeTool", 'Tool::"helper"'))
    nested, model = says(), says()
    tool = Agent(name="nested", model=nested).as_tool("helper", "helps")
    await refused(guarded, Agent(name="a", tools=[tool], model=model))
    assert (nested.calls, model.calls) == ((), ())
    assert guarded.denied() == [("invokeTool", 'Tool::"helper"')]


def lying() -> list[Tool]:
    """Return tools that say in their configuration that they are other tools than their classes are."""
    custom = CustomTool(name="c", description="d", on_invoke_tool=call)
    custom.tool_config = {"type": "web_search"}  # type: ignore[typeddict-item]  # that is the attack
    renamed = CustomTool(name="c", description="d", on_invoke_tool=call)
    renamed.tool_config = {"type": "custom", "name": "other"}
    config: Any = {"type": "web_search"}
    return [custom, renamed, CodeInterpreterTool(tool_config=config), ImageGenerationTool(tool_config=config)]


@pytest.mark.parametrize("number", range(4))
async def test_tool_whose_configuration_names_another(tmp_path: Path, number: int) -> None:
    """A permitted type of tool carries the configuration of another, which is what the server would be sent.

    The record is a denial of invokeTool for a tool of unknown kind; nothing arrives.
    """
    guarded = Guarded(tmp_path, denying("invokeTool", when='resource.kind == Sandbox::ToolKind::"unknown"'))
    with model_server(response_text("leaked")) as server:
        await refused(guarded, Agent(name="a", tools=[lying()[number]], model=responses_model(server)))
    assert server.requests == []
    assert [action for action, _ in guarded.denied()] == ["invokeTool"]


def host_tools() -> dict[str, tuple[Tool, Any, list[Any]]]:
    """Return each tool that acts on this host, a call of it, and what it notes when it runs."""
    ran: list[Any] = []
    editor, screen = Editor(), Screen()
    return {
        "local_shell": (
            LocalShellTool(executor=lambda request: note(ran, request)),
            LocalShellCall(
                id="l",
                call_id="c",
                status="completed",
                type="local_shell_call",
                action=LocalShellCallAction(type="exec", command=["id"], env={}),
            ),
            ran,
        ),
        "shell": (
            ShellTool(executor=lambda request: note(ran, request)),
            ResponseFunctionShellToolCall(
                id="s",
                call_id="c",
                status="completed",
                type="shell_call",
                action=ShellCommands(commands=["id"]),
            ),
            ran,
        ),
        "apply_patch": (
            ApplyPatchTool(editor=editor),
            ResponseApplyPatchToolCall(
                id="p",
                call_id="c",
                status="completed",
                type="apply_patch_call",
                operation=OperationCreateFile(type="create_file", path="a", diff="+a"),
            ),
            editor.done,
        ),
        "computer_use_preview": (
            ComputerTool(computer=screen),
            ResponseComputerToolCall(
                id="k",
                call_id="c",
                status="completed",
                type="computer_call",
                pending_safety_checks=[],
                action=ActionScreenshot(type="screenshot"),
            ),
            screen.done,
        ),
    }


@pytest.mark.parametrize("name", ["local_shell", "shell", "apply_patch"])
async def test_tool_of_the_host_called_by_the_model(tmp_path: Path, name: str) -> None:
    """A model calls a shell or an editor of the host. The call is decided, whatever was offered.

    The record is a denial of invokeTool under the id of the call; the model reads it, the executor does not run.
    """
    guarded = Guarded(tmp_path, NOT_WHEN_CALLED)
    tool, item, ran = host_tools()[name]
    model = ScriptedModel([[item], [assistant_message("done")]])
    result = await Runner.run(Agent(name="a", tools=[tool], model=model), "go", run_config=guarded.config)
    assert ran == []
    assert any("denied by policy" in str(item.to_input_item()) for item in result.new_items)
    (record,) = [r.entry for r in guarded.records("decision") if r.entry.decision == "deny"]
    assert (record.action, record.resource, record.call_id) == ("invokeTool", f'Tool::"{name}"', "c")


async def test_computer_of_the_host_used_by_the_model(tmp_path: Path) -> None:
    """A model uses the screen of the host. Only a picture could answer it, so the run ends.

    The record is a denial of invokeTool under the id of the call; nothing is done with the screen.
    """
    guarded = Guarded(tmp_path, NOT_WHEN_CALLED)
    tool, item, done = host_tools()["computer_use_preview"]
    await refused(guarded, Agent(name="a", tools=[tool], model=ScriptedModel([[item]])))
    assert done == []
    (record,) = [r.entry for r in guarded.records("decision") if r.entry.decision == "deny"]
    assert (record.action, record.call_id) == ("invokeTool", "c")


@pytest.mark.parametrize("name", ["local_shell", "shell", "apply_patch", "computer_use_preview"])
async def test_permitted_tool_of_the_host_leaves_an_outcome(tmp_path: Path, name: str) -> None:
    """The same call, permitted: it runs once, so that the refusals above mean something.

    What it did is on record: an outcome under the id of the call.
    """
    guarded = Guarded(tmp_path)
    tool, item, ran = host_tools()[name]
    model = ScriptedModel([[item], [assistant_message("done")]])
    await Runner.run(Agent(name="a", tools=[tool], model=model), "go", run_config=guarded.config)
    assert len(ran) == 1
    outcomes = [r.entry for r in guarded.records("outcome") if r.entry.action == "invokeTool"]
    assert [(entry.call_id, entry.outcome) for entry in outcomes] == [("c", "ok")]


async def test_removed_tool_called_anyway(tmp_path: Path) -> None:
    """A denied tool is left out of what the model sees, and the model calls it by name all the same.

    The records are a denial when it was left out and one when it was called; it never runs.
    """
    ran = []

    @function_tool
    def danger() -> str:
        """Do something bad."""
        ran.append(True)
        return "done"

    # Denied only where it is offered: that the call is refused too is not the policy's doing.
    policy = denying("invokeTool", 'Tool::"danger"', "!(context.base has tool)")
    guarded = Guarded(tmp_path, policy, metadata=REMOVE)
    model = ScriptedModel([[function_call("danger", {}, call_id="d")], [assistant_message("done")]])
    agent = Agent(name="a", tools=[danger, step], model=model)
    await Runner.run(agent, "go", run_config=guarded.config)
    assert ran == []
    assert [[tool.name for tool in call.tools] for call in model.calls] == [["step"], ["step"]]
    assert guarded.denied() == [("invokeTool", 'Tool::"danger"'), ("tool invoke", "danger")]


async def test_removed_tool_that_the_model_is_told_to_use(tmp_path: Path) -> None:
    """A denied tool is left out, and the settings tell the model to use it.

    The records are the denial of the tool and that of the choice; the model is not called.
    """
    guarded = Guarded(tmp_path, denying("invokeTool", 'Tool::"web_search"'), metadata=REMOVE)
    model = says()
    settings = ModelSettings(tool_choice="web_search")
    await refused(guarded, Agent(name="a", tools=[WebSearchTool(), step], model=model, model_settings=settings))
    assert model.calls == ()
    assert guarded.denied() == [("invokeTool", 'Tool::"web_search"')] * 2


async def test_function_that_calls_itself_a_hosted_tool(tmp_path: Path) -> None:
    """A permitted function is named like a hosted tool, so that a tool choice of that name asks for the hosted one.

    The record is a denial of invokeTool for the name; nothing arrives.
    """

    @function_tool(name_override="web_search")
    def disguised() -> str:
        """Look like something else."""
        return ""

    guarded = Guarded(tmp_path)
    with model_server(response_text("leaked")) as server:
        settings = ModelSettings(tool_choice="web_search")
        agent = Agent(name="a", tools=[disguised], model=responses_model(server), model_settings=settings)
        await refused(guarded, agent)
    assert server.requests == []
    assert guarded.denied() == [("invokeTool", 'Tool::"web_search"')]


async def test_tool_that_becomes_another_while_it_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell of this host is decided, and becomes one of the vendor before the request is made.

    The record is a denial of invokeTool for the tool; nothing arrives.
    """
    guarded = Guarded(tmp_path)
    tool = ShellTool(executor=lambda _: "")
    ledger, record = guarded.client.ledger, guarded.client.ledger.record

    async def swap(entry: Any) -> Any:
        tool.environment = HOSTED_SHELL
        return await record(entry)

    monkeypatch.setattr(ledger, "record", swap)
    with model_server(response_text("leaked")) as server:
        await refused(guarded, Agent(name="a", tools=[tool], model=responses_model(server)), match="became another")
    assert server.requests == []
    assert guarded.denied() == [("invokeTool", 'Tool::"shell"')]
