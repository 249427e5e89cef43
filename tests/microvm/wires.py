"""A network of the test's own: addresses on an interface that leads nowhere, and names that stand for them."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Ticker", "ticking", "wired"]

_INTERFACE = "cedarbox-test"
# linux/if_tun.h.
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_HOSTS, _RESOLVER = Path("/etc/hosts"), Path("/etc/resolv.conf")


class Ticker(ThreadingHTTPServer):
    """Answers every request with ticks that do not end, and remembers the last one that it could send."""

    daemon_threads = True
    connected = 0
    gone = 0
    ticks = 0
    last_tick = 0.0


class _Ticks(BaseHTTPRequestHandler):
    server: Ticker
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.server.connected += 1
        try:
            while True:
                self.wfile.write(b"tick\n")
                self.wfile.flush()
                self.server.ticks += 1
                self.server.last_tick = time.monotonic()
                time.sleep(0.02)
        except OSError:
            self.server.gone += 1
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def wired(
    addresses: Sequence[str], *, names: Mapping[str, Sequence[str]] | None = None, nameserver: str | None = None
) -> Iterator[None]:
    """Give this machine addresses, as long as the block runs. Needs root, a tun device and iproute2.

    Args:
        addresses: IPv4 and IPv6 addresses, each of a network of its own size.
        names: What the file of hosts says meanwhile: names, each with its addresses.
        nameserver: Whom this machine asks for every other name meanwhile; None changes nothing.
    """
    device = os.open("/dev/net/tun", os.O_RDWR)
    hosts = _HOSTS.read_text()
    resolver = _RESOLVER.read_text() if _RESOLVER.exists() else ""
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _INTERFACE.encode(), _IFF_TUN_NO_PI))
        _ip("link", "set", "dev", _INTERFACE, "up")
        for address in addresses:
            plain = ipaddress.ip_address(address)
            # Finding out whether another machine has the address would take a second, and there is none.
            kind = ["nodad"] if plain.version == 6 else []
            _ip("address", "add", f"{plain}/{plain.max_prefixlen}", "dev", _INTERFACE, *kind)
        lines = [f"{address} {name}" for name, places in (names or {}).items() for address in places]
        _HOSTS.write_text("\n".join([hosts.rstrip(), *lines, ""]))
        if nameserver is not None:
            _RESOLVER.write_text(f"nameserver {nameserver}\noptions timeout:1 attempts:2\n")
        yield
    finally:
        _HOSTS.write_text(hosts)
        if nameserver is not None:
            _RESOLVER.write_text(resolver)
        os.close(device)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr.strip()}"


@contextmanager
def ticking(name: str, address: str) -> Iterator[Ticker]:
    """Serve ticks on port 80 of ``address``, which ``name`` stands for on this host. Needs root."""
    with wired([address], names={name: [address]}), Ticker((address, 80), _Ticks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
