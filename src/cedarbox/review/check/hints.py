"""Says what a schema has where Cedar's validator says only what it has not.

Cedar's own command line gives such help; cedarpy gives the message alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from cedarbox.review.nearest import nearest
from cedarbox.review.prove.patterns import UnsupportedError
from cedarbox.review.prove.types import Attribute, RecordOf, SchemaTypes
from cedarbox.review.syntax.schema import schema_json
from cedarbox.review.syntax.tokens import ParseError

__all__ = ["Hints", "plainly"]

# Messages of cedar-policy-core 4.x, validator/diagnostics/validation_errors.rs.
_UID: Final = r"(?P<kind>\S+)::\"(?P<action>(?:[^\"\\]|\\.)*)\""
_WHERE: Final = rf"(?: on entity type `(?P<entity>[^`]+)`| in context for {_UID})"
_ATTRIBUTE: Final = re.compile(rf"attribute `(?P<path>[^`]+)`{_WHERE} not found")
_OPTIONAL: Final = re.compile(rf"unable to guarantee .* optional attribute `(?P<path>[^`]+)`{_WHERE}")
_TAG: Final = re.compile(r"unable to guarantee .* tag `(?P<tag>.+)` on entity type")
_TYPE: Final = re.compile(r"unrecognized entity type `(?P<name>[^`]+)`")
_ACTION: Final = re.compile(r"unrecognized action `(?P<kind>.*Action)::\"(?P<name>.+)\"`")
_MEMBER: Final = re.compile(r"entity `(?P<entity>\S+)::\".*\"` is of an enumerated entity type, but `\"(?P<name>.*)\"`")
_COMPARED: Final = re.compile(r"the types (?P<one>\S+) and (?P<other>\S+) are not compatible")
_EXPECTED: Final = re.compile(r"unexpected type: expected (?P<wanted>.+) but saw (?P<seen>.+)")
_PARSED: Final = re.compile(
    r"failed to parse as (?:an? )?(?P<what>IP address|decimal value|datetime value|duration value)"
)
_INAPPLICABLE: Final = "unable to find an applicable action given the policy scope constraints"
_PLAIN: Final = {
    "empty set literals are forbidden in policies": "ask a set whether it is empty with `.isEmpty()`",
    "extension constructors may not be called with non-literal expressions": "write what is in its brackets as a text",
}
_UNKNOWN: Final = ("unrecognized ", "enumerated entity type")

_MADE: Final = {
    "ipaddr": 'ip("10.0.0.0/8")',
    "decimal": 'decimal("1.5")',
    "datetime": 'datetime("2026-01-31")',
    "duration": 'duration("1h30m")',
}
_WRITTEN: Final = {
    "IP address": "ipaddr",
    "decimal value": "decimal",
    "datetime value": "datetime",
    "duration value": "duration",
}
_INTERNAL: Final = (
    ("Set<__cedar::internal::AnyEntity>", "a set of entities"),
    ("__cedar::internal::AnyEntity", "an entity"),
    ("Set<__cedar::internal::Any>", "a set"),
)
_MOST: Final = 16
"""How many alternatives a hint lists."""


def plainly(message: str) -> str:
    """Return a message of the validator without the names that are Cedar's own."""
    for internal, plain in _INTERNAL:
        message = message.replace(internal, plain)
    return message


