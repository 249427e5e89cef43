"""Where a model sends a conversation, and that it goes there and nowhere else.

Which class a model has says where it sends only for the classes that were read: a subclass can send anywhere, so the
type has to be the very one. The client of such a model is copied before the decision, so that nothing that is changed
on the original afterwards has a bearing, and the copy looks at each request once more when it is about to go out.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agents.models.interface import Model
from agents.models.openai_chatcompletions import OpenAIChatCompletionsModel
from agents.models.openai_responses import OpenAIResponsesModel, OpenAIResponsesWSModel
from agents.testing import ScriptedModel
from openai import AsyncAzureOpenAI, AsyncOpenAI

from cedarbox.errors import CanonicalizationError, PolicyDenied
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_run
from cedarbox.guard.question import Impossible, Question
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base

__all__ = ["Destination", "held", "known_client", "rerouted"]

_IN_PROCESS = ScriptedModel
_OVER_HTTP = (OpenAIChatCompletionsModel, OpenAIResponsesModel)
_CLIENTS = (AsyncOpenAI, AsyncAzureOpenAI)

# A proxy that honours one of these sends a request on to the host or path that it names. RFC 7239, and what is in use.
_REROUTING = frozenset(
    {"forwarded", "x-host", "x-original-host", "x-original-url", "x-rewrite-url", "x-http-method-override"}
)


@dataclass(frozen=True, slots=True)
class Destination:
    """A model, and the host that it sends to.

    Attributes:
        sender: What to call: the model itself, or a copy of it that keeps to the host.
        model: The model's name.
        host: None for this process; empty when the model does not say.
        wire: ``none``, ``chat``, ``responses`` or ``unknown``.
        problem: Why it does not say, when it does not.
    """

    sender: Model
    model: str
    host: str | None
    wire: str
    problem: str = ""

    @classmethod
    def of(cls, model: Model, gate: Gate) -> Destination:
        """Find out where a model sends; ``gate`` refuses what would go elsewhere."""
        name = str(getattr(model, "model", None) or type(model).__name__)
        if type(model) is _IN_PROCESS:
            return cls(model, name, None, "none")
        if type(model) is OpenAIResponsesWSModel and known_client(model._client):
            return cls._over_websocket(model, name, gate)
        if type(model) not in _OVER_HTTP:
            problem = f"the model class {type(model).__name__} does not say where it sends to"
            return cls(model, name, "", "unknown", problem)
        wire = "chat" if type(model) is OpenAIChatCompletionsModel else "responses"
        client: Any = model._get_client()  # type: ignore[attr-defined]  # both classes have it
        if not known_client(client):
            problem = f"the client class {type(client).__name__} does not say where it sends to"
            return cls(model, name, "", wire, problem)

        async def admit(host: str) -> None:
            if not same_host(host, decided):
                raise await _elsewhere(gate, host, decided)

        twin: Any = copy.copy(model)
        twin._client = held(client, admit)
        decided = urlsplit(str(twin._client.base_url)).hostname or ""
        return cls(twin, name, decided, wire)

    @classmethod
    def _over_websocket(cls, model: OpenAIResponsesWSModel, name: str, gate: Gate) -> Destination:
        client = model._client
        host = urlsplit(str(client.websocket_base_url or client.base_url)).hostname or ""
        connect = type(model)._ensure_websocket_connection

        # The connection outlives the call, so the model cannot be copied; whoever uses it is asked about at each use.
        async def connected(ws_url: str, headers: Any, **options: Any) -> Any:
            run = current_run()
            asked, to = (run.gate if run is not None else gate), urlsplit(ws_url).hostname or ""
            await asked.ask(cls(model, name, to, "responses").use())
            if (header := rerouted(headers, None)) is not None:
                raise await _misled(asked, to, header)
            return await connect(model, ws_url, headers, **options)

        model._ensure_websocket_connection = connected  # type: ignore[method-assign]
        return cls(model, name, host, "responses")

    def target(self) -> Host | Address | None:
        """Return the host in its canonical form; None for this process.

        Raises:
            CanonicalizationError: The model does not say, or the host has no canonical form.
        """
        if self.problem:
            raise CanonicalizationError(self.problem)
        return None if self.host is None else canonical_host(self.host)

    def use(self) -> Question:
        """Return the question whether a conversation may go there."""

        def name(base: Base) -> Action:
            return actions.use_model(base, model=self.model, host=self.target())

        return Question("model use", name, self.model)

    def state(self, state: str) -> Question:
        """Return the question whether the server may keep, or bring in, a member of ``Sandbox::ServerState``."""

        def name(base: Base) -> Action:
            return actions.use_server_state(base, state=state, model=self.model, host=self.target())

        return Question("server state", name, f"{state} of {self.model}")


def known_client(client: object) -> bool:
    """Whether a client is of a class whose requests were read: the very type, not a subclass."""
    return type(client) in _CLIENTS


def held(client: AsyncOpenAI, admit: Callable[[str], Awaitable[None]]) -> AsyncOpenAI:
    """Return a copy of a client that asks about each request, and follows no redirect.

    Args:
        client: A client for which :func:`known_client` holds.
        admit: Is given the host of a request that is about to be sent; raises when it must not be.
    """
    twin: Any = type(client).copy(client)
    send = type(client)._send_request

    async def asking(request: Any, *, stream: bool, **options: Any) -> Any:
        await admit(request.url.host)
        if (header := rerouted(request.headers, request.url.netloc)) is not None:
            run = current_run()
            if run is None:
                raise PolicyDenied("useModel", "a request", reason=f"the header {header} would send it elsewhere")
            raise await _misled(run.gate, request.url.host, header)
        # A redirect would take the whole conversation to a host that nobody was asked about.
        return await send(twin, request, stream=stream, **{**options, "follow_redirects": False})

    twin._send_request = asking
    twin.with_options = lambda **changes: held(type(client).copy(twin, **changes), admit)
    return twin  # type: ignore[no-any-return]  # of the client's own type


def rerouted(headers: Any, authority: bytes | None) -> str | None:
    """Return the header that would have a proxy send a request elsewhere, if there is one.

    Args:
        headers: A mapping of header names to values.
        authority: Host and port of the request's URL, which ``Host`` has to repeat; None allows no ``Host`` at all.
    """
    for name, value in headers.items():
        lower = str(name).lower()
        if lower in _REROUTING or lower.startswith("x-forwarded-"):
            return lower
        if lower == "host" and (authority is None or str(value).encode() != authority):
            return lower
    return None


def same_host(one: str, other: str) -> bool:
    """Whether two spellings are of one host; what has no canonical form is no host's."""
    try:
        return canonical_host(one) == canonical_host(other)
    except CanonicalizationError:
        return False


async def _elsewhere(gate: Gate, host: str, decided: str) -> PolicyDenied:
    reason = f"the request would go to {host}, and it was decided for {decided}"
    return await gate.refuse(Impossible("useModel", f'ModelEndpoint::"{host}"', reason))


async def _misled(gate: Gate, host: str, header: str) -> PolicyDenied:
    reason = f"the header {header!r} would send the request elsewhere"
    return await gate.refuse(Impossible("useModel", f'ModelEndpoint::"{host}"', reason))
