"""What a schema declares, whichever syntax it is written in. What a name means is for :mod:`.schema_names`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cedarbox.review.syntax.tokens import Span

__all__ = [
    "ActionName",
    "Attribute",
    "DeclaredAction",
    "DeclaredEntity",
    "Name",
    "Namespace",
    "RecordType",
    "SetType",
    "Type",
]


@dataclass(frozen=True, slots=True)
class Name:
    """A name as it is written.

    Attributes:
        text: Such as ``String`` or ``Sandbox::Host``.
        span: Where; None when it was written in JSON, where nobody knows.
        kind: What it may be; ``any`` is a common type first, then an entity type.
    """

    text: str
    span: Span | None = None
    kind: Literal["any", "common", "entity"] = "any"


@dataclass(frozen=True, slots=True)
class SetType:
    """A set.

    Attributes:
        element: The type of its members.
    """

    element: Type


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a record.

    Attributes:
        type: Its type.
        required: It is always there.
    """

    type: Type
    required: bool


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record.

    Attributes:
        attributes: By their names.
    """

    attributes: dict[str, Attribute] = field(default_factory=dict)


Type = Name | SetType | RecordType


@dataclass(frozen=True, slots=True)
class ActionName:
    """An action that another is a member of.

    Attributes:
        id: Its id.
        type: The type before it; None when there is none.
        span: Where; None for JSON.
    """

    id: str
    type: str | None
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class DeclaredEntity:
    """An entity type.

    Attributes:
        parents: What its entities may be members of.
        shape: Its attributes.
        tags: The type of its tags; None without.
        choices: The ids that there are; None unless it is an enumeration.
    """

    parents: tuple[Name, ...] = ()
    shape: Type = field(default_factory=RecordType)
    tags: Type | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeclaredAction:
    """An action.

    Attributes:
        parents: What it is a member of.
        principals: What may ask.
        resources: What it may be asked about.
        context: What comes with the request.
    """

    parents: tuple[ActionName, ...] = ()
    principals: tuple[Name, ...] = ()
    resources: tuple[Name, ...] = ()
    context: Type = field(default_factory=RecordType)


@dataclass(frozen=True, slots=True)
class Namespace:
    """What a namespace declares, by name.

    Attributes:
        common: Its common types.
        entities: Its entity types.
        actions: Its actions.
    """

    common: dict[str, Type] = field(default_factory=dict)
    entities: dict[str, DeclaredEntity] = field(default_factory=dict)
    actions: dict[str, DeclaredAction] = field(default_factory=dict)
