"""Resolves the names of a schema: every name qualified, every common type written out.

A name without ``::`` means one of its own namespace first, then one outside of any namespace; a common type comes
before an entity type. Cedar's own types can be hidden by declarations outside of any namespace, and are always there
below ``__cedar::``. This is what Cedar 4.12 does: cedar-policy-core/src/validator/schema/raw_name.rs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from cedarbox.review.syntax.declarations import (
    ActionName,
    DeclaredAction,
    DeclaredEntity,
    Name,
    Namespace,
    RecordType,
    SetType,
    Type,
)
from cedarbox.review.syntax.tokens import ParseError, Span

__all__ = ["resolve"]

_OWN_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "String": {"type": "String"},
    "Long": {"type": "Long"},
    "Bool": {"type": "Boolean"},
    "ipaddr": {"type": "Extension", "name": "ipaddr"},
    "decimal": {"type": "Extension", "name": "decimal"},
    "datetime": {"type": "Extension", "name": "datetime"},
    "duration": {"type": "Extension", "name": "duration"},
}
# Types that use each other twice grow by doubling: 40 lines would be 2**40 types.
_MAX_PARTS: Final = 200_000
# cedarpy reads 127 levels of JSON, and a record in a record is two of them.
_MAX_DEPTH: Final = 50


def resolve(spaces: Mapping[str, Namespace], text: str) -> dict[str, Any]:
    """Return a schema in Cedar's JSON form with nothing left to resolve.

    Args:
        spaces: What each namespace declares.
        text: The schema, for the places in messages.

    Raises:
        ParseError: A name means nothing, a type is defined by itself, or the types are too large when written out.
    """
    return _Names(spaces, text).document()


class _Names:
    def __init__(self, spaces: Mapping[str, Namespace], text: str) -> None:
        self._spaces, self._text = spaces, text
        self._common = {_joined(space, name): (space, kind) for space, name, kind in self._each("common")}
        self._entities = {_joined(space, name) for space, name, _ in self._each("entities")}
        # An action is an entity too, of a type that nobody declares.
        self._entities |= {_joined(space, "Action") for space, declared in spaces.items() if declared.actions}
        self._actions = {(_joined(space, "Action"), name) for space, name, _ in self._each("actions")}
        self._known: dict[str, tuple[dict[str, Any], int]] = {}
        self._open: list[str] = []
        self._parts = self._depth = 0

    def document(self) -> dict[str, Any]:
        for full, (space, _) in self._common.items():
            self._type(Name(full, kind="common"), space)
        return {
            space: {
                "entityTypes": {name: self._entity(kind, space) for name, kind in declared.entities.items()},
                "actions": {name: self._action(name, kind, space) for name, kind in declared.actions.items()},
            }
            for space, declared in self._spaces.items()
        }

    def _each(self, part: str) -> Iterator[tuple[str, str, Any]]:
        for space, declared in self._spaces.items():
            for name, kind in getattr(declared, part).items():
                yield space, name, kind

    def _entity(self, declared: DeclaredEntity, space: str) -> dict[str, Any]:
        if declared.choices is not None:
            return {"enum": list(declared.choices)}
        found: dict[str, Any] = {
            "memberOfTypes": self._entity_names(declared.parents, space),
            "shape": self._record(declared.shape, space, "the shape of an entity type"),
        }
        if declared.tags is not None:
            found["tags"] = self._counted(declared.tags, space)
        return found

    def _action(self, name: str, declared: DeclaredAction, space: str) -> dict[str, Any]:
        return {
            "memberOf": [self._action_uid(parent, space) for parent in declared.parents],
            "appliesTo": {
                "principalTypes": self._entity_names(declared.principals, space),
                "resourceTypes": self._entity_names(declared.resources, space),
                "context": self._record(declared.context, space, f"the context of `{name}`"),
            },
        }

    def _entity_names(self, names: tuple[Name, ...], space: str) -> list[str]:
        return list(dict.fromkeys(self._entity_name(name, space) for name in names))

    def _entity_name(self, name: Name, space: str) -> str:
        for full in _candidates(name.text, space):
            if full in self._entities:
                return full
        raise self._error(f"no entity type `{name.text}` is declared", name.span)

    def _action_uid(self, name: ActionName, space: str) -> dict[str, str]:
        for kind in _candidates(name.type or "Action", space):
            if (kind, name.id) in self._actions:
                return {"type": kind, "id": name.id}
        raise self._error(f"no action `{name.id}` is declared", name.span)

    def _record(self, kind: Type, space: str, what: str) -> dict[str, Any]:
        found = self._counted(kind, space)
        if found["type"] != "Record":
            raise self._error(f"{what} must be a record", kind.span if isinstance(kind, Name) else None)
        return found

    def _counted(self, kind: Type, space: str) -> dict[str, Any]:
        found, parts = self._type(kind, space)
        self._parts += parts
        self._refuse_large(self._parts, kind)
        return found

    def _refuse_large(self, parts: int, kind: Type) -> None:
        if parts > _MAX_PARTS:
            span = kind.span if isinstance(kind, Name) else None
            raise self._error(f"the types are more than {_MAX_PARTS} parts when they are written out", span)

    def _type(self, kind: Type, space: str) -> tuple[dict[str, Any], int]:
        """Return a type written out, and how many parts it has."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            span = kind.span if isinstance(kind, Name) else None
            raise self._error(f"types are nested more than {_MAX_DEPTH} deep", span)
        try:
            return self._written(kind, space)
        finally:
            self._depth -= 1

    def _written(self, kind: Type, space: str) -> tuple[dict[str, Any], int]:
        if isinstance(kind, SetType):
            element, parts = self._type(kind.element, space)
            return {"type": "Set", "element": element}, parts + 1
        if isinstance(kind, RecordType):
            attributes, parts = {}, 1
            for name, attribute in kind.attributes.items():
                found, more = self._type(attribute.type, space)
                attributes[name] = {**found, "required": attribute.required}
                parts += more
            return {"type": "Record", "attributes": attributes}, parts
        return self._named(kind, space)

    def _named(self, name: Name, space: str) -> tuple[dict[str, Any], int]:
        for full in _candidates(name.text, space):
            if name.kind != "entity" and full in self._common:
                return self._written_out(full, name)
            if name.kind != "common" and full in self._entities:
                return {"type": "Entity", "name": full}, 1
        own = name.text.removeprefix("__cedar::")
        hidden = own == name.text and (own in self._entities or own in self._common)
        if name.kind != "entity" and own in _OWN_TYPES and not hidden:
            return dict(_OWN_TYPES[own]), 1
        raise self._error(f"no type `{name.text}` is declared", name.span)

    def _written_out(self, full: str, name: Name) -> tuple[dict[str, Any], int]:
        if full not in self._known:
            if full in self._open:
                raise self._error(f"the type `{full}` is defined by itself", name.span)
            self._open.append(full)
            home, kind = self._common[full]
            self._known[full] = self._type(kind, home)
            self._open.pop()
        found, parts = self._known[full]
        self._refuse_large(parts, name)
        return found, parts

    def _error(self, message: str, span: Span | None) -> ParseError:
        return ParseError(message, self._text, span or Span(0, 0))


def _joined(space: str, name: str) -> str:
    return f"{space}::{name}" if space else name


def _candidates(name: str, space: str) -> tuple[str, ...]:
    return (name,) if "::" in name or not space else (f"{space}::{name}", name)
