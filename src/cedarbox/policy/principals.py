"""Who the agents are: ``entities.json`` of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cedarpy

from cedarbox.errors import BundleError
from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.reading import utf8_text
from cedarbox.policy.schema import packaged_schema

__all__ = ["declared_principals"]

# cedarpy reckons the ancestors of every entity when it loads them: a chain of 4,000 groups takes 15 s (measured on
# 4.12.2).
_MAX_ENTITIES: Final = 10_000
_MAX_GROUPS: Final = 1_000
_MAX_GROUP_DEPTH: Final = 16
_PRINCIPAL_TYPES: Final = frozenset({"Tenant", "AgentGroup", "Agent"})


def declared_principals(path: Path, data: bytes) -> tuple[Mapping[str, Any], ...]:
    """Read the entities of a bundle: principals only, because cedarbox derives what a resource is.

    Args:
        path: The ``entities.json``, for messages.
        data: Its content.

    Returns:
        The entities, in Cedar's JSON form.

    Raises:
        BundleError: They cannot be used; the message names the file and, where known, the line.
    """
    try:
        items = json.loads(utf8_text(path, data))
    except json.JSONDecodeError as error:
        raise BundleError(f"not JSON: {error.msg}", path=path, line=error.lineno, column=error.colno) from None
    except (RecursionError, ValueError):
        raise BundleError("not JSON that can be read: too deep, or a number too long", path=path) from None
    if not isinstance(items, list):
        raise BundleError("expected a list of entities", path=path)
    for number, item in enumerate(items, start=1):
        uid = item.get("uid") if isinstance(item, dict) else None
        if not isinstance(uid, dict) or not isinstance(uid.get("type"), str) or not isinstance(uid.get("id"), str):
            hint = 'each needs "uid": {"type": …, "id": …}, "attrs" and "parents"'
            raise BundleError(f"entity {number} has no uid", path=path, hint=hint)
        if uid.keys() != {"type", "id"}:
            # Beside an `__entity` Cedar overlooks the rest, so that one agent would be declared and another be meant.
            odd = min(uid.keys() - {"type", "id"})
            hint = "write it with type and id and nothing else"
            raise BundleError(f"the uid of entity {number} has the key {odd[:80]!r}", path=path, hint=hint)
        if uid["type"].removeprefix(f"{NAMESPACE}::") not in _PRINCIPAL_TYPES:
            hint = f"only {', '.join(sorted(_PRINCIPAL_TYPES))} are declared; cedarbox derives the rest"
            raise BundleError(f"entity {number} is a {uid['type']}", path=path, hint=hint)
    _refuse_large_hierarchy(path, items)
    try:
        cedarpy.Entities.from_json_str(json.dumps(items), packaged_schema())
    except ValueError as error:
        raise BundleError(f"does not fit the schema: {error}", path=path) from None
    return tuple(items)


def _refuse_large_hierarchy(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    if len(items) > _MAX_ENTITIES:
        raise BundleError(f"more than {_MAX_ENTITIES} entities", path=path, hint="declare the agents that run here")
    above = {
        item["uid"]["id"]: _group_ids(item.get("parents"))
        for item in items
        if item["uid"]["type"] == f"{NAMESPACE}::AgentGroup"
    }
    if len(above) > _MAX_GROUPS:
        raise BundleError(f"more than {_MAX_GROUPS} agent groups", path=path, hint="use fewer groups")
    level, depth = set(above), 0
    while level := {parent for group in level for parent in above.get(group, ())}:
        depth += 1
        if depth > _MAX_GROUP_DEPTH:
            hint = "a group must not be in itself, and groups in groups are for a few levels"
            raise BundleError(f"agent groups are nested more than {_MAX_GROUP_DEPTH} deep", path=path, hint=hint)


def _group_ids(parents: object) -> frozenset[str]:
    # What is malformed here is refused by the schema a moment later.
    uids = (
        [parent.get("__entity", parent) for parent in parents if isinstance(parent, dict)]
        if isinstance(parents, list)
        else []
    )
    return frozenset(uid["id"] for uid in uids if isinstance(uid, dict) and isinstance(uid.get("id"), str))
