"""What the rules look at: the subject, a real engine with its agents, and the regions of its connections."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

from cedarbox.errors import BundleError, CanonicalizationError
from cedarbox.policy.actions import Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.conditions import Reader
from cedarbox.policy.endpoints import Endpoints, endpoints_of
from cedarbox.policy.engine import Decision, PolicyEngine
from cedarbox.policy.entities import Base
from cedarbox.policy.regions import Region, TooLargeError
from cedarbox.policy.values import Uid, Values, uid_of
from cedarbox.review.cases import Suite
from cedarbox.review.declared import Named
from cedarbox.review.kinds import RequestKinds
from cedarbox.review.lint.agents import Agent, Open, Seen, Tried, kinds_of_agents, with_reviewed_agents
from cedarbox.review.lint.model import Hit
from cedarbox.review.lint.options import Options
from cedarbox.review.lint.walk import Literal, Node, always, attribute_chain, conditions, entities, moments, samples
from cedarbox.review.run import Outcome, run_suite
from cedarbox.review.subject import ReviewedPolicy, Subject
from cedarbox.review.syntax import schema_json

__all__ = ["Context"]

_BACKEND: Final = "boxlite"
_MAX_BASES: Final = 12
_MAX_AGENTS: Final = 40
_STEP: Final = timedelta(milliseconds=1)  # the smallest difference of two times in Cedar


class Context:
    """What one run of the linter looks at.

    Attributes:
        subject: What is reviewed.
        options: What the rules take for granted.
        now: The time of the review, aware.
        notes: What a reader must know; rules add to it.
        open: What was not decided; rules add to it.
        unusable_tests: Why the test cases beside the bundle cannot be used; None unless they were looked at.

    Args:
        subject: What is reviewed.
        options: What the rules take for granted.
        now: The time of the review, aware.
    """

    def __init__(self, subject: Subject, options: Options, now: datetime) -> None:
        self.subject, self.options, self.now = subject, options, now.astimezone(UTC)
        self.notes: list[str] = []
        self.open: list[Open] = []
        self.unusable_tests: BundleError | None = None
        self._hits: set[tuple[str, str]] = set()
        self._permits: dict[tuple[str, ...], tuple[ReviewedPolicy, ...]] = {}
        self._nodes: dict[str, tuple[Node, ...]] = {}
        self._literals: dict[str, tuple[Literal, ...]] = {}
        self._bases: dict[tuple[str, ...], tuple[Base, ...]] = {}
        self._asking: dict[str, frozenset[Agent]] = {}
        self._regions: dict[tuple[str, str], Region | None] = {}
        self._readers: dict[str, Reader] = {}

    @property
    def policies(self) -> tuple[ReviewedPolicy, ...]:
        """The policies."""
        return self.subject.policies

    def undecided(self, rule: str, policy: ReviewedPolicy, question: str) -> None:
        """Keep a question that neither regions nor trying requests could decide, for the prover."""
        self.open.append(Open(rule, policy, question))

    def first(self, what: str, hit: Hit) -> bool:
        """Return whether this is the first hit of its kind about a policy; it counts from now on.

        Args:
            what: The kind.
            hit: The hit.
        """
        mark = (what, hit.policy.id if hit.policy else "")
        if mark in self._hits:
            return False
        self._hits.add(mark)
        return True

    def first_hits(
        self, asked: Iterable[Action], action: str, message: str, *, hint: str = "", agents: Sequence[Agent] = ()
    ) -> Iterator[Hit]:
        """Put requests to the engine, and yield one hit for each permit that lets one through.

        Args:
            asked: The requests; all of one action.
            action: Its name. Nothing is asked when no permit is about it.
            message: What it means that one is allowed.
            hint: What to do.
            agents: Who asks; all kinds of agents when empty.
        """
        waiting = {policy.id for policy in self.permits(action)}
        for request in asked if waiting else ():
            for tried in self.tried((request,), agents):
                for policy_id in tried.decision.policies:
                    if policy_id in waiting:
                        waiting.discard(policy_id)
                        policy = self.subject.by_id[policy_id]
                        yield Hit(f"{message}: {tried.told}", policy, hint=hint, details=tried.details)
            if not waiting:
                return

    def actions_of(self, policy: ReviewedPolicy) -> frozenset[str]:
        """Return the actions of cedarbox that the scope of a policy matches; empty for other Cedar."""
        return self._actions.get(policy.id, frozenset())

    @cached_property
    def kinds(self) -> RequestKinds:
        """The kinds of request that the schema has."""
        return RequestKinds.of(schema_json(self.subject.schema))

    @cached_property
    def _actions(self) -> Mapping[str, frozenset[str]]:
        bundle = self.subject.bundle
        return {} if bundle is None else {policy.id: policy.actions for policy in bundle.policies}

    def permits(self, *actions: str) -> tuple[ReviewedPolicy, ...]:
        """Return the permits whose scope matches one of the actions."""
        if actions not in self._permits:
            self._permits[actions] = tuple(
                policy
                for policy in self.policies
                if policy.effect == "permit" and not self.actions_of(policy).isdisjoint(actions)
            )
        return self._permits[actions]

    def nodes(self, policy: ReviewedPolicy) -> tuple[Node, ...]:
        """Return every expression in the conditions of a policy."""
        if policy.id not in self._nodes:
            self._nodes[policy.id] = tuple(conditions(policy.est))
        return self._nodes[policy.id]

    def literals(self, policy: ReviewedPolicy) -> tuple[Literal, ...]:
        """Return every entity that a policy names."""
        if policy.id not in self._literals:
            self._literals[policy.id] = tuple(entities(policy.est))
        return self._literals[policy.id]

    @cached_property
    def _extended(self) -> PolicyBundle:
        return with_reviewed_agents(self._bundle(), self._named)

    @cached_property
    def _named(self) -> Named:
        return Named.by(policy.est for policy in self.policies)

    def _bundle(self) -> PolicyBundle:
        bundle = self.subject.bundle
        if bundle is None:
            raise ValueError("not a bundle of cedarbox")
        return bundle

    @cached_property
    def agents(self) -> tuple[Agent, ...]:
        """One agent for all that the policies treat alike: declared ones, then members of the groups they name."""
        found = kinds_of_agents(self._extended, self._bundle(), self._named)
        if len(found) > _MAX_AGENTS:
            self.notes.append(f"{len(found)} kinds of agents: requests were tried for the first {_MAX_AGENTS} only")
        return found[:_MAX_AGENTS]

    @cached_property
    def engine(self) -> PolicyEngine:
        """A real engine with the policies, and with the agents of the review beside the declared ones."""
        return PolicyEngine(self._extended)

    def bases(self, *actions: str) -> tuple[Base, ...]:
        """Return what requests may carry besides: nothing special, or what the permits for an action ask for."""
        if actions not in self._bases:
            self._bases[actions] = tuple(itertools.islice(self._all_bases(actions), _MAX_BASES))
        return self._bases[actions]

    def _all_bases(self, actions: tuple[str, ...]) -> Iterator[Base]:
        texts: dict[str, dict[str, None]] = {"tool": {}, "agent": {}, "backend": {}}
        times: dict[datetime, None] = {}
        for policy in self.permits(*actions):
            for node in self.nodes(policy):
                name = attribute_chain({".": node.given})[-1:] if node.operator == "." else ()
                if name and name[0] in texts:
                    texts[name[0]] |= dict.fromkeys(samples(policy.est))
                if name == ("at",):
                    # What was permitted once and is not any more is no finding.
                    near = (at + step for at in moments(policy.est) for step in (-_STEP, timedelta(), _STEP))
                    times |= dict.fromkeys(at for at in near if at >= self.now)
        tools, agents, backends = ([None, *filter(str.isprintable, values)] for values in texts.values())
        combined = [
            (at, tool, agent, backend)
            for at in (self.now, *times)
            for tool in tools
            for agent in agents
            for backend in backends
        ]
        # The plainest first.
        combined.sort(key=lambda made: sum(part is not None for part in made))
        for at, tool, agent, backend in combined:
            yield Base(at, backend or _BACKEND, agent=agent, tool=tool)

    @cached_property
    def seen(self) -> Seen:
        """What the decisions so far have shown, those of the test cases among them."""
        seen = Seen(set(), set(), set())
        for outcome in self.outcomes or ():
            if outcome.decision is not None:
                seen.add(outcome.decision)
        for listed in self.endpoints.values():
            for entry in listed.entries:
                if entry.exact and listed.certain:
                    seen.matched.add(entry.policy)
                    seen.allowing.add(entry.policy)
        return seen

    @cached_property
    def outcomes(self) -> Sequence[Outcome] | None:
        """What came of the test cases beside the bundle; None when there are none that can be used."""
        bundle = self.subject.bundle
        if bundle is None or not (bundle.path / "tests").is_dir():
            return None
        try:
            return run_suite(Suite.load(bundle))
        except BundleError as error:
            self.unusable_tests = error
            return None

    @property
    def reviewed_entities(self) -> Sequence[Mapping[str, Any]]:
        """The declared entities, with those of the agents of the review."""
        return self._extended.entities

    def decide(self, agent: Agent, action: Action) -> Decision:
        """Put one request to the engine."""
        decision = self.engine.decide(agent.id, action)
        self.seen.add(decision)
        return decision

    def tried(self, actions: Iterable[Action], agents: Sequence[Agent] = ()) -> Iterator[Tried]:
        """Ask the engine, and yield what it allows.

        Args:
            actions: Requests.
            agents: Who asks; all kinds of agents when empty.
        """
        for action in actions:
            for agent in agents or self.agents:
                if agent not in self._askers(action.name):
                    continue
                decision = self.decide(agent, action)
                if decision.allowed:
                    yield Tried(agent, action, decision)

    def _askers(self, action: str) -> frozenset[Agent]:
        """Return the agents that the scope of some permit for an action could match."""
        if action not in self._asking:
            scopes = [policy.est["principal"] for policy in self.permits(action)]
            unlimited = any("entity" not in scope and "in" not in scope for scope in scopes)
            named = {
                uid_of(scope.get("entity") or scope["in"]["entity"])
                for scope in scopes
                if len(scope) > 1 and ("entity" in scope or "in" in scope)
            }
            found = (
                agent
                for agent in self.agents
                if unlimited or not named.isdisjoint(self._values(agent).above(Uid("Agent", agent.id)))
            )
            self._asking[action] = frozenset(found)
        return self._asking[action]

    @cached_property
    def endpoints(self) -> Mapping[Agent, Endpoints]:
        """What each kind of agent may connect to."""
        chosen = {policy.id: policy.est for policy in self.policies if "connect" in self.actions_of(policy)}
        if not chosen:
            return {}
        return {agent: endpoints_of(self._extended, agent.id, chosen) for agent in self.agents}

    def region(self, agent: Agent, policy: ReviewedPolicy) -> Region | None:
        """Return the connections that a policy is about for an agent; None when they are too many to tell."""
        mark = (agent.id, policy.id)
        if mark not in self._regions:
            try:
                self._regions[mark] = self._reader(agent).policy(policy.est)
            except TooLargeError:
                self._regions[mark] = None
        return self._regions[mark]

    def _values(self, agent: Agent) -> Values:
        return Values(agent.id, self._extended.entities)

    def _reader(self, agent: Agent) -> Reader:
        if agent.id not in self._readers:
            self._readers[agent.id] = Reader(agent.id, self._extended.entities)
        return self._readers[agent.id]

    def tests_name(self, policy_id: str) -> bool:
        """Whether the test cases beside a bundle hold the id of a policy, or cannot be read."""
        return policy_id in self._tests if self._tests is not None else True

    @cached_property
    def _tests(self) -> str | None:
        bundle = self.subject.bundle
        if bundle is None or not (bundle.path / "tests").is_dir():
            return ""
        try:
            return "\n".join(path.read_text("utf-8") for path in sorted((bundle.path / "tests").iterdir()))
        except (OSError, UnicodeDecodeError):
            return None

    @staticmethod
    def trivially(policy: ReviewedPolicy) -> bool | None:
        """Return whether the conditions of a policy are constants: True for always met, False for never."""
        met: bool | None = True
        for condition in policy.est.get("conditions", ()):
            value = always(condition["body"])
            if value is None:
                met = None
            elif value is not (condition["kind"] == "when"):
                return False
        return met

    @staticmethod
    def made(build: Any, *args: Any, **kwargs: Any) -> Iterator[Action]:
        """Yield the request that a builder makes, or nothing when there is no such request."""
        try:
            yield build(*args, **kwargs)
        except (CanonicalizationError, ValueError):
            return
