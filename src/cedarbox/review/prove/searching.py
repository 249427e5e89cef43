"""What searches for requests: a prover, one that is made when it is needed, one beside which another is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cedarbox.review.prove.answers import Answer
from cedarbox.review.prove.goals import Query

__all__ = ["Limited", "Progress", "Searcher", "Unavailable", "answers_of"]

_BATCH: Final = 16  # Queries; between two batches those that need no answer any more are left out.

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


class Limited(Protocol):
    """What searches for requests within a time: :class:`cedarbox.review.prove.Prover`."""

    def search_all(
        self, queries: Sequence[Query], progress: Progress | None = None, *, within_s: float = math.inf
    ) -> Sequence[Answer]:
        """Return the answer to each query, in their order; *undecided* for what the time was too short for."""
        ...


def answers_of(
    prover: Limited,
    asked: Sequence[Sequence[Query]],
    *,
    within_s: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Answer]]:
    """Return the answers to the queries of each question.

    One request that is found answers a question, so the rest of its queries are not asked then, and none is where the
    time is over: such a question has fewer answers than queries.

    Args:
        prover: Answers them.
        asked: The queries of each question.
        within_s: How long all may take, in seconds.
        progress: Called with how many queries need no answer any more, and how many there are.
    """
    waiting = [(number, query) for number, queries in enumerate(asked) for query in queries]
    answers: list[list[Answer]] = [[] for _ in asked]
    begun, total = time.monotonic(), len(waiting)
    while waiting and (left := within_s - (time.monotonic() - begun)) > 0:
        batch, waiting = waiting[:_BATCH], waiting[_BATCH:]
        found = prover.search_all([query for _, query in batch], within_s=left)
        for (number, _), answer in zip(batch, found, strict=True):
            answers[number].append(answer)
        waiting = [
            (number, query) for number, query in waiting if not any(each.verdict == "found" for each in answers[number])
        ]
        if progress is not None:
            progress(total - len(waiting), total)
    return answers
