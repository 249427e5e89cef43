"""The guest's side of egress: a listener on the guest's loopback that hands every connection to the host, unread.

It is one program of the standard library alone, for Python 3.7 and later on Linux, and is run as
``python3 -I -S -c SOURCE [port]``. It reads none of what it carries and decides nothing: the host does not trust it.

Both directions carry frames: type (one byte), stream (four bytes), length of the payload (two bytes), payload; numbers
are big-endian. To the host each frame is one line of base64, because standard output of an exec arrives as text; from
the host frames come as they are. The types:

* ``HELLO``, once and first, to the host: version (two bytes) and port (two bytes); stream 0.
* ``OPEN``, to the host: a program has connected.
* ``DATA``: 1 to 32768 bytes.
* ``EOF``: no more ``DATA`` of that stream comes from this side.
* ``RESET``: from the host, it has done with the stream; what it sent before an ``EOF`` is still delivered. To the host,
  the last frame of every stream, also of one that ended well: only then is the stream forgotten there.
* ``WINDOW``: four bytes, how many more bytes of ``DATA`` this side takes.

A stream begins with a window of 65536 bytes towards the host and of 262144 bytes towards the guest.

Exit status: 0 when standard input or output has ended, 1 when the port cannot be had, 2 for a bad argument, 3 when the
host sent what is no frame.
"""

from __future__ import annotations

import binascii
import errno
import os
import select
import socket
import struct
import sys
import time
from collections import OrderedDict, deque

__all__ = [
    "DATA",
    "EOF",
    "GUEST_WINDOW",
    "HELLO",
    "HOST_WINDOW",
    "MAX_STREAMS",
    "OPEN",
    "PAYLOAD",
    "RESET",
    "VERSION",
    "WINDOW",
    "Decoder",
    "Relay",
    "line",
    "main",
]

VERSION = 1
HELLO, OPEN, DATA, EOF, RESET, WINDOW = 1, 2, 3, 4, 5, 6
PAYLOAD = 32768
MAX_STREAMS = 1024
HOST_WINDOW = 65536
GUEST_WINDOW = 262144

# Towards the host nothing more is read or accepted while so many bytes wait for standard output.
_BACKLOG = 262144
# What a program has not taken when the host has done with it: it gets this long to close its side.
_LINGER_S = 10.0
# Without descriptors or memory for another connection, how long until it is tried again.
_STARVED_S = 1.0
_STARVED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_SPARE_FILES = 32

_HEAD = struct.Struct(">BIH")
_HELLO = struct.Struct(">HH")
_CREDIT = struct.Struct(">I")
_ABORT = struct.pack("ii", 1, 0)
# By their numbers, linux/eventpoll.h: the host reads this module too, and need not be a Linux.
_IN, _OUT_READY, _ERR, _HUP, _RDHUP, _ET = 0x1, 0x4, 0x8, 0x10, 0x2000, 1 << 31
_GONE = _HUP | _ERR
_EDGES = _IN | _OUT_READY | _RDHUP | _ET