class Hints:
    """What to do about the messages of the validator.

    Args:
        schema: The text of the schema, which Cedar takes.
    """

    def __init__(self, schema: str) -> None:
        self._text = schema

    @cached_property
    def _schema(self) -> Mapping[str, Any]:
        return schema_json(self._text)

    @cached_property
    def _types(self) -> SchemaTypes:
        return SchemaTypes(self._schema)

    def of(self, message: str, est: Mapping[str, Any], others: Collection[str] = ()) -> str:
        """Return what to do about a message; empty when there is nothing to say that it does not say itself.

        Args:
            message: What the validator says, on one line.
            est: The policy that it is about, in Cedar's JSON form.
            others: What it says of the same policy.
        """
        try:
            if message == _INAPPLICABLE:
                return self._applicable(est, others)
            if message in _PLAIN:
                return _PLAIN[message]
            for form, hint in (
                (_ATTRIBUTE, self._attribute),
                (_OPTIONAL, self._optional),
                (_TAG, self._tag),
                (_TYPE, self._type),
                (_ACTION, self._action),
                (_MEMBER, self._member),
                (_COMPARED, self._compared),
                (_EXPECTED, self._expected),
                (_PARSED, self._parsed),
            ):
                if match := form.search(message):
                    return hint(match)
        except (KeyError, ParseError, UnsupportedError):
            # A name or a type that is written in another way than expected: no hint is better than a wrong one.
            pass
        return ""

    def _holder(self, match: re.Match[str]) -> Mapping[str, Attribute]:
        """Return the attributes among which the last name of a path was looked for."""
        if match["entity"]:
            attributes = self._types.entities[match["entity"]].attributes
        else:
            attributes = self._types.context((match["kind"], match["action"])).attributes
        for name in match["path"].split(".")[:-1]:
            inner = attributes[name].type
            if not isinstance(inner, RecordOf):
                raise KeyError(name)
            attributes = inner.attributes
        return attributes

    def _attribute(self, match: re.Match[str]) -> str:
        attributes = self._holder(match)
        return nearest(match["path"].rsplit(".", 1)[-1], sorted(attributes)) if attributes else "it has no attributes"

    def _optional(self, match: re.Match[str]) -> str:
        self._holder(match)
        if match["action"]:
            return f"ask for it first: `context has {match['path']} && ...`"
        return f"ask for it first, with `has {match['path']} && ...`"

    def _tag(self, match: re.Match[str]) -> str:
        return f"ask for it first, with `.hasTag({match['tag']}) && ...`"

    def _type(self, match: re.Match[str]) -> str:
        return nearest(match["name"], sorted(self._types.entities))

    def _action(self, match: re.Match[str]) -> str:
        there = [f'{kind}::"{name}"' for kind, name in self._types.actions]
        same = [each for each in there if each.endswith(f'::"{match["name"]}"')]
        return f"write {' or '.join(same)}" if same else nearest(f'{match["kind"]}::"{match["name"]}"', sorted(there))

    def _member(self, match: re.Match[str]) -> str:
        return nearest(match["name"], self._types.entities[match["entity"]].members or ())

    def _compared(self, match: re.Match[str]) -> str:
        pair = {match["one"], match["other"]}
        if "String" not in pair:
            return ""
        other = next(iter(pair - {"String"}), "String")
        if other in _MADE:
            return f"write it as in {_MADE[other]}"
        if other == "Long":
            return "a number is written without quotes, a text with them"
        if other in self._types.entities:
            members = self._types.entities[other].members or ("...",)
            written = _alternatives([f'{other}::"{name}"' for name in members])
            return f"an entity is no text: write {written}"
        return ""

    def _expected(self, match: re.Match[str]) -> str:
        wanted, seen = match["wanted"], match["seen"]
        if wanted in _MADE and seen == "String":
            return f"write it as in {_MADE[wanted]}"
        if wanted == "Long" and seen == "decimal":
            return "decimals have .lessThan(), .lessThanOrEqual(), .greaterThan() and .greaterThanOrEqual()"
        if wanted == "String" and seen in self._types.entities:
            return "`like` compares a text: an entity has none but its attributes"
        if wanted == "Bool":
            return "compare it with something: a condition is true or false"
        return ""

    def _parsed(self, match: re.Match[str]) -> str:
        return f"write it as in {_MADE[_WRITTEN[match['what']]]}"

    def _applicable(self, est: Mapping[str, Any], others: Collection[str]) -> str:
        if any(unknown in each for each in others for unknown in _UNKNOWN):
            return "this may follow from what is not known in it"
        action = est["action"]
        if action["op"] != "==":
            return "no action that it names is for such a principal and such a resource"
        kind, name = action["entity"]["type"], action["entity"]["id"]
        principals, resources = self._types.applies((kind, name))
        if not (principals and resources):
            return f'{kind}::"{name}" is a group of actions: write `action in {kind}::"{name}"`'
        return f"{name} is asked by {_alternatives(principals)} about {_alternatives(resources)}"


def _alternatives(names: Sequence[str]) -> str:
    shown = [*names[:_MOST], *(["..."] if len(names) > _MOST else [])]
    return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
