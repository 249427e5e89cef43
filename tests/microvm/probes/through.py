"""Attacks that ask the proxy of the guest, or take its place. This runs in the guest."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.microvm.probes.tools import (
    PATIENCE,
    WHERE,
    address_of,
    an_attack,
    asking,
    every,
    fetch,
    get,
    mark,
    raw,
    status,
    talk,
    tunnel,
)

__all__ = ["HOSTILE"]

HOSTILE = "relay"
"""The attack that comes last, because it ends the relay."""

_METADATA = (
    *("169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"),
    *("169.16689662", "0xa9.254.0251.254", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]"),
    *("[64:ff9b::a9fe:a9fe]", "metadata.google.internal", "meta.allowed.example", "169%2e254%2e169%2e254"),
    *("\uff11\uff16\uff19.254.169.254", "169\u3002254\u3002169\u3002254", "\u2460\u2465\u2468.254.169.254"),
)
_LOOPBACK = (
    *("127.0.0.1", "localhost", "LOCALHOST.", "127.1", "0", "0.0.0.0", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]"),
    *("[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "loop.allowed.example", "host.boxlite.internal"),
    *("host.docker.internal", "host.containers.internal", "gateway.docker.internal", "rig"),
)


def _spellings(attack: str, spellings: tuple[str, ...], port: int) -> str:
    """Ask for each spelling of an address in three ways: a tunnel, a plain request, SOCKS."""
    attempts: list[Callable[[], str]] = []
    for text in spellings:
        plain = f"GET http://{text}:{port}/{mark(attack)} HTTP/1.1\r\nHost: {text}:{port}\r\n\r\n".encode()
        attempts.append(partial(tunnel, f"{text}:{port}", get(attack, "x")))
        attempts.append(partial(raw, plain))
        attempts.append(partial(_socks, text.strip("[]").encode(), port, get(attack, "x")))
    return every(attempts)


def _socks(name: bytes, port: int, data: bytes) -> str:
    """Ask for a connection by SOCKS5 with a name (RFC 1928), and send the data over it."""
    with asking() as to:
        to.sendall(b"\x05\x01\x00")
        if to.recv(2) != b"\x05\x00":
            return ""
        to.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port))
        said = to.recv(64)
        return talk(to, data) if said[1:2] == b"\x00" else ""


@an_attack(proxied=True)
def metadataproxy() -> str:
    return _spellings("metadataproxy", _METADATA, 80)


@an_attack(proxied=True)
def loopbackproxy() -> str:
    return _spellings("loopbackproxy", (*_LOOPBACK, WHERE["host"], WHERE["gateway"]), int(WHERE["service"]))


@an_attack(proxied=True)
def socksaddress() -> str:
    with asking() as to:
        to.sendall(b"\x05\x01\x00")
        if to.recv(2) != b"\x05\x00":
            return ""
        to.sendall(b"\x05\x01\x00\x01" + socket.inet_aton(WHERE["denied_ip"]) + struct.pack(">H", 80))
        return talk(to, get("socksaddress", "x")) if to.recv(64)[1:2] == b"\x00" else ""


@an_attack(proxied=True)
def socksudp() -> str:
    answers = []
    for command in (2, 3):
        with asking() as to:
            to.sendall(b"\x05\x01\x00")
            to.recv(2)
            to.sendall(bytes([5, command, 0, 1]) + socket.inet_aton(WHERE["allowed_ip"]) + struct.pack(">H", 80))
            said = to.recv(64)
            answers.append("" if said[1:2] != b"\x00" else f"command {command} accepted")
            with suppress(OSError):
                to.sendall(mark("socksudp").encode())
    return " ".join(filter(None, answers))


@an_attack(proxied=True)
def connectaddress() -> str:
    aims = (
        f"{WHERE['denied_ip']}:80",
        f"{WHERE['denied_ip']}:443",
        f"[{WHERE['ipv6']}]:80",
        f"{WHERE['private_ip']}:80",
    )
    return every([partial(tunnel, aim, get("connectaddress", "x")) for aim in aims])


@an_attack(proxied=True)
def allowedbyaddress() -> str:
    """The address of a permitted name, without the name."""
    return tunnel(f"{WHERE['allowed_ip']}:80", get("allowedbyaddress", WHERE["allowed"]))


@an_attack(proxied=True)
def smuggling() -> str:
    denied = f"GET http://{WHERE['denied']}/{mark('smuggling')} HTTP/1.1\r\nHost: {WHERE['denied']}\r\n\r\n"
    start = f"POST http://{WHERE['allowed']}/ HTTP/1.1\r\nHost: {WHERE['allowed']}\r\n"
    size = len(denied) + 5
    bodies = (
        f"Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{denied}",
        f"Content-Length: 0\r\nContent-Length: {size}\r\n\r\n{denied}",
        f"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{denied}",
        f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{denied}",
        f"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{denied}",
        f"Content-Length: +0\r\n\r\n{denied}",
        f"Content-Length: 0\r\n\r\n{denied}",
        f"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{denied}",
        f"X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{denied}",
        f"X: y\n\n{denied}",
    )
    return every([partial(raw, (start + body).encode()) for body in bodies])


@an_attack(proxied=True)
def linebreaks() -> str:
    allowed, bad = WHERE["allowed"], f"{mark('linebreaks')}.{WHERE['denied']}"
    texts = (
        f"GET http://{allowed}%0d%0aHost:%20{bad}/ HTTP/1.1\r\nHost: {allowed}\r\n\r\n",
        f"GET http://{allowed}\rHost: {bad}/ HTTP/1.1\r\nHost: {allowed}\r\n\r\n",
        f"GET http://{allowed}/ HTTP/1.1\nHost: {bad}\n\n",
        f"GET http://{allowed}/%0d%0aHost:%20{bad} HTTP/1.1\r\nHost: {allowed}\r\nHost: {bad}\r\n\r\n",
        f"CONNECT {allowed}%00.{bad}:80 HTTP/1.1\r\n\r\n",
        f"CONNECT {bad}\t{allowed}:80 HTTP/1.1\r\n\r\n",
    )
    attempts: list[Callable[[], str]] = [partial(raw, text.encode()) for text in texts]
    names = (f"{allowed}\r\nHost: {bad}", f"{bad}\0.{allowed}", f"{allowed}\0.{bad}", f"{bad}/{allowed}")
    attempts += [partial(_socks, name.encode(), 80, b"x") for name in names]
    return every(attempts)


@an_attack(proxied=True)
def userinfo() -> str:
    allowed, bad = WHERE["allowed"], f"{mark('userinfo')}.{WHERE['denied']}"
    places = (f"{allowed}@{bad}", f"{allowed}:80@{bad}", f"{bad}#@{allowed}", f"{bad}\\@{allowed}", f"{bad}?@{allowed}")
    attempts: list[Callable[[], str]] = []
    for place in places:
        attempts.append(partial(raw, f"GET http://{place}/ HTTP/1.1\r\nHost: {allowed}\r\n\r\n".encode()))
        attempts.append(partial(tunnel, f"{place}:80", get("userinfo", "x")))
    return every(attempts)


@an_attack(proxied=True)
def oddports() -> str:
    ports = ("0", "65536", "65616", "-1", "+80", "080", " 80", "8_0", "\u0668\u0660", "0x50", "", "80.0", "1e1", "22")
    return every([partial(tunnel, f"{WHERE['allowed']}:{port}", get("oddports", "x")) for port in ports])


@an_attack(proxied=True)
def slowloris() -> str:
    """Many requests that never end; the answer is empty when another one is served all the same."""
    held = []
    try:
        for _ in range(50):
            held.append(socket.create_connection(address_of("proxy"), PATIENCE))
            held[-1].sendall(f"GET http://{WHERE['allowed']}/ HTTP/1.1\r\nX-".encode())
        for _ in range(3):
            for one in held:
                with suppress(OSError):
                    one.sendall(b"x")
            time.sleep(0.1)
        return "" if status(fetch("slowloris", WHERE["allowed"])) == 200 else "others are not served meanwhile"
    finally:
        for one in held:
            one.close()


@an_attack(proxied=True)
def halfclose() -> str:
    """Finishing before the answer; the answer is empty when it comes in full all the same."""
    with asking() as to:
        to.sendall(
            f"GET http://{WHERE['allowed']}/{mark('halfclose')} HTTP/1.1\r\nHost: {WHERE['allowed']}\r\n\r\n".encode()
        )
        to.shutdown(socket.SHUT_WR)
        said = b""
        with suppress(TimeoutError):
            while data := to.recv(4096):
                said += data
    return "" if said.endswith(b"SEEN") else f"only {said[:60]!r}"


@an_attack(proxied=True)
def relay() -> str:
    """Stop the relay, write into its pipes, end it, take its place, and ask from there."""
    pid = _listener(address_of("proxy")[1])
    if pid is None:
        return "the relay was not found"
    os.kill(pid, signal.SIGSTOP)
    bad = f"{mark('relay')}.{WHERE['denied']}"
    request = f"CONNECT {bad}:80 HTTP/1.1\r\n\r\nGET http://{WHERE['denied_ip']}/{mark('relay')} HTTP/1.1\r\n\r\n"
    for descriptor in (0, 1, 2):
        for piece in (request.encode(), os.urandom(4096), b"\0" * 4096, b"\xff" * 4096, request.encode() * 50):
            with suppress(OSError):
                to = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(to, piece)
                finally:
                    os.close(to)
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    answers = []
    with suppress(OSError):
        answers.append(tunnel(f"{bad}:80", get("relay", bad)))
    with suppress(OSError), socket.create_server(address_of("proxy")) as taken:
        thread = threading.Thread(target=_impostor, args=(taken,), daemon=True)
        thread.start()
        # Whoever answers here is the guest itself.
        tunnel(f"{bad}:80", get("relay", bad))
    return " ".join(filter(None, answers))


def _impostor(taken: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = taken.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")


def _listener(port: int) -> int | None:
    """The process that listens on a port of this machine."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(entry.readlink()) in inodes and int(entry.parts[2]) != os.getpid():
                return int(entry.parts[2])
    return None
