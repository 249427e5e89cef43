"""What sentences about policies are made of: words of ours, values, and the text of a policy, told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Piece", "Words", "listed"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a sentence.

    Attributes:
        text: What it says.
        kind: Words of ours, a ``value`` that the policy or the request has, or ``cedar``: the text of the policy.
    """

    text: str
    kind: Literal["words", "value", "cedar"] = "words"


@dataclass(frozen=True, slots=True)
class Words:
    """A sentence or a part of one.

    Attributes:
        pieces: In their order.
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, *parts: str | Words) -> Words:
        """Join words of ours and others."""
        return cls(tuple(p for part in parts for p in ((Piece(part),) if isinstance(part, str) else part.pieces)))

    @classmethod
    def value(cls, text: str) -> Words:
        """Return a value."""
        return cls((Piece(text, "value"),))

    @property
    def quoted(self) -> bool:
        """Some of it is Cedar."""
        return any(piece.kind == "cedar" for piece in self.pieces)

    def __str__(self) -> str:
        return "".join(f"`{piece.text}`" if piece.kind == "cedar" else piece.text for piece in self.pieces)


def listed(parts: Sequence[Words], last: str, *, between: str = ", ") -> Words:
    """Join parts as people do: a, b and c."""
    if len(parts) < 2:
        return Words.of(*parts)
    said: list[str | Words] = []
    for number, part in enumerate(parts):
        ending = last if last.startswith(";") else f" {last}"
        said += [part] if number == 0 else [f"{ending} " if number == len(parts) - 1 else between, part]
    return Words.of(*said)
