"""Where a part of a policy stands in its file, and edits of it."""

from __future__ import annotations

import re
from typing import Final

from cedarbox.review.finding import Edit, Place
from cedarbox.review.lint.model import NodePath
from cedarbox.review.subject import ReviewedPolicy
from cedarbox.review.syntax import place_of, syntax_of
from cedarbox.review.syntax.tokens import line_and_column

__all__ = ["edit_of_text", "place_at", "place_of_node"]

_STRING: Final = re.compile(r'//[^\n\r]*|"(?:[^"\\]|\\.)*"', re.DOTALL)


def place_of_node(policy: ReviewedPolicy, path: NodePath) -> Place:
    """Return the place of a node of a policy; that of the policy for the empty path, and where it cannot be told."""
    syntax = syntax_of(policy.text, policy.est) if path else None
    if syntax is None:
        return policy.place
    try:
        return place_of(policy, syntax.span(path))
    except KeyError:
        return policy.place


def edit_of_text(policy: ReviewedPolicy, path: NodePath, text: str, better: str) -> Edit | None:
    """Return the edit that puts a text in the place of a string literal; None where it cannot be told for certain.

    Args:
        policy: The policy.
        path: The node that holds the literal, and no other of the same text.
        text: What the literal means.
        better: What it is to mean. Neither has a quote or a backslash.
    """
    if any(char in '"\\' or not char.isprintable() for char in text + better):
        return None
    syntax = syntax_of(policy.text, policy.est)
    if syntax is None:
        return None
    try:
        span = syntax.span(path)
    except KeyError:
        return None
    inside = [match for match in _STRING.finditer(policy.text, span.start, span.end) if match.group() == f'"{text}"']
    if len(inside) != 1:
        return None
    start = policy.offset + inside[0].start()
    return Edit(policy.place.file, start, start + len(text) + 2, f'"{better}"')


def place_at(file: str, text: str, start: int, end: int) -> Place:
    """Return the place of a range of characters of a file.

    Args:
        file: Its name as a place names it.
        text: Its text.
        start: Where the range begins.
        end: Where it ends.
    """
    return Place(file, *line_and_column(text, start), *line_and_column(text, end))
