"""What is written down in a policy as it is: literals, and the sets and records that are made of values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cedarbox.review.prove import literals
from cedarbox.review.prove.patterns import UnsupportedError, checked
from cedarbox.review.prove.payloads import IpParts, Listed, Member, Value
from cedarbox.review.prove.terms import Terms
from cedarbox.review.prove.types import (
    BOOL,
    DATETIME,
    DECIMAL,
    DURATION,
    IP,
    LONG,
    STRING,
    Attribute,
    EntityOf,
    RecordOf,
    SetOf,
    Type,
)
from cedarbox.review.prove.values import same_type

__all__ = ["common", "constructed", "entity", "listed", "literal", "recorded"]


def literal(terms: Terms, given: Any) -> Value:  # noqa: PLR0911  # one return for each kind
    """Return a literal of Cedar's JSON form. Raises UnsupportedError for one of an unknown kind."""
    if isinstance(given, bool):
        return _known(terms, BOOL, terms.truth(given))
    if isinstance(given, int):
        return _known(terms, LONG, terms.number(given))
    if isinstance(given, str):
        return _known(terms, STRING, terms.string(checked(given)))
    if isinstance(given, Mapping) and "__entity" in given:
        return entity(terms, given["__entity"])
    if isinstance(given, Mapping) and "__extn" in given and "arg" in given["__extn"]:
        return constructed(terms, given["__extn"]["fn"], given["__extn"]["arg"])
    if isinstance(given, list):
        return listed(terms, [literal(terms, each) for each in given])
    if isinstance(given, Mapping):
        return recorded(terms, {name: literal(terms, each) for name, each in given.items()})
    raise UnsupportedError("a literal of an unknown kind")


def entity(terms: Terms, uid: Mapping[str, Any]) -> Value:
    """Return an entity by its type and id."""
    return _known(terms, EntityOf(str(uid["type"])), terms.string(checked(str(uid["id"]))))


def constructed(terms: Terms, function: str, text: str) -> Value:
    """Return what a constructor makes of a text. Raises UnsupportedError when it makes nothing."""
    try:
        match function:
            case "ip":
                v4, address, prefix = literals.ip_of(text)
                return _known(terms, IP, IpParts(terms.truth(v4), terms.bv(address), terms.bv(prefix)))
            case "decimal":
                return _known(terms, DECIMAL, terms.number(literals.decimal_of(text)))
            case "datetime":
                return _known(terms, DATETIME, terms.number(literals.datetime_of(text)))
            case "duration":
                return _known(terms, DURATION, terms.number(literals.duration_of(text)))
    except ValueError as error:
        raise UnsupportedError(f"{function}({text!r})") from error
    raise UnsupportedError(f"the function {function}")


def common(a: Type, b: Type) -> Type:
    """Return the type of what is of one type or of another. Raises UnsupportedError when there is none."""
    if isinstance(a, SetOf) and isinstance(b, SetOf) and (a.element is None or b.element is None):
        return b if a.element is None else a
    if isinstance(a, RecordOf) and isinstance(b, RecordOf) and a.attributes.keys() == b.attributes.keys():
        attributes = {}
        for name, given in a.attributes.items():
            other = b.attributes[name]
            both = given.required and other.required
            attributes[name] = Attribute(common(given.type, other.type), both)
        return RecordOf(attributes)
    if a != b:
        raise UnsupportedError("if … then … else with two types")
    return a


def listed(terms: Terms, members: Sequence[Value]) -> Value:
    """Return the set of some values. Raises UnsupportedError when they are of several types."""
    fails = terms.or_(*(each.fails for each in members))
    if any(each.type is None for each in members):
        return Value(None, None, terms.true)
    element = members[0].type if members else None
    mixed = any(not same_type(element, each.type) for each in members)
    if mixed and not all(isinstance(each.type, EntityOf) for each in members):
        raise UnsupportedError("a set of things of several types")
    return Value(SetOf(element), Listed(tuple((each.type, each.payload) for each in members if each.type)), fails)


def recorded(terms: Terms, members: Mapping[str, Value]) -> Value:
    """Return the record of some values."""
    fails = terms.or_(*(each.fails for each in members.values()))
    if any(each.type is None for each in members.values()):
        return Value(None, None, terms.true)
    kinds = {name: Attribute(each.type) for name, each in members.items() if each.type is not None}
    payload = {
        name: Member(each.type, each.payload, terms.true) for name, each in members.items() if each.type is not None
    }
    return Value(RecordOf(kinds), payload, fails)


def _known(terms: Terms, kind: Type, payload: Any) -> Value:
    return Value(kind, payload, terms.false)
