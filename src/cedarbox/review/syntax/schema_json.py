"""Reads a schema in Cedar's JSON form into the same declarations as one in Cedar's own syntax."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from cedarbox.review.syntax.declarations import (
    ActionName,
    Attribute,
    DeclaredAction,
    DeclaredEntity,
    Name,
    Namespace,
    RecordType,
    SetType,
    Type,
)
from cedarbox.review.syntax.tokens import MAX_DEPTH, ParseError, Span

__all__ = ["read_schema"]

_PRIMITIVES = {"String": "__cedar::String", "Long": "__cedar::Long", "Boolean": "__cedar::Bool"}


def read_schema(text: str) -> dict[str, Namespace]:
    """Read a schema in Cedar's JSON form.

    Args:
        text: The JSON.

    Returns:
        What each namespace declares, by its name.

    Raises:
        ParseError: It is not JSON, or not a schema.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ParseError(f"not JSON: {error.msg}", text, Span(error.pos, error.pos)) from None
    except (RecursionError, ValueError):
        raise ParseError("not JSON that can be read: too deep, or a number too long", text, Span(0, 0)) from None
    return _Reader(text).schema(document)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at: list[str] = []

    def schema(self, document: object) -> dict[str, Namespace]:
        spaces = {}
        for name, value in self._mapping(document).items():
            self._at = [name or "(no namespace)"]
            given = self._mapping(value)
            spaces[name] = Namespace(
                {key: self._inside(key, self._type, part) for key, part in self._part(given, "commonTypes").items()},
                {key: self._inside(key, self._entity, part) for key, part in self._part(given, "entityTypes").items()},
                {key: self._inside(key, self._action, part) for key, part in self._part(given, "actions").items()},
            )
        return spaces

    def _inside(self, key: str, read: Any, value: object) -> Any:
        self._at.append(key)
        if len(self._at) > MAX_DEPTH:
            self._fail(f"nested more than {MAX_DEPTH} deep")
        found = read(value)
        self._at.pop()
        return found

    def _part(self, given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        return self._mapping(given.get(key) or {})

    def _entity(self, value: object) -> DeclaredEntity:
        given = self._mapping(value)
        if given.get("enum") is not None:
            return DeclaredEntity(choices=tuple(self._texts(given["enum"])))
        shape, tags = given.get("shape"), given.get("tags")
        return DeclaredEntity(
            parents=tuple(Name(name, kind="entity") for name in self._texts(given.get("memberOfTypes") or [])),
            shape=RecordType() if shape is None else self._type(shape),
            tags=None if tags is None else self._type(tags),
        )

    def _action(self, value: object) -> DeclaredAction:
        given = self._mapping(value)
        parents = []
        for member in self._list(given.get("memberOf") or []):
            uid = self._mapping(member)
            parents.append(ActionName(self._word(uid.get("id")), self._word(uid["type"]) if "type" in uid else None))
        if given.get("appliesTo") is None:
            return DeclaredAction(tuple(parents))
        applies = self._mapping(given["appliesTo"])
        context = applies.get("context")
        return DeclaredAction(
            tuple(parents),
            tuple(Name(name, kind="entity") for name in self._texts(applies.get("principalTypes"))),
            tuple(Name(name, kind="entity") for name in self._texts(applies.get("resourceTypes"))),
            RecordType() if context is None else self._type(context),
        )

    def _type(self, value: object) -> Type:
        given = self._mapping(value)
        kind = self._word(given.get("type"))
        if kind in _PRIMITIVES:
            return Name(_PRIMITIVES[kind])
        if kind == "Extension":
            return Name(f"__cedar::{self._word(given.get('name'))}")
        if kind in {"Entity", "EntityOrCommon"}:
            return Name(self._word(given.get("name")), kind="entity" if kind == "Entity" else "any")
        if kind == "Set":
            return SetType(self._inside("element", self._type, given.get("element")))
        if kind != "Record":
            return Name(kind, kind="common")
        if given.get("additionalAttributes"):
            self._fail("records with additionalAttributes are not supported")
        return RecordType(
            {
                key: self._inside(key, self._attribute, part)
                for key, part in self._mapping(given.get("attributes") or {}).items()
            }
        )

    def _attribute(self, value: object) -> Attribute:
        required = self._mapping(value).get("required", True)
        if type(required) is not bool:
            self._fail("`required` must be true or false")
        return Attribute(self._type(value), required)

    def _mapping(self, value: object) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self._fail("expected an object")
        return value

    def _list(self, value: object) -> list[Any]:
        if not isinstance(value, list):
            self._fail("expected a list")
        return value

    def _texts(self, value: object) -> list[str]:
        return [self._word(member) for member in self._list(value)]

    def _word(self, value: object) -> str:
        if not isinstance(value, str):
            self._fail("expected text")
        return value

    def _fail(self, message: str) -> NoReturn:
        where = " / ".join(self._at)[:200]
        # JSON has no places; the name of what is wrong is found by its text where it stands once.
        quoted = json.dumps(self._at[-1] if self._at else "")
        at = self._text.find(quoted) if self._text.count(quoted) == 1 else 0
        raise ParseError(f"{where}: {message}" if where else message, self._text, Span(at, at))
