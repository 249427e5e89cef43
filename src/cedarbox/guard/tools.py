"""What kind of tool a tool is: where it runs, and who would see what it is given."""

from __future__ import annotations

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

__all__ = ["tool_kind"]

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


def tool_kind(tool: Tool) -> str:
    """Return the member of ``Sandbox::ToolKind`` that a tool is; ``unknown`` for a type that SDK 0.24 does not have."""
    if isinstance(tool, FunctionTool):
        return "mcp" if tool._mcp_tool_binding is not None else "function"
    if isinstance(tool, ShellTool):
        return "shell" if tool.environment is None or tool.environment["type"] == "local" else "hosted_shell"
    return next((kind for known, kind in _KINDS if isinstance(tool, known)), "unknown")
