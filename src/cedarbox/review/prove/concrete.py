"""A request and entities in Cedar's JSON form, from the values that a solver gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.literals import datetime_text, decimal_text, ip_text
from cedarbox.review.prove.models import SolverModel
from cedarbox.review.prove.types import IP, EntityOf, Plain, RecordOf, SchemaTypes, SetOf, Type
from cedarbox.review.prove.worlds import attribute_name, tag_name

__all__ = ["Concrete", "request_of"]

_NAME = "x"
"""The id of an entity that nothing is said of."""


class Concrete:
    """Writes values.

    Args:
        types: The schema.
        model: What the solver gave.
    """

    def __init__(self, types: SchemaTypes, model: SolverModel) -> None:
        self._types, self._model = types, model
        self._waiting: list[tuple[str, str]] = []

    def value(self, kind: Type, name: str, args: tuple[Any, ...] = ()) -> Any:
        """Return the value of a function in Cedar's JSON form; what the solver was not asked about is small."""
        model = self._model
        if isinstance(kind, RecordOf):
            return {
                attr: self.value(given.type, f"{name}.{attr}", args)
                for attr, given in kind.attributes.items()
                if given.required or model.known(f"{name}.{attr}?", args)
            }
        if isinstance(kind, SetOf):
            if kind.element is None:
                return []
            return [self._parts(kind.element, list(each)) for each in model.members(name, args)]
        if kind == IP:
            parts = [model.known(f"{name}.{part}", args) for part in ("v4", "address", "prefix")]
            if all(part is None for part in parts):
                return _extension("ip", "192.0.2.1")
            v4, address, prefix = (part or 0 for part in parts)
            return self._parts(kind, [bool(v4), address, prefix])
        known = model.known(name, args)
        return self._plain(kind, known)

    def _parts(self, kind: Type, parts: list[Any]) -> Any:
        if isinstance(kind, RecordOf):
            found = {}
            for name, given in sorted(kind.attributes.items()):
                present = given.required or parts.pop(0)
                inner = self._parts(given.type, parts)
                if present:
                    found[name] = inner
            return found
        if kind == IP:
            v4, address, prefix = parts.pop(0), parts.pop(0), parts.pop(0)
            width = 32 if v4 else 128
            return _extension("ip", ip_text(v4, address % 2**width, min(prefix, width)))
        return self._plain(kind, parts.pop(0))

    def _plain(self, kind: Type, known: Any) -> Any:  # noqa: PLR0911  # one return for each type
        if isinstance(kind, EntityOf):
            uid = {"type": kind.name, "id": self.entity_id(kind.name, known)}
            self._waiting.append((uid["type"], uid["id"]))
            return {"__entity": uid}
        if not isinstance(kind, Plain):
            raise TypeError(kind)
        match kind.name:
            case "String":
                return known or ""
            case "Long":
                return known or 0
            case "Bool":
                return bool(known)
            case "decimal":
                return _extension("decimal", decimal_text(known or 0))
            case "duration":
                return _extension("duration", f"{known or 0}ms")
        text = datetime_text(known or 0)
        if text is not None:
            return _extension("datetime", text)
        args = [_extension("datetime", "1970-01-01"), _extension("duration", f"{known}ms")]
        return {"__extn": {"fn": "offset", "args": args}}

    def entity_id(self, entity_type: str, known: str | None) -> str:
        """Return the id of an entity of a type, also when nothing is known of it."""
        if known is not None:
            return known
        given = self._types.entities.get(entity_type)
        return given.members[0] if given and given.members else _NAME

    def entities(self, first: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the entities that there must be: the first, those that the solver spoke of, what they refer to."""
        waiting = self._waiting
        waiting += first
        for name, args in self._model.functions():
            for mark in "!#":
                kind, found, _ = name.partition(mark)
                if found and kind in self._types.entities and args:
                    waiting.append((kind, args[0]))
        waiting += self._model.below()
        seen: dict[tuple[str, str], dict[str, Any]] = {}
        while waiting:
            kind, entity_id = waiting.pop()
            known = self._types.entities.get(kind)
            # Members of closed sets have no attributes, and Cedar knows them.
            if known is None or known.members is not None or (kind, entity_id) in seen:
                continue
            seen[kind, entity_id] = {}
            seen[kind, entity_id] = self._entity(kind, entity_id)
        return list(seen.values())

    def _entity(self, kind: str, entity_id: str) -> dict[str, Any]:
        known, model = self._types.entities[kind], self._model
        attrs = {}
        for attr, given in known.attributes.items():
            name = attribute_name(kind, attr)
            if given.required or model.known(f"{name}?", (entity_id,)):
                attrs[attr] = self.value(given.type, name, (entity_id,))
        parents = [{"type": above, "id": each} for above, each in sorted(model.ancestors(kind, entity_id))]
        entity = {"uid": {"type": kind, "id": entity_id}, "attrs": attrs, "parents": parents}
        if known.tags is not None:
            name = tag_name(kind)
            tags = {
                args[1]: self.value(known.tags, name, args)
                for function, args in list(model.functions())
                if function == f"{name}?" and args[0] == entity_id and model.known(function, args)
            }
            entity |= {"tags": tags} if tags else {}
        return entity


def request_of(
    types: SchemaTypes, environment: Environment, model: SolverModel
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return a request with the entities that it needs.

    Args:
        types: The schema.
        environment: The kind of request.
        model: What the solver gave.
    """
    concrete = Concrete(types, model)
    action = {"type": environment.action_type, "id": environment.action_id}
    principal, resource = (
        {"type": kind, "id": concrete.entity_id(kind, model.known(name))}
        for kind, name in ((environment.principal_type, "principal"), (environment.resource_type, "resource"))
    )
    context = concrete.value(types.context((action["type"], action["id"])), "context")
    entities = concrete.entities([(principal["type"], principal["id"]), (resource["type"], resource["id"])])
    return {"principal": principal, "action": action, "resource": resource, "context": context}, entities


def _extension(function: str, argument: str) -> dict[str, Mapping[str, str]]:
    return {"__extn": {"fn": function, "arg": argument}}
