"""What the benchmark of egress does in the guest: ``egress_guest.py HOST MEGABYTES CONNECTIONS [PROXY_PORT]``.

Standard library only. Everything is plain HTTP with a connection for each request, so that a microVM with a network
card and one without are asked for the same. Prints one JSON object: MB/s down and up, connections per second one after
another and eight at a time.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

__all__ = ["main"]

_SECONDS = 300.0
_PIECE = b"x" * 65536


class _Way:
    def __init__(self, host: str, proxy: int | None) -> None:
        self._host, self._proxy = host, proxy

    def ask(self, method: str, path: str, size: int = 0) -> int:
        """Make one request; give the number of bytes of the answer's body."""
        to = socket.create_connection((self._host, 80) if self._proxy is None else ("127.0.0.1", self._proxy), _SECONDS)
        with to:
            target = path if self._proxy is None else f"http://{self._host}{path}"
            fields = f"Host: {self._host}\r\nContent-Length: {size}\r\nConnection: close\r\n"
            to.sendall(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode())
            for start in range(0, size, len(_PIECE)):
                to.sendall(_PIECE[: size - start])
            head, got = b"", 0
            while b"\r\n\r\n" not in head:
                piece = to.recv(65536)
                if not piece:
                    raise SystemExit(f"no answer: {head!r}")
                head += piece
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(head.decode(errors="replace"))
            got = len(head.partition(b"\r\n\r\n")[2])
            while piece := to.recv(65536):
                got += len(piece)
            return got


def main() -> None:
    """Measure, and print what came out."""
    host, megabytes, connections = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    way = _Way(host, int(sys.argv[4]) if len(sys.argv) > 4 else None)
    way.ask("GET", "/hello")
    rates: dict[str, float] = {}
    begun = time.monotonic()
    assert way.ask("GET", f"/{megabytes}") == megabytes * 1_000_000
    rates["MB/s down"] = megabytes / (time.monotonic() - begun)
    begun = time.monotonic()
    way.ask("POST", "/hello", megabytes * 1_000_000)
    rates["MB/s up"] = megabytes / (time.monotonic() - begun)
    for name, at_once in (("connections/s", 1), ("connections/s, 8 at a time", 8)):
        begun = time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda _: way.ask("GET", "/hello"), range(connections)))
        rates[name] = connections / (time.monotonic() - begun)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