def line(kind: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame to the host: a line of base64."""
    return binascii.b2a_base64(_HEAD.pack(kind, stream, len(payload)) + payload)


def _fits(kind: int, length: int) -> bool:
    if kind == DATA:
        return 0 < length <= PAYLOAD
    return length == (_CREDIT.size if kind == WINDOW else 0) and kind in (WINDOW, EOF, RESET)


class Decoder:
    """Takes the frames of the host out of the bytes that arrive."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Return the frames that are complete: type, stream, payload.

        Raises:
            ValueError: What came is no frame.
        """
        found = []
        if self._held:
            data = self._held + data
        at, end, head = 0, len(data), _HEAD.size
        while end - at >= head:
            kind, stream, length = _HEAD.unpack_from(data, at)
            if not _fits(kind, length):
                raise ValueError(f"the host sent type {kind} with {length} bytes")
            stop = at + head + length
            if stop > end:
                break
            found.append((kind, stream, data[at + head : stop]))
            at = stop
        self._held = data[at:]
        return found


class _Stream:
    """One connection of a program of the guest."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock, self.fd, self.number = sock, sock.fileno(), number
        self.credit, self.grant, self.out = HOST_WINDOW, 0, bytearray()
        # What the program did: there may be bytes to read; it has finished sending; that was read and passed on.
        self.readable = self.hung = self.eof = False
        # What the host did: it has finished sending; that was passed on. And whether the host knows the stream.
        self.finished = self.shut = False
        self.known = True
        self.queued = self.closed = False


class Relay:
    """Carries connections between a listener and the host.

    Args:
        listener: Listens, does not block.
        incoming: Descriptor from which the host is read; does not block.
        outgoing: Descriptor to which frames for the host are written; does not block.
        limit: How many connections there are at a time; more wait to be accepted.
    """

    def __init__(self, listener: socket.socket, incoming: int, outgoing: int, limit: int = MAX_STREAMS) -> None:
        self._listener, self._in, self._out, self._limit = listener, incoming, outgoing, limit
        self._door = listener.fileno()
        self._decoder = Decoder()
        self._waiting = bytearray(line(HELLO, 0, _HELLO.pack(VERSION, listener.getsockname()[1])))
        self._streams: dict[int, _Stream] = {}
        self._sockets: dict[int, _Stream] = {}
        self._turn: deque[_Stream] = deque()
        self._lingering: OrderedDict[_Stream, float] = OrderedDict()
        self._last = 0
        self._listening = True
        self._clogged = False
        self._starved = 0.0
        self._poll = select.epoll()
        self._poll.register(self._door, _IN)
        self._poll.register(incoming, _IN)
        self._poll.register(outgoing, 0)

    def run(self) -> None:
        """Carry until the host ends it.

        Raises:
            ValueError: The host sent what is no frame.
        """
        try:
            self._flush()
            while self._round():
                pass
        except BrokenPipeError:
            pass

    def _round(self) -> bool:
        knock = False
        for fd, event in self._poll.poll(self._patience(), 512):
            if fd == self._door:
                knock = True
            elif fd == self._in:
                if not self._receive():
                    return False
            elif fd == self._out:
                if event & _GONE:
                    return False
            elif fd in self._sockets:
                self._happened(self._sockets[fd], event)
        while self._turn and len(self._waiting) < _BACKLOG:
            self._read(self._turn.popleft())
        # Last, so that no event of this round is taken for one of a new socket with an old number.
        if knock:
            self._accept()
        self._flush()
        self._tend()
        return True

    def _patience(self) -> float:
        if self._turn and len(self._waiting) < _BACKLOG:
            return 0
        times = [next(iter(self._lingering.values()))] if self._lingering else []
        if self._starved:
            times.append(self._starved)
        return max(0.0, min(times) - time.monotonic()) if times else -1

    def _tend(self) -> None:
        now = time.monotonic() if self._lingering or self._starved else 0.0
        while self._lingering and next(iter(self._lingering.values())) <= now:
            self._close(next(iter(self._lingering)), abort=True)
        if self._starved and self._starved <= now:
            self._starved = 0.0
        room = len(self._sockets) < self._limit and len(self._waiting) < _BACKLOG and not self._starved
        if room != self._listening:
            self._listening = room
            self._poll.modify(self._door, _IN if room else 0)

    def _flush(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._out, self._waiting)]
        except BlockingIOError:
            pass
        if bool(self._waiting) != self._clogged:
            self._clogged = not self._clogged
            self._poll.modify(self._out, _OUT_READY if self._clogged else 0)

    def _accept(self) -> None:
        while len(self._sockets) < self._limit and len(self._waiting) < _BACKLOG:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _STARVED:
                    self._starved = time.monotonic() + _STARVED_S
                    return
                continue
            sock.setblocking(False)
            try:
                self._poll.register(sock.fileno(), _EDGES)
            except OSError:
                sock.close()
                self._starved = time.monotonic() + _STARVED_S
                return
            self._last = self._last % 0xFFFFFFFF + 1
            while self._last in self._streams:
                self._last = self._last % 0xFFFFFFFF + 1
            stream = _Stream(sock, self._last)
            self._streams[stream.number] = self._sockets[stream.fd] = stream
            self._waiting += line(OPEN, stream.number)

    def _happened(self, stream: _Stream, event: int) -> None:
        if event & _ERR and stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close(stream, abort=True)
            return
        if event & (_RDHUP | _HUP):
            stream.hung = True
        if event & (_IN | _RDHUP | _HUP):
            stream.readable = True
            self._queue(stream)
        if event & _OUT_READY and stream.out:
            self._deliver(stream)

    def _queue(self, stream: _Stream) -> None:
        idle = stream.queued or stream.eof or stream.closed or not stream.readable
        if not idle and (stream.credit or not stream.known):
            stream.queued = True
            self._turn.append(stream)

    def _read(self, stream: _Stream) -> None:
        stream.queued = False
        if stream.closed:
            return
        # What comes after the host has done with it is thrown away: unread, it would destroy the host's last words.
        room = min(PAYLOAD, stream.credit) if stream.known else PAYLOAD
        try:
            data = stream.sock.recv(room)
        except BlockingIOError:
            stream.readable = False
            return
        except OSError:
            self._close(stream, abort=True)
            return
        if not data:
            stream.eof = True
            if stream.known:
                self._waiting += line(EOF, stream.number)
            self._settle(stream)
            return
        if stream.known:
            stream.credit -= len(data)
            self._waiting += line(DATA, stream.number, data)
        # Fewer bytes than asked for were all, and the next ones make an event; the end that was told already does not.
        if len(data) < room and not stream.hung:
            stream.readable = False
        self._queue(stream)

    def _receive(self) -> bool:
        try:
            data = os.read(self._in, 262144)
        except BlockingIOError:
            return True
        for kind, number, payload in self._decoder.feed(data):
            stream = self._streams.get(number)
            # One that the guest closed while the host still wrote to it.
            if stream is None:
                continue
            if kind == DATA:
                stream.out += payload
                if len(stream.out) == len(payload):
                    self._deliver(stream)
            elif kind == WINDOW:
                stream.credit += _CREDIT.unpack(payload)[0]
                self._queue(stream)
            elif kind == EOF:
                stream.finished = True
                self._settle(stream)
            elif stream.finished:
                self._forget(stream)
                self._settle(stream)
                self._queue(stream)
            else:
                self._close(stream, abort=True)
        return bool(data)

    def _deliver(self, stream: _Stream) -> None:
        try:
            sent = stream.sock.send(stream.out)
        except BlockingIOError:
            return
        except OSError:
            self._close(stream, abort=True)
            return
        del stream.out[:sent]
        stream.grant += sent
        if stream.known and not stream.finished and stream.grant >= GUEST_WINDOW // 4:
            self._waiting += line(WINDOW, stream.number, _CREDIT.pack(stream.grant))
            stream.grant = 0
        self._settle(stream)

    def _settle(self, stream: _Stream) -> None:
        if stream.finished and not stream.out and not stream.shut:
            stream.shut = True
            try:
                stream.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._close(stream, abort=True)
                return
        if stream.shut and stream.eof:
            self._close(stream, abort=False)
        elif stream.shut and not stream.known:
            self._lingering[stream] = time.monotonic() + _LINGER_S

    def _forget(self, stream: _Stream) -> None:
        if stream.known:
            stream.known = False
            del self._streams[stream.number]
            self._waiting += line(RESET, stream.number)

    def _close(self, stream: _Stream, *, abort: bool) -> None:
        if stream.closed:
            return
        self._forget(stream)
        stream.closed = True
        stream.out = bytearray()
        del self._sockets[stream.fd]
        self._lingering.pop(stream, None)
        self._starved = 0.0
        if abort:
            # A program must not take what was cut off for what was complete.
            stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        stream.sock.close()


