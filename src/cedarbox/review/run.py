"""Runs test cases against real Cedar, and tells which changes of a bundle no case notices."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Protocol, TypeVar

import cedarpy
import orjson

from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.approval import Approval, approval_of, combined
from cedarbox.policy.bundle import Policy
from cedarbox.policy.schema import packaged_schema, schema_text
from cedarbox.review.cases import Case, Suite
from cedarbox.review.declared import Declared, uid_of
from cedarbox.review.kinds import RequestKinds
from cedarbox.review.mutants import Mutant, mutants_of
from cedarbox.review.satisfied import Query
from cedarbox.review.syntax import schema_json
from cedarbox.review.unnoticed import Asked, unnoticed

__all__ = ["Outcome", "chosen", "outcome_of", "run_suite", "survivors"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case.

    Attributes:
        case: The case.
        decision: The answer; None when the request has no canonical form, which is a denial too.
        problem: What was otherwise than expected; empty for a case that passed.
        seconds: How long the decision took.
    """

    case: Case
    decision: Decision | None
    problem: str
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """All was as expected."""
        return not self.problem

    @property
    def determined(self) -> frozenset[str] | None:
        """Ids of the policies that determined the answer; None for one that no policy did, because of an error."""
        # A case that ended in an error says nothing about any policy.
        return None if self.decision is None or self.decision.errors else frozenset(self.decision.policies)


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


AnyCase = TypeVar("AnyCase", bound=_Identified)


def chosen(cases: Sequence[AnyCase], patterns: Sequence[str]) -> list[AnyCase]:
    """Return the cases that a pattern matches, or all when there is none.

    Args:
        cases: The cases.
        patterns: Parts of a :attr:`Case.id`, or shell patterns of a whole one; upper and lower case are the same.
    """

    def fits(case: _Identified, pattern: str) -> bool:
        told, wanted = case.id.lower(), pattern.lower()
        # A name has brackets, which would be a set of letters in a pattern, so they stand for themselves.
        wild = wanted.replace("[", "[[]")
        return wanted in told or (bool({"*", "?"} & set(wanted)) and fnmatchcase(told, wild))

    return [case for case in cases if not patterns or any(fits(case, pattern) for pattern in patterns)]


def run_suite(suite: Suite, cases: Sequence[Case] | None = None, *, fail_fast: bool = False) -> tuple[Outcome, ...]:
    """Decide the cases of a suite.

    Args:
        suite: The suite.
        cases: Those of its cases to decide; None for all.
        fail_fast: Stop after the first that does not pass.
    """
    engine = PolicyEngine(suite.bundle)
    outcomes = []
    for case in suite.cases if cases is None else cases:
        outcomes.append(outcome_of(engine, case))
        if fail_fast and not outcomes[-1].passed:
            break
    return tuple(outcomes)


def outcome_of(engine: PolicyEngine, case: Case) -> Outcome:
    """Decide one case.

    Args:
        engine: The engine of the suite's bundle.
        case: The case.
    """
    if case.request is None:
        return Outcome(case, None, _unlike(case, allowed=False, by=(), errors=(case.refusal,), approval=None))
    started = time.perf_counter()
    decision = engine.decide(case.principal, case.request)
    seconds = time.perf_counter() - started
    problem = _unlike(
        case,
        allowed=decision.allowed,
        by=decision.policies,
        errors=decision.errors,
        approval=decision.approval,
    )
    return Outcome(case, decision, problem, seconds)


def survivors(suite: Suite) -> tuple[tuple[Mutant, ...], int]:
    """Change the bundle step by step and keep the changes that every case passes with.

    Args:
        suite: A suite whose cases all pass.

    Returns:
        The changes that no case notices, and how many were made.
    """
    mutants = list(mutants_of(suite.bundle.policies, RequestKinds.of(schema_json(schema_text()))))
    asked = [Asked(case.action, query, partial(_passes, case)) for case, query in _queries(suite)]
    return tuple(unnoticed(suite.bundle.policies, mutants, asked)), len(mutants)


def _queries(suite: Suite) -> Iterator[tuple[Case, Callable[[], Query]]]:
    """Yield the cases that policies decide, as :meth:`PolicyEngine.decide` asks them.

    An agent that is not declared is denied whatever the policies say, and so is a request without a canonical form.
    """
    schema = packaged_schema()
    entities = cedarpy.Entities.from_json_str(orjson.dumps(list(suite.bundle.entities)).decode(), schema)
    principals = suite.bundle.principals
    for case in suite.cases:
        if case.request is not None and case.principal in principals:
            yield case, partial(_query, case, entities, schema)


def _query(case: Case, entities: cedarpy.Entities, schema: cedarpy.Schema) -> Query:
    action = case.request
    if action is None:
        raise ValueError("a case without a request asks nothing")
    brought = action.brought
    delta = entities.with_added_json_str(orjson.dumps(brought).decode(), schema)
    # The declared entities are principals, and nothing that a request brings along is in one.
    resource = uid_of(action.resource.uid)
    return Query(action.asked_by(case.principal), delta, schema, Declared(brought).above(resource) | {resource})


def _passes(case: Case, satisfied: Sequence[Policy], errors: Sequence[str]) -> bool:
    """Whether a case passes, as the engine would decide when these policies are satisfied and these errors occur."""
    if errors:
        return not _unlike(case, allowed=False, by=(), errors=errors, approval=None)
    forbids = [policy for policy in satisfied if policy.effect == "forbid"]
    determining = forbids or satisfied
    ids = [policy.id for policy in determining]
    allowed = bool(determining) and not forbids
    needed = [approval for policy in determining if (approval := approval_of(policy.annotations)) is not None]
    approval = combined(needed) if allowed else None
    if approval is not None and not approval.approvers:
        refused = f"{', '.join(sorted(ids))} require approvals that no one approver can give"
        return not _unlike(case, allowed=False, by=ids, errors=(refused,), approval=None)
    return not _unlike(case, allowed=allowed, by=ids, errors=(), approval=approval)


def _unlike(case: Case, *, allowed: bool, by: Sequence[str], errors: Sequence[str], approval: Approval | None) -> str:
    got = f"got {_told(allowed, by)}{''.join(f', with the error: {error}' for error in errors[:1])}"
    if case.error is not None:
        met = not allowed and any(case.error in error for error in errors)
        return "" if met else f"expected a deny with an error about {case.error!r}, {got}"
    if allowed is not case.allowed or frozenset(by) != case.by or errors:
        return f"expected {_told(case.allowed, sorted(case.by))}, {got}"
    return _unlike_approval(case, approval)


def _unlike_approval(case: Case, approval: Approval | None) -> str:
    if case.approvers is None:
        return ""
    given = frozenset(approval.approvers) if approval else frozenset()
    if given != case.approvers:
        return f"expected {_who(case.approvers)}, got {_who(given)}"
    if case.approval_s is not None and approval is not None and approval.expires_s != case.approval_s:
        return f"expected an approval that holds {case.approval_s} s, got one that holds {approval.expires_s} s"
    return ""


def _who(approvers: frozenset[str]) -> str:
    return f"an approval by {' or '.join(sorted(approvers))}" if approvers else "no need of an approval"


def _told(allowed: bool, by: Sequence[str]) -> str:
    return f"{'allow' if allowed else 'deny'} by {' and '.join(by) or 'no policy'}"
