"""How long a guarded sandbox may exist."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from cedarbox.guard.question import Impossible

__all__ = ["Lifetime"]


class Lifetime:
    """A time after which a sandbox is ended.

    It counts from when the sandbox was made or taken up again, on the monotonic clock of this process; nothing of it
    is stored. So taking a sandbox up again gives it a new lifetime, and that is a decision of its own. A host that is
    suspended does not count on Linux.

    Args:
        seconds: How long.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._timer: asyncio.Task[None] | None = None

    @property
    def remaining(self) -> float:
        """Seconds that are left; 0 when it is over."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def over(self) -> bool:
        """Whether nothing may be done any more."""
        return self.remaining <= 0.0

    def refusal(self, verb: str, session: str) -> Impossible:
        """Return the denial of an operation that came too late."""
        return Impossible(verb, f'Instance::"{session}"', f"the lifetime of the sandbox, {self.seconds} s, is over")

    def start(self, end: Callable[[], Awaitable[object]]) -> None:
        """Start the timer in the running loop.

        Args:
            end: Ends the sandbox and records that it does; what it raises is in that record.
        """
        self._timer = asyncio.create_task(self._run(end), name="cedarbox-lifetime")

    def cancel(self) -> None:
        """Stop the timer: the sandbox was ended by its owner."""
        timer, self._timer = self._timer, None
        # The loop of a timer may be closed; a closed loop runs no timer.
        if timer is not None and not timer.done() and not timer.get_loop().is_closed() and timer is not _current():
            timer.cancel()

    async def _run(self, end: Callable[[], Awaitable[object]]) -> None:
        await asyncio.sleep(self.remaining)
        # The clock of the loop may be ahead by a little.
        self._deadline = min(self._deadline, time.monotonic())
        with suppress(Exception):
            await end()


def _current() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
