"""The one table of attribute names that cedarbox puts on spans, each with its type, where it stands and its meaning.

Names under ``gen_ai.`` and ``mcp.`` follow OpenTelemetry's semantic-conventions-genai v0.1.0, written as literals
because the constants of opentelemetry-semantic-conventions 0.66b2 for them are all marked deprecated. ``sandbox.``
names are those the Agents SDK 0.24 uses itself. ``process.``, ``server.``, ``network.``, ``http.``, ``service.`` and
``error.`` are the core conventions 1.44, ``audit.`` is OpenTelemetry's audit logging draft, and ``cedarbox.`` is our
own. An attribute that is not in the table is not put on a span, and one that may hold content only where the setting
and the policies permit it (see `cedarbox.guard.capture`).

The page about it: python -m cedarbox.telemetry.page > compliance/TELEMETRY.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = [
    "ATTRIBUTES",
    "AUDIT_RECORD_ID",
    "CEDARBOX_APPROVAL_REQUEST",
    "CEDARBOX_COMMAND_OUTPUT",
    "CEDARBOX_CONTENT_TRUNCATED",
    "CEDARBOX_EGRESS_BYTES_IN",
    "CEDARBOX_EGRESS_BYTES_OUT",
    "CEDARBOX_EGRESS_CONNECTED_MS",
    "CEDARBOX_EGRESS_REASON",
    "CEDARBOX_EXEC_OUTPUT_BYTES",
    "CEDARBOX_EXEC_PROCESS",
    "CEDARBOX_EXEC_STDERR_BYTES",
    "CEDARBOX_EXEC_STDIN_BYTES",
    "CEDARBOX_EXEC_STDOUT_BYTES",
    "CEDARBOX_FILE_BYTES",
    "CEDARBOX_FILE_ENTRIES",
    "CEDARBOX_FILE_PARENTS",
    "CEDARBOX_FILE_RECURSIVE",
    "CEDARBOX_GUARDRAIL_TRIGGERED",
    "CEDARBOX_HANDOFF_FROM",
    "CEDARBOX_HANDOFF_TO",
    "CEDARBOX_LEDGER_STREAM",
    "CEDARBOX_MCP_SERVER",
    "CEDARBOX_OUTCOME_SEQ",
    "CEDARBOX_POLICY_ACTION",
    "CEDARBOX_POLICY_BUNDLE",
    "CEDARBOX_POLICY_DECISION",
    "CEDARBOX_POLICY_IDS",
    "CEDARBOX_POLICY_MICROS",
    "CEDARBOX_POLICY_RESOURCE",
    "CEDARBOX_RECORD_SEQ",
    "CEDARBOX_RUN_ID",
    "CEDARBOX_SANDBOX_LIFETIME_S",
    "CEDARBOX_SDK_SPAN",
    "CEDARBOX_SDK_TRACE_ID",
    "CEDARBOX_SNAPSHOT_BUNDLE",
    "CEDARBOX_SNAPSHOT_BYTES",
    "CEDARBOX_SNAPSHOT_FROM",
    "CEDARBOX_SNAPSHOT_ID",
    "CEDARBOX_SNAPSHOT_IMAGE_DIGEST",
    "CEDARBOX_SNAPSHOT_KIND",
    "CEDARBOX_SNAPSHOT_NAME",
    "CEDARBOX_SNAPSHOT_OF",
    "CEDARBOX_SNAPSHOT_PARENT",
    "CEDARBOX_SNAPSHOT_SAVED",
    "CEDARBOX_SNAPSHOT_SHA256",
    "CEDARBOX_SNAPSHOT_TYPE",
    "CEDARBOX_TOOL_ARGUMENTS_DIGEST",
    "CEDARBOX_TOOL_RESULT_DIGEST",
    "CEDARBOX_TURN",
    "ERROR_TYPE",
    "FACTS",
    "GEN_AI_AGENT_NAME",
    "GEN_AI_CONVERSATION_ID",
    "GEN_AI_INPUT_MESSAGES",
    "GEN_AI_OPERATION_NAME",
    "GEN_AI_OUTPUT_MESSAGES",
    "GEN_AI_PROVIDER_NAME",
    "GEN_AI_REQUEST_MODEL",
    "GEN_AI_REQUEST_STREAM",
    "GEN_AI_RESPONSE_ID",
    "GEN_AI_RESPONSE_MODEL",
    "GEN_AI_SYSTEM_INSTRUCTIONS",
    "GEN_AI_TOOL_CALL_ARGUMENTS",
    "GEN_AI_TOOL_CALL_ID",
    "GEN_AI_TOOL_CALL_RESULT",
    "GEN_AI_TOOL_NAME",
    "GEN_AI_TOOL_TYPE",
    "GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS",
    "GEN_AI_USAGE_INPUT_TOKENS",
    "GEN_AI_USAGE_OUTPUT_TOKENS",
    "GEN_AI_USAGE_REASONING_OUTPUT_TOKENS",
    "GEN_AI_VERSION",
    "HTTP_RESPONSE_STATUS_CODE",
    "MCP_METHOD_NAME",
    "NETWORK_PEER_ADDRESS",
    "NETWORK_PROTOCOL_NAME",
    "PROCESS_EXECUTABLE_NAME",
    "PROCESS_EXIT_CODE",
    "SANDBOX_BACKEND",
    "SANDBOX_OPERATION",
    "SANDBOX_SESSION_ID",
    "SCHEMA_URL",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "SERVICE_INSTANCE_ID",
    "SERVICE_NAME",
    "TELEMETRY_SDK_LANGUAGE",
    "Attribute",
]

GEN_AI_VERSION: Final = "0.1.0"
"""Release of semantic-conventions-genai that the names follow."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