def _limit() -> int:
    """Return how many connections there may be, with as many open files as can be had."""
    try:
        # An interpreter can be built without it.
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_STREAMS + _SPARE_FILES
        if 0 <= soft < wanted:
            soft = wanted if hard < 0 else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return MAX_STREAMS if soft < 0 else max(1, min(MAX_STREAMS, soft - _SPARE_FILES))
    except (ImportError, OSError, ValueError):
        return MAX_STREAMS // 4


def _fail(code: int, text: str) -> int:
    sys.stderr.write(f"cedarbox relay: {text}\n")
    return code


def main(arguments: list[str]) -> int:
    """Listen, carry until the host ends it, and return the exit status.

    Args:
        arguments: The port, 1 to 65535; none is 3128, and 0 is one that the system chooses.
    """
    given = arguments[0] if arguments else "3128"
    if len(arguments) > 1 or not (given.isdigit() and given.isascii() and int(given) < 65536):
        return _fail(2, "expected one port, 0 to 65535, and not {!r}".format(" ".join(arguments)))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Linux hands this on to what is accepted.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind(("127.0.0.1", int(given)))
        listener.listen(MAX_STREAMS)
    except OSError as error:
        return _fail(1, f"cannot listen on 127.0.0.1:{given}: {error.strerror}")
    listener.setblocking(False)
    try:
        os.set_blocking(0, False)
        os.set_blocking(1, False)
        relay = Relay(listener, 0, 1, _limit())
    except OSError as error:
        return _fail(1, f"standard input and output must be pipes: {error.strerror}")
    try:
        relay.run()
    except ValueError as error:
        return _fail(3, str(error))
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
