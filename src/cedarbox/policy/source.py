"""Where each statement of a Cedar file begins and ends.

cedarpy says what is wrong with a policy but not where. A small scanner that knows strings and comments cuts a file into
statements, so that a message can name the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["TOKEN", "Statement", "excess", "locate", "statements"]

_MAX_DEPTH = 64
_MAX_OPERATORS = 1000
_MAX_TEXT = 256 * 1024
_BETWEEN = frozenset({"when", "unless", "if", "then", "else", "in", "is", "like"})

# A string may run over lines, as it does for Cedar: what looks like a comment in it is none. A comment ends at a
# carriage return as well, so that nothing can hide behind one. Python counts four separators as space that Cedar does
# not.
TOKEN: Final = re.compile(
    r"""(?P<gap>[^\S\x1c-\x1f]+|//[^\n\r]*)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>::|&&|\|\||[=!<>]=|[-.,;:(){}\[\]<>+*/%!=@])
    |(?P<text>"[^"\\]*(?:\\.[^"\\]*)*")
    |(?P<number>[0-9]+)
    |(?P<slot>\?[A-Za-z_][A-Za-z0-9_]*)
    |(?P<open>"[^"\\]*(?:\\.[^"\\]*)*\\?\Z)
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
"""A token of Cedar, of policies as well as of schemas. ``gap`` is what stands between tokens, ``open`` a string without
its end, ``other`` a character that no token begins with."""

# The same for whoever looks for semicolons only.
_PIECE: Final = re.compile(
    r"""(?P<gap>(?:[^\S\x1c-\x1f]+|//[^\n\r]*)+)|(?P<end>;)|"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[^\s";/]+|.""", re.DOTALL
)
_QUOTED_IN_MESSAGE = re.compile(r"`([^`]+)`|'([^']+)'|: ([A-Za-z_]\w*)$")


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy of a file.

    Attributes:
        text: From its first token to its semicolon.
        line: 1-based line of the first token.
        column: 1-based column of the first token, in characters.
        offset: Where the first token begins, in characters from the start of the file.
    """

    text: str
    line: int
    column: int
    offset: int = 0


def statements(text: str) -> Iterator[Statement]:
    """Yield the statements of a Cedar file in order; a last one without its semicolon is yielded too."""
    start: int | None = None
    end = counted = 0
    line = 1
    for match in _PIECE.finditer(text):
        kind = match.lastgroup
        if kind == "gap":
            continue
        if start is None:
            start = match.start()
            line, counted = line + text.count("\n", counted, start), start
        end = match.end()
        if kind == "end":
            yield _statement(text, start, end, line)
            start = None
    if start is not None:
        yield _statement(text, start, end, line)


def _statement(text: str, start: int, end: int, line: int) -> Statement:
    return Statement(text[start:end], line, start - text.rfind("\n", 0, start), start)


def excess(statement: Statement) -> str:
    """Return why a statement is too much for the parser, or nothing.

    cedarpy 4.12.2 parses recursively and takes the whole process down with it: 1,000 brackets inside each other, or a
    chain of 20,000 operators, attributes, indexes or calls, are a segmentation fault, and ``has`` with 1,000 names in a
    chain takes 565 MB. A list of 80,000 actions takes 8 s to check. All measured, so the limits stand well below.
    """
    if len(statement.text) > _MAX_TEXT:
        return f"more than {_MAX_TEXT} characters in one policy"
    if _is_small(statement.text):
        return ""
    deepest = operators = conditionals = longest = 0
    # How long the chain of attributes, indexes and calls is, at each level of brackets.
    chains = [0]
    for match in TOKEN.finditer(statement.text):
        piece = match.group()
        if piece in {"(", "[", "{"}:
            chains[-1] += 1
            chains.append(0)
        elif piece in {")", "]", "}"} and len(chains) > 1:
            chains.pop()
        elif piece in {".", "!", "-"}:
            chains[-1] += 1
        elif piece in _BETWEEN or match.lastgroup in {"sign", "other"}:
            chains[-1] = 0
        deepest, longest = max(deepest, len(chains) - 1), max(longest, chains[-1])
        operators += piece in {"&&", "||", "+", "-", "*", "when", "unless"}
        conditionals += piece == "if"
    if max(deepest, conditionals) > _MAX_DEPTH:
        return f"brackets or conditionals are more than {_MAX_DEPTH} deep"
    if longest > _MAX_DEPTH:
        return f"a chain of more than {_MAX_DEPTH} attributes, indexes, calls or signs"
    return f"more than {_MAX_OPERATORS} operators in one policy" if operators > _MAX_OPERATORS else ""


def _is_small(text: str) -> bool:
    """Whether there is so little of everything, strings and comments included, that no limit can be reached."""
    return (
        sum(map(text.count, ("(", "[", "{", ".", "!", "-"))) <= _MAX_DEPTH
        and text.count("if") <= _MAX_DEPTH
        and sum(map(text.count, ("&&", "||", "+", "*", "when", "unless"))) <= _MAX_OPERATORS - _MAX_DEPTH
    )


def locate(statement: Statement, message: str) -> tuple[int, int]:
    """Return the line and column in the file that a parser message about this statement most likely means.

    The parser quotes the offending token without its place. A token that occurs once in the statement is the place;
    otherwise the end of input is meant, or the statement's first token has to do.
    """
    if "end of input" in message:
        return _place(statement, len(statement.text))
    for quoted in _QUOTED_IN_MESSAGE.finditer(message):
        wanted = next(group for group in quoted.groups() if group).rsplit("::", 1)[-1]
        hits = [match.start() for match in TOKEN.finditer(statement.text) if match.group() == wanted]
        if len(hits) == 1:
            return _place(statement, hits[0])
    return statement.line, statement.column


def _place(statement: Statement, offset: int) -> tuple[int, int]:
    before = statement.text[:offset]
    if "\n" not in before:
        return statement.line, statement.column + offset
    return statement.line + before.count("\n"), offset - before.rfind("\n")
