"""Why a statement is not Cedar, and where: cedarpy's verdict, with the place that cedarpy does not tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cedarpy

from cedarbox.policy.source import Statement, excess, locate
from cedarbox.review.syntax.policies import parse_policy
from cedarbox.review.syntax.tokens import ParseError, Span, line_and_column

__all__ = ["Fault", "Parsed", "beyond", "parse_statement"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a statement.

    Attributes:
        message: One line without a full stop.
        span: Where, in the text of the statement.
        hint: What to do about it; may be empty.
    """

    message: str
    span: Span
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What cedarpy makes of a statement.

    Attributes:
        est: Cedar's JSON form.
        template: It has slots.
    """

    est: Mapping[str, Any]
    template: bool


def parse_statement(statement: Statement) -> Parsed | Fault:
    """Have cedarpy parse a statement; say what is wrong with it and where when it is none."""
    if too_much := excess(statement):
        return Fault(too_much, _head(statement), "split the policy")
    try:
        document = json.loads(cedarpy.policies_to_json_str(statement.text))
    except RecursionError:
        return Fault("conditions are nested too deeply", _head(statement), "split the policy")
    except ValueError as error:
        return _fault(statement, " ".join(str(error).split()) or "not a policy")
    found = [*document["staticPolicies"].values(), *document["templates"].values()]
    if len(found) != 1:
        return Fault("not one policy", _head(statement), "end each policy with a semicolon")
    return Parsed(found[0], bool(document["templates"]))


def _fault(statement: Statement, message: str) -> Fault:
    try:
        parse_policy(statement.text)
    except ParseError as error:
        return Fault(f"not Cedar: {error.said}", error.span, error.hint)
    except RecursionError:
        return Fault(f"not Cedar: {message}", _head(statement))
    line, column = locate(statement, message)
    offset = _offset(statement, line, column)
    return Fault(f"not Cedar: {message}", Span(offset, offset))


def _head(statement: Statement) -> Span:
    return Span(0, len(statement.text.split("\n", 1)[0]))


def _offset(statement: Statement, line: int, column: int) -> int:
    if line == statement.line:
        return column - statement.column
    lines = statement.text.split("\n")
    return sum(len(each) + 1 for each in lines[: line - statement.line]) + column - 1


def beyond(statement: Statement, offset: int) -> tuple[int, int]:
    """Return the line and column in the file of an offset in the text of a statement."""
    return line_and_column(statement.text, offset, (statement.line, statement.column))
