"""What a tool is: where it runs, whose it is, and who would see what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agents.tool import (
    ApplyPatchTool,
    CodeInterpreterTool,
    ComputerTool,
    CustomTool,
    FileSearchTool,
    FunctionTool,
    HostedMCPTool,
    ImageGenerationTool,
    LocalShellTool,
    ProgrammaticToolCallingTool,
    ShellTool,
    Tool,
    ToolSearchTool,
    WebSearchTool,
)

from cedarbox.errors import CanonicalizationError
from cedarbox.guard.approvals import HELD_KINDS, ToolCall
from cedarbox.guard.identity import called_by, current_caller, current_run
from cedarbox.guard.question import Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base
from cedarbox.telemetry import attributes
from cedarbox.telemetry.scope import tell_mirror

__all__ = ["DECIDED_WHEN_CALLED", "ToolIdentity", "identity_of", "invocation", "offer", "tool_kind"]

# The tool union of openai-agents 0.24. The hosted ones run at the vendor and have no seam on this side.
_KINDS: tuple[tuple[type[object], str], ...] = (
    (CustomTool, "custom"),
    (ApplyPatchTool, "apply_patch"),
    (LocalShellTool, "local_shell"),
    (ComputerTool, "computer"),
    (WebSearchTool, "hosted_web_search"),
    (FileSearchTool, "hosted_file_search"),
    (CodeInterpreterTool, "hosted_code_interpreter"),
    (ImageGenerationTool, "hosted_image_generation"),
    (HostedMCPTool, "hosted_mcp"),
    (ToolSearchTool, "hosted_tool_search"),
    (ProgrammaticToolCallingTool, "hosted_programmatic"),
)

DECIDED_WHEN_CALLED = frozenset({"function", "mcp", "custom", "apply_patch", "shell", "local_shell", "computer"})
"""Kinds that run on this side, where each call is decided again."""

# What the SDK sends for a tool that carries its own configuration: another type in it would be another tool.
_WIRE_TYPES = {
    "custom": "custom",
    "apply_patch": "apply_patch",
    "hosted_mcp": "mcp",
    "hosted_code_interpreter": "code_interpreter",
    "hosted_image_generation": "image_generation",
}


@dataclass(frozen=True, slots=True)
class ToolIdentity:
    """Which tool a decision is about.

    Attributes:
        kind: A member of ``Sandbox::ToolKind``.
        name: The tool's name; for a tool of an MCP server, its name at that server, whatever the model sees.
        server: Name of the MCP server, when it belongs to one.
    """

    kind: str
    name: str
    server: str | None = None

    def key(self, digest: str) -> tuple[str, str, str]:
        """Return the form in which a run remembers it, under the bundle with this digest."""
        return digest, self.kind, str(self)

    def action(self, base: Base) -> Action:
        """Return the request to offer or run it."""
        return actions.invoke_tool(base, name=self.name, kind=self.kind, server=self.server)

    def __str__(self) -> str:
        return self.name if self.server is None else f"{self.server}/{self.name}"


def tool_kind(tool: Tool) -> str:
    """Return the member of ``Sandbox::ToolKind`` that a tool is; ``unknown`` for a type that SDK 0.24 does not have.

    ``unknown`` also is a tool whose own configuration names another type than its class does, or another name.
    """
    if isinstance(tool, FunctionTool):
        return "mcp" if tool._mcp_tool_binding is not None else "function"
    if isinstance(tool, ShellTool):
        return "shell" if tool.environment is None or tool.environment["type"] == "local" else "hosted_shell"
    kind = next((kind for known, kind in _KINDS if isinstance(tool, known)), "unknown")
    config = getattr(tool, "tool_config", None)
    if config is not None:
        described = isinstance(config, Mapping) and config.get("type") == _WIRE_TYPES.get(kind)
        if not described or (kind == "custom" and config.get("name") != tool.name):
            return "unknown"
    return kind


def identity_of(tool: Tool) -> ToolIdentity:
    """Return which tool this is."""
    if isinstance(tool, FunctionTool) and tool._mcp_tool_binding is not None:
        server, name, _ = tool._mcp_tool_binding
        return ToolIdentity("mcp", name, server)
    return ToolIdentity(tool_kind(tool), tool.name)


def offer(identity: ToolIdentity) -> Question:
    """Return the question whether a model may be shown a tool."""
    return Question("tool offer", identity.action, str(identity), offered=identity.kind in HELD_KINDS)


def invocation(tool: Tool, call: ToolCall | None = None) -> Question:
    """Return the question whether a tool may run; what the run left out of its requests may not.

    Args:
        tool: The tool.
        call: The call that would be carried out, where a person can be asked to approve it.
    """
    identity, caller = identity_of(tool), called_by(current_caller())
    # Where the SDK traces the call, its span is the one of the call; else this is.
    traced = tell_mirror("function", caller)
    about = (
        {} if traced else {attributes.GEN_AI_OPERATION_NAME: "execute_tool", attributes.GEN_AI_TOOL_TYPE: "function"}
    )

    def name(base: Base) -> Action:
        run = current_run()
        if run is not None and identity.key(run.gate.engine.bundle.digest) in run.withheld:
            raise CanonicalizationError("the tool was not offered to the model")
        return identity.action(base)

    return Question("tool invoke", name, str(identity), call, about=about)
