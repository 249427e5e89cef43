"""Writes the cases of a bundle as tests of ``cedar run-tests``.

What Cedar itself cannot answer is left out: a request without a canonical form, an agent that is not declared, a case
about an error, which cedarbox denies and Cedar passes over. An approval is no part of Cedar's answer either, so a case
that states one is written without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import cedarpy
import orjson

from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.case import Case
from cedarbox.review.cases import Suite

__all__ = ["cedar_tests", "cedar_text"]

_PLAIN: Final = re.compile(r"[A-Za-z0-9 ._:/@+-]*", re.ASCII)
_REST: Final = {"action": {"op": "All"}, "resource": {"op": "All"}, "conditions": []}


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
    brought = [entity.to_json() for entity in (action.resource, *action.others)]
    return {
        "name": case.id,
        "request": {
            "principal": _uid("Agent", case.principal),
            "action": _uid("Action", action.name),
            "resource": _uid(action.resource.type, action.resource.id),
            "context": dict(action.context),
        },
        "entities": [*bundle.entities, *brought],
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
    """Return an entity uid in Cedar's syntax, in the one spelling that Cedar reads."""
    if _PLAIN.fullmatch(name):
        return f'{NAMESPACE}::{kind}::"{name}"'
    entity = {"type": f"{NAMESPACE}::{kind}", "id": name}
    policy = {"effect": "permit", "principal": {"op": "==", "entity": entity}, **_REST}
    document = {"staticPolicies": {"p": policy}, "templates": {}, "templateLinks": []}
    text: str = cedarpy.policies_from_json_str(orjson.dumps(document).decode())
    # Which characters Cedar escapes is for Cedar to say, so it is made to say it.
    before, after = "permit(principal == ", ", action, resource);"
    if not text.startswith(before) or not text.rstrip().endswith(after):
        raise RuntimeError(f"Cedar writes a policy in another way than expected: {text}")
    return text.rstrip()[len(before) : -len(after)]
