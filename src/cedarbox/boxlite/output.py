"""What a process wrote and nobody has read yet, in bounded memory."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["HEAD_BYTES", "TAIL_BYTES", "HeldOutput"]

HEAD_BYTES: Final = 4 * 1024 * 1024
"""Bytes of unread output that are kept from its beginning."""

TAIL_BYTES: Final = 4 * 1024 * 1024
"""Bytes of unread output that are kept from its end."""

_BLOCK_BYTES: Final = 64 * 1024


class HeldOutput:
    """Holds output until it is taken: all of it, or its beginning and its end with the number of bytes between.

    A process is never stopped from writing. BoxLite delivers whole characters (measured on BoxLite 0.10.8), so what is
    kept is cut between characters as long as every piece is whole.

    Args:
        head: Bytes kept from the beginning; at least one piece of output is.
        tail: Bytes kept from the end, in blocks of 64 KiB: up to one block less.
    """

    def __init__(self, head: int = HEAD_BYTES, tail: int = TAIL_BYTES) -> None:
        self._head_bytes, self._tail_bytes = head, tail
        self._head = bytearray()
        self._tail: deque[bytearray] = deque()
        self._in_tail = 0
        self._dropped = 0
        self.received = 0

    def add(self, piece: bytes) -> None:
        """Take a piece of output."""
        self.received += len(piece)
        if not self._tail and len(self._head) < self._head_bytes:
            self._head += piece
            return
        if not self._tail or len(self._tail[-1]) >= _BLOCK_BYTES:
            self._tail.append(bytearray())
        self._tail[-1] += piece
        self._in_tail += len(piece)
        while self._in_tail > self._tail_bytes and len(self._tail) > 1:
            gone = len(self._tail.popleft())
            self._in_tail -= gone
            self._dropped += gone

    def take(self) -> bytes:
        """Return what is held and forget it. A line in the middle says how many bytes were dropped."""
        notice = b""
        if self._dropped:
            notice = f"\n[cedarbox: {self._dropped} bytes of output were dropped here: nobody read them]\n".encode()
        taken = bytes(self._head) + notice + b"".join(self._tail)
        self._head.clear()
        self._tail.clear()
        self._in_tail = self._dropped = 0
        return taken
