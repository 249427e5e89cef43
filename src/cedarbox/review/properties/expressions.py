"""Cedar expressions in properties: each must fit the schema, or the property would say less than it reads.

An expression that fails to evaluate is not true of a request, so a ``never`` about it would hold too easily. Cedar's
validator refuses what can fail for a missing attribute, and what it refuses is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cedarpy

from cedarbox.errors import ConfigurationError
from cedarbox.policy.source import excess, statements
from cedarbox.review.prove import Environment

__all__ = ["expression"]


def expression(text: str, environment: Environment, schema: str) -> Mapping[str, Any]:
    """Parse an expression about the requests of an action.

    Args:
        text: The expression.
        environment: The kind of request; the expression must fit every kind with its action.
        schema: Text of the schema.

    Returns:
        Cedar's JSON form.

    Raises:
        ConfigurationError: It is no expression, or does not fit.
    """
    source = f"permit (principal, action == {environment.action}, resource) when {{\n{text}\n}};"
    found = list(statements(source))
    if len(found) == 1 and (too_much := excess(found[0])):
        raise ConfigurationError(f"{too_much} in an expression", hint="write it in several properties")
    try:
        document = json.loads(cedarpy.policies_to_json_str(source))
    except (ValueError, RecursionError) as error:
        told = (str(error).splitlines() or ["not Cedar"])[0]
        raise ConfigurationError(f"no Cedar expression: {told[:300]}", hint=f"it was {text[:200]}") from None
    policies = list(document["staticPolicies"].values())
    if len(found) != 1 or len(policies) != 1 or document["templates"] or len(policies[0]["conditions"]) != 1:
        raise ConfigurationError(f"more than one expression: {text[:200]}", hint="close what you open")
    result = cedarpy.validate_policies(source, schema)
    if not result.validation_passed:
        told = " ".join(str(result.errors[0].error).split()) if result.errors else "it does not type-check"
        raise ConfigurationError(
            f"the expression does not fit the schema: {told[:400]}", hint="guard what may be missing with has"
        )
    body: Mapping[str, Any] = policies[0]["conditions"][0]["body"]
    return body
