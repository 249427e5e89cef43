"""One stream of a command, decoded up to the marker that ends it; and why a command's result cannot be had."""

from __future__ import annotations

import binascii
from typing import Final, Protocol

__all__ = ["MAX_OUTPUT_BYTES", "GuestFailure", "GuestRefusal", "MarkedStream", "OutputTooLarge", "Sink"]

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
"""Bytes of one stream that a command may write into memory; beyond, it is killed."""


class GuestFailure(Exception):
    """The command could not be run, or its end is unknown.

    Args:
        reason: Why, in one line.
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class GuestRefusal(GuestFailure):
    """cedarbox itself did not run the command. BoxLite was not asked, so it certainly did not start."""


class OutputTooLarge(GuestFailure):
    """The command wrote more than :data:`MAX_OUTPUT_BYTES` to one stream. It was killed."""


class Sink(Protocol):
    """Takes bytes as they come."""

    def write(self, data: bytes, /) -> object:
        """Take some bytes."""
        ...


class MarkedStream:
    """Decodes one stream up to its marker.

    Args:
        marker: The marker, as bytes.
        sink: Where the decoded bytes go; ``None`` collects at most :data:`MAX_OUTPUT_BYTES` in memory.
    """

    def __init__(self, marker: bytes, sink: Sink | None = None) -> None:
        self._marker, self._sink = marker, sink
        self._line = ""
        self._held = bytearray()
        self._total = 0
        self.data = bytearray()
        self.trailer: bytes | None = None
        self.ended = False
        self.received = 0

    @property
    def done(self) -> bool:
        """Whether the marker and its line were seen."""
        return self.trailer is not None

    @property
    def to_sink(self) -> bool:
        """Whether the bytes go to a sink."""
        return self._sink is not None

    def rest(self) -> bytes:
        """Return everything collected, when the stream ended without its marker."""
        self._emit(self._held)
        self._held = bytearray()
        return bytes(self.data)

    def feed(self, piece: str) -> None:
        """Take a piece of the encoded stream.

        Raises:
            GuestFailure: A line is not base64.
            OutputTooLarge: More was collected than fits.
        """
        if self.done:
            return
        self.received += len(piece)
        if "#" in piece:
            # One byte of the script's, anywhere between those of base64.
            self.ended = True
            piece = piece.replace("#", "")
        *lines, self._line = (self._line + piece).split("\n")
        decoded = bytearray()
        for line in lines:
            if line.startswith("!"):
                raise GuestFailure("the image lacks base64")
            try:
                decoded += binascii.a2b_base64(line, strict_mode=True)
            except binascii.Error:
                raise GuestFailure(f"the guest sent a line that is not base64: {line[:80]!r}") from None
        if decoded:
            self._take(decoded)

    def _take(self, decoded: bytearray) -> None:
        held = self._held
        start = max(0, len(held) - len(self._marker))
        held += decoded
        at = held.find(self._marker, start)
        if at >= 0:
            end = held.find(b"\n", at)
            if end < 0:
                return
            self._emit(held[:at])
            self.trailer = bytes(held[at + len(self._marker) : end])
            self._held = bytearray()
            return
        keep = len(self._marker) + 8
        if len(held) > keep:
            self._emit(held[:-keep])
            self._held = held[-keep:]

    def _emit(self, data: bytearray) -> None:
        self._total += len(data)
        if self._sink is not None:
            self._sink.write(bytes(data))
            return
        if self._total > MAX_OUTPUT_BYTES:
            raise OutputTooLarge(f"the command wrote more than {MAX_OUTPUT_BYTES} bytes")
        self.data += data
