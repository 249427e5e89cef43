"""A network of the test's own: an address on an interface that leads nowhere, and a server behind a name."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

__all__ = ["Ticker", "ticking"]

_INTERFACE = b"cedarbox-test"
# linux/if_tun.h and linux/sockios.h.
_TUNSETIFF, _IFF_TUN_NO_PI = 0x400454CA, 0x1001
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFFLAGS, _IFF_UP_RUNNING = 0x8916, 0x891C, 0x8914, 0x41
_HOSTS = Path("/etc/hosts")


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
def ticking(name: str, address: str) -> Iterator[Ticker]:
    """Serve ticks on port 80 of ``address``, which ``name`` stands for on this host. Needs root."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    hosts = _HOSTS.read_text()
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _INTERFACE, _IFF_TUN_NO_PI))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.255")):
                packed = struct.pack("16sH2x4s8x", _INTERFACE, socket.AF_INET, socket.inet_aton(value))
                fcntl.ioctl(control, request, packed)
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", _INTERFACE, _IFF_UP_RUNNING))
        _HOSTS.write_text(f"{hosts.rstrip()}\n{address} {name}\n")
        with Ticker((address, 80), _Ticks) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield server
            server.shutdown()
    finally:
        _HOSTS.write_text(hosts)
        os.close(device)
