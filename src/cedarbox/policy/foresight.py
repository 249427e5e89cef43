"""What could be permitted, before everything is known that a decision needs.

Cedar evaluates the policies with a part of the request unknown. What it says then is never a permission: it can only
spare a question whose answer is *no* whatever the rest turns out to be.

Invariant: where some complete request would be allowed, nothing here says that none could be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cedarpy
import orjson

from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.policy.printed import printed_uid

__all__ = ["Foreseen", "Handles", "foresee", "opened"]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What is certain while a part of a request is unknown.

    Attributes:
        possible: Some request may be permitted.
        forbids: Ids of the policies that deny every request; empty when nothing permits one.
        errors: What went wrong; nothing is possible then, because an error makes a denial of every request.
    """

    possible: bool
    forbids: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Handles:
    """What the policies are evaluated with: those of one action, the entities of the bundle, the schema of both."""

    policies: cedarpy.PolicySet
    entities: cedarpy.Entities
    schema: cedarpy.Schema


def foresee(
    handles: Handles, principal: str, action: str, resource: Entity, context: Mapping[str, Any] | None
) -> Foreseen:
    """Evaluate the policies with a part of a request unknown.

    Args:
        handles: What to evaluate with.
        principal: Id of an agent that the entities have.
        action: The Cedar action.
        resource: The resource.
        context: What :func:`opened` gave; None when all of it is unknown.
    """
    delta = orjson.dumps([resource.to_json()]).decode()
    result = cedarpy.is_authorized_partial(
        {
            "principal": printed_uid(f"{NAMESPACE}::Agent", principal),
            "action": printed_uid(f"{NAMESPACE}::Action", action),
            "resource": printed_uid(resource.uid["type"], resource.id),
            "context": None if context is None else dict(context),
        },
        handles.policies,
        handles.entities.with_added_json_str(delta, handles.schema),
        # Cedar cannot hold an open value against the type that it will have.
        handles.schema if context is None else None,
    )
    if errors := tuple(" ".join(str(error).split()) for error in result.diagnostics.errors):
        return Foreseen(possible=False, errors=errors)
    if result.decision is not cedarpy.Decision.Deny:
        return Foreseen(possible=True)
    return Foreseen(possible=False, forbids=tuple(sorted(result.diagnostics.must_be_determining)))


def opened(context: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return a context in which some attributes are there and have a value that is not known.

    Times, addresses and what holds one are left open too: in a context that is not complete, Cedar 4.12 computes no
    extension values, and then does not look into the rest either.

    Args:
        context: In Cedar's JSON form.
        names: The attributes.
    """
    unknown = {*names, *(name for name, value in context.items() if b'"__extn"' in orjson.dumps(value))}
    return {**context, **{name: {"__extn": {"fn": "unknown", "arg": name}} for name in unknown}}
