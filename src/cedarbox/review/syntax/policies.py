"""Parses one policy, and tells where each part of it stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.review.finding import Place
from cedarbox.review.subject import ReviewedPolicy
from cedarbox.review.syntax.expressions import Est, Expressions
from cedarbox.review.syntax.strings import unescaped
from cedarbox.review.syntax.tokens import ParseError, Span, Tokens, line_and_column

__all__ = ["Syntax", "parse_policy", "place_of", "syntax_of"]

_SCOPE: Final = ("principal", "action", "resource")


@dataclass(frozen=True)
class Syntax:
    """A policy that was parsed.

    Attributes:
        est: Cedar's JSON form, the same as cedarpy makes.
        text: Its text.
    """

    est: Mapping[str, Any]
    text: str
    _spans: Mapping[int | tuple[int, str | int], tuple[Any, int, int]]

    def span(self, path: tuple[str | int, ...]) -> Span:
        """Return where a part of the policy stands, without brackets around it.

        Args:
            path: Keys and indexes from the root of :attr:`est`, such as ``("conditions", 0, "body", "&&", "left")``,
                ``("principal",)``, ``("annotations", "id")``, or ``()`` for the whole policy. What has no place of its
                own, such as ``("conditions", 0, "body", "&&")``, has that of what it is in.

        Raises:
            KeyError: The policy has no such part.
        """
        node: Any = self.est
        _, start, end = self._spans[id(node)]
        for key in path:
            try:
                child = node[key]
            except (KeyError, IndexError, TypeError):
                raise KeyError(path) from None
            found = self._spans.get((id(node), key)) or self._spans.get(id(child))
            if found is not None:
                _, start, end = found
            node = child
        return Span(start, end)


def parse_policy(text: str) -> Syntax:
    """Parse one policy or template.

    Args:
        text: From an annotation or its effect to its semicolon; comments and space may stand around it.

    Raises:
        ParseError: It is not one policy.
    """
    tokens = Tokens(text)
    parser = _Parser(tokens)
    est = parser.policy()
    if tokens.kind != "end":
        tokens.unexpected("nothing after the semicolon")
    return Syntax(est, text, parser.spans)


def syntax_of(text: str, est: Mapping[str, Any]) -> Syntax | None:
    """Return where the parts of a policy stand; None when this parser does not see in it what cedarpy sees.

    cedarpy decides, so a place is only told when both agree on what stands there.

    Args:
        text: The policy.
        est: What cedarpy makes of it.
    """
    try:
        found = parse_policy(text)
    except (ParseError, RecursionError):
        return None
    return found if found.est == est else None


def place_of(policy: ReviewedPolicy, span: Span) -> Place:
    """Return the place in a file of a part of a policy.

    Args:
        policy: The policy.
        span: A part of its text.
    """
    begin = policy.place.line, policy.place.column or 1
    start, end = (line_and_column(policy.text, offset, begin) for offset in (span.start, span.end))
    return Place(policy.place.file, *start, *end)


class _Parser(Expressions):
    def policy(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        annotations = self._annotations()
        est: Est = {}
        at = tokens.start
        if tokens.next not in {"permit", "forbid"}:
            tokens.unexpected("`permit` or `forbid`")
        est["effect"] = tokens.advance()
        self.mark(est, "effect", at)
        tokens.expect("(", f"after `{est['effect']}`")
        for number, name in enumerate(_SCOPE):
            if number:
                tokens.expect(",", f"and `{name}`")
            if tokens.next != name:
                tokens.unexpected(f"`{name}`")
            est[name] = self._action() if name == "action" else self._principal_or_resource(name)
        tokens.accept(",")
        tokens.expect(")", "after the scope")
        est["conditions"] = []
        while tokens.next != ";":
            est["conditions"].append(self._condition())
        tokens.advance()
        if annotations:
            est["annotations"] = annotations
        return self.placed(est, start)

    def _annotations(self) -> Est:
        tokens = self.tokens
        found: Est = {}
        while tokens.next == "@":
            start = tokens.start
            tokens.advance()
            if tokens.kind != "word":
                tokens.unexpected("the name of an annotation")
            if tokens.next in found:
                tokens.fail(f"the annotation `@{tokens.next}` is there twice")
            name = tokens.advance()
            found[name] = None
            if tokens.accept("("):
                found[name] = unescaped(tokens)
                tokens.expect(")", "after the value of the annotation")
            self.mark(found, name, start)
        return found

    def _principal_or_resource(self, name: str) -> Est:
        tokens, start = self.tokens, self.tokens.start
        tokens.advance()
        found: Est = {"op": "All"}
        if tokens.accept("is"):
            found = {"op": "is"}
            self.entity_type(found)
            if tokens.accept("in"):
                found["in"] = self._one(name)
        elif tokens.next in {"==", "in"}:
            operator = tokens.advance()
            found = {"op": operator, **self._one(name)}
        else:
            self._refuse_operator("`==`, `in` or `is`")
        return self.placed(found, start)

    def _one(self, name: str) -> Est:
        """Read the entity or slot that a scope compares with."""
        tokens = self.tokens
        brackets = self._opened()
        if tokens.kind != "slot":
            found = self._uid()
        elif tokens.next != f"?{name}":
            tokens.unexpected(f"`?{name}` or an entity")
        else:
            start = tokens.start
            found = self.placed({"slot": tokens.advance()}, start)
        self._closed(brackets)
        return found

    def _opened(self) -> int:
        count = 0
        while self.tokens.accept("("):
            count += 1
        return count

    def _closed(self, count: int) -> None:
        for _ in range(count):
            self.tokens.expect(")")

    def _uid(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        if tokens.kind != "word" or tokens.ahead() != "::":
            tokens.unexpected("one entity")
        return self.placed({"entity": self.entity("one entity")["Value"]["__entity"]}, start)

    def _action(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        tokens.advance()
        found: Est = {"op": "All"}
        if tokens.accept("=="):
            found = {"op": "==", "entity": self._action_uid()}
        elif tokens.accept("in"):
            found = {"op": "in", **self._actions()}
        else:
            self._refuse_operator("`==` or `in`")
        return self.placed(found, start)

    def _actions(self) -> Est:
        tokens = self.tokens
        brackets = self._opened()
        if not tokens.accept("["):
            single = {"entity": self._action_uid()}
            self._closed(brackets)
            return single
        members = []
        while not tokens.accept("]"):
            members.append(self._action_uid())
            if tokens.next != "]":
                tokens.expect(",", "or `]`")
        self._closed(brackets)
        return {"entity": members[0]} if len(members) == 1 else {"entities": members}

    def _action_uid(self) -> Est:
        tokens = self.tokens
        brackets, start = self._opened(), tokens.start
        uid: Est = self._uid()["entity"]
        if uid["type"].rsplit("::", 1)[-1] != "Action":
            tokens.fail(f"`{uid['type']}` is no type of actions", Span(start, tokens.end), hint='write Action::"…"')
        self._closed(brackets)
        return uid

    def _refuse_operator(self, expected: str) -> None:
        tokens = self.tokens
        if tokens.next == "=":
            tokens.fail("`=` is no operator", hint="compare with `==`")
        if tokens.next not in {",", ")"}:
            tokens.unexpected(f"{expected}, or the end of this part of the scope")

    def _condition(self) -> Est:
        tokens, start = self.tokens, self.tokens.start
        if tokens.next not in {"when", "unless"}:
            tokens.unexpected("`when`, `unless` or `;`")
        kind = tokens.advance()
        tokens.expect("{", f"after `{kind}`")
        if tokens.next == "}":
            tokens.fail(f"the `{kind}` is empty")
        body = self.expression()
        tokens.expect("}", f"after the condition of `{kind}`")
        return self.placed({"kind": kind, "body": body}, start)
