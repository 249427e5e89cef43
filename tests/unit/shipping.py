"""Collectors for tests of the shipper, over HTTP and gRPC, with and without TLS, and the certificates for it."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

__all__ = ["PATIENCE", "Authority", "GrpcCollector", "HttpCollector", "Pair", "Received", "attribute", "until"]

PATIENCE = 60.0


def attribute(event: LogRecord, key: str) -> str:
    (value,) = (item.value for item in event.attributes if item.key == key)
    return value.string_value


def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds, and fail when it never does."""
    for _ in range(int(PATIENCE / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come true")


class Received:
    """What a collector acknowledged. ``answer`` may refuse a request: it gives what to answer, or None to take it."""

    def __init__(self, answer: Callable[[ExportLogsServiceRequest], Any] | None = None) -> None:
        self.events: list[LogRecord] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        self.answer = answer

    @property
    def ids(self) -> Counter[str]:
        return Counter(attribute(event, "audit.record.id") for event in self.events)

    def take(self, request: ExportLogsServiceRequest, headers: dict[str, str]) -> Any:
        self.requests += 1
        self.headers.append(headers)
        answer = None if self.answer is None else self.answer(request)
        if answer is None:
            for resource in request.resource_logs:
                for scope in resource.scope_logs:
                    self.events.extend(scope.log_records)
        return answer


@dataclass(frozen=True)
class Pair:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._certificate = self._sign(
            self._builder(subject, subject, self._key.public_key(), days=2)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(ca=True), critical=True)
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def issue(self, name: str, *hosts: str, days: int = 1) -> Pair:
        """Issue a certificate for hosts; with negative days it has expired."""
        names = x509.SubjectAlternativeName([_general(host) for host in hosts])
        return self._issue(name, days, (names, False) if hosts else None)

    def issue_stamper(self, name: str, *, days: int = 1) -> Pair:
        """Issue a certificate for a time-stamp server."""
        return self._issue(name, days, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), True))

    def _issue(self, name: str, days: int, more: tuple[x509.ExtensionType, bool] | None) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, self._certificate.subject, key.public_key(), days).add_extension(
            x509.BasicConstraints(ca=False, path_length=None), critical=True
        )
        if more is not None:
            builder = builder.add_extension(more[0], critical=more[1])
        certificate = self._sign(builder.add_extension(_usage(ca=False), critical=True))
        pair = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        os.close(os.open(pair.key, os.O_CREAT | os.O_EXCL, 0o600))
        pair.key.write_bytes(pem)
        return pair

    def _builder(self, subject: x509.Name, issuer: x509.Name, key: Any, days: int) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=3))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        return builder.sign(self._key, hashes.SHA256())


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class HttpCollector:
    """OTLP/HTTP on the loopback or a Unix socket. An answer is a status, (status, headers), or the body of a 200."""

    def __init__(
        self, received: Received, *, tls: Pair | None = None, clients: Path | None = None, path: Path | None = None
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                headers = {key.lower(): value for key, value in self.headers.items()}
                answer = received.take(ExportLogsServiceRequest.FromString(body), headers)
                status, content = 200, b""
                more: dict[str, str] = {}
                match answer:
                    case bytes():
                        content = answer
                    case int():
                        status = answer
                    case (int() as status, dict() as more):
                        pass
                self.send_response(status)
                for key, value in more.items():
                    self.send_header(key, value)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def address_string(self) -> str:
                return "somebody"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET if path is None else socket.AF_UNIX
            daemon_threads = True

            def server_bind(self) -> None:
                self.socket.bind(self.server_address)
                if path is None:
                    self.server_address = self.socket.getsockname()

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a handshake that fails is what some tests are about

        address: Any = ("127.0.0.1", 0) if path is None else str(path)
        self._server = Server(address, Handler)
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.certificate, tls.key)
            if clients is not None:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(clients)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        scheme = "http" if tls is None else "https"
        self.port = 0 if path is not None else self._server.server_address[1]
        self.endpoint = f"unix:{path}" if path is not None else f"{scheme}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class GrpcCollector(LogsServiceServicer):
    """OTLP/gRPC with the real service. An answer is a response, or a callable that ends the call on its context."""

    def __init__(
        self, received: Received, *, tls: Pair | None = None, clients: Path | None = None, path: Path | None = None
    ) -> None:
        self._received = received
        self._server = grpc.server(ThreadPoolExecutor(2))
        add_LogsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call] # generated
        address = "127.0.0.1:0" if path is None else f"unix:{path}"
        if tls is None:
            port = self._server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.key.read_bytes(), tls.certificate.read_bytes())],
                root_certificates=None if clients is None else clients.read_bytes(),
                require_client_auth=clients is not None,
            )
            port = self._server.add_secure_port(address, credentials)
        self._server.start()
        scheme = "http" if tls is None else "https"
        self.port = port
        self.endpoint = f"unix:{path}" if path is not None else f"{scheme}://127.0.0.1:{port}"

    def Export(  # noqa: N802 - the name of the service
        self, request: ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> ExportLogsServiceResponse:
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        answer = self._received.take(request, headers)
        if callable(answer):
            answer(context)
        return answer if isinstance(answer, ExportLogsServiceResponse) else ExportLogsServiceResponse()

    def close(self) -> None:
        self._server.stop(0).wait()
