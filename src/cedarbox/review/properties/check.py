"""Checks properties: what each claims becomes searches for a request that it rules out, or for one that it promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from cedarbox.errors import ConfigurationError
from cedarbox.review.diff.agents import AgentClass, classes
from cedarbox.review.diff.approvals import free, gained
from cedarbox.review.diff.effects import Effects, digest_of
from cedarbox.review.kinds import action_groups
from cedarbox.review.properties.expressions import expression
from cedarbox.review.properties.files import About, Property
from cedarbox.review.prove import (
    Allows,
    And,
    Answer,
    Environment,
    Goal,
    Holds,
    Matches,
    Not,
    PrincipalIs,
    Progress,
    Query,
    Searcher,
    Side,
    Witness,
    environments,
)
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json

__all__ = ["Checker", "Counterexample", "Reach", "Result", "Verdict"]

Verdict = Literal["holds", "refuted", "undecided"]

_IT: Final = "these"
_OTHER: Final = "those"
_ENTITIES: Final = "entities.json is not the same in both, and a search is over all entities that there could be"


@dataclass(frozen=True)
class Counterexample:
    """A request that was found.

    Attributes:
        environment: Its kind.
        witness: The request, replayed through Cedar.
    """

    environment: Environment
    witness: Witness


@dataclass(frozen=True)
class Result:
    """What came of one property.

    Attributes:
        property: The property.
        verdict: Whether it holds.
        found: The requests that were found: against it, or for a ``reachable`` that it promises.
        why: Why it is not decided, or refuted without a request; may be empty.
        empty: There is no request at all that it is about, so that it says nothing.
        seconds: How long the searches took.
        solvers: Who decided.
    """

    property: Property
    verdict: Verdict
    found: tuple[Counterexample, ...] = ()
    why: str = ""
    empty: bool = False
    seconds: float = 0.0
    solvers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reach:
    """Who can do something.

    Attributes:
        agents: Agents that are all treated alike.
        found: A request of theirs for each kind that goes through.
        undecided: Why it is not known of some kind; empty when all is known.
    """

    agents: AgentClass
    found: tuple[Counterexample, ...]
    undecided: tuple[str, ...] = field(default=())

    @property
    def verdict(self) -> Literal["yes", "no", "undecided"]:
        """Whether they can."""
        return "yes" if self.found else "undecided" if self.undecided else "no"


def _refuse_unlinked(subject: Subject) -> None:
    # A template decides nothing by itself, so whatever is proved without its links says nothing about them.
    for policy in () if subject.links else subject.policies:
        if policy.template:
            hint = "name the file of its links with --links, or write each link as a policy"
            raise ConfigurationError(f"{policy.place}: {policy.id!r} is a template without links", hint=hint)


class Checker:
    """Checks properties of one version of policies.

    Args:
        subject: The policies.
        searcher: The prover, made for their schema.
        other: Loads what a property compares with, by the text that names it.
        progress: Told of each search that is done.
    """

    def __init__(
        self,
        subject: Subject,
        searcher: Searcher,
        other: Callable[[str], Subject],
        progress: Progress | None = None,
    ) -> None:
        _refuse_unlinked(subject)
        self._subject, self._searcher, self._other, self._progress = subject, searcher, other, progress
        schema = schema_json(subject.schema)
        self._groups = action_groups(schema)
        self._environments = environments(schema)
        self._is_bundle = subject.bundle is not None
        self._effects = Effects(subject, self._groups, is_bundle=self._is_bundle)

    @property
    def actions(self) -> tuple[str, ...]:
        """The ids of the actions that there are."""
        return tuple(dict.fromkeys(each.action_id for each in self._environments))

    def check(self, claimed: Property) -> Result:
        """Check a property.

        Raises:
            ConfigurationError: It names something that there is not.
            BundleError: What it compares with cannot be loaded.
        """
        if claimed.policies:
            return self._policies(claimed)
        if claimed.other:
            return self._relation(claimed)
        cases = [case for about in claimed.about for case in self._cases(about, claimed)]
        queries = [self._query(self._goal(claimed, about, environment), environment) for environment, about in cases]
        answers = self._search(queries)
        if claimed.kind == "reachable":
            return _promised(claimed, queries, answers)
        result = _ruled_out(claimed, queries, answers)
        if result.verdict == "holds":
            meant = self._search([self._query(_meant(about), environment) for environment, about in cases])
            return _result(claimed, "holds", (), "", [*answers, *meant], empty={a.verdict for a in meant} <= {"none"})
        return result

    def who_can(self, claimed: Property) -> tuple[Reach, ...]:
        """Return for every class of agents whether one of the requests goes through.

        Args:
            claimed: A ``reachable``; who does it is part of what it says.

        Raises:
            ConfigurationError: It names something that there is not.
        """
        cases = [case for about in claimed.about for case in self._cases(about, claimed)]
        everybody = self._agents()
        queries, of = [], []
        for agents in everybody:
            for environment, about in cases:
                goal = self._goal(claimed, about, environment)
                goal = And(goal, PrincipalIs(agents.ids[0])) if agents.ids else goal
                queries.append(self._query(goal, environment))
                of.append(agents)
        answers = self._search(queries)
        found = []
        for agents in everybody:
            mine = [(q, a) for q, a, who in zip(queries, answers, of, strict=True) if who == agents]
            unknown = tuple(dict.fromkeys(a.why for _, a in mine if a.verdict == "undecided"))
            found.append(Reach(agents, tuple(_examples(mine)), unknown))
        return tuple(found)

    def owners(self, witness: Witness) -> list[str]:
        """Return the policies that determined a request, each with its place."""
        owners = [self._effects.owner(each) for each in witness.sides[_IT].policies]
        return [f"{o.policy.id} ({o.policy.place.file}:{o.policy.place.line})" for o in owners if o is not None]

    def _agents(self) -> tuple[AgentClass, ...]:
        if not self._is_bundle:
            kinds = dict.fromkeys(each.principal_type.rsplit("::", 1)[-1] for each in self._environments)
            return tuple(AgentClass((), changed=False, kind=kind) for kind in kinds)
        people = self._subject.entities
        return classes(people, people, [policy.est for policy in self._subject.policies])

    def _cases(self, about: About, claimed: Property) -> Iterator[tuple[Environment, Mapping[str, Goal]]]:
        kinds = [each for each in self._environments if each.action_id == about.action]
        if not kinds:
            raise ConfigurationError(f"unknown action {about.action!r}", hint=f"known: {', '.join(self.actions)}")
        schema = self._subject.schema
        for each in kinds:
            goals: dict[str, Goal] = {}
            if about.when:
                goals["when"] = _is_so(expression(about.when, each, schema), claimed)
            if about.unless:
                goals["unless"] = _is_so({"!": {"arg": expression(about.unless, each, schema)}}, claimed)
            yield each, goals

    def _goal(self, claimed: Property, about: Mapping[str, Goal], environment: Environment) -> Goal:
        effects = self._effects.on(environment.action)
        through = Allows(_IT) if claimed.approved_too and claimed.kind != "always" else free(_IT, effects)
        return And(_meant(about), Not(through) if claimed.kind == "always" else through)

    def _query(self, goal: Goal, environment: Environment, **more: Side) -> Query:
        sides = {_IT: self._effects.side(environment.action), **more}
        return Query(goal, environment, sides, environment.action_id)

    def _search(self, queries: Sequence[Query]) -> Sequence[Answer]:
        return self._searcher.search_all(queries, self._progress) if queries else ()

    def _relation(self, claimed: Property) -> Result:
        other = self._other(claimed.other)
        _refuse_unlinked(other)
        if (other.bundle is None) == self._is_bundle or other.schema != self._subject.schema:
            raise ConfigurationError(f"{claimed.other!r} has another schema", hint="compare policies of one schema")
        those = Effects(other, self._groups, is_bundle=self._is_bundle)
        queries = []
        for each in self._environments:
            sides = {_IT: self._effects.on(each.action), _OTHER: those.on(each.action)}
            goals: list[Goal] = []
            if claimed.kind == "disjoint":
                goals = [And(Allows(_IT), Allows(_OTHER))]
            elif claimed.kind == "implies":
                goals = [gained(_IT, _OTHER, sides)]
            else:
                goals = [gained(_IT, _OTHER, sides), gained(_OTHER, _IT, sides)]
            queries += [self._query(goal, each, **{_OTHER: those.side(each.action)}) for goal in goals]
        answers = self._search(queries)
        result = _ruled_out(claimed, queries, answers)
        if result.verdict == "holds" and not self._is_bundle and not _same_entities(self._subject, other):
            return _result(claimed, "undecided", (), _ENTITIES, answers)
        return result

    def _policies(self, claimed: Property) -> Result:
        one, two = claimed.policies
        for name in claimed.policies:
            if name not in self._effects.policies:
                hint = f"there are {', '.join(list(self._effects.policies)[:20])}"
                raise ConfigurationError(f"no policy {name!r}", hint=hint)
            if self._effects.policies[name].policy.template:
                raise ConfigurationError(f"{name!r} is a template", hint="name policies that decide by themselves")
        queries = []
        for each in self._environments:
            present = self._effects.on(each.action)
            # One that cannot match the action matches none of its requests.
            matched = {name: Matches(_IT, name) if name in present else None for name in claimed.policies}
            first, second = matched[one], matched[two]
            goals: list[Goal] = []
            if claimed.kind == "disjoint":
                goals = [And(first, second)] if first and second else []
            else:
                pairs = [(first, second)] if claimed.kind == "implies" else [(first, second), (second, first)]
                goals = [And(a, Not(b)) if b else a for a, b in pairs if a]
            queries += [self._query(goal, each) for goal in goals]
        return _ruled_out(claimed, queries, self._search(queries))


def _same_entities(one: Subject, other: Subject) -> bool:
    # By digest: for Python the attributes 1 and true are equal.
    return digest_of(one.entities) == digest_of(other.entities)


def _is_so(expression: Mapping[str, Any], claimed: Property) -> Goal:
    """Return the goal that an expression is true of a request, where what cannot be evaluated counts against the claim.

    The validator does not refuse what can be too large a number.
    """
    return Holds(expression) if claimed.kind == "reachable" else Not(Holds({"!": {"arg": expression}}))


def _meant(about: Mapping[str, Goal]) -> Goal:
    return And(*about.values())


def _examples(asked: Sequence[tuple[Query, Answer]]) -> Iterator[Counterexample]:
    for query, answer in asked:
        if answer.witness is not None:
            yield Counterexample(query.environment, answer.witness)


def _ruled_out(claimed: Property, queries: Sequence[Query], answers: Sequence[Answer]) -> Result:
    found = tuple(_examples(list(zip(queries, answers, strict=True))))
    why = _why(queries, answers)
    return _result(claimed, "refuted" if found else "undecided" if why else "holds", found, why, answers)


def _promised(claimed: Property, queries: Sequence[Query], answers: Sequence[Answer]) -> Result:
    found = tuple(_examples(list(zip(queries, answers, strict=True))))
    why = _why(queries, answers)
    if found:
        return _result(claimed, "holds", found, "", answers)
    return _result(claimed, "undecided" if why else "refuted", (), why or "no such request is allowed", answers)


def _why(queries: Sequence[Query], answers: Sequence[Answer]) -> str:
    told = [
        f"{query.environment.action_id} on {query.environment.resource_type.rsplit('::', 1)[-1]}: {answer.why}"
        for query, answer in zip(queries, answers, strict=True)
        if answer.verdict == "undecided"
    ]
    more = f" and {len(told) - 1} more" if len(told) > 1 else ""
    return f"{told[0]}{more}" if told else ""


def _result(
    claimed: Property,
    verdict: Verdict,
    found: tuple[Counterexample, ...],
    why: str,
    answers: Sequence[Answer],
    *,
    empty: bool = False,
) -> Result:
    seconds = sum(answer.seconds for answer in answers)
    solvers = tuple(sorted({answer.solver for answer in answers if answer.solver}))
    return Result(claimed, verdict, found, why, empty, seconds, solvers)
