"""The frames between the relay and the host, as the host writes and reads them: strictly.

What the frames are stands in :mod:`cedarbox.egress.relay`, which runs in the guest and therefore imports nothing of
this package. The relay is not trusted, so nothing is taken from it that the relay that ships would not send.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from cedarbox.egress import relay
from cedarbox.errors import CedarboxError

__all__ = ["MAX_LINE", "ChannelError", "Frame", "FrameDecoder", "credit_of", "head", "hello", "window"]

_HEAD: Final = struct.Struct(">BIH")
_HELLO: Final = struct.Struct(">HH")
_CREDIT: Final = struct.Struct(">I")

MAX_LINE: Final = -(-(_HEAD.size + relay.PAYLOAD) // 3) * 4
"""Characters of the longest line that the relay sends, without its end: base64 of a frame with a full payload."""

# Type to the shortest and the longest payload.
_LENGTHS: Final = {
    relay.HELLO: (_HELLO.size, _HELLO.size),
    relay.OPEN: (0, 0),
    relay.DATA: (1, relay.PAYLOAD),
    relay.EOF: (0, 0),
    relay.RESET: (0, 0),
    relay.WINDOW: (_CREDIT.size, _CREDIT.size),
}


class ChannelError(CedarboxError):
    """The relay broke the protocol, or cannot be reached: its channel is over, with every connection on it.

    Args:
        reason: What it did, in one line.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the relay of the guest {reason}", hint="its connections are closed; start it again")
        self.reason = reason


class Frame(NamedTuple):
    """One frame of the relay.

    Attributes:
        kind: Its type, one of those of :mod:`cedarbox.egress.relay`.
        stream: Its stream; 0 for ``HELLO`` alone.
        payload: As long as a frame of this type may be.
    """

    kind: int
    stream: int
    payload: bytes


def head(kind: int, stream: int, length: int = 0) -> bytes:
    """Return what goes before the payload of a frame to the guest; the payload follows as it is."""
    return _HEAD.pack(kind, stream, length)


def window(stream: int, credit: int) -> bytes:
    """Return a whole ``WINDOW`` to the guest, for so many more bytes."""
    return _HEAD.pack(relay.WINDOW, stream, _CREDIT.size) + _CREDIT.pack(credit)


def credit_of(frame: Frame) -> int:
    """Return how many bytes a ``WINDOW`` grants; at least one.

    Raises:
        ChannelError: It grants none.
    """
    (credit,) = _CREDIT.unpack(frame.payload)
    if not credit:
        raise ChannelError("granted a window of no bytes")
    return int(credit)


def hello(frame: Frame) -> int:
    """Return the port on which a relay listens, from its first frame.

    Raises:
        ChannelError: The frame is no ``HELLO``, of another version, or without a port.
    """
    if frame.kind != relay.HELLO:
        raise ChannelError(f"began with a frame of type {frame.kind} instead of a greeting")
    version, port = _HELLO.unpack(frame.payload)
    if version != relay.VERSION:
        raise ChannelError(f"speaks version {version} of the protocol and not {relay.VERSION}")
    if not port:
        raise ChannelError("listens on port 0")
    return int(port)


class FrameDecoder:
    """Takes frames out of text that arrives in pieces of any size; holds at most one line of it."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, text: str) -> Iterator[Frame]:
        """Yield the frames that are complete with this piece. The iterator must be used up before the next piece.

        Raises:
            ChannelError: A line is no frame.
        """
        # What is not ASCII becomes a question mark, which is not base64 either.
        first, *rest = text.encode("ascii", "replace").split(b"\n")
        self._held += first
        for following in rest:
            line, self._held = self._held, bytearray(following)
            yield _frame(line)
        if len(self._held) > MAX_LINE:
            raise ChannelError(f"sent a line of more than {MAX_LINE} characters")


def _frame(line: bytearray) -> Frame:
    if len(line) > MAX_LINE:
        raise ChannelError(f"sent a line of more than {MAX_LINE} characters")
    try:
        data = binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error:
        raise ChannelError("sent a line that is not base64") from None
    if len(data) < _HEAD.size:
        raise ChannelError(f"sent a frame of {len(data)} bytes, which is shorter than its head")
    kind, stream, length = _HEAD.unpack_from(data)
    shortest, longest = _LENGTHS.get(kind, (-1, -1))
    if longest < 0:
        raise ChannelError(f"sent a frame of the unknown type {kind}")
    if length != len(data) - _HEAD.size:
        raise ChannelError(f"sent a frame of {len(data) - _HEAD.size} bytes that says {length}")
    if not shortest <= length <= longest:
        raise ChannelError(f"sent a frame of type {kind} with {length} bytes")
    if (stream == 0) != (kind == relay.HELLO):
        raise ChannelError(f"sent a frame of type {kind} for stream {stream}")
    return Frame(kind, stream, data[_HEAD.size :])
