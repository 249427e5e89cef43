"""What a request to a model could smuggle past the list of tools and past the decision about its destination.

``metadata``, ``response_include`` and ``retry`` of the model settings go through: the first reaches the same server
as the conversation, the second only chooses what comes back, the third stays on this side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agents._tool_identity import get_function_tool_qualified_name
from agents.model_settings import MCPToolChoice, ModelSettings
from agents.tool import HostedMCPTool, Tool

from cedarbox.guard.question import Impossible
from cedarbox.guard.tools import tool_kind

__all__ = [
    "HARMLESS_EXTRAS",
    "HARMLESS_HEADERS",
    "HARMLESS_QUERY",
    "compacts",
    "frozen",
    "refers_to_stored",
    "shadows",
    "smuggled",
    "unknown_choice",
]

HARMLESS_EXTRAS = frozenset(
    {
        "best_of",
        "cache_salt",
        "chat_template_kwargs",
        "frequency_penalty",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "ignore_eos",
        "keep_alive",
        "length_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "min_tokens",
        "n",
        "num_ctx",
        "options",
        "presence_penalty",
        "prompt_cache_key",
        "reasoning_effort",
        "repeat_penalty",
        "repetition_penalty",
        "response_format",
        "seed",
        "service_tier",
        "stop",
        "stop_token_ids",
        "temperature",
        "top_k",
        "top_p",
        "user",
    }
)
"""Keys of ``extra_body`` and ``extra_args`` that only shape sampling (OpenAI, vLLM, llama.cpp, Ollama).

Any other key is refused: ``tools``, ``prompt``, ``web_search_options`` and their like switch on tools of the server
that no list of tools shows. ``context_management`` is a decision of its own.
"""

HARMLESS_HEADERS = frozenset(
    {"idempotency-key", "traceparent", "tracestate", "user-agent", "x-client-request-id", "x-request-id"}
)
"""Keys of ``extra_headers`` that identify a request. ``Host`` and its like send it elsewhere, ``OpenAI-Beta`` switches
on tools, ``OpenAI-Organization`` and ``Authorization`` choose whose account keeps it: those belong to the client.
"""

HARMLESS_QUERY = frozenset({"api-version"})
"""Keys of ``extra_query``: what Azure needs."""

_CONTEXT_MANAGEMENT = "context_management"
_CONTROL = frozenset({"auto", "required", "none"})
# What a tool choice calls a tool of the server, and the kinds that answer to it (agents 0.24, convert_tool_choice).
_ALIASES: Mapping[str, frozenset[str]] = {
    "web_search_preview": frozenset({"hosted_web_search"}),
    "computer": frozenset({"computer"}),
    "computer_use": frozenset({"computer"}),
    "computer_use_preview": frozenset({"computer"}),
    "mcp": frozenset({"hosted_mcp"}),
    "shell": frozenset({"shell", "hosted_shell"}),
    "file_search": frozenset({"hosted_file_search"}),
    "web_search": frozenset({"hosted_web_search"}),
    "code_interpreter": frozenset({"hosted_code_interpreter"}),
    "image_generation": frozenset({"hosted_image_generation"}),
    "programmatic_tool_calling": frozenset({"hosted_programmatic"}),
}
# Items of an input that hand the model tools, and the types of tools that run on this side.
_BRINGING_TOOLS = frozenset({"additional_tools", "tool_search_output"})
_ON_THIS_SIDE = frozenset({"function", "custom", "namespace"})


def frozen(settings: ModelSettings) -> ModelSettings:
    """Return settings whose extras nobody else holds, so that they stay as they were decided."""
    held: dict[str, Any] = {
        name: dict(value)
        for name in ("extra_body", "extra_args", "extra_headers", "extra_query", "metadata")
        if isinstance(value := getattr(settings, name), Mapping)
    }
    return replace(settings, **held)


def smuggled(settings: ModelSettings, items: object) -> Impossible | None:
    """Return what a request carries besides what is decided about it, if anything."""
    for where in ("extra_body", "extra_args"):
        known = HARMLESS_EXTRAS | {_CONTEXT_MANAGEMENT}
        if (unknown := _unknown(getattr(settings, where), known)) is not None:
            return _refused(where, f"{where} has {unknown!r}, which could switch on a tool of the model server")
    if (unknown := _unknown(settings.extra_query, HARMLESS_QUERY)) is not None:
        return _refused("extra_query", f"extra_query has {unknown!r}, which could change what the model server does")
    if (unknown := _unknown(settings.extra_headers, HARMLESS_HEADERS)) is not None:
        reason = f"extra_headers has {unknown!r}; what the server needs goes into the client's default_headers"
        return _refused("extra_headers", reason)
    for item in _items(items):
        if item.get("type") in _BRINGING_TOOLS:
            types = {_type(tool) for tool in item.get("tools") or ()}
            if foreign := sorted(types - _ON_THIS_SIDE):
                return _refused(str(item["type"]), f"the input brings a tool of type {foreign[0]!r} to the model")
    return None


def refers_to_stored(items: object) -> bool:
    """Whether an input has the server fetch what it kept of an earlier one."""
    return any(item.get("type") == "item_reference" for item in _items(items))


def compacts(settings: ModelSettings) -> bool:
    """Whether the server is told to compact the conversation."""
    extras = (settings.extra_args, settings.extra_body)
    return bool(settings.context_management) or any(
        isinstance(extra, Mapping) and _CONTEXT_MANAGEMENT in extra for extra in extras
    )


def unknown_choice(settings: ModelSettings, tools: Sequence[Tool], handoffs: Sequence[Any]) -> Impossible | None:
    """Return the tool that the model is told to use, if the model is not shown that tool."""
    choice = settings.tool_choice
    if choice is None or (isinstance(choice, str) and choice in _CONTROL):
        return None
    if isinstance(choice, MCPToolChoice):
        labels = {str(tool.tool_config["server_label"]) for tool in tools if isinstance(tool, HostedMCPTool)}
        name, there = f"{choice.server_label}/{choice.name}", choice.server_label in labels
    else:
        name, kinds = str(choice), {tool_kind(tool) for tool in tools}
        # A function may bear the name of a hosted tool, but then the SDK would ask the server for the hosted one.
        there = bool(kinds & _ALIASES[name]) if name in _ALIASES else name in _names(tools, handoffs)
    return None if there else _refused(name, "tool_choice names a tool that the model is not offered")


def shadows(tools: Sequence[Tool], handoffs: Sequence[Any]) -> list[Tool]:
    """Return the tools of MCP servers that bear the name of another tool, or of a handoff."""
    names = [tool.name for tool in tools] + [str(handoff.tool_name) for handoff in handoffs]
    return [tool for tool in tools if tool_kind(tool) == "mcp" and names.count(tool.name) > 1]


def _names(tools: Sequence[Tool], handoffs: Sequence[Any]) -> set[str]:
    qualified = {get_function_tool_qualified_name(tool) for tool in tools}
    names = {tool.name for tool in tools} | {str(handoff.tool_name) for handoff in handoffs}
    return names | {name for name in qualified if name is not None}


def _unknown(extras: object, known: frozenset[str]) -> str | None:
    if extras is None:
        return None
    if not isinstance(extras, Mapping):
        return type(extras).__name__
    unknown = sorted(str(key) for key in extras if str(key).lower() not in known)
    return unknown[0] if unknown else None


def _items(items: object) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _type(tool: object) -> str:
    return str(tool.get("type") if isinstance(tool, Mapping) else getattr(tool, "type", None))


def _refused(name: str, reason: str) -> Impossible:
    return Impossible("invokeTool", f'Tool::"{name}"', reason)
