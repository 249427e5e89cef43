"""Formulas as a graph: each term is made once, and simple ones are decided while they are made.

A term is made by :class:`Terms`, which gives back the same object for the same term. The numbers of terms grow, and
what a term is made of has smaller numbers; so to walk a graph in order is to sort it by number, without recursion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

__all__ = ["ALL_ONES", "Sort", "Term", "Terms", "reachable"]

Sort = Literal["Bool", "Int", "String", "BV"]
"""BV is a vector of 128 bits."""

ALL_ONES: Final = (1 << 128) - 1


class Term:
    """One node.

    Attributes:
        op: ``const``, ``var``, ``app`` (a function of which nothing is known), ``member`` (of a set of which nothing is
            known), ``anc`` (a proper ancestor), ``all`` (of a set), or an operator.
        args: What it is made of.
        sort: What it is.
        value: The value of a constant, the name of a variable or function, what else an operator needs.
        number: Grows with every term that is made.
    """

    __slots__ = ("args", "number", "op", "sort", "value")

    def __init__(self, op: str, args: tuple[Term, ...], sort: Sort, value: Any, number: int) -> None:
        self.op, self.args, self.sort, self.value, self.number = op, args, sort, value, number

    def __repr__(self) -> str:
        inner = " ".join(repr(arg) for arg in self.args)
        head = self.op if self.value is None else f"{self.op}:{self.value!r}"
        return f"({head} {inner})" if inner else f"({head})"

    @property
    def constant(self) -> bool:
        """It is a value."""
        return self.op == "const"


def reachable(roots: Iterable[Term], *, inside: bool = True) -> list[Term]:
    """Return all that terms are made of and the terms themselves, each once, parts first.

    Args:
        roots: The terms.
        inside: Go into what is said of each member of a set, too.
    """
    seen: set[Term] = set()
    waiting = list(roots)
    while waiting:
        term = waiting.pop()
        if term not in seen:
            seen.add(term)
            waiting.extend(term.args if inside or term.op != "all" else term.args[: term.value[1]])
    return sorted(seen, key=lambda term: term.number)


class Terms:
    """Makes terms."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Term] = {}
        self.true = self._term("const", (), "Bool", True)
        self.false = self._term("const", (), "Bool", False)
        self._rebuild: Final[Mapping[str, Callable[..., Term]]] = {
            "and": self.and_,
            "or": self.or_,
            "not": self.not_,
            "ite": self.ite,
            "=": self.eq,
            "<": self.less,
            "<=": self.at_most,
            "+": self.add,
            "*": self.times,
            "div": self.div,
            "mod": self.mod,
            "concat": self.concat,
            "suffix": self.suffix,
            "prefix": self.prefix,
            "bvand": self.bvand,
            "bvor": self.bvor,
            "bvnot": self.bvnot,
            "shl": self.shl,
            "ule": self.ule,
        }

    def _term(self, op: str, args: tuple[Term, ...], sort: Sort, value: Any = None) -> Term:
        # True == 1 in Python, and they must not be one term.
        key = (op, args, sort, value)
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = Term(op, args, sort, value, len(self._made))
        return found

    def const(self, value: bool | int | str, sort: Sort) -> Term:
        """Return a value."""
        return self._term("const", (), sort, value)

    def truth(self, value: bool) -> Term:
        """Return a truth value."""
        return self.true if value else self.false

    def number(self, value: int) -> Term:
        """Return a whole number."""
        return self._term("const", (), "Int", value)

    def string(self, value: str) -> Term:
        """Return a text."""
        return self._term("const", (), "String", value)

    def bv(self, value: int) -> Term:
        """Return a vector of 128 bits."""
        return self._term("const", (), "BV", value & ALL_ONES)

    def var(self, name: str, sort: Sort) -> Term:
        """Return a variable."""
        return self._term("var", (), sort, name)

    def app(self, name: str, args: tuple[Term, ...], sort: Sort) -> Term:
        """Return the value of a function of which nothing is known; a variable when it has no arguments."""
        return self._term("app", args, sort, name) if args else self.var(name, sort)

    def member(self, name: str, key: tuple[Term, ...], element: tuple[Term, ...]) -> Term:
        """Return whether something is in a set of which nothing is known.

        Args:
            name: Name of the set, or of the function that gives it.
            key: Arguments of that function.
            element: What may be in it, in parts.
        """
        return self._term("member", (*key, *element), "Bool", (name, len(key)))

    def anc(self, below: str, x: Term, above: str, y: Term) -> Term:
        """Return whether an entity is a proper ancestor of another.

        Args:
            below: Type of the one that is below.
            x: Its id.
            above: Type of the ancestor.
            y: Its id.
        """
        return self._term("anc", (x, y), "Bool", (below, above))

    def all(self, name: str, key: tuple[Term, ...], bound: tuple[Term, ...], body: Term) -> Term:
        """Return whether something is so for each member of a set of which nothing is known.

        Args:
            name: As in :meth:`member`.
            key: As in :meth:`member`.
            bound: Variables that stand for the parts of the member; they occur nowhere but in ``body``.
            body: What is to be so.
        """
        if body is self.true:
            return self.true
        return self._term("all", (*key, *bound, body), "Bool", (name, len(key)))

    def not_(self, a: Term) -> Term:
        """Return the opposite."""
        if a.op == "const":
            return self.truth(not a.value)
        if a.op == "not":
            return a.args[0]
        return self._term("not", (a,), "Bool")

    def and_(self, *given: Term) -> Term:
        """Return whether all are so."""
        return self._nary("and", given, self.true, self.false)

    def or_(self, *given: Term) -> Term:
        """Return whether one is so."""
        return self._nary("or", given, self.false, self.true)

    def _nary(self, op: str, given: tuple[Term, ...], neutral: Term, absorbing: Term) -> Term:
        flat: dict[Term, None] = {}
        for each in given:
            if each is absorbing:
                return absorbing
            if each is not neutral:
                flat.update(dict.fromkeys(each.args) if each.op == op else {each: None})
        for each in flat:
            if each.op == "not" and (
                each.args[0] in flat or (each.args[0].op == op and all(arg in flat for arg in each.args[0].args))
            ):
                return absorbing
        if op == "and" and self._contradictory(flat):
            return self.false
        if len(flat) <= 1:
            return next(iter(flat), neutral)
        return self._term(op, tuple(sorted(flat, key=lambda term: term.number)), "Bool")

    @staticmethod
    def _contradictory(flat: Iterable[Term]) -> bool:
        # One thing cannot equal two values.
        known: dict[Term, Term] = {}
        for each in flat:
            if each.op == "=" and each.args[1].op == "const":
                left, right = each.args
                if known.setdefault(left, right) is not right:
                    return True
        return False

    def implies(self, a: Term, b: Term) -> Term:
        """Return whether the second is so when the first is."""
        return self.or_(self.not_(a), b)

    def ite(self, c: Term, a: Term, b: Term) -> Term:
        """Return one or the other."""
        if c.op == "const":
            return a if c.value else b
        if a is b:
            return a
        if a.sort == "Bool":
            if a.op == "const":
                return self.or_(c, b) if a.value else self.and_(self.not_(c), b)
            if b.op == "const":
                return self.or_(self.not_(c), a) if b.value else self.and_(c, a)
        return self._term("ite", (c, a, b), a.sort)

    def eq(self, a: Term, b: Term) -> Term:
        """Return whether two terms of one sort are equal."""
        if a is b:
            return self.true
        if a.op == "const" and b.op == "const":
            return self.truth(a.value == b.value)
        if a.op == "const" or (b.op != "const" and a.number > b.number):
            a, b = b, a
        if a.sort == "Bool" and b.op == "const":
            return a if b.value else self.not_(a)
        if a.op == "ite" and b.op == "const" and a.args[1].op == "const" and a.args[2].op == "const":
            return self.ite(a.args[0], self.eq(a.args[1], b), self.eq(a.args[2], b))
        return self._term("=", (a, b), "Bool")

    def less(self, a: Term, b: Term) -> Term:
        """Return whether a whole number is less than another."""
        if a is b:
            return self.false
        if a.op == "const" and b.op == "const":
            return self.truth(a.value < b.value)
        return self._term("<", (a, b), "Bool")

    def at_most(self, a: Term, b: Term) -> Term:
        """Return whether a whole number is at most another."""
        if a is b:
            return self.true
        if a.op == "const" and b.op == "const":
            return self.truth(a.value <= b.value)
        return self._term("<=", (a, b), "Bool")

    def add(self, a: Term, b: Term) -> Term:
        """Return the sum."""
        if a.op == "const" and b.op == "const":
            return self.number(a.value + b.value)
        if a.op == "const":
            a, b = b, a
        if b.op == "const" and b.value == 0:
            return a
        return self._term("+", (a, b), "Int")

    def sub(self, a: Term, b: Term) -> Term:
        """Return the difference."""
        return self.add(a, self.times(self.number(-1), b))

    def times(self, a: Term, b: Term) -> Term:
        """Return the product."""
        if a.op == "const" and b.op == "const":
            return self.number(a.value * b.value)
        if b.op == "const":
            a, b = b, a
        if a.op == "const" and a.value in (0, 1):
            return b if a.value else a
        return self._term("*", (a, b), "Int")

    def div(self, a: Term, b: Term) -> Term:
        """Return the quotient by a positive constant, rounded down."""
        return self.number(a.value // b.value) if a.op == "const" else self._term("div", (a, b), "Int")

    def mod(self, a: Term, b: Term) -> Term:
        """Return the remainder by a positive constant, which is not negative."""
        return self.number(a.value % b.value) if a.op == "const" else self._term("mod", (a, b), "Int")

    def concat(self, a: Term, b: Term) -> Term:
        """Return one text after another."""
        if a.op == "const" and b.op == "const":
            return self.string(a.value + b.value)
        return self._term("concat", (a, b), "String")

    def suffix(self, end: Term, of: Term) -> Term:
        """Return whether a text ends with another."""
        if end.op == "const" and of.op == "const":
            return self.truth(of.value.endswith(end.value))
        return self._term("suffix", (end, of), "Bool")

    def prefix(self, start: Term, of: Term) -> Term:
        """Return whether a text begins with another."""
        if start.op == "const" and of.op == "const":
            return self.truth(of.value.startswith(start.value))
        return self._term("prefix", (start, of), "Bool")

    def matches(self, text: Term, pattern: Any) -> Term:
        """Return whether a text is in a regular language.

        Args:
            text: The text.
            pattern: A :class:`cedarbox.review.prove.patterns.Pattern`.
        """
        if text.op == "const":
            return self.truth(pattern.holds(text.value))
        return self._term("matches", (text,), "Bool", pattern)

    def bvand(self, a: Term, b: Term) -> Term:
        """Return the bits that both have."""
        if a.op == "const" and b.op == "const":
            return self.bv(a.value & b.value)
        return self._term("bvand", (a, b), "BV")

    def bvor(self, a: Term, b: Term) -> Term:
        """Return the bits that one has."""
        if a.op == "const" and b.op == "const":
            return self.bv(a.value | b.value)
        return self._term("bvor", (a, b), "BV")

    def bvnot(self, a: Term) -> Term:
        """Return the other bits."""
        return self.bv(~a.value) if a.op == "const" else self._term("bvnot", (a,), "BV")

    def shl(self, a: Term, b: Term) -> Term:
        """Return the bits moved up."""
        if a.op == "const" and b.op == "const":
            return self.bv(a.value << b.value if b.value < 128 else 0)
        return self._term("shl", (a, b), "BV")

    def bvsub(self, a: Term, b: Term) -> Term:
        """Return the difference, modulo 2**128."""
        if a.op == "const" and b.op == "const":
            return self.bv(a.value - b.value)
        return self._term("bvsub", (a, b), "BV")

    def ule(self, a: Term, b: Term) -> Term:
        """Return whether a vector is at most another, as numbers without sign."""
        if a is b:
            return self.true
        if a.op == "const" and b.op == "const":
            return self.truth(a.value <= b.value)
        return self._term("ule", (a, b), "Bool")

    def top(self, a: Term, bits: int, value: int) -> Term:
        """Return whether a vector agrees with a value in all but the lowest ``bits`` bits."""
        if bits == 0:
            return self.eq(a, self.bv(value))
        if bits >= 128:
            return self.true
        if a.op == "const":
            return self.truth(a.value >> bits == value >> bits)
        return self._term("top", (a,), "Bool", (bits, value >> bits))

    def rebuilt(self, term: Term, args: tuple[Term, ...]) -> Term:  # noqa: PLR0911  # one return for each operator
        """Return the term with other parts, simplified again."""
        if args == term.args:
            return term
        make = self._rebuild.get(term.op)
        if make is not None:
            return make(*args)
        match term.op:
            case "bvsub":
                return self.bvsub(*args)
            case "matches":
                return self.matches(args[0], term.value)
            case "top":
                return self.top(args[0], term.value[0], term.value[1] << term.value[0])
            case "all":
                name, keys = term.value
                return self.all(name, args[:keys], args[keys:-1], args[-1])
        return self._term(term.op, args, term.sort, term.value)

    def substitute(self, roots: Iterable[Term], given: Mapping[Term, Term]) -> dict[Term, Term]:
        """Replace terms by others, in terms and all that they are made of.

        Returns:
            What each of ``roots`` and their parts has become.
        """
        become: dict[Term, Term] = {}
        for term in reachable(roots):
            if (other := given.get(term)) is not None:
                become[term] = other
            elif term.args:
                become[term] = self.rebuilt(term, tuple(become[arg] for arg in term.args))
            else:
                become[term] = term
        return become
