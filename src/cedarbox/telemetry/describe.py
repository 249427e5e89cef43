"""What a span of the Agents SDK is called and which attributes it gets. Never content: digests and sizes at most."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from agents.tracing.span_data import (
    AgentSpanData,
    CustomSpanData,
    FunctionSpanData,
    GenerationSpanData,
    GuardrailSpanData,
    HandoffSpanData,
    MCPListToolsSpanData,
    ResponseSpanData,
    SpanData,
    TaskSpanData,
    TurnSpanData,
)
from opentelemetry.trace import SpanKind

from cedarbox.on_import import settle
from cedarbox.telemetry import attributes as names
from cedarbox.telemetry.redaction import clip, digest

__all__ = ["Description", "Scalar", "describe", "error_type"]

Scalar = str | int | bool
"""A value that a mirrored span may carry."""

_CUSTOM_KEYS: Final = frozenset(
    {
        names.ERROR_TYPE,
        names.PROCESS_EXIT_CODE,
        names.SANDBOX_BACKEND,
        names.SANDBOX_OPERATION,
        names.SANDBOX_SESSION_ID,
        names.SERVER_PORT,
    }
)
"""Keys of the Agents SDK's own sandbox spans (sandbox/session/sandbox_session.py); any other key may hold content."""

_DETAILS: Final = (
    ("input_tokens_details", "cached_tokens", names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS),
    ("output_tokens_details", "reasoning_tokens", names.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS),
)

_ERROR_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,100}(?:Error|Exception|Timeout|Cancelled|Denied|Exceeded)")


@dataclass(frozen=True, slots=True)
class Description:
    """Name, kind and attributes of a span."""

    name: str
    kind: SpanKind = SpanKind.INTERNAL
    attributes: Mapping[str, Scalar] = field(default_factory=dict)


def error_type(error: object) -> str:
    """Return a class for an SDK span error: the name of an exception where one is given, ``_OTHER`` otherwise.

    The message is never used as text: it can quote prompts and output.

    Args:
        error: The ``SpanError`` mapping of the SDK.
    """
    if not isinstance(error, Mapping):
        return "_OTHER"
    data = error.get("data")
    candidates = [error.get("message")]
    if isinstance(data, Mapping):
        candidates = [data.get(names.ERROR_TYPE), data.get("error_type"), *candidates]
    for candidate in candidates:
        if isinstance(candidate, str) and _ERROR_NAME.fullmatch(candidate):
            return candidate
    return "_OTHER"


def describe(data: SpanData, *, ended: bool) -> Description:
    """Describe an SDK span.

    Args:
        data: The span data of the Agents SDK.
        ended: Whether the span has ended; usage, results and the final model are known only then.
    """
    found = _describe(data, ended=ended)
    kept: dict[str, Scalar] = {names.CEDARBOX_SDK_SPAN: clip(data.type)}
    for key, value in found.attributes.items():
        if key in names.ATTRIBUTES and not names.ATTRIBUTES[key].content:
            kept[key] = clip(value) if isinstance(value, str) else value
    return Description(clip(found.name), found.kind, kept)


def _describe(data: SpanData, *, ended: bool) -> Description:
    found = Description(data.type)
    match data:
        case AgentSpanData():
            agent = {names.GEN_AI_OPERATION_NAME: "invoke_agent", names.GEN_AI_AGENT_NAME: data.name}
            found = Description(f"invoke_agent {data.name}", attributes=agent)
        case GenerationSpanData() | ResponseSpanData():
            found = _model_call(data)
        case FunctionSpanData():
            found = _tool_call(data, ended=ended)
        case TaskSpanData():
            found = Description(f"task {data.name}", attributes=_usage(data.usage))
        case TurnSpanData():
            turn: dict[str, Scalar] = {names.CEDARBOX_TURN: data.turn, names.GEN_AI_AGENT_NAME: data.agent_name}
            found = Description("turn", attributes=turn | _usage(data.usage))
        case HandoffSpanData():
            ends = {names.CEDARBOX_HANDOFF_FROM: data.from_agent, names.CEDARBOX_HANDOFF_TO: data.to_agent}
            known = {key: value for key, value in ends.items() if value}
            found = Description(f"handoff {data.to_agent}" if data.to_agent else "handoff", attributes=known)
        case GuardrailSpanData():
            outcome = {names.CEDARBOX_GUARDRAIL_TRIGGERED: data.triggered} if ended else {}
            found = Description(f"guardrail {data.name}", attributes=outcome)
        case MCPListToolsSpanData():
            server = {names.CEDARBOX_MCP_SERVER: data.server} if data.server else {}
            found = Description("tools/list", SpanKind.CLIENT, {names.MCP_METHOD_NAME: "tools/list", **server})
        case CustomSpanData():
            found = Description(data.name, attributes=_custom(data.data))
        case _:
            pass
    return found


