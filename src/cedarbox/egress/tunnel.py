"""A tunnel that the guest asked for, by CONNECT or SOCKS5: what it is for is read from its first bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

from cedarbox.egress.admission import Connect, Outcome
from cedarbox.egress.answers import Refusal, denial
from cedarbox.egress.desk import Account, Desk, RevokedError
from cedarbox.egress.dial import DialError
from cedarbox.egress.guest import Guest
from cedarbox.egress.limits import LimitError
from cedarbox.egress.pump import pump
from cedarbox.egress.targets import Target, spelled
from cedarbox.egress.tls import ACCESS_DENIED, INTERNAL_ERROR, Hello, HelloError, HelloReader, alert
from cedarbox.errors import PolicyDenied
from cedarbox.policy.canonical import Address

__all__ = ["Tunnel", "kind_of"]

Proto = Literal["tls", "http", "tcp"]
Named = Literal["named", "unnamed", "encrypted"]

_BY_PORT: Final[dict[int, tuple[Proto, Named | None]]] = {443: ("tls", "named")}
# The registry of HTTP methods of IANA, without PRI, which opens HTTP/2. What is not in it is TCP and needs a permit
# for that: SMTP and Redis begin with a word and a space too.
_REGISTERED: Final = (
    "ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY "
    "MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY "
    "REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL"
)
_METHODS: Final = tuple(f"{method} ".encode() for method in _REGISTERED.split())


def kind_of(first: bytes) -> Proto | None:
    """Return what the first bytes of a client begin; None when they could still begin something else."""
    if first[:2] == b"\x16\x03":
        return "tls"
    if any(first.startswith(method) for method in _METHODS):
        return "http"
    if first in {b"", b"\x16"} or any(method.startswith(first) for method in _METHODS):
        return None
    return "tcp"


class Tunnel:
    """One tunnel.

    Args:
        desk: Of the sandbox.
        guest: Who asked.
        target: What for.
    """

    def __init__(self, desk: Desk, guest: Guest, target: Target) -> None:
        self._desk, self._guest, self._target = desk, guest, target

    async def open(self, granted: bytes, refused: Callable[[Refusal], bytes]) -> Sequence[Address] | None:
        """Decide what can be decided by now, answer, and carry it all.

        Returns:
            The addresses, when the guest speaks HTTP: its requests are decided one by one, by somebody else.

        Args:
            granted: The answer that opens the tunnel.
            refused: Makes the answer that does not.
        """
        guest = self._guest
        try:
            # 3. The name is decided before anybody is asked for its address.
            await self._desk.admit(self._target)
            # 4. It is looked up once; what is decided below is what is dialled.
            addresses = await self._desk.addresses(self._target)
            foreseen = await self._foreseen(addresses)
        except PolicyDenied as error:
            await guest.end(refused(denial(error)))
            return None
        except DialError as error:
            await guest.end(refused(Refusal(error.status, error.code, f"cedarbox: {error.message}")))
            return None
        # 5. The guest does not speak before it is answered.
        await guest.write(granted)
        try:
            kind = await self._kind(foreseen)
            named = self._named(await self._hello()) if kind == "tls" else None
        except (HelloError, LimitError) as error:
            await self._desk.admission.refuse(spelled(self._target), error.message)
            await guest.end(alert(ACCESS_DENIED) if guest.buffer[:1] == b"\x16" else b"")
            return None
        if kind == "http":
            return addresses
        if kind is None:
            await guest.end()
        else:
            await self._carry(addresses, "tls" if named == "named" else "tcp", named)
        return None

    async def _foreseen(self, addresses: Sequence[Address]) -> frozenset[str]:
        host, port = self._target
        foreseen = frozenset[str]().union(*(self._desk.admission.foreseen(host, port, ip) for ip in addresses))
        if foreseen:
            return foreseen
        # HTTP is asked about request by request, and there is none yet: only TLS can be told from TCP by the port.
        proto, named = _BY_PORT.get(port, ("tcp", None))
        # Nothing is carried, whatever the answer: this puts the denial on record.
        await self._desk.through((Connect(host, port, ip, proto, named) for ip in addresses), self._nothing)
        raise await self._desk.admission.refuse(spelled(self._target), "the policies changed meanwhile; try again")

    async def _nothing(self, ip: Address, outcome: Outcome) -> None:
        outcome.set("address", str(ip))
        outcome.set("reason", "not foreseen")

    async def _kind(self, foreseen: frozenset[str]) -> Proto | None:
        guest, limits = self._guest, self._desk.limits
        # Where the server speaks first, the guest waits for it.
        if "tcp" in foreseen and await guest.silent(limits.silent_s):
            return "tcp"
        try:
            async with asyncio.timeout(limits.first_byte_s):
                while (kind := kind_of(bytes(guest.buffer[:32]))) is None:
                    if not await guest.more():
                        return "tcp" if guest.buffer or "tcp" in foreseen else None
        except TimeoutError:
            raise LimitError(f"limit: no first bytes within {limits.first_byte_s:g} s") from None
        return kind

    async def _hello(self) -> Hello:
        guest, reader, limits = self._guest, HelloReader(), self._desk.limits
        seen = 0
        try:
            async with asyncio.timeout(limits.first_byte_s):
                while True:
                    hello = reader.feed(bytes(guest.buffer[seen:]))
                    if hello is not None:
                        return hello
                    seen = len(guest.buffer)
                    if not await guest.more():
                        raise HelloError("the guest finished in the middle of a ClientHello")
        except TimeoutError:
            raise LimitError(f"limit: no whole ClientHello within {limits.first_byte_s:g} s") from None

    def _named(self, hello: Hello) -> Named:
        host = self._target[0]
        if not isinstance(host, Address) and hello.name is not None and hello.name.lower() != host.name:
            # Also beside an encrypted one, where nobody can say which of them counts.
            raise HelloError(f"the tunnel is to this host, and TLS names {hello.name[:253]!r}")
        if hello.encrypted:
            return "encrypted"
        return "unnamed" if isinstance(host, Address) or hello.name is None else "named"

    async def _carry(self, addresses: Sequence[Address], proto: Proto, named: Named | None) -> None:
        # 6. Every address is decided and recorded before it is dialled.
        host, port = self._target
        guest, secure = self._guest, named is not None
        connects = (Connect(host, port, ip, proto, named) for ip in addresses)
        try:
            await self._desk.through(connects, self._pumped)
        except PolicyDenied:
            await guest.end(alert(ACCESS_DENIED) if secure else b"")
        except DialError:
            await guest.end(alert(INTERNAL_ERROR) if secure else b"")
        except RevokedError:
            guest.close()
        else:
            await guest.end()

    async def _pumped(self, ip: Address, outcome: Outcome) -> None:
        server = await self._desk.reach(ip, self._target[1], outcome)
        account = Account(outcome)
        account.of(server)
        try:
            # 7. What was read ahead goes first; then both directions, until both are over.
            account.reason = await pump(self._guest, server, self._desk.limits.idle_s)
        finally:
            server.close()
            account.close()
