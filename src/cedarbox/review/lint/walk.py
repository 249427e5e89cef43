"""The parts of a policy in Cedar's JSON form, each with the way to it and with what its truth does to the policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.lint.model import NodePath

__all__ = [
    "Literal",
    "Node",
    "always",
    "attribute_chain",
    "conditions",
    "entities",
    "moments",
    "samples",
    "scope_entities",
    "strings",
]

_DEEPEST: Final = 200  # Python stops at 1,000 calls.
_OPERANDS: Final = ("left", "right", "arg", "if", "then", "else", "in")


@dataclass(frozen=True, slots=True)
class Node:
    """An expression in a condition.

    Attributes:
        path: The way to it.
        operator: Its operator, such as ``&&``, ``like``, ``Value``.
        given: Its operands.
        sign: 1 when the policy can match more because it is true, -1 when it can match less, 0 when both.
    """

    path: NodePath
    operator: str
    given: Any
    sign: int


@dataclass(frozen=True, slots=True)
class Literal:
    """An entity that a policy names.

    Attributes:
        path: The way to it.
        type: Its type as written, with the namespace.
        id: Its id.
        sign: As in :class:`Node`; in a scope 1.
    """

    path: NodePath
    type: str
    id: str
    sign: int

    @property
    def kind(self) -> str:
        """Its type without the namespace of cedarbox."""
        return self.type.removeprefix(f"{NAMESPACE}::")


def conditions(est: Mapping[str, Any]) -> Iterator[Node]:
    """Yield every expression of every condition, those inside another after it."""
    for number, condition in enumerate(est.get("conditions", ())):
        sign = 1 if condition["kind"] == "when" else -1
        yield from _nodes(condition["body"], ("conditions", number, "body"), sign)


def _nodes(top: Mapping[str, Any], path: NodePath, sign: int) -> Iterator[Node]:
    waiting: list[tuple[Any, NodePath, int]] = [(top, path, sign)]
    while waiting:
        body, here, weight = waiting.pop()
        if not isinstance(body, Mapping):
            continue
        for operator, given in body.items():
            yield Node(here, operator, given, weight)
            if operator in {"Value", "Var", "Slot"}:
                continue
            inner = -weight if operator == "!" else weight if operator in {"&&", "||", "if-then-else"} else 0
            if isinstance(given, list):
                parts = [(item, (*here, operator, number), inner) for number, item in enumerate(given)]
            elif operator == "Record":
                parts = [(item, (*here, operator, name), inner) for name, item in given.items()]
            elif isinstance(given, Mapping):
                parts = [
                    (given[name], (*here, operator, name), 0 if name == "if" else inner)
                    for name in _OPERANDS
                    if name in given
                ]
            else:
                parts = []
            waiting += reversed(parts)


def scope_entities(est: Mapping[str, Any]) -> Iterator[Literal]:
    """Yield the entities that a scope names, its actions not among them."""
    for part in ("principal", "resource"):
        scope = est[part]
        if "entity" in scope:
            yield Literal((part,), str(scope["entity"]["type"]), str(scope["entity"]["id"]), 1)
        elif "entity" in scope.get("in", {}):
            yield Literal((part,), str(scope["in"]["entity"]["type"]), str(scope["in"]["entity"]["id"]), 1)


def entities(est: Mapping[str, Any]) -> Iterator[Literal]:
    """Yield every entity that a policy names, its actions in the scope not among them.

    The sign of one in a condition is that of the nearest comparison around it.
    """
    yield from scope_entities(est)
    for path, value, sign in _values(est):
        if isinstance(value, Mapping) and "__entity" in value:
            yield Literal(path, str(value["__entity"]["type"]), str(value["__entity"]["id"]), sign)


def strings(est: Mapping[str, Any]) -> Iterator[tuple[NodePath, str, int]]:
    """Yield every string literal in the conditions: the way to it, the text, and its sign as in :func:`entities`."""
    for path, value, sign in _values(est):
        if isinstance(value, str):
            yield path, value, sign


def samples(est: Mapping[str, Any]) -> Iterator[str]:
    """Yield texts that could meet what conditions ask of texts: literals, and patterns with something for a star."""
    for _, text, _ in strings(est):
        yield text
    for node in conditions(est):
        if node.operator == "like":
            for put in ("x", ""):
                yield "".join(put if part == "Wildcard" else part["Literal"] for part in node.given["pattern"])


def moments(est: Mapping[str, Any]) -> Iterator[datetime]:
    """Yield the times that the conditions name."""
    for node in conditions(est):
        if node.operator == "datetime" and isinstance(text := node.given[0].get("Value"), str):
            try:
                found = datetime.fromisoformat(text)
            except ValueError:
                continue
            yield found if found.tzinfo else found.replace(tzinfo=UTC)


def _values(est: Mapping[str, Any]) -> Iterator[tuple[NodePath, Any, int]]:
    signs: dict[NodePath, int] = {}
    for node in conditions(est):
        if node.sign:
            signs[node.path] = node.sign
        if node.operator == "Value":
            above = next(
                (signs[node.path[:end]] for end in range(len(node.path), 0, -1) if node.path[:end] in signs), 0
            )
            yield node.path, node.given, above


def attribute_chain(body: Any) -> tuple[str, ...]:
    """Return ``("context", "base", "tool")`` for ``context.base.tool``; empty for what is no such chain."""
    names: list[str] = []
    while isinstance(body, Mapping) and "." in body:
        names.append(str(body["."]["attr"]))
        body = body["."]["left"]
    if not isinstance(body, Mapping) or "Var" not in body:
        return ()
    return (str(body["Var"]), *reversed(names))


def always(body: Any, depth: int = 0) -> bool | None:  # noqa: PLR0911  # one return for each operator
    """Return what an expression of constants is; None when it depends on the request, may fail, or is too deep."""
    if not isinstance(body, Mapping) or len(body) != 1 or depth > _DEEPEST:
        return None
    deeper = depth + 1
    ((operator, given),) = body.items()
    match operator:
        case "Value":
            return given if isinstance(given, bool) else None
        case "!":
            inner = always(given["arg"], deeper)
            return None if inner is None else not inner
        case "&&" | "||":
            left, right = always(given["left"], deeper), always(given["right"], deeper)
            decisive = operator == "||"
            if left is decisive:
                return decisive
            return right if left is (not decisive) else None
        case "if-then-else":
            test = always(given["if"], deeper)
            return None if test is None else always(given["then" if test else "else"], deeper)
        case "==" | "!=":
            left, right = given["left"], given["right"]
            if "Value" in left and "Value" in right:
                same = type(left["Value"]) is type(right["Value"]) and left["Value"] == right["Value"]
                return bool(same is (operator == "=="))
            if left == right and attribute_chain(left) in {("principal",), ("action",), ("resource",), ("context",)}:
                return bool(operator == "==")
    return None
