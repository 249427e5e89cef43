"""Reads the tokens of Cedar one after the other, and says where what is wrong stands."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, NoReturn

from cedarbox.errors import CedarboxError
from cedarbox.policy.source import TOKEN

__all__ = ["MAX_DEPTH", "ParseError", "Span", "Tokens", "line_and_column"]

MAX_DEPTH: Final = 64
"""How deep brackets, conditionals and types may stand in each other, as in :func:`cedarbox.policy.source.excess`."""


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text.

    Attributes:
        start: Where it begins, in characters from the start of the text.
        end: Where it ends: the offset after its last character.
    """

    start: int
    end: int


class ParseError(CedarboxError):
    """A text that is not Cedar.

    Args:
        message: What is wrong.
        text: The whole text.
        span: Where.
        hint: What to do about it.

    Attributes:
        said: The message without its place.
        span: Where.
    """

    def __init__(self, message: str, text: str, span: Span, *, hint: str = "") -> None:
        self.said, self.span, self._text = message, span, text
        line, column = line_and_column(text, span.start)
        super().__init__(f"line {line}, column {column}: {message}", hint=hint)

    @cached_property
    def line(self) -> int:
        """1-based line in the text."""
        return line_and_column(self._text, self.span.start)[0]

    @cached_property
    def column(self) -> int:
        """1-based column in characters."""
        return line_and_column(self._text, self.span.start)[1]


def line_and_column(text: str, offset: int, begin: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return the 1-based line and column of an offset, in characters; a line ends with a line feed.

    Args:
        text: The text.
        offset: Characters from its start.
        begin: The line and column where the text itself begins.
    """
    line = text.count("\n", 0, offset)
    return begin[0] + line, offset - text.rfind("\n", 0, offset) if line else begin[1] + offset


class Tokens:
    """The tokens of a text and how far they were read. A last one of kind ``end`` stands for the end of the text.

    Args:
        text: The text, of a policy or of a schema.

    Attributes:
        kind: Kind of the next token: a group of :data:`cedarbox.policy.source.TOKEN`, or ``end``.
        next: Its text; empty at the end.
        end: Where the token before it ends, in characters.
    """

    __slots__ = ("_at", "_found", "end", "kind", "next", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._found = [
            (kind, match.group(), match.start())
            for match in TOKEN.finditer(text)
            if (kind := match.lastgroup or "other") != "gap"
        ]
        self._found.append(("end", "", len(text)))
        self._at = self.end = 0
        self.kind, self.next, _ = self._found[0]

    @property
    def start(self) -> int:
        """Where the next token begins, in characters."""
        return self._found[self._at][2]

    def ahead(self, count: int = 1) -> str:
        """Return the text of a token further on; empty at the end of the text."""
        at = self._at + count
        return self._found[at][1] if at < len(self._found) else ""

    def advance(self) -> str:
        """Go past the next token and return its text."""
        _, piece, start = self._found[self._at]
        self.end = start + len(piece)
        if self._at + 1 < len(self._found):
            self._at += 1
            self.kind, self.next, _ = self._found[self._at]
        return piece

    def accept(self, piece: str) -> bool:
        """Go past the next token if it is this word or sign."""
        if self.next != piece:
            return False
        self.advance()
        return True

    def expect(self, piece: str, context: str = "") -> None:
        """Go past the next token, which must be this one.

        Raises:
            ParseError: It is another.
        """
        if self.next != piece:
            self.unexpected(f"`{piece}`{' ' if context else ''}{context}")
        self.advance()

    def span(self) -> Span:
        """Return the span of the next token."""
        _, piece, start = self._found[self._at]
        return Span(start, start + len(piece))

    def unexpected(self, expected: str) -> NoReturn:
        """Raise the error that the next token is none of what is expected."""
        if self.kind == "end":
            self.fail(f"unexpected end, expected {expected}")
        if self.kind == "open":
            self.fail("a string without its closing quote")
        self.fail(f"unexpected `{_short(self.next)}`, expected {expected}")

    def fail(self, message: str, span: Span | None = None, *, hint: str = "") -> NoReturn:
        """Raise an error at a place of the text, by default at the next token."""
        raise ParseError(message, self.text, self.span() if span is None else span, hint=hint)


def _short(piece: str) -> str:
    return piece if len(piece) <= 40 else f"{piece[:37]}…"
