"""A broker behind a listening socket, real servers behind it, and an admission that answers from a few rules."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cedarbox.egress.admission import Connect
from cedarbox.egress.broker import Broker
from cedarbox.egress.limits import EgressLimits
from cedarbox.egress.streams import StreamClosedError
from cedarbox.errors import PolicyDenied
from cedarbox.policy.canonical import IP, Address, Host

__all__ = [
    "MIRROR",
    "OTHER",
    "Facts",
    "Handler",
    "Kept",
    "Peers",
    "Rules",
    "Site",
    "break_off",
    "certificate",
    "client_hello",
    "raw_server",
    "talk",
]

MIRROR = "mirror.corp.example"
OTHER = "other.corp.example"


class Facts(dict[str, str | int | bool]):
    """The outcome of one admitted connection."""

    def set(self, name: str, value: str | int | bool) -> None:
        self[name] = value


@dataclass
class Rules:
    """Answers from a few rules, and keeps everything that was asked, as the records of the real one would say it."""

    hosts: Collection[str] = (MIRROR,)
    protos: Collection[str] = ("tls", "http", "tcp")
    hellos: Collection[str | None] = (None, "named")
    addresses: Callable[[str], bool] = lambda _ip: True
    paths: Callable[[str], bool] = lambda _path: True
    secrets: Collection[tuple[str, str]] = ()
    named: list[str] = field(default_factory=list)
    asked: list[Connect] = field(default_factory=list)
    admitted: list[Facts] = field(default_factory=list)
    denied: list[Connect] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    used: list[tuple[str, str, int]] = field(default_factory=list)
    recording: asyncio.Event | None = None
    _running: dict[asyncio.Task[Any], list[bool]] = field(default_factory=dict)

    async def name(self, target: Host | Address, port: int) -> None:
        self.named.append(f"{target}:{port}")
        if str(target) not in self.hosts:
            raise PolicyDenied("connect", f'Host::"{target}"', reason="no policy permits it", policies=("only-mirror",))

    def foreseen(self, target: Host | Address, port: int, ip: Address) -> frozenset[str]:
        return frozenset(self.protos if str(target) in self.hosts and self.addresses(str(ip)) else ())

    @asynccontextmanager
    async def connection(self, connect: Connect) -> AsyncIterator[Facts]:
        self.asked.append(connect)
        if not self._permits(connect):
            self.denied.append(connect)
            raise PolicyDenied(
                "connect", f'Host::"{connect.target}"', reason=f"{connect.proto} is not permitted", policies=("strict",)
            )
        facts = Facts()
        self.admitted.append(facts)
        task, revoked = asyncio.current_task(), [False]
        assert task is not None
        self._running[task] = revoked
        try:
            yield facts
        except asyncio.CancelledError:
            if revoked[0] and not task.uncancel():
                if self.recording is not None:
                    await self.recording.wait()
                raise PolicyDenied("connect", f'Host::"{connect.target}"', reason="permitted no longer") from None
            raise
        finally:
            del self._running[task]

    async def refuse(self, target: str, reason: str) -> PolicyDenied:
        self.refused.append((target, reason))
        return PolicyDenied("connect", target, reason=reason)

    async def secret(self, name: str, target: Host, port: int) -> None:
        self.used.append((name, target.name, port))
        if (name, target.name) not in self.secrets:
            raise PolicyDenied("useSecret", name, reason=f"the secret is not for {target}", policies=("secrets",))

    def revoke(self) -> None:
        for task, revoked in self._running.items():
            revoked[0] = True
            task.cancel()

    def _permits(self, connect: Connect) -> bool:
        return (
            str(connect.target) in self.hosts
            and connect.proto in self.protos
            and connect.hello in self.hellos
            and self.addresses(str(connect.ip))
            and (connect.request is None or self.paths(connect.request.path))
        )


class _Socket:
    """A connection as a :class:`ByteStream`, with the ends that the channel has: a close loses what is on its way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ended = self._finished = False

    async def read(self, limit: int = 65536) -> bytes:
        try:
            data = await self._reader.read(limit)
        except OSError as error:
            raise StreamClosedError("the guest broke off") from error
        self._ended = self._ended or not data
        return data

    async def write(self, data: bytes) -> None:
        if self._writer.is_closing() or self._finished:
            raise StreamClosedError("the connection is closed")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise StreamClosedError("the guest broke off") from error

    async def finish(self) -> None:
        if not self._finished and not self._writer.is_closing():
            self._finished = True
            self._writer.write_eof()

    def close(self) -> None:
        if self._ended and self._finished:
            self._writer.close()
        else:
            self._writer.transport.abort()


