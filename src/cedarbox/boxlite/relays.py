"""The relay of a guest: started in it, served by the host, killed when it breaks its protocol.

A guest that has no network card reaches nothing but its own loopback. The relay listens there and hands every
connection to the host over its standard input and output, the only way out of such a guest (measured on BoxLite
0.10.8). What it sends is text of the guest's making: nothing of it is trusted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from cedarbox.boxlite import api
from cedarbox.boxlite.guestio import GuestRunner, Launched
from cedarbox.boxlite.marked import GuestFailure
from cedarbox.boxlite.waiting import finish
from cedarbox.egress.channel import Channel
from cedarbox.egress.frames import ChannelError
from cedarbox.egress.source import relay_source
from cedarbox.egress.streams import ByteStream
from cedarbox.errors import HostError

__all__ = ["PROXY_PORT", "GuestRelay", "Misbehaved", "Serve", "proxy_environment"]

Serve = Callable[[ByteStream], Awaitable[None]]
Misbehaved = Callable[[str], Awaitable[None]]

PROXY_PORT: Final = 3128
"""TCP port of the guest's loopback on which the relay listens: the one that proxies commonly have."""

_READY_SECONDS: Final = 60.0
_LAST_WORDS: Final = 2000

# $1 the program, $2 its port. Isolated (-I) and without site (-S): neither the environment nor the workspace can put
# code in front of it.
_START: Final = """
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
p=$(command -v python3) || { echo "the image has no python3" >&2; exit 127; }
exec "$p" -I -S -c "$1" "$2"
"""
_WAYS: Final = (
    'use an image with python3, or set egress_mode to "none" for no network, or to "nic" for a network card with '
    "BoxLite's own allow-list"
)


def proxy_environment(port: int = PROXY_PORT) -> tuple[tuple[str, str], ...]:
    """Return the environment by which programs of the guest find the relay.

    Programs read the names in capitals, in small letters, or both; curl reads ``http_proxy`` in small letters only.
    ``ALL_PROXY`` names the HTTP proxy too: as ``socks5h://`` it would stop programs that have no SOCKS library, httpx
    among them, although they would not need it. SOCKS5 is spoken on the same port.
    """
    proxy, direct = f"http://127.0.0.1:{port}", "localhost,127.0.0.1,::1"
    pairs = [(name, proxy) for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")] + [("NO_PROXY", direct)]
    return tuple((spelt, value) for name, value in pairs for spelt in (name, name.lower()))


class GuestRelay:
    """The relay of one started guest.

    Args:
        runner: Starts and kills processes in the guest.
        serve: Carries one connection of the guest from its first byte to its end.
        misbehaved: Is told when a relay that had begun broke its protocol, as one does that was tampered with.
    """

    def __init__(self, runner: GuestRunner, serve: Serve, misbehaved: Misbehaved | None = None) -> None:
        self._runner, self._serve, self._misbehaved = runner, serve, misbehaved
        self._task: asyncio.Task[None] | None = None
        self._words = ""
        self._begun = False

    def of(self, runner: GuestRunner) -> bool:
        """Whether this is the relay of this runner's guest, and still serves."""
        return self._runner is runner and self._task is not None and not self._task.done()

    async def start(self) -> None:
        """Start it and wait until it listens.

        When this fails or is cancelled, it is killed before this returns.

        Raises:
            HostError: It does not start: the message says why, and what else there is.
        """
        try:
            launched = await self._runner.hold(_START, relay_source(), str(PROXY_PORT))
        except api.BoxliteError as error:
            raise HostError(f"the relay of the guest did not start: {error}", hint=_WAYS) from error
        stdin = launched.execution.stdin()
        channel = Channel(stdin.send_input, self._serve)
        self._task = asyncio.create_task(self._run(launched, channel), name="cedarbox-relay")
        self._runner.watch(self._task)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await channel.ready()
            self._begun = True
        except (ChannelError, TimeoutError) as error:
            await self.stop()
            reason = self._words.strip().splitlines()
            said = reason[-1] if reason else str(error) or f"it did not listen within {_READY_SECONDS:.0f} s"
            raise HostError(f"the relay of the guest did not start: {said[:200]}", hint=_WAYS) from error
        except BaseException:
            await finish(self.stop())
            raise

    async def stop(self) -> None:
        """End it, with every connection that it carries."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, launched: Launched, channel: Channel) -> None:
        words = asyncio.create_task(self._listen(launched))
        guest: asyncio.Task[None] = asyncio.create_task(self._runner.end_of_guest())
        carrying = asyncio.create_task(channel.run(launched.execution.stdout()))
        alive = True
        try:
            await asyncio.wait((carrying, guest), return_when=asyncio.FIRST_COMPLETED)
            alive = not guest.done()
            if carrying.done():
                # Its last words come by another stream.
                await asyncio.wait((words,), timeout=1.0)
                carrying.result()
        except ChannelError as error:
            if self._misbehaved is not None and self._begun:
                await self._misbehaved(error.message)
        except (GuestFailure, api.BoxliteError):
            # The guest ended, and its connections with it.
            pass
        finally:
            for each in (words, guest, carrying):
                each.cancel()
            await asyncio.gather(words, guest, carrying, return_exceptions=True)
            if alive:
                await finish(self._kill(launched))

    async def _listen(self, launched: Launched) -> None:
        async for piece in launched.execution.stderr():
            self._words = (self._words + piece)[-_LAST_WORDS:]

    async def _kill(self, launched: Launched) -> None:
        try:
            await self._runner.kill((launched.label,), (), None)
        except (GuestFailure, api.BoxliteError):
            # A guest that does not answer is gone, and the relay with it.
            return
