"""Searches for a request for which a goal is so, or proves that there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any

import cedarpy

from cedarbox.policy.schema import schema_text as packaged_schema
from cedarbox.review.prove import solvers as solving
from cedarbox.review.prove.answers import Answer, Witness
from cedarbox.review.prove.concrete import request_of
from cedarbox.review.prove.goals import Environment, Goal, Query, Side
from cedarbox.review.prove.models import SolverModel, read_values
from cedarbox.review.prove.patterns import UnsupportedError
from cedarbox.review.prove.problem import Problem
from cedarbox.review.prove.replay import Replayer, ReplayError
from cedarbox.review.prove.simplify import simplified
from cedarbox.review.prove.smt import Script, grounded, script
from cedarbox.review.prove.terms import Term, Terms, reachable
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values
from cedarbox.review.prove.worlds import World

__all__ = ["Prover"]

Progress = Callable[[int, int, Query, Answer], None]
"""Called with how many are done, how many there are, the query and its answer."""


class Prover:
    """Answers queries about policies.

    Use it as a context manager: it ends the solvers that it started.

    Args:
        schema_text: Text of the schema, in Cedar's own syntax.
        time_limit_s: How long one solver may take for one query, in seconds.
        second_opinion: Ask every installed solver; an answer counts only when they agree.
        workers: How many solvers run at once.
        schema: The same schema in Cedar's JSON form, resolved; None to read it from the text.
    """

    def __init__(
        self,
        schema_text: str,
        *,
        time_limit_s: float = 10.0,
        second_opinion: bool = False,
        workers: int = 2,
        schema: Mapping[str, Any] | None = None,
    ) -> None:
        self._types = SchemaTypes(_resolved(schema_text) if schema is None else schema)
        self._schema = cedarpy.Schema.from_str(schema_text)
        self._is_ours = schema_text == packaged_schema()
        self._limit_s, self._second_opinion, self._workers = time_limit_s, second_opinion, workers
        self._solvers = solving.Solvers(workers)
        self._installed = solving.installed()

    def __enter__(self) -> Prover:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the solvers."""
        self._solvers.close()

    def search(self, goal: Goal, environment: Environment, sides: Mapping[str, Side]) -> Answer:
        """Search for a request for which a goal is so.

        Args:
            goal: The goal.
            environment: The kind of request.
            sides: What it is about, by name.

        Returns:
            ``found`` with a request that Cedar itself decided so, ``none`` when there is proved to be none, or
            ``undecided``.

        Raises:
            KeyError: The goal names a side or a policy that there is not.
            ValueError: Some sides are bundles and others are not, or a link of a template cannot be filled in.
        """
        begun = time.monotonic()
        try:
            answer = self._search(goal, environment, sides)
        except UnsupportedError as error:
            answer = Answer("undecided", why=f"{error} is not encoded")
        except RecursionError:
            answer = Answer("undecided", why="an expression is nested too deeply")
        return replace(answer, seconds=time.monotonic() - begun)

    def search_all(self, queries: Sequence[Query], progress: Progress | None = None) -> list[Answer]:
        """Answer many queries, several at once.

        Args:
            queries: The queries.
            progress: Called after each answer.

        Returns:
            The answers, in the order of the queries.
        """
        done = 0

        def one(query: Query) -> Answer:
            return self.search(query.goal, query.environment, query.sides)

        answers = []
        with ThreadPoolExecutor(self._workers) as pool:
            for query, answer in zip(queries, pool.map(one, queries), strict=True):
                answers.append(answer)
                done += 1
                if progress is not None:
                    progress(done, len(queries), query, answer)
        return answers

    def _search(self, goal: Goal, environment: Environment, sides: Mapping[str, Side]) -> Answer:
        values = Values(Terms(), self._types)
        world = World(values)
        problem = Problem(values, environment, sides, dict.fromkeys(sides, world), tuple(sides))
        term = simplified(values.terms, problem.term(goal))
        if term is values.terms.false:
            return Answer("none", solver="simplification")
        if not self._installed:
            return Answer("undecided", why=solving.available())
        written = script(grounded(values, term))
        skipped = _skipped(problem, [term])
        return self._solved(goal, environment, sides, written, skipped)

    def _solved(
        self, goal: Goal, environment: Environment, sides: Mapping[str, Side], written: Script, skipped: str
    ) -> Answer:
        replayer = Replayer(self._schema, self._types, environment, sides)
        spent, why, refuted = 0.0, [], []
        leaves = list(written.leaves)
        for name in self._installed:
            solved = self._solvers.solve(name, written.text, list(written.leaves.values()), self._limit_s)
            spent += solved.seconds
            if solved.result == "unsat":
                refuted.append(name)
                if not self._second_opinion or len(refuted) == len(self._installed):
                    return Answer("none", solver="+".join(refuted), solver_seconds=spent)
                continue
            if solved.result == "unknown":
                why.append(f"{name}: {solved.why}")
                continue
            try:
                request, entities = request_of(
                    self._types, environment, SolverModel(leaves, read_values(solved.values))
                )
                so, replays = replayer.check(goal, request, entities)
            except (ReplayError, ValueError) as error:
                why.append(f"{name} found a request that Cedar does not take: {error}")
                continue
            if so:
                witness = Witness(
                    request["principal"], request["action"], request["resource"], request["context"], entities, replays
                )
                return Answer("found", witness, solver=name, solver_seconds=spent)
            why.append(skipped or f"{name} found a request that Cedar decides otherwise")
        if refuted:
            why.append(f"{' and '.join(refuted)} found none")
        return Answer("undecided", why="; ".join(why), solver_seconds=spent)


def _skipped(problem: Problem, terms: Sequence[Term]) -> str:
    known = problem.skipped()
    found = dict.fromkeys(known[term.value] for term in reachable(terms) if term.op == "var" and term.value in known)
    return "; ".join(found)


def _resolved(schema_text: str) -> Mapping[str, Any]:
    from cedarbox.review.syntax import schema_json

    return schema_json(schema_text)
