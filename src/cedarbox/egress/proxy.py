"""Plain HTTP: each request is read, decided, written anew, and its answer read and written anew.

Nothing of the guest's bytes is passed on as it came. What two servers could take for one request or for two is either
refused here or gone once h11 has written it again, so there is nothing to smuggle a request in.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Sequence

import h11

from cedarbox.egress.admission import Connect, Outcome
from cedarbox.egress.answers import Refusal, denial, response
from cedarbox.egress.desk import Account, Desk, RevokedError
from cedarbox.egress.dial import DialError, Server
from cedarbox.egress.exchange import Exchange, StaleError
from cedarbox.egress.guest import Guest, HeadError
from cedarbox.egress.limits import LimitError
from cedarbox.egress.requests import Asked, parse, read
from cedarbox.egress.secrets import SecretError, names_in, reveal
from cedarbox.egress.targets import Target, authority, spelled, without_user
from cedarbox.egress.tunnel import Tunnel
from cedarbox.errors import CanonicalizationError, PolicyDenied
from cedarbox.policy.canonical import Address, Host

__all__ = ["Proxy"]

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_MOST_SHOWN = 300


class Proxy:
    """The requests of one connection of the guest, one after the other.

    Args:
        desk: Of the sandbox.
        guest: Who asks.
        fixed: Where the tunnel leads that the guest speaks through; None when it speaks to the proxy.
        addresses: Of that target, as they were looked up for the tunnel.
    """

    def __init__(
        self, desk: Desk, guest: Guest, fixed: Target | None = None, addresses: Sequence[Address] | None = None
    ) -> None:
        self._desk, self._guest = desk, guest
        self._fixed, self._addresses = fixed, addresses
        self._server: Server | None = None
        self._reached: Target | None = None
        self._later = False

    async def run(self) -> None:
        """Serve requests until one side wants no more.

        Raises:
            StreamClosedError: The connection is closed.
        """
        idle = self._desk.limits.first_byte_s
        try:
            while await self._next(idle):
                idle = self._desk.limits.idle_s
                self._later = True
        except LimitError as error:
            await self._refuse("HTTP", error.message, status=429)
        finally:
            self._drop()

    async def _next(self, idle: float) -> bool:
        try:
            head = await self._guest.head(idle)
        except HeadError as error:
            return await self._refuse("HTTP", error.message)
        except LimitError as error:
            return await self._refuse("HTTP", error.message, status=408)
        if head is None:
            await self._guest.end()
            return False
        if self._later:
            # The first request was counted as the connection.
            self._desk.sandbox.spend()
        ours = h11.Connection(h11.SERVER, max_incomplete_event_size=self._desk.limits.head_bytes)
        # Without its query, which is content.
        line = re.split(rb"\r\n|\?", head, maxsplit=1)[0].decode("ascii", "backslashreplace")
        shown = without_user(line, _MOST_SHOWN)
        try:
            # 2. One reading of what is asked for, or none.
            event = read(ours, head)
            if event.method == b"CONNECT":
                target = self._tunnel(event)
            else:
                asked = parse(event, self._fixed)
        except (CanonicalizationError, HeadError) as error:
            return await self._refuse(shown, error.message)
        if event.method == b"CONNECT":
            await self._open(target)
            return False
        return await self._ask(asked, ours)

    def _tunnel(self, event: h11.Request) -> Target:
        if self._fixed is not None:
            raise HeadError("a tunnel cannot lead through a tunnel")
        target = authority(event.target.decode("ascii"))
        for name, value in event.headers:
            if name in {b"content-length", b"transfer-encoding"}:
                raise HeadError("CONNECT has no body")
            if name == b"host":
                host = authority(value.decode("ascii", "backslashreplace"), default_port=target[1])
                if host != target:
                    raise HeadError(f"CONNECT is to {spelled(target)}, and its header Host names {value[:253]!r}")
        return target

    async def _open(self, target: Target) -> None:
        self._drop()
        addresses = await Tunnel(self._desk, self._guest, target).open(_ESTABLISHED, response)
        if addresses is not None:
            await Proxy(self._desk, self._guest, target, addresses).run()

    async def _ask(self, asked: Asked, ours: h11.Connection) -> bool:
        if self._reached != asked.target or self._server is None or self._server.ended:
            self._drop()
        host, port = asked.target
        exchange = Exchange(self._desk, self._guest, ours, asked)
        refusal: Refusal | None
        try:
            addresses = await self._reachable(asked.target)
            exchange.arm(await self._secrets(asked))
            connects = (Connect(host, port, ip, "http", request=asked.request) for ip in addresses)
            # 6. Every request is decided, for the address that it goes to.
            await self._desk.through(connects, functools.partial(self._sent, exchange))
            refusal = exchange.refusal
        except PolicyDenied as error:
            refusal = denial(error)
        except RevokedError as error:
            refusal = denial(error.denial)
        except DialError as error:
            refusal = Refusal(error.status, error.code, f"cedarbox: {error.message}")
        if exchange.started and (refusal is not None or exchange.broken):
            # The guest has to see that the answer is not whole.
            self._guest.close()
        elif refusal is not None:
            await self._guest.end(response(refusal, body=asked.request.method != "HEAD"))
        elif not exchange.lasting:
            await self._guest.end()
        return exchange.lasting

    async def _reachable(self, target: Target) -> Sequence[Address]:
        if self._server is not None:
            return (self._server.ip,)
        if self._addresses is not None:
            addresses, self._addresses = self._addresses, None
            return addresses
        # 3. and 4. As for a tunnel: decided before it is looked up.
        await self._desk.admit(target)
        return await self._desk.addresses(target)

    async def _secrets(self, asked: Asked) -> dict[str, bytes]:
        host, port = asked.target
        values: dict[str, bytes] = {}
        shown = spelled(asked.target)
        refuse = self._desk.admission.refuse
        try:
            for name in names_in(asked.values):
                if not isinstance(host, Host):
                    raise await refuse(shown, f"the secret {name} goes to a host by its name, not to an address")
                await self._desk.admission.secret(name, host, port)
                values[name] = reveal(name, self._desk.secrets.get(name))
        except SecretError as error:
            raise await refuse(shown, error.message) from None
        return values

    async def _sent(self, exchange: Exchange, ip: Address, outcome: Outcome) -> None:
        account = Account(outcome)
        port = exchange.asked.target[1]
        try:
            if self._server is not None and self._server.ip == ip:
                outcome.set("address", str(ip))
                account.of(self._server)
                try:
                    account.reason = await exchange.run(self._server, used=True)
                except StaleError:
                    self._drop()
            if self._server is None:
                self._server, self._reached = await self._desk.reach(ip, port, outcome), exchange.asked.target
                account.of(self._server)
                account.reason = await exchange.run(self._server, used=False)
            if exchange.status is not None:
                outcome.set("status", exchange.status)
        except DialError as error:
            account.reason = error.message
            raise
        except asyncio.CancelledError:
            self._drop()
            if exchange.started:
                self._guest.close()
            raise
        finally:
            if not exchange.reusable:
                self._drop()
            account.close()

    def _drop(self) -> None:
        if self._server is not None:
            self._server.abort()
        self._server = self._reached = None

    async def _refuse(self, shown: str, reason: str, *, status: int = 400) -> bool:
        error = await self._desk.admission.refuse(shown, reason)
        await self._guest.end(response(denial(error, status=status)))
        return False
