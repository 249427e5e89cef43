"""Random values, entities and requests of a schema: few names, so that they meet, and the ends of every range."""

from __future__ import annotations

import random
from typing import Any, Final

from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.literals import datetime_text, decimal_text, ip_text
from cedarbox.review.prove.types import MAX_LONG, MIN_LONG, EntityOf, Plain, RecordOf, SchemaTypes, SetOf, Type

__all__ = ["RandomValues"]

_TEXTS: Final = (
    "",
    "a",
    "ab",
    "abc",
    "b",
    "a*b",
    "x.y",
    "A",
    "é",
    "\U00010348",
    'q"\\',
    "\n",
    "team",
    "a/b",
    " ",
    "\u0000",
)
_LONGS: Final = (0, 1, 2, 3, -1, 7, 443, 1000, MAX_LONG, MIN_LONG, MAX_LONG - 1, 2**62, -(2**62), 3037000500)
_DECIMALS: Final = (0, 1, -1, 10_000, 12_345, -99_999, MAX_LONG, MIN_LONG)
_DURATIONS: Final = (0, 1, -1, 999, -999, 1000, -1001, 60_000, 3_600_000, 86_400_000, -86_400_001, MAX_LONG, MIN_LONG)
_MOMENTS: Final = (
    0,
    1,
    -1,
    86_399_999,
    86_400_000,
    -86_400_000,
    -86_400_001,
    1_704_067_200_000,
    1_704_070_800_123,
    MAX_LONG,
    MIN_LONG,
    253_402_300_799_999,
)
_ADDRESSES: Final = (
    (True, 0x0A140102, 32),
    (True, 0x0A140000, 16),
    (True, 0x0A140102, 16),
    (True, 0x0A000000, 8),
    (True, 0x7F000001, 32),
    (True, 0x7F000000, 7),
    (True, 0xE0000001, 4),
    (True, 0xE0000001, 3),
    (True, 0, 0),
    (True, 0xFFFFFFFF, 32),
    (False, 1, 128),
    (False, 1, 127),
    (False, 0xFF << 120, 8),
    (False, 0xFF << 120, 7),
    (False, 0x20010DB8 << 96, 32),
    (False, (0x20010DB8 << 96) + 5, 128),
    (False, 0, 0),
    (False, 0x7F000001, 128),
)


class RandomValues:
    """Makes them.

    Attributes:
        pool: The ids of the entities of each type; all of them exist.

    Args:
        types: The schema.
        chance: Where the randomness comes from.
    """

    def __init__(self, types: SchemaTypes, chance: random.Random) -> None:
        self._types, self._chance = types, chance
        names = ("a", "b", "é", 'q"', "long one")
        self.pool: dict[str, tuple[str, ...]] = {
            name: known.members if known.members is not None else names[: 2 + index % 3]
            for index, (name, known) in enumerate(types.entities.items())
        }

    def text(self) -> str:
        """Return a text."""
        return self._chance.choice(_TEXTS)

    def number(self) -> int:
        """Return a whole number."""
        return self._chance.choice(_LONGS)

    def extension(self, name: str) -> tuple[str, str] | tuple[str, int]:
        """Return what makes a value of an extension type: the function and its argument; a number for a far moment."""
        match name:
            case "ipaddr":
                v4, address, prefix = self._chance.choice(_ADDRESSES)
                return "ip", ip_text(v4, address, prefix)
            case "decimal":
                return "decimal", decimal_text(self._chance.choice(_DECIMALS))
            case "duration":
                return "duration", f"{self._chance.choice(_DURATIONS)}ms"
        moment = self._chance.choice(_MOMENTS)
        text = datetime_text(moment)
        return ("datetime", text) if text is not None else ("datetime", moment)

    def value(self, kind: Type) -> Any:  # noqa: PLR0911  # one return for each kind
        """Return a value in Cedar's JSON form."""
        chance = self._chance
        if isinstance(kind, RecordOf):
            return {
                name: self.value(given.type)
                for name, given in kind.attributes.items()
                if given.required or chance.random() < 0.6
            }
        if isinstance(kind, SetOf):
            element = kind.element
            return [] if element is None else [self.value(element) for _ in range(chance.randrange(4))]
        if isinstance(kind, EntityOf):
            return {"__entity": {"type": kind.name, "id": chance.choice(self.pool[kind.name])}}
        match kind:
            case Plain("String"):
                return self.text()
            case Plain("Long"):
                return self.number()
            case Plain("Bool"):
                return chance.random() < 0.5
        function, argument = self.extension(kind.name)
        if isinstance(argument, int):
            parts = (("datetime", "1970-01-01"), ("duration", f"{argument}ms"))
            return {"__extn": {"fn": "offset", "args": [{"__extn": {"fn": fn, "arg": arg}} for fn, arg in parts]}}
        return {"__extn": {"fn": function, "arg": argument}}

    def entities(self) -> list[dict[str, Any]]:
        """Return the entities of the pool, with parents that make no circle."""
        chance, types = self._chance, self._types
        order = [(kind, name) for kind, names in self.pool.items() for name in names]
        chance.shuffle(order)
        found = []
        for place, (kind, name) in enumerate(order):
            known = types.entities[kind]
            if known.members is not None:
                continue
            parents = [
                {"type": above, "id": other}
                for above, other in order[place + 1 :]
                if above in known.parents and chance.random() < 0.4
            ]
            entity = {
                "uid": {"type": kind, "id": name},
                "attrs": self.value(RecordOf(known.attributes)),
                "parents": parents,
            }
            if known.tags is not None:
                keys = dict.fromkeys(self.text() for _ in range(chance.randrange(4)))
                entity["tags"] = {key: self.value(known.tags) for key in keys}
            found.append(entity)
        return found

    def request(self, environment: Environment) -> dict[str, Any]:
        """Return a request of a kind."""
        action = (environment.action_type, environment.action_id)
        return {
            "principal": self._uid(environment.principal_type),
            "action": {"type": action[0], "id": action[1]},
            "resource": self._uid(environment.resource_type),
            "context": self.value(self._types.context(action)),
        }

    def _uid(self, kind: str) -> dict[str, str]:
        return {"type": kind, "id": self._chance.choice(self.pool[kind])}
