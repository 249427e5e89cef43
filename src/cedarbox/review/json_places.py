"""Where the values of a JSON text stand. The standard library reads JSON, but tells no places."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.review.finding import Place
from cedarbox.review.syntax import Span
from cedarbox.review.syntax.tokens import line_and_column

__all__ = ["JsonPlaces", "entity_places", "json_places"]

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class JsonPlaces:
    """Places in a JSON text.

    Attributes:
        values: Where each value stands, by the keys and indexes that lead to it.
        keys: Where the key of each member of an object stands, by the same path.
        repeated: Where a key stands that its object has already, with its path.
    """

    values: Mapping[Path, Span]
    keys: Mapping[Path, Span]
    repeated: tuple[tuple[Path, Span], ...]

    def span(self, path: Path) -> Span:
        """Return where a value stands, or what is nearest around it."""
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, Span(0, 0))


def json_places(text: str) -> JsonPlaces:
    """Return where everything stands in a text that is JSON.

    Args:
        text: JSON that :func:`json.loads` reads.
    """
    values: dict[Path, Span] = {}
    keys: dict[Path, Span] = {}
    repeated: list[tuple[Path, Span]] = []
    # Of each open bracket: where it is, its path, and the key or index of what comes next in it.
    starts: list[int] = []
    paths: list[Path] = [()]
    nexts: list[Any] = []
    seen: list[set[str]] = []
    for match in _TOKEN.finditer(text):
        piece = match.group()
        if piece in {"}", "]"}:
            if not starts:
                break
            path = paths.pop()
            values[path] = Span(starts.pop(), match.end())
            nexts.pop()
            seen.pop()
            continue
        if piece == ":":
            continue
        if piece == ",":
            if nexts and isinstance(nexts[-1], int):
                nexts[-1] += 1
            elif nexts:
                nexts[-1] = None
            continue
        if nexts and nexts[-1] is None:
            key = _text(piece)
            nexts[-1] = key
            path = (*paths[-1], key)
            if key in seen[-1]:
                repeated.append((path, Span(*match.span())))
            seen[-1].add(key)
            keys[path] = Span(*match.span())
            continue
        path = (*paths[-1], nexts[-1]) if nexts else ()
        if piece in {"{", "["}:
            starts.append(match.start())
            paths.append(path)
            seen.append(set())
            nexts.append(None if piece == "{" else 0)
        else:
            values[path] = Span(*match.span())
    return JsonPlaces(values, keys, tuple(repeated))


def entity_places(file: str, text: str) -> Mapping[tuple[str, str], Place]:
    """Return where each entity is declared, by type and id.

    Args:
        file: What to call the file.
        text: Entities in Cedar's JSON form, checked.
    """
    places = json_places(text)
    found = {}
    for number, item in enumerate(json.loads(text)):
        span = places.span((number, "uid"))
        uid = item["uid"].get("__entity", item["uid"])
        ends = (*line_and_column(text, span.start), *line_and_column(text, span.end))
        found[str(uid["type"]), str(uid["id"])] = Place(file, *ends)
    return found


def _text(piece: str) -> str:
    try:
        return str(json.loads(piece))
    except ValueError:
        return piece
