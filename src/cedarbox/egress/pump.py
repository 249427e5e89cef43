"""Two directions at once, until both are over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from cedarbox.egress.dial import Server
from cedarbox.egress.guest import Guest
from cedarbox.egress.limits import IdleError, LimitError, Meter
from cedarbox.egress.secrets import Mask
from cedarbox.egress.streams import StreamClosedError

__all__ = ["both", "pump"]


async def both(
    up: Coroutine[Any, Any, None], down: Coroutine[Any, Any, None], meter: Meter, idle: float, *, down_ends: bool
) -> None:
    """Run both directions; however it ends, neither runs on.

    Args:
        up: Guest to server.
        down: Server to guest.
        meter: Knows when something last went through.
        idle: Seconds without anything, in either direction.
        down_ends: The end of ``down`` is the end of both.

    Raises:
        IdleError: Nothing went through for too long.
        Exception: What ``up`` or ``down`` raised.
    """
    loop = asyncio.get_running_loop()
    meter.touch()
    tasks = [asyncio.create_task(up), asyncio.create_task(down)]
    waiting = set(tasks)
    try:
        while waiting:
            left = meter.touched + idle - loop.time()
            if left <= 0:
                raise IdleError(f"nothing was sent for {idle:g} s")
            done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if down_ends and tasks[1] in done:
                return
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def pump(guest: Guest, server: Server, idle: float, mask: Mask | None = None) -> str:
    """Carry bytes both ways until both sides have finished, and return why it ended.

    After the end of both sides nothing is closed: what is on its way arrives. After any other end both are, at once.

    Args:
        guest: One end.
        server: The other.
        idle: Seconds without a byte in either direction.
        mask: What the guest must not see.
    """
    first: list[str] = []

    async def up() -> None:
        while data := await guest.read():
            try:
                await server.write(data)
            except OSError:
                # What the server said before it went away still has to reach the guest.
                if not first:
                    raise
                return
        first.append("guest closed")
        server.finish()

    async def down() -> None:
        while data := await server.read():
            await guest.write(mask.feed(data) if mask else data)
            server.meter.touch()
        if mask:
            await guest.write(mask.end())
        first.append("server closed")
        await guest.stream.finish()

    try:
        await both(up(), down(), server.meter, idle, down_ends=False)
    except asyncio.CancelledError:
        server.abort()
        guest.close()
        raise
    except StreamClosedError:
        reason = "guest closed"
    except IdleError:
        reason = "idle"
    except LimitError as error:
        reason = error.message
    except OSError:
        reason = "server broke off"
    else:
        return first[0]
    server.abort()
    guest.close()
    return reason
