"""What the policies have let happen and that is not over yet: running operations, terminals, mounts, sandboxes.

A change of policy has to reach these too. Each is registered here *before* its decision is made, so there is no moment
at which a change could miss it: either it is registered when the change looks, or it is decided by the new policies.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cedarbox.errors import PolicyDenied
from cedarbox.guard.identity import Caller, RunIdentity, current_caller, current_run

if TYPE_CHECKING:
    from cedarbox.guard.question import Question

__all__ = ["Hold", "Holds", "RunningOperation"]

Cut = Callable[[PolicyDenied], Awaitable[None]]


class Hold:
    """Something that goes on by leave of the policies, until it is released or cut.

    Args:
        question: What was asked for it, to be asked again.
        session: Id of the sandbox session.
        event: The event that a cut is recorded as.
        cut: Ends it; called once, on the event loop that it was registered on. It must not ask the gate.
        certain: Whether a cut is sure to end it. Of the SDK's backends, neither unix-local nor Docker ends a command
            whose caller was cancelled (openai-agents 0.24.0).
    """

    def __init__(self, question: Question, session: str | None, event: str, cut: Cut, *, certain: bool = True) -> None:
        self.question, self.session, self.event, self.certain = question, session, event, certain
        # Asked again as the caller that it was asked for, whoever brings the new policies.
        self.caller: Caller = current_caller()
        self.run: RunIdentity | None = current_run()
        self.denial: PolicyDenied | None = None
        self._cut = cut
        self._loop = asyncio.get_running_loop()

    def cut(self, denial: PolicyDenied) -> Future[None]:
        """End it, from whatever thread; return the end.

        Doing it twice changes nothing.
        """
        first, self.denial = self.denial is None, self.denial or denial
        done: Future[None] = Future()
        if not first:
            done.set_result(None)
            return done
        try:
            return asyncio.run_coroutine_threadsafe(self._end(denial), self._loop)
        except RuntimeError:
            # The loop is closed, and with it whatever went on in it.
            done.set_result(None)
            return done

    async def _end(self, denial: PolicyDenied) -> None:
        await self._cut(denial)


@dataclass(slots=True)
class RunningOperation:
    """An operation between its decision and its end.

    Cutting it cancels the task that it runs in, in the manner of ``asyncio.timeout``: the cancellation stops at the
    operation, and becomes the denial there.
    """

    task: asyncio.Task[object]
    before: int
    hold: Hold | None = None
    cancelled: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def cut(self, denial: PolicyDenied) -> None:
        """Cancel it if it still runs, and wait for its end."""
        if not self.over.is_set():
            self.cancelled = True
            self.task.cancel(str(denial))
            await self.over.wait()

    def denial(self, error: BaseException) -> PolicyDenied | None:
        """Return why it was cut, when that is what this error means; None when it means anything else."""
        self.over.set()
        if not self.cancelled or self.hold is None:
            return None
        self.cancelled = False
        mine = self.task.uncancel() <= self.before
        return self.hold.denial if mine and isinstance(error, asyncio.CancelledError) else None

    async def finished(self) -> None:
        """Say that the act is over: a cut that comes later has nothing left to end."""
        self.over.set()
        if self.cancelled:
            self.cancelled = False
            ours = self.task.uncancel() <= self.before
            try:
                # A cancellation that was asked for and not delivered yet is delivered here.
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not ours:
                    raise


class Holds:
    """All that goes on. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._all: dict[int, Hold] = {}

    def add(self, hold: Hold) -> Hold:
        """Register something that goes on."""
        with self._lock:
            self._all[id(hold)] = hold
        return hold

    def release(self, hold: Hold) -> None:
        """Say that it is over."""
        with self._lock, suppress(KeyError):
            del self._all[id(hold)]

    def all(self) -> list[Hold]:
        """Return what goes on at this moment."""
        with self._lock:
            return list(self._all.values())

    @contextmanager
    def running(
        self, question: Question, session: str | None, *, certain: bool, event: str
    ) -> Iterator[RunningOperation]:
        """Register the operation that the block is; ``event`` and ``certain`` as in :class:`Hold`."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an operation needs a task to run in")
        operation = RunningOperation(task, task.cancelling())
        operation.hold = self.add(Hold(question, session, event, operation.cut, certain=certain))
        try:
            yield operation
        finally:
            operation.over.set()
            self.release(operation.hold)
