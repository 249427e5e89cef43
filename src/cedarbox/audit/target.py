"""Where the shipper sends to, and on what terms: checked before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from cedarbox.errors import CedarboxError, ConfigurationError
from cedarbox.files import open_regular, read_private

__all__ = ["AwayError", "RefusedError", "Target", "Transport", "read_pem", "resolve_headers", "tls_context"]

_LIMIT: Final = 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}").fullmatch
_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?").fullmatch
_REFERENCE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)|file:(/[^\x00-\x1f]+)").fullmatch
_OURS: Final = frozenset(
    {"accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host", "te"}
    | {"transfer-encoding", "upgrade", "user-agent"}
)


class AwayError(CedarboxError):
    """The collector was not reached, asks to wait, or answers as one that is not set up for this sender.

    Args:
        message: What happened.
        wait_s: How long the collector asks to wait, in seconds; None when it does not say.
        answered: Something answered, so that it may be about this signal only.
    """

    def __init__(self, message: str, *, wait_s: float | None = None, answered: bool = False) -> None:
        super().__init__(message)
        self.wait_s, self.answered = wait_s, answered


class RefusedError(CedarboxError):
    """The collector does not take what was sent, or not all of it.

    Args:
        message: What it said.
        rejected: How many records; None for all of them.
    """

    def __init__(self, message: str, *, rejected: int | None = None) -> None:
        super().__init__(message)
        self.rejected = rejected


class Transport(ABC):
    """A connection to a collector. One thread uses it."""

    @abstractmethod
    def send(self, path: str, body: bytes) -> None:
        """Send one request and return when all of it was acknowledged.

        Args:
            path: The signal: ``/v1/logs``, ``/v1/traces`` or ``/v1/metrics``.
            body: The request in protobuf.

        Raises:
            AwayError: Nothing is known to have been taken; later it may be.
            RefusedError: The collector does not take it.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A collector and the terms on which it is spoken to. Nothing is taken from the environment.

    Args:
        endpoint: ``http://host:port``, ``https://host:port``, either with a path before ``/v1/logs`` for OTLP/HTTP, or
            ``unix:/path/to.sock``.
        protocol: ``http/protobuf`` or ``grpc``.
        ca_file: PEM file of the certificate authorities that may vouch for the collector; needed for https, as no
            other is trusted.
        client_certificate: PEM file of the certificate to show to the collector, with intermediate ones.
        client_key: Its private key, PEM, without a password, mode 0600.
        insecure: Send in clear over a network. A loopback address and a Unix socket need no such word.
        headers: Further headers. A value ``env:NAME`` or ``file:/absolute/path`` says where the value is; it is read
            for each request.
        compression: ``gzip`` or ``none``.
        timeout_s: Longest time for one request, in seconds.

    Raises:
        ConfigurationError: The address or a header cannot be used, or the terms do not go together.
    """

    endpoint: str
    protocol: Literal["http/protobuf", "grpc"] = "http/protobuf"
    ca_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    insecure: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    compression: Literal["gzip", "none"] = "gzip"
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Refuse what would send records where nobody meant them to go."""
        _check_address(self)
        if self.is_tls and self.ca_file is None:
            raise ConfigurationError(
                f"{self.endpoint}: https without ca_file; no certificate authority is trusted by default",
                hint="set otlp.ca_file to the PEM file of yours",
            )
        if not self.is_tls and (self.ca_file or self.client_certificate or self.client_key):
            raise ConfigurationError(
                f"{self.endpoint}: certificates are for https only", hint="write https:// or leave them out"
            )
        if (self.client_certificate is None) != (self.client_key is None):
            raise ConfigurationError(
                "client_certificate and client_key belong together", hint="set both of them or none"
            )
        if not self.is_tls and self.host is not None and not self.insecure and not _is_loopback(self.host):
            raise ConfigurationError(
                f"{self.endpoint}: records would cross a network in clear",
                hint="use https, or set otlp.insecure = true when something else protects them",
            )
        _check_headers(self.headers)

    @property
    def is_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.endpoint.startswith("https://")

    @property
    def socket(self) -> str | None:
        """Path of the Unix socket; None for a host."""
        return self.endpoint.removeprefix("unix:") if self.endpoint.startswith("unix:") else None

    @property
    def host(self) -> str | None:
        """The host; None for a Unix socket."""
        return None if self.socket else urlsplit(self.endpoint).hostname

    def check(self) -> None:
        """Read the certificates and the values of the headers once, to say now what would fail later.

        Raises:
            ConfigurationError: One of them cannot be used.
        """
        resolve_headers(self.headers)
        if self.is_tls:
            self.tls()

    def tls(self) -> ssl.SSLContext:
        """Make the TLS side.

        Raises:
            ConfigurationError: A certificate or key cannot be used.
        """
        return tls_context(self.ca_file, self.client_certificate, self.client_key)

    def connect(self) -> Transport:
        """Make ready to send; the collector is not asked yet.

        Raises:
            ConfigurationError: A certificate or key cannot be read.
        """
        # Late, so that who ships by the one does not load the other.
        if self.protocol == "grpc":
            from cedarbox.audit.transport_grpc import GrpcTransport

            return GrpcTransport(self)
        from cedarbox.audit.transport_http import HttpTransport

        return HttpTransport(self)


