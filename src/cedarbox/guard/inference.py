"""The span of a call of a model, and what is counted of it.

The guard makes it, and not the SDK's tracing, because only here is known where the request goes, and because a run
whose tracing the user switched off calls models as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cedarbox.guard.endpoints import Destination
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import called_by, current_caller
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import clip
from cedarbox.telemetry.spans import OperationSpan, SpanKind, error_class

__all__ = ["Inference", "calling"]

_VENDOR: Final = "api.openai.com"


class Inference:
    """A call of a model while it runs.

    Attributes:
        span: Its span.
        answer: The items of the answer, once there is one.
    """

    def __init__(self, span: OperationSpan) -> None:
        self.span = span
        self.answer: list[Any] = []
        self.usage: tuple[int, int] | None = None
        self.error: str | None = None

    def answered(self, items: Any, usage: Any, response_id: str | None) -> None:
        """Take what the model answered, and how many tokens that took.

        Args:
            items: Output items of the SDK.
            usage: The SDK's usage, or the server's own; None when it was not told.
            response_id: Id of the response, if it has one.
        """
        self.answer = list(items or [])
        tokens = (getattr(usage, "input_tokens", None), getattr(usage, "output_tokens", None))
        # The SDK tells zero of both when the server told nothing.
        if isinstance(tokens[0], int) and isinstance(tokens[1], int) and any(tokens):
            self.usage = (tokens[0], tokens[1])
            self.span.set(attributes.GEN_AI_USAGE_INPUT_TOKENS, tokens[0])
            self.span.set(attributes.GEN_AI_USAGE_OUTPUT_TOKENS, tokens[1])
        if response_id:
            self.span.set(attributes.GEN_AI_RESPONSE_ID, clip(response_id))


@contextmanager
def calling(gate: Gate, to: Destination, agent: str, *, streamed: bool) -> Iterator[Inference]:
    """Make the span of a call and count it when the block is over.

    The span is not current by itself: see `OperationSpan.current`.

    Args:
        gate: Has the telemetry.
        to: Where the call goes.
        agent: Name of the agent whose turn it is.
        streamed: Whether the answer comes in pieces.
    """
    model, provider = clip(to.model), "openai" if to.host == _VENDOR else "_OTHER"
    known: dict[str, str | bool] = {
        **called_by(current_caller()),
        attributes.GEN_AI_OPERATION_NAME: "chat",
        attributes.GEN_AI_PROVIDER_NAME: provider,
        attributes.GEN_AI_REQUEST_MODEL: model,
        attributes.GEN_AI_REQUEST_STREAM: streamed,
        attributes.GEN_AI_AGENT_NAME: clip(agent),
    }
    if to.host:
        known[attributes.SERVER_ADDRESS] = clip(to.host)
    begun, call = time.perf_counter(), None
    try:
        with gate.telemetry.aside(f"chat {model}", known, kind=SpanKind.CLIENT) as span:
            call = Inference(span)
            yield call
    except GeneratorExit:
        raise
    except BaseException as error:
        if call is not None:
            call.error = error_class(error)
        raise
    finally:
        if call is not None:
            gate.telemetry.metrics.inferred(
                provider=provider,
                model=model,
                seconds=time.perf_counter() - begun,
                error=call.error,
                usage=call.usage,
            )
