"""The Merkle tree of RFC 6962 §2.1, grown leaf by leaf."""

from __future__ import annotations

from hashlib import sha256

__all__ = ["Tree"]


class Tree:
    """A tree that keeps the roots of its full subtrees only: about 32 bytes times the logarithm of its size."""

    __slots__ = ("_roots", "size")

    def __init__(self) -> None:
        self._roots: list[bytes] = []
        self.size = 0

    def append(self, leaf: bytes) -> None:
        """Add a leaf.

        Args:
            leaf: Its leaf hash, 32 bytes.
        """
        roots, size = self._roots, self.size
        while size & 1:
            leaf = sha256(b"\x01" + roots.pop() + leaf).digest()
            size >>= 1
        roots.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Give the tree head for the current size; SHA-256 of nothing when empty."""
        if not self._roots:
            return sha256().digest()
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = sha256(b"\x01" + left + root).digest()
        return root
