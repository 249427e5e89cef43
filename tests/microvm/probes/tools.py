"""What the attacks are made with. Standard library only, and nothing of cedarbox: this runs in the guest."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress

__all__ = [
    "ATTACKS",
    "PROXIED",
    "PATIENCE",
    "SECONDS",
    "WHERE",
    "address_of",
    "asking",
    "an_attack",
    "client_hello",
    "datagram",
    "direct",
    "every",
    "fetch",
    "get",
    "mark",
    "opened",
    "proxied",
    "query",
    "raw",
    "record",
    "secure",
    "status",
    "talk",
    "tunnel",
]

SECONDS = 2.0
"""How long a direct attempt waits: what is dropped is silent."""

PATIENCE = 15.0
"""How long one waits that asks the proxy, which answers even what it refuses, but may be busy with the others."""

WHERE = {
    "proxy": "127.0.0.1:3128",
    "allowed": "allowed.example",
    "allowed_ip": "192.175.48.10",
    "denied": "denied.example",
    "denied_ip": "192.175.48.20",
    "resolver": "192.175.48.53",
    "gateway": "192.168.127.1",
    "host": "192.168.127.254",
    "service": "8080",
    "private_ip": "10.77.0.5",
    "ipv6": "2620:4f:8000::20",
}
"""The places that the attacks aim at; the first argument may give others."""

# TLS: fatal, access_denied (RFC 8446 §6.2), in the record of any version.
_DENIED_ALERT = tuple(f"\x15\x03{version}\x00\x02\x02\x31" for version in "\x01\x02\x03\x04")

Attempt = Callable[[], str]
ATTACKS: dict[str, Attempt] = {}
"""The attacks by name. Each tells what came back, which is empty when nothing did."""

PROXIED: set[str] = set()
"""Those that need a proxy."""


def mark(attack: str) -> str:
    """What the attack carries, in a form that a host name may have."""
    return f"zz{attack}zz"


def proxied() -> bool:
    """Whether there is a proxy."""
    try:
        socket.create_connection(address_of("proxy"), SECONDS).close()
    except OSError:
        return False
    return True


def an_attack(*, proxied: bool = False) -> Callable[[Attempt], Attempt]:
    def add(function: Attempt) -> Attempt:
        ATTACKS[function.__name__] = function
        if proxied:
            PROXIED.add(function.__name__)
        return function

    return add


def address_of(name: str) -> tuple[str, int]:
    host, _, port = WHERE[name].rpartition(":")
    return host, int(port)


@contextmanager
def opened(host: str, port: int, seconds: float = SECONDS) -> Iterator[socket.socket]:
    """A connection whose every step may take this long."""
    with socket.create_connection((host, port), seconds) as to:
        to.settimeout(seconds)
        yield to


def asking() -> AbstractContextManager[socket.socket]:
    """A connection to the proxy."""
    return opened(*address_of("proxy"), PATIENCE)


def talk(to: socket.socket, *pieces: bytes) -> str:
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(0.02)
        to.sendall(piece)
    with suppress(TimeoutError):
        return to.recv(4096).decode(errors="replace")
    return ""


def direct(host: str, port: int, data: bytes) -> str:
    with opened(host, port) as to:
        return talk(to, data)


def datagram(host: str, port: int, data: bytes) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as to:
        to.settimeout(SECONDS)
        to.sendto(data, (host, port))
        return to.recv(4096).decode(errors="replace") or "empty"


def status(text: str) -> int:
    words = text.split(" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith("HTTP/") and words[1].isdigit() else 0


def raw(*pieces: bytes) -> str:
    """Send a request to the proxy as it is; what comes back counts unless it is a refusal."""
    with asking() as to:
        said = talk(to, *pieces)
        return said if status(said) < 400 else ""


def tunnel(target: str, *pieces: bytes) -> str:
    """Ask the proxy for a tunnel, and send the pieces through it at once: whatever it says, some may get out."""
    with asking() as to:
        said = talk(to, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        if status(said) != 200:
            return ""
        rest = said.partition("\r\n\r\n")[2]
        with suppress(OSError):
            rest += talk(to, *pieces)
        # What is refused in the tunnel is refused in the words of what the guest speaks in it.
        return "" if rest.startswith(_DENIED_ALERT) or status(rest) >= 400 else rest


def get(attack: str, host: str, port: int = 80) -> bytes:
    return f"GET /{mark(attack)} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()


def fetch(attack: str, host: str) -> str:
    """One request in plain HTTP: through the proxy where there is one, else directly."""
    if not proxied():
        return direct(host.strip("[]"), 80, get(attack, host))
    return raw(f"GET http://{host}/{mark(attack)} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())


def secure(host: str, *pieces: bytes) -> str:
    """The beginning of TLS: through the proxy where there is one, else directly."""
    if proxied():
        return tunnel(f"{host}:443", *pieces)
    with opened(host, 443) as to:
        return talk(to, *pieces)


def every(attempts: Sequence[Attempt]) -> str:
    """Make several attempts; what came back of those that got something."""
    found = []
    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(attempt) for attempt in attempts]:
            with suppress(OSError, ValueError):
                found.append(future.result())
    return " ".join(answer for answer in found if answer)[:300]


def client_hello(attack: str, name: str | None, *, ech: bool = False) -> bytes:
    """A ClientHello of TLS 1.3 (RFC 8446 §4.1.2) that carries the mark where random bytes are.

    Args:
        attack: Whose mark.
        name: The name in SNI; None leaves SNI out.
        ech: Whether to offer an encrypted ClientHello (type 0xfe0d).
    """
    extensions = _extension(43, b"\x02\x03\x04") + _extension(13, b"\x00\x04\x04\x03\x08\x04")
    extensions += _extension(10, b"\x00\x02\x00\x1d") + _extension(51, b"\x00\x24\x00\x1d\x00\x20" + bytes(range(32)))
    if name is not None:
        entry = b"\x00" + struct.pack(">H", len(name)) + name.encode()
        extensions += _extension(0, struct.pack(">H", len(entry)) + entry)
    if ech:
        sealed = b"\x00\x00\x01\x00\x01\x01\x00\x20" + bytes(32) + b"\x00\x40" + bytes(64)
        extensions += _extension(0xFE0D, sealed)
    random = mark(attack).encode().ljust(32, b".")[:32]
    body = b"\x03\x03" + random + b"\x20" + random + b"\x00\x02\x13\x01\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return record(b"\x01" + struct.pack(">I", len(body))[1:] + body)


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack(">HH", kind, len(data)) + data


def record(data: bytes) -> bytes:
    return b"\x16\x03\x01" + struct.pack(">H", len(data)) + data


def query(name: str, kind: int) -> bytes:
    asked = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + asked + b"\x00" + struct.pack(">HH", kind, 1)
