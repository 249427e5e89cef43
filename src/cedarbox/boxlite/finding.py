"""Finding boxes by exactly their id or name."""

from __future__ import annotations

import asyncio
from typing import Final

from cedarbox.boxlite import api

__all__ = ["REMOVE_SECONDS", "exactly", "remove_by_name"]

REMOVE_SECONDS: Final = 60.0
"""Seconds that removing a box may take."""


async def exactly(runtime: api.Runtime, box_id: str) -> api.Box | None:
    """Find a box by its id.

    BoxLite finds by prefix and an empty id matches all (measured on BoxLite 0.10.8), so the id is compared.

    Args:
        runtime: The BoxLite runtime.
        box_id: The whole id.

    Returns:
        A handle, or ``None``.

    Raises:
        BoxliteError: BoxLite failed.
    """
    if not box_id:
        return None
    try:
        box = await runtime.get(box_id)
    except api.MissingError:
        return None
    return box if box is not None and box.id == box_id else None


async def remove_by_name(runtime: api.Runtime, name: str) -> None:
    """Remove the box of exactly this name, when there is one.

    Raises:
        BoxliteError: BoxLite failed.
        TimeoutError: It took more than :data:`REMOVE_SECONDS`.
    """
    async with asyncio.timeout(REMOVE_SECONDS):
        for info in await runtime.list_info():
            if info.name == name:
                await runtime.remove(info.id, force=True)
                return
        # A server lists its first hundred boxes only.
        box = await runtime.get(name)
        if box is not None and (await box.info()).name == name:
            await runtime.remove(box.id, force=True)
