"""Words that several rules put together."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed"]


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence has them, such as ``a, b and c``.

    Args:
        names: At least one.
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
