"""Processes that a sandbox goes on running after the call that started them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from opentelemetry.trace import SpanContext

from cedarbox.errors import PolicyDenied
from cedarbox.guard.backend import EndsProcesses
from cedarbox.guard.gate import Gate
from cedarbox.guard.holds import Hold
from cedarbox.guard.question import Question

__all__ = ["HeldProcesses"]


class HeldProcesses:
    """The processes of one session, each of which goes on for as long as the policies permit what started it.

    Args:
        gate: The gate of the session.
        inner: The backend's session.
    """

    def __init__(self, gate: Gate, inner: BaseSandboxSession) -> None:
        self._gate, self._inner = gate, inner
        self._holds: dict[int, Hold] = {}
        self._cut: dict[int, PolicyDenied] = {}
        self._spans: dict[int, SpanContext] = {}
        self._calls: list[SpanContext] = []

    @contextmanager
    def running(self, span: SpanContext) -> Iterator[None]:
        """Say that the command of this span runs for as long as the block does."""
        self._calls.append(span)
        try:
            yield
        finally:
            self._calls.remove(span)

    def span(self) -> SpanContext | None:
        """Return the span of the command that runs, or goes on; None when there is none, or more than one."""
        known = {span.span_id: span for span in (*self._calls, *self._spans.values())}
        return next(iter(known.values())) if len(known) == 1 else None

    def started(self, process_id: int, question: Question, session: str, span: SpanContext | None = None) -> None:
        """Say that a process goes on.

        Args:
            process_id: The number that the backend gave it.
            question: What was asked for it.
            session: Id of the sandbox session.
            span: Ids of the span of the call that started it.
        """

        async def cut(denial: PolicyDenied) -> None:
            # From here on nobody is told what it writes, however long the guest takes to end it.
            self._cut[process_id] = denial
            self._forget(process_id)
            if isinstance(self._inner, EndsProcesses):
                await self._inner.end_process(process_id)
            else:
                await self.start_was_cut()

        self._cut.pop(process_id, None)
        self._forget(process_id)
        if span is not None:
            self._spans[process_id] = span
        self._holds[process_id] = self._gate.hold(question, session=session, event="terminal.revoked", cut=cut)

    async def start_was_cut(self) -> None:
        """Make sure that nothing is left of a start that was cut before the backend gave it a number."""
        # A backend that can end one process ends what a cancelled start began. Of another it is not known, and it can
        # only end all of them.
        if not isinstance(self._inner, EndsProcesses):
            await self._inner.pty_terminate_all()

    def ended(self, process_id: int) -> None:
        """Say that a process is over."""
        self._forget(process_id)

    def all_ended(self) -> None:
        """Say that all of them are over."""
        for process_id in tuple(self._holds):
            self._forget(process_id)

    def question(self, process_id: int) -> Question | None:
        """Return what was asked for a process that goes on; None when none of this number does."""
        hold = self._holds.get(process_id)
        return None if hold is None else hold.question

    def denial(self, process_id: int) -> PolicyDenied | None:
        """Return why a process was cut, if it was."""
        return self._cut.get(process_id)

    def _forget(self, process_id: int) -> None:
        self._spans.pop(process_id, None)
        if (hold := self._holds.pop(process_id, None)) is not None:
            self._gate.holds.release(hold)
