"""The values that a solver gives, read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from typing import Any, Final

from cedarbox.review.prove.evaluate import evaluate
from cedarbox.review.prove.terms import Term

__all__ = ["SolverModel", "read_values"]

_PART: Final = re.compile(r'"(?:[^"]|"")*"|\|[^|]*\||[()]|[^\s()]+')
_ESCAPE: Final = re.compile(r"\\u\{([0-9a-fA-F]{1,5})\}|\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_DEFAULTS: Final[Mapping[str, Any]] = {"Bool": False, "Int": 0, "String": "", "BV": 0}

_Node = str | list["_Node"]


def read_values(text: str) -> list[Any]:
    """Return the values of an answer to ``get-value``, in order.

    Raises:
        ValueError: It is no such answer.
    """
    tree = _tree(text)
    return [_value(pair[-1]) for pair in tree if isinstance(pair, list)]


def _tree(text: str) -> _Node:
    stack: list[list[_Node]] = [[]]
    for part in _PART.findall(text):
        if part == "(":
            stack.append([])
        elif part == ")":
            done = stack.pop()
            if not stack:
                raise ValueError("unbalanced")
            stack[-1].append(done)
        else:
            stack[-1].append(part)
    if len(stack) != 1 or len(stack[0]) != 1:
        raise ValueError("unbalanced")
    return stack[0][0]


def _value(node: _Node) -> Any:  # noqa: PLR0911  # one return for each kind
    match node:
        case "true" | "false":
            return node == "true"
        case ["-", str() as number]:
            return -int(number)
        case ["_", str() as bits, _] if bits.startswith("bv"):
            return int(bits[2:])
        case str() if node.startswith('"'):
            return _text(node[1:-1])
        case str() if node.startswith("#x"):
            return int(f"0{node[1:]}", 16)
        case str() if node.startswith("#b"):
            return int(f"0{node[1:]}", 2)
        case str():
            return int(node)
    raise ValueError("a value of an unknown kind")


def _text(body: str) -> str:
    def char(found: re.Match[str]) -> str:
        code = int(found[1] or found[2] or found[3], 16)
        # Cedar has no halves of characters. The solver made it up, so another that no policy names does as well.
        return chr(code + 0x2000 if 0xD800 <= code <= 0xDFFF else code)

    return _ESCAPE.sub(char, body.replace('""', '"'))


class SolverModel:
    """What a solver gave, as a model of terms.

    Args:
        leaves: The terms that it was asked about.
        values: Its answers, as many.
    """

    def __init__(self, leaves: Sequence[Term], values: Sequence[Any]) -> None:
        self._apps: dict[tuple[str, tuple[Any, ...]], Any] = {}
        self._sets: dict[tuple[str, tuple[Any, ...]], dict[tuple[Any, ...], None]] = {}
        self._ancestors: dict[tuple[str, str], dict[tuple[str, str], None]] = {}
        # What a leaf is about has a smaller number, so its value is known by then.
        for term, value in sorted(zip(leaves, values, strict=True), key=lambda pair: pair[0].number):
            known = evaluate(term.args, self)
            args = tuple(known[arg] for arg in term.args)
            if term.op == "member":
                name, keys = term.value
                members = self._sets.setdefault((name, args[:keys]), {})
                if value:
                    members[args[keys:]] = None
            elif term.op == "anc":
                if value:
                    below, above = term.value
                    self._ancestors.setdefault((below, args[0]), {})[(above, args[1])] = None
            else:
                self._apps[term.value, args] = value

    def without_blanks(self) -> SolverModel | None:
        """Return the model without its values that are empty or blank text; None when it has none."""
        kept = {key: value for key, value in self._apps.items() if not isinstance(value, str) or value.strip()}
        if len(kept) == len(self._apps):
            return None
        made = copy(self)
        made._apps = kept
        return made

    def app(self, name: str, args: tuple[Any, ...], sort: str) -> Any:
        """Return the value of a function; what the solver was not asked about has a value of no account."""
        return self._apps.get((name, args), _DEFAULTS[sort])

    def known(self, name: str, args: tuple[Any, ...] = ()) -> Any:
        """Return the value of a function; None when the solver was not asked about it."""
        return self._apps.get((name, args))

    def members(self, name: str, key: tuple[Any, ...]) -> Collection[tuple[Any, ...]]:
        """Return the members of a set."""
        return self._sets.get((name, key), {})

    def anc(self, below: str, x: str, above: str, y: str) -> bool:
        """Return whether an entity is a proper ancestor of another."""
        return (above, y) in self._ancestors.get((below, x), {})

    def ancestors(self, below: str, x: str) -> Collection[tuple[str, str]]:
        """Return the proper ancestors of an entity, by type and id."""
        return self._ancestors.get((below, x), {})

    def functions(self) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Return the functions that it has values of, with their arguments."""
        yield from self._apps
        yield from self._sets

    def below(self) -> Iterator[tuple[str, str]]:
        """Return the entities that have ancestors, by type and id."""
        yield from self._ancestors
