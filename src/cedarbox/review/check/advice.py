"""What there is instead, beside what Cedar's validator says there is not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

from cedarbox.review.declared import uid_text

__all__ = ["Advice"]

_ATTRIBUTE: Final = re.compile(
    r"attribute `(?P<path>[^`]+)` (?:in context for (?P<action>.+)|on entity type `(?P<type>[^`]+)`) not found"
)
_MEMBER: Final = re.compile(r"entity `(?P<type>[^`\"]+)::\"[^`]*` is of an enumerated entity type")
_UNKNOWN: Final = re.compile(r"unrecognized (?:action|entity type) `(?P<name>.+)`$")
_NO_ACTION: Final = "unable to find an applicable action"
_MOST: Final = 16

_Json = Mapping[str, Any]


class Advice:
    """Knows a schema.

    Args:
        schema: Cedar's JSON schema, resolved.
    """

    def __init__(self, schema: Mapping[str, _Json]) -> None:
        self._types = {
            f"{space}::{name}" if space else name: given for space, name, given in _declared(schema, "entityTypes")
        }
        self._actions = {
            uid_text(f"{space}::Action" if space else "Action", name): given
            for space, name, given in _declared(schema, "actions")
        }

    def on(self, message: str, est: _Json) -> str:
        """Return a hint; empty when there is none.

        Args:
            message: What the validator says of a policy.
            est: The policy in Cedar's JSON form.
        """
        if message.startswith(_NO_ACTION):
            return self._asked(est["action"])
        if found := _ATTRIBUTE.search(message):
            held = self._attributes(found["action"], found["type"])
            for name in found["path"].split(".")[:-1]:
                held = held.get(name, {}).get("attributes", {})
            return f"it has {_listed(held)}" if held else ""
        if found := _UNKNOWN.search(message):
            near = get_close_matches(found["name"], [*self._types, *self._actions], 1)
            return f"is {near[0]} meant?" if near else ""
        if found := _MEMBER.search(message):
            members = self._types.get(found["type"], {}).get("enum", ())
            return f"one of {_listed(members)}" if members else ""
        return ""

    def _asked(self, scope: _Json) -> str:
        if scope["op"] != "==":
            return ""
        uid = scope["entity"]
        applies = self._actions.get(uid_text(uid["type"], uid["id"]), {}).get("appliesTo") or {}
        who, what = applies.get("principalTypes", ()), applies.get("resourceTypes", ())
        return f"{uid['id']} is asked by {_listed(who)}, about {_listed(what)}" if who and what else ""

    def _attributes(self, action: str | None, kind: str | None) -> _Json:
        if kind is not None:
            held: _Json = self._types.get(kind, {}).get("shape", {}).get("attributes", {})
            return held
        applies = self._actions.get(action or "", {}).get("appliesTo") or {}
        context: _Json = applies.get("context", {}).get("attributes", {})
        return context


def _declared(schema: Mapping[str, _Json], what: str) -> Iterator[tuple[str, str, _Json]]:
    """Yield what a schema declares: its namespace, its name, and it."""
    for space, content in schema.items():
        for name, given in content.get(what, {}).items():
            yield space, name, given


def _listed(names: Iterable[str]) -> str:
    told = list(names)
    more = f" and {len(told) - _MOST} more" if len(told) > _MOST else ""
    return ", ".join(told[:_MOST]) + more
