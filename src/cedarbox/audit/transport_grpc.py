"""OTLP over gRPC: the Export methods of the OpenTelemetry services, over TCP or a Unix socket."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from cedarbox.audit.answers import SERVICES, check_answer
from cedarbox.audit.target import (
    AwayError,
    RefusedError,
    Target,
    Transport,
    read_pem,
    resolve_headers,
)
from cedarbox.errors import ConfigurationError
from cedarbox.files import read_private

__all__ = ["GrpcTransport"]

_ANSWER_BYTES: Final = 64 * 1024
_CONTENT: Final = frozenset(
    {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
    | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
)
"""Codes that may be about what was sent: malformed, (without RetryInfo, as OTLP has it) too large, or tripped over."""

_UNREACHED: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_OPTIONS: Final = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", _ANSWER_BYTES),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1000),  # the shipper has a backoff of its own
)


class GrpcTransport(Transport):
    """Sends over gRPC. No proxy, no certificate authority that was not named.

    Args:
        target: Where to.

    Raises:
        ConfigurationError: A certificate or key cannot be read.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        compression = grpc.Compression.Gzip if target.compression == "gzip" else grpc.Compression.NoCompression
        address = f"unix:{target.socket}" if target.socket else urlsplit(target.endpoint).netloc
        if target.is_tls:
            self._channel = grpc.secure_channel(address, _credentials(target), _OPTIONS, compression)
        else:
            self._channel = grpc.insecure_channel(address, _OPTIONS, compression)
        # The generated stubs do the same with messages; the sources give bytes, and the answer is checked as bytes.
        self._methods: dict[str, Callable[..., bytes]] = {
            path: self._channel.unary_unary(method, request_serializer=_same, response_deserializer=_same)
            for path, method in SERVICES.items()
        }

    def send(self, path: str, body: bytes) -> None:
        """Send one request; see `Transport.send`."""
        method = self._methods.get(path)
        if method is None:
            raise ConfigurationError(f"{path} is no signal of OTLP")
        metadata = tuple(resolve_headers(self._target.headers).items())
        try:
            answer = method(body, timeout=self._target.timeout_s, metadata=metadata)
        except grpc.RpcError as error:
            raise self._said(error) from error
        check_answer(path, answer)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _said(self, error: object) -> AwayError | RefusedError:
        if not isinstance(error, grpc.Call):
            return AwayError(f"{self._target.endpoint}: {type(error).__name__}")
        code, details = error.code(), str(error.details())[:200]
        text = f"{self._target.endpoint}: {code.name}: {details!a}"
        wait = _wait(error)
        if code in _CONTENT and wait is None:
            return RefusedError(text)
        return AwayError(text, wait_s=wait, answered=code not in _UNREACHED)


def _same(data: bytes) -> bytes:
    return data


def _credentials(target: Target) -> grpc.ChannelCredentials:
    target.tls()  # gRPC does not say what is wrong with a file
    roots = read_pem(target.ca_file, "ca_file")
    if target.client_certificate is None or target.client_key is None:
        return grpc.ssl_channel_credentials(root_certificates=roots)
    key, _ = read_private(target.client_key, "client key", limit=1024 * 1024)
    chain = read_pem(target.client_certificate, "client_certificate")
    return grpc.ssl_channel_credentials(root_certificates=roots, private_key=key, certificate_chain=chain)


def _wait(call: grpc.Call) -> float | None:
    """Read RetryInfo of the error details (google.rpc.Status), which says how long to wait."""
    for name, value in call.trailing_metadata() or ():
        if name != "grpc-status-details-bin" or not isinstance(value, bytes):
            continue
        with suppress(DecodeError):
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return max(0.0, float(info.retry_delay.ToNanoseconds()) / 1e9)
    return None
