"""Random policies of a schema: mostly of the right types, now and then not, so that evaluation fails as well."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final

from cedarbox.review.prove.fuzzing.random_values import RandomValues
from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.types import (
    BOOL,
    DATETIME,
    DECIMAL,
    DURATION,
    IP,
    LONG,
    STRING,
    EntityOf,
    Plain,
    RecordOf,
    SchemaTypes,
    SetOf,
    Type,
)

__all__ = ["RandomPolicies"]

Est = dict[str, Any]
_PIECES: Final = ("a", "b", "c", ".", "*", "é", '"', "x", "/")
_UNITS: Final = ("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays")
_DECIMAL: Final = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
_WRONG: Final = 0.02
"""How often an expression is of another type than it should be."""


class RandomPolicies:
    """Makes them for one kind of request.

    Args:
        types: The schema.
        values: Makes values.
        chance: Where the randomness comes from.
        environment: The kind of request.
        groups: Actions that policies may name besides, as type and id.
    """

    def __init__(
        self,
        types: SchemaTypes,
        values: RandomValues,
        chance: random.Random,
        environment: Environment,
        groups: tuple[tuple[str, str], ...],
    ) -> None:
        self._types, self._values, self._chance, self._environment = types, values, chance, environment
        self._actions = groups
        self._paths: list[tuple[Type, Est]] = []
        variables = (
            (EntityOf(environment.principal_type), "principal"),
            (EntityOf(environment.resource_type), "resource"),
            (types.context((environment.action_type, environment.action_id)), "context"),
        )
        for kind, name in variables:
            self._gather(kind, {"Var": name}, 3)

    def _gather(self, kind: Type, node: Est, depth: int) -> None:
        self._paths.append((kind, node))
        attributes = (
            self._types.entities[kind.name].attributes
            if isinstance(kind, EntityOf)
            else kind.attributes
            if isinstance(kind, RecordOf)
            else {}
        )
        for name, given in attributes.items() if depth else ():
            self._gather(given.type, {".": {"left": node, "attr": name}}, depth - 1)

    def policy(self) -> Est:
        """Return a policy in Cedar's JSON form."""
        chance, environment = self._chance, self._environment
        conditions = [
            {"kind": chance.choice(("when", "unless")), "body": self.expression(BOOL, 3)}
            for _ in range(chance.choice((0, 1, 1, 1, 2)))
        ]
        return {
            "effect": chance.choice(("permit", "permit", "forbid")),
            "principal": self._scope(environment.principal_type),
            "action": self._action_scope(),
            "resource": self._scope(environment.resource_type),
            "conditions": conditions,
        }

    def _scope(self, kind: str) -> Est:
        chance = self._chance
        above = [name for name in self._types.entities if self._types.may_be_below(kind, name)]
        match chance.randrange(8):
            case 0:
                return {"op": "==", "entity": self._uid(kind)}
            case 1:
                return {"op": "is", "entity_type": chance.choice((kind, chance.choice(list(self._types.entities))))}
            case 2 if above:
                return {"op": "in", "entity": self._uid(chance.choice(above))}
            case 3 if above:
                return {"op": "is", "entity_type": kind, "in": {"entity": self._uid(chance.choice(above))}}
        return {"op": "All"}

    def _action_scope(self) -> Est:
        chance = self._chance
        named = [{"type": kind, "id": name} for kind, name in chance.sample(self._actions, min(2, len(self._actions)))]
        own = {"type": self._environment.action_type, "id": self._environment.action_id}
        match chance.randrange(6):
            case 0:
                return {"op": "==", "entity": own}
            case 1 if named:
                return {"op": "in", "entity": named[0]}
            case 2:
                return {"op": "in", "entities": [*named, own]}
            case 3 if named and chance.random() < 0.3:
                return {"op": "==", "entity": named[0]}
        return {"op": "All"}

    def _uid(self, kind: str) -> dict[str, str]:
        return {"type": kind, "id": self._chance.choice(self._values.pool[kind])}

    def expression(self, kind: Type, depth: int) -> Est:
        """Return an expression of a type, nested so deep at most."""
        chance = self._chance
        if chance.random() < _WRONG:
            kind = chance.choice((BOOL, LONG, STRING, IP, DATETIME, SetOf(LONG), chance.choice(self._paths)[0]))
        if depth > 0 and chance.random() < 0.12:
            parts = (BOOL, kind, kind)
            made = [self.expression(part, depth - 1) for part in parts]
            return {"if-then-else": dict(zip(("if", "then", "else"), made, strict=True))}
        if depth > 0 and chance.random() < (0.9 if kind == BOOL else 0.45):
            made_ = self._operation(kind, depth - 1)
            if made_ is not None:
                return made_
        return self._leaf(kind, depth)

    def _leaf(self, kind: Type, depth: int) -> Est:  # noqa: PLR0911  # one return for each kind
        chance = self._chance
        fitting = [node for each, node in self._paths if each == kind]
        if fitting and chance.random() < 0.7:
            return chance.choice(fitting)
        if isinstance(kind, SetOf):
            element = kind.element or LONG
            return {"Set": [self.expression(element, min(depth, 1) - 1) for _ in range(chance.randrange(4))]}
        if isinstance(kind, RecordOf):
            return {
                "Record": {
                    name: self.expression(given.type, min(depth, 1) - 1)
                    for name, given in kind.attributes.items()
                    if given.required or chance.random() < 0.5
                }
            }
        if isinstance(kind, EntityOf):
            return {"Value": {"__entity": self._uid(kind.name)}}
        if kind in (BOOL, LONG, STRING):
            return {"Value": self._values.value(kind)}
        function, argument = self._values.extension(kind.name)
        if isinstance(argument, int):
            return {"offset": [{"datetime": [{"Value": "1970-01-01"}]}, {"duration": [{"Value": f"{argument}ms"}]}]}
        return {function: [{"Value": argument}]}

    def _pair(self, kind: Type, depth: int) -> tuple[Est, Est]:
        return self.expression(kind, depth), self.expression(kind, depth)

    def _operation(self, kind: Type, depth: int) -> Est | None:  # noqa: PLR0911  # one return for each kind
        chance = self._chance
        match kind:
            case Plain("Bool"):
                return chance.choice(_TRUTHS)(self, depth)
            case Plain("Long"):
                match chance.randrange(4):
                    case 0:
                        return {chance.choice(_UNITS): [self.expression(DURATION, depth)]}
                    case 1:
                        return {"neg": {"arg": self.expression(LONG, depth)}}
                left, right = self._pair(LONG, depth)
                return {chance.choice("+-*"): {"left": left, "right": right}}
            case Plain("datetime"):
                moment = self.expression(DATETIME, depth)
                if chance.random() < 0.5:
                    return {"toDate": [moment]}
                return {"offset": [moment, self.expression(DURATION, depth)]}
            case Plain("duration"):
                left, right = self._pair(DATETIME, depth)
                return {"toTime": [left]} if chance.random() < 0.5 else {"durationSince": [left, right]}
        tagged = [name for name, known in self._types.entities.items() if known.tags == kind]
        if tagged:
            return self._tag("getTag", chance.choice(tagged), depth)
        return None

    def _tag(self, operator: str, kind: str, depth: int) -> Est:
        return {operator: {"left": self.expression(EntityOf(kind), depth), "right": self.expression(STRING, depth)}}

    def _any_type(self) -> Type:
        return self._chance.choice((*(each for each, _ in self._paths), LONG, STRING, IP, DATETIME, DURATION, DECIMAL))

    def _equal(self, depth: int) -> Est:
        kind = self._any_type()
        left, right = self._pair(kind, depth)
        return {self._chance.choice(("==", "!=")): {"left": left, "right": right}}

    def _order(self, depth: int) -> Est:
        left, right = self._pair(self._chance.choice((LONG, LONG, DATETIME, DURATION)), depth)
        return {self._chance.choice(("<", "<=", ">", ">=")): {"left": left, "right": right}}

    def _both(self, depth: int) -> Est:
        left, right = self._pair(BOOL, depth)
        return {self._chance.choice(("&&", "||")): {"left": left, "right": right}}

    def _not(self, depth: int) -> Est:
        return {"!": {"arg": self.expression(BOOL, depth)}}

    def _like(self, depth: int) -> Est:
        chance = self._chance
        pattern = [
            "Wildcard" if chance.random() < 0.4 else {"Literal": chance.choice(_PIECES)}
            for _ in range(chance.randrange(5))
        ]
        return {"like": {"left": self.expression(STRING, depth), "pattern": pattern}}

    def _in(self, depth: int) -> Est:
        chance = self._chance
        kinds = list(self._types.entities)
        below = chance.choice(
            [EntityOf(each) for each in kinds] + [each for each, _ in self._paths if isinstance(each, EntityOf)] * 3
        )
        above = [name for name in kinds if self._types.may_be_below(below.name, name)] or [below.name]
        above = [chance.choice(above)] if chance.random() < 0.9 else [chance.choice(kinds)]
        other: Type = EntityOf(above[0])
        return {
            "in": {
                "left": self.expression(below, depth),
                "right": self.expression(SetOf(other) if chance.random() < 0.4 else other, depth),
            }
        }

    def _is(self, depth: int) -> Est:
        chance = self._chance
        kinds = list(self._types.entities)
        below = chance.choice([each for each, _ in self._paths if isinstance(each, EntityOf)])
        named = below.name if chance.random() < 0.7 else chance.choice(kinds)
        found: Est = {"left": self.expression(below, depth), "entity_type": named}
        if chance.random() < 0.4:
            found["in"] = self.expression(EntityOf(chance.choice(kinds)), depth)
        return {"is": found}

    def _has(self, depth: int) -> Est:
        chance = self._chance
        path = [node for _, node in self._paths if "." in node]
        if not path:
            return self._not(depth)
        node = chance.choice(path)["."]
        if chance.random() < 0.15:
            return {"has": {"left": node["left"], "attr": chance.choice(("nothing", "x y"))}}
        return {"has": {"left": node["left"], "attr": node["attr"]}}

    def _guarded(self, depth: int) -> Est:
        node = self._has(depth)
        if "has" not in node:
            return node
        found = [kind for kind, path in self._paths if path == {".": node["has"]}]
        if not found:
            return node
        read: Est = {".": node["has"]}
        body = read if found[0] == BOOL else {"==": {"left": read, "right": self.expression(found[0], depth)}}
        return {"&&": {"left": node, "right": body}}

    def _contains(self, depth: int) -> Est:
        chance = self._chance
        sets = [each for each, _ in self._paths if isinstance(each, SetOf)]
        kind = chance.choice([*sets, *sets, SetOf(LONG), SetOf(STRING)])
        element = kind.element or LONG
        operator = chance.choice(("contains", "containsAll", "containsAny", "isEmpty"))
        left = self.expression(kind, depth)
        if operator == "isEmpty":
            return {"isEmpty": {"arg": left}}
        return {operator: {"left": left, "right": self.expression(element if operator == "contains" else kind, depth)}}

    def _has_tag(self, depth: int) -> Est:
        chance = self._chance
        tagged = [name for name, known in self._types.entities.items() if known.tags is not None]
        if not tagged:
            return self._both(depth)
        kind = chance.choice(tagged)
        node = self._tag("hasTag", kind, depth)
        given = self._types.entities[kind].tags
        if chance.random() < 0.5 or given is None:
            return node
        read = {"getTag": node["hasTag"]}
        return {"&&": {"left": node, "right": {"==": {"left": read, "right": self.expression(given, depth)}}}}

    def _of_extension(self, depth: int) -> Est:
        chance = self._chance
        match chance.randrange(3):
            case 0:
                left, right = self._pair(DECIMAL, depth)
                return {chance.choice(_DECIMAL): [left, right]}
            case 1:
                return {chance.choice(("isIpv4", "isIpv6", "isLoopback", "isMulticast")): [self.expression(IP, depth)]}
        left, right = self._pair(IP, depth)
        return {"isInRange": [left, right]}


_TRUTHS: Final[tuple[Callable[[RandomPolicies, int], Est], ...]] = (
    RandomPolicies._equal,
    RandomPolicies._equal,
    RandomPolicies._order,
    RandomPolicies._both,
    RandomPolicies._both,
    RandomPolicies._not,
    RandomPolicies._like,
    RandomPolicies._in,
    RandomPolicies._in,
    RandomPolicies._is,
    RandomPolicies._has,
    RandomPolicies._guarded,
    RandomPolicies._contains,
    RandomPolicies._contains,
    RandomPolicies._has_tag,
    RandomPolicies._of_extension,
)
