"""What is asked of the policies, and how it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cedarbox.errors import BundleError
from cedarbox.guard.approvals import ToolCall
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base

__all__ = ["Impossible", "Question", "answer"]


@dataclass(frozen=True, slots=True)
class Question:
    """A request to be decided.

    Attributes:
        verb: The operation, such as ``file read``: name of the span, and of the record when the action cannot be named.
        name: Builds the typed action; raises :class:`CanonicalizationError` when it cannot.
        asked: What was asked for as it came, with secrets taken out; recorded when it cannot be named.
        call: The call of a tool that this is about to carry out, which a person can approve.
        offered: A tool is only offered, and asked about again when it is called.
        about: Further attributes of the span; names of ``telemetry.attributes``.
    """

    verb: str
    name: Callable[[Base], Action]
    asked: str = ""
    call: ToolCall | None = None
    offered: bool = False
    about: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Impossible:
    """A request that no policy can permit, because cedarbox could not hold the backend to the answer."""

    verb: str
    resource: str
    reason: str


def answer(question: Question, engine: PolicyEngine, principal: str, base: Base) -> tuple[Action, Decision]:
    """Name what is asked and decide it; a bundle that has expired meanwhile permits nothing.

    Args:
        question: The request.
        engine: Decides.
        principal: Id of the agent.
        base: What every request carries.

    Raises:
        CanonicalizationError: It cannot be named.
    """
    action = question.name(base)
    try:
        engine.bundle.check_current(base.at)
    except BundleError as error:
        return action, engine.refusal(error.message)
    return action, engine.decide(principal, action)