@dataclass
class Site:
    """A broker that listens on loopback, as the relay does in the guest."""

    broker: Broker
    rules: Rules
    port: int
    looked_up: list[str]
    serving: set[asyncio.Task[None]]

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        rules: Rules | None = None,
        *,
        names: Mapping[str, Sequence[str]] | None = None,
        resolve: Callable[[str, int], Awaitable[Sequence[IP]]] | None = None,
        limits: EgressLimits | None = None,
        **more: Any,
    ) -> AsyncIterator[Site]:
        rules = rules or Rules()
        known = names if names is not None else {MIRROR: ["127.0.0.1"], OTHER: ["127.0.0.1"]}
        looked_up: list[str] = []

        async def from_names(name: str, _port: int) -> Sequence[IP]:
            looked_up.append(name)
            if name not in known:
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return [ipaddress.ip_address(text) for text in known[name]]

        broker = Broker(rules, resolve=resolve or from_names, limits=limits, **more)
        serving: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            try:
                # Python 3.11 would print that the one who serves was cancelled.
                with contextlib.suppress(asyncio.CancelledError):
                    await broker.serve(_Socket(reader, writer))
            finally:
                serving.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield cls(broker, rules, server.sockets[0].getsockname()[1], looked_up, serving)
        finally:
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until no connection is served any more: then every outcome is complete."""
        async with asyncio.timeout(60):
            await asyncio.gather(*self.serving, return_exceptions=True)


@dataclass
class Peers:
    """What a server of the test has seen: the bytes of each of its connections."""

    port: int
    received: list[bytearray] = field(default_factory=list)
    peers: list[str] = field(default_factory=list)

    @property
    def all(self) -> bytes:
        return b"".join(bytes(one) for one in self.received)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytearray], Awaitable[None]]


@asynccontextmanager
async def raw_server(
    handler: Handler | None = None, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Peers]:
    """Listen on loopback; without a handler, every request is answered with ``hello``, as HTTP with keep-alive."""
    seen = Peers(0)

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = bytearray()
        seen.received.append(got)
        seen.peers.append(writer.get_extra_info("sockname")[0])
        try:
            await (handler or _answer)(reader, writer, got)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, host, port, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: bytearray) -> None:
    while not reader.at_eof():
        try:
            got += await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            got += error.partial
            return
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()


def break_off(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, as a program does that was killed with something unread."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def talk(port: int, *parts: bytes, end: bool = True, most: int = 1 << 20) -> bytes:
    """Send bytes to the broker, one after another, and return all that comes until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            if len(parts) > 1:
                await asyncio.sleep(0.005)
        if end:
            writer.write_eof()
        async with asyncio.timeout(60):
            while len(answer) < most and (data := await reader.read(65536)):
                answer += data
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer


def client_hello(name: str | None, *, alpn: Iterable[str] = (), size: int = 0) -> bytes:
    """Return the first bytes of a real client of TLS.

    Args:
        name: The server it asks for; None for none.
        alpn: Protocols to offer.
        size: At least this many bytes, by protocols that nobody has.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    padding = [f"{number:0200}" for number in range(size // 200)]
    if alpn or padding:
        context.set_alpn_protocols([*alpn, *padding])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake without an answer")


@dataclass
class Kept:
    """A secret on the host."""

    value: str
    revealed: int = 0

    def reveal(self) -> str:
        self.revealed += 1
        return self.value


def certificate(directory: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """Return the context of a server that has these names, and the file that a client has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    trust = directory / "trust.pem"
    trust.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, trust
