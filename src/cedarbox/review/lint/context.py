"""What the rules look at: the subject with its agents, a real engine, and the regions of its connections.

An agent that is declared tomorrow must find the policies as safe as one of today. So beside the declared agents stand
members of every group that a policy names and every agent that a policy names, untrusted, for the review only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import orjson

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS, Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.conditions import Reader
from cedarbox.policy.endpoints import Endpoints, endpoints_of
from cedarbox.policy.engine import Decision, PolicyEngine
from cedarbox.policy.entities import NAMESPACE, Base, Entity
from cedarbox.policy.regions import Region, TooLargeError
from cedarbox.policy.values import Uid, Values, uid_of
from cedarbox.review.lint.model import Hit
from cedarbox.review.lint.options import Options
from cedarbox.review.lint.walk import Literal, Node, always, attribute_chain, conditions, entities, strings
from cedarbox.review.subject import ReviewedPolicy, Subject

__all__ = ["Agent", "Context", "Open", "Tried"]

_BACKEND: Final = "boxlite"
_MAX_BASES: Final = 12
_MAX_AGENTS: Final = 40
_MAX_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent, for all that the policies treat alike.

    Attributes:
        id: Its id.
        told: Who it is, in words.
        trust: A member of ``Sandbox::Trust``.
    """

    id: str
    told: str
    trust: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A request that Cedar allowed.

    Attributes:
        agent: Who asked.
        action: The request.
        decision: The answer.
    """

    agent: Agent
    action: Action
    decision: Decision

    @property
    def told(self) -> str:
        """The request in one line."""
        extra = f" ({self.action.summary})" if self.action.summary else ""
        about = str(self.action.resource)
        about = about if len(about) <= _MAX_SHOWN else f'{about[: _MAX_SHOWN - 2]}…"'
        return f"{self.agent.told}: {self.action.name} {about}{extra}"

    @property
    def details(self) -> dict[str, Any]:
        """The request in JSON values, as Cedar was asked."""
        return {
            "witness": {
                "principal": {"type": f"{NAMESPACE}::Agent", "id": self.agent.id},
                "action": self.action.name,
                "resource": self.action.resource.uid,
                "context": orjson.loads(orjson.dumps(dict(self.action.context))),
            }
        }


@dataclass(frozen=True, slots=True)
class Open:
    """A question that was not decided.

    Attributes:
        rule: Id of the rule that asks.
        policy: The policy that it is about.
        question: What is not known, in words: ``whether …``.
    """

    rule: str
    policy: ReviewedPolicy
    question: str


class Context:
    """What one run of the linter looks at.

    Attributes:
        subject: What is reviewed.
        options: What the rules take for granted.
        now: The time of the review, aware.
        notes: What a reader must know; rules add to it.
        open: What was not decided; rules add to it.

    Args:
        subject: What is reviewed.
        options: What the rules take for granted.
        now: The time of the review, aware.
    """

    def __init__(self, subject: Subject, options: Options, now: datetime) -> None:
        self.subject, self.options, self.now = subject, options, now.astimezone(UTC)
        self.notes: list[str] = []
        self.open: list[Open] = []

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
        if mark in self._seen:
            return False
        self._seen.add(mark)
        return True

    @cached_property
    def _seen(self) -> set[tuple[str, str]]:
        return set()

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

    @cached_property
    def _permits(self) -> dict[tuple[str, ...], tuple[ReviewedPolicy, ...]]:
        return {}

    def nodes(self, policy: ReviewedPolicy) -> tuple[Node, ...]:
        """Return every expression in the conditions of a policy."""
        if policy.id not in self._nodes:
            self._nodes[policy.id] = tuple(conditions(policy.est))
        return self._nodes[policy.id]

    @cached_property
    def _nodes(self) -> dict[str, tuple[Node, ...]]:
        return {}

    def literals(self, policy: ReviewedPolicy) -> tuple[Literal, ...]:
        """Return every entity that a policy names."""
        if policy.id not in self._literals:
            self._literals[policy.id] = tuple(entities(policy.est))
        return self._literals[policy.id]

    @cached_property
    def _literals(self) -> dict[str, tuple[Literal, ...]]:
        return {}

    @cached_property
    def _extended(self) -> PolicyBundle:
        bundle = self._bundle()
        declared = {(item["uid"]["type"], item["uid"]["id"]) for item in bundle.entities}
        named = {(literal.kind, literal.id) for policy in self.policies for literal in self.literals(policy)}
        tenant = Entity("Tenant", "cedarbox-lint")
        attrs = {"tenant": tenant.ref, "trust": Entity("Trust", "untrusted").ref}
        added = [tenant.to_json()]
        groups = {id_ for kind, id_ in named if kind == "AgentGroup"}
        added += [
            Entity("AgentGroup", group).to_json()
            for group in sorted(groups)
            if (f"{NAMESPACE}::AgentGroup", group) not in declared
        ]
        members = [("", f"cedarbox-lint member of {group}", (Entity("AgentGroup", group),)) for group in sorted(groups)]
        named_agents = [("", id_, ()) for kind, id_ in sorted(named) if kind == "Agent"]
        for _, name, parents in (*members, *named_agents, ("", "cedarbox-lint agent in no group", ())):
            if (f"{NAMESPACE}::Agent", name) not in declared:
                added.append(Entity("Agent", name, attrs, parents).to_json())
        return replace(bundle, entities=(*bundle.entities, *added))

    def _bundle(self) -> PolicyBundle:
        bundle = self.subject.bundle
        if bundle is None:
            raise ValueError("not a bundle of cedarbox")
        return bundle

    @cached_property
    def agents(self) -> tuple[Agent, ...]:
        """One agent for all that the policies treat alike: declared ones, then members of the groups they name."""
        named = {literal.id for policy in self.policies for literal in self.literals(policy) if literal.kind == "Agent"}
        declared = self._bundle().principals
        found: dict[bytes, Agent] = {}
        for item in self._extended.entities:
            if item["uid"]["type"] != f"{NAMESPACE}::Agent":
                continue
            name = item["uid"]["id"]
            parents = sorted(orjson.dumps(parent) for parent in item.get("parents", ()))
            alike = orjson.dumps(
                [
                    item["attrs"].get("trust"),
                    item["attrs"] if self._looks_at_attributes else None,
                    [parent.decode() for parent in parents],
                    item.get("tags"),
                    name if name in named else None,
                ],
                option=orjson.OPT_SORT_KEYS,
            )
            if alike not in found:
                told = f"agent {name}" if name in declared or name in named else name.removeprefix("cedarbox-lint ")
                trust = item["attrs"]["trust"]
                found[alike] = Agent(name, told, str(trust.get("__entity", trust)["id"]))
        kept = tuple(found.values())
        if len(kept) > _MAX_AGENTS:
            self.notes.append(f"{len(kept)} kinds of agents: requests were tried for the first {_MAX_AGENTS} only")
        return kept[:_MAX_AGENTS]

    @cached_property
    def _looks_at_attributes(self) -> bool:
        return any(
            node.operator == "." and attribute_chain({".": node.given})[:1] == ("principal",)
            for policy in self.policies
            for node in self.nodes(policy)
        )

    @cached_property
    def engine(self) -> PolicyEngine:
        """A real engine with the policies, and with the agents of the review beside the declared ones."""
        return PolicyEngine(self._extended)

    def bases(self, *actions: str) -> tuple[Base, ...]:
        """Return what requests may carry besides: nothing special, or what the permits for an action ask for."""
        texts: dict[str, dict[str, None]] = {"tool": {}, "agent": {}, "backend": {}}
        for policy in self.permits(*actions):
            for node in self.nodes(policy):
                name = attribute_chain({".": node.given})[-1:] if node.operator == "." else ()
                if name and name[0] in texts:
                    texts[name[0]] |= dict.fromkeys(text for _, text, _ in strings(policy.est))
        plain = Base(self.now, _BACKEND)
        found = [plain]
        for tool, agent, backend in itertools.product(*([*values, None] for values in texts.values())):
            made = Base(self.now, backend or _BACKEND, agent=agent, tool=tool)
            if made not in found:
                found.append(made)
            if len(found) >= _MAX_BASES:
                break
        return tuple(found)

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
                decision = self.engine.decide(agent.id, action)
                if decision.allowed:
                    yield Tried(agent, action, decision)

    def _askers(self, action: str) -> frozenset[Agent]:
        """Return the agents that the scope of some permit for an action could match."""
        if action not in self._asking:
            scopes = [policy.est["principal"] for policy in self.permits(action)]
            unlimited = any("entity" not in scope and "in" not in scope for scope in scopes)
            named = {uid_of(scope.get("entity") or scope["in"]["entity"]) for scope in scopes if len(scope) > 1 and (
                "entity" in scope or "in" in scope
            )}
            found = (
                agent
                for agent in self.agents
                if unlimited or not named.isdisjoint(self._values(agent).above(Uid("Agent", agent.id)))
            )
            self._asking[action] = frozenset(found)
        return self._asking[action]

    @cached_property
    def _asking(self) -> dict[str, frozenset[Agent]]:
        return {}

    @cached_property
    def endpoints(self) -> Mapping[Agent, Endpoints]:
        """What each kind of agent may connect to."""
        chosen = {
            policy.id: policy.est for policy in self.policies if "connect" in self.actions_of(policy)
        }
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

    @cached_property
    def _regions(self) -> dict[tuple[str, str], Region | None]:
        return {}

    def _values(self, agent: Agent) -> Values:
        return Values(agent.id, self._extended.entities)

    def _reader(self, agent: Agent) -> Reader:
        if agent.id not in self._readers:
            self._readers[agent.id] = Reader(agent.id, self._extended.entities)
        return self._readers[agent.id]

    @cached_property
    def _readers(self) -> dict[str, Reader]:
        return {}

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

    def has_permit(self, action: str) -> bool:
        """Whether some permit is about an action, so that it is worth asking."""
        return bool(self.permits(action))

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

    @property
    def known_actions(self) -> frozenset[str]:
        """Every action of the schema."""
        return frozenset(ACTION_GROUPS)
