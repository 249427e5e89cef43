"""Cedar's own word on a request: nothing is told as found that Cedar did not decide so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import cedarpy

from cedarbox.review.prove.answers import Replay
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
from cedarbox.review.prove.types import SchemaTypes

__all__ = ["ReplayError", "Replayer", "scope_meets"]

_ONE = "policy"


class ReplayError(Exception):
    """Cedar does not take the request. The message says why."""


def scope_meets(est: Mapping[str, Any], action: tuple[str, str], groups: frozenset[tuple[str, str]]) -> bool:
    """Whether the scope of a policy can match an action.

    Args:
        est: Cedar's JSON form of the policy.
        action: Type and id of the action.
        groups: The actions that it is in.
    """
    scope = est["action"]
    if scope["op"] == "All":
        return True
    reached = {action} if scope["op"] == "==" else {action, *groups}
    return any((uid["type"], uid["id"]) in reached for uid in scope.get("entities") or [scope["entity"]])


class Replayer:
    """Decides requests of one kind with Cedar.

    Args:
        schema: The schema.
        types: The same.
        environment: The kind of request.
        sides: The policies, by name.
    """

    def __init__(
        self, schema: cedarpy.Schema, types: SchemaTypes, environment: Environment, sides: Mapping[str, Side]
    ) -> None:
        self._schema, self._environment, self._sides = schema, environment, sides
        self._action = (environment.action_type, environment.action_id)
        self._groups = types.groups(self._action)
        self._sets: dict[str, cedarpy.PolicySet] = {}

    def check(
        self, goal: Goal, request: Mapping[str, Any], entities: Sequence[Mapping[str, Any]]
    ) -> tuple[bool, dict[str, Replay]]:
        """Decide a request on every side, and whether the goal is so.

        Args:
            goal: The goal.
            request: ``principal``, ``action``, ``resource`` and ``context`` in Cedar's JSON form.
            entities: What it brings along.

        Raises:
            ReplayError: Cedar does not take it.
        """
        replays = {name: self.decide(name, request, entities) for name in self._sides}
        return self._is_so(goal, request, entities, replays), replays

    def decide(self, name: str, request: Mapping[str, Any], entities: Sequence[Mapping[str, Any]]) -> Replay:
        """Decide a request on one side.

        Raises:
            ReplayError: Cedar does not take it.
        """
        side = self._sides[name]
        if not _declares(side, request["principal"]):
            return Replay(allowed=False, decision="Undeclared")
        if name not in self._sets:
            self._sets[name] = _policy_set(
                {
                    policy: est
                    for policy, est in side.slot_policies.items()
                    if scope_meets(est, self._action, self._groups)
                }
            )
        result = self._ask(self._sets[name], request, _all(side, entities))
        errors = tuple(" ".join(str(error).split()) for error in result.diagnostics.errors)
        allowed = result.decision is cedarpy.Decision.Allow and not (side.deny_on_error and errors)
        return Replay(allowed, result.decision.value, tuple(sorted(result.diagnostics.reasons)), errors)

    def outcome(
        self, name: str, est: Mapping[str, Any], request: Mapping[str, Any], entities: Sequence[Mapping[str, Any]]
    ) -> tuple[bool, bool]:
        """Return whether a policy is satisfied, and whether it fails, with the entities of a side.

        Raises:
            ReplayError: Cedar does not take the request.
        """
        side = self._sides[name]
        if not _declares(side, request["principal"]):
            return False, False
        result = self._ask(_policy_set({_ONE: est}), request, _all(side, entities))
        return bool(result.diagnostics.reasons), bool(result.diagnostics.errors)

    def _ask(
        self, policies: cedarpy.PolicySet, request: Mapping[str, Any], entities: Sequence[Mapping[str, Any]]
    ) -> cedarpy.AuthzResult:
        try:
            store = cedarpy.Entities.from_json_str(json.dumps(entities), self._schema)
            result = cedarpy.is_authorized(dict(request), policies, store, self._schema)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in the engine derives from BaseException, not Exception
            raise ReplayError(" ".join(f"{type(error).__name__}: {error}".split())[:300]) from error
        if result.decision is cedarpy.Decision.NoDecision:
            raise ReplayError("; ".join(" ".join(str(error).split()) for error in result.diagnostics.errors)[:300])
        return result

    def _is_so(  # noqa: PLR0911  # one return for each kind
        self,
        goal: Goal,
        request: Mapping[str, Any],
        entities: Sequence[Mapping[str, Any]],
        replays: Mapping[str, Replay],
    ) -> bool:
        match goal:
            case Allows(side):
                return replays[side].allowed
            case Matches(side, policy) | Fails(side, policy):
                est = self._sides[side].slot_policies[policy]
                holds, fails = self.outcome(side, est, request, entities)
                return fails if isinstance(goal, Fails) else holds
            case Holds(expression, side):
                body = {"kind": "when", "body": expression}
                everything = {"op": "All"}
                est = {
                    "effect": "permit",
                    "principal": everything,
                    "action": everything,
                    "resource": everything,
                    "conditions": [body],
                }
                return self.outcome(side or list(self._sides)[-1], est, request, entities)[0]
            case PrincipalIs(name):
                return bool(request["principal"]["id"] == name)
            case Not(inner):
                return not self._is_so(inner, request, entities, replays)
            case And():
                return all(self._is_so(each, request, entities, replays) for each in goal.goals)
            case Or():
                return any(self._is_so(each, request, entities, replays) for each in goal.goals)


def _policy_set(policies: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    document = {"staticPolicies": dict(policies), "templates": {}, "templateLinks": []}
    try:
        return cedarpy.PolicySet.from_json_str(json.dumps(document))
    except ValueError as error:
        raise ReplayError(" ".join(str(error).split())[:300]) from error


def _declares(side: Side, principal: Mapping[str, str]) -> bool:
    return not side.deny_on_error or any(item["uid"] == principal for item in side.entities)


def _all(side: Side, entities: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [*side.entities, *entities] if side.deny_on_error else list(entities)
