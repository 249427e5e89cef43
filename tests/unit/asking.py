"""What a program of the guest sends to its proxy, and what it is answered."""

from __future__ import annotations

from typing import Final

from tests.unit.brokering import MIRROR

__all__ = ["ALERT", "EVIL", "GRANTED", "connect_to", "get", "tunnel"]

GRANTED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x31"
"""Of TLS: fatal, access_denied."""

EVIL: Final = "evil.example"


def connect_to(target: str) -> bytes:
    """Return a request for a tunnel."""
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def tunnel(port: int) -> bytes:
    """Return a request for a tunnel to the host that is permitted."""
    return connect_to(f"{MIRROR}:{port}")


def get(
    port: int,
    path: str = "/",
    headers: str = "",
    *,
    host: str = MIRROR,
    method: str = "GET",
    version: str = "1.1",
) -> bytes:
    """Return a request to the proxy, without a body."""
    return f"{method} http://{host}:{port}{path} HTTP/{version}\r\nHost: {host}:{port}\r\n{headers}\r\n".encode()
