"""Writes the cases of a bundle as tests of ``cedar run-tests``.

What Cedar itself cannot answer is left out: a request without a canonical form, an agent that is not declared, a case
about an error, which cedarbox denies and Cedar passes over. An approval is no part of Cedar's answer either, so a case
that states one is written without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.printed import printed_uid
from cedarbox.review.case import Case
from cedarbox.review.cases import Suite

__all__ = ["cedar_tests", "cedar_text"]


def cedar_tests(suite: Suite, cases: Sequence[Case] | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return the cases of a suite in Cedar's format, and how many were left out.

    Args:
        suite: The suite.
        cases: Those of its cases to write; None for all.
    """
    ids = _ids(suite.bundle)
    asked = suite.cases if cases is None else cases
    told = [_test(suite.bundle, case, ids) for case in asked if _answerable(suite.bundle, case)]
    return told, len(asked) - len(told)


def cedar_text(tests: Sequence[Mapping[str, Any]]) -> bytes:
    """Return tests as the content of a file."""
    return orjson.dumps(list(tests), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _answerable(bundle: PolicyBundle, case: Case) -> bool:
    return case.request is not None and case.error is None and case.principal in bundle.principals


def _test(bundle: PolicyBundle, case: Case, ids: Mapping[str, str]) -> dict[str, Any]:
    action = case.request
    if action is None:
        raise ValueError("a case without a request asks Cedar nothing")
    return {
        "name": case.id,
        "request": {
            "principal": _uid("Agent", case.principal),
            "action": _uid("Action", action.name),
            "resource": _uid(action.resource.type, action.resource.id),
            "context": dict(action.context),
        },
        "entities": [*bundle.entities, *action.brought],
        "decision": "allow" if case.allowed else "deny",
        "reason": sorted(ids[policy_id] for policy_id in case.by),
        "num_errors": 0,
    }


def _ids(bundle: PolicyBundle) -> dict[str, str]:
    """Return the id that ``cedar`` gives to each policy."""
    return {
        policy.id: policy.annotations.get("id") or f"policy{number}" for number, policy in enumerate(bundle.policies)
    }


def _uid(kind: str, name: str) -> str:
    return printed_uid(f"{NAMESPACE}::{kind}", name)
