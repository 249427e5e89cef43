"""How a call waits for an approval: by the SDK's own interruption.

The SDK asks each tool whether a call needs an approval, ends the run with ``result.interruptions`` when it does, and
goes on from a ``RunState`` in which the call was approved. Here the policies are asked as well. That the state says
"approved" carries nothing out: the gate looks for a signed approval when the call is about to be carried out.

Wrapped are, for function tools (those of MCP servers and nested agents too), the question whether a call needs an
approval and the method that asks it, which knows the agent. The executors of custom, shell and patch tools are wrapped
in ``guard.runner`` and ``guard.executors``, and come through here. The names are private to the SDK, so their presence
is checked at import.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from agents import Agent
from agents._function_tool_arguments import FunctionToolApproval
from agents._tool_identity import get_mapping_or_attr
from agents.items import ToolApprovalItem
from agents.run_internal import tool_execution

from cedarbox.errors import CanonicalizationError, LedgerError
from cedarbox.guard.approvals import ToolCall, Unapproved
from cedarbox.guard.capture import capture_call
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import Caller, current_caller, current_gate, within
from cedarbox.guard.question import Question, answer
from cedarbox.guard.tools import identity_of, invocation
from cedarbox.telemetry import attributes

__all__ = ["WRAPPED", "call_of", "exact_arguments", "through_gate", "wants_approval"]

_Execute = Callable[..., Awaitable[Any]]

_BATCH: Final = tool_execution._FunctionToolBatchExecutor
_ASKING: Final = "_maybe_execute_tool_approval"

_ask: _Execute = getattr(_BATCH, _ASKING)
_needs_approval: Callable[..., Awaitable[FunctionToolApproval]] = tool_execution.function_needs_approval

# What tells two objects of one call apart, or what the SDK fills in while it runs.
_NOT_CONTENT: Final = frozenset({"id", "call_id", "status"})


def call_of(tool: Any, agent: str | None, call_id: object, arguments: str) -> ToolCall:
    """Return a call of a tool in the form that is approved."""
    identity = identity_of(tool)
    known = call_id if isinstance(call_id, str) else ""
    return ToolCall(agent, tool.name, identity.kind, identity.server, known, arguments)


def exact_arguments(raw: Any) -> str:
    """Return the exact text of a call's arguments.

    Args:
        raw: The call as the model made it: arguments of a function, input of a custom tool. The calls of other tools
            have no such text; all that they say is brought into sorted JSON for them.
    """
    kind = get_mapping_or_attr(raw, "type")
    if kind in {"function_call", "custom_tool_call"}:
        return str(get_mapping_or_attr(raw, "arguments" if kind == "function_call" else "input"))
    fields = dict(raw) if isinstance(raw, dict) else raw.model_dump()
    kept = {name: value for name, value in fields.items() if name not in _NOT_CONTENT and value is not None}
    return json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)


async def wants_approval(gate: Gate, question: Question) -> bool:
    """Whether a call has to wait for a person, who is then asked; the request is recorded.

    The call is decided again, and that is recorded, when it is carried out. Where nobody can be asked the answer
    is no: the call goes on, and is denied there for want of an approval.
    """
    call, store = question.call, gate.approvals
    if call is None or store is None or gate.mode == "shadow":
        return False
    try:
        action, decision = answer(question, gate.engine, gate.principal, gate.base())
    except CanonicalizationError:
        return False
    approval = decision.approval
    if not decision.allowed or approval is None:
        return False
    with gate.telemetry.operation("approval request", gate.about("approval request", None)) as span:
        try:
            request, new = store.ask(call, principal=gate.principal, decision=decision, approval=approval)
            span.set(attributes.CEDARBOX_APPROVAL_REQUEST, request.id)
            span.set(attributes.CEDARBOX_POLICY_ACTION, action.name)
            span.set(attributes.CEDARBOX_POLICY_RESOURCE, str(action.resource))
            if new:
                attrs = {"request": request.id, **call.bound(), "approvers": approval.approvers}
                entry = gate.entry(
                    "approval.requested",
                    span,
                    None,
                    action=action.name,
                    resource=str(action.resource),
                    policies=decision.policies,
                    attrs=attrs | {"expires_s": approval.expires_s},
                )
                record = await gate.ledger.record(entry)
                span.set(attributes.CEDARBOX_OUTCOME_SEQ, record.seq)
                await asyncio.to_thread(store.put, request)
        except (Unapproved, LedgerError) as error:
            span.fail("unrecorded", error.message)
            return False
    return True


async def through_gate(
    execute: _Execute, tool: Any, *, agent: Agent[Any], call: Any, context_wrapper: Any, **options: Any
) -> Any:
    """Carry a call out under the gate, or return the item that makes the SDK interrupt the run.

    Args:
        execute: The SDK's executor.
        tool: The tool.
        agent: Whose turn it is.
        call: The SDK's object of the call.
        context_wrapper: The SDK's context, which knows what was approved.
        options: The other arguments of the executor.
    """
    raw = call.tool_call
    invoked = call_of(tool, agent.name, get_mapping_or_attr(raw, "call_id"), exact_arguments(raw))
    asked = invocation(tool, invoked)
    with within(caller=Caller(agent.name, tool.name, invoked.call_id)):
        item = ToolApprovalItem(agent=agent, raw_item=raw, tool_name=tool.name)
        status = context_wrapper.get_approval_status(tool.name, invoked.call_id, current_invocation=item)
        if status is None and await wants_approval(current_gate(), asked):
            return item
        async with current_gate().operation(asked) as operation:
            operation.set("arguments_digest", invoked.arguments_digest)
            item = await execute(agent=agent, call=call, context_wrapper=context_wrapper, **options)
            await capture_call(
                current_gate(), operation.span, exact_arguments(raw), get_mapping_or_attr(item, "output") or ""
            )
            return item


async def _guarded_ask(
    self: Any, *, tool_context: Any, approval_evaluation: FunctionToolApproval | None, **options: Any
) -> Any:
    agent = tool_context.agent.name if tool_context.agent is not None else None
    if approval_evaluation is not None and approval_evaluation.outcome == "invoke":
        # It was made where nobody knew the agent; without it the question is asked again, here.
        approval_evaluation = None
    with within(caller=Caller(agent, tool_context.tool_name, tool_context.tool_call_id)):
        return await _ask(self, tool_context=tool_context, approval_evaluation=approval_evaluation, **options)


async def _guarded_needs_approval(function_tool: Any, context_wrapper: Any, tool_call: Any) -> FunctionToolApproval:
    evaluation = await _needs_approval(function_tool, context_wrapper, tool_call)
    call = call_of(function_tool, current_caller().agent, tool_call.call_id, tool_call.arguments)
    if await wants_approval(current_gate(), invocation(function_tool, call)):
        evaluation.outcome = "require_approval"
        evaluation.prepared = None
    return evaluation


WRAPPED: Final[tuple[tuple[Any, str, Any], ...]] = (
    (_BATCH, _ASKING, _guarded_ask),
    (tool_execution, "function_needs_approval", _guarded_needs_approval),
)
"""Where the SDK is wrapped: the owner, the name, and what stands there while the guard is in force."""
