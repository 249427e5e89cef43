"""Asks the prover what the rules leave open, within a time, and says what was not asked and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from cedarbox.review.lint.context import Context
from cedarbox.review.lint.exercise import exercise
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.questions import Question, questions
from cedarbox.review.prove import Answer, Prover, answers_of, available, environments
from cedarbox.review.syntax import schema_json

__all__ = ["Proved", "Wanted", "asks", "open_questions", "prove"]

_SHOWN: Final = 400
_ALSO: Final = frozenset({"S003"})  # It looks at the text, and asks about what the text does not show.


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the prover is used.

    Attributes:
        ask: Whether it is asked at all.
        limit_s: How long all questions together may take, in seconds.
        progress: Called with how many searches are done, and how many there are.
    """

    ask: bool = True
    limit_s: float = 30.0
    progress: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True)
class Proved:
    """What came of it.

    Attributes:
        pairs: The hits, with those of the prover, without those that it has proved to be none.
        ran: It was asked, so a rule that it answers for has said all that it has to say.
        undecided: Questions that have no answer, each in a line.
        notes: What a reader must know.
        asked: How many questions there were.
        seconds: How long they took.
        unproved: Ids of the rules that it was to be asked for and was not, sorted.
        open: Rule and policy of each question that has no answer.
    """

    pairs: list[tuple[LintRule, Hit]]
    ran: bool
    undecided: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    asked: int = 0
    seconds: float = 0.0
    unproved: tuple[str, ...] = ()
    open: frozenset[tuple[str, str]] = frozenset()


def asks(rule: LintRule) -> bool:
    """Whether the prover is asked what a rule leaves open."""
    return rule.how == "prover" or rule.id in _ALSO


def prove(context: Context, rules: Sequence[LintRule], pairs: list[tuple[LintRule, Hit]], wanted: Wanted) -> Proved:
    """Ask the prover what is open.

    Args:
        context: What was looked at.
        rules: The rules that were run.
        pairs: What they found.
        wanted: How to ask.
    """
    by_id = {rule.id: rule for rule in rules if asks(rule)}
    open_before = tuple(each.told for each in context.open)
    if not by_id:
        return Proved(pairs, ran=False)
    names = ", ".join(sorted(by_id))
    if not wanted.ask or (missing := available()):
        why = "the prover was switched off" if not wanted.ask else missing
        notes = (f"not proved: {names}: {why}",)
        return Proved(pairs, ran=False, undecided=open_before, notes=notes, unproved=tuple(sorted(by_id)))
    begun = time.monotonic()
    if context.subject.bundle is not None:
        exercise(context)
    asked = [each for each in _questions(context, pairs) if each.rule in by_id]
    if not asked:
        return Proved(pairs, ran=True)
    answers = _answers(context, asked, wanted)
    return replace(_judged(pairs, by_id, asked, answers), asked=len(asked), seconds=round(time.monotonic() - begun, 3))


def open_questions(context: Context, pairs: Sequence[tuple[LintRule, Hit]]) -> frozenset[tuple[str, str]]:
    """Return the rule and the policy of everything that the prover would be asked.

    Args:
        context: What was looked at.
        pairs: What the rules found.
    """
    return frozenset((each.rule, each.policy.id) for each in _questions(context, pairs))


def _questions(context: Context, pairs: Sequence[tuple[LintRule, Hit]]) -> Iterator[Question]:
    found = frozenset((rule.id, hit.policy.id) for rule, hit in pairs if hit.policy is not None)
    return questions(context, found, environments(schema_json(context.subject.schema)))


def _answers(context: Context, asked: Sequence[Question], wanted: Wanted) -> list[list[Answer]]:
    """Return the answers to each question; fewer than its searches where the time was over, or one was enough."""
    with Prover(context.subject.schema, time_limit_s=max(0.1, min(10.0, wanted.limit_s))) as prover:
        queries = [question.queries for question in asked]
        return answers_of(prover, queries, within_s=wanted.limit_s, progress=wanted.progress)


def _judged(
    pairs: list[tuple[LintRule, Hit]],
    by_id: dict[str, LintRule],
    asked: Sequence[Question],
    answers: Sequence[Sequence[Answer]],
) -> Proved:
    made = list(pairs)
    undecided: list[str] = []
    left_open = set()
    for number, question in enumerate(asked):
        got = answers[number]
        witness = next((answer.witness for answer in got if answer.verdict == "found"), None)
        whole = len(got) == len(question.queries)
        none = whole and all(answer.verdict == "none" for answer in got)
        if witness is None and not none:
            why = next((answer.why for answer in got if answer.verdict == "undecided"), "the time was over")
            undecided.append(f"{question.rule} {question.policy.id}: {question.unknown}: {why}"[:_SHOWN])
            left_open.add((question.rule, question.policy.id))
            continue
        if question.drops:
            if none:
                made = [
                    (rule, hit) for rule, hit in made if rule.id != question.rule or hit.policy is not question.policy
                ]
            continue
        if (question.tells == "none") is not none:
            continue
        told, details = question.message, {}
        if witness is not None:
            told, details = f"{told}: {witness.told()}"[:_SHOWN], {"witness": witness.to_json()}
        hit = Hit(told, question.policy, hint=question.hint, key=question.key, details=details)
        made.append((by_id[question.rule], hit))
    return Proved(made, ran=True, undecided=tuple(undecided), open=frozenset(left_open))
