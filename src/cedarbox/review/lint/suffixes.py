"""Names below which others can register names of their own: the Public Suffix List, as its library embeds it.

Nothing is loaded until a name of two labels or more is asked about, and nothing is ever fetched.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from publicsuffixlist import PublicSuffixList

__all__ = ["why_wide"]


def why_wide(domain: str) -> str:
    """Return why a domain holds names of people who have nothing to do with each other; empty when it does not.

    Args:
        domain: A canonical name, without a leading dot.
    """
    if "." not in domain:
        return "it is a single label, such as a top-level domain"
    if _list().is_public(domain):
        return "others can register names below it (Public Suffix List)"
    return ""


@cache
def _list() -> PublicSuffixList:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList()
