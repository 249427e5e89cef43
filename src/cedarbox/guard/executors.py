"""Tools that run on this host and are neither functions nor custom tools: decided when they are called.

A shell, a computer or an editor that the program brings along acts outside every sandbox. The SDK runs each through an
executor of its own, which is wrapped here; its names are private to the SDK.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agents import Agent
from agents._tool_identity import get_mapping_or_attr
from agents.items import ToolCallOutputItem
from agents.run_internal import run_loop, tool_actions
from agents.run_internal.items import apply_patch_rejection_item, shell_rejection_item
from agents.run_internal.tool_execution import extract_apply_patch_call_id
from agents.sandbox.runtime_session_manager import SandboxRuntimeSessionManager

from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.capabilities import decide_capabilities
from cedarbox.guard.capture import capture_call
from cedarbox.guard.client import is_genuine_client
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import Caller, current_gate, within
from cedarbox.guard.requests import shadows
from cedarbox.guard.session import is_genuine_session
from cedarbox.guard.tools import invocation
from cedarbox.guard.waiting import through_gate
from cedarbox.telemetry.redaction import digest

__all__ = ["SEAMS", "check_sandbox"]

_Execute = Callable[..., Awaitable[Any]]

_computer: _Execute = tool_actions.ComputerAction.execute
_local_shell: _Execute = tool_actions.LocalShellAction.execute
_shell: _Execute = tool_actions.ShellAction.execute
_apply_patch: _Execute = tool_actions.ApplyPatchAction.execute
_resolve_collisions = vars(run_loop)["resolve_tool_name_collisions"]
_create_resources: _Execute = SandboxRuntimeSessionManager._create_resources


def check_sandbox(config: Any) -> Gate | None:
    """Return the gate of what a run would use as its sandbox; None when it uses none.

    Args:
        config: The ``SandboxRunConfig``, or None.

    Raises:
        ConfigurationError: It would use a client or a session that is not guarded, or two that differ.
    """
    client, session = (config.client, config.session) if config is not None else (None, None)
    if client is not None and not is_genuine_client(client):
        raise ConfigurationError(
            f"this run would use an unguarded {type(client).__name__}", hint="wrap it in PolicySandboxClient"
        )
    if session is not None and not is_genuine_session(session):
        raise ConfigurationError(
            f"this run would use an unguarded {type(session).__name__}", hint="make it with a PolicySandboxClient"
        )
    if client is not None and session is not None and client.gate is not session.gate:
        hint = "make the session with the client that is given with it"
        raise ConfigurationError("the client and the session of this run are under different guards", hint=hint)
    return client.gate if client is not None else session.gate if session is not None else None


async def _run(execute: _Execute, tool: Any, call: Any, agent: Agent[Any], options: dict[str, Any]) -> Any:
    with within(caller=Caller(agent.name, tool.name, _call_id(call))):
        async with current_gate().operation(invocation(tool)) as operation:
            operation.set("arguments_digest", digest(_text(call).encode("utf-8", "surrogatepass")))
            item = await execute(agent=agent, **options)
            await capture_call(current_gate(), operation.span, _text(call), get_mapping_or_attr(item, "output") or "")
            return item


async def _guarded_computer(*, agent: Agent[Any], action: Any, **options: Any) -> Any:
    # What answers this call can only be a picture of the screen, so a denial ends the run.
    return await _run(_computer, action.computer_tool, action.tool_call, agent, {"action": action, **options})


async def _guarded_local_shell(*, agent: Agent[Any], call: Any, **options: Any) -> Any:
    try:
        return await _run(_local_shell, call.local_shell_tool, call.tool_call, agent, {"call": call, **options})
    except PolicyDenied as denial:
        answer: Any = {
            "type": "local_shell_call_output",
            "call_id": _call_id(call.tool_call),
            "output": str(denial),
        }
        return ToolCallOutputItem(agent=agent, output=str(denial), raw_item=answer)


async def _guarded_shell(*, agent: Agent[Any], call: Any, **options: Any) -> Any:
    try:
        return await through_gate(_shell, call.shell_tool, agent=agent, call=call, **options)
    except PolicyDenied as denial:
        call_id = _call_id(call.tool_call) or ""
        return shell_rejection_item(agent, call_id, tool_call=call.tool_call, rejection_message=str(denial))


async def _guarded_apply_patch(*, agent: Agent[Any], call: Any, **options: Any) -> Any:
    try:
        return await through_gate(_apply_patch, call.apply_patch_tool, agent=agent, call=call, **options)
    except PolicyDenied as denial:
        call_id = extract_apply_patch_call_id(call.tool_call)
        return apply_patch_rejection_item(agent, call_id, tool_call=call.tool_call, rejection_message=str(denial))


def _guarded_collisions(tools: Sequence[Any], handoffs: Sequence[Any] = (), **options: Any) -> tuple[Any, Any]:
    # The SDK drops all but one tool of a name with a warning. Where a tool of an MCP server is among them, the model is
    # left to refuse the turn, with a record: which of them an answer would have run is nothing to guess about.
    if shadows(tools, handoffs):
        return list(tools), list(handoffs)
    kept: tuple[Any, Any] = _resolve_collisions(tools, handoffs, **options)
    return kept


async def _guarded_resources(manager: Any, *, agent: Any, **options: Any) -> Any:
    # A run configuration can be changed after the run was admitted, and a run can be started around the runner.
    await decide_capabilities(agent, current_gate())
    if check_sandbox(manager._sandbox_config) is not current_gate():
        raise ConfigurationError(
            "the sandbox of this run is under another guard than the run", hint="leave its run configuration alone"
        )
    return await _create_resources(manager, agent=agent, **options)


def _call_id(call: Any) -> str | None:
    value = call.get("call_id") if isinstance(call, dict) else getattr(call, "call_id", None)
    return value if isinstance(value, str) else None


def _text(call: Any) -> str:
    return json.dumps(call, default=str) if isinstance(call, dict) else str(call)


SEAMS: tuple[tuple[Any, str, Any], ...] = (
    (tool_actions.ComputerAction, "execute", _guarded_computer),
    (tool_actions.LocalShellAction, "execute", _guarded_local_shell),
    (tool_actions.ShellAction, "execute", _guarded_shell),
    (tool_actions.ApplyPatchAction, "execute", _guarded_apply_patch),
    (run_loop, "resolve_tool_name_collisions", _guarded_collisions),
    (SandboxRuntimeSessionManager, "_create_resources", _guarded_resources),
)
"""Where the SDK is wrapped: the owner, the name, and what stands there while the guard is in force."""
