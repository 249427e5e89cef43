"""Policies as terms: when each is satisfied, and when it cannot be evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from cedarbox.review.prove import constants
from cedarbox.review.prove.expressions import Expressions
from cedarbox.review.prove.payloads import Value
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import EntityOf

__all__ = ["Encoder", "Outcome"]


class Outcome(NamedTuple):
    """What becomes of a policy.

    Attributes:
        holds: It is satisfied, without an error.
        fails: It cannot be evaluated.
    """

    holds: Term
    fails: Term


class Encoder(Expressions):
    """Encodes policies for one kind of request; the arguments are those of :class:`Expressions`."""

    def policy(self, est: Mapping[str, Any], about: str) -> Outcome:
        """Encode a policy without slots.

        Args:
            est: Cedar's JSON form.
            about: What to call it in :attr:`skipped`, such as "policy `x`".
        """
        terms, self._about = self._terms, about
        scope = self._scope(est)
        if scope is terms.false:
            return Outcome(terms.false, terms.false)
        holds, fails = scope, terms.false
        for condition in est.get("conditions", ()):
            body = self._truth(condition["body"])
            fails = terms.or_(fails, terms.and_(holds, body.fails))
            holds = terms.and_(holds, body.payload if condition["kind"] == "when" else terms.not_(body.payload))
            if holds is terms.false:
                break
        return Outcome(terms.and_(holds, terms.not_(fails)), fails)

    def expression(self, est: Mapping[str, Any], about: str) -> Outcome:
        """Encode an expression that is true or false."""
        self._about = about
        body = self._truth(est)
        return Outcome(self._terms.and_(body.payload, self._terms.not_(body.fails)), body.fails)

    def _scope(self, est: Mapping[str, Any]) -> Term:
        terms, request = self._terms, self._request
        found = [self._action_scope(est["action"])]
        if found[0] is not terms.false:
            found += [
                self._entity_scope(est["principal"], request.principal),
                self._entity_scope(est["resource"], request.resource),
            ]
        return terms.and_(*found)

    def _action_scope(self, scope: Mapping[str, Any]) -> Term:
        if scope["op"] == "All":
            return self._terms.true
        named = scope.get("entities") or [scope["entity"]]
        action = self._request.action
        reached = {action} if scope["op"] == "==" else {action, *self._values.types.groups(action)}
        return self._terms.truth(any((uid["type"], uid["id"]) in reached for uid in named))

    def _entity_scope(self, scope: Mapping[str, Any], value: Value) -> Term:
        terms = self._terms
        if scope["op"] == "All":
            return terms.true
        if scope["op"] == "is":
            if value.type != EntityOf(scope["entity_type"]):
                return terms.false
            inner = scope.get("in")
            return terms.true if inner is None else self._in(value, constants.entity(self._terms, inner["entity"]))
        other = constants.entity(self._terms, scope["entity"])
        return self._same(value, other) if scope["op"] == "==" else self._in(value, other)
