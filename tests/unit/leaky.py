"""The attacks on egress against a proxy that carries everything: what gets out then is what they are able to show.

Run it in namespaces of its own: ``unshare --map-root-user --net --mount python -m tests.unit.leaky open``.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.microvm.outside import ATTACKS, outside, unforeseen, verdict
from tests.microvm.probes.tools import WHERE
from tests.microvm.protocols import connections

__all__ = ["main"]

_PROXY = ("127.0.0.1", 3128)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def _joined(guest: socket.socket, server: socket.socket) -> None:
    with server:
        back = threading.Thread(target=_pump, args=(server, guest), daemon=True)
        back.start()
        _pump(guest, server)
        back.join()


def _serve(guest: socket.socket) -> None:
    """Carry whatever is asked for, as a proxy does that asks nobody."""
    first = guest.recv(1 << 16)
    if first[:1] == b"\x05":
        guest.sendall(b"\x05\x00")
        asked = guest.recv(1 << 16)
        if asked[3] == 1:
            place = socket.inet_ntoa(asked[4:8]), int.from_bytes(asked[8:10], "big")
        else:
            end = 5 + asked[4]
            place = asked[5:end].decode(errors="replace"), int.from_bytes(asked[end : end + 2], "big")
        server = socket.create_connection(place, 5)
        guest.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    else:
        method, target = first.decode(errors="replace").split("\r\n")[0].split(" ")[:2]
        split = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = split.netloc.rpartition(":")[::2] if split.netloc.count(":") == 1 else (split.hostname or "", "80")
        server = socket.create_connection((host.strip("[]"), int(port) % 65536), 5)
        if method == "CONNECT":
            guest.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            server.sendall(first)
    _joined(guest, server)


def _carry(guest: socket.socket) -> None:
    with suppress(OSError, ValueError, IndexError, UnicodeError):
        _serve(guest)


def _mounted(scratch: Path) -> None:
    for name in ("hosts", "resolv.conf"):
        (scratch / name).write_text("127.0.0.1 localhost\n::1 localhost\n" if name == "hosts" else "")
        subprocess.run(["mount", "--bind", str(scratch / name), f"/etc/{name}"], check=True, capture_output=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, capture_output=True)


def _attacked(*, proxy: bool) -> dict[str, Any]:
    # A process of its own, because one of the attacks kills it.
    carrying = None
    if proxy:
        command = [sys.executable, "-m", "tests.unit.leaky", "proxy"]
        carrying = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert carrying.stdout is not None
        assert carrying.stdout.readline() == b"ready\n"
    try:
        done = subprocess.run([sys.executable, "-m", "tests.microvm.probes"], capture_output=True, check=True)
    finally:
        if carrying is not None:
            carrying.kill()
            carrying.communicate()
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def main() -> None:
    """Print the verdict on each attack, with a proxy (``open``) or without (``direct``), and what nothing foresaw."""
    if sys.argv[1] == "proxy":
        with connections(_carry, *_PROXY):
            print("ready", flush=True)
            threading.Event().wait()
    with tempfile.TemporaryDirectory() as scratch:
        _mounted(Path(scratch))
        with outside(WHERE["gateway"], WHERE["host"]) as listeners:
            told = _attacked(proxy=sys.argv[1] == "open")
            said = {attack.name: verdict(attack, told[attack.name], listeners.seen) for attack in ATTACKS}
            print(json.dumps({"verdicts": said, "unforeseen": len(unforeseen(listeners.seen)), "told": told}))


if __name__ == "__main__":
    main()
