"""The plan of a change: for each action and principal what is widened, narrowed, unchanged, or not decided.

The searches go in steps, so that what does not change costs nothing and nothing hides behind anything:

1. An action whose policies and agents have the same effects on both sides is unchanged; the prover is not asked.
2. For each other kind of request: is there one that goes through now and did not, or the other way round? Without one,
   that is proved, whatever the text looks like.
3. Where there is one: for each part of the change by itself (see :mod:`cedarbox.review.diff.causes`).
4. For each part that lets something through: for each class of agents by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from cedarbox.review.diff.acceptance import Subject
from cedarbox.review.diff.agents import AgentClass
from cedarbox.review.diff.approvals import gained, level, modes
from cedarbox.review.diff.causes import AGENTS, Cause, causes
from cedarbox.review.diff.compared import Compared
from cedarbox.review.prove import (
    And,
    Answer,
    Environment,
    Goal,
    Or,
    PrincipalIs,
    Progress,
    Query,
    Searcher,
    Witness,
)

__all__ = ["Narrowing", "Plan", "Row", "Undecided", "Widening", "plan"]

_MAX_SEARCHES: Final = 400
"""How many searches the steps 3 and 4 make in all; what is left is told as not told apart, and cannot be accepted."""

Outcome = Literal[
    "widened",
    "widened and narrowed",
    "widened; narrowing not decided",
    "narrowed",
    "unchanged",
    "no effect",
    "not decided",
]


@dataclass(frozen=True)
class Widening:
    """One thing that goes through now and did not before.

    Attributes:
        subject: What it is, exactly: an acceptance names this.
        agents: Whom it is for.
        cause: Which part of the change does it; None when that could not be told apart.
        witness: A request, replayed through Cedar on both sides.
        before: What becomes of the request in the old version.
        after: What becomes of it in the new one.
    """

    subject: Subject
    agents: AgentClass
    cause: Cause | None
    witness: Witness
    before: str
    after: str


@dataclass(frozen=True)
class Narrowing:
    """One thing that went through and does not any more; the fields are those of :class:`Widening`."""

    environment: Environment
    agents: AgentClass
    witness: Witness
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """A search without an answer.

    Attributes:
        action: The action.
        resource: The type of the resource.
        about: What was searched, in words.
        why: Why there is no answer.
    """

    action: str
    resource: str
    about: str
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """The outcome for one kind of request and one class of agents.

    Attributes:
        action: The action.
        resource: The type of the resource.
        agents: Whom it is for; None for everybody alike.
        outcome: The outcome.
    """

    action: str
    resource: str
    agents: AgentClass | None
    outcome: Outcome


@dataclass
class Plan:
    """What a change does.

    Attributes:
        compared: The change.
        rows: For each kind of request that was searched, and each class of agents that it matters to.
        widenings: In the order of the schema's actions.
        narrowings: Likewise.
        undecided: Searches without an answer.
        unchanged: The actions that the change does not touch.
    """

    compared: Compared
    rows: list[Row] = field(default_factory=list)
    widenings: list[Widening] = field(default_factory=list)
    narrowings: list[Narrowing] = field(default_factory=list)
    undecided: list[Undecided] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Case:
    """One kind of request that the change may touch."""

    environment: Environment
    widens: Goal
    narrows: Goal


@dataclass
class _Found:
    """Whom a kind of request is widened and narrowed for, and for whom something is not known."""

    wider: set[AgentClass] = field(default_factory=set)
    narrower: set[AgentClass] = field(default_factory=set)
    unsure: set[AgentClass] = field(default_factory=set)
    unproved: set[AgentClass] = field(default_factory=set)
    """For whom it is not known that nothing is widened."""


def plan(compared: Compared, searcher: Searcher, progress: Progress | None = None) -> Plan:
    """Search what a change does.

    Args:
        compared: The change.
        searcher: The prover.
        progress: Told of each search that is done: how many, of how many, and which.
    """
    return _Planner(compared, searcher, progress).run()


class _Planner:
    def __init__(self, compared: Compared, searcher: Searcher, progress: Progress | None) -> None:
        self._compared, self._searcher, self._progress = compared, searcher, progress
        self._plan = Plan(compared)
        self._left = _MAX_SEARCHES

    def run(self) -> Plan:
        cases = [case for environment in self._compared.environments if (case := self._case(environment)) is not None]
        touched = {case.environment.action for case in cases}
        names = dict.fromkeys(each.action_id for each in self._compared.environments if each.action not in touched)
        self._plan.unchanged = list(names)
        for about, why in self._compared.unproved:
            self._plan.undecided.append(Undecided("every action", "anything", about, why))
        widened = self._search([self._query(case, case.widens, "new") for case in cases])
        narrowed = self._search([self._query(case, case.narrows, "gone") for case in cases])
        for case, wide, narrow in zip(cases, widened, narrowed, strict=True):
            found = _Found()
            for answer, about in ((wide, "what is new"), (narrow, "what is gone")):
                if answer.verdict == "undecided":
                    self._undecided(case, about, answer.why)
                    (found.unproved if answer is wide else found.unsure).update(self._classes(case))
            if wide.witness is not None:
                self._widened(case, wide.witness, found)
            if narrow.witness is not None:
                self._narrowed(case, narrow.witness, found)
            self._rows(case, found)
        return self._plan

    def _case(self, environment: Environment) -> _Case | None:
        action = environment.action
        policies = self._compared.differs(environment)
        changed = self._compared.changed_agents
        if not policies and not changed:
            return None
        sides = {"old": self._compared.before(environment).on(action), "new": self._compared.new.on(action)}
        widens, narrows = gained("new", "old", sides), gained("old", "new", sides)
        if not policies:
            # Whoever is seen as before gets the same answers.
            about = Or(*(PrincipalIs(each.ids[0]) for each in changed))
            widens, narrows = And(about, widens), And(about, narrows)
        return _Case(environment, widens, narrows)

    def _query(self, case: _Case, goal: Goal, label: str) -> Query:
        action = case.environment.action
        old = self._compared.before(case.environment)
        sides = {"old": old.side(action), "new": self._compared.new.side(action)}
        return Query(goal, case.environment, sides, f"{label}: {case.environment.action_id}")

    def _search(self, queries: Sequence[Query]) -> Sequence[Answer]:
        return self._searcher.search_all(queries, self._progress) if queries else ()

    def _bounded(self, queries: Sequence[Query]) -> Sequence[Answer | None]:
        """Search as many as there are searches left; None for the others."""
        chosen = queries[: self._left]
        self._left -= len(chosen)
        return (*self._search(chosen), *[None] * (len(queries) - len(chosen)))

    def _widened(self, case: _Case, witness: Witness, found: _Found) -> None:
        parts = causes(self._compared, case.environment)
        answers = self._bounded([self._query(case, And(case.widens, each.goal), each.policy) for each in parts])
        known = len(self._plan.widenings)
        for part, answer in zip(parts, answers, strict=True):
            if answer is not None and answer.witness is not None:
                self._by_class(case, part, answer.witness, found)
            elif answer is None or answer.verdict == "undecided":
                self._unsure(case, f"what {part.policy} lets through", answer)
                found.unproved.update(self._classes(case))
        if len(self._plan.widenings) == known:
            # No part by itself is known to be behind it. It is told all the same, and nothing can accept it.
            self._add(case, None, self._of(witness), witness)
        found.wider.update(each.agents for each in self._plan.widenings[known:])

    def _by_class(self, case: _Case, part: Cause, witness: Witness, found: _Found) -> None:
        mine = self._of(witness)
        others = [each for each in self._classes(case) if each != mine and (part.policy != AGENTS or each.changed)]
        goals = [And(case.widens, part.goal, PrincipalIs(each.ids[0])) for each in others]
        answers = self._bounded([self._query(case, goal, part.policy) for goal in goals])
        witnesses = {mine: witness}
        for agents, answer in zip(others, answers, strict=True):
            if answer is not None and answer.witness is not None:
                witnesses[agents] = answer.witness
            elif answer is None or answer.verdict == "undecided":
                self._unsure(case, f"what {part.policy} lets {agents.told} do", answer)
                found.unproved.add(agents)
        for agents in self._classes(case):
            if agents in witnesses:
                self._add(case, part, agents, witnesses[agents])

    def _add(self, case: _Case, part: Cause | None, agents: AgentClass, witness: Witness) -> None:
        action = case.environment.action
        before, after = self._levels(case, witness)
        subject = Subject(
            bundle=self._compared.name,
            action=case.environment.action_id,
            resource=_short(case.environment.resource_type),
            principals=agents.ids or (f"[{agents.kind}]",),
            policy=part.policy if part else "",
            policy_digest=part.digest if part else "",
            base=self._compared.before(case.environment).state(action),
            head=self._compared.new.state(action),
        )
        self._plan.widenings.append(Widening(subject, agents, part, witness, before, after))

    def _narrowed(self, case: _Case, witness: Witness, found: _Found) -> None:
        mine = self._of(witness)
        others = [each for each in self._classes(case) if each != mine]
        goals = [And(case.narrows, PrincipalIs(each.ids[0])) for each in others]
        answers = self._bounded([self._query(case, goal, "gone") for goal in goals])
        witnesses = {mine: witness}
        for agents, answer in zip(others, answers, strict=True):
            if answer is not None and answer.witness is not None:
                witnesses[agents] = answer.witness
            elif answer is None or answer.verdict == "undecided":
                # The action is narrowed in any case: what is not known of the others is no danger, and is shown so.
                found.unsure.add(agents)
        for agents in self._classes(case):
            if agents in witnesses:
                before, after = self._levels(case, witnesses[agents])
                self._plan.narrowings.append(Narrowing(case.environment, agents, witnesses[agents], before, after))
        found.narrower.update(witnesses)

    def _levels(self, case: _Case, witness: Witness) -> tuple[str, str]:
        action = case.environment.action
        sides = (("old", self._compared.before(case.environment)), ("new", self._compared.new))
        among = modes(*(effects.on(action) for _, effects in sides))
        found = []
        for name, effects in sides:
            replay = witness.sides[name]
            owners = [owner for each in replay.policies if (owner := effects.owner(each)) is not None]
            found.append(level(allowed=replay.allowed, determining=owners, among=among))
        old, new = found
        if old.told != new.told or old.modes == new.modes:
            return old.told, new.told
        # The same names, with other keys behind them.
        return f"{old.told} with {old.keys}", f"{new.told} with {new.keys}"

    def _classes(self, case: _Case) -> Sequence[AgentClass]:
        return self._compared.agents or (_anyone(case.environment),)

    def _of(self, witness: Witness) -> AgentClass:
        name = witness.principal["id"]
        found = next((each for each in self._compared.agents if name in each.ids), None)
        return found or AgentClass((), changed=False, kind=_short(witness.principal["type"]))

    def _rows(self, case: _Case, found: _Found) -> None:
        action, resource = case.environment.action_id, _short(case.environment.resource_type)
        if not (found.wider or found.narrower or found.unsure or found.unproved):
            self._plan.rows.append(Row(action, resource, None, "no effect"))
            return
        words: Mapping[tuple[bool, bool], Outcome] = {
            (True, True): "widened and narrowed",
            (True, False): "widened",
            (False, True): "narrowed",
            (False, False): "unchanged",
        }
        for agents in self._classes(case):
            outcome = words[agents in found.wider, agents in found.narrower]
            if outcome == "widened" and agents in found.unsure:
                outcome = "widened; narrowing not decided"
            # Narrowed is no answer to whether it is widened.
            elif agents not in found.wider and (
                agents in found.unproved or (outcome == "unchanged" and agents in found.unsure)
            ):
                outcome = "not decided"
            self._plan.rows.append(Row(action, resource, agents, outcome))

    def _unsure(self, case: _Case, about: str, answer: Answer | None) -> None:
        self._undecided(case, about, f"more than {_MAX_SEARCHES} searches" if answer is None else answer.why)

    def _undecided(self, case: _Case, about: str, why: str) -> None:
        resource = _short(case.environment.resource_type)
        self._plan.undecided.append(Undecided(case.environment.action_id, resource, about, why or "no answer"))


def _anyone(environment: Environment) -> AgentClass:
    return AgentClass((), changed=False, kind=_short(environment.principal_type))


def _short(name: str) -> str:
    return name.rsplit("::", 1)[-1]
