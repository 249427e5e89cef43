"""A guarded session whose guest hands its connections over: the SDK's real backend, and the least that can carry."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshotSpec
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.egress import CONNECTED, Admission, ByteStream, Connect, HttpRequest
from cedarbox.errors import PolicyDenied
from cedarbox.guard.egress import Serve
from cedarbox.guard.session import GuardedSession
from cedarbox.policy.canonical import Address, Host, canonical_host

__all__ = ["Carried", "Carrying", "address", "connect_to"]


def address(text: str) -> Address:
    return Address(ipaddress.ip_address(text))


def connect_to(
    target: str,
    *,
    port: int = 443,
    ip: str = "10.0.0.5",
    proto: Literal["tls", "tcp", "http"] = "tls",
    hello: Literal["named", "unnamed", "encrypted"] | None = None,
    request: HttpRequest | None = None,
) -> Connect:
    host = canonical_host(target)
    known = host if isinstance(host, Address) else address(ip)
    return Connect(host, port, known, proto, "named" if proto == "tls" else hello, request)


class _Stream:
    """One end of a real pair of sockets."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def read(self, limit: int = 65536) -> bytes:
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def finish(self) -> None:
        self.writer.write_eof()

    def close(self) -> None:
        self.writer.close()


class Carrying(UnixLocalSandboxClient):
    async def create(self, **given: Any) -> SandboxSession:
        session = await super().create(**given)
        session._inner.serve = None  # type: ignore[attr-defined]  # what makes it one that carries
        return session


class Guest:
    """A connection as the guest has it."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, task: asyncio.Task[None], other: _Stream
    ) -> None:
        self.task, self._reader, self._writer, self._other = task, reader, writer, other

    async def told(self) -> str:
        """Return the next line; empty when the connection is closed."""
        with suppress(ConnectionError):
            return (await self._reader.readline()).decode().strip()
        return ""

    async def close(self) -> None:
        """Hang up and wait until nothing is carried any more."""
        self._writer.close()
        await asyncio.wait({self.task})
        for writer in (self._writer, self._other.writer):
            with suppress(ConnectionError):
                await writer.wait_closed()


class Carried:
    """A guarded client, one session of it, and what was looked up for the guest."""

    def __init__(self, directory: Path, policies: str = PERMIT_ALL, **given: Any) -> None:
        self.guarded = Guarded(directory, policies, inner=Carrying(), **given)
        self.guarded.client.carrier = self._carrier
        self.looked_up: list[str] = []
        self._wanted: list[Connect] = []
        self._guests: list[Guest] = []

    @asynccontextmanager
    async def session(self) -> AsyncIterator[GuardedSession]:
        session = await self.guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
        assert isinstance(session, GuardedSession)
        try:
            async with session:
                yield session
        finally:
            await self.guarded.client.delete(session)
            for guest in self._guests:
                await guest.close()

    async def guest(self, session: GuardedSession, wanted: Connect) -> Guest:
        """Connect as a program of the guest does."""
        ours, theirs = socket.socketpair()
        stream = _Stream(*await asyncio.open_connection(sock=theirs))
        serve: Serve | None = session._inner.serve  # type: ignore[attr-defined]  # see Carrying
        assert serve is not None
        self._wanted.append(wanted)
        task = asyncio.create_task(_serving(serve, stream))
        guest = Guest(*await asyncio.open_connection(sock=ours), task, stream)
        self._guests.append(guest)
        return guest

    def admission(self, session: GuardedSession) -> Admission:
        assert session._carriage is not None
        return session._carriage._admission

    def _carrier(self, admission: Admission, state: SandboxSessionState) -> Serve:
        assert state.session_id

        async def serve(stream: ByteStream) -> None:
            wanted = self._wanted.pop(0)
            try:
                await admission.name(wanted.target, wanted.port)
                if isinstance(wanted.target, Host):
                    self.looked_up.append(str(wanted.target))
                async with admission.connection(wanted) as outcome:
                    outcome.set(CONNECTED, 3)
                    await stream.write(b"open\n")
                    received = 0
                    while data := await stream.read():
                        received += len(data)
                    outcome.set("bytes_out", received)
            except PolicyDenied as denial:
                await stream.write(f"{denial}\n".encode())

        return serve


async def _serving(serve: Serve, stream: ByteStream) -> None:
    await serve(stream)
