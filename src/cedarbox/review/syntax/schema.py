"""A schema in the one form that reviews work with."""

from __future__ import annotations

import json
import re
from typing import Any, Final

import cedarpy

from cedarbox.review.syntax.schema_json import read_schema
from cedarbox.review.syntax.schema_names import resolve
from cedarbox.review.syntax.schema_text import parse_schema
from cedarbox.review.syntax.tokens import ParseError, Span

__all__ = ["is_json", "schema_json"]

_NAMED: Final = re.compile(r"`(?:\w+::)*(\w+)|(\w+)$")


def is_json(text: str) -> bool:
    """Whether a schema is in Cedar's JSON form; in its own syntax it never begins with a brace."""
    return text.lstrip().startswith("{")


def schema_json(text: str) -> dict[str, Any]:
    """Return a schema in Cedar's JSON form, fully resolved.

    Args:
        text: In Cedar's own syntax, or in its JSON form.

    Returns:
        For each namespace (``""`` for none) its ``entityTypes`` (``memberOfTypes``, ``shape`` and maybe ``tags``, or
        ``enum``) and ``actions`` (``memberOf`` with ``type`` and ``id``; ``appliesTo`` with ``principalTypes``,
        ``resourceTypes`` and ``context``). Every name has its namespace. Types are ``String``, ``Long``, ``Boolean``,
        ``Entity`` and ``Extension`` with ``name``, ``Set`` with ``element``, and ``Record`` with ``attributes``, of
        which each says whether it is ``required``.

    Raises:
        ParseError: It is not a schema; the message names line and column.
    """
    document = resolve(read_schema(text) if is_json(text) else parse_schema(text), text)
    try:
        # Ours is the place, Cedar's is the last word. What comes out must mean a schema too.
        (cedarpy.Schema.from_json_str if is_json(text) else cedarpy.Schema.from_str)(text)
        cedarpy.Schema.from_json_str(json.dumps(document))
    except ValueError as error:
        message = " ".join(str(error).split()) or "not a schema"
        raise ParseError(message, text, _place(text, message)) from None
    return document


def _place(text: str, message: str) -> Span:
    """Return where the last thing stands that a message names, or the start."""
    for match in reversed(list(_NAMED.finditer(message))):
        name = match.group(1) or match.group(2)
        hits = list(re.finditer(rf"\b{re.escape(name)}\b", text))
        if hits:
            return Span(*hits[-1].span())
    return Span(0, 0)
