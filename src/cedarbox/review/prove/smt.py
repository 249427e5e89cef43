"""Formulas for a solver: sets and hierarchies are told by what they say of the things that occur, then it is written.

What is said of each member of a set that nothing is known of is said of each thing that is asked to be in one, and of
one more that would refute it. What is said of ancestors (no entity is its own, and they are those of one's ancestors,
too) is said of the pairs that occur and those that follow from them. Each of these is true of every request, so what is
proved with them is proved; and since finite sets and hierarchies can be made of the things that occur alone, nothing
that is found is lost, except where a limit was met: then what is found may be no request, which its replay shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from cedarbox.review.prove.patterns import quoted
from cedarbox.review.prove.terms import Term, Terms, reachable
from cedarbox.review.prove.values import Values

__all__ = ["LEAVES", "Script", "grounded", "script", "with_guards"]

_MAX_INSTANCES: Final = 20_000
"""How many conditions are made about pairs and members."""

LEAVES: Final = frozenset(("var", "app", "member", "anc"))


def grounded(values: Values, goal: Term) -> tuple[Term, ...]:
    """Return what a solver must satisfy: a formula, and what holds for all that occurs in it.

    Args:
        values: What made the values in the formula.
        goal: The formula.
    """
    terms = values.terms
    goals = with_guards(values, [goal])
    goals = _without_sets(values, goals)
    goals = with_guards(values, goals)
    goals += _hierarchy(terms, goals)
    return tuple(goals)


def with_guards(values: Values, goals: Sequence[Term]) -> list[Term]:
    """Return formulas, and what holds for the values in them.

    Args:
        values: What made the values.
        goals: The formulas.
    """
    said: dict[Term, None] = dict.fromkeys(goals)
    done: set[Term] = set()
    used: set[str] = set()
    related: set[frozenset[str]] = set()
    fresh = list(goals)
    while fresh:
        added: list[Term] = []
        for term in reachable(fresh, inside=False):
            if term in done or term.op not in ("var", "app"):
                continue
            done.add(term)
            used.add(term.value)
            added += [guard(term.args) for guard in list(values.guards.get(term.value, {}).values())]
        for names, relation in values.relations.items():
            if names not in related and names <= used:
                related.add(names)
                added.append(relation())
        fresh = [new for new in added if new is not values.terms.true and new not in said]
        said.update(dict.fromkeys(fresh))
    return list(said)


def _without_sets(values: Values, goals: list[Term]) -> list[Term]:
    terms = values.terms
    sets = [term for term in reachable(goals, inside=False) if term.op == "all"]
    if not sets:
        return goals
    become: dict[Term, Term] = {}
    elements: dict[str, dict[tuple[Term, ...], None]] = {}
    for term in reachable(goals, inside=False):
        if term.op == "member":
            name, keys = term.value
            elements.setdefault(values.elements[name], {})[term.args[keys:]] = None
    witnesses: list[tuple[Term, ...]] = []
    extra: list[Term] = []
    for number, term in enumerate(sets):
        name, keys = term.value
        bound = term.args[keys:-1]
        witness = tuple(terms.var(f"witness {number} {place}", part.sort) for place, part in enumerate(bound))
        exchanged = dict(zip(bound, witness, strict=True))
        guards = [guard(()) for part in bound for guard in values.guards.get(part.value, {}).values()]
        become[term] = terms.var(f"for all {number}", "Bool")
        elements.setdefault(values.elements[name], {})[witness] = None
        witnesses.append(witness)
        changed = terms.substitute(guards, exchanged)
        extra += [changed[guard] for guard in guards]
    made = count()
    for term, witness in zip(sets, witnesses, strict=True):
        name, keys = term.value
        key, bound, body = term.args[:keys], term.args[keys:-1], term.args[-1]
        refuted = terms.substitute([body], dict(zip(bound, witness, strict=True)))[body]
        extra.append(terms.or_(become[term], terms.and_(terms.member(name, key, witness), terms.not_(refuted))))
        for element in elements[values.elements[name]]:
            if next(made) > _MAX_INSTANCES:
                break
            instance = terms.substitute([body], dict(zip(bound, element, strict=True)))[body]
            inside = terms.member(name, key, element)
            extra.append(terms.implies(terms.and_(become[term], inside), instance))
    all_ = [*goals, *extra]
    changed = terms.substitute(all_, become)
    return [changed[each] for each in all_]


def _hierarchy(terms: Terms, goals: Iterable[Term]) -> list[Term]:
    pairs = dict.fromkeys(term for term in reachable(goals) if term.op == "anc")
    by_below: dict[str, list[Term]] = {}
    waiting = list(pairs)
    extra: list[Term] = []
    for pair in pairs:
        by_below.setdefault(pair.value[0], []).append(pair)
        if pair.value[0] == pair.value[1]:
            extra.append(terms.not_(terms.and_(pair, terms.eq(*pair.args))))
    while waiting and len(extra) < _MAX_INSTANCES:
        new: list[Term] = []
        for first in waiting:
            x, y = first.args
            for second in list(by_below.get(first.value[1], ())):
                middle, z = second.args
                same = terms.eq(y, middle)
                # The middle being `x` again would make `x` its own ancestor.
                if same is terms.false or middle is x:
                    continue
                through = terms.anc(first.value[0], x, second.value[1], z)
                extra.append(terms.implies(terms.and_(first, second, same), through))
                if through not in pairs:
                    pairs[through] = None
                    new.append(through)
        for pair in new:
            by_below.setdefault(pair.value[0], []).append(pair)
            if pair.value[0] == pair.value[1]:
                extra.append(terms.not_(terms.and_(pair, terms.eq(*pair.args))))
        waiting = new
    return extra


@dataclass(frozen=True)
class Script:
    """What is given to a solver.

    Attributes:
        text: Declarations and assertions in SMT-LIB.
        leaves: What the solver is to give the values of, with how it is written.
    """

    text: str
    leaves: Mapping[Term, str]


_NAMES: Final[Mapping[str, str]] = {
    "=": "=",
    "<": "<",
    "<=": "<=",
    "+": "+",
    "*": "*",
    "div": "div",
    "mod": "mod",
    "not": "not",
    "and": "and",
    "or": "or",
    "ite": "ite",
    "concat": "str.++",
    "suffix": "str.suffixof",
    "prefix": "str.prefixof",
    "bvand": "bvand",
    "bvor": "bvor",
    "bvnot": "bvnot",
    "bvsub": "bvsub",
    "shl": "bvshl",
    "ule": "bvule",
}
_SORTS: Final[Mapping[str, str]] = {"BV": "(_ BitVec 128)"}


def script(goals: Iterable[Term]) -> Script:
    """Write formulas that are all to hold.

    Raises:
        UnsupportedError: A text has a character that solvers cannot have.
    """
    goals = list(goals)
    order = reachable(goals)
    uses: dict[Term, int] = {}
    for term in order:
        for arg in term.args:
            uses[arg] = uses.get(arg, 0) + 1
    lines: list[str] = []
    written: dict[Term, str] = {}
    functions: dict[tuple[Any, ...], str] = {}
    leaves: dict[Term, str] = {}
    for term in order:
        if term.op in LEAVES:
            text = _leaf(term, written, functions, lines)
            leaves[term] = text
        else:
            text = _text(term, written)
        if term.args and uses.get(term, 0) > 1:
            name = f"t{term.number}"
            lines.append(f"(define-fun {name} () {_sort(term.sort)} {text})")
            text = name
        written[term] = text
    lines += [f"(assert {written[goal]})" for goal in goals]
    return Script("\n".join(lines), leaves)


def _sort(sort: str) -> str:
    return _SORTS.get(sort, sort)


def _leaf(term: Term, written: Mapping[Term, str], functions: dict[tuple[Any, ...], str], lines: list[str]) -> str:
    key = (term.op, term.value, term.sort, tuple(arg.sort for arg in term.args))
    name = functions.get(key)
    if name is None:
        name = functions[key] = f"f{len(functions)}"
        lines.append(f"(declare-fun {name} ({' '.join(_sort(arg.sort) for arg in term.args)}) {_sort(term.sort)})")
    return f"({name} {' '.join(written[arg] for arg in term.args)})" if term.args else name


def _text(term: Term, written: Mapping[Term, str]) -> str:
    args = " ".join(written[arg] for arg in term.args)
    match term.op:
        case "const":
            return _constant(term)
        case "matches":
            return f"(str.in_re {args} {term.value.smt})"
        case "top":
            bits, value = term.value
            return f"(= ((_ extract 127 {bits}) {args}) (_ bv{value} {128 - bits}))"
    return f"({_NAMES[term.op]} {args})"


def _constant(term: Term) -> str:
    match term.sort:
        case "Bool":
            return "true" if term.value else "false"
        case "Int":
            return str(term.value) if term.value >= 0 else f"(- {-term.value})"
        case "BV":
            return f"(_ bv{term.value} 128)"
    return quoted(term.value)
