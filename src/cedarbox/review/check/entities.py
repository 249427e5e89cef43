"""Checks entities: every one that does not fit the schema, with its place in the JSON text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import cedarpy

from cedarbox.review.check.rules import finding
from cedarbox.review.finding import Finding, Place
from cedarbox.review.json_places import JsonPlaces, Path, json_places
from cedarbox.review.syntax import Span
from cedarbox.review.syntax.tokens import line_and_column

__all__ = ["check_entities"]

_MAX_TOLD: Final = 50
_QUOTED: Final = re.compile(r"(attribute|tag) `([^`]+)`")
_KNOWN: Final = frozenset({"uid", "attrs", "parents", "tags"})
# It is never asked: cedarpy tells more of what is wrong with entities when it is given a request with them.
_REQUEST: Final = {"principal": 'A::"a"', "action": 'Action::"a"', "resource": 'A::"a"', "context": {}}


def check_entities(
    file: str, text: str, schema: str | None, allowed: Callable[[str], str] | None = None
) -> Iterator[Finding]:
    """Tell of everything that is wrong with entities.

    Args:
        file: The file, as a place names it.
        text: Its text.
        schema: Text of the schema; None when there is none that can be used.
        allowed: Says why there may be no entity of a type, or nothing; for a bundle.
    """
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        place = Place(file, error.lineno, error.colno)
        yield finding("C006", f"not JSON: {error.msg}", place, hint="check the commas, quotes and brackets")
        return
    except (RecursionError, ValueError):
        yield finding("C006", "not JSON that can be read: too deep, or a number too long", Place(file))
        return
    if not isinstance(items, list):
        yield finding("C006", "expected a list of entities", Place(file), hint="write [] when there are none")
        return
    yield from _Entities(file, text, schema, items, json_places(text)).findings(allowed)


class _Entities:
    def __init__(self, file: str, text: str, schema: str | None, items: Sequence[Any], places: JsonPlaces) -> None:
        self._file, self._text, self._schema, self._items, self._places = file, text, schema, items, places

    def findings(self, allowed: Callable[[str], str] | None) -> Iterator[Finding]:
        for path, span in self._places.repeated:
            yield self._at(span, f"the key {path[-1]!r} is there twice", "keep one; Cedar would take the last")
        seen: dict[tuple[str, str], int] = {}
        whole = []
        for number, item in enumerate(self._items):
            uid = _uid(item)
            if uid is None:
                yield self._told((number,), "no uid", 'each needs "uid": {"type": …, "id": …}, "attrs" and "parents"')
                continue
            for key in sorted(item.keys() - _KNOWN):
                span = self._places.keys.get((number, key), self._places.span((number,)))
                yield self._at(span, f"unknown key {key!r}", f"known: {', '.join(sorted(_KNOWN))}")
            first = seen.setdefault(uid, number)
            if first != number:
                line, _ = line_and_column(self._text, self._places.span((first,)).start)
                yield self._told((number, "uid"), f"{_shown(uid)} is there twice", f"the first is in line {line}")
            if allowed is not None and (why := allowed(uid[0])):
                yield self._told((number, "uid"), f"{_shown(uid)}: {why}", "declare principals only")
            elif first == number:
                whole.append(number)
        if self._schema is not None:
            yield from self._against_schema(whole, cedarpy.Schema.from_str(self._schema))

    def _against_schema(self, numbers: Sequence[int], schema: cedarpy.Schema) -> Iterator[Finding]:

        def fits(some: Sequence[int]) -> bool:
            try:
                cedarpy.Entities.from_json_str(json.dumps([self._items[number] for number in some]), schema)
            except ValueError:
                return False
            return True

        wrong: list[int] = []
        waiting = [numbers]
        while waiting and len(wrong) < _MAX_TOLD:
            some = waiting.pop()
            if not some or fits(some):
                continue
            if len(some) == 1:
                wrong.append(some[0])
                continue
            half = len(some) // 2
            left, right = some[:half], some[half:]
            if fits(left) and fits(right):
                # Each half is good by itself: they clash, for example by parents in a circle.
                yield self._told(tuple(some[:1]), f"does not fit together: {self._why(some)}", "")
                continue
            waiting += [right, left]
        for number in wrong:
            message = self._why([number])
            yield self._told(self._within(number, message), message, "")
        if waiting and len(wrong) == _MAX_TOLD:
            yield self._told((), f"more than {_MAX_TOLD} entities do not fit; the others are not told", "")

    def _why(self, numbers: Sequence[int]) -> str:
        document = json.dumps([self._items[number] for number in numbers])
        result = cedarpy.is_authorized(_REQUEST, "", document, self._schema)
        for error in result.diagnostics.errors:
            if error.startswith("failed to parse entities"):
                return " ".join(error.rpartition("]: ")[2].split()) if "]: " in error else error
        return "does not fit the schema"

    def _within(self, number: int, message: str) -> Path:
        """Return the path of what a message is about, as far as it says."""
        for what, name in _QUOTED.findall(message):
            path: Path = (number, "attrs" if what == "attribute" else "tags", name)
            if path in self._places.values:
                return path
        if "ancestor" in message:
            return (number, "parents")
        return (number, "uid") if "type" in message and "attribute" not in message else (number,)

    def _told(self, path: Path, message: str, hint: str) -> Finding:
        return self._at(self._places.span(path), message, hint)

    def _at(self, span: Span, message: str, hint: str) -> Finding:
        place = Place(self._file, *line_and_column(self._text, span.start), *line_and_column(self._text, span.end))
        return finding("C006", message, place, hint=hint, key=message)


def _uid(item: object) -> tuple[str, str] | None:
    uid = item.get("uid") if isinstance(item, dict) else None
    if isinstance(uid, dict):
        uid = uid.get("__entity", uid)
    if isinstance(uid, dict) and isinstance(uid.get("type"), str) and isinstance(uid.get("id"), str):
        return uid["type"], uid["id"]
    return None


def _shown(uid: tuple[str, str]) -> str:
    return f'{uid[0]}::"{uid[1]}"'
