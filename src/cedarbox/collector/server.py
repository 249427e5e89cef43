"""Running the embedded collector: in a thread of this process, or blocking for the command line."""

from __future__ import annotations

import errno
import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvicorn

from cedarbox.collector.app import application
from cedarbox.collector.store import Store
from cedarbox.errors import ConfigurationError, HostError

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["DEFAULT_PORT", "EmbeddedCollector", "serve"]

DEFAULT_PORT: Final = 4318
"""The port of OTLP/HTTP (OTLP specification, "OTLP/HTTP Default Port")."""

_POLL_SECONDS: Final = 0.01
_STOP_SECONDS: Final = 10


class EmbeddedCollector:
    """An OTLP/HTTP collector in a thread of this process. Also a context manager.

    Args:
        directory: Where spans and logs are kept; see `cedarbox.collector.store.Store`.
        host: Address to listen on; a loopback address or ``localhost``.
        port: TCP port; 0 picks a free one.
        allow_remote: Accept other addresses for ``host``. There is no authentication and no encryption: put a proxy
            that has both in front.

    Raises:
        ConfigurationError: The host is not loopback and ``allow_remote`` is false, or the port is no port.
    """

    def __init__(
        self, directory: Path | str, *, host: str = "127.0.0.1", port: int = DEFAULT_PORT, allow_remote: bool = False
    ) -> None:
        self._address = _address(host, allow_remote=allow_remote)
        if not 0 <= port <= 65535:
            raise ConfigurationError(f"{port} is not a TCP port", hint="use 0 to 65535")
        self._port = port
        self._directory = Path(directory)
        self._any_host = allow_remote
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._store: Store | None = None

    @property
    def url(self) -> str:
        """The endpoint to send to, such as ``http://127.0.0.1:4318``. With port 0 it is known after `start`."""
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"http://{host}:{self._port}"

    @property
    def store(self) -> Store:
        """The store, while the collector runs.

        Raises:
            ConfigurationError: The collector does not run.
        """
        if self._store is None:
            raise ConfigurationError("the collector does not run", hint="call start() first")
        return self._store

    def start(self) -> None:
        """Listen and return when requests are taken. Does nothing when already running.

        Raises:
            HostError: The port is in use, or the directory cannot be used.
        """
        if self._server is not None:
            return
        listener = _listen(self._address, self._port)
        try:
            store = Store(self._directory)
        except HostError:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        config = uvicorn.Config(
            application(store, any_host=self._any_host),
            http="h11",
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
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listener]}, name="cedarbox-collector", daemon=True
        )
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(_POLL_SECONDS)
        self._server, self._thread, self._store, self._listener = server, thread, store, listener
        if not server.started:
            self.stop()
            raise HostError(f"the collector could not start on {self.url}", hint="try another port")

    def stop(self) -> None:
        """Finish the requests under way, stop listening and close the store. Idempotent."""
        if self._server is None or self._thread is None or self._store is None:
            return
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()
        self._store.close()
        self._server = self._thread = self._store = None

    def __enter__(self) -> EmbeddedCollector:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def serve(
    directory: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allow_remote: bool = False,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Run a collector until SIGINT or SIGTERM, then stop it and return. Call it from the main thread.

    Args:
        directory: See `EmbeddedCollector`.
        host: See `EmbeddedCollector`.
        port: See `EmbeddedCollector`.
        allow_remote: See `EmbeddedCollector`.
        announce: Called with the URL once requests are taken.

    Raises:
        ConfigurationError: See `EmbeddedCollector`.
        HostError: See `EmbeddedCollector.start`.
    """
    asked = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with EmbeddedCollector(directory, host=host, port=port, allow_remote=allow_remote) as collector:
            if announce is not None:
                announce(collector.url)
            asked.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
