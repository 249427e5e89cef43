"""The capabilities of a sandbox agent: which of them it may have, and which of them a model can take."""

from __future__ import annotations

import json
from typing import Any, Final

from agents import Agent, RunConfig
from agents.models import _openai_shared
from agents.models.interface import Model
from agents.models.openai_responses import OpenAIResponsesModel, OpenAIResponsesWSModel
from agents.run_internal.turn_preparation import get_model
from agents.sandbox import SandboxAgent
from agents.sandbox.capabilities import Capability, Compaction, Filesystem, Memory, Shell, Skills
from agents.sandbox.capabilities.capabilities import Capabilities
from agents.sandbox.capabilities.filesystem import FilesystemToolSet
from agents.sandbox.capabilities.tools import SandboxApplyPatchTool
from agents.testing import ScriptedModel
from agents.tool import FunctionTool
from agents.tool_context import ToolContext

from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.endpoints import Destination
from cedarbox.guard.gate import Gate
from cedarbox.guard.once import ask_once
from cedarbox.guard.question import Impossible, Question
from cedarbox.policy import actions

__all__ = ["capabilities_for", "decide_capabilities", "decide_compaction"]

_KINDS: dict[type[Capability], str] = {
    Shell: "shell",
    Filesystem: "filesystem",
    Skills: "skills",
    Memory: "memory",
    Compaction: "compaction",
}
_ANY_TOOL = (OpenAIResponsesModel, OpenAIResponsesWSModel, ScriptedModel)
_OTHER_WIRES: Final = ("litellm/", "any-llm/")
"""Prefixes with which the SDK's MultiProvider names models that take function tools only."""

_PATCH_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"patch": {"type": "string", "description": "The whole patch, from Begin Patch to End Patch."}},
    "required": ["patch"],
    "additionalProperties": False,
}
_FREEFORM: Final = "This is a FREEFORM tool, so do not wrap the patch in JSON."
_AS_ARGUMENT: Final = "Give the whole patch as the argument `patch`."


async def decide_capabilities(agent: Agent[Any], gate: Gate) -> None:
    """Decide each capability of a sandbox agent, and the models that its memory would call after the run.

    Raises:
        PolicyDenied: One of them is not permitted.
    """
    if not isinstance(agent, SandboxAgent):
        return
    for capability in agent.capabilities:
        # A subclass can do anything, whatever it says of itself.
        await _decide(gate, _KINDS.get(type(capability), "unknown"))
        if isinstance(capability, Memory) and capability.generate is not None:
            for model in (capability.generate.phase_one_model, capability.generate.phase_two_model):
                await _decide_memory(agent, gate, model)


async def decide_compaction(gate: Gate) -> None:
    """Decide that the model server compacts a conversation, whoever asked for it.

    Raises:
        PolicyDenied: It may not.
    """
    await _decide(gate, "compaction")


async def _decide(gate: Gate, kind: str) -> None:
    question = Question("capability use", lambda base: actions.use_capability(base, capability=kind), kind)
    await ask_once(gate, "capability", kind, question)


async def _decide_memory(agent: Agent[Any], gate: Gate, model: str | Model) -> None:
    # The SDK runs the phases with a run configuration of their own (agents 0.24, sandbox/memory/manager.py).
    config = RunConfig()
    try:
        resolved = get_model(Agent(name=agent.name, model=model), config)
        to = Destination.of(resolved, gate)
        await ask_once(gate, "memory model", f"{to.model} at {to.host}", to.use())
    except PolicyDenied as denial:
        reason = f"Memory of agent {agent.name!r} would call this model after the run: {denial.reason}"
        raise PolicyDenied(
            denial.action, denial.resource, reason=reason, policies=denial.policies, seq=denial.seq
        ) from None
    except Exception as error:
        reason = f"the model {model!r} that Memory of agent {agent.name!r} would call cannot be found"
        unknown = Impossible("useModel", 'ModelEndpoint::"unknown"', f"{reason}: {type(error).__name__}")
        raise await gate.refuse(unknown) from error
    finally:
        if isinstance(model, str):
            await config.model_provider.aclose()


def capabilities_for(model: Model | str | Agent[Any] | None) -> list[Capability]:
    """Return capabilities for a sandbox agent that its model can take.

    A model behind the Responses API takes the SDK's defaults. Every other takes function tools only: the shell, and the
    file system with ``apply_patch`` as a function around the SDK's own editor; it cannot compact a conversation.

    Args:
        model: The model, its name, or an agent that has it; None for the SDK's default model.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(model, Agent):
        return capabilities_for(model.model)
    if _takes_any_tool(model):
        return Capabilities.default()
    return [Shell(), Filesystem(configure_tools=_patch_by_function)]


def _takes_any_tool(model: object) -> bool:
    if isinstance(model, Model):
        return type(model) in _ANY_TOOL
    if model is None or isinstance(model, str):
        by_default = _openai_shared.get_use_responses_by_default()
        return by_default and not (isinstance(model, str) and model.startswith(_OTHER_WIRES))
    raise ConfigurationError(f"{type(model).__name__} is no model", hint="pass a model, its name, or an agent")


def _patch_by_function(tools: FilesystemToolSet) -> None:
    # The list is typed for the tool that it is made with; the SDK only hands it on to the model.
    tools.apply_patch = _function_around(tools.apply_patch)  # type: ignore[assignment]


def _function_around(tool: SandboxApplyPatchTool) -> FunctionTool:
    async def invoke(context: ToolContext[Any], arguments: str) -> str:
        try:
            patch = json.loads(arguments)["patch"]
            return str(await tool._on_invoke_tool(context, patch)) if isinstance(patch, str) else _AS_ARGUMENT
        except (KeyError, TypeError, json.JSONDecodeError):
            return _AS_ARGUMENT
        except Exception as error:  # noqa: BLE001 - as with the tool itself, the model is to read what was wrong
            return f"{type(error).__name__}: {error}"

    async def needs_approval(context: Any, arguments: dict[str, Any], call_id: str) -> bool:
        return await tool._needs_custom_approval(context, str(arguments.get("patch", "")), call_id)

    return FunctionTool(
        name=tool.name,
        description=tool.description.replace(_FREEFORM, _AS_ARGUMENT),
        params_json_schema=_PATCH_SCHEMA,
        on_invoke_tool=invoke,
        needs_approval=needs_approval if tool.needs_approval else False,
    )
