"""What searches for requests: a prover, one that is made when it is needed, one beside which another is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from cedarbox.review.prove.answers import Answer
from cedarbox.review.prove.goals import Query

__all__ = ["Progress", "Searcher", "Unavailable"]

Progress = Callable[[int, int, Query, Answer], None]
"""Called with how many are done, how many there are, the query and its answer."""


class Searcher(Protocol):
    """What searches for requests: :class:`cedarbox.review.prove.Prover`."""

    def search_all(self, queries: Sequence[Query], progress: Progress | None = None) -> Sequence[Answer]:
        """Return the answer to each query, in their order."""
        ...


class Unavailable:
    """Stands for a prover where no solver is installed: nothing is decided.

    Args:
        why: What to do about it.
    """

    def __init__(self, why: str) -> None:
        self._why = why

    def search_all(self, queries: Sequence[Query], progress: Progress | None = None) -> Sequence[Answer]:
        """Return for each query that it is undecided."""
        del progress
        return [Answer("undecided", why=self._why) for _ in queries]
