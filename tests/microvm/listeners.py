"""Listeners that note everything that reaches them: what a guest says about its attacks is not what counts."""

from __future__ import annotations

import ipaddress
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

__all__ = ["Listeners", "Sighting", "listening"]

_SECONDS = 10.0
_TYPES = {1: "A", 16: "TXT", 28: "AAAA"}
_ALERT = bytes.fromhex("15030300020228")  # TLS: fatal, handshake_failure (RFC 8446 §6.2)
_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"CONNECT ", b"PRI ")
_ECHO_REQUEST = 8
Zone = Mapping[str, Sequence[Sequence[str]]]


@dataclass(slots=True)
class Sighting:
    """A connection, a datagram or a query of a name that reached this machine.

    Attributes:
        proto: ``tcp``, ``udp``, ``icmp``, or ``dns`` for a query, whatever carried it.
        address: Where it arrived.
        port: Its port; 0 for ICMP.
        data: What came so far; the name and the type for a query.
    """

    proto: str
    address: str
    port: int
    data: bytearray = field(default_factory=bytearray)

    def __str__(self) -> str:
        return f"{self.proto} to {self.address} port {self.port}: {bytes(self.data[:200])!r}"


class Listeners:
    """Sockets on addresses of this machine, and what reached them.

    Args:
        zone: What the name server answers: for a name, the addresses of one look-up after the other, in turn.
        elsewhere: The address of every name that the zone does not have.

    Attributes:
        seen: What reached them so far, in order.
    """

    def __init__(self, zone: Zone | None = None, *, elsewhere: str = "") -> None:
        self.seen: list[Sighting] = []
        self._zone, self._elsewhere = dict(zone or {}), elsewhere
        self._asked: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._wake, self._waking = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._serving: list[threading.Thread] = []

    def forget(self) -> None:
        """Begin anew, with the look-ups of the zone too."""
        with self._lock:
            self.seen = []
            self._asked.clear()

    def tcp(self, address: str, port: int, *, names: bool = False) -> int:
        """Listen for connections; returns the port. With ``names`` they carry queries of names, and are answered."""
        listener = socket.socket(_family(address), socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return self._add(listener, address, port, partial(self._accept, names=names))

    def udp(self, address: str, port: int, *, names: bool = False) -> int:
        """Listen for datagrams; returns the port. With ``names`` they are queries of names, and answered."""
        listener = socket.socket(_family(address), socket.SOCK_DGRAM)
        return self._add(listener, address, port, partial(self._datagram, names=names))

    def icmp(self) -> None:
        """Note echo requests to any address of this machine. Needs root."""
        listener = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, (self._ping, "", 0))

    def _add(self, listener: socket.socket, address: str, port: int, handler: object) -> int:
        try:
            if listener.family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, port))
            if listener.type == socket.SOCK_STREAM:
                listener.listen(64)
        except OSError as error:
            listener.close()
            raise OSError(error.errno, f"{error.strerror}: {address} port {port}") from error
        listener.setblocking(False)
        bound = int(listener.getsockname()[1])
        self._selector.register(listener, selectors.EVENT_READ, (handler, address, bound))
        return bound

    def start(self) -> None:
        """Begin to listen: after this no listener can be added."""
        self._thread.start()

    def stop(self) -> None:
        """End everything, and close every socket."""
        self._waking.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()
        for thread in self._serving:
            thread.join(_SECONDS)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                handler, address, port = key.data
                with suppress(OSError):
                    handler(key.fileobj, address, port)

    def _note(self, proto: str, address: str, port: int, data: bytes = b"") -> Sighting:
        sighting = Sighting(proto, address, port, bytearray(data))
        with self._lock:
            self.seen.append(sighting)
        return sighting

    def _ping(self, listener: socket.socket, _address: str, _port: int) -> None:
        packet = listener.recv(2048)
        message = packet[(packet[0] & 15) * 4 :]
        if message and message[0] == _ECHO_REQUEST:
            self._note("icmp", str(ipaddress.IPv4Address(packet[16:20])), 0, message[8:])

    def _datagram(self, listener: socket.socket, address: str, port: int, *, names: bool) -> None:
        data, source = listener.recvfrom(4096)
        if names:
            reply = self._look_up(data, address, port)
        else:
            self._note("udp", address, port, data)
            reply = b"SEEN"
        if reply:
            listener.sendto(reply, source)

    def _accept(self, listener: socket.socket, address: str, port: int, *, names: bool) -> None:
        connection, _ = listener.accept()
        sighting = self._note("tcp", address, port)
        thread = threading.Thread(target=self._serve, args=(connection, sighting, names), daemon=True)
        self._serving = [one for one in self._serving if one.is_alive()]
        self._serving.append(thread)
        thread.start()

    def _serve(self, connection: socket.socket, sighting: Sighting, names: bool) -> None:
        with connection, suppress(OSError):
            connection.settimeout(_SECONDS)
            while data := connection.recv(1 << 16):
                sighting.data += data
                connection.sendall(self._named(data, sighting) if names else _reply(data))
            connection.shutdown(socket.SHUT_WR)

    def _named(self, data: bytes, sighting: Sighting) -> bytes:
        answer = self._look_up(data[2:], sighting.address, sighting.port)
        return struct.pack(">H", len(answer)) + answer

    def _look_up(self, query: bytes, address: str, port: int) -> bytes:
        """Answer one query of the domain name system (RFC 1035 §4): one question, no compression in it."""
        try:
            labels, place = [], 12
            while size := query[place]:
                labels.append(query[place + 1 : place + 1 + size].decode("ascii", "backslashreplace"))
                place += size + 1
            number = struct.unpack_from(">H", query, place + 1)[0]
        except (IndexError, struct.error):
            self._note("dns", address, port, query)
            return b""
        name, kind = ".".join(labels).lower(), _TYPES.get(number, str(number))
        self._note("dns", address, port, f"{name} {kind}".encode())
        answers = self._answers(name, kind)
        made = b"".join(struct.pack(">HHHIH", 0xC00C, number, 1, 0, len(data)) + data for data in answers)
        head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(answers), 0, 0)
        return head + query[12 : place + 5] + made

    def _answers(self, name: str, kind: str) -> list[bytes]:
        if kind == "TXT":
            return [b"\x04SEEN"]
        if kind not in ("A", "AAAA"):
            return []
        rounds = self._zone.get(name, [[self._elsewhere]] if self._elsewhere else [[]])
        with self._lock:
            turn = self._asked.get((name, kind), 0)
            self._asked[name, kind] = turn + 1
        wanted = 4 if kind == "A" else 6
        found = map(ipaddress.ip_address, rounds[turn % len(rounds)])
        return [address.packed for address in found if address.version == wanted]


def _reply(data: bytes) -> bytes:
    if data[:1] == b"\x16":
        return _ALERT
    if not data.startswith(_METHODS):
        return b"SEEN\n"
    target = data.split(b" ", 2)[1].decode(errors="replace")
    if "/redirect/" in target:
        # What it leads to is not in the request, so whoever sees it was led there.
        place = f"http://zz{target.rpartition('/')[2]}zz.denied.example/"
        return f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nSEEN"


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@contextmanager
def listening(listeners: Listeners) -> Iterator[Listeners]:
    """Let them listen as long as the block runs."""
    with ExitStack() as stack:
        stack.callback(listeners.stop)
        listeners.start()
        yield listeners
