"""The attribute names are a promise to whoever queries them: changing one must be seen in review."""

from __future__ import annotations

from cedarbox.telemetry import attributes

PINNED = """
audit.record.id
cedarbox.approval.request
cedarbox.command.output
cedarbox.content.truncated
cedarbox.egress.bytes_in
cedarbox.egress.bytes_out
cedarbox.egress.connected_ms
cedarbox.egress.reason
cedarbox.exec.output_bytes
cedarbox.exec.process
cedarbox.exec.stderr_bytes
cedarbox.exec.stdin_bytes
cedarbox.exec.stdout_bytes
cedarbox.file.bytes
cedarbox.file.entries
cedarbox.file.parents
cedarbox.file.recursive
cedarbox.guardrail.triggered
cedarbox.handoff.from
cedarbox.handoff.to
cedarbox.ledger.stream
cedarbox.mcp.server
cedarbox.outcome.seq
cedarbox.policy.action
cedarbox.policy.bundle
cedarbox.policy.decision
cedarbox.policy.ids
cedarbox.policy.micros
cedarbox.policy.resource
cedarbox.record.seq
cedarbox.run.id
cedarbox.sandbox.lifetime_s
cedarbox.sdk.span
cedarbox.sdk.trace_id
cedarbox.snapshot.bundle
cedarbox.snapshot.bytes
cedarbox.snapshot.from
cedarbox.snapshot.id
cedarbox.snapshot.image_digest
cedarbox.snapshot.kind
cedarbox.snapshot.name
cedarbox.snapshot.of
cedarbox.snapshot.parent
cedarbox.snapshot.saved
cedarbox.snapshot.sha256
cedarbox.snapshot.type
cedarbox.tool.arguments.digest
cedarbox.tool.result.digest
cedarbox.turn
error.type
gen_ai.agent.name
gen_ai.conversation.id
gen_ai.input.messages
gen_ai.operation.name
gen_ai.output.messages
gen_ai.provider.name
gen_ai.request.model
gen_ai.request.stream
gen_ai.response.id
gen_ai.response.model
gen_ai.system_instructions
gen_ai.tool.call.arguments
gen_ai.tool.call.id
gen_ai.tool.call.result
gen_ai.tool.name
gen_ai.tool.type
gen_ai.usage.cache_read.input_tokens
gen_ai.usage.input_tokens
gen_ai.usage.output_tokens
gen_ai.usage.reasoning.output_tokens
http.response.status_code
mcp.method.name
network.peer.address
network.protocol.name
process.executable.name
process.exit.code
sandbox.backend
sandbox.operation
sandbox.session.id
server.address
server.port
service.instance.id
service.name
telemetry.sdk.language
"""


def test_names_are_pinned() -> None:
    assert sorted(attributes.ATTRIBUTES) == PINNED.split()


def test_every_constant_is_in_the_table() -> None:
    others = {"ATTRIBUTES", "Attribute", "FACTS", "GEN_AI_VERSION", "SCHEMA_URL"}
    constants = {getattr(attributes, name) for name in attributes.__all__ if name not in others}
    assert constants == set(attributes.ATTRIBUTES)


def test_every_meaning_is_one_line() -> None:
    told = [text for line in attributes.ATTRIBUTES.values() for text in (line.type, line.on, line.meaning)]
    assert all(text and "\n" not in text and "|" not in text for text in told)
