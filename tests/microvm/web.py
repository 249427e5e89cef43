"""Web servers of the test's own, each on an address of its own, with everything that they were asked."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["Answer", "Asked", "Site", "big", "big_digest", "files", "repositories", "serving"]

_BLOCK = hashlib.shake_256(b"cedarbox").digest(1 << 16)
_PIECE = 1 << 16
_HANDSHAKE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: ``host`` is the Host field, ``body`` what came with it."""

    method: str
    target: str
    host: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        """The path without query."""
        return urlsplit(self.target).path


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: ``pieces`` together make ``length`` bytes."""

    pieces: Iterator[bytes] | tuple[bytes, ...]
    length: int
    status: int = 200
    kind: str = "application/octet-stream"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, body: bytes, **values: object) -> Answer:
        """An answer of one piece."""
        return cls((body,), len(body), **values)  # type: ignore[arg-type]  # checked where the fields are


App = Callable[[Asked], Answer]


class Site(ThreadingHTTPServer):
    """A server, by default of plain HTTP.

    Attributes:
        asked: Every request so far.
        host, port: Where it listens.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, app: App, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.app, self.tls = app, tls
        self.asked: list[Asked] = []
        super().__init__((address, port), _Handler)
        self.host, self.port = address, int(self.server_address[1])

    def finish_request(self, request: object, client_address: object) -> None:
        """Serve one connection, in a thread of its own: so a handshake that stalls holds nobody up."""
        assert isinstance(request, socket.socket)
        with suppress(OSError):
            if self.tls is None:
                super().finish_request(request, client_address)
                return
            request.settimeout(_HANDSHAKE_SECONDS)
            with self.tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Site
    protocol_version = "HTTP/1.1"
    timeout = 60.0
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        asked = Asked(self.command, self.path, self.headers.get("Host", ""), dict(self.headers), self._body())
        self.server.asked.append(asked)
        answer = self.server.app(asked)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(answer.length))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for piece in answer.pieces:
                self.wfile.write(piece)

    do_POST = do_HEAD = do_GET  # noqa: N815 - the names are of the standard library

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(app: App, address: str, port: int = 80, *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve an application on an address, as long as the block runs. Port 0 is any free port."""
    with Site(app, address, port, tls) as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield site
        finally:
            site.shutdown()
            thread.join()


def files(content: Mapping[str, bytes]) -> App:
    """An application that has these files, by path; everything else is not found."""

    def app(asked: Asked) -> Answer:
        body = content.get(asked.path)
        if body is None:
            return Answer.of(b"there is no such file\n", status=404, kind="text/plain")
        return Answer.of(body, kind="text/html" if asked.path.endswith("/") else "application/octet-stream")

    return app


def _pieces(size: int) -> Iterator[bytes]:
    for start in range(0, size, _PIECE):
        piece = start.to_bytes(8, "big") + _BLOCK[8:]
        yield piece[: size - start]


def big(asked: Asked) -> Answer:
    """An application with a file of any size: ``/200`` is 200 MB, no two blocks of it alike, nothing of it kept."""
    size = int(asked.path.rpartition("/")[2]) * 1_000_000
    return Answer(_pieces(size), size)


def big_digest(megabytes: int) -> str:
    """The SHA-256 of that file, in hex."""
    hasher = hashlib.sha256()
    for piece in _pieces(megabytes * 1_000_000):
        hasher.update(piece)
    return hasher.hexdigest()


def repositories(root: Path) -> App:
    """An application that serves the Git repositories below a directory over smart HTTP, with Git's own program."""

    def app(asked: Asked) -> Answer:
        split = urlsplit(asked.target)
        given = {name.lower(): value for name, value in asked.headers.items()}
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            # Whoever runs the test need not be who made the directory.
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "REQUEST_METHOD": asked.method,
            "PATH_INFO": split.path,
            "QUERY_STRING": split.query,
            "CONTENT_TYPE": given.get("content-type", ""),
            "CONTENT_LENGTH": str(len(asked.body)),
            "HTTP_CONTENT_ENCODING": given.get("content-encoding", ""),
            "GIT_PROTOCOL": given.get("git-protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=asked.body, env=environment, capture_output=True, check=False
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        status = int(fields.pop("Status", "500" if done.returncode else "200").split()[0])
        kind = fields.pop("Content-Type", "text/plain")
        return Answer((body,), len(body), status, kind, tuple(fields.items()))

    return app
