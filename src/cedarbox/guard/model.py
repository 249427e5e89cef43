"""A model behind the gate: where a conversation goes and which tools it may bring are decided before anything is sent.

The model is the only place that sees a request as it will be sent: after hooks, MCP servers, handoffs and nested
agents have added their tools. What a request can smuggle past the list of tools (a stored prompt, extra parameters) is
refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from agents.items import TResponseStreamEvent
from agents.model_settings import ModelSettings
from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from agents.testing import ScriptedModel
from agents.tool import FunctionTool, Tool

from cedarbox.errors import CanonicalizationError, UnsupportedToolError
from cedarbox.guard.approvals import HELD_KINDS
from cedarbox.guard.gate import Gate, Impossible, Question
from cedarbox.guard.identity import current_run
from cedarbox.guard.tools import tool_kind
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base

__all__ = ["HARMLESS_EXTRAS", "GuardedModel"]

_DECIDED_WHEN_CALLED = frozenset({"function", "mcp", "custom"})

HARMLESS_EXTRAS = frozenset(
    {
        "best_of",
        "cache_salt",
        "chat_template_kwargs",
        "context_management",
        "frequency_penalty",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "ignore_eos",
        "keep_alive",
        "length_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "min_p",
        "min_tokens",
        "n",
        "num_ctx",
        "options",
        "presence_penalty",
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
that no list of tools shows.
"""


class GuardedModel(Model):
    """Asks before it forwards.

    Args:
        inner: The model that the SDK resolved.
        gate: Decides and records.
        agent: Name of the agent whose turn it is.
    """

    def __init__(self, inner: Model, gate: Gate, agent: str) -> None:
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
        """Ask, then forward."""
        await self._admit(model_settings, tools, options)
        return await self._inner.get_response(system_instructions, input, model_settings, tools, *rest, **options)

    async def stream_response(
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  # the SDK's signature
        model_settings: ModelSettings,
        tools: list[Tool],
        *rest: Any,
        **options: Any,
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Ask, then forward the stream."""
        await self._admit(model_settings, tools, options)
        stream = self._inner.stream_response(system_instructions, input, model_settings, tools, *rest, **options)
        async for event in stream:
            yield event

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return the inner model's advice."""
        return self._inner.get_retry_advice(request)

    async def close(self) -> None:
        """Close the inner model."""
        await self._inner.close()

    async def _cleanup_on_run_end(self, owner: object) -> None:
        await self._inner._cleanup_on_run_end(owner)

    async def _admit(self, settings: ModelSettings, tools: list[Tool], options: Mapping[str, Any]) -> None:
        for tool in tools:
            await self._offer(tool)
        if (smuggled := _smuggled(settings, options)) is not None:
            raise await self._gate.refuse(smuggled)
        self._refuse_unsupported(settings, tools)
        for host in self._hosts():
            await self._gate.ask(self._use(host))

    async def _offer(self, tool: Tool) -> None:
        kind, run = tool_kind(tool), current_run()
        # A tool of this side is decided again whenever it is called, so offering it is asked once in a run. A tool that
        # runs at the vendor has no second place to ask.
        key = (self._gate.engine.bundle.digest, kind, tool.name)
        offered = run.offered if run is not None and kind in _DECIDED_WHEN_CALLED else set()
        if key in offered:
            return
        name = tool.name
        named = partial(actions.invoke_tool, name=name, kind=kind)
        await self._gate.ask(Question("tool offer", named, name, offered=kind in HELD_KINDS))
        offered.add(key)

    def _refuse_unsupported(self, settings: ModelSettings, tools: list[Tool]) -> None:
        if not isinstance(self._inner, OpenAIChatCompletionsModel):
            return
        names = [tool.name for tool in tools if not isinstance(tool, FunctionTool)]
        if "context_management" in {**(settings.extra_args or {})}:
            names.append("compaction")
        if names:
            raise UnsupportedToolError(
                f"agent {self._agent!r} has {', '.join(sorted(names))}, which a Chat Completions model cannot take",
                hint="give the agent capabilities=[Shell()], or serve the model over the Responses API",
            )

    def _hosts(self) -> Sequence[str | None]:
        """Where the inner model sends a conversation; None stands for this process."""
        if isinstance(self._inner, ScriptedModel):
            return [None]
        if isinstance(self._inner, (OpenAIChatCompletionsModel, OpenAIResponsesModel)):
            client = self._inner._client
            urls = [str(client.base_url), str(getattr(client, "websocket_base_url", None) or client.base_url)]
            return sorted({urlsplit(url).hostname or "" for url in urls})
        return [""]

    def _use(self, host: str | None) -> Question:
        model = str(getattr(self._inner, "model", None) or type(self._inner).__name__)

        def name(base: Base) -> Action:
            if host == "":
                raise CanonicalizationError(
                    f"the model class {type(self._inner).__name__} does not say where it sends to"
                )
            target: Host | Address | None = None if host is None else canonical_host(host)
            return actions.use_model(base, model=model, host=target)

        return Question("model use", name, model)


def _smuggled(settings: ModelSettings, options: Mapping[str, Any]) -> Impossible | None:
    if options.get("prompt") is not None:
        reason = "a stored prompt brings instructions and tools that only the vendor sees"
        return Impossible("invokeTool", 'Tool::"prompt"', reason)
    for where in ("extra_body", "extra_args"):
        extras = getattr(settings, where)
        keys = set(extras) if isinstance(extras, Mapping) else {repr(type(extras))} if extras is not None else set()
        if unknown := sorted(str(key) for key in keys - HARMLESS_EXTRAS):
            reason = f"{where} has {unknown[0]!r}, which could switch on a tool of the model server"
            return Impossible("invokeTool", f'Tool::"{where}"', reason)
    return None
