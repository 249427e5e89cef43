"""Finishing what must be finished, although the caller is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["finish", "settled"]

_T = TypeVar("_T")


async def finish(work: Coroutine[Any, Any, object]) -> None:
    """Run clean-up to its end.

    A cancellation that arrives meanwhile is kept and raised afterwards. An error of the clean-up itself is dropped:
    the caller is already raising the error that matters. The work must bound its own time.

    Args:
        work: The clean-up.

    Raises:
        asyncio.CancelledError: The caller was cancelled while it waited.
    """
    task = asyncio.ensure_future(work)
    cancelled = await _over(task)
    if not task.cancelled():
        task.exception()
    if cancelled:
        raise asyncio.CancelledError


async def settled(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a step to its end that must not be left half done.

    BoxLite gives up in the middle of a stop or a removal when its caller is cancelled, and the box can neither be used
    nor be started then (seen on BoxLite 0.10.8). The work must bound its own time.

    Args:
        work: The step.

    Returns:
        What it returned.

    Raises:
        asyncio.CancelledError: The caller was cancelled while it waited. The step is over all the same, well or badly.
        Exception: What the step raised.
    """
    task = asyncio.ensure_future(work)
    if await _over(task):
        if not task.cancelled():
            task.exception()
        raise asyncio.CancelledError
    return task.result()


async def _over(task: asyncio.Task[Any]) -> bool:
    """Wait for the end of a task; return whether the caller was cancelled meanwhile."""
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    return cancelled
