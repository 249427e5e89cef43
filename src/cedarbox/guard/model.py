"""A model behind the gate: where a conversation goes and which tools it may bring are decided before anything is sent.

The model is the only place that sees a request as it will be sent: after hooks, MCP servers, handoffs and nested
agents have added their tools.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents import Agent
from agents.items import TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from agents.tool import FunctionTool, Tool

from cedarbox.errors import PolicyDenied, UnsupportedToolError
from cedarbox.guard import requests
from cedarbox.guard.capabilities import decide_capabilities, decide_compaction
from cedarbox.guard.capture import capture_answer, capture_prompt
from cedarbox.guard.endpoints import Destination
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_run
from cedarbox.guard.inference import Inference, calling
from cedarbox.guard.once import ask_once
from cedarbox.guard.question import Impossible, Question
from cedarbox.guard.server_state import decided_settings
from cedarbox.guard.tools import DECIDED_WHEN_CALLED, ToolIdentity, identity_of, offer
from cedarbox.policy import PolicyEngine

__all__ = ["GuardedModel"]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """What may be sent, and by whom."""

    to: Destination
    settings: ModelSettings
    tools: list[Tool]
    use: Question
    engine: PolicyEngine


class GuardedModel(Model):
    """Asks before it forwards.

    Args:
        inner: The model that the SDK resolved.
        gate: Decides and records.
        agent: The agent whose turn it is, as it is executed.
    """

    def __init__(self, inner: Model, gate: Gate, agent: Agent[Any]) -> None:
        self._inner, self._gate, self._agent = inner, gate, agent

    def __getattr__(self, name: str) -> Any:
        # The SDK probes models for optional attributes, private ones too.
        return getattr(self._inner, name)

    async def get_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  # the SDK's signature
        model_settings: ModelSettings,
        tools: list[Tool],
        *rest: Any,
        **options: Any,
    ) -> Any:
        """Ask, then forward; a change of policy that denies the model cuts the call."""
        sent = await self._admit(input, model_settings, tools, rest, options)
        with calling(self._gate, sent.to, self._agent.name, streamed=False) as call:
            await capture_prompt(self._gate, call.span, system_instructions, input)
            with call.span.current():
                async with self._gate.while_permitted(sent.use, decided_by=sent.engine):
                    response = await sent.to.sender.get_response(
                        system_instructions, input, sent.settings, sent.tools, *rest, **options
                    )
            call.answered(response.output, response.usage, response.response_id)
            await capture_answer(self._gate, call.span, call.answer)
            return response

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  # the SDK's signature
        model_settings: ModelSettings,
        tools: list[Tool],
        *rest: Any,
        **options: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Ask, then forward the stream; after a change of policy that denies the model nothing of it is passed on."""
        sent = await self._admit(input, model_settings, tools, rest, options)
        stream = sent.to.sender.stream_response(system_instructions, input, sent.settings, sent.tools, *rest, **options)
        engine = sent.engine
        with calling(self._gate, sent.to, self._agent.name, streamed=True) as call:
            await capture_prompt(self._gate, call.span, system_instructions, input)
            async for event in _within(call, stream):
                # A stream is consumed by whoever holds it, so there is no task of its own that could be cut.
                while self._gate.engine is not engine:
                    engine = self._gate.engine
                    await self._gate.ask(sent.use)
                if (response := getattr(event, "response", None)) is not None and event.type == "response.completed":
                    call.answered(response.output, response.usage, response.id)
                    await capture_answer(self._gate, call.span, call.answer)
                yield event

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the inner model's advice."""
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """Close the inner model."""
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    async def _admit(
        self,
        items: Any,
        settings: ModelSettings,
        tools: Sequence[Tool],
        rest: Sequence[Any],
        options: Mapping[str, Any],
    ) -> _Admitted:
        engine, settings, shown = self._gate.engine, requests.frozen(settings), list(tools)
        # The SDK gives the handoffs by name, or second after the tools (agents 0.24, Model.get_response).
        handoffs = options["handoffs"] if "handoffs" in options else rest[1] if len(rest) > 1 else ()
        to = Destination.of(self._inner, self._gate)
        offered = await self._offered(shown, handoffs)
        await self._refuse(requests.smuggled(settings, items))
        await self._refuse(requests.unknown_choice(settings, [tool for tool, _ in offered], handoffs))
        self._refuse_unsupported(to, settings, [tool for tool, _ in offered])
        await self._gate.ask(to.use())
        await decide_capabilities(self._agent, self._gate)
        if requests.compacts(settings):
            await decide_compaction(self._gate)
        settings = await decided_settings(self._gate, to, settings, items, options)
        # A tool is an object that others hold: what it was when it was decided, it has to be when it is sent.
        if changed := [str(identity) for tool, identity in offered if identity_of(tool) != identity]:
            reason = "the tool became another one while it was being decided"
            await self._refuse(Impossible("invokeTool", f'Tool::"{changed[0]}"', reason))
        return _Admitted(to, settings, [tool for tool, _ in offered], to.use(), engine)

    async def _offered(self, tools: Sequence[Tool], handoffs: Sequence[Any]) -> list[tuple[Tool, ToolIdentity]]:
        """Return the tools that the model may be shown; what is denied is left out if the bundle says so."""
        digest, run = self._gate.engine.bundle.digest, current_run()
        shadowing = requests.shadows(tools, handoffs)
        offered = []
        for tool in tools:
            identity = identity_of(tool)
            if run is not None and identity.key(digest) in run.withheld:
                continue
            try:
                if any(tool is shadow for shadow in shadowing):
                    reason = "a tool of an MCP server bears the name of another tool"
                    await self._refuse(Impossible("invokeTool", f'Tool::"{identity}"', reason))
                await self._offer(identity)
                offered.append((tool, identity))
            except PolicyDenied:
                if self._gate.engine.bundle.on_denied_tool != "remove" or run is None:
                    raise
                run.withheld.add(identity.key(digest))
        return offered

    async def _offer(self, identity: ToolIdentity) -> None:
        # A tool of this side is decided again whenever it is called, so offering it is asked once in a run. A tool that
        # runs at the vendor has no second place to ask.
        if identity.kind in DECIDED_WHEN_CALLED:
            await ask_once(self._gate, identity.kind, str(identity), offer(identity))
        else:
            await self._gate.ask(offer(identity))

    async def _refuse(self, denied: Impossible | None) -> None:
        if denied is not None:
            raise await self._gate.refuse(denied)

    def _refuse_unsupported(self, to: Destination, settings: ModelSettings, tools: Sequence[Tool]) -> None:
        if to.wire != "chat":
            return
        names = [tool.name for tool in tools if not isinstance(tool, FunctionTool)]
        if requests.compacts(settings):
            names.append("compaction")
        if names:
            raise UnsupportedToolError(
                f"agent {self._agent.name!r} has {', '.join(sorted(names))}, "
                "which a Chat Completions model cannot take",
                hint="give the agent capabilities=cedarbox.capabilities_for(model), "
                "or serve the model over the Responses API",
            )


async def _within(call: Inference, stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Pass a stream on, with the span of the call current while the model works and not while its reader does."""
    events = aiter(stream)
    try:
        while True:
            with call.span.current():
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            yield event
    finally:
        close = getattr(events, "aclose", None)
        if close is not None:
            await close()
