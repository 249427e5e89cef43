"""The kinds of request that a schema has, and what of a policy follows from them alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.policy.reach import reached
from cedarbox.review.declared import uid_text

__all__ = ["RequestKinds", "action_groups"]

_Scope = Mapping[str, Any]
_PARTS: Final = ("principal", "resource")


@dataclass(frozen=True, slots=True)
class RequestKinds:
    """Every kind of request.

    Attributes:
        kinds: For each its action, as Cedar writes it, and the types of the principal and of the resource.
        groups: The groups that each action is in.
    """

    kinds: tuple[tuple[str, Mapping[str, str]], ...]
    groups: Mapping[str, frozenset[str]]

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> RequestKinds:
        """Take them from a schema.

        Args:
            schema: Cedar's JSON schema, resolved.
        """
        return cls(tuple(_kinds(schema)), action_groups(schema))

    def imply(self, est: Mapping[str, Any], part: str) -> bool:
        """Whether every request that the rest of a scope lets through is what one part of it asks for.

        Args:
            est: A policy in Cedar's JSON form.
            part: ``principal`` or ``resource``.
        """
        scope = est[part]
        if scope["op"] != "is" or "in" in scope:
            return False
        others = [name for name in _PARTS if name != part]
        return all(
            types[part] == scope["entity_type"]
            for action, types in self.kinds
            if self._meets(est["action"], action) and all(_may_be(est[name], types[name]) for name in others)
        )

    def everything(self, est: Mapping[str, Any]) -> bool:
        """Whether the scope of a policy lets every request through by names of types and groups, or without any.

        Args:
            est: A policy in Cedar's JSON form.
        """
        if any(est[part]["op"] not in {"All", "is"} or "in" in est[part] for part in _PARTS):
            return False
        fits = all(_may_be(est[part], types[part]) for _, types in self.kinds for part in _PARTS)
        if est["action"]["op"] == "All":
            return fits and (bool(self.kinds) or all(est[part]["op"] == "All" for part in _PARTS))
        named = _named(est["action"])
        return fits and bool(self.kinds) and not any(named.isdisjoint(self.groups[action]) for action, _ in self.kinds)

    def _meets(self, scope: _Scope, action: str) -> bool:
        if scope["op"] == "All":
            return True
        named = _named(scope)
        return action in named or (scope["op"] == "in" and not named.isdisjoint(self.groups[action]))


def _named(scope: _Scope) -> frozenset[str]:
    uids = scope["entities"] if "entities" in scope else [scope["entity"]]
    return frozenset(uid_text(str(uid["type"]), str(uid["id"])) for uid in uids)


def _may_be(scope: _Scope, kind: str) -> bool:
    if scope["op"] == "is":
        return bool(scope["entity_type"] == kind)
    return scope["op"] != "==" or "entity" not in scope or bool(scope["entity"]["type"] == kind)


def _kinds(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, str]]]:
    for namespace, content in schema.items():
        kind = f"{namespace}::Action" if namespace else "Action"
        for name, action in content.get("actions", {}).items():
            applies = action.get("appliesTo") or {}
            for principal in applies.get("principalTypes", ()):
                for resource in applies.get("resourceTypes", ()):
                    yield uid_text(kind, name), {"principal": principal, "resource": resource}


def action_groups(schema: Mapping[str, Any]) -> Mapping[str, frozenset[str]]:
    """Return the groups that each action is in, through others too, by qualified name.

    Args:
        schema: Cedar's JSON schema, resolved.
    """
    direct: dict[str, set[str]] = {}
    for namespace, content in schema.items():
        prefix = f"{namespace}::" if namespace else ""
        for name, action in content.get("actions", {}).items():
            members = action.get("memberOf") or ()
            direct[uid_text(f"{prefix}Action", name)] = {
                uid_text(str(each.get("type") or f"{prefix}Action"), str(each["id"])) for each in members
            }
    return {name: reached(name, lambda each: direct.get(each, ())) for name in direct}
