"""The Merkle tree of RFC 6962 §2.1, grown leaf by leaf, and the inclusion proofs of §2.1.1."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Self

__all__ = ["Tree", "inclusion_path", "root_from_path"]


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

    def extend(self, leaves: Sequence[bytes]) -> None:
        """Add leaves; they are hashed level by level, which is faster than leaf by leaf."""
        level, size, ends = list(leaves), self.size, list[bytes]()
        self.size += len(level)
        while level:
            if size & 1:
                level.insert(0, self._roots.pop())
            if len(level) & 1:
                ends.append(level.pop())
            level = [
                sha256(b"\x01" + left + right).digest() for left, right in zip(level[::2], level[1::2], strict=True)
            ]
            size >>= 1
        self._roots += reversed(ends)

    def root(self) -> bytes:
        """Give the tree head for the current size; SHA-256 of nothing when empty."""
        if not self._roots:
            return sha256().digest()
        root = self._roots[-1]
        for left in reversed(self._roots[:-1]):
            root = sha256(b"\x01" + left + root).digest()
        return root

    def copy(self) -> Self:
        """Give a tree of the same leaves that grows on its own."""
        other = type(self)()
        other._roots, other.size = self._roots.copy(), self.size
        return other


def inclusion_path(leaves: Iterable[bytes], index: int, size: int) -> list[bytes]:
    """Make the inclusion proof of a leaf in one pass, without keeping the leaves.

    Args:
        leaves: Leaf hashes, at least ``size`` of them; those after are not looked at.
        index: The leaf, from 0.
        size: Size of the tree.

    Returns:
        The audit path of RFC 6962 §2.1.1, the node next to the leaf first.

    Raises:
        ValueError: There is no such leaf, or there are fewer leaves.
    """
    if not 0 <= index < size:
        raise ValueError("there is no such leaf in a tree of this size")
    ranges = _siblings(index, size)
    ordered = sorted(ranges)
    roots: dict[tuple[int, int], bytes] = {}
    place, tree, seen = 0, Tree(), 0
    for number, leaf in enumerate(leaves):
        if number == size:
            break
        seen += 1
        if place < len(ordered) and ordered[place][0] <= number:
            tree.append(leaf)
            if number + 1 == ordered[place][1]:
                roots[ordered[place]] = tree.root()
                place, tree = place + 1, Tree()
    if seen < size:
        raise ValueError("there are fewer leaves")
    return [roots[each] for each in ranges]


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Compute the root that an inclusion proof leads to; None when it does not have the length that it must have."""
    ranges = _siblings(index, size) if 0 <= index < size else []
    if len(ranges) != len(path) or not 0 <= index < size:
        return None
    root = leaf
    for (begin, _), node in zip(ranges, path, strict=True):
        root = sha256(b"\x01" + (node + root if begin < index else root + node)).digest()
    return root


def _siblings(index: int, size: int) -> list[tuple[int, int]]:
    """Give the leaves under each node of the path, the node next to the leaf first."""
    begin, end = 0, size
    ranges = []
    while end - begin > 1:
        middle = begin + (1 << ((end - begin - 1).bit_length() - 1))
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    return ranges[::-1]
