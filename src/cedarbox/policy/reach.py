"""What can be reached in steps: groups in groups, domains in domains."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

__all__ = ["reached"]

_Thing = TypeVar("_Thing", bound=Hashable)


def reached(start: _Thing, step: Callable[[_Thing], Iterable[_Thing]]) -> frozenset[_Thing]:
    """Return all that can be reached from something, without itself.

    Args:
        start: From where.
        step: What is one step away.
    """
    seen: set[_Thing] = set()
    waiting = [start]
    while waiting:
        for each in step(waiting.pop()):
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return frozenset(seen)
