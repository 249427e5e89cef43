"""Content on spans: only what the site switched on and the policies permit, cut to size, with secrets hidden.

Without the setting ``otlp.capture_content`` nothing is asked and nothing is captured. With it each kind of content is
decided once in a run, or in a session outside of a run, and again when the policies change. What is denied is left out,
in shadow mode too: the content of a span cannot be taken back. The ledger holds the decision and never the content.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

from cedarbox.errors import PolicyDenied
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_run
from cedarbox.guard.question import Question
from cedarbox.policy import actions
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import redact
from cedarbox.telemetry.spans import OperationSpan

__all__ = ["Kind", "capture_answer", "capture_call", "capture_prompt", "capture_text", "captures"]

Kind = Literal["prompts", "responses", "toolArguments", "toolResults", "commandOutput"]
"""A member of ``Sandbox::Content``."""

_MAX_REMEMBERED: Final = 4096
_LEFT_OUT: Final = "[left out]"
_CALLS: Final = frozenset({"function_call", "custom_tool_call", "shell_call", "local_shell_call", "apply_patch_call"})
_TEXTS: Final = frozenset({"input_text", "output_text", "text", "refusal", "summary_text", "reasoning_text"})
_FINISHED: Final = "stop"
_MARGIN: Final = 256


async def captures(gate: Gate, kind: Kind, *, session: str | None = None) -> bool:
    """Say whether content of a kind may be put on spans now.

    Args:
        gate: Decides and records.
        kind: The kind of content.
        session: Id of the sandbox session, for what belongs to no run.
    """
    if not gate.capture:
        return False
    run = current_run()
    while True:
        engine = gate.engine
        key = (engine.bundle.digest, run.id if run is not None else session or "", kind)
        if key not in gate.captures.known:
            await _decide(gate, key, kind, session)
        # The policies may have changed while it was being decided.
        if gate.engine is engine:
            return gate.captures.known.get(key, False)


async def _decide(gate: Gate, key: tuple[str, str, str], kind: Kind, session: str | None) -> None:
    known, asking = gate.captures.known, gate.captures.asking
    # Calls in parallel ask at the same time; a lock is good for one loop.
    mine = (*key, id(asyncio.get_running_loop()))
    async with asking.setdefault(mine, asyncio.Lock()):
        if key not in known:
            question = Question("content capture", partial(actions.capture_content, content=kind), kind)
            try:
                allowed = (await gate.ask(question, session=session)).allowed
            except PolicyDenied:
                allowed = False
            while len(known) >= _MAX_REMEMBERED:
                del known[next(iter(known))]
            known[key] = allowed
    asking.pop(mine, None)


async def capture_text(
    gate: Gate, span: OperationSpan, kind: Kind, name: str, text: str, *, session: str | None = None
) -> None:
    """Put a text on a span if it may be captured.

    Args:
        gate: Decides and records.
        span: The span.
        kind: The kind of content.
        name: The attribute.
        text: The content; bytes that are not text have been replaced.
        session: Id of the sandbox session, for what belongs to no run.
    """
    if await captures(gate, kind, session=session):
        _put(span, name, *_cut(text, gate.capture))


async def capture_call(gate: Gate, span: OperationSpan, arguments: str, result: object) -> None:
    """Put the arguments and the result of a tool call on its span, as far as they may be captured."""
    if gate.capture:
        told = result if isinstance(result, str) else str(result)
        await capture_text(gate, span, "toolArguments", attributes.GEN_AI_TOOL_CALL_ARGUMENTS, arguments)
        await capture_text(gate, span, "toolResults", attributes.GEN_AI_TOOL_CALL_RESULT, told)


async def capture_prompt(gate: Gate, span: OperationSpan, instructions: str | None, items: Any) -> None:
    """Put what went to a model on the span of the call, as far as it may be captured."""
    if not await captures(gate, "prompts"):
        return
    if instructions:
        text, cut = _cut(instructions, gate.capture)
        told = json.dumps([{"type": "text", "content": text}], ensure_ascii=False)
        _put(span, attributes.GEN_AI_SYSTEM_INSTRUCTIONS, told, cut)
    given = [{"role": "user", "content": items}] if isinstance(items, str) else items
    messages = [await _message(gate, item) for item in given]
    _put(span, attributes.GEN_AI_INPUT_MESSAGES, *_fitting(messages, gate.capture))


async def capture_answer(gate: Gate, span: OperationSpan, items: Iterable[Any]) -> None:
    """Put what a model answered on the span of the call, as far as it may be captured."""
    if not await captures(gate, "responses"):
        return
    messages = [{**await _message(gate, item), "finish_reason": _finish(item)} for item in items]
    _put(span, attributes.GEN_AI_OUTPUT_MESSAGES, *_fitting(messages, gate.capture))


def _put(span: OperationSpan, name: str, value: str, cut: bool) -> None:
    span.capture(name, value)
    if cut:
        span.set(attributes.CEDARBOX_CONTENT_TRUNCATED, True)


def _cut(text: str, limit: int) -> tuple[str, bool]:
    hidden = _safe(text, limit)
    return hidden[:limit], len(text) > 2 * limit or len(hidden) > limit


def _safe(text: str, limit: int) -> str:
    """Return as much of a text as there may be room for, with its secrets hidden."""
    if len(text) <= 2 * limit:
        return redact(text)
    # The beginning of a secret alone may not be known as one, so the end of what was cut off goes as well.
    return redact(text[: 2 * limit])[:-_MARGIN]


def _fitting(messages: Sequence[Mapping[str, Any]], limit: int) -> tuple[str, bool]:
    """Return the last messages that fit, as JSON; of one that alone is too long, its beginning."""
    kept: list[str] = []
    size, cut = 2, False
    for message in reversed(messages):
        told = json.dumps(message, ensure_ascii=False)
        if size + len(told) > limit:
            cut = True
            if kept:
                break
            told = json.dumps(_shortened(message, limit // 2), ensure_ascii=False)
            if size + len(told) > limit:
                break
        kept.insert(0, told)
        size += len(told) + 2
    return f"[{', '.join(kept)}]", cut


def _shortened(message: Mapping[str, Any], limit: int) -> dict[str, Any]:
    room = max(0, limit // max(1, len(message["parts"])))
    parts = [
        {key: value[:room] if isinstance(value, str) else value for key, value in part.items()}
        for part in message["parts"]
    ]
    return {**message, "parts": parts}


async def _message(gate: Gate, item: Any) -> dict[str, Any]:
    """Return an item of the SDK in the form of the conventions; what may not be captured of it is left out."""
    told = _plain(item)
    kind, call_id = str(told.get("type") or "message"), told.get("call_id") or told.get("id")
    if kind in _CALLS:
        arguments: Any = _LEFT_OUT
        if await captures(gate, "toolArguments"):
            given = told.get("arguments") or told.get("input") or told.get("action") or told.get("operation") or ""
            arguments = _hidden(given, gate.capture)
        name = str(told.get("name") or kind.removesuffix("_call"))
        part = {"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}
        return {"role": "assistant", "parts": [part]}
    if kind.endswith("_output"):
        result: Any = _LEFT_OUT
        if await captures(gate, "toolResults"):
            result = _hidden(told.get("output"), gate.capture)
        return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": result}]}
    role = str(told.get("role") or "assistant")
    if role == "assistant" and not await captures(gate, "responses"):
        return {"role": role, "parts": [{"type": "text", "content": _LEFT_OUT}]}
    content = told.get("content") or told.get("summary") or []
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else [_plain(part) for part in content]
    shape = "reasoning" if kind == "reasoning" else "text"
    return {"role": role, "parts": [_part(part, shape, gate.capture) for part in parts]}


def _part(part: Mapping[str, Any], shape: str, limit: int) -> dict[str, Any]:
    text = part.get("text") or part.get("refusal")
    if part.get("type") in _TEXTS and isinstance(text, str):
        return {"type": shape, "content": _hidden(text, limit)}
    # Pictures and files are named by their kind alone.
    return {"type": str(part.get("type") or "unknown"), "content": _LEFT_OUT}


def _hidden(value: Any, limit: int) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    return _safe(text, limit)


def _finish(item: Any) -> str:
    return "tool_call" if _plain(item).get("type") in _CALLS else _FINISHED


def _plain(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    dump = getattr(item, "model_dump", None)
    return dump() if callable(dump) else {}
