"""A second encoder: each question is put to Cedar's own symbolic compiler too, as far as it can be.

The question is put to both in plain Cedar, where a policy that fails is skipped and entities are free: that compiler
knows nothing else. So its word is about the encoding of policies, not about what a bundle enforces. Where they
contradict each other one of them is wrong, and nothing that rests on it is taken for proved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.review.prove.answers import Answer, Verdict
from cedarbox.review.prove.goals import Allows, And, Environment, Not, Query, Side, parts
from cedarbox.review.prove.searching import Progress, Searcher
from cedarbox.review.prove.symcc import CrossCheck, implies

__all__ = ["CrossChecked"]

_GOAL: Final = And(Allows("narrower"), Not(Allows("wider")))
_NOTHING: Final = Side({})
_SILENT: Final = "cedar symcc said nothing"
_AGREEING: Final[Mapping[str, Verdict]] = {"verified": "none", "refuted": "found"}


class CrossChecked:
    """A prover whose answers count only where the other encoder does not contradict it.

    Args:
        searcher: The prover.
        schema_text: The schema, in Cedar's own syntax.
        cedar: The ``cedar`` program.
        limit_s: After how many seconds it is ended.
    """

    def __init__(self, searcher: Searcher, schema_text: str, cedar: Path, *, limit_s: float = 120.0) -> None:
        self._searcher, self._schema, self._cedar, self._limit_s = searcher, schema_text, cedar, limit_s
        self._known: dict[tuple[object, ...], tuple[tuple[Side, Side], str, str]] = {}
        self._tally: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """What it said, beside what the prover said of the same question; one line each."""
        return tuple(f"{told} ({count} times)" if count > 1 else told for told, count in self._tally.items())

    def search_all(self, queries: Sequence[Query], progress: Progress | None = None) -> list[Answer]:
        """Answer queries; one about policies of which the two contradict each other is undecided.

        Raises:
            ConfigurationError: The program is not there, or does not answer.
        """
        answers = list(self._searcher.search_all(queries, progress))
        for place, query in enumerate(queries):
            beside = [self._asked(query.environment, sides) for sides in _pairs(query)]
            # What was found was replayed through Cedar; for that nobody's silence matters.
            silent = [why for why in beside if why.startswith(_SILENT) and answers[place].verdict == "none"]
            wrong = [why for why in beside if why and not why.startswith(_SILENT)]
            for why in (wrong + silent)[:1]:
                answers[place] = replace(answers[place], verdict="undecided", witness=None, why=why)
        return answers

    def _asked(self, environment: Environment, sides: tuple[Side, Side]) -> str:
        key = (environment, *map(id, sides))
        if key not in self._known:
            plain = [Side(side.policies, (), side.links) for side in sides]
            (ours,) = self._searcher.search_all(
                [Query(_GOAL, environment, {"narrower": plain[0], "wider": plain[1]}, "cedar symcc")]
            )
            theirs = implies(self._cedar, self._schema, environment, (plain[0], plain[1]), limit_s=self._limit_s)
            if theirs.verdict == "unknown":
                hint = "name a cedar program that was built with analyze, and a cvc5 program in the variable CVC5"
                raise ConfigurationError(f"--cedar {self._cedar}: {theirs.text}", hint=hint)
            # The sides are kept, so that no other gets their identity.
            self._known[key] = sides, *_compared(ours, theirs)
        _, told, why = self._known[key]
        self._tally[f"plain Cedar, {environment}: {told}"] += 1
        return why


def _compared(ours: Answer, theirs: CrossCheck) -> tuple[str, str]:
    if theirs.verdict == "undecided":
        told = f"{_SILENT}: {theirs.text}"
        return told, told
    told = f"cedar symcc {theirs.verdict}, cedarbox {ours.verdict}"
    if ours.verdict in ("undecided", _AGREEING[theirs.verdict]):
        return told, ""
    return told, f"the encoders contradict each other in plain Cedar: {told}"


def _pairs(query: Query) -> Iterator[tuple[Side, Side]]:
    named = [part.side for part in parts(query.goal) if isinstance(part, Allows)]
    sides = [query.sides[name] for name in dict.fromkeys(named)] or list(query.sides.values())
    if len(sides) == 1:
        yield sides[0], _NOTHING
    for one in sides:
        for other in sides:
            if one is not other:
                yield one, other
