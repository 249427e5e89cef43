"""What terms are for one request: the formulas can be run as well as proved, which is how they are tested."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from cedarbox.review.prove.terms import ALL_ONES, Term, reachable

__all__ = ["Model", "evaluate"]


class Model(Protocol):
    """Says what is not in a formula."""

    def app(self, name: str, args: tuple[Any, ...], sort: str) -> Any:
        """Return the value of a function, or of a variable when there are no arguments."""

    def members(self, name: str, key: tuple[Any, ...]) -> Collection[tuple[Any, ...]]:
        """Return the members of a set, each in its parts."""

    def anc(self, below: str, x: str, above: str, y: str) -> bool:
        """Return whether an entity is a proper ancestor of another."""


_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "not": operator.not_,
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    "ule": operator.le,
    "+": operator.add,
    "*": operator.mul,
    "div": operator.floordiv,
    "mod": operator.mod,
    "concat": operator.add,
    "suffix": lambda end, of: of.endswith(end),
    "prefix": lambda start, of: of.startswith(start),
    "bvand": operator.and_,
    "bvor": operator.or_,
    "bvnot": lambda a: ~a & ALL_ONES,
    "bvsub": lambda a, b: (a - b) & ALL_ONES,
    "shl": lambda a, b: (a << b) & ALL_ONES if b < 128 else 0,
    "ite": lambda c, a, b: a if c else b,
    "and": lambda *all_: all(all_),
    "or": lambda *any_: any(any_),
}


def evaluate(roots: Iterable[Term], model: Model, *, order: Sequence[Term] | None = None) -> dict[Term, Any]:
    """Return the values of terms and of all that they are made of.

    Terms under ``all`` that are about its members are evaluated for each; their entries mean nothing.

    Args:
        roots: The terms.
        model: What is not in them.
        order: The terms with all that they are made of, each after its parts, where that is known; instead of `roots`.
    """
    return _evaluate(reachable(roots, inside=False) if order is None else order, model, {})


def _evaluate(order: Iterable[Term], model: Model, bound: Mapping[Term, Any]) -> dict[Term, Any]:
    known: dict[Term, Any] = dict(bound)
    for term in order:
        if term in known:
            continue
        args = term.args if term.op != "all" else term.args[: term.value[1]]
        known[term] = _value(term, [known[arg] for arg in args], model, bound)
    return known


def _value(term: Term, args: list[Any], model: Model, bound: Mapping[Term, Any]) -> Any:  # noqa: PLR0911  # one for each operator
    match term.op:
        case "const":
            return term.value
        case "var" | "app":
            return model.app(term.value, tuple(args), term.sort)
        case "member":
            name, keys = term.value
            return tuple(args[keys:]) in model.members(name, tuple(args[:keys]))
        case "anc":
            return model.anc(term.value[0], args[0], term.value[1], args[1])
        case "all":
            name, keys = term.value
            variables, body = term.args[keys:-1], term.args[-1]
            members = model.members(name, tuple(args))
            order = reachable((body,), inside=False)
            return all(
                _evaluate(order, model, {**bound, **dict(zip(variables, each, strict=True))})[body] for each in members
            )
        case "matches":
            return term.value.holds(args[0])
        case "top":
            return args[0] >> term.value[0] == term.value[1]
    return _OPERATORS[term.op](*args)
