"""Stopping and removing boxes, never half: a cancelled caller waits until BoxLite is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cedarbox.boxlite import api
from cedarbox.boxlite.waiting import settled

__all__ = ["REMOVE_SECONDS", "STOP_SECONDS", "remove", "remove_by_name", "stop"]

REMOVE_SECONDS: Final = 60.0
"""Seconds that removing a box may take."""

STOP_SECONDS: Final = 60.0
"""Seconds that stopping a box may take."""


async def stop(box: api.Box) -> None:
    """Stop a box.

    Args:
        box: A handle on it.

    Raises:
        BoxliteError: BoxLite failed; ``StoppedError`` when the handle is spent.
        TimeoutError: It took more than :data:`STOP_SECONDS`.
    """
    await settled(_within(STOP_SECONDS, box.stop))


async def remove(runtime: api.Runtime, box_id: str, *, force: bool) -> None:
    """Remove a box and its disk. Nothing happens when it is gone.

    Args:
        runtime: The BoxLite runtime.
        box_id: The whole id.
        force: Stop it first, and remove it although clones of it exist, which cannot boot then (measured on BoxLite
            0.10.8).

    Raises:
        BoxliteError: BoxLite failed; ``InvalidStateError`` when it is in use.
        TimeoutError: It took more than :data:`REMOVE_SECONDS`.
    """
    try:
        await settled(_within(REMOVE_SECONDS, lambda: runtime.remove(box_id, force=force)))
    except api.MissingError:
        return


async def remove_by_name(runtime: api.Runtime, name: str) -> None:
    """Remove the box of exactly this name, when there is one.

    Args:
        runtime: The BoxLite runtime.
        name: The whole name.

    Raises:
        BoxliteError: BoxLite failed.
        TimeoutError: It took more than :data:`REMOVE_SECONDS`.
    """
    async with asyncio.timeout(REMOVE_SECONDS):
        for info in await runtime.list_info():
            if info.name == name:
                await remove(runtime, info.id, force=True)
                return
        # A server lists its first hundred boxes only.
        box = await runtime.get(name)
        if box is not None and (await box.info()).name == name:
            await remove(runtime, box.id, force=True)


async def _within(seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(seconds):
        await call()
