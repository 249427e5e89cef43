"""What is asked of the prover: policies by side, the kind of request, and a formula over their decisions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from cedarbox.policy.bundle import PolicyBundle
from cedarbox.review.declared import uid_text

__all__ = [
    "Allows",
    "And",
    "Environment",
    "Fails",
    "Goal",
    "Holds",
    "Matches",
    "Not",
    "Or",
    "PrincipalIs",
    "Query",
    "Side",
    "environments",
    "goal_text",
    "parts",
]


@dataclass(frozen=True, slots=True)
class Environment:
    """A kind of request.

    Attributes:
        principal_type: Qualified type of the principal, such as ``Sandbox::Agent``.
        action: The action as Cedar writes it, such as ``Sandbox::Action::"connect"``.
        resource_type: Qualified type of the resource.
    """

    principal_type: str
    action: str
    resource_type: str

    @property
    def action_type(self) -> str:
        """The type of the action, such as ``Sandbox::Action``."""
        return self.action.split('::"', 1)[0]

    @property
    def action_id(self) -> str:
        """The id of the action, such as ``connect``."""
        quoted = self.action.split('::"', 1)[1][:-1]
        return quoted.replace('\\"', '"').replace("\\\\", "\\")

    def __str__(self) -> str:
        return f"{self.principal_type} {self.action} {self.resource_type}"


def environments(schema: Mapping[str, Any]) -> tuple[Environment, ...]:
    """Return every kind of request that a schema has, in its order.

    Args:
        schema: Cedar's JSON schema, resolved, as :func:`cedarbox.review.syntax.schema_json` gives it.
    """
    found = []
    for namespace, content in schema.items():
        prefix = f"{namespace}::" if namespace else ""
        for name, action in content.get("actions", {}).items():
            applies = action.get("appliesTo") or {}
            uid = uid_text(f"{prefix}Action", name)
            found += [
                Environment(principal, uid, resource)
                for principal in applies.get("principalTypes", ())
                for resource in applies.get("resourceTypes", ())
            ]
    return tuple(found)


@dataclass(frozen=True)
class Side:
    """Policies with the entities that they are decided with: one version of what is compared.

    Attributes:
        policies: Cedar's JSON form of each policy and template, by its id.
        entities: The declared entities in Cedar's JSON form. With ``deny_on_error`` they say who the principals are;
            without, they are not looked at: a proof is about any entities that fit the schema.
        links: Template links in Cedar's JSON form: ``templateId``, ``newId``, ``values``.
        deny_on_error: It is a cedarbox bundle: a policy that fails to evaluate denies, and the principals are the
            declared agents. Without it a policy that fails is skipped, as Cedar does.
    """

    policies: Mapping[str, Mapping[str, Any]]
    entities: Sequence[Mapping[str, Any]] = ()
    links: Sequence[Mapping[str, Any]] = ()
    deny_on_error: bool = False

    @classmethod
    def of_bundle(cls, bundle: PolicyBundle) -> Side:
        """Return the side that a cedarbox bundle is."""
        return cls({policy.id: policy.est for policy in bundle.policies}, bundle.entities, deny_on_error=True)

    @cached_property
    def slot_policies(self) -> Mapping[str, Mapping[str, Any]]:
        """The policies that decide, by id: without templates, with the links of templates, their slots filled in."""
        from cedarbox.review.prove.links import filled

        return filled(self.policies, self.links)


@dataclass(frozen=True, slots=True)
class Allows:
    """The side allows the request."""

    side: str


@dataclass(frozen=True, slots=True)
class Matches:
    """A policy of a side is satisfied, without an error."""

    side: str
    policy: str


@dataclass(frozen=True, slots=True)
class Fails:
    """A policy of a side cannot be evaluated."""

    side: str
    policy: str


@dataclass(frozen=True)
class Holds:
    """A Cedar expression about the request is true; one that fails to evaluate is not.

    Attributes:
        expression: In Cedar's JSON form, as the body of a condition.
        side: Whose entities it looks into; empty for the last of the sides.
    """

    expression: Mapping[str, Any]
    side: str = ""


@dataclass(frozen=True, slots=True)
class PrincipalIs:
    """The principal has an id."""

    id: str


@dataclass(frozen=True, slots=True)
class Not:
    """It is not so."""

    goal: Goal


@dataclass(frozen=True, slots=True, init=False)
class And:
    """All of them are so; without any, it is so."""

    goals: tuple[Goal, ...]

    def __init__(self, *goals: Goal) -> None:
        object.__setattr__(self, "goals", goals)


@dataclass(frozen=True, slots=True, init=False)
class Or:
    """One of them is so; without any, it is not so."""

    goals: tuple[Goal, ...]

    def __init__(self, *goals: Goal) -> None:
        object.__setattr__(self, "goals", goals)


Goal = Allows | Matches | Fails | Holds | PrincipalIs | Not | And | Or
"""A formula about one request."""


def parts(goal: Goal) -> Iterator[Goal]:
    """Return a formula and every formula in it."""
    yield goal
    inner = goal.goals if isinstance(goal, And | Or) else (goal.goal,) if isinstance(goal, Not) else ()
    for each in inner:
        yield from parts(each)


def goal_text(goal: Goal) -> str:  # noqa: PLR0911  # one return for each kind
    """Return a goal in words, on one line."""
    match goal:
        case Allows(side):
            return f"{side} allows it"
        case Matches(side, policy):
            return f"policy {json.dumps(policy)} of {side} is satisfied"
        case Fails(side, policy):
            return f"policy {json.dumps(policy)} of {side} fails"
        case Holds(expression, side):
            return f"{json.dumps(expression)} holds" + (f" in {side}" if side else "")
        case PrincipalIs(name):
            return f"the principal is {json.dumps(name)}"
        case Not(inner):
            return f"not ({goal_text(inner)})"
        case And():
            return " and ".join(_inner(goal.goals)) or "true"
        case Or():
            return " or ".join(_inner(goal.goals)) or "false"


def _inner(goals: Sequence[Goal]) -> Iterator[str]:
    for each in goals:
        text = goal_text(each)
        yield f"({text})" if isinstance(each, And | Or) else text


@dataclass(frozen=True)
class Query:
    """One search.

    Attributes:
        goal: What to find a request for.
        environment: The kind of request.
        sides: What the goal is about, by name.
        label: What to call it in progress; the prover does not look at it.
    """

    goal: Goal
    environment: Environment
    sides: Mapping[str, Side] = field(default_factory=dict)
    label: str = ""