def resolve_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers with the values that references point to, names in small letters.

    Raises:
        ConfigurationError: A value cannot be had, or no header can carry it. The message never holds it.
    """
    return {name.lower(): _resolved(name, value) for name, value in headers.items()}


def tls_context(ca_file: Path | None, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
    """Make the TLS side of a client: named authorities only, host names checked, TLS 1.2 at least.

    ``ssl.create_default_context`` is not used: it takes authorities and a file for session keys from the environment.

    Args:
        ca_file: PEM file of the authorities.
        certificate: PEM file of the certificate to show, with intermediate ones; None for none.
        key: Its private key.

    Raises:
        ConfigurationError: A file cannot be read or used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(cadata=read_pem(ca_file, "ca_file").decode())
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationError(f"{ca_file}: no certificates in PEM: {error}", hint="check ca_file") from None
    if certificate is not None and key is not None:
        read_pem(certificate, "client_certificate")
        read_private(key, "client key", limit=_LIMIT)
        try:
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except (ssl.SSLError, OSError, ValueError) as error:
            raise ConfigurationError(
                f"{certificate}, {key}: no certificate with its key: {error}",
                hint="give PEM files, the key without a password",
            ) from None
    return context


def read_pem(path: Path | None, what: str) -> bytes:
    """Read a file of certificates.

    Raises:
        ConfigurationError: It cannot be read or is empty.
    """
    if path is None:
        raise ConfigurationError(f"{what} is not set")
    try:
        with open_regular(path, follow=True) as file:
            data = file.read(_LIMIT)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"{path}: {what} cannot be read: {reason}", hint="check the path") from None
    if b"-----BEGIN CERTIFICATE-----" not in data:
        raise ConfigurationError(f"{path}: {what} holds no certificate in PEM", hint="check the file")
    return data


def _check_address(target: Target) -> None:
    hint = "give one like https://collector.corp.example:4318, http://127.0.0.1:4318 or unix:/run/otel.sock"
    wrong = ConfigurationError(f"{target.endpoint[:200]!r} is no address of a collector", hint=hint)
    if target.endpoint.startswith("unix:"):
        if not re.fullmatch(r"unix:/[^\x00-\x20/][^\x00-\x1f]*", target.endpoint):
            raise wrong
        return
    try:
        parts = urlsplit(target.endpoint)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise wrong
    if parts.username or parts.password or parts.query or parts.fragment or not target.endpoint.isprintable():
        raise wrong
    if target.protocol == "grpc" and (parts.path not in {"", "/"} or port is None):
        raise ConfigurationError(
            f"{target.endpoint}: for grpc an address has a port and no path", hint="give one like https://host:4317"
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _NAME(name) or name.lower() in _OURS or name.lower().startswith(("grpc-", ":")):
            raise ConfigurationError(f"otlp.headers: {name[:80]!r} cannot be set", hint="choose another header")
        if value.startswith(("env:", "file:")):
            if not _REFERENCE(value):
                raise ConfigurationError(
                    f"otlp.headers: {name}: not a reference", hint="write env:NAME or file:/absolute/path"
                )
        elif not _VALUE(value):
            raise ConfigurationError(f"otlp.headers: {name}: no header can carry its value", hint="use plain ASCII")


def _resolved(name: str, value: str) -> str:
    found = _REFERENCE(value)
    if found is None:
        return value
    if found[1]:
        text = os.environ.get(found[1], "")
    else:
        data, _ = read_private(Path(found[2]), f"header {name}", limit=_LIMIT)
        text = data.decode("latin-1").rstrip("\r\n")
    if not _VALUE(text):
        raise ConfigurationError(f"{value}: empty, or no header can carry it", hint=f"it is the value of {name}")
    return text
