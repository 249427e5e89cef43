"""The OTLP/gRPC services.

The handlers take the raw bytes of the one message of a call: a message that cannot be read is then answered as the
fault of the sender, and a call that waits for its message holds no more than a place.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NoReturn

import grpc

from cedarbox.collector.body import MAX_BODY
from cedarbox.collector.intake import SERVICES, Signal, keep
from cedarbox.collector.limits import RETRY_SECONDS, Budget, BusyError, Limits
from cedarbox.collector.status import status_bytes
from cedarbox.collector.store import Store
from cedarbox.errors import CedarboxError, HostError

__all__ = ["DEFAULT_GRPC_PORT", "GrpcReceiver"]

DEFAULT_GRPC_PORT: Final = 4317
"""The port of OTLP/gRPC (OTLP specification, "OTLP/gRPC Default Port")."""

_TAKEN: Final = "another collector may be running; stop it, choose another port, or switch gRPC off"

_REFUSALS: Final = 8
"""Threads beyond those, which answer that the collector is busy."""

_WAITING: Final = 1024
"""Calls that wait for a thread. gRPC itself refuses what is more, and says nothing of trying again."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_BODY),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # With it a second collector could bind the same port, and take a part of what is sent.
    ("grpc.so_reuseport", 0),
    ("grpc.http2.bdp_probe", 0),
)


class GrpcReceiver:
    """Serves OTLP/gRPC from threads of this process.

    Args:
        store: Where requests are kept; the caller closes it.
        budget: Bounds the bytes and the work, together with what comes by HTTP.
        limits: Calls under way at once, and how long the message of one may take.
    """

    def __init__(self, store: Store, budget: Budget, limits: Limits) -> None:
        self._calls = threading.BoundedSemaphore(limits.calls)
        self._store, self._budget, self._seconds = store, budget, limits.body_seconds
        self._server = grpc.server(
            ThreadPoolExecutor(limits.calls + _REFUSALS, thread_name_prefix="cedarbox-collector-grpc"),
            options=_OPTIONS,
            maximum_concurrent_rpcs=_WAITING,
        )
        for service, signal in SERVICES.items():
            method: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_unary_rpc_method_handler(self._handler(signal))
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": method}),))

    def listen(self, address: str, port: int) -> int:
        """Listen on a TCP port.

        Returns:
            The port; a free one when 0 was given.

        Raises:
            HostError: It is in use.
        """
        host = f"[{address}]" if ":" in address else address
        _check_free(address, port)
        return self._bind(f"{host}:{port}", f"{address} port {port}")

    def listen_unix(self, path: Path) -> None:
        """Listen on a Unix socket with mode 0600.

        Raises:
            HostError: It cannot be made.
        """
        self._bind(f"unix:{path.absolute()}", str(path))
        path.chmod(0o600)

    def start(self) -> None:
        """Take calls."""
        self._server.start()

    def stop(self, seconds: float) -> None:
        """Take no more calls, and wait for those under way."""
        self._server.stop(seconds).wait()

    def _bind(self, target: str, shown: str) -> int:
        try:
            port = self._server.add_insecure_port(target)
        except RuntimeError:
            port = 0
        if port == 0:
            raise HostError(
                f"cannot listen on {shown} for gRPC",
                hint=_TAKEN,
            )
        return port

    def _handler(self, signal: Signal) -> Callable[[Iterator[bytes], grpc.ServicerContext], bytes]:
        def export(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            if not self._calls.acquire(blocking=False):
                _refuse(context, BusyError("too many calls are under way"))
            try:
                with self._budget.request() as ticket:
                    body = self._message(messages, context)
                    ticket.take(len(body))
                    with self._budget.working:
                        keep(self._store, signal, body)
            except CedarboxError as error:
                _refuse(context, error)
            finally:
                self._calls.release()
            return b""

        return export

    def _message(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        timer = threading.Timer(self._seconds, context.cancel)
        timer.daemon = True
        timer.start()
        try:
            body = next(messages, None)
            if body is None or next(messages, None) is not None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "an export is one message")
            return body
        finally:
            timer.cancel()


def _check_free(address: str, port: int) -> None:
    # gRPC would tell of it on stderr in its own words, and its error does not say why.
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            raise HostError(f"cannot listen on {address} port {port} for gRPC: {error.strerror}", hint=_TAKEN) from None


def _refuse(context: grpc.ServicerContext, error: CedarboxError) -> NoReturn:
    """End a call with the status that tells the sender whether to try again."""
    reason = " ".join(str(error).split())
    code = grpc.StatusCode.INVALID_ARGUMENT
    if isinstance(error, BusyError):
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
    elif isinstance(error, HostError):
        code = grpc.StatusCode.UNAVAILABLE
    if code is not grpc.StatusCode.INVALID_ARGUMENT:
        # Without it OTLP has RESOURCE_EXHAUSTED mean that the data is to be thrown away.
        number, _ = code.value
        details = status_bytes(number, reason, retry_seconds=RETRY_SECONDS)
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(code, reason)
