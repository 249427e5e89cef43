"""Parses an expression of Cedar into Cedar's JSON form, and remembers where each node of it stands.

The grammar is that of Cedar 4.12 (language 4.5): cedar-policy-core/src/parser/grammar.lalrpop and cst_to_ast.rs there.
"""

from __future__ import annotations

from typing import Any, Final

from cedarbox.review.syntax.strings import pattern, unescaped
from cedarbox.review.syntax.tokens import MAX_DEPTH, Span, Tokens

__all__ = ["FUNCTIONS", "METHODS", "RESERVED", "Est", "Expressions"]

Est = dict[str, Any]
"""A node of Cedar's JSON form."""

RESERVED: Final = frozenset({"if", "true", "false", "then", "else", "in", "is", "has", "like", "__cedar"})
FUNCTIONS: Final = frozenset({"ip", "decimal", "datetime", "duration", "unknown"})
METHODS: Final = frozenset(
    {
        *("isIpv4", "isIpv6", "isLoopback", "isMulticast", "isInRange"),
        *("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"),
        *("offset", "durationSince", "toDate", "toTime"),
        *("toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays"),
    }
)
"""Methods of Cedar's extension types; their object is the first argument in the JSON form."""

_VARIABLES: Final = frozenset({"principal", "action", "resource", "context"})
_ONE_ARGUMENT: Final = frozenset({"contains", "containsAll", "containsAny", "getTag", "hasTag"})
_RELATIONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_SUMS: Final = frozenset({"+", "-"})
_MAX_SIGNS: Final = 4
_MAX_LONG: Final = 2**63 - 1


