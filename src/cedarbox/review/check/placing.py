"""Finds the part of a policy that an error of Cedar's validator is about. cedarpy gives the error without its place.

The conditions are cut into the parts that are true or false by themselves, such as comparisons. With all parts after
one taken out, an error is there or not: the first part with which it is there has it. That part is searched for what
the error quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from cedarbox.policy.source import TOKEN
from cedarbox.review.syntax import Span, Syntax

__all__ = ["MAX_PLACES", "Errors", "parts_of", "places_of", "scope_of", "without"]

Errors = Callable[[str], Collection[str]]
"""Gives the errors that the validator has about the text of one policy."""

_QUOTED: Final = re.compile(r'`([^`]+)`|for (\S+::"(?:[^"\\]|\\.)*")')
MAX_PLACES: Final = 8
"""How many places of one error in one policy are looked for: each takes some questions to the validator."""
# True or false: the validator cannot know. With a plain `true` it would not look at what is on the right of it.
_NEUTRAL: Final = "(context == context)"
_OPERANDS: Final = {
    "&&": ("left", "right"),
    "||": ("left", "right"),
    "!": ("arg",),
    "if-then-else": ("if", "then", "else"),
}
_Path = tuple[str | int, ...]


def places_of(message: str, syntax: Syntax, errors: Errors) -> list[Span]:
    """Return where an error stands, each time; the whole scope when it is about none of the conditions.

    Args:
        message: What the validator says.
        syntax: The policy.
        errors: Asks the validator.
    """
    parts = [syntax.span(path) for path in parts_of(syntax)]
    found: list[Span] = []
    if message not in errors(without(syntax.text, parts)):
        at = -1
        gone: list[Span] = []
        while len(found) < MAX_PLACES:
            at = _first(syntax.text, parts, gone, at + 1, lambda text: message in errors(text))
            if at == len(parts):
                break
            gone.append(parts[at])
            found.append(_quoted(message, syntax.text, parts[at]) or parts[at])
    if found:
        return found
    scope = scope_of(syntax)
    return [_quoted(message, syntax.text, scope) or scope]


def scope_of(syntax: Syntax) -> Span:
    """Return where the scope of a policy stands, without its brackets."""
    return Span(syntax.span(("principal",)).start, syntax.span(("resource",)).end)


def parts_of(syntax: Syntax) -> list[_Path]:
    """Return the paths of the parts of the conditions that are true or false by themselves, in order."""
    found: list[_Path] = []
    conditions: Sequence[Any] = syntax.est["conditions"]
    waiting: list[tuple[_Path, Any]] = [
        (("conditions", number, "body"), condition["body"]) for number, condition in enumerate(conditions)
    ]
    waiting.reverse()
    while waiting:
        path, node = waiting.pop()
        (operator,) = node
        if operator in _OPERANDS:
            keys = reversed(_OPERANDS[operator])
            waiting += [((*path, operator, key), node[operator][key]) for key in keys]
        else:
            found.append(path)
    # `a has b.c` is several parts in one place.
    return list({syntax.span(path): path for path in found}.values())


def _first(text: str, parts: Sequence[Span], gone: Sequence[Span], start: int, wrong: Callable[[str], bool]) -> int:
    """Return the number of the first part from ``start`` on that makes it wrong, or their count when none does."""
    low, high = start, len(parts)
    while low < high:
        middle = (low + high) // 2
        if wrong(without(text, [*gone, *parts[middle + 1 :]])):
            high = middle
        else:
            low = middle + 1
    return low


def without(text: str, spans: Sequence[Span]) -> str:
    """Return the text of a policy with parts of its conditions replaced by what may be true or false."""
    for span in sorted(set(spans), key=lambda each: each.start, reverse=True):
        text = f"{text[: span.start]}{_NEUTRAL}{text[span.end :]}"
    return text


def _quoted(message: str, text: str, within: Span) -> Span | None:
    """Return the first token in a part of the text that the message quotes."""
    tokens = [match for match in TOKEN.finditer(text, within.start, within.end) if match.lastgroup != "gap"]
    for match in _QUOTED.finditer(message):
        wanted = (match.group(1) or match.group(2)).strip("[]")
        last = wanted.rsplit("::", 1)[-1]
        for spelling in dict.fromkeys((wanted, last, f'"{last}"')):
            hits = [token for token in tokens if token.group() == spelling]
            if hits:
                return Span(*hits[0].span())
    return None
