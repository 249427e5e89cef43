"""Checks policies: each statement, all of them against the schema, and what Cedar's validator would warn of."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import cedarpy

from cedarbox.policy.source import Statement
from cedarbox.review.check.advice import Advice
from cedarbox.review.check.placing import MAX_PLACES, parts_of, places_of, scope_of, without
from cedarbox.review.check.rules import finding
from cedarbox.review.check.scripts import BIDI, has_bidi, mixes_scripts, odd_character
from cedarbox.review.finding import Finding, Place
from cedarbox.review.syntax import Span, Syntax, syntax_of
from cedarbox.review.syntax.faults import Fault, beyond, parse_statement

__all__ = [
    "ReadPolicy",
    "against_schema",
    "bidi_outside",
    "duplicates",
    "impossible",
    "odd_text",
    "read_policies",
]

# The validator is asked some ten times for each place; more policies than these are told without one.
_MAX_PLACED: Final = 50
_OWN_NUMBER: Final = re.compile(r"^for policy `policy\d+`[,:] ")


@dataclass(frozen=True)
class ReadPolicy:
    """A statement that Cedar takes.

    Attributes:
        id: Its ``@id``, or its file and number.
        file: The file, as a place names it.
        statement: Where it stands.
        est: Cedar's JSON form.
        template: It has slots.
    """

    id: str
    file: str
    statement: Statement
    est: Mapping[str, Any]
    template: bool

    @cached_property
    def syntax(self) -> Syntax | None:
        """Where its parts stand; None when that cannot be told."""
        return syntax_of(self.statement.text, self.est)

    def place(self, span: Span | None = None) -> Place:
        """Return the place of a part, or of its first line."""
        return _place(self.file, self.statement, span or Span(0, len(self.statement.text.split("\n", 1)[0])))


def _place(file: str, statement: Statement, span: Span) -> Place:
    return Place(file, *beyond(statement, span.start), *beyond(statement, span.end))


def read_policies(file: str, name: str, statements: Sequence[Statement]) -> tuple[list[ReadPolicy], list[Finding]]:
    """Have Cedar parse the statements of a file.

    Args:
        file: The file, as a place names it.
        name: Its name, for the ids of policies without one.
        statements: Its statements.

    Returns:
        Those that are policies, and what is wrong with the others.
    """
    policies, findings = [], []
    for number, statement in enumerate(statements, start=1):
        parsed = parse_statement(statement)
        if isinstance(parsed, Fault):
            place = _place(file, statement, parsed.span)
            findings.append(finding("C002", parsed.message, place, hint=parsed.hint, key=statement.text))
            continue
        policy_id = (parsed.est.get("annotations") or {}).get("id") or f"{name}#{number}"
        policies.append(ReadPolicy(policy_id, file, statement, parsed.est, parsed.template))
    return policies, findings


def duplicates(policies: Sequence[ReadPolicy]) -> Iterator[Finding]:
    """Tell of policies with an id that one before them has."""
    seen: dict[str, ReadPolicy] = {}
    for policy in policies:
        first = seen.setdefault(policy.id, policy)
        if first is policy:
            continue
        span = policy.syntax.span(("annotations", "id")) if policy.syntax else None
        hint = f"the first is at {first.place()}; give each policy an id of its own"
        message = f"second policy with the id {policy.id!r}"
        yield finding("C004", message, policy.place(span), policy=policy.id, hint=hint)


def against_schema(
    policies: Sequence[ReadPolicy], schema: cedarpy.Schema, advice: Callable[[], Advice]
) -> Iterator[Finding]:
    """Tell of what Cedar's validator refuses, each where it stands.

    Args:
        policies: The policies.
        schema: The schema.
        advice: Makes what knows what the schema has; asked for when something is refused.
    """
    told = _errors_of(policies, schema)
    known = advice() if told else None
    for count, (number, messages) in enumerate(sorted(told.items())):
        policy = policies[number]
        for message in messages:
            spans: Sequence[Span | None] = [None]
            if policy.syntax and count < _MAX_PLACED:
                spans = places_of(message, policy.syntax, lambda text: _messages(text, schema))
            for place, span in enumerate(spans):
                key = f"{message}#{place}" if place else message
                last = place == MAX_PLACES - 1
                hint = known.on(message, policy.est) if known else ""
                hint = "and maybe behind it: correct these and check again" if last else hint
                yield finding("C003", message, policy.place(span), policy=policy.id, hint=hint, key=key)


def _errors_of(policies: Sequence[ReadPolicy], schema: cedarpy.Schema) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for policy_id, message in _validated("\n".join(policy.statement.text for policy in policies), schema):
        number = policy_id.removeprefix("policy")
        if not number.isdigit() or int(number) >= len(policies):
            # One of them broke the whole: ask for each.
            return {
                index: each
                for index, policy in enumerate(policies)
                if (each := list(_messages(policy.statement.text, schema)))
            }
        found.setdefault(int(number), [])
        if message not in found[int(number)]:
            found[int(number)].append(message)
    return found


def _messages(text: str, schema: cedarpy.Schema) -> dict[str, None]:
    return dict.fromkeys(message for _, message in _validated(text, schema))


def _validated(text: str, schema: cedarpy.Schema) -> list[tuple[str, str]]:
    result = cedarpy.validate_policies(text, schema)
    if result.validation_passed:
        return []
    found = [
        (str(error.policy_id or ""), _OWN_NUMBER.sub("", " ".join(str(error.error).split()))) for error in result.errors
    ]
    return sorted(found) or [("", "the validator refuses it without saying why")]


def impossible(policies: Sequence[ReadPolicy], schema: cedarpy.Schema) -> Iterator[Finding]:
    """Tell of policies that are false for every request by the types alone.

    A last condition is added that cannot be right: an attribute that nobody declares. The validator does not look at it
    when what is before it is always false, so a policy without an error about it matches nothing.

    Args:
        policies: Policies that the validator takes.
        schema: The schema.
    """
    probe = f"probe_{secrets.token_hex(8)}"
    told = _validated("\n".join(_probed(policy.statement.text, probe) for policy in policies), schema)
    possible = {policy_id for policy_id, message in told if probe in message}
    for number, policy in enumerate(policies):
        if f"policy{number}" not in possible:
            message = "no request matches it: its types make it false for every one"
            hint = "remove it, or correct the part that cannot hold"
            yield finding("C010", message, policy.place(_culprit(policy, probe, schema)), policy=policy.id, hint=hint)


def _probed(text: str, probe: str) -> str:
    return f"{text.rstrip().removesuffix(';')} when {{ context.{probe} }};"


def _culprit(policy: ReadPolicy, probe: str, schema: cedarpy.Schema) -> Span | None:
    """Return the first part with which a policy becomes impossible; None when that is not one part."""
    syntax = policy.syntax
    if syntax is None:
        return None
    parts = [syntax.span(path) for path in parts_of(syntax)]

    def possible(count: int) -> bool:
        text = _probed(without(syntax.text, parts[count:]), probe)
        return any(probe in message for message in _messages(text, schema))

    if not possible(0):
        return scope_of(syntax)
    low, high = 0, len(parts)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if possible(middle) else (low, middle)
    return parts[low]


def odd_text(policy: ReadPolicy) -> Iterator[Finding]:
    """Tell of strings and names that could be mistaken for others."""
    if policy.statement.text.isascii() and "\\" not in policy.statement.text:
        return
    for path, text, name in _texts(policy.est):
        what = "name" if name else "text"
        shown = text[:80]
        if has_bidi(text):
            rule, message = "C011", f"the {what} {shown!a} turns the direction of writing"
        elif name and (odd := odd_character(text)):
            rule, message = (
                "C013",
                f"the {what} {shown!a} has the character U+{ord(odd):04X}, which does not belong there",
            )
        elif mixes_scripts(text):
            rule, message = "C012", f"the {what} {shown!a} mixes scripts"
        else:
            continue
        span = policy.syntax.span(path) if policy.syntax else None
        yield finding(rule, message, policy.place(span), policy=policy.id, key=text)


def bidi_outside(file: str, text: str, policies: Sequence[ReadPolicy]) -> Iterator[Finding]:
    """Tell of characters that turn the direction of writing where no policy has them as text: in comments."""
    inside = {finding.place.line for policy in policies for finding in odd_text(policy) if finding.place}
    for number, line in enumerate(text.split("\n"), start=1):
        column = next((index for index, char in enumerate(line, start=1) if char in BIDI), 0)
        if column and number not in inside:
            message = f"U+{ord(line[column - 1]):04X} turns the direction of writing"
            yield finding("C011", message, Place(file, number, column, number, column + 1), key=line)


_Text = tuple[tuple[str | int, ...], str, bool]


def _texts(est: Mapping[str, Any]) -> Iterator[_Text]:
    """Yield each text of a policy with its path, and whether it is a name: an id, an attribute."""
    for part in ("principal", "action", "resource"):
        yield from _of_scope((part,), est[part])
    waiting: list[tuple[tuple[str | int, ...], Any]] = [
        (("conditions", number, "body"), condition["body"]) for number, condition in enumerate(est["conditions"])
    ]
    while waiting:
        path, node = waiting.pop()
        ((operator, inner),) = node.items()
        at = (*path, operator)
        if operator == "Value":
            if isinstance(inner, str):
                yield at, inner, False
            elif isinstance(inner, dict):
                yield (*at, "__entity", "id"), inner["__entity"]["id"], True
        elif operator in {".", "has"}:
            yield (*at, "attr"), inner["attr"], True
        elif operator == "like":
            pieces = [piece if isinstance(piece, str) else piece["Literal"] for piece in inner["pattern"]]
            yield (*at, "pattern"), "".join("*" if piece == "Wildcard" else piece for piece in pieces), False
        elif operator == "Record":
            yield from (((*at, key), key, True) for key in inner)
        children = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        waiting += [((*at, key), child) for key, child in children if isinstance(child, dict) and key != "__entity"]


def _of_scope(path: tuple[str | int, ...], scope: Mapping[str, Any]) -> Iterator[_Text]:
    if "entity" in scope:
        yield (*path, "entity", "id"), scope["entity"]["id"], True
    for number, entity in enumerate(scope.get("entities", ())):
        yield (*path, "entities", number, "id"), entity["id"], True
    if "in" in scope:
        yield from _of_scope((*path, "in"), scope["in"])
