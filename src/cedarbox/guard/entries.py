"""What may stand in a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cedarbox.policy import Decision
from cedarbox.policy.actions import Action
from cedarbox.telemetry.redaction import digest, redact

__all__ = ["OPERATION", "Recording", "recordable", "shown", "why"]

_MAX_TEXT = 4096
"""Longest text of a record, in characters; of longer ones it holds the beginning, the length and the digest."""


@dataclass(frozen=True, slots=True)
class Recording:
    """How an operation is recorded beside its decision.

    Attributes:
        outcome: The event of what came of it.
        revoked: The event of a change of policy that ends it.
        waits: It is over when its outcome is on disk; else when that is on its way there.
    """

    outcome: str = "outcome"
    revoked: str = "operation.revoked"
    waits: bool = True


OPERATION: Final = Recording()
"""How all operations are recorded that have no events of their own."""


def why(decision: Decision) -> str:
    """Return why a decision is a denial, in one line for people and models."""
    return f"{decision.reason}. {decision.advice}" if decision.advice else decision.reason


def shown(action: Action, text: str | None = None) -> str:
    """Return what an action is about, or another text of it, as it is shown and recorded.

    The name of a model is whatever its user configured, and that has been a key.
    """
    told = str(action.resource) if text is None else text
    return redact(told) if action.resource.type == "ModelEndpoint" else told


def recordable(value: Any) -> Any:
    """Bring text that a model chose into a form that the ledger takes: valid Unicode, of bounded length.

    A record must never fail for the text in it, or whoever chooses the text could keep a denial out of the ledger.
    """
    if isinstance(value, str):
        text = value.encode("utf-8", "backslashreplace").decode()
        if len(text) <= _MAX_TEXT:
            return text
        return f"{text[:_MAX_TEXT]}… ({len(text)} characters, {digest(text.encode())})"
    if isinstance(value, tuple):
        return tuple(recordable(item) for item in value)
    if isinstance(value, dict):
        return {name: recordable(item) for name, item in value.items()}
    return value
