"""The types of a schema."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from cedarbox.policy.reach import reached
from cedarbox.review.prove.patterns import UnsupportedError

__all__ = [
    "BOOL",
    "DATETIME",
    "DECIMAL",
    "DURATION",
    "IP",
    "LONG",
    "MAX_LONG",
    "MIN_LONG",
    "STRING",
    "Attribute",
    "EntityOf",
    "EntityType",
    "Plain",
    "RecordOf",
    "SchemaTypes",
    "SetOf",
    "Type",
]

MIN_LONG: Final = -(2**63)
MAX_LONG: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Plain:
    """A type without parts."""

    name: Literal["Bool", "Long", "String", "ipaddr", "decimal", "datetime", "duration"]


BOOL: Final = Plain("Bool")
LONG: Final = Plain("Long")
STRING: Final = Plain("String")
IP: Final = Plain("ipaddr")
DECIMAL: Final = Plain("decimal")
DATETIME: Final = Plain("datetime")
DURATION: Final = Plain("duration")
_EXTENSIONS: Final = {each.name: each for each in (IP, DECIMAL, DATETIME, DURATION)}


@dataclass(frozen=True, slots=True)
class EntityOf:
    """Entities of one type, by its qualified name."""

    name: str


@dataclass(frozen=True, slots=True)
class SetOf:
    """Sets; the element is None for the empty set as a literal."""

    element: Type | None


@dataclass(frozen=True, slots=True)
class Attribute:
    """A member of a record or an attribute of an entity."""

    type: Type
    required: bool = True


@dataclass(frozen=True)
class RecordOf:
    """Records with these members and no others."""

    attributes: Mapping[str, Attribute]

    def __hash__(self) -> int:
        return hash(tuple(sorted(self.attributes)))


Type = Plain | EntityOf | SetOf | RecordOf


@dataclass(frozen=True)
class EntityType:
    """What a schema says of a type of entities.

    Attributes:
        name: Its qualified name.
        attributes: Its attributes.
        parents: The types that its parents may have.
        members: The ids that there are, for a closed set; None when there may be any.
        tags: What its tags are; None without tags.
    """

    name: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    members: tuple[str, ...] | None = None
    tags: Type | None = None


class SchemaTypes:
    """The types and actions of a schema.

    Args:
        schema: Cedar's JSON schema, resolved.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = schema
        self._contexts: dict[tuple[str, str], RecordOf] = {}

    @cached_property
    def entities(self) -> Mapping[str, EntityType]:
        """The types of entities by qualified name."""
        found = {}
        for namespace, content in self._schema.items():
            for short, body in content.get("entityTypes", {}).items():
                name = f"{namespace}::{short}" if namespace else short
                shape = body.get("shape") or {}
                found[name] = EntityType(
                    name,
                    _attributes(shape),
                    tuple(body.get("memberOfTypes") or ()),
                    tuple(body["enum"]) if body.get("enum") is not None else None,
                    _type(body["tags"]) if body.get("tags") is not None else None,
                )
        return found

    @property
    def actions(self) -> Iterable[tuple[str, str]]:
        """The actions, groups among them, by type and id."""
        return self._actions.keys()

    def applies(self, action: tuple[str, str]) -> tuple[Sequence[str], Sequence[str]]:
        """Return the types of the principals and of the resources that an action is for; both empty for a group."""
        to = self._actions[action].get("appliesTo") or {}
        return tuple(to.get("principalTypes") or ()), tuple(to.get("resourceTypes") or ())

    @cached_property
    def _actions(self) -> Mapping[tuple[str, str], Mapping[str, Any]]:
        return {
            (f"{namespace}::Action" if namespace else "Action", name): body
            for namespace, content in self._schema.items()
            for name, body in content.get("actions", {}).items()
        }

    def context(self, action: tuple[str, str]) -> RecordOf:
        """Return the type of the context of an action, which is given by its type and id."""
        if action not in self._contexts:
            applies = self._actions[action].get("appliesTo") or {}
            found = _type(applies.get("context") or {"type": "Record", "attributes": {}})
            if not isinstance(found, RecordOf):
                raise UnsupportedError("a context that is no record")
            self._contexts[action] = found
        return self._contexts[action]

    @cached_property
    def _ancestors(self) -> Mapping[str, frozenset[str]]:
        return {name: reached(name, self._parents) for name in self.entities}

    def _parents(self, name: str) -> Iterable[str]:
        known = self.entities.get(name)
        return known.parents if known else ()

    def may_be_below(self, below: str, above: str) -> bool:
        """Whether an entity of one type can have an ancestor of another."""
        return above in self._ancestors.get(below, frozenset())

    def groups(self, action: tuple[str, str]) -> frozenset[tuple[str, str]]:
        """Return the actions that an action is in, without itself."""
        return reached(action, self._member_of)

    def _member_of(self, action: tuple[str, str]) -> Iterator[tuple[str, str]]:
        for member in self._actions.get(action, {}).get("memberOf") or ():
            yield str(member.get("type") or action[0]), str(member["id"])

    def is_action_type(self, name: str) -> bool:
        """Whether entities of a type are actions."""
        return name == "Action" or name.endswith("::Action")


def _attributes(shape: Mapping[str, Any]) -> Mapping[str, Attribute]:
    return {
        name: Attribute(_type(given), bool(given.get("required", True)))
        for name, given in (shape.get("attributes") or {}).items()
    }


def _type(given: Mapping[str, Any]) -> Type:  # noqa: PLR0911  # one return for each kind
    match given["type"]:
        case "String":
            return STRING
        case "Long":
            return LONG
        case "Boolean" | "Bool":
            return BOOL
        case "Entity":
            return EntityOf(given["name"])
        case "Extension":
            if (found := _EXTENSIONS.get(given["name"])) is not None:
                return found
        case "Set":
            return SetOf(_type(given["element"]))
        case "Record":
            if given.get("additionalAttributes"):
                raise UnsupportedError("a record that is open")
            return RecordOf(_attributes(given))
    raise UnsupportedError(f"the type {given.get('name') or given['type']}")
