"""Says which of the names that there are may be meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

__all__ = ["nearest"]

_MOST: Final = 16


def nearest(wanted: str, names: Sequence[str]) -> str:
    """Return the nearest name and, up to 16, those that there are; empty where there are none.

    Args:
        wanted: What was written; case does not count, nor what is before the last ``::`` where nothing else is near.
        names: The names, in the order to list them.
    """
    if not names:
        return ""
    folded = {name.casefold(): name for name in names}
    lasts = {name.rpartition("::")[2]: name for name in folded}
    near = [folded[name] for name in get_close_matches(wanted.casefold(), folded, 1)] or [
        folded[lasts[name]] for name in get_close_matches(wanted.casefold().rpartition("::")[2], lasts, 1)
    ]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return f"{f'did you mean {near[0]}? ' if near else ''}known: {', '.join(names[:_MOST])}{more}"
