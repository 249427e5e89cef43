"""From pairs of versions to their plans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from cedarbox.review.diff.compared import Compared, Incomparable, compared
from cedarbox.review.diff.plan import Plan, plan
from cedarbox.review.prove import Answer, Progress, Query, Searcher
from cedarbox.review.version import Pair

__all__ = ["plans"]


def plans(
    pairs: Sequence[Pair],
    prover: Callable[[str], AbstractContextManager[Searcher]],
    progress: Progress | None = None,
) -> tuple[Plan | Incomparable, ...]:
    """Make the plan of each pair.

    Args:
        pairs: What to compare.
        prover: Makes a prover for a schema, which is used until all is done. It is made when something must be proved.
        progress: Told of each search that is done.

    Raises:
        BundleError: A new version cannot be loaded.
    """
    found: list[Plan | Incomparable] = []
    with ExitStack() as opened:
        provers: dict[str, Searcher] = {}
        for pair in pairs:
            each = compared(pair)
            if isinstance(each, Compared):
                searcher = _Lazy(each.schema, prover, provers, opened)
                found.append(plan(each, searcher, progress))
            else:
                found.append(each)
    return tuple(found)


class _Lazy:
    """Makes the prover of a schema when the first search comes."""

    def __init__(
        self,
        schema: str,
        prover: Callable[[str], AbstractContextManager[Searcher]],
        provers: dict[str, Searcher],
        opened: ExitStack,
    ) -> None:
        self._schema, self._prover, self._provers, self._opened = schema, prover, provers, opened

    def search_all(self, queries: Sequence[Query], progress: Progress | None = None) -> Sequence[Answer]:
        if self._schema not in self._provers:
            self._provers[self._schema] = self._opened.enter_context(self._prover(self._schema))
        return self._provers[self._schema].search_all(queries, progress)
