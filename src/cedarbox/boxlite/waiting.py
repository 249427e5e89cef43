"""Finishing what must be finished, although the caller is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

__all__ = ["finish"]


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
    cancelled = False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    if not task.cancelled():
        task.exception()
    if cancelled:
        raise asyncio.CancelledError
