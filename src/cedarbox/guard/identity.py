"""Who is asking: the agent, the tool call and the run that an operation comes from.

The SDK carries none of this down to a sandbox session. The guard's wraps set these variables where a run starts and
where a tool is invoked; tasks started inside inherit them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cedarbox.errors import ConfigurationError
from cedarbox.telemetry import attributes
from cedarbox.telemetry.redaction import clip
from cedarbox.telemetry.scope import in_run

if TYPE_CHECKING:
    from cedarbox.guard.gate import Gate

__all__ = [
    "Caller",
    "RunIdentity",
    "applying_decided_manifest",
    "called_by",
    "current_caller",
    "current_gate",
    "current_run",
    "is_decided",
    "within",
]


@dataclass(frozen=True, slots=True)
class Caller:
    """The tool call that an operation comes from; all None outside a tool call."""

    agent: str | None = None
    tool: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """The guarded run that an operation belongs to.

    Attributes:
        id: 32 hexadecimal digits.
        gate: The gate that guards it.
        offered: What was permitted for the rest of the run, such as a tool of this side: bundle digest, kind, name.
        withheld: What was denied and left out of the requests, in the same form.
        chained: Each response of the model is to build on the one before, which the model server has to keep.
    """

    id: str
    gate: Gate
    offered: set[tuple[str, str, str]] = field(default_factory=set)
    withheld: set[tuple[str, str, str]] = field(default_factory=set)
    chained: bool = False


_CALLER: ContextVar[Caller] = ContextVar("cedarbox_caller", default=Caller())  # noqa: B039  # Caller is frozen
_RUN: ContextVar[RunIdentity | None] = ContextVar("cedarbox_run", default=None)
_DECIDED: ContextVar[bool] = ContextVar("cedarbox_decided", default=False)


def called_by(caller: Caller) -> dict[str, str]:
    """Return the attributes of a span that say from which agent and tool call it comes."""
    known = {
        attributes.GEN_AI_AGENT_NAME: caller.agent,
        attributes.GEN_AI_TOOL_NAME: caller.tool,
        attributes.GEN_AI_TOOL_CALL_ID: caller.call_id,
    }
    return {name: clip(value) for name, value in known.items() if value}


def current_caller() -> Caller:
    """Return the tool call in whose context this runs."""
    return _CALLER.get()


def current_run() -> RunIdentity | None:
    """Return the guarded run in whose context this runs, if any."""
    return _RUN.get()


def current_gate() -> Gate:
    """Return the gate of the guarded run in whose context this runs.

    Raises:
        ConfigurationError: There is none.
    """
    run = current_run()
    if run is None:
        raise ConfigurationError("a run was started around the guard", hint="start it with Runner.run")
    return run.gate


def is_decided() -> bool:
    """Whether this runs inside the application of a manifest whose entries have all been decided."""
    return _DECIDED.get()


@contextmanager
def within(*, caller: Caller | None = None, run: RunIdentity | None = None) -> Iterator[None]:
    """Set the tool call, the run, or both, for the duration of the block and of tasks started in it."""
    caller_token = _CALLER.set(caller) if caller is not None else None
    run_token = _RUN.set(run) if run is not None else None
    try:
        with in_run(run.id) if run is not None else nullcontext():
            yield
    finally:
        if run_token is not None:
            _RUN.reset(run_token)
        if caller_token is not None:
            _CALLER.reset(caller_token)


@contextmanager
def applying_decided_manifest() -> Iterator[None]:
    """Mark the block as the SDK applying a manifest that was decided entry by entry."""
    token = _DECIDED.set(True)
    try:
        yield
    finally:
        _DECIDED.reset(token)
