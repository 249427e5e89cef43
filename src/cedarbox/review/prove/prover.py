"""Searches for a request for which a goal is so, or proves that there is none."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

import cedarpy

from cedarbox.policy.schema import schema_text as packaged_schema
from cedarbox.review.prove import canonical
from cedarbox.review.prove import solvers as solving
from cedarbox.review.prove.answers import Answer, Replay, Witness
from cedarbox.review.prove.concrete import request_of
from cedarbox.review.prove.dump import Dump, dumped
from cedarbox.review.prove.goals import Environment, Goal, Holds, PrincipalIs, Query, Side, parts
from cedarbox.review.prove.models import SolverModel, read_values
from cedarbox.review.prove.patterns import UnsupportedError
from cedarbox.review.prove.prepared import Prepared, Problems, prepared
from cedarbox.review.prove.realise import action_of
from cedarbox.review.prove.replay import Replayer, ReplayError
from cedarbox.review.prove.searching import Progress
from cedarbox.review.prove.types import SchemaTypes

__all__ = ["Prover"]

_KEPT: Final = 128
"""How many kinds of request with their sides are kept encoded."""
_OVER: Final = "the time was over"


class Prover:
    """Answers queries about policies.

    Use it as a context manager: it ends the solvers that it started. Several threads may use one.

    Args:
        schema_text: Text of the schema, in Cedar's own syntax.
        time_limit_s: How long one solver may take for one query, in seconds.
        second_opinion: Ask every installed solver; *none* counts only when all of them say so.
        workers: How many solvers run at once.
        schema: The same schema in Cedar's JSON form, resolved; None to read it from the text.
        solvers: Which solvers to ask, in this order; None for all that are installed, ``cvc5`` first.
        simplify: Solve what can be seen without a solver. Without it solvers are asked all, which is how it is tested.
        dump: Given each question before it is solved.
    """

    def __init__(
        self,
        schema_text: str,
        *,
        time_limit_s: float = 10.0,
        second_opinion: bool = False,
        workers: int = 2,
        schema: Mapping[str, Any] | None = None,
        solvers: Sequence[solving.Solver] | None = None,
        simplify: bool = True,
        dump: Dump | None = None,
    ) -> None:
        self._types = SchemaTypes(_resolved(schema_text) if schema is None else schema)
        self._schema = cedarpy.Schema.from_str(schema_text)
        self._is_ours = schema_text == packaged_schema()
        self._limit_s, self._second_opinion, self._workers = time_limit_s, second_opinion, workers
        self._solvers = solving.Solvers(workers)
        self._installed = solving.installed() if solvers is None else tuple(solvers)
        self._simplify, self._dump = simplify, dump
        self._lock = threading.Lock()
        self._encoded: OrderedDict[tuple[Any, ...], tuple[tuple[Side, ...], Problems]] = OrderedDict()

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
        return self._search(goal, environment, sides, math.inf)

    def _search(self, goal: Goal, environment: Environment, sides: Mapping[str, Side], deadline: float) -> Answer:
        begun = time.monotonic()
        bundles = self._bundles(sides)
        if begun >= deadline:
            return Answer("undecided", why=_OVER)
        try:
            with self._lock:
                problems = self._problems(goal, environment, sides, bundles=bundles)
                asked = prepared(problems, goal, simplify=self._simplify)
                if self._dump is not None:
                    # What no solver was needed for is written whole, so that one can be asked all the same.
                    whole = asked or prepared(problems, goal, simplify=False)
                    dumped(self._dump, goal, environment, sides, whole, solved=bool(asked))
            answer = self._asked(goal, environment, sides, asked, deadline, bundles=bundles)
        except UnsupportedError as error:
            answer = Answer("undecided", why=f"{error} is not encoded")
        except RecursionError:
            answer = Answer("undecided", why="an expression is nested too deeply")
        return replace(answer, seconds=time.monotonic() - begun)

    def search_all(
        self, queries: Sequence[Query], progress: Progress | None = None, *, within_s: float = math.inf
    ) -> list[Answer]:
        """Answer many queries, several at once.

        Args:
            queries: The queries.
            progress: Called after each answer.
            within_s: After how many seconds solvers are not asked any more. What has no answer then is undecided.

        Returns:
            The answers, in the order of the queries.

        Raises:
            KeyError: As for :meth:`search`.
            ValueError: As for :meth:`search`.
        """
        deadline = time.monotonic() + within_s

        def one(query: Query) -> Answer:
            return self._search(query.goal, query.environment, query.sides, deadline)

        answers: list[Answer] = []
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                for query, answer in zip(queries, pool.map(one, queries), strict=True):
                    answers.append(answer)
                    if progress is not None:
                        progress(len(answers), len(queries), query, answer)
            except BaseException:
                # What was not begun is not begun, and what runs is ended: nobody waits for it.
                with self._solvers.interrupted():
                    pool.shutdown(cancel_futures=True)
                raise
        return answers

    def _bundles(self, sides: Mapping[str, Side]) -> bool:
        kinds = {side.deny_on_error for side in sides.values()}
        if kinds == {True, False} or (kinds == {True} and not self._is_ours):
            raise ValueError("bundles are compared with bundles only, under the schema of cedarbox")
        return kinds == {True}

    def _problems(self, goal: Goal, environment: Environment, sides: Mapping[str, Side], *, bundles: bool) -> Problems:
        named = [part for part in parts(goal) if isinstance(part, PrincipalIs | Holds)] if bundles else []
        key = (environment, tuple((name, id(side)) for name, side in sides.items()), repr(named))
        found = self._encoded.get(key)
        if found is None:
            # The sides are kept with it, so that no other gets their identity.
            made = Problems.of(self._types, environment, sides, goal, bundles=bundles)
            found = self._encoded[key] = tuple(sides.values()), made
            if len(self._encoded) > _KEPT:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(key)
        return found[1]

    def _asked(
        self,
        goal: Goal,
        environment: Environment,
        sides: Mapping[str, Side],
        asked: Sequence[Prepared],
        deadline: float,
        *,
        bundles: bool,
    ) -> Answer:
        if not asked:
            return Answer("none", solver="simplification")
        if not self._installed:
            return Answer("undecided", why=solving.available())
        replayer = Replayer(self._schema, self._types, environment, sides)
        answers: list[Answer] = []
        for each in asked:
            answer = self._solved(goal, environment, each, replayer, deadline, bundles=bundles)
            answers.append(answer)
            if answer.verdict == "found":
                break
        spent = sum(answer.solver_seconds for answer in answers)
        last = next((answer for answer in answers if answer.verdict == "undecided"), answers[-1])
        found = answers[-1] if answers[-1].verdict == "found" else last
        return replace(found, solver_seconds=spent)

    def _solved(
        self,
        goal: Goal,
        environment: Environment,
        asked: Prepared,
        replayer: Replayer,
        deadline: float,
        *,
        bundles: bool,
    ) -> Answer:
        spent = 0.0
        why: list[str] = []
        refuted: list[str] = []
        text = asked.script.text
        # Where a solver only finds names that are none, it is asked for one of those that certainly are.
        narrow = text.replace(canonical.HOST.smt, canonical.HOST_NARROW.smt)
        attempts = [(name, text) for name in self._installed]
        attempts += [(name, narrow) for name in self._installed if narrow != text]
        for name, asking in attempts:
            if asking is not text and refuted:
                break
            limit_s = min(self._limit_s, deadline - time.monotonic())
            if limit_s <= 0:
                why.append(_OVER)
                break
            solved = self._solvers.solve(name, asking, list(asked.script.leaves.values()), limit_s)
            spent += solved.seconds
            if solved.result == "unsat" and asking is not text:
                # Of some names it proves nothing about all.
                continue
            if solved.result == "unsat":
                refuted.append(name)
                if not self._second_opinion or len(refuted) == len(self._installed):
                    return Answer("none", solver="+".join(refuted), solver_seconds=spent)
                continue
            if solved.result == "unknown":
                why.append(f"{name}: {solved.why}")
                continue
            try:
                model = SolverModel(asked.leaves, read_values(solved.values))
                request, entities = self._request(environment, model, asked.principal, bundles=bundles)
                so, replays = replayer.check(goal, request, entities)
            except (ReplayError, ValueError) as error:
                why.append(asked.skipped or f"{name} found a request that cannot be: {error}")
                continue
            if so:
                plainer = (
                    self._plainer(goal, environment, model, asked.principal, replayer=replayer, replays=replays)
                    if bundles
                    else None
                )
                if plainer is not None:
                    request, entities = plainer
                witness = Witness(
                    request["principal"], request["action"], request["resource"], request["context"], entities, replays
                )
                return Answer("found", witness, solver=name, solver_seconds=spent)
            why.append(asked.skipped or f"{name} found a request that Cedar decides otherwise")
        if refuted:
            why.append(f"{' and '.join(refuted)} found none")
        return Answer("undecided", why="; ".join(dict.fromkeys(why)), solver_seconds=spent)

    def _plainer(
        self,
        goal: Goal,
        environment: Environment,
        model: SolverModel,
        principal: str | None,
        *,
        replayer: Replayer,
        replays: Mapping[str, Replay],
    ) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        """Return the request with ordinary names in the place of blank ones, if Cedar says exactly the same of it."""
        named = model.without_blanks()
        if named is None:
            return None
        try:
            request, entities = self._request(environment, named, principal, bundles=True)
            so, told = replayer.check(goal, request, entities)
        except (ReplayError, ValueError):
            return None
        return (request, entities) if so and told == replays else None

    def _request(
        self, environment: Environment, model: SolverModel, principal: str | None, *, bundles: bool
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        if not bundles or principal is None:
            return request_of(self._types, environment, model)
        action = action_of(environment, model)
        if action.name != environment.action_id or action.resource.uid["type"] != environment.resource_type:
            raise ValueError(f"it is the request {action.name} on {action.resource}")
        return action.asked_by(principal), action.brought


def _resolved(schema_text: str) -> Mapping[str, Any]:
    from cedarbox.review.syntax import schema_json

    return schema_json(schema_text)
