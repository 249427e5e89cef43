"""Who asks in a review: the declared agents, and those that could be declared tomorrow.

An agent that is declared tomorrow must find the policies as safe as one of today. So beside the declared agents stand
members of every group that a policy names and every agent that a policy names, untrusted, for the review only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from cedarbox.errors import BundleError
from cedarbox.policy.actions import Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.engine import Decision
from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.review.declared import AGENT, Declared, Named, uid_of
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["OUTSIDER", "Agent", "Open", "Seen", "Tried", "kinds_of_agents", "with_reviewed_agents"]

_LINTER: Final = "cedarbox-lint"
_MARK: Final = f"{_LINTER} "
OUTSIDER: Final = f"{_MARK}agent in no group"
"""The id of the agent of the review that is in no group."""

_GROUP: Final = f"{NAMESPACE}::AgentGroup"
_TENANT: Final = f"{NAMESPACE}::Tenant"
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
                "principal": {"type": AGENT, "id": self.agent.id},
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

    @property
    def told(self) -> str:
        """The question in one line."""
        return f"{self.rule} {self.policy.id}: {self.question}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What decisions have shown of policies.

    Attributes:
        matched: Ids of the policies that matched some request.
        allowing: Ids of those that allowed one.
        alone: Ids of those that were the only one to determine an answer.
    """

    matched: set[str]
    allowing: set[str]
    alone: set[str]

    def add(self, decision: Decision) -> None:
        """Count a decision. One with an error shows nothing."""
        if decision.errors:
            return
        self.matched.update(decision.policies)
        if decision.allowed:
            self.allowing.update(decision.policies)
        if len(decision.policies) == 1:
            self.alone.update(decision.policies)


def with_reviewed_agents(bundle: PolicyBundle, named: Named) -> PolicyBundle:
    """Return a bundle with the agents of the review beside the declared ones.

    Args:
        bundle: The bundle.
        named: What its policies look at.

    Raises:
        BundleError: It speaks of one of them, or of their tenant: what holds of these would not hold of others.
    """
    declared = Declared(bundle.entities).entities
    for kind, name in sorted({*declared, *named.entities}):
        if kind in {AGENT, _TENANT} and name.startswith(_LINTER):
            message = f"{name!r} is a name that the linter gives to its own agents and their tenant"
            raise BundleError(message, path=bundle.path, hint="call it otherwise")
    tenant = Entity("Tenant", _LINTER)
    attrs = {"tenant": tenant.ref, "trust": Entity("Trust", "untrusted").ref}
    groups = sorted(name for kind, name in named.entities if kind == _GROUP)
    added = [tenant, *(Entity("AgentGroup", group) for group in groups)]
    added += [Entity("Agent", f"{_MARK}member of {group}", attrs, (Entity("AgentGroup", group),)) for group in groups]
    added += [Entity("Agent", name, attrs) for kind, name in sorted(named.entities) if kind == AGENT]
    added.append(Entity("Agent", OUTSIDER, attrs))
    new = [item.to_json() for item in added if uid_of(item.uid) not in declared]
    return replace(bundle, entities=(*bundle.entities, *new))


def kinds_of_agents(bundle: PolicyBundle, declared: PolicyBundle, named: Named) -> tuple[Agent, ...]:
    """Return one agent for all that the policies treat alike and that are trusted alike.

    Args:
        bundle: What :func:`with_reviewed_agents` gave.
        declared: The bundle as it is.
        named: What its policies look at.
    """
    entities = Declared(bundle.entities)
    found: dict[tuple[str, str], Agent] = {}
    for name in entities.agents:
        trust = uid_of(entities.entities[AGENT, name]["attrs"]["trust"])[1]
        real = name in declared.principals or (AGENT, name) in named.entities
        told = f"agent {name}" if real else name.removeprefix(_MARK)
        found.setdefault((trust, entities.seen(name, named)), Agent(name, told, trust))
    return tuple(found.values())
