"""Running the embedded collector: in a thread of this process, or blocking for the command line."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from cedarbox.collector.app import application
from cedarbox.collector.grpc import GrpcReceiver
from cedarbox.collector.guarded_http import guarded_protocol
from cedarbox.collector.limits import Budget, Limits
from cedarbox.collector.page.options import PageOptions
from cedarbox.collector.retention import Keeper, Retention
from cedarbox.collector.store import Store
from cedarbox.errors import ConfigurationError, HostError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["DEFAULT_PORT", "EmbeddedCollector", "serve"]

DEFAULT_PORT: Final = 4318
"""The port of OTLP/HTTP (OTLP specification, "OTLP/HTTP Default Port")."""

_POLL_SECONDS: Final = 0.01
_PAGE: Final = PageOptions()
_STOP_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class _Running:
    store: Store
    keeper: Keeper | None
    stack: ExitStack


class EmbeddedCollector:
    """An OTLP collector in threads of this process. Also a context manager.

    Args:
        directory: Where spans and logs are kept; see `cedarbox.collector.store.Store`.
        host: Address to listen on; a loopback address or ``localhost``.
        port: TCP port; 0 picks a free one.
        allow_remote: Accept other addresses for ``host``. There is no authentication and no encryption: put a proxy
            that has both in front.
        grpc_port: TCP port for gRPC, on the same address; 0 picks a free one, None takes no gRPC there.
        http_socket: Path of a Unix socket that takes HTTP too. It has mode 0600, and its directory must be closed to
            other users; it is made with mode 0700 when missing.
        grpc_socket: Path of a Unix socket that takes gRPC, likewise.
        limits: What it takes at once.
        retention: What is thrown away; nothing by default, so that a full disk is what ends the receiving.
        page: What the page shows besides what was received; None for no page.

    Raises:
        ConfigurationError: The host is not loopback and ``allow_remote`` is false, or a port is no port.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        allow_remote: bool = False,
        grpc_port: int | None = None,
        http_socket: Path | None = None,
        grpc_socket: Path | None = None,
        limits: Limits | None = None,
        retention: Retention | None = None,
        page: PageOptions | None = _PAGE,
    ) -> None:
        self._address = _address(host, allow_remote=allow_remote)
        for number in (port, grpc_port or 0):
            if not 0 <= number <= 65535:
                raise ConfigurationError(f"{number} is not a TCP port", hint="use 0 to 65535")
        self._port, self._grpc_port = port, grpc_port
        self._http_socket, self._grpc_socket = http_socket, grpc_socket
        self._limits, self._retention, self._page = limits or Limits(), retention or Retention(), page
        self._directory = Path(directory)
        self._any_host = allow_remote
        self._running: _Running | None = None

    @property
    def url(self) -> str:
        """The endpoint to send to, such as ``http://127.0.0.1:4318``. With port 0 it is known after `start`."""
        return f"http://{self._host}:{self._port}"

    @property
    def grpc_endpoint(self) -> str | None:
        """Where to send gRPC to, such as ``127.0.0.1:4317``; None when only HTTP is taken there."""
        return None if self._grpc_port is None else f"{self._host}:{self._grpc_port}"

    @property
    def store(self) -> Store:
        """The store, while the collector runs.

        Raises:
            ConfigurationError: The collector does not run.
        """
        if self._running is None:
            raise ConfigurationError("the collector does not run", hint="call start() first")
        return self._running.store

    @property
    def retention_error(self) -> str:
        """Why the last look at what is too old or too much failed; empty when it did not.

        Raises:
            ConfigurationError: The collector does not run.
        """
        if self._running is None:
            raise ConfigurationError("the collector does not run", hint="call start() first")
        return self._running.keeper.last_error if self._running.keeper is not None else ""

    def start(self) -> None:
        """Listen and return when requests are taken. Does nothing when already running.

        Raises:
            HostError: A port is in use, a socket cannot be made, or the directory cannot be used.
            BundleError: A policy bundle that the page should show cannot be used.
        """
        if self._running is not None:
            return
        with ExitStack() as stack:
            listeners = [stack.enter_context(_listen(self._address, self._port))]
            if self._http_socket is not None:
                listeners.append(stack.enter_context(_listen_unix(self._http_socket)))
                stack.callback(self._http_socket.unlink, missing_ok=True)
            store = stack.enter_context(Store(self._directory))
            _alone(self._directory, stack)
            self._port = listeners[0].getsockname()[1]
            pages = self._pages(store, stack)
            budget = Budget(self._limits)
            # What was begun last ends first: the senders go, then the sweeping, then the file.
            keeper = None
            if self._retention != Retention():
                keeper = Keeper(store, self._retention)
                keeper.start()
                stack.callback(keeper.stop)
            if self._grpc_port is not None or self._grpc_socket is not None:
                receiver = GrpcReceiver(store, budget, self._limits)
                if self._grpc_port is not None:
                    self._grpc_port = receiver.listen(self._address, self._grpc_port)
                if self._grpc_socket is not None:
                    _closed_directory(self._grpc_socket)
                    receiver.listen_unix(self._grpc_socket)
                receiver.start()
                stack.callback(receiver.stop, _STOP_SECONDS)
            app = application(store, any_host=self._any_host, budget=budget, limits=self._limits, pages=pages)
            server = uvicorn.Server(_configuration(app, self._limits))
            thread = threading.Thread(
                target=server.run, kwargs={"sockets": listeners}, name="cedarbox-collector", daemon=True
            )
            thread.start()
            stack.callback(_end, server, thread)
            while not server.started and thread.is_alive():
                time.sleep(_POLL_SECONDS)
            if not server.started:
                raise HostError(f"the collector could not start on {self.url}", hint="try another port")
            self._running = _Running(store, keeper, stack.pop_all())

    def stop(self) -> None:
        """Finish the requests under way, stop listening and close the store. Idempotent."""
        if self._running is None:
            return
        running, self._running = self._running, None
        running.stack.close()

    def _pages(self, store: Store, stack: ExitStack) -> ASGIApp | None:
        if self._page is None:
            return None
        # Late, so that a command that serves nothing does not load the templates.
        from cedarbox.collector.page import page

        pages = page(store, self._page, any_host=self._any_host)
        stack.callback(pages.close)
        return pages

    @property
    def _host(self) -> str:
        return f"[{self._address}]" if ":" in self._address else self._address

    def __enter__(self) -> EmbeddedCollector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _alone(directory: Path, stack: ExitStack) -> None:
    """Let one collector at a time keep its data in a directory: two would drop by two rules what is old."""
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HostError(
            f"{directory}: another collector keeps its data here", hint="stop it, or name another directory"
        ) from None


