"""One admitted request in plain HTTP and its answer, both written anew."""

from __future__ import annotations

import h11

from cedarbox.egress.answers import Refusal
from cedarbox.egress.desk import Desk
from cedarbox.egress.dial import Server
from cedarbox.egress.guest import Guest, HeadError
from cedarbox.egress.limits import IdleError, LimitError
from cedarbox.egress.pump import both, pump
from cedarbox.egress.requests import Asked, answer_headers
from cedarbox.egress.secrets import Mask
from cedarbox.egress.streams import StreamClosedError
from cedarbox.errors import CedarboxError

__all__ = ["Exchange", "StaleError"]


class StaleError(CedarboxError):
    """A connection that was used before had ended; nothing was answered, and the request can be sent again."""


class _ServerError(CedarboxError):
    """The server broke the protocol, or off."""


class Exchange:
    """Sends one request and brings its answer.

    Args:
        desk: Of the sandbox.
        guest: Who asked.
        ours: The guest's side of HTTP, with the request read and nothing after it.
        asked: The request.

    Attributes:
        asked: The request.
        started: Something of the answer was sent to the guest.
        broken: The answer did not come whole.
        reusable: The server can be sent another request.
        lasting: The guest can send another request.
        status: Of the answer.
        refusal: What to tell the guest instead of an answer.
    """

    def __init__(self, desk: Desk, guest: Guest, ours: h11.Connection, asked: Asked) -> None:
        self._desk, self._guest, self._ours = desk, guest, ours
        self.asked = asked
        self.started = self.broken = self.reusable = self.lasting = False
        self.status: int | None = None
        self.refusal: Refusal | None = None
        self._secrets: dict[str, bytes] = {}
        self._mask: Mask | None = None
        self._switched = self._heard = False
        if not asked.body:
            ours.next_event()

    def arm(self, secrets: dict[str, bytes]) -> None:
        """Take the secrets that the request asks for; call it once, before :meth:`run`."""
        self._secrets = secrets
        given = self._desk.given.get(self.asked.target, set()) | set(secrets.values())
        self._mask = Mask(sorted(given)) if given else None

    async def run(self, server: Server, *, used: bool) -> str:
        """Carry the request and its answer, and return why it ended.

        Args:
            server: Where to.
            used: It has answered a request before.

        Raises:
            StaleError: It had ended.
        """
        peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._desk.limits.head_bytes)
        self._heard = False
        if self._secrets:
            self._desk.given.setdefault(self.asked.target, set()).update(self._secrets.values())
        idle = self._desk.limits.idle_s
        try:
            await both(self._up(server, peer), self._down(server, peer), server.meter, idle, down_ends=True)
            if self._switched:
                return await self._switch(server, peer)
        except (CedarboxError, OSError, h11.ProtocolError) as error:
            if used and not self._heard and self.asked.repeatable and not isinstance(error, CedarboxError):
                raise StaleError("the server had closed its connection") from None
            return self._failed(error)
        self.reusable = (peer.our_state, peer.their_state) == (h11.DONE, h11.DONE) and not peer.trailing_data[0]
        self.lasting = self._ours.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}
        return "answered"

    def _failed(self, error: Exception) -> str:
        self.broken = True
        match error:
            case StreamClosedError():
                return "guest closed"
            case IdleError():
                status, reason = 504, "idle"
            case LimitError():
                status, reason = 429, error.message
            case HeadError():
                status, reason = 400, f"guest broke the protocol: {error.message}"
            case _ServerError():
                status, reason = 502, error.message
            case _:
                status, reason = 502, "server broke off before its answer was whole"
        self.refusal = Refusal(status, 1, f"cedarbox: {reason}")
        return reason

    async def _up(self, server: Server, peer: h11.Connection) -> None:
        try:
            await server.write(peer.send(self.asked.forwarded(self._secrets, guarded=self._mask is not None)))
            if self.asked.body:
                await self._body(server, peer)
            else:
                peer.send(h11.EndOfMessage())
        except OSError:
            # A server may refuse a body and go: its answer is read all the same, and its lack is noticed there.
            return
        await self._guest.watch()

    async def _body(self, server: Server, peer: h11.Connection) -> None:
        while True:
            try:
                event = self._ours.next_event()
            except h11.RemoteProtocolError as error:
                raise HeadError(f"the body of the request cannot be read: {error}") from None
            if event is h11.NEED_DATA:
                self._ours.receive_data(await self._guest.read())
            elif isinstance(event, h11.Data):
                await server.write(peer.send(h11.Data(data=bytes(event.data))))
            else:
                # Trailers are not passed on.
                await server.write(peer.send(h11.EndOfMessage()))
                self._guest.buffer[:0] = self._ours.trailing_data[0]
                return

    async def _down(self, server: Server, peer: h11.Connection) -> None:
        while True:
            event = peer.next_event()
            if event is h11.NEED_DATA:
                data = await server.read()
                self._heard = self._heard or bool(data)
                peer.receive_data(data)
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    self._switching(event)
                    await self._tell(h11.InformationalResponse(status_code=101, headers=self._switch_headers(event)))
                    return
                if self.asked.event.http_version == b"1.1":
                    await self._tell(
                        h11.InformationalResponse(
                            status_code=event.status_code,
                            headers=self._masked(event),
                            reason=self._hidden(event.reason),
                        )
                    )
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                await self._tell(
                    h11.Response(
                        status_code=event.status_code, headers=self._masked(event), reason=self._hidden(event.reason)
                    )
                )
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                await self._tell(h11.Data(data=self._mask.feed(data) if self._mask else data))
                server.meter.touch()
            elif isinstance(event, h11.EndOfMessage):
                if self._mask and (rest := self._mask.end()):
                    await self._tell(h11.Data(data=rest))
                await self._tell(h11.EndOfMessage())
                return
            else:
                raise ConnectionResetError

    async def _tell(self, event: h11.Event) -> None:
        data = self._ours.send(event)
        if data:
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                self.started = True
            await self._guest.write(data)

    def _hidden(self, text: bytes) -> bytes:
        return self._mask.whole(text) if self._mask else text

    def _masked(self, event: h11.Response | h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
        headers = answer_headers(event)
        if self._mask is None:
            return headers
        if any(raw.lower() == b"content-encoding" and value.lower() != b"identity" for raw, value in headers):
            raise _ServerError("the server encoded an answer in which a secret could stand")
        return [(self._mask.whole(raw), self._mask.whole(value)) for raw, value in headers]

    def _switching(self, event: h11.InformationalResponse) -> None:
        to = [value.lower() for name, value in event.headers if name == b"upgrade"]
        if self.asked.request.upgrade is None or to != [self.asked.request.upgrade.encode()]:
            raise _ServerError("the server switched to a protocol that was not asked for")
        self.status = 101
        self._switched = True

    def _switch_headers(self, event: h11.InformationalResponse) -> list[tuple[bytes, bytes]]:
        upgrade = (self.asked.request.upgrade or "").encode()
        return [(b"Connection", b"Upgrade"), (b"Upgrade", upgrade), *self._masked(event)]

    async def _switch(self, server: Server, peer: h11.Connection) -> str:
        early = peer.trailing_data[0]
        await self._guest.write(self._mask.feed(early) if self._mask else early)
        return await pump(self._guest, server, self._desk.limits.idle_s, self._mask)
