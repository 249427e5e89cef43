"""What the attacks have in common: policies that deny one thing, agents, and what a scripted model says."""

from __future__ import annotations

from typing import Any

import pytest
from agents import Agent, Runner
from agents.models.openai_responses import OpenAIResponsesModel
from agents.testing import ScriptedModel, assistant_message
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded
from tests.unit.model_server import ModelServer

from cedarbox.errors import PolicyDenied

__all__ = ["LOCAL_TOOLS", "REMOVE", "denying", "refused", "responses_model", "says"]

LOCAL_TOOLS = (
    PERMIT_ALL + '@id("local-tools") forbid (principal, action == Sandbox::Action::"invokeTool", resource) '
    'unless { [Sandbox::ToolKind::"function", Sandbox::ToolKind::"custom"].contains(resource.kind) };'
)
"""Permits everything but tools that are neither functions nor custom tools."""

REMOVE = 'name = "test"\nschema = 1\non_denied_tool = "remove"\n'
"""Metadata of a bundle whose denied tools are left out."""


def denying(action: str, resource: str = "resource", when: str = "") -> str:
    """Return policies that permit everything but one action, on one resource or where a condition holds."""
    scope = f"resource == Sandbox::{resource}" if resource != "resource" else "resource"
    condition = f" when {{ {when} }}" if when else ""
    return PERMIT_ALL + f'@id("no") forbid (principal, action == Sandbox::Action::"{action}", {scope}){condition};'


def says(text: str = "done") -> ScriptedModel:
    """Return the SDK's scripted model that says one thing."""
    return ScriptedModel([[assistant_message(text)]])


def responses_model(server: ModelServer, **options: Any) -> OpenAIResponsesModel:
    """Return the SDK's model of a server; its client is closed by nobody, and holds no connection when refused."""
    return OpenAIResponsesModel("local", openai_client=server.client(**options))


async def refused(
    guarded: Guarded, agent: Agent[Any], *, match: str = ".", streamed: bool = False, **options: Any
) -> None:
    """Run the agent, plain or streamed, and expect a denial."""

    async def attempt() -> None:
        if not streamed:
            await Runner.run(agent, "go", run_config=guarded.config, **options)
            return
        async for _ in Runner.run_streamed(agent, "go", run_config=guarded.config, **options).stream_events():
            pass

    with pytest.raises(PolicyDenied, match=match):
        await attempt()
