"""Templates with their slots filled in: what a link decides, as a policy of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["filled", "is_template"]


def filled(
    policies: Mapping[str, Mapping[str, Any]], links: Sequence[Mapping[str, Any]]
) -> Mapping[str, Mapping[str, Any]]:
    """Return the policies that decide: those without slots, and the links of templates.

    Args:
        policies: Cedar's JSON form of policies and templates, by id.
        links: Cedar's JSON form of the links: ``templateId``, ``newId`` and ``values`` by slot.

    Raises:
        ValueError: A link names a template that there is not, leaves a slot open, or has an id that is taken.
    """
    found = {name: est for name, est in policies.items() if not is_template(est)}
    for link in links:
        template, name = str(link["templateId"]), str(link["newId"])
        if template not in policies:
            raise ValueError(f"link {name!r} is of the template {template!r}, which there is not")
        if name in found or name in policies:
            raise ValueError(f"link {name!r} has the id of another policy")
        values = {slot: _uid(uid) for slot, uid in link.get("values", {}).items()}
        est = _with(policies[template], values)
        if is_template(est):
            raise ValueError(f"link {name!r} leaves a slot of the template {template!r} open")
        found[name] = est
    return found


def is_template(est: Mapping[str, Any]) -> bool:
    """Whether a policy has slots that are not filled in. Slots stand in the scope only."""
    for place in ("principal", "resource"):
        scope = est.get(place, {})
        if "slot" in scope or "slot" in (scope.get("in") or {}):
            return True
    return False


def _uid(given: Mapping[str, Any]) -> Mapping[str, str]:
    inner = given.get("__entity", given)
    return {"type": str(inner["type"]), "id": str(inner["id"])}


def _with(est: Mapping[str, Any], values: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
    return {**est, **{place: _scope(est[place], values) for place in ("principal", "resource")}}


def _scope(scope: Mapping[str, Any], values: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
    if scope.get("slot") in values:
        rest = {name: value for name, value in scope.items() if name != "slot"}
        return {**rest, "entity": values[scope["slot"]]}
    if isinstance(scope.get("in"), Mapping):
        return {**scope, "in": _scope(scope["in"], values)}
    return scope
