"""A real registry server on loopback: TLS by a certificate authority of its own, and a login."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import bcrypt
import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.unit.ports import reserved

__all__ = ["PASSWORD", "USER", "Registry", "serving"]

USER = "reader"
PASSWORD = "correct horse battery staple"
_START_SECONDS = 120.0


@dataclass(frozen=True)
class Registry:
    """A registry that is running.

    Attributes:
        host: ``127.0.0.1:port``.
        transport: ``http`` or ``https``.
        data: Where it keeps its blobs.
        authority: The certificate of its authority, PEM; None without TLS.
        log: What it printed.
    """

    host: str
    transport: Literal["http", "https"]
    data: Path
    authority: Path | None
    log: Path

    def client(self) -> httpx.Client:
        """An HTTP client that is logged in."""
        verify: Any = True if self.authority is None else ssl.create_default_context(cafile=str(self.authority))
        return httpx.Client(
            base_url=f"{self.transport}://{self.host}",
            auth=(USER, PASSWORD),
            verify=verify,
            trust_env=False,
            timeout=60,
        )

    def push(self, layout: Path, repository: str, tag: str) -> str:
        """Push the one image of an OCI layout, by the plain registry API. Returns the manifest's digest."""
        entry = json.loads((layout / "index.json").read_text())["manifests"][0]
        blobs = layout / "blobs" / "sha256"
        manifest = (blobs / entry["digest"].removeprefix("sha256:")).read_bytes()
        document = json.loads(manifest)
        with self.client() as client:
            for blob in (document["config"], *document["layers"]):
                begun = client.post(f"/v2/{repository}/blobs/uploads/").raise_for_status()
                place = begun.headers["location"]
                data = (blobs / blob["digest"].removeprefix("sha256:")).read_bytes()
                client.put(
                    place,
                    params={**httpx.URL(place).params, "digest": blob["digest"]},
                    content=data,
                    headers={"content-type": "application/octet-stream"},
                ).raise_for_status()
            answer = client.put(
                f"/v2/{repository}/manifests/{tag}", content=manifest, headers={"content-type": entry["mediaType"]}
            ).raise_for_status()
        digest = str(answer.headers["docker-content-digest"])
        assert digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        return digest

    def blob(self, digest: str) -> Path:
        """The file in which the server keeps a blob."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.data / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"

    def requests(self) -> list[str]:
        """The lines of its access log."""
        return [line for line in self.log.read_text().splitlines() if '"GET ' in line or '"HEAD ' in line]


@contextmanager
def serving(program: Path, directory: Path, *, tls: bool) -> Iterator[Registry]:
    """Run the server until the block ends.

    Args:
        program: The server's program.
        directory: An empty directory for its files.
        tls: Whether it speaks TLS.
    """
    with reserved() as port, _running(program, directory, port, tls=tls) as registry:
        yield registry


@contextmanager
def _running(program: Path, directory: Path, port: int, *, tls: bool) -> Iterator[Registry]:
    entry = f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n"
    (directory / "htpasswd").write_text(entry)
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}", "secret": "0" * 32}
    if tls:
        _certificates(directory)
        http["tls"] = {"certificate": str(directory / "server.pem"), "key": str(directory / "server.key")}
    config = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": False}},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "auth": {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}},
        "http": http,
    }
    # JSON is YAML, which the server reads.
    (directory / "config.yml").write_text(json.dumps(config))
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", directory / "config.yml"],
            stdout=output,
            stderr=output,
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
        try:
            _wait(process, port, log)
            authority = directory / "authority.pem" if tls else None
            yield Registry(f"127.0.0.1:{port}", "https" if tls else "http", directory / "data", authority, log)
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"the registry server did not start: {log.read_text()[-2000:]}")


def _certificates(directory: Path) -> None:
    """Make an authority, and a certificate of it for 127.0.0.1; valid for a day."""
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    end = begin + datetime.timedelta(days=1)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    root = (
        x509.CertificateBuilder()
        .subject_name(root_name)
        .issuer_name(root_name)
        .public_key(root_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    server = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(root_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]),
            critical=False,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    (directory / "authority.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    (directory / "server.pem").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    (directory / "server.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
