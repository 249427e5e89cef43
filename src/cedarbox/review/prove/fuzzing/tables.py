"""A request in Cedar's JSON form as a model of terms: the way back from :mod:`cedarbox.review.prove.concrete`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from cedarbox.review.declared import Declared, Uid, uid_of
from cedarbox.review.prove.literals import datetime_of, decimal_of, duration_of, ip_of
from cedarbox.review.prove.types import IP, EntityOf, Plain, RecordOf, SchemaTypes, SetOf, Type
from cedarbox.review.prove.worlds import attribute_name, tag_name

__all__ = ["Table"]

_DEFAULTS: Final[Mapping[str, Any]] = {"Bool": False, "Int": 0, "String": "", "BV": 0}


class Table:
    """What entities are, and then a request.

    Args:
        types: The schema.
        entities: In Cedar's JSON form.
    """

    def __init__(self, types: SchemaTypes, entities: Sequence[Mapping[str, Any]]) -> None:
        self._types = types
        self.apps: dict[tuple[str, tuple[Any, ...]], Any] = {}
        self._sets: dict[tuple[str, tuple[Any, ...]], set[tuple[Any, ...]]] = {}
        declared = Declared(entities)
        self._above: Mapping[Uid, frozenset[Uid]] = {uid: declared.above(uid) for uid in declared.entities}
        for entity in entities:
            kind, entity_id = uid_of(entity["uid"])
            known = types.entities[kind]
            for attr, given in known.attributes.items():
                name = attribute_name(kind, attr)
                if attr in entity["attrs"]:
                    self.put(given.type, name, (entity_id,), entity["attrs"][attr])
                if not given.required:
                    self.apps[f"{name}?", (entity_id,)] = attr in entity["attrs"]
            for key, value in (entity.get("tags") or {}).items():
                if known.tags is not None:
                    self.apps[f"{tag_name(kind)}?", (entity_id, key)] = True
                    self.put(known.tags, tag_name(kind), (entity_id, key), value)

    def with_request(self, request: Mapping[str, Any]) -> Table:
        """Return the same entities with a request.

        Args:
            request: ``principal``, ``action``, ``resource`` and ``context`` in Cedar's JSON form.
        """
        made = Table(self._types, ())
        made.apps, made._sets, made._above = dict(self.apps), dict(self._sets), self._above
        for name in ("principal", "resource"):
            made.apps[name, ()] = request[name]["id"]
        action = (request["action"]["type"], request["action"]["id"])
        made.put(self._types.context(action), "context", (), request["context"])
        return made

    def put(self, kind: Type, name: str, args: tuple[Any, ...], given: Any) -> None:
        """Note a value."""
        if isinstance(kind, RecordOf):
            for attr, member in kind.attributes.items():
                if not member.required:
                    self.apps[f"{name}.{attr}?", args] = attr in given
                if attr in given:
                    self.put(member.type, f"{name}.{attr}", args, given[attr])
        elif isinstance(kind, SetOf):
            element = kind.element
            self._sets[name, args] = set() if element is None else {tuple(_parts(element, each)) for each in given}
        elif kind == IP:
            parts = _parts(kind, given)
            for part, value in zip(("v4", "address", "prefix"), parts, strict=True):
                self.apps[f"{name}.{part}", args] = value
        else:
            (self.apps[name, args],) = _parts(kind, given)

    def app(self, name: str, args: tuple[Any, ...], sort: str) -> Any:
        """Return the value of a function; of no account where there is none."""
        return self.apps.get((name, args), _DEFAULTS[sort])

    def members(self, name: str, key: tuple[Any, ...]) -> Collection[tuple[Any, ...]]:
        """Return the members of a set."""
        return self._sets.get((name, key), ())

    def anc(self, below: str, x: str, above: str, y: str) -> bool:
        """Return whether an entity is a proper ancestor of another."""
        return (above, y) in self._above.get((below, x), ())


def _parts(kind: Type, given: Any) -> list[Any]:
    if isinstance(kind, RecordOf):
        found: list[Any] = []
        for name, member in sorted(kind.attributes.items()):
            there = name in given
            if not member.required:
                found.append(there)
            found += _parts(member.type, given[name]) if there else _nothing(member.type)
        return found
    if isinstance(kind, EntityOf):
        return [uid_of(given)[1]]
    if isinstance(kind, Plain) and isinstance(given, Mapping):
        return list(_extension(given["__extn"])) if kind == IP else [_extension(given["__extn"])]
    return [given]


def _nothing(kind: Type) -> list[Any]:
    if isinstance(kind, RecordOf):
        found: list[Any] = []
        for _, member in sorted(kind.attributes.items()):
            found += [] if member.required else [False]
            found += _nothing(member.type)
        return found
    if kind == IP:
        return [False, 0, 0]
    return ["" if isinstance(kind, EntityOf) or kind == Plain("String") else False if kind == Plain("Bool") else 0]


def _extension(given: Mapping[str, Any]) -> Any:
    match given["fn"]:
        case "ip":
            return ip_of(given["arg"])
        case "decimal":
            return decimal_of(given["arg"])
        case "datetime":
            return datetime_of(given["arg"])
        case "duration":
            return duration_of(given["arg"])
    return sum(_extension(each["__extn"]) for each in given["args"])
