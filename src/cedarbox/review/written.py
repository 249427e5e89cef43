"""Expressions in Cedar's JSON form as people write them, on one line, with no more parentheses than Cedar needs.

Cedar itself prints ``(context.port) >= 443``, which nobody has written, and takes longer for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

__all__ = ["Node", "cedar_text", "quoted"]

Node = Mapping[str, Any]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
# How tightly an operator binds, and what must stand at its sides without parentheses.
_IF, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _MEMBER = range(8)
_BINARY: Final = {
    "||": (_OR, _OR, _AND),
    "&&": (_AND, _AND, _RELATION),
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">=", "in"), (_RELATION, _SUM, _SUM)),
    **dict.fromkeys(("+", "-"), (_SUM, _SUM, _PRODUCT)),
    "*": (_PRODUCT, _PRODUCT, _UNARY),
}
_TESTS: Final = frozenset({"has", "like", "is"})
_METHODS: Final = frozenset({"contains", "containsAll", "containsAny", "getTag", "hasTag"})
_FUNCTIONS: Final = frozenset({"ip", "decimal", "datetime", "duration"})


def cedar_text(node: Node) -> str:
    """Return an expression as it is written in a policy.

    Args:
        node: An expression in Cedar's JSON form; what is none is returned as JSON.
    """
    try:
        return _written(node)[0]
    except (AttributeError, KeyError, TypeError, ValueError):
        return json.dumps(node, ensure_ascii=False)


def quoted(text: str) -> str:
    """Return a text as a Cedar string."""
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c, c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in text)


def _within(node: Node, least: int) -> str:
    """Return an operand, in parentheses where it binds less tightly than it must."""
    text, binds = _written(node)
    return text if binds >= least else f"({text})"


def _written(node: Node) -> tuple[str, int]:
    """Return an expression, and how tightly it binds."""
    ((operator, given),) = node.items()
    if operator in _BINARY:
        binds, left, right = _BINARY[operator]
        return f"{_within(given['left'], left)} {operator} {_within(given['right'], right)}", binds
    if operator in _TESTS:
        return f"{_within(given['left'], _SUM)} {operator} {_tested(operator, given)}", _RELATION
    if operator == "if-then-else":
        return " ".join(f"{word} {_within(given[word], _IF)}" for word in ("if", "then", "else")), _IF
    if operator in {"!", "neg"}:
        # A number right behind the sign would become a part of it.
        number = operator == "neg" and "Value" in given["arg"]
        operand = f"({_written(given['arg'])[0]})" if number else _within(given["arg"], _MEMBER)
        return f"{'-' if operator == 'neg' else '!'}{operand}", _UNARY
    if operator == "Value":
        return _value(given), _UNARY if isinstance(given, int) and given < 0 else _MEMBER
    return _primary(operator, given), _MEMBER


def _tested(operator: str, given: Any) -> str:
    if operator == "has":
        return _name(given["attr"])
    if operator == "like":
        return '"' + "".join(map(_part, given["pattern"])) + '"'
    below = f" in {_within(given['in'], _SUM)}" if "in" in given else ""
    return f"{given['entity_type']}{below}"


def _part(part: Any) -> str:
    return "*" if part == "Wildcard" else _escaped(part["Literal"]).replace("*", "\\*")


def _primary(operator: str, given: Any) -> str:
    match operator:
        case "Var" | "Slot":
            return str(given)
        case "Set":
            return f"[{_listed(given)}]"
        case "Record":
            members = ", ".join(f"{_name(key)}: {_within(value, _IF)}" for key, value in given.items())
            return f"{{{members}}}"
        case ".":
            left, name = _within(given["left"], _MEMBER), given["attr"]
            return f"{left}.{name}" if _plain(name) else f"{left}[{quoted(name)}]"
    return _call(operator, given)


def _call(name: str, given: Any) -> str:
    if name in _FUNCTIONS:
        return f"{name}({_listed(given)})"
    if name in _METHODS:
        given = [given["left"], given["right"]]
    elif name == "isEmpty":
        given = [given["arg"]]
    elif not _plain(name) or isinstance(given, Mapping):
        raise ValueError(name)
    return f"{_within(given[0], _MEMBER)}.{name}({_listed(given[1:])})"


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(_within(node, _IF) for node in nodes)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    uid = value["__entity"]
    return f"{uid['type']}::{quoted(uid['id'])}"


def _plain(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def _name(name: str) -> str:
    return name if _plain(name) else quoted(name)
