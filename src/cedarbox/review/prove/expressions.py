"""Cedar's expressions as terms: what each is, and when it cannot be evaluated.

The semantics are those of Cedar's evaluator (``cedar-policy-core``, ``evaluator.rs``, 4.12): the order in which parts
are evaluated, what is not evaluated because the answer is known, and what fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from cedarbox.review.prove import constants
from cedarbox.review.prove.extensions import METHODS
from cedarbox.review.prove.patterns import UnsupportedError, checked, like, wildcards
from cedarbox.review.prove.payloads import Listed, Member, Value
from cedarbox.review.prove.terms import Term
from cedarbox.review.prove.types import (
    BOOL,
    DATETIME,
    DURATION,
    LONG,
    MAX_LONG,
    MIN_LONG,
    STRING,
    EntityOf,
    RecordOf,
    SetOf,
    Type,
)
from cedarbox.review.prove.worlds import World

__all__ = ["Expressions", "Request"]

_ORDERED: Final = frozenset((LONG, DATETIME, DURATION))
_CONSTRUCTORS: Final = frozenset(("ip", "decimal", "datetime", "duration"))


class Request(NamedTuple):
    """The variables of an expression.

    Attributes:
        principal: Who.
        action: Type and id of the action.
        resource: On what.
        context: The rest.
    """

    principal: Value
    action: tuple[str, str]
    resource: Value
    context: Value


class Expressions:
    """Encodes expressions for one kind of request.

    Attributes:
        skipped: What is not encoded, by the name of the variable that stands for it.

    Args:
        world: What entities are.
        request: The variables.
        name: Tells the variables of these expressions from those of others.
    """

    def __init__(self, world: World, request: Request, name: str) -> None:
        self._world, self._values, self._terms = world, world.values, world.values.terms
        self._request, self._name = request, name
        self.skipped: dict[str, str] = {}
        self._about = ""
        self._free: dict[str, tuple[Term, Term]] = {}

    # An expression that is not encoded becomes one that may be anything, in the smallest part that is true or false:
    # what is proved of that, is proved of the expression.
    def _truth(self, node: Mapping[str, Any]) -> Value:
        terms = self._terms
        try:
            value = self._value(node)
        except UnsupportedError as error:
            key = repr(node)
            if key not in self._free:
                name = f"{self._name} free {len(self._free)}"
                self._free[key] = terms.var(name, "Bool"), terms.var(f"{name} fails", "Bool")
                for each in self._free[key]:
                    self.skipped[each.value] = f"{self._about}: {error} is not encoded"
            return Value(BOOL, *self._free[key])
        if value.type != BOOL:
            return Value(BOOL, terms.false, terms.true)
        return value

    def _value(self, node: Mapping[str, Any]) -> Value:
        (operator, given), *rest = node.items()
        if rest:
            raise UnsupportedError("an expression with several operators")
        handler = _HANDLERS.get(operator)
        if handler is not None:
            return handler(self, operator, given)
        if operator in METHODS or operator in _CONSTRUCTORS:
            return self._call(operator, given)
        raise UnsupportedError(f"the operator {operator}")

    def _never(self) -> Value:
        return Value(None, None, self._terms.true)

    def _known(self, kind: Type, payload: Any, fails: Term | None = None) -> Value:
        return Value(kind, payload, self._terms.false if fails is None else fails)

    def _var(self, _: str, name: str) -> Value:
        request = self._request
        if name == "action":
            return self._known(EntityOf(request.action[0]), self._terms.string(request.action[1]))
        found: Value | None = getattr(request, name, None)
        if found is None:
            raise UnsupportedError(f"the variable {name}")
        return found

    def _literal(self, _: str, given: Any) -> Value:
        return constants.literal(self._terms, given)

    def _call(self, function: str, given: Sequence[Mapping[str, Any]]) -> Value:
        if function in _CONSTRUCTORS:
            if len(given) == 1 and isinstance(given[0].get("Value"), str):
                return constants.constructed(self._terms, function, given[0]["Value"])
            raise UnsupportedError(f"{function}() of what is no literal")
        arguments = [self._value(each) for each in given]
        fails = self._terms.or_(*(each.fails for each in arguments))
        expected, result, make = METHODS[function]
        if len(arguments) != len(expected):
            raise UnsupportedError(f"{function} with {len(arguments) - 1} arguments")
        if any(each.type != kind for each, kind in zip(arguments, expected, strict=True)):
            return self._never()
        payload, overflow = make(self._terms, *(each.payload for each in arguments))
        return Value(result, payload, self._terms.or_(fails, overflow))

    def _and(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left = self._truth(given["left"])
        if left.payload is terms.false or left.fails is terms.true:
            return left
        right = self._truth(given["right"])
        fails = terms.or_(left.fails, terms.and_(left.payload, right.fails))
        return Value(BOOL, terms.and_(left.payload, right.payload), fails)

    def _or(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left = self._truth(given["left"])
        if left.payload is terms.true or left.fails is terms.true:
            return left
        right = self._truth(given["right"])
        fails = terms.or_(left.fails, terms.and_(terms.not_(left.payload), right.fails))
        return Value(BOOL, terms.or_(left.payload, right.payload), fails)

    def _not(self, _: str, given: Mapping[str, Any]) -> Value:
        inner = self._truth(given["arg"])
        return Value(BOOL, self._terms.not_(inner.payload), inner.fails)

    def _negative(self, _: str, given: Mapping[str, Any]) -> Value:
        return self._arithmetic("-", {"left": {"Value": 0}, "right": given["arg"]})

    def _if(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        condition = self._truth(given["if"])
        if condition.fails is terms.true:
            return self._never()
        chosen = []
        for part, when in (("then", condition.payload), ("else", terms.not_(condition.payload))):
            # What is never evaluated has no say in the type.
            value = self._never() if when is terms.false else self._value(given[part])
            chosen.append((value, when))
        then, other = (value for value, _when in chosen)
        fails = terms.or_(condition.fails, *(terms.and_(when, value.fails) for value, when in chosen))
        if then.type is None or other.type is None:
            kept = then if other.type is None else other
            return Value(kept.type, kept.payload, fails)
        kind = constants.common(then.type, other.type)
        return Value(kind, self._values.choose(condition.payload, kind, then.payload, other.payload), fails)

    def _equal(self, operator: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left, right = self._value(given["left"]), self._value(given["right"])
        fails = terms.or_(left.fails, right.fails)
        if left.type is None or right.type is None:
            return Value(BOOL, terms.false, fails)
        same = self._same(left, right)
        return Value(BOOL, same if operator == "==" else terms.not_(same), fails)

    def _same(self, left: Value, right: Value) -> Term:
        return self._values.equal(left.type, left.payload, right.type, right.payload)

    def _compare(self, operator: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left, right = self._value(given["left"]), self._value(given["right"])
        if left.type != right.type or left.type not in _ORDERED:
            return self._never()
        a, b = (left.payload, right.payload) if operator in ("<", "<=") else (right.payload, left.payload)
        held = terms.less(a, b) if operator in ("<", ">") else terms.at_most(a, b)
        return Value(BOOL, held, terms.or_(left.fails, right.fails))

    def _arithmetic(self, operator: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left, right = self._value(given["left"]), self._value(given["right"])
        if left.type != LONG or right.type != LONG:
            return self._never()
        make = {"+": terms.add, "-": terms.sub, "*": terms.times}[operator]
        result = make(left.payload, right.payload)
        overflow = terms.or_(terms.less(result, terms.number(MIN_LONG)), terms.less(terms.number(MAX_LONG), result))
        return Value(LONG, result, terms.or_(left.fails, right.fails, overflow))

    def _attribute(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left = self._value(given["left"])
        member = self._member(left, given["attr"])
        if member is None:
            return self._never()
        return Value(member.type, member.payload, terms.or_(left.fails, terms.not_(member.present)))

    def _member(self, value: Value, name: str) -> Member | None:
        if isinstance(value.type, RecordOf):
            found: Member | None = value.payload.get(name)
            return found
        if isinstance(value.type, EntityOf):
            if self._values.types.is_action_type(value.type.name):
                raise UnsupportedError("an attribute of an action")
            return self._world.attribute(value.type.name, value.payload, name)
        return None

    def _has(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        value = self._value(given["left"])
        names = given["attr"] if isinstance(given["attr"], list) else [given["attr"]]
        held, fails = terms.true, value.fails
        for name in names:
            if value.type is not None and not isinstance(value.type, RecordOf | EntityOf):
                return Value(BOOL, held, terms.or_(fails, held))
            member = None if value.type is None else self._member(value, name)
            if member is None:
                return Value(BOOL, terms.false, fails)
            held = terms.and_(held, member.present)
            value = Value(member.type, member.payload, terms.false)
        return Value(BOOL, held, fails)

    def _like(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        value = self._value(given["left"])
        if value.type != STRING:
            return self._never()
        parts = tuple(part if part is None else checked(part) for part in wildcards(given["pattern"]))
        text: Term = value.payload
        absent = self._values.absent.get(text.value) if text.op == "var" else None
        if absent is not None and any(absent(part) for part in parts if part):
            return Value(BOOL, terms.false, value.fails)
        match parts:
            case ():
                held = terms.eq(text, terms.string(""))
            case (None,):
                held = terms.true
            case (str() as whole,):
                held = terms.eq(text, terms.string(whole))
            case (None, str() as end):
                held = terms.suffix(terms.string(end), text)
            case (str() as start, None):
                held = terms.prefix(terms.string(start), text)
            case _:
                held = terms.matches(text, like(parts))
        return Value(BOOL, held, value.fails)

    def _membership(self, _: str, given: Mapping[str, Any]) -> Value:
        left, right = self._value(given["left"]), self._value(given["right"])
        return self._in_value(left, right)

    def _in_value(self, left: Value, right: Value) -> Value:
        terms = self._terms
        fails = terms.or_(left.fails, right.fails)
        if not isinstance(left.type, EntityOf):
            return self._never()
        if isinstance(right.type, EntityOf):
            return Value(BOOL, self._in(left, right), fails)
        if not isinstance(right.type, SetOf):
            return self._never()
        elements = [right.type.element]
        if isinstance(right.payload, Listed):
            elements = [kind for kind, _ in right.payload.elements]
        if any(kind is not None and not isinstance(kind, EntityOf) for kind in elements):
            # Only what is in a set can be of a wrong type; in an empty one there is nothing.
            empty = self._values.each(right.type, right.payload, lambda *_: terms.false)
            return Value(BOOL, terms.false, terms.or_(fails, terms.not_(empty)))
        none = self._values.each(
            right.type,
            right.payload,
            lambda kind, payload: terms.not_(self._in(left, Value(kind, payload, terms.false))),
        )
        return Value(BOOL, terms.not_(none), fails)

    def _in(self, left: Value, right: Value) -> Term:
        terms, below, above = self._terms, left.type, right.type
        if not isinstance(below, EntityOf) or not isinstance(above, EntityOf):
            raise UnsupportedError("in with what is no entity")
        if self._values.types.is_action_type(below.name):
            if not left.payload.constant or not right.payload.constant:
                raise UnsupportedError("in with an action that is not known")
            one = (below.name, left.payload.value)
            reached = {one, *self._values.types.groups(one)}
            return terms.truth((above.name, right.payload.value) in reached)
        return self._world.within(below.name, left.payload, above.name, right.payload)

    def _is(self, _: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left = self._value(given["left"])
        if not isinstance(left.type, EntityOf):
            return self._never()
        if left.type.name != given["entity_type"]:
            return Value(BOOL, terms.false, left.fails)
        if given.get("in") is None:
            return Value(BOOL, terms.true, left.fails)
        return self._in_value(left, self._value(given["in"]))

    def _set(self, _: str, given: Sequence[Mapping[str, Any]]) -> Value:
        return constants.listed(self._terms, [self._value(each) for each in given])

    def _record(self, _: str, given: Mapping[str, Mapping[str, Any]]) -> Value:
        return constants.recorded(self._terms, {name: self._value(each) for name, each in given.items()})

    def _set_operation(self, operator: str, given: Mapping[str, Any]) -> Value:
        terms, values = self._terms, self._values
        left, right = self._value(given["left"]), self._value(given["right"])
        fails = terms.or_(left.fails, right.fails)
        if not isinstance(left.type, SetOf) or right.type is None:
            return self._never()
        if operator == "contains":
            return Value(BOOL, values.contains(left.type, left.payload, right.type, right.payload), fails)
        if not isinstance(right.type, SetOf):
            return self._never()
        a_type, b_type = left.type, right.type
        if operator == "containsAll":
            return Value(BOOL, values.subset(b_type, right.payload, a_type, left.payload), fails)
        # The one whose members are known is gone through.
        if isinstance(right.payload, Listed):
            a_type, b_type, left, right = b_type, a_type, right, left
        apart = values.each(
            a_type,
            left.payload,
            lambda kind, payload: terms.not_(values.contains(b_type, right.payload, kind, payload)),
        )
        return Value(BOOL, terms.not_(apart), fails)

    def _is_empty(self, _: str, given: Mapping[str, Any]) -> Value:
        inner = self._value(given["arg"])
        if not isinstance(inner.type, SetOf):
            return self._never()
        return Value(BOOL, self._values.each(inner.type, inner.payload, lambda *_: self._terms.false), inner.fails)

    def _tag(self, operator: str, given: Mapping[str, Any]) -> Value:
        terms = self._terms
        left, right = self._value(given["left"]), self._value(given["right"])
        if not isinstance(left.type, EntityOf) or right.type != STRING:
            return self._never()
        fails = terms.or_(left.fails, right.fails)
        member = self._world.tag(left.type.name, left.payload, right.payload)
        if operator == "hasTag":
            return Value(BOOL, terms.false if member is None else member.present, fails)
        if member is None:
            return self._never()
        return Value(member.type, member.payload, terms.or_(fails, terms.not_(member.present)))


_Handler = Callable[[Expressions, str, Any], Value]
_HANDLERS: Final[Mapping[str, _Handler]] = {
    "Value": Expressions._literal,
    "Var": Expressions._var,
    "&&": Expressions._and,
    "||": Expressions._or,
    "!": Expressions._not,
    "neg": Expressions._negative,
    "if-then-else": Expressions._if,
    "==": Expressions._equal,
    "!=": Expressions._equal,
    **dict.fromkeys(("<", "<=", ">", ">="), Expressions._compare),
    **dict.fromkeys(("+", "-", "*"), Expressions._arithmetic),
    ".": Expressions._attribute,
    "has": Expressions._has,
    "like": Expressions._like,
    "in": Expressions._membership,
    "is": Expressions._is,
    "Set": Expressions._set,
    "Record": Expressions._record,
    **dict.fromkeys(("contains", "containsAll", "containsAny"), Expressions._set_operation),
    "isEmpty": Expressions._is_empty,
    **dict.fromkeys(("hasTag", "getTag"), Expressions._tag),
}
