"""What follows from the parts of a formula that must be so, before a solver sees it.

A change of one policy in a thousand leaves a formula that says: this policy is satisfied, and none of the other
permits is. What the policy says of the request decides nearly all the others, so that little is left to solve.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from cedarbox.review.prove.terms import Term, Terms, reachable

__all__ = ["simplified"]

_ROUNDS: Final = 24
"""What is left after so many rounds is left to the solver."""


def simplified(terms: Terms, goal: Term) -> Term:
    """Return a formula that is satisfied by the same values.

    Args:
        terms: What made it.
        goal: The formula.
    """
    parts = _parts(terms, (goal,))
    for _ in range(_ROUNDS):
        given = _given(terms, parts)
        edges = _edges(terms, parts)
        given.update(edges)
        become = terms.substitute([arg for part in parts for arg in _atom(part).args], given)
        # A part decides others, never itself: of a part, only what it is made of is replaced.
        now = _parts(terms, (_rewritten(terms, part, become, edges) for part in parts))
        if terms.and_(*now) is terms.false:
            return terms.false
        if now == parts:
            break
        parts = now
    return terms.and_(*parts)


def _parts(terms: Terms, goals: Iterable[Term]) -> list[Term]:
    found: dict[Term, None] = {}
    waiting = list(goals)
    while waiting:
        part = waiting.pop()
        if part.op == "and":
            waiting.extend(part.args)
        elif part.op == "not" and part.args[0].op == "or":
            waiting.extend(terms.not_(each) for each in part.args[0].args)
        elif part is not terms.true:
            found[part] = None
    return sorted(found, key=lambda term: term.number)


def _atom(part: Term) -> Term:
    return part.args[0] if part.op == "not" else part


def _is_value(part: Term) -> bool:
    return part.op == "=" and part.args[1].constant and part.args[0].op in ("var", "app")


def _given(terms: Terms, parts: Iterable[Term]) -> dict[Term, Term]:
    given: dict[Term, Term] = {}
    for part in parts:
        given[_atom(part)] = terms.truth(part.op != "not")
        if _is_value(part):
            given[part.args[0]] = part.args[1]
    return given


def _rewritten(terms: Terms, part: Term, become: dict[Term, Term], edges: dict[Term, Term]) -> Term:
    atom = _atom(part)
    if atom in edges:
        new = edges[atom]
    elif _is_value(part):
        inner = part.args[0]
        new = terms.eq(terms.rebuilt(inner, tuple(become[arg] for arg in inner.args)), part.args[1])
    else:
        new = terms.rebuilt(atom, tuple(become[arg] for arg in atom.args))
    return terms.not_(new) if part.op == "not" else new


def _edges(terms: Terms, parts: Iterable[Term]) -> dict[Term, Term]:
    """Return what is known of the ends and beginnings of texts from those that they must have."""
    known: dict[tuple[str, Term], set[str]] = {}
    parts = list(parts)
    for part in parts:
        if part.op in ("suffix", "prefix") and part.args[0].constant:
            known.setdefault((part.op, part.args[1]), set()).add(part.args[0].value)
    found: dict[Term, Term] = {}
    if not known:
        return found
    for term in reachable(parts):
        if term.op not in ("suffix", "prefix") or not term.args[0].constant:
            continue
        one: str = term.args[0].value
        for other in known.get((term.op, term.args[1]), ()):
            if one == other:
                continue
            meets = str.endswith if term.op == "suffix" else str.startswith
            if meets(other, one):
                found[term] = terms.true
            elif not meets(one, other):
                found[term] = terms.false
    return found
