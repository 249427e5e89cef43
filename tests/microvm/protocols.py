"""Servers of the test's own that are no web servers of the ordinary kind: WebSocket, HTTP/2, TCP."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import h2.config
import h2.connection
import h2.events
from anyio.from_thread import start_blocking_portal
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

__all__ = ["Http2Site", "connections", "echoing", "http2", "websocket"]

_SECONDS = 120.0
Serve = Callable[[socket.socket], None]


class _Connections(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, serve_one: Serve, address: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._serve_one = serve_one
        super().__init__((address, port), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        assert isinstance(request, socket.socket)
        request.settimeout(_SECONDS)
        with suppress(OSError):
            self._serve_one(request)


@contextmanager
def connections(serve_one: Serve, address: str, port: int) -> Iterator[int]:
    """Serve each connection in a thread of its own, as long as the block runs; gives the port."""
    with _Connections(serve_one, address, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def _echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


@contextmanager
def echoing(address: str, port: int) -> Iterator[int]:
    """Send back what comes, until the other side finished sending; gives the port."""
    with connections(_echo, address, port) as bound:
        yield bound


async def _answer(connection: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@contextmanager
def websocket(address: str, port: int, *, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Send back each message of a WebSocket; gives the port."""

    # Not websockets.sync: it reads and writes one SSLSocket in two threads, which OpenSSL does not bear, and of
    # 100 handshakes over TLS about 3 never end.
    @asynccontextmanager
    async def served() -> AsyncIterator[int]:
        async with serve(_answer, address, port, ssl=tls) as server:
            yield int(next(iter(server.sockets)).getsockname()[1])

    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served()) as bound:
        yield bound


class Http2Site:
    """Answers requests in HTTP/2 over TLS with ``body``.

    Attributes:
        paths: What was asked for.
    """

    def __init__(self, tls: ssl.SSLContext, body: bytes) -> None:
        self._tls, self._body = tls, body
        self.paths: list[str] = []
        self.port = 0

    def serve_one(self, connection: socket.socket) -> None:
        """Speak HTTP/2 on one connection."""
        with self._tls.wrap_socket(connection, server_side=True) as secured:
            if secured.selected_alpn_protocol() != "h2":
                return
            state = h2.connection.H2Connection(config=h2.config.H2Configuration(client_side=False))
            state.initiate_connection()
            secured.sendall(state.data_to_send())
            while data := secured.recv(1 << 16):
                for event in state.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        self._answer(state, event)
                secured.sendall(state.data_to_send())

    def _answer(self, state: h2.connection.H2Connection, event: h2.events.RequestReceived) -> None:
        fields = {_text(name): _text(value) for name, value in event.headers}
        self.paths.append(fields[":path"])
        stream = event.stream_id
        state.send_headers(stream, [(":status", "200"), ("content-length", str(len(self._body)))])
        # Small enough for the window that every client grants at first (RFC 9113 §6.9.2).
        state.send_data(stream, self._body, end_stream=True)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def http2(address: str, port: int, tls: ssl.SSLContext, body: bytes) -> Iterator[Http2Site]:
    """Serve ``body``, at most 16 KB, over HTTP/2; ``tls`` must offer ``h2``."""
    site = Http2Site(tls, body)
    with connections(site.serve_one, address, port) as bound:
        site.port = bound
        yield site
