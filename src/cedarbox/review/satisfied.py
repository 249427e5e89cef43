"""Which of many policies a request satisfies, each by itself.

Cedar evaluates each policy alone: whether a request satisfies one, or one cannot be evaluated, depends on no other.
Asking all of them as permits therefore tells of every one of them, also of a permit that a forbid overrides.
That is what makes trying many changes of a bundle cheap: all of them are asked at once, and what each would do to a
decision follows from the rest.

A policy whose scope names a resource is asked only about requests for that resource or for what is below it: for
others its scope is false, and a scope that is false neither satisfies nor fails. Cedar's cost grows with the number of
policies.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cedarpy
import orjson

from cedarbox.policy.bundle import Policy
from cedarbox.review.declared import Uid, uid_of

__all__ = ["Candidates", "Query", "Results"]

_Part = Uid | None
_SHARE: Final = 0.7
"""Which share of the policies of a set must be left for it to be asked as it is."""
_FAILED: Final = re.compile(r"error while evaluating policy `(\d+)`: ")


@dataclass(frozen=True, slots=True)
class Query:
    """A request that Cedar can be asked.

    Attributes:
        request: The request in the form that cedarpy takes.
        entities: The entities that it is asked with.
        schema: The schema of both.
        above: The resource and every entity that it is in, each as type and id; more does no harm. None when they are
            not known: then every policy is asked.
    """

    request: Mapping[str, Any]
    entities: cedarpy.Entities
    schema: cedarpy.Schema
    above: frozenset[Uid] | None


@dataclass(frozen=True, slots=True)
class Results:
    """What came of one request.

    Attributes:
        satisfied: Numbers of the policies that it satisfies.
        failed: What went wrong, by the number of the policy that could not be evaluated.
    """

    satisfied: frozenset[int]
    failed: Mapping[int, str]


class Candidates:
    """Policies to ask together, each under a number of its own.

    Args:
        policies: The policies by their numbers.
    """

    def __init__(self, policies: Iterable[tuple[int, Policy]]) -> None:
        self._texts: dict[_Part, dict[str, Any]] = defaultdict(dict)
        self._sets: dict[_Part, tuple[cedarpy.PolicySet, int]] = {}
        self._known: dict[int, tuple[Policy, _Part]] = {}
        for number, policy in policies:
            part = _named(policy.est["resource"])
            self._texts[part][str(number)] = policy.est
            self._known[number] = policy, part

    def forget(self, number: int) -> None:
        """Ask one policy no more, at the latest when many of those asked with it are forgotten too.

        Args:
            number: Its number; one that is not known does no harm.
        """
        if number in self._known:
            self._texts[self._known[number][1]].pop(str(number), None)

    def results(self, query: Query) -> Results | None:
        """Evaluate every policy for one request; None when the request itself does not fit the schema.

        Args:
            query: The request.
        """
        satisfied: set[int] = set()
        failed: dict[int, str] = {}
        parts = (None, *query.above) if query.above is not None else list(self._texts)
        for part in parts:
            if not self._texts.get(part):
                continue
            answer = cedarpy.is_authorized(dict(query.request), self._set(part), query.entities, query.schema)
            if answer.decision is cedarpy.Decision.NoDecision:
                return None
            satisfied.update(map(int, answer.diagnostics.reasons))
            for told in answer.diagnostics.errors:
                number, text = self._told(told)
                failed[number] = text
        return Results(frozenset(satisfied), failed)

    @cached_property
    def whole(self) -> cedarpy.PolicySet:
        """All policies in one set, each under its number."""
        return _set({number: est for texts in self._texts.values() for number, est in texts.items()})

    def named(self, error: object) -> str:
        """Return an error of Cedar's with the id of the policy in the place of its number."""
        return self._told(error)[1]

    def _told(self, error: object) -> tuple[int, str]:
        text = " ".join(str(error).split())
        if not (match := _FAILED.match(text)):
            raise RuntimeError(f"an error of Cedar that names no policy: {text}")
        number = int(match.group(1))
        return number, f"error while evaluating policy `{self._known[number][0].id}`: {text[match.end() :]}"

    def _set(self, part: _Part) -> cedarpy.PolicySet:
        texts = self._texts[part]
        policies, size = self._sets.get(part, (None, 0))
        # To make a set costs about as much as to ask each of its policies forty times.
        if policies is None or len(texts) < _SHARE * size:
            policies, size = _set({number: {**est, "effect": "permit"} for number, est in texts.items()}), len(texts)
            self._sets[part] = policies, size
        return policies


def _named(scope: Mapping[str, Any]) -> Uid | None:
    """Return the entity that a scope wants the resource to be or to be in."""
    within = scope.get("in", scope)
    return uid_of(within["entity"]) if "entity" in within else None


def _set(policies: Mapping[str, Any]) -> cedarpy.PolicySet:
    document = {"staticPolicies": policies, "templates": {}, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(orjson.dumps(document).decode())