class Expressions:
    """Parses the expressions of one policy.

    Args:
        tokens: The policy.

    Attributes:
        spans: Where nodes stand, by the identity of the node, or by that of the node above and the key. The node is
            kept with its place, so that no other can have its identity meanwhile.
    """

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens
        self.spans: dict[int | tuple[int, str | int], tuple[Any, int, int]] = {}
        self._depth = 0

    def expression(self) -> Est:
        """Read an expression.

        Raises:
            ParseError: There is none.
        """
        tokens = self.tokens
        self._depth += 1
        if self._depth > MAX_DEPTH:
            tokens.fail(f"brackets or conditionals are more than {MAX_DEPTH} deep")
        if tokens.next == "if":
            start = tokens.start
            tokens.advance()
            parts = {"if": self.expression()}
            for word in ("then", "else"):
                tokens.expect(word, "and an expression")
                parts[word] = self.expression()
            found = self.placed({"if-then-else": parts}, start)
        else:
            found = self._either()
        self._depth -= 1
        return found

    def placed(self, node: Est, start: int) -> Est:
        """Remember that a node goes from an offset to the last token that was read, and return it."""
        self.spans[id(node)] = (node, start, self.tokens.end)
        return node

    def mark(self, node: Est, key: str, start: int) -> None:
        """Remember the place of what has no node of its own, such as the name of an attribute."""
        self.spans[id(node), key] = (node, start, self.tokens.end)

    def _either(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        found = self._both()
        while tokens.accept("||"):
            found = self._two("||", found, self._both(), start)
        return found

    def _both(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        found = self._relation()
        while tokens.accept("&&"):
            found = self._two("&&", found, self._relation(), start)
        return found

    def _two(self, operator: str, left: Est, right: Est, start: int) -> Est:
        return self.placed({operator: {"left": left, "right": right}}, start)

    def _relation(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        left = self._sum()
        word = tokens.next
        if word in _RELATIONS:
            tokens.advance()
            left = self._two(word, left, self._sum(), start)
        elif word == "has":
            left = self._has(left, start)
        elif word == "like":
            tokens.advance()
            at = tokens.start
            inner = {"left": left, "pattern": pattern(tokens)}
            self.mark(inner, "pattern", at)
            left = self.placed({"like": inner}, start)
        elif word == "is":
            left = self._is(left, start)
        elif word == "=":
            tokens.fail("`=` is no operator", hint="compare with `==`")
        else:
            return left
        if tokens.next in _RELATIONS or tokens.next in {"has", "like", "is"}:
            tokens.fail(f"`{tokens.next}` after another comparison", hint="put one of the two into brackets")
        return left

    def _has(self, left: Est, start: int) -> Est:
        tokens = self.tokens
        tokens.advance()
        at = tokens.start
        if tokens.kind == "text":
            inner = {"left": left, "attr": unescaped(tokens)}
            self.mark(inner, "attr", at)
            return self.placed({"has": inner}, start)
        inner = {"left": left, "attr": self.identifier("the name of an attribute")}
        self.mark(inner, "attr", at)
        found = self.placed({"has": inner}, start)
        # `x has a.b` is short for `x has a && x.a has b`.
        while tokens.accept("."):
            left = self.placed({".": dict(inner)}, start)
            at = tokens.start
            inner = {"left": left, "attr": self.identifier("the name of an attribute")}
            self.mark(inner, "attr", at)
            found = self._two("&&", found, self.placed({"has": inner}, start), start)
        return found

    def _is(self, left: Est, start: int) -> Est:
        tokens = self.tokens
        tokens.advance()
        inner: Est = {"left": left}
        self.entity_type(inner)
        if tokens.accept("in"):
            inner["in"] = self._sum()
        return self.placed({"is": inner}, start)

    def entity_type(self, node: Est) -> None:
        """Read the name of an entity type into ``entity_type`` of a node."""
        start = self.tokens.start
        node["entity_type"] = self._path("the name of an entity type")
        self.mark(node, "entity_type", start)

    def _sum(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        found = self._product()
        while tokens.next in _SUMS:
            operator = tokens.advance()
            found = self._two(operator, found, self._product(), start)
        return found

    def _product(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        found = self._signed()
        while tokens.accept("*"):
            found = self._two("*", found, self._signed(), start)
        if tokens.next in {"/", "%"}:
            tokens.fail(f"Cedar has no `{tokens.next}`")
        return found

    def _signed(self) -> Est:
        tokens = self.tokens
        sign = tokens.next
        if sign not in {"!", "-"}:
            return self._member()
        starts = []
        while tokens.next == sign:
            starts.append(tokens.start)
            tokens.advance()
        if len(starts) > _MAX_SIGNS:
            tokens.fail(f"more than {_MAX_SIGNS} times `{sign}`", Span(starts[0], tokens.end))
        if sign == "-" and tokens.kind == "number" and tokens.ahead() not in {".", "(", "["}:
            found = self._number(negative_from=starts.pop())
        else:
            found = self._member()
        for start in reversed(starts):
            found = self.placed({"!" if sign == "!" else "neg": {"arg": found}}, start)
        return found

    def _number(self, *, negative_from: int | None = None) -> Est:
        tokens = self.tokens
        start = tokens.start if negative_from is None else negative_from
        digits = tokens.next.lstrip("0") or "0"
        value = int(digits) if len(digits) < len(str(_MAX_LONG)) + 1 else _MAX_LONG + 2
        if value > _MAX_LONG + (negative_from is not None):
            tokens.fail(f"the number is larger than {_MAX_LONG}")
        tokens.advance()
        return self.placed({"Value": value if negative_from is None else -value}, start)

    def _member(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        found = self._primary()
        while True:
            if tokens.accept("."):
                at = tokens.start
                name = self.identifier("the name of an attribute or method")
                if tokens.next == "(":
                    found = self._method(found, name, start, at)
                    continue
                inner = {"left": found, "attr": name}
                self.mark(inner, "attr", at)
            elif tokens.accept("["):
                at = tokens.start
                inner = {"left": found, "attr": unescaped(tokens)}
                self.mark(inner, "attr", at)
                tokens.expect("]", "after the name of an attribute")
            elif tokens.next == "(":
                tokens.fail("only functions and methods can be called")
            else:
                return found
            found = self.placed({".": inner}, start)

    def _method(self, on: Est, name: str, start: int, at: int) -> Est:
        tokens = self.tokens
        span = Span(at, tokens.end)
        arguments = self._arguments()
        if name in METHODS:
            return self.placed({name: [on, *arguments]}, start)
        if name == "isEmpty":
            if arguments:
                tokens.fail("`isEmpty` takes no argument", span)
            return self.placed({name: {"arg": on}}, start)
        if name not in _ONE_ARGUMENT:
            hint = f"`{name}` is a function: write {name}(…)" if name in FUNCTIONS else ""
            tokens.fail(f"`{name}` is no method of Cedar", span, hint=hint)
        if len(arguments) != 1:
            tokens.fail(f"`{name}` takes one argument", span)
        return self._two(name, on, arguments[0], start)

    def _arguments(self) -> list[Est]:
        self.tokens.expect("(")
        return self._listed(")")

    def _listed(self, closing: str) -> list[Est]:
        """Read expressions up to a closing bracket; a comma may stand after the last."""
        tokens = self.tokens
        found: list[Est] = []
        while not tokens.accept(closing):
            found.append(self.expression())
            if tokens.next != closing:
                tokens.expect(",", f"or `{closing}`")
        return found

    def _primary(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        kind, piece = tokens.kind, tokens.next
        if kind == "word":
            return self._word(start)
        if kind == "text":
            value = unescaped(tokens)
            return self.placed({"Value": value}, start)
        if kind == "number":
            return self._number()
        if piece == "(":
            tokens.advance()
            found = self.expression()
            tokens.expect(")")
            return found
        if piece == "[":
            tokens.advance()
            members = self._listed("]")
            return self.placed({"Set": members}, start)
        if kind == "slot":
            tokens.fail(f"`{piece}` in a condition", hint="slots are for the scope of a policy")
        if piece != "{":
            tokens.unexpected("an expression")
        return self._record(start)

    def _word(self, start: int) -> Est:
        tokens = self.tokens
        piece = tokens.next
        if piece in {"true", "false"}:
            tokens.advance()
            return self.placed({"Value": piece == "true"}, start)
        if tokens.ahead() == "::":
            return self.entity("an expression")
        if piece in _VARIABLES:
            tokens.advance()
            return self.placed({"Var": piece}, start)
        if piece in RESERVED:
            tokens.unexpected("an expression")
        if tokens.ahead() != "(":
            tokens.fail(f"`{piece}` is no variable", hint="there are principal, action, resource and context")
        if piece not in FUNCTIONS:
            hint = f"`{piece}` is a method: write it after a dot" if piece in METHODS | _ONE_ARGUMENT else ""
            tokens.fail(f"`{piece}` is no function of Cedar", hint=hint)
        tokens.advance()
        return self.placed({piece: self._arguments()}, start)

    def entity(self, expected: str) -> Est:
        """Read an entity such as ``Sandbox::Host::"example.com"``."""
        tokens, start = self.tokens, self.tokens.start
        kind = self._path(expected, before_id=True)
        uid: Est = {"type": kind}
        self.mark(uid, "type", start)
        tokens.expect("::", "and an id in quotes")
        at = tokens.start
        if tokens.kind != "text":
            tokens.unexpected("an id in quotes")
        uid["id"] = unescaped(tokens)
        self.mark(uid, "id", at)
        return self.placed({"Value": {"__entity": self.placed(uid, start)}}, start)

    def _record(self, start: int) -> Est:
        tokens = self.tokens
        tokens.expect("{")
        found: Est = {}
        while not tokens.accept("}"):
            span = tokens.span()
            name = unescaped(tokens) if tokens.kind == "text" else self.identifier("the name of an attribute")
            if name in found:
                tokens.fail(f"the attribute `{name}` is there twice", span)
            tokens.expect(":", "and a value")
            found[name] = self.expression()
            if tokens.next != "}":
                tokens.expect(",", "or `}`")
        return self.placed({"Record": found}, start)

    def identifier(self, expected: str) -> str:
        """Read one name.

        Raises:
            ParseError: There is none, or it is reserved.
        """
        tokens = self.tokens
        if tokens.kind != "word":
            tokens.unexpected(expected)
        if tokens.next in RESERVED:
            tokens.fail(f"`{tokens.next}` is reserved", hint="an attribute of that name is written in quotes")
        return tokens.advance()

    def _path(self, expected: str, *, before_id: bool = False) -> str:
        tokens = self.tokens
        parts = [self.identifier(expected)]
        while tokens.next == "::" and not (before_id and not tokens.ahead().isidentifier()):
            tokens.advance()
            parts.append(self.identifier(expected))
        return "::".join(parts)
