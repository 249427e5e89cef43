"""The attribute names are a promise to whoever queries them: changing one must be seen in review."""

from __future__ import annotations

from cedarbox.telemetry import attributes

PINNED = """
audit.record.id cedarbox.guardrail.triggered cedarbox.handoff.from cedarbox.handoff.to cedarbox.mcp.server
cedarbox.policy.action cedarbox.policy.bundle cedarbox.policy.decision cedarbox.policy.ids cedarbox.policy.micros
cedarbox.policy.resource cedarbox.record.seq cedarbox.sdk.span cedarbox.sdk.trace_id cedarbox.tool.arguments.digest
cedarbox.tool.result.digest cedarbox.turn error.type gen_ai.agent.name gen_ai.conversation.id gen_ai.operation.name
gen_ai.provider.name gen_ai.request.model gen_ai.response.id gen_ai.response.model gen_ai.tool.call.id gen_ai.tool.name
gen_ai.tool.type gen_ai.usage.input_tokens gen_ai.usage.output_tokens mcp.method.name network.peer.address
process.executable.name process.exit.code sandbox.backend sandbox.operation sandbox.session.id server.address
server.port
"""


def test_names_are_pinned() -> None:
    assert sorted(attributes.ATTRIBUTES) == PINNED.split()


def test_every_constant_is_in_the_table() -> None:
    constants = {getattr(attributes, name) for name in attributes.__all__ if name not in {"ATTRIBUTES", "SCHEMA_URL"}}
    assert constants == set(attributes.ATTRIBUTES)


def test_every_meaning_is_one_line() -> None:
    assert all(meaning and "\n" not in meaning for meaning in attributes.ATTRIBUTES.values())
