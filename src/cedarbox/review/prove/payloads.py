"""What values of Cedar are made of when only their type is known: terms, by what the type is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import Type

__all__ = ["Choice", "IpParts", "Listed", "Member", "Payload", "SetPayload", "Unknown", "Value"]


class IpParts(NamedTuple):
    """An address with its prefix.

    Attributes:
        v4: It is of IPv4.
        address: Its bits; the lowest 32 for IPv4.
        prefix: The length of the prefix, as a vector.
    """

    v4: Term
    address: Term
    prefix: Term


class Member(NamedTuple):
    """A member of a record, or an attribute of an entity.

    Attributes:
        type: What it is.
        payload: Its value, if it is there.
        present: It is there.
    """

    type: Type
    payload: Payload
    present: Term


@dataclass(frozen=True, slots=True)
class Listed:
    """A set of which the elements are known, each with its type; some may be equal."""

    elements: tuple[tuple[Type, Payload], ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A set of which nothing is known: what a function of a name gives for some arguments."""

    name: str
    key: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One set or another."""

    condition: Term
    then: SetPayload
    other: SetPayload


SetPayload = Listed | Unknown | Choice
Payload = Term | IpParts | Mapping[str, Member] | SetPayload


class Value(NamedTuple):
    """What an expression evaluates to.

    Attributes:
        type: Its type; None when it cannot be evaluated whatever the request.
        payload: What it is, unless it fails.
        fails: It cannot be evaluated.
    """

    type: Type | None
    payload: Any
    fails: Term