def _custom(data: object) -> dict[str, Scalar]:
    if not isinstance(data, Mapping):
        return {}
    return {key: value for key, value in data.items() if key in _CUSTOM_KEYS and isinstance(value, str | int)}


def _model_call(data: GenerationSpanData | ResponseSpanData) -> Description:
    found: dict[str, Scalar] = {names.GEN_AI_OPERATION_NAME: "chat", names.GEN_AI_PROVIDER_NAME: "_OTHER"}
    model: str | None = None
    if isinstance(data, GenerationSpanData):
        model = data.model
        if model:
            found[names.GEN_AI_REQUEST_MODEL] = model
        found |= _server(data.model_config)
    elif data.response is not None:
        model = str(data.response.model)
        found[names.GEN_AI_RESPONSE_MODEL] = model
        found[names.GEN_AI_RESPONSE_ID] = data.response.id
    found |= _usage(data.usage)
    return Description(f"chat {model}" if model else "chat", SpanKind.CLIENT, found)


def _server(config: object) -> dict[str, Scalar]:
    url = config.get("base_url") if isinstance(config, Mapping) else None
    if not isinstance(url, str):
        return {}
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return {}
    if not host:
        return {}
    found: dict[str, Scalar] = {names.SERVER_ADDRESS: host}
    port = port or {"http": 80, "https": 443}.get(parts.scheme)
    if port:
        found[names.SERVER_PORT] = port
    if host == "api.openai.com":
        found[names.GEN_AI_PROVIDER_NAME] = "openai"
    return found


def _tool_call(data: FunctionSpanData, *, ended: bool) -> Description:
    found: dict[str, Scalar] = {
        names.GEN_AI_OPERATION_NAME: "execute_tool",
        names.GEN_AI_TOOL_NAME: data.name,
        names.GEN_AI_TOOL_TYPE: "function",
    }
    if ended:
        if data.input is not None:
            found[names.CEDARBOX_TOOL_ARGUMENTS_DIGEST] = _digest(data.input)
        if data.output is not None:
            found[names.CEDARBOX_TOOL_RESULT_DIGEST] = _digest(data.output)
        server = data.mcp_data.get("server") if isinstance(data.mcp_data, Mapping) else None
        if isinstance(server, str):
            found[names.CEDARBOX_MCP_SERVER] = server
            found[names.MCP_METHOD_NAME] = "tools/call"
    return Description(f"execute_tool {data.name}", attributes=found)


def _digest(value: object) -> str:
    return digest(str(value).encode("utf-8", "surrogatepass"))


def _usage(usage: object) -> dict[str, Scalar]:
    if not isinstance(usage, Mapping):
        return {}
    pairs = (("input_tokens", names.GEN_AI_USAGE_INPUT_TOKENS), ("output_tokens", names.GEN_AI_USAGE_OUTPUT_TOKENS))
    found: dict[str, Scalar] = {name: usage[key] for key, name in pairs if isinstance(usage.get(key), int)}
    for group, key, name in _DETAILS:
        details = usage.get(group)
        if isinstance(details, Mapping) and isinstance(details.get(key), int):
            found[name] = details[key]
    return found


settle()
