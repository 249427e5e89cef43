"""The host's side of egress: every connection of the guest, from its first byte to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from cedarbox.egress.admission import Admission
from cedarbox.egress.answers import Refusal
from cedarbox.egress.desk import Desk
from cedarbox.egress.dial import Resolve, system_resolver
from cedarbox.egress.guest import Guest, HeadError
from cedarbox.egress.limits import EgressLimits, HostLimits, LimitError, Sandbox
from cedarbox.egress.proxy import Proxy
from cedarbox.egress.secrets import Secret
from cedarbox.egress.socks import GRANTED, SocksError, reply, request
from cedarbox.egress.streams import ByteStream, StreamClosedError
from cedarbox.egress.targets import Target
from cedarbox.egress.tunnel import Tunnel
from cedarbox.policy.canonical import Address, Host

__all__ = ["Broker"]

_SOCKS5 = 5
_NO_SECRETS: Mapping[str, Secret] = MappingProxyType({})

_logger = logging.getLogger(__name__)


class Broker:
    """Serves the connections of one sandbox: HTTP and SOCKS5, told apart by the first byte.

    Args:
        admission: Answers what may be done, and records it.
        limits: What the sandbox may use; None for the defaults.
        host: What all sandboxes of the process may use; give every broker the same. None for a limit of its own.
        secrets: Values that may be put into headers of plain HTTP, by the names in their placeholders
            ``<CEDARBOX_SECRET:name>``. In TLS, in ``Authorization: Basic`` and in a body no placeholder is seen.
        allow: The list that the sandbox was made with: whether a host or address is on it. None for no list.
        resolve: Looks up a name; None for the host's own resolver.
    """

    def __init__(
        self,
        admission: Admission,
        *,
        limits: EgressLimits | None = None,
        host: HostLimits | None = None,
        secrets: Mapping[str, Secret] = _NO_SECRETS,
        allow: Callable[[Host | Address], bool] | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._sandbox = Sandbox(limits or EgressLimits(), host or HostLimits())
        self._desk = Desk(admission, self._sandbox, secrets, allow, resolve or system_resolver())

    async def serve(self, stream: ByteStream) -> None:
        """Run one connection of the guest to its end. Whatever goes wrong ends this connection and no other.

        Raises:
            CancelledError: The caller wants it to end; both sides are closed.
        """
        guest = Guest(stream, self._sandbox.limits)
        try:
            self._sandbox.enter()
        except LimitError as error:
            guest.close()
            await self._say(error)
            return
        try:
            await self._serve(guest)
        except StreamClosedError:
            pass
        except Exception:
            # A ledger that cannot be written to is among these: what was not recorded does not happen.
            _logger.exception("a connection of the guest was given up")
        finally:
            self._sandbox.leave()
            guest.close()

    async def _say(self, error: LimitError) -> None:
        unsaid = self._sandbox.worth_saying()
        if unsaid is None:
            return
        reason = f"{error.message}, and {unsaid} times before" if unsaid else error.message
        try:
            await self._desk.admission.refuse("a new connection", reason)
        except Exception:
            _logger.exception("a refusal could not be recorded")

    async def _serve(self, guest: Guest) -> None:
        # 1. The first byte tells the protocol. Who opens a connection and says nothing has asked for nothing.
        if await guest.silent(self._sandbox.limits.first_byte_s):
            return
        if not guest.buffer and not await guest.more():
            return
        first = guest.buffer[0]
        if first == _SOCKS5:
            await self._socks(guest)
        elif first < 0x80 and chr(first).isalpha():
            await Proxy(self._desk, guest).run()
        else:
            await self._desk.admission.refuse("a connection", f"its first byte is {first}: neither HTTP nor SOCKS5")

    async def _socks(self, guest: Guest) -> None:
        limits = self._sandbox.limits
        target: Target
        try:
            async with asyncio.timeout(limits.first_byte_s):
                # 2. One reading of what is asked for, or none.
                target = await request(guest)
        except TimeoutError:
            await self._desk.admission.refuse("SOCKS5", f"limit: no request within {limits.first_byte_s:g} s")
            return
        except HeadError as error:
            await self._desk.admission.refuse("SOCKS5", error.message)
            return
        except SocksError as error:
            await self._desk.admission.refuse(error.target, error.message)
            await guest.end(error.answer)
            return
        addresses = await Tunnel(self._desk, guest, target).open(reply(GRANTED), _refused)
        if addresses is not None:
            await Proxy(self._desk, guest, target, addresses).run()


def _refused(refusal: Refusal) -> bytes:
    return reply(refusal.code)