def serve(collector: EmbeddedCollector, *, announce: Callable[[EmbeddedCollector], None] | None = None) -> None:
    """Run a collector until SIGINT or SIGTERM, then stop it and return. Call it from the main thread.

    Args:
        collector: What to run.
        announce: Called with it once requests are taken.

    Raises:
        HostError: See `EmbeddedCollector.start`.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with collector:
            if announce is not None:
                announce(collector)
            asked.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _configuration(app: Starlette, limits: Limits) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=guarded_protocol(limits),
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_STOP_SECONDS,
    )


def _end(server: uvicorn.Server, thread: threading.Thread) -> None:
    server.should_exit = True
    thread.join()


def _address(host: str, *, allow_remote: bool) -> str:
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise ConfigurationError(f"{host!r} is not an IP address", hint="use 127.0.0.1") from None
    if not address.is_loopback and not allow_remote:
        raise ConfigurationError(
            f"{host} can be reached from other hosts, and the collector has no authentication",
            hint="use 127.0.0.1, or allow remote access and put an authenticating proxy in front",
        )
    return str(address)


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # asyncio switches Nagle's algorithm off only where the protocol is named; with it an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        taken = error.errno == errno.EADDRINUSE
        raise HostError(
            f"cannot listen on {address} port {port}: {error.strerror or error}",
            hint="another collector may be running; stop it or choose another port" if taken else "choose another port",
        ) from error
    return listener


def _listen_unix(path: Path) -> socket.socket:
    _closed_directory(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise HostError(
            f"cannot listen on {path}: {error.strerror or error}", hint="choose another path, of at most 107 bytes"
        ) from error
    return listener


def _closed_directory(path: Path) -> None:
    """Make the directory of a socket, see that no other user can reach into it, and remove the socket of a dead run.

    Raises:
        HostError: Others can, or something else is there.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            raise HostError(
                f"{path.parent}: other users can reach a socket in it", hint="give its directory the mode 0700"
            )
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise HostError(
                        f"{path}: a collector listens there already", hint="stop it, or choose another path"
                    )
            path.unlink()
    except OSError as error:
        raise HostError(
            f"{path}: a socket cannot be made here: {error.strerror or error}", hint="choose another path"
        ) from error
