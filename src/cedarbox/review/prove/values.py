"""Values of Cedar of which only the type is known: each is made of terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cedarbox.review.prove.patterns import UnsupportedError
from cedarbox.review.prove.payloads import Choice, IpParts, Listed, Member, Payload, Unknown
from cedarbox.review.prove.terms import Sort, Term, Terms
from cedarbox.review.prove.types import (
    IP,
    MAX_LONG,
    MIN_LONG,
    EntityOf,
    Plain,
    RecordOf,
    SchemaTypes,
    SetOf,
    Type,
)

__all__ = ["Values", "same_type"]


_SORTS: Final[Mapping[str, Sort]] = {
    "Bool": "Bool",
    "Long": "Int",
    "String": "String",
    "decimal": "Int",
    "datetime": "Int",
    "duration": "Int",
}

_ZEROS: Final[Mapping[Sort, bool | int | str]] = {"Bool": False, "Int": 0, "String": "", "BV": 0}

Guard = Callable[[tuple[Term, ...]], Term]


class Values:
    """Makes values, compares them, and knows what holds for those that it made.

    Attributes:
        terms: Makes the terms.
        types: The schema.
        guards: What holds for the values of each function, by its name, given its arguments; of several, each.
        relations: What holds between variables, once all of them are used: their names, and what makes the term.
        elements: What is in the sets that a function gives, by its name.
        identities: When two entities are one, for the types of which the ids say it in another way.
        absent: Whether a text is part of no value of a variable, for those of which it is known.
    """

    def __init__(self, terms: Terms, types: SchemaTypes) -> None:
        self.terms, self.types = terms, types
        self.guards: dict[str, dict[str, Guard]] = {}
        self.identities: dict[str, Callable[[Term, Term], Term]] = {}
        self.absent: dict[str, Callable[[str], bool]] = {}
        self.elements: dict[str, str] = {}
        self.relations: dict[frozenset[str], Callable[[], Term]] = {}

    def guard(self, names: tuple[str, ...], key: str, guard: Guard) -> None:
        """Say what holds for functions.

        Args:
            names: The functions or variables; where one of them is used, it is said.
            key: What is said by the same key is said once.
            guard: Makes the term of their arguments.
        """
        for name in names:
            self.guards.setdefault(name, {})[key] = guard

    def unknown(self, kind: Type, name: str, args: tuple[Term, ...] = ()) -> Payload:
        """Return a value of a type that may be any.

        Args:
            kind: The type.
            name: Of the function that gives it.
            args: What it depends on; empty for a part of the request.

        Raises:
            UnsupportedError: Values of that type are not encoded.
        """
        if isinstance(kind, RecordOf):
            return {
                attr: Member(
                    given.type,
                    self.unknown(given.type, f"{name}.{attr}", args),
                    self.terms.true if given.required else self.terms.app(f"{name}.{attr}?", args, "Bool"),
                )
                for attr, given in kind.attributes.items()
            }
        if isinstance(kind, SetOf):
            if isinstance(kind.element, SetOf):
                raise UnsupportedError("a set of sets")
            if kind.element is not None:
                self.elements[name] = _named(kind.element)
            return Unknown(name, args)
        if kind == IP:
            return self._unknown_ip(name, args)
        return self._unknown_plain(kind, name, args)

    def _unknown_ip(self, name: str, args: tuple[Term, ...]) -> IpParts:
        terms = self.terms
        names = (f"{name}.v4", f"{name}.address", f"{name}.prefix")

        def parts(given: tuple[Term, ...]) -> IpParts:
            return IpParts(
                terms.app(names[0], given, "Bool"), terms.app(names[1], given, "BV"), terms.app(names[2], given, "BV")
            )

        def guard(given: tuple[Term, ...]) -> Term:
            ip = parts(given)
            four = terms.and_(terms.ule(ip.prefix, terms.bv(32)), terms.top(ip.address, 32, 0))
            return terms.ite(ip.v4, four, terms.ule(ip.prefix, terms.bv(128)))

        self.guard(names, "ip", guard)
        return parts(args)

    def _unknown_plain(self, kind: Type, name: str, args: tuple[Term, ...]) -> Term:
        terms = self.terms
        if isinstance(kind, EntityOf):
            if self.types.is_action_type(kind.name):
                raise UnsupportedError("an action as a value")
            known = self.types.entities.get(kind.name)
            if known is not None and known.members is not None:
                members = tuple(terms.string(each) for each in known.members)
                self.guard(
                    (name,),
                    "members",
                    lambda given: terms.or_(*(terms.eq(terms.app(name, given, "String"), each) for each in members)),
                )
            return terms.app(name, args, "String")
        if not isinstance(kind, Plain):
            raise UnsupportedError(f"a value of the type {kind}")
        sort = _SORTS[kind.name]
        if sort == "Int":
            low, high = terms.number(MIN_LONG), terms.number(MAX_LONG)

            def guard(given: tuple[Term, ...]) -> Term:
                value = terms.app(name, given, "Int")
                return terms.and_(terms.at_most(low, value), terms.at_most(value, high))

            self.guard((name,), "range", guard)
        return terms.app(name, args, sort)

    def bound(self, kind: Type, name: str) -> tuple[Payload, tuple[Term, ...]]:
        """Return a value that stands for the member of a set, and its parts."""
        payload = self.unknown(kind, name)
        return payload, self._variables(kind, payload)

    def _variables(self, kind: Type, payload: Any) -> tuple[Term, ...]:
        if isinstance(kind, RecordOf):
            found: list[Term] = []
            for name, given in sorted(kind.attributes.items()):
                found += [] if given.required else [payload[name].present]
                found += self._variables(given.type, payload[name].payload)
            return tuple(found)
        if isinstance(kind, SetOf):
            raise UnsupportedError("a set of sets")
        return tuple(payload) if kind == IP else (payload,)

    def parts(self, target: Type, kind: Type, payload: Any) -> tuple[tuple[Term, ...], Term]:
        """Return terms that are equal, each to each, exactly when two values are.

        Args:
            target: The type of the values to compare it with.
            kind: The type of the value.
            payload: The value.

        Returns:
            The terms, as many for each value, and whether the value can be one of ``target`` at all.

        Raises:
            UnsupportedError: There are none.
        """
        terms = self.terms
        if isinstance(target, SetOf):
            raise UnsupportedError("a set of sets")
        if isinstance(target, RecordOf):
            if not isinstance(kind, RecordOf):
                return self._nothing(target), terms.false
            possible = [terms.not_(payload[name].present) for name in payload if name not in target.attributes]
            found: list[Term] = []
            for name, given in sorted(target.attributes.items()):
                member = payload.get(name)
                if member is None:
                    found += [] if given.required else [terms.false]
                    found += self._nothing(given.type)
                    possible += [terms.false] if given.required else []
                    continue
                inner, fits = self.parts(given.type, member.type, member.payload)
                if given.required:
                    possible += [member.present, fits]
                    found += inner
                else:
                    possible.append(terms.implies(member.present, fits))
                    found.append(member.present)
                    found += (terms.ite(member.present, part, self._zero(part)) for part in inner)
            return tuple(found), terms.and_(*possible)
        if kind != target:
            return self._nothing(target), terms.false
        return (tuple(payload) if target == IP else (payload,)), terms.true

    def _zero(self, part: Term) -> Term:
        return self.terms.const(_ZEROS[part.sort], part.sort)

    def _nothing(self, kind: Type) -> tuple[Term, ...]:
        terms = self.terms
        if isinstance(kind, RecordOf):
            found: list[Term] = []
            for _, given in sorted(kind.attributes.items()):
                found += [] if given.required else [terms.false]
                found += self._nothing(given.type)
            return tuple(found)
        if isinstance(kind, SetOf):
            raise UnsupportedError("a set of sets")
        if kind == IP:
            return terms.false, terms.bv(0), terms.bv(0)
        sort: Sort = "String" if isinstance(kind, EntityOf) else _SORTS[kind.name] if isinstance(kind, Plain) else "Int"
        return (terms.const(_ZEROS[sort], sort),)

    def equal(self, a_type: Type | None, a: Any, b_type: Type | None, b: Any) -> Term:
        """Return whether two values are equal; values of two types never are."""
        terms = self.terms
        if isinstance(a_type, RecordOf) and isinstance(b_type, RecordOf):
            found = []
            for name in sorted({*a_type.attributes, *b_type.attributes}):
                left, right = a.get(name), b.get(name)
                if left is None or right is None:
                    found.append(terms.not_((left or right).present))
                    continue
                same = self.equal(left.type, left.payload, right.type, right.payload)
                both = terms.and_(left.present, right.present, same)
                found.append(terms.or_(both, terms.and_(terms.not_(left.present), terms.not_(right.present))))
            return terms.and_(*found)
        if isinstance(a_type, SetOf) and isinstance(b_type, SetOf):
            return terms.and_(self.subset(a_type, a, b_type, b), self.subset(b_type, b, a_type, a))
        if a_type != b_type or a_type is None:
            return terms.false
        if a_type == IP:
            return terms.and_(*(terms.eq(x, y) for x, y in zip(a, b, strict=True)))
        if isinstance(a_type, EntityOf) and (identity := self.identities.get(a_type.name)) is not None:
            return self._one(identity, a, b)
        return terms.eq(a, b)

    def _one(self, identity: Callable[[Term, Term], Term], a: Term, b: Term) -> Term:
        """Return whether two entities are one.

        What is known of ids is known of each of those that are chosen from, and not of a choice.
        """
        for chosen, other in ((a, b), (b, a)):
            if chosen.op == "ite":
                condition, then, otherwise = chosen.args
                return self.terms.ite(
                    condition, self._one(identity, then, other), self._one(identity, otherwise, other)
                )
        return identity(a, b)

    def contains(self, set_type: SetOf, held: Any, kind: Type | None, payload: Any) -> Term:
        """Return whether a value is in a set."""
        terms = self.terms
        if isinstance(held, Listed):
            return terms.or_(*(self.equal(each_type, each, kind, payload) for each_type, each in held.elements))
        if isinstance(held, Choice):
            then = self.contains(set_type, held.then, kind, payload)
            return terms.ite(held.condition, then, self.contains(set_type, held.other, kind, payload))
        if kind is None or set_type.element is None:
            return terms.false
        parts, possible = self.parts(set_type.element, kind, payload)
        if possible is terms.false:
            return terms.false
        return terms.and_(possible, terms.member(held.name, held.key, parts))

    def each(self, set_type: SetOf, held: Any, what: Callable[[Type, Any], Term]) -> Term:
        """Return whether something is so for each member of a set."""
        terms = self.terms
        if isinstance(held, Listed):
            return terms.and_(*(what(kind, payload) for kind, payload in held.elements))
        if isinstance(held, Choice):
            then = self.each(set_type, held.then, what)
            return terms.ite(held.condition, then, self.each(set_type, held.other, what))
        if set_type.element is None:
            return terms.true
        # The name is the same for the same type, so that the same question is one term.
        payload, parts = self.bound(set_type.element, f"each {_named(set_type.element)}")
        return terms.all(held.name, held.key, parts, what(set_type.element, payload))

    def subset(self, a_type: SetOf, a: Any, b_type: SetOf, b: Any) -> Term:
        """Return whether each member of a set is in another."""
        return self.each(a_type, a, lambda kind, payload: self.contains(b_type, b, kind, payload))

    def choose(self, condition: Term, kind: Type, then: Any, other: Any) -> Payload:
        """Return one value or another of one type."""
        terms = self.terms
        if isinstance(kind, SetOf):
            return Choice(condition, then, other)
        if isinstance(kind, RecordOf):
            if then.keys() != other.keys():
                raise UnsupportedError("if … then … else with records of different members")
            # Of the type of both: a set that is empty on one side is of no type there.
            return {
                name: Member(
                    given.type,
                    self.choose(condition, given.type, then[name].payload, other[name].payload),
                    terms.ite(condition, then[name].present, other[name].present),
                )
                for name, given in kind.attributes.items()
            }
        if kind == IP:
            return IpParts(*(terms.ite(condition, x, y) for x, y in zip(then, other, strict=True)))
        return terms.ite(condition, then, other)


def same_type(a: Type | None, b: Type | None) -> bool:
    """Whether two types have the same members, whether these are required or not; None is the type of nothing."""
    if isinstance(a, SetOf) and isinstance(b, SetOf):
        return a.element is None or b.element is None or same_type(a.element, b.element)
    if isinstance(a, RecordOf) and isinstance(b, RecordOf):
        return a.attributes.keys() == b.attributes.keys() and all(
            same_type(given.type, b.attributes[name].type) for name, given in a.attributes.items()
        )
    return a == b


def _named(kind: Type) -> str:
    match kind:
        case Plain(name) | EntityOf(name):
            return name
        case SetOf(element):
            return f"set of {_named(element) if element else 'nothing'}"
    inner = ", ".join(f"{name}: {_named(given.type)}" for name, given in sorted(kind.attributes.items()))
    return f"{{{inner}}}"
