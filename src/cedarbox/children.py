"""What a forked child must not keep: a lock of flock(2) lives as long as any copy of its file is open."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

__all__ = ["Owner", "not_in_children"]


class Owner(Protocol):
    """Something that has files open."""

    def let_go(self) -> None:
        """Close the copies that a forked child has, without touching the locks that its parent has."""


_OWNERS: Final[weakref.WeakSet[Owner]] = weakref.WeakSet()


def not_in_children(owner: Owner) -> None:
    """Have an owner let go in every child that is forked while it lives.

    Args:
        owner: It is not kept alive by this.
    """
    _OWNERS.add(owner)


def _let_go() -> None:
    for owner in list(_OWNERS):
        owner.let_go()


# Once for all owners: what is registered with the interpreter stays there as long as the process lives.
os.register_at_fork(after_in_child=_let_go)
