"""The one table of attribute names that cedarbox puts on spans, each with its meaning.

Names under ``gen_ai.`` and ``mcp.`` follow OpenTelemetry's semantic-conventions-genai v0.1.0, written as literals
because the constants of opentelemetry-semantic-conventions 0.66b2 for them are all marked deprecated. ``sandbox.``
names are those the Agents SDK 0.24 uses itself. ``process.``, ``server.``, ``network.`` and ``error.`` are the core
conventions 1.44, ``audit.`` is OpenTelemetry's audit logging draft, and ``cedarbox.`` is our own. None of them ever
holds a prompt, an argument, a result or file content.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

__all__ = [
    "ATTRIBUTES",
    "AUDIT_RECORD_ID",
    "CEDARBOX_GUARDRAIL_TRIGGERED",
    "CEDARBOX_HANDOFF_FROM",
    "CEDARBOX_HANDOFF_TO",
    "CEDARBOX_MCP_SERVER",
    "CEDARBOX_POLICY_ACTION",
    "CEDARBOX_POLICY_BUNDLE",
    "CEDARBOX_POLICY_DECISION",
    "CEDARBOX_POLICY_IDS",
    "CEDARBOX_POLICY_MICROS",
    "CEDARBOX_POLICY_RESOURCE",
    "CEDARBOX_RECORD_SEQ",
    "CEDARBOX_SDK_SPAN",
    "CEDARBOX_SDK_TRACE_ID",
    "CEDARBOX_TOOL_ARGUMENTS_DIGEST",
    "CEDARBOX_TOOL_RESULT_DIGEST",
    "CEDARBOX_TURN",
    "ERROR_TYPE",
    "GEN_AI_AGENT_NAME",
    "GEN_AI_CONVERSATION_ID",
    "GEN_AI_OPERATION_NAME",
    "GEN_AI_PROVIDER_NAME",
    "GEN_AI_REQUEST_MODEL",
    "GEN_AI_RESPONSE_ID",
    "GEN_AI_RESPONSE_MODEL",
    "GEN_AI_TOOL_CALL_ID",
    "GEN_AI_TOOL_NAME",
    "GEN_AI_TOOL_TYPE",
    "GEN_AI_USAGE_INPUT_TOKENS",
    "GEN_AI_USAGE_OUTPUT_TOKENS",
    "MCP_METHOD_NAME",
    "NETWORK_PEER_ADDRESS",
    "PROCESS_EXECUTABLE_NAME",
    "PROCESS_EXIT_CODE",
    "SANDBOX_BACKEND",
    "SANDBOX_OPERATION",
    "SANDBOX_SESSION_ID",
    "SCHEMA_URL",
    "SERVER_ADDRESS",
    "SERVER_PORT",
]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

AUDIT_RECORD_ID: Final = "audit.record.id"
CEDARBOX_GUARDRAIL_TRIGGERED: Final = "cedarbox.guardrail.triggered"
CEDARBOX_HANDOFF_FROM: Final = "cedarbox.handoff.from"
CEDARBOX_HANDOFF_TO: Final = "cedarbox.handoff.to"
CEDARBOX_MCP_SERVER: Final = "cedarbox.mcp.server"
CEDARBOX_POLICY_ACTION: Final = "cedarbox.policy.action"
CEDARBOX_POLICY_BUNDLE: Final = "cedarbox.policy.bundle"
CEDARBOX_POLICY_DECISION: Final = "cedarbox.policy.decision"
CEDARBOX_POLICY_IDS: Final = "cedarbox.policy.ids"
CEDARBOX_POLICY_MICROS: Final = "cedarbox.policy.micros"
CEDARBOX_POLICY_RESOURCE: Final = "cedarbox.policy.resource"
CEDARBOX_RECORD_SEQ: Final = "cedarbox.record.seq"
CEDARBOX_SDK_SPAN: Final = "cedarbox.sdk.span"
CEDARBOX_SDK_TRACE_ID: Final = "cedarbox.sdk.trace_id"
CEDARBOX_TOOL_ARGUMENTS_DIGEST: Final = "cedarbox.tool.arguments.digest"
CEDARBOX_TOOL_RESULT_DIGEST: Final = "cedarbox.tool.result.digest"
CEDARBOX_TURN: Final = "cedarbox.turn"
ERROR_TYPE: Final = "error.type"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
MCP_METHOD_NAME: Final = "mcp.method.name"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
PROCESS_EXECUTABLE_NAME: Final = "process.executable.name"
PROCESS_EXIT_CODE: Final = "process.exit.code"
SANDBOX_BACKEND: Final = "sandbox.backend"
SANDBOX_OPERATION: Final = "sandbox.operation"
SANDBOX_SESSION_ID: Final = "sandbox.session.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType(
    {
        AUDIT_RECORD_ID: "stream and sequence number of a ledger record, as <stream>/<seq>",
        CEDARBOX_GUARDRAIL_TRIGGERED: "whether a guardrail of the Agents SDK fired",
        CEDARBOX_HANDOFF_FROM: "name of the agent that hands over",
        CEDARBOX_HANDOFF_TO: "name of the agent that takes over",
        CEDARBOX_MCP_SERVER: "name of the MCP server that offers the tool",
        CEDARBOX_POLICY_ACTION: "Cedar action that was asked for",
        CEDARBOX_POLICY_BUNDLE: "digest of the policy bundle that decided",
        CEDARBOX_POLICY_DECISION: "allow or deny",
        CEDARBOX_POLICY_IDS: "ids of the policies that determined the decision",
        CEDARBOX_POLICY_MICROS: "time the policy engine took to decide, in microseconds",
        CEDARBOX_POLICY_RESOURCE: "canonical resource that was asked for",
        CEDARBOX_RECORD_SEQ: "sequence number of the ledger record that holds the decision",
        CEDARBOX_SDK_SPAN: "kind of the Agents SDK span that this span mirrors",
        CEDARBOX_SDK_TRACE_ID: "trace id that the Agents SDK uses for the run",
        CEDARBOX_TOOL_ARGUMENTS_DIGEST: "SHA-256 of the arguments of a tool call",
        CEDARBOX_TOOL_RESULT_DIGEST: "SHA-256 of the result of a tool call",
        CEDARBOX_TURN: "number of the turn in the agent loop, from 1",
        ERROR_TYPE: "class of the error, of low cardinality",
        GEN_AI_AGENT_NAME: "name of the agent",
        GEN_AI_CONVERSATION_ID: "group id that the caller gave to the run",
        GEN_AI_OPERATION_NAME: "invoke_agent, chat or execute_tool",
        GEN_AI_PROVIDER_NAME: "openai when the model server is OpenAI's own, _OTHER otherwise",
        GEN_AI_REQUEST_MODEL: "name of the model that was asked",
        GEN_AI_RESPONSE_ID: "id of the response of the model server",
        GEN_AI_RESPONSE_MODEL: "name of the model that answered",
        GEN_AI_TOOL_CALL_ID: "id that the model gave to the tool call",
        GEN_AI_TOOL_NAME: "name of the tool",
        GEN_AI_TOOL_TYPE: "function: the tool runs on the caller's side",
        GEN_AI_USAGE_INPUT_TOKENS: "tokens of the prompt",
        GEN_AI_USAGE_OUTPUT_TOKENS: "tokens of the completion",
        MCP_METHOD_NAME: "MCP method that was called",
        NETWORK_PEER_ADDRESS: "IP address that was connected to",
        PROCESS_EXECUTABLE_NAME: "name of the program that was started in the guest",
        PROCESS_EXIT_CODE: "exit code of the program",
        SANDBOX_BACKEND: "sandbox backend, such as boxlite",
        SANDBOX_OPERATION: "sandbox operation, such as exec or read",
        SANDBOX_SESSION_ID: "id of the sandbox session",
        SERVER_ADDRESS: "host that was connected to",
        SERVER_PORT: "TCP port that was connected to",
    }
)
