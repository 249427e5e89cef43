"""A goal as a term: the policies of every side, encoded once for a kind of request and asked about again and again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

from cedarbox.review.prove.encode import Encoder, Outcome
from cedarbox.review.prove.expressions import Request
from cedarbox.review.prove.goals import (
    Allows,
    And,
    Environment,
    Fails,
    Goal,
    Holds,
    Matches,
    Not,
    Or,
    PrincipalIs,
    Side,
)
from cedarbox.review.prove.replay import scope_meets
from cedarbox.review.prove.terms import Term, Terms
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values
from cedarbox.review.prove.worlds import World

__all__ = ["Problem", "View"]


class View:
    """One side for one kind of request, with what its entities are.

    Attributes:
        encoder: Encodes its policies.
        declared: The side has the principal; one that has not denies it everything.

    Args:
        side: The side.
        encoder: Shared by the sides whose entities are the same.
        outcomes: What its policies have become, shared like the encoder.
        declared: See above.
        sliced: The ids of its policies that can match the action.
    """

    def __init__(
        self, side: Side, encoder: Encoder, outcomes: dict[str, Outcome], declared: bool, sliced: Mapping[str, str]
    ) -> None:
        self._side, self.encoder, self._outcomes, self.declared = side, encoder, outcomes, declared
        self._sliced = sliced

    @cached_property
    def signature(self) -> tuple[object, ...]:
        """The same for two sides that allow the same requests because they have the same policies, in any order."""
        policies = {f"{self._side.slot_policies[name]['effect']} {key}" for name, key in self._sliced.items()}
        digest = sha256(json.dumps(sorted(policies)).encode()).hexdigest()
        return id(self.encoder), self.declared, self._side.deny_on_error, digest

    def outcome(self, policy: str) -> Outcome:
        """Return what becomes of a policy. Raises KeyError when there is none of this id."""
        est = self._side.slot_policies[policy]
        key = self._sliced.get(policy) or _key(est)
        found = self._outcomes.get(key)
        if found is None:
            found = self._outcomes[key] = self.encoder.policy(est, f"policy `{policy}`")
        return found

    def allows(self, terms: Terms) -> Term:
        """Return whether the side allows the request."""
        if not self.declared:
            return terms.false
        permits, others = [], []
        for policy in self._sliced:
            outcome = self.outcome(policy)
            if self._side.slot_policies[policy]["effect"] == "permit":
                permits.append(outcome.holds)
            else:
                others.append(outcome.holds)
            if self._side.deny_on_error:
                others.append(outcome.fails)
        return terms.and_(terms.or_(*permits), *(terms.not_(each) for each in others))


def _key(est: Mapping[str, Any]) -> str:
    return json.dumps([est[part] for part in ("principal", "action", "resource", "conditions")], sort_keys=True)


class Problem:
    """The sides of a question, for one kind of request and one principal or any.

    Attributes:
        values: Made the values in the terms.
        principal: The id of the principal; None for any.

    Args:
        values: Makes the values.
        environment: The kind of request.
        sides: The policies, by name.
        worlds: What entities are, by side.
        declared: The sides that have the principal.
        principal: See above.
    """

    def __init__(
        self,
        values: Values,
        environment: Environment,
        sides: Mapping[str, Side],
        worlds: Mapping[str, World],
        declared: Sequence[str],
        *,
        principal: str | None = None,
    ) -> None:
        self.values, self.principal = values, principal
        types: SchemaTypes = values.types
        action = (environment.action_type, environment.action_id)
        groups = types.groups(action)
        encoders: dict[int, tuple[Encoder, dict[str, Outcome]]] = {}
        self._views: dict[str, View] = {}
        for name, side in sides.items():
            world = worlds[name]
            if id(world) not in encoders:
                request = Request(
                    world.variable("principal", environment.principal_type),
                    action,
                    world.variable("resource", environment.resource_type),
                    world.context(types.context(action)),
                )
                encoders[id(world)] = Encoder(world, request, f"world {len(encoders)}"), {}
            encoder, outcomes = encoders[id(world)]
            sliced = {
                policy: _key(est) for policy, est in side.slot_policies.items() if scope_meets(est, action, groups)
            }
            self._views[name] = View(side, encoder, outcomes, name in declared, sliced)
        self._encoders = [encoder for encoder, _ in encoders.values()]

    def skipped(self) -> Mapping[str, str]:
        """Return what is not encoded, by the name of the variable that stands for it."""
        return {name: why for encoder in self._encoders for name, why in encoder.skipped.items()}

    def outline(self, goal: Goal) -> Term:
        """Return a goal as a term in which nothing is known of the policies but which sides have the same.

        A goal whose outline is false is false.
        """
        terms = self.values.terms
        match goal:
            case Allows(side):
                return terms.var(f"allowed {self._views[side].signature}", "Bool")
            case Not(inner):
                return terms.not_(self.outline(inner))
            case And():
                return terms.and_(*(self.outline(each) for each in goal.goals))
            case Or():
                return terms.or_(*(self.outline(each) for each in goal.goals))
        return terms.var(f"so {goal}", "Bool")

    def term(self, goal: Goal) -> Term:  # noqa: PLR0911  # one return for each kind
        """Return a goal as a term.

        Raises:
            KeyError: It names a side or a policy that there is not.
        """
        terms = self.values.terms
        match goal:
            case Allows(side):
                return self._views[side].allows(terms)
            case Matches(side, policy) | Fails(side, policy):
                view = self._views[side]
                outcome = view.outcome(policy)
                found = outcome.holds if isinstance(goal, Matches) else outcome.fails
                return found if view.declared else terms.false
            case Holds(expression, side):
                view = self._views[side or list(self._views)[-1]]
                held = view.encoder.expression(expression, "the expression").holds
                return held if view.declared else terms.false
            case PrincipalIs(name):
                if self.principal is not None:
                    return terms.truth(self.principal == name)
                return terms.eq(terms.var("principal", "String"), terms.string(name))
            case Not(inner):
                return terms.not_(self.term(inner))
            case And():
                return terms.and_(*(self.term(each) for each in goal.goals))
            case Or():
                return terms.or_(*(self.term(each) for each in goal.goals))