AUDIT_RECORD_ID: Final = "audit.record.id"
CEDARBOX_APPROVAL_REQUEST: Final = "cedarbox.approval.request"
CEDARBOX_COMMAND_OUTPUT: Final = "cedarbox.command.output"
CEDARBOX_CONTENT_TRUNCATED: Final = "cedarbox.content.truncated"
CEDARBOX_EGRESS_BYTES_IN: Final = "cedarbox.egress.bytes_in"
CEDARBOX_EGRESS_BYTES_OUT: Final = "cedarbox.egress.bytes_out"
CEDARBOX_EGRESS_CONNECTED_MS: Final = "cedarbox.egress.connected_ms"
CEDARBOX_EGRESS_REASON: Final = "cedarbox.egress.reason"
CEDARBOX_EXEC_OUTPUT_BYTES: Final = "cedarbox.exec.output_bytes"
CEDARBOX_EXEC_PROCESS: Final = "cedarbox.exec.process"
CEDARBOX_EXEC_STDERR_BYTES: Final = "cedarbox.exec.stderr_bytes"
CEDARBOX_EXEC_STDIN_BYTES: Final = "cedarbox.exec.stdin_bytes"
CEDARBOX_EXEC_STDOUT_BYTES: Final = "cedarbox.exec.stdout_bytes"
CEDARBOX_FILE_BYTES: Final = "cedarbox.file.bytes"
CEDARBOX_FILE_ENTRIES: Final = "cedarbox.file.entries"
CEDARBOX_FILE_PARENTS: Final = "cedarbox.file.parents"
CEDARBOX_FILE_RECURSIVE: Final = "cedarbox.file.recursive"
CEDARBOX_GUARDRAIL_TRIGGERED: Final = "cedarbox.guardrail.triggered"
CEDARBOX_HANDOFF_FROM: Final = "cedarbox.handoff.from"
CEDARBOX_HANDOFF_TO: Final = "cedarbox.handoff.to"
CEDARBOX_LEDGER_STREAM: Final = "cedarbox.ledger.stream"
CEDARBOX_MCP_SERVER: Final = "cedarbox.mcp.server"
CEDARBOX_OUTCOME_SEQ: Final = "cedarbox.outcome.seq"
CEDARBOX_POLICY_ACTION: Final = "cedarbox.policy.action"
CEDARBOX_POLICY_BUNDLE: Final = "cedarbox.policy.bundle"
CEDARBOX_POLICY_DECISION: Final = "cedarbox.policy.decision"
CEDARBOX_POLICY_IDS: Final = "cedarbox.policy.ids"
CEDARBOX_POLICY_MICROS: Final = "cedarbox.policy.micros"
CEDARBOX_POLICY_RESOURCE: Final = "cedarbox.policy.resource"
CEDARBOX_RECORD_SEQ: Final = "cedarbox.record.seq"
CEDARBOX_RUN_ID: Final = "cedarbox.run.id"
CEDARBOX_SANDBOX_LIFETIME_S: Final = "cedarbox.sandbox.lifetime_s"
CEDARBOX_SDK_SPAN: Final = "cedarbox.sdk.span"
CEDARBOX_SDK_TRACE_ID: Final = "cedarbox.sdk.trace_id"
CEDARBOX_SNAPSHOT_BUNDLE: Final = "cedarbox.snapshot.bundle"
CEDARBOX_SNAPSHOT_IMAGE_DIGEST: Final = "cedarbox.snapshot.image_digest"
CEDARBOX_SNAPSHOT_KIND: Final = "cedarbox.snapshot.kind"
CEDARBOX_SNAPSHOT_NAME: Final = "cedarbox.snapshot.name"
CEDARBOX_SNAPSHOT_PARENT: Final = "cedarbox.snapshot.parent"
CEDARBOX_SNAPSHOT_BYTES: Final = "cedarbox.snapshot.bytes"
CEDARBOX_SNAPSHOT_FROM: Final = "cedarbox.snapshot.from"
CEDARBOX_SNAPSHOT_ID: Final = "cedarbox.snapshot.id"
CEDARBOX_SNAPSHOT_OF: Final = "cedarbox.snapshot.of"
CEDARBOX_SNAPSHOT_SAVED: Final = "cedarbox.snapshot.saved"
CEDARBOX_SNAPSHOT_SHA256: Final = "cedarbox.snapshot.sha256"
CEDARBOX_SNAPSHOT_TYPE: Final = "cedarbox.snapshot.type"
CEDARBOX_TOOL_ARGUMENTS_DIGEST: Final = "cedarbox.tool.arguments.digest"
CEDARBOX_TOOL_RESULT_DIGEST: Final = "cedarbox.tool.result.digest"
CEDARBOX_TURN: Final = "cedarbox.turn"
ERROR_TYPE: Final = "error.type"
GEN_AI_AGENT_NAME: Final = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID: Final = "gen_ai.conversation.id"
GEN_AI_INPUT_MESSAGES: Final = "gen_ai.input.messages"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
GEN_AI_PROVIDER_NAME: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_REQUEST_STREAM: Final = "gen_ai.request.stream"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
GEN_AI_TOOL_CALL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
GEN_AI_TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
GEN_AI_TOOL_CALL_RESULT: Final = "gen_ai.tool.call.result"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
GEN_AI_TOOL_TYPE: Final = "gen_ai.tool.type"
GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
MCP_METHOD_NAME: Final = "mcp.method.name"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"
PROCESS_EXECUTABLE_NAME: Final = "process.executable.name"
PROCESS_EXIT_CODE: Final = "process.exit.code"
SANDBOX_BACKEND: Final = "sandbox.backend"
SANDBOX_OPERATION: Final = "sandbox.operation"
SANDBOX_SESSION_ID: Final = "sandbox.session.id"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
SERVICE_NAME: Final = "service.name"
TELEMETRY_SDK_LANGUAGE: Final = "telemetry.sdk.language"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One line of the table.

    Attributes:
        type: ``string``, ``int``, ``boolean`` or ``string[]``.
        on: The spans that have it, in words.
        meaning: What it says, in one line.
        content: It may hold what users, models and programs wrote.
    """

    type: str
    on: str
    meaning: str
    content: bool = False


ATTRIBUTES: Final[Mapping[str, Attribute]] = MappingProxyType(
    {
        AUDIT_RECORD_ID: Attribute(
            "string", "decisions", "stream and sequence number of the record that holds the decision, as <stream>/<seq>"
        ),
        CEDARBOX_APPROVAL_REQUEST: Attribute(
            "string", "approvals", "id of the request that waits for a person's approval"
        ),
        CEDARBOX_COMMAND_OUTPUT: Attribute(
            "string", "commands", "what the command wrote, stdout before stderr", content=True
        ),
        CEDARBOX_CONTENT_TRUNCATED: Attribute(
            "boolean", "model calls, tool calls, commands", "captured content was cut or left out for its size"
        ),
        CEDARBOX_EGRESS_BYTES_IN: Attribute("int", "egress", "bytes that the guest received"),
        CEDARBOX_EGRESS_BYTES_OUT: Attribute("int", "egress", "bytes that the guest sent"),
        CEDARBOX_EGRESS_CONNECTED_MS: Attribute("int", "egress", "milliseconds until the server was reached"),
        CEDARBOX_EGRESS_REASON: Attribute("string", "egress", "why the connection ended"),
        CEDARBOX_EXEC_OUTPUT_BYTES: Attribute("int", "commands", "bytes of output that were handed over"),
        CEDARBOX_EXEC_PROCESS: Attribute("int", "commands", "number by which a process that goes on is named"),
        CEDARBOX_EXEC_STDERR_BYTES: Attribute("int", "commands", "bytes written to stderr"),
        CEDARBOX_EXEC_STDIN_BYTES: Attribute("int", "commands", "bytes typed into a process"),
        CEDARBOX_EXEC_STDOUT_BYTES: Attribute("int", "commands", "bytes written to stdout"),
        CEDARBOX_FILE_BYTES: Attribute("int", "files", "bytes read"),
        CEDARBOX_FILE_ENTRIES: Attribute("int", "files", "entries of a directory that was listed"),
        CEDARBOX_FILE_PARENTS: Attribute("boolean", "files", "whether missing parents of a directory are made"),
        CEDARBOX_FILE_RECURSIVE: Attribute("boolean", "files", "whether a whole tree is removed"),
        CEDARBOX_GUARDRAIL_TRIGGERED: Attribute("boolean", "guardrails", "whether a guardrail of the Agents SDK fired"),
        CEDARBOX_HANDOFF_FROM: Attribute("string", "handoffs", "name of the agent that hands over"),
        CEDARBOX_HANDOFF_TO: Attribute("string", "handoffs", "name of the agent that takes over"),
        CEDARBOX_LEDGER_STREAM: Attribute(
            "string", "resource", "stream of the ledger that the sequence numbers of this process are of"
        ),
        CEDARBOX_MCP_SERVER: Attribute(
            "string", "tool calls, lists of tools", "name of the MCP server that offers the tool"
        ),
        CEDARBOX_OUTCOME_SEQ: Attribute(
            "int", "operations", "sequence number of the ledger record that holds the outcome"
        ),
        CEDARBOX_POLICY_ACTION: Attribute("string", "decisions", "Cedar action that was asked for"),
        CEDARBOX_POLICY_BUNDLE: Attribute("string", "decisions", "digest of the policy bundle that decided"),
        CEDARBOX_POLICY_DECISION: Attribute("string", "decisions", "allow or deny"),
        CEDARBOX_POLICY_IDS: Attribute("string[]", "decisions", "ids of the policies that determined the decision"),
        CEDARBOX_POLICY_MICROS: Attribute("int", "decisions", "time the policy engine took to decide, in microseconds"),
        CEDARBOX_POLICY_RESOURCE: Attribute(
            "string", "decisions", "canonical resource that was asked for, such as a path or a host"
        ),
        CEDARBOX_RECORD_SEQ: Attribute(
            "int", "decisions", "sequence number of the ledger record that holds the decision"
        ),
        CEDARBOX_RUN_ID: Attribute("string", "all of a run", "id of the guarded run, as the records have it"),
        CEDARBOX_SANDBOX_LIFETIME_S: Attribute("int", "sandbox lifetime", "seconds after which the sandbox is ended"),
        CEDARBOX_SDK_SPAN: Attribute("string", "mirrored spans", "kind of the Agents SDK span that this span mirrors"),
        CEDARBOX_SDK_TRACE_ID: Attribute("string", "runs", "trace id that the Agents SDK uses for the run"),
        CEDARBOX_SNAPSHOT_BUNDLE: Attribute(
            "string", "snapshots", "digest of the policy bundle under which the snapshot was made"
        ),
        CEDARBOX_SNAPSHOT_IMAGE_DIGEST: Attribute(
            "string", "snapshots", "digest of the image of the sandbox that was saved"
        ),
        CEDARBOX_SNAPSHOT_KIND: Attribute("string", "snapshots", "tar: an archive of the workspace; native: the disk"),
        CEDARBOX_SNAPSHOT_NAME: Attribute(
            "string", "snapshots", "name of one save; a snapshot that is saved again has a new one"
        ),
        CEDARBOX_SNAPSHOT_PARENT: Attribute(
            "string", "snapshots", "name of the save that the sandbox had started from"
        ),
        CEDARBOX_SNAPSHOT_BYTES: Attribute("int", "snapshots", "size of the snapshot"),
        CEDARBOX_SNAPSHOT_FROM: Attribute("string", "forks", "id of the snapshot that is forked"),
        CEDARBOX_SNAPSHOT_ID: Attribute("string", "snapshots", "id of the snapshot"),
        CEDARBOX_SNAPSHOT_OF: Attribute("string", "forks", "id of the sandbox session whose snapshot is forked"),
        CEDARBOX_SNAPSHOT_SAVED: Attribute("boolean", "sandbox stop", "whether the workspace was saved"),
        CEDARBOX_SNAPSHOT_SHA256: Attribute("string", "snapshots", "digest of the contents"),
        CEDARBOX_SNAPSHOT_TYPE: Attribute("string", "snapshots", "kind of the snapshot's store"),
        CEDARBOX_TOOL_ARGUMENTS_DIGEST: Attribute("string", "tool calls", "SHA-256 of the arguments of a tool call"),
        CEDARBOX_TOOL_RESULT_DIGEST: Attribute("string", "tool calls", "SHA-256 of the result of a tool call"),
        CEDARBOX_TURN: Attribute("int", "turns", "number of the turn in the agent loop, from 1"),
        ERROR_TYPE: Attribute("string", "all", "class of the error, of low cardinality"),
        GEN_AI_AGENT_NAME: Attribute(
            "string",
            "runs, agents, turns, tool calls",
            "name of the agent; on the span of a run the name of the workflow",
        ),
        GEN_AI_CONVERSATION_ID: Attribute("string", "runs", "group id that the caller gave to the run"),
        GEN_AI_INPUT_MESSAGES: Attribute(
            "string",
            "model calls",
            "messages that went to the model, in the JSON form of the conventions",
            content=True,
        ),
        GEN_AI_OPERATION_NAME: Attribute(
            "string", "runs, agents, model calls, tool calls", "invoke_workflow, invoke_agent, chat or execute_tool"
        ),
        GEN_AI_OUTPUT_MESSAGES: Attribute(
            "string", "model calls", "messages that the model gave, in the JSON form of the conventions", content=True
        ),
        GEN_AI_PROVIDER_NAME: Attribute(
            "string", "model calls", "openai when the model server is OpenAI's own, _OTHER otherwise"
        ),
        GEN_AI_REQUEST_MODEL: Attribute("string", "model calls", "name of the model that was asked"),
        GEN_AI_REQUEST_STREAM: Attribute("boolean", "model calls", "whether the answer was streamed"),
        GEN_AI_RESPONSE_ID: Attribute("string", "model calls", "id of the response of the model server"),
        GEN_AI_RESPONSE_MODEL: Attribute("string", "model calls", "name of the model that answered"),
        GEN_AI_SYSTEM_INSTRUCTIONS: Attribute(
            "string", "model calls", "instructions of the agent, in the JSON form of the conventions", content=True
        ),
        GEN_AI_TOOL_CALL_ARGUMENTS: Attribute(
            "string", "tool calls", "arguments of the call, JSON where the model gave JSON", content=True
        ),
        GEN_AI_TOOL_CALL_ID: Attribute("string", "tool calls", "id that the model gave to the tool call"),
        GEN_AI_TOOL_CALL_RESULT: Attribute("string", "tool calls", "result of the call", content=True),
        GEN_AI_TOOL_NAME: Attribute("string", "tool calls", "name of the tool"),
        GEN_AI_TOOL_TYPE: Attribute("string", "tool calls", "function: the tool runs on the caller's side"),
        GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: Attribute(
            "int", "model calls", "tokens of the prompt that the server had in its cache"
        ),
        GEN_AI_USAGE_INPUT_TOKENS: Attribute("int", "runs, turns, model calls", "tokens of the prompt"),
        GEN_AI_USAGE_OUTPUT_TOKENS: Attribute("int", "runs, turns, model calls", "tokens of the completion"),
        GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: Attribute(
            "int", "model calls", "tokens of the completion that were spent on reasoning"
        ),
        HTTP_RESPONSE_STATUS_CODE: Attribute("int", "egress", "status of the answer to a request in plain HTTP"),
        MCP_METHOD_NAME: Attribute("string", "tool calls, lists of tools", "MCP method that was called"),
        NETWORK_PEER_ADDRESS: Attribute("string", "egress", "IP address that was connected to"),
        NETWORK_PROTOCOL_NAME: Attribute("string", "egress", "tls, http or tcp"),
        PROCESS_EXECUTABLE_NAME: Attribute("string", "commands", "name of the program that was started in the guest"),
        PROCESS_EXIT_CODE: Attribute("int", "commands", "exit code of the program"),
        SANDBOX_BACKEND: Attribute("string", "operations", "sandbox backend, such as boxlite"),
        SANDBOX_OPERATION: Attribute("string", "operations", "sandbox operation, such as exec or read"),
        SANDBOX_SESSION_ID: Attribute("string", "operations", "id of the sandbox session"),
        SERVER_ADDRESS: Attribute("string", "egress, model calls", "host that was connected to"),
        SERVER_PORT: Attribute("int", "egress, model calls", "TCP port that was connected to"),
        SERVICE_INSTANCE_ID: Attribute("string", "resource", "which process of cedarbox this is"),
        SERVICE_NAME: Attribute("string", "resource", "cedarbox, unless it was given another name"),
        TELEMETRY_SDK_LANGUAGE: Attribute("string", "resource", "python"),
    }
)
"""By name."""

FACTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "address": NETWORK_PEER_ADDRESS,
        "arguments_digest": CEDARBOX_TOOL_ARGUMENTS_DIGEST,
        "bytes": CEDARBOX_FILE_BYTES,
        "bytes_in": CEDARBOX_EGRESS_BYTES_IN,
        "bytes_out": CEDARBOX_EGRESS_BYTES_OUT,
        "connected_ms": CEDARBOX_EGRESS_CONNECTED_MS,
        "entries": CEDARBOX_FILE_ENTRIES,
        "exit_code": PROCESS_EXIT_CODE,
        "lifetime_s": CEDARBOX_SANDBOX_LIFETIME_S,
        "output_bytes": CEDARBOX_EXEC_OUTPUT_BYTES,
        "parents": CEDARBOX_FILE_PARENTS,
        "process": CEDARBOX_EXEC_PROCESS,
        "reason": CEDARBOX_EGRESS_REASON,
        "recursive": CEDARBOX_FILE_RECURSIVE,
        "sha256": CEDARBOX_SNAPSHOT_SHA256,
        "size_bytes": CEDARBOX_SNAPSHOT_BYTES,
        "snapshot.bundle": CEDARBOX_SNAPSHOT_BUNDLE,
        "snapshot.image_digest": CEDARBOX_SNAPSHOT_IMAGE_DIGEST,
        "snapshot.kind": CEDARBOX_SNAPSHOT_KIND,
        "snapshot.name": CEDARBOX_SNAPSHOT_NAME,
        "snapshot.parent": CEDARBOX_SNAPSHOT_PARENT,
        "snapshot.bytes": CEDARBOX_SNAPSHOT_BYTES,
        "snapshot.size_bytes": CEDARBOX_SNAPSHOT_BYTES,
        "snapshot.native.sha256": CEDARBOX_SNAPSHOT_SHA256,
        "snapshot.native.size_bytes": CEDARBOX_SNAPSHOT_BYTES,
        "snapshot.from": CEDARBOX_SNAPSHOT_FROM,
        "snapshot.id": CEDARBOX_SNAPSHOT_ID,
        "snapshot.of": CEDARBOX_SNAPSHOT_OF,
        "snapshot.saved": CEDARBOX_SNAPSHOT_SAVED,
        "snapshot.sha256": CEDARBOX_SNAPSHOT_SHA256,
        "snapshot.type": CEDARBOX_SNAPSHOT_TYPE,
        "status": HTTP_RESPONSE_STATUS_CODE,
        "stderr_bytes": CEDARBOX_EXEC_STDERR_BYTES,
        "stdin_bytes": CEDARBOX_EXEC_STDIN_BYTES,
        "stdout_bytes": CEDARBOX_EXEC_STDOUT_BYTES,
    }
)
"""Which attribute shows a fact of an outcome record. A fact without one, such as a duration, is in the record alone."""
