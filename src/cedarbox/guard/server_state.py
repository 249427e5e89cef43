"""What a model server keeps of a conversation, or brings to it from its own store: decided before it is used.

The Responses API keeps every response unless it is told not to. So where keeping is denied and nothing was said about
it, the server is told not to; who asks for it in so many words is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from agents import SQLiteSession
from agents.memory import OpenAIConversationsSession, OpenAIResponsesCompactionSession
from agents.model_settings import ModelSettings
from agents.models.chatcmpl_helpers import ChatCmplHelpers

from cedarbox.errors import ConfigurationError, PolicyDenied
from cedarbox.guard.endpoints import Destination, held, known_client
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_run
from cedarbox.guard.once import ask_once
from cedarbox.guard.question import Question
from cedarbox.guard.requests import refers_to_stored
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import canonical_host
from cedarbox.policy.entities import Base

__all__ = ["decided_settings", "hold_session"]

_KEPT: Final = "stored_response"
_CONVERSATIONS: Final = "conversations"
"""What the endpoint of the conversations API is called as a model: it serves none."""

# Conversations in a file or the memory of this process. By name, so that what they need is not imported for it.
_LOCAL_SESSIONS = frozenset(
    {
        f"{SQLiteSession.__module__}.SQLiteSession",
        "agents.extensions.memory.advanced_sqlite_session.AdvancedSQLiteSession",
        "agents.extensions.memory.async_sqlite_session.AsyncSQLiteSession",
    }
)
_WRAPPING_SESSION = "agents.extensions.memory.encrypt_session.EncryptedSession"


async def decided_settings(
    gate: Gate, to: Destination, settings: ModelSettings, items: object, options: Mapping[str, Any]
) -> ModelSettings:
    """Decide what the server would keep or bring in; return the settings with which to ask it.

    Args:
        gate: Decides and records.
        to: The model.
        settings: What the SDK resolved.
        items: The input of the request.
        options: The keyword arguments of the SDK's call: ``prompt``, ``conversation_id``, ``previous_response_id``.

    Raises:
        PolicyDenied: Something that was asked for explicitly may not be.
    """
    run = current_run()
    chained = run is not None and run.chained
    wanted = {
        "prompt_template": options.get("prompt") is not None,
        "conversation": options.get("conversation_id") is not None,
        "previous_response": options.get("previous_response_id") is not None or chained or refers_to_stored(items),
    }
    for state in (state for state, is_wanted in wanted.items() if is_wanted):
        await gate.ask(to.state(state))
    if to.wire == "none":
        return settings
    # An extended cache outlives the request, and so does what a chain of responses builds on.
    if settings.store or settings.prompt_cache_retention == "24h" or chained:
        await gate.ask(to.state(_KEPT))
    if not _keeps(to, settings) or settings.store:
        return settings
    name = f"{to.model} at {to.host}"
    key = (gate.engine.bundle.digest, _KEPT, name)
    if run is None or key not in run.withheld:
        try:
            await ask_once(gate, _KEPT, name, to.state(_KEPT))
        except PolicyDenied:
            if run is not None:
                run.withheld.add(key)
        else:
            return settings
    return replace(settings, store=False)


def _keeps(to: Destination, settings: ModelSettings) -> bool:
    if to.wire == "chat":
        client = to.sender._client  # type: ignore[attr-defined]  # that wire is told by the class
        return bool(ChatCmplHelpers.get_store_param(client, settings))
    return settings.store is not False


def hold_session(session: object, gate: Gate) -> None:
    """Have a session of the SDK ask before it sends a conversation to a vendor.

    The client of such a session is replaced by a copy that asks about each request when it is about to go out.

    Args:
        session: What was given to the run as ``session``.
        gate: The gate of the run, for requests outside it, such as those of its last moments.

    Raises:
        ConfigurationError: It is of a class that does not say where it keeps the conversation.
    """
    kind = f"{type(session).__module__}.{type(session).__qualname__}"
    if kind in _LOCAL_SESSIONS:
        return
    if kind == _WRAPPING_SESSION:
        hold_session(getattr(session, "underlying_session", None), gate)
        return
    if type(session) is OpenAIConversationsSession and known_client(session._openai_client):
        session._openai_client = held(session._openai_client, _asking(gate, _conversation))
        return
    if type(session) is OpenAIResponsesCompactionSession and known_client(session.client):
        hold_session(session.underlying_session, gate)
        session._client = held(session.client, _asking(gate, lambda host: _compacting(session, host)))
        return
    hint = "use a SQLiteSession, or OpenAIConversationsSession where the policies permit the state `conversation`"
    raise ConfigurationError(
        f"the session class {type(session).__name__} does not say where it keeps the conversation", hint=hint
    )


def _asking(gate: Gate, questions: Callable[[str], list[Question]]) -> Callable[[str], Awaitable[None]]:
    async def admit(host: str) -> None:
        run = current_run()
        await (run.gate if run is not None else gate).ask_all(questions(host))

    return admit


def _conversation(host: str) -> list[Question]:
    return [_state("conversation", _CONVERSATIONS, host)]


def _compacting(session: OpenAIResponsesCompactionSession, host: str) -> list[Question]:
    def use(base: Base) -> Action:
        return actions.use_model(base, model=str(session.model), host=canonical_host(host))

    asked = [
        Question("model use", use, str(session.model)),
        Question("capability use", lambda base: actions.use_capability(base, capability="compaction"), "compaction"),
    ]
    # Every other mode lets the server take the conversation from the responses that it kept.
    return asked if session.compaction_mode == "input" else [*asked, _state("previous_response", session.model, host)]


def _state(state: str, model: object, host: str) -> Question:
    def name(base: Base) -> Action:
        return actions.use_server_state(base, state=state, model=str(model), host=canonical_host(host))

    return Question("server state", name, state)
