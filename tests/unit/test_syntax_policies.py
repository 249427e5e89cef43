"""The parser of policies sees what cedarpy sees, and knows where it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.cedar_text import CedarText

from cedarbox.policy.source import TOKEN, excess, statements
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import ParseError, Span, parse_policy, place_of, syntax_of

LONG = os.environ.get("CEDARBOX_LONG") == "1"
FILES = sorted(SHIPPED.glob("*/*.cedar"))


def of_cedarpy(text: str) -> Any:
    """Return what cedarpy makes of one policy; None when it is none."""
    try:
        document = json.loads(cedarpy.policies_to_json_str(text))
    except ValueError:
        return None
    found = list({**document["staticPolicies"], **document["templates"]}.values())
    return found[0] if len(found) == 1 else None


def of_ours(text: str) -> Any:
    try:
        return parse_policy(text).est
    except ParseError:
        return None


def when(condition: str) -> str:
    return f"permit (principal, action, resource) when {{ {condition} }};"


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_sees_in_the_bundles_that_ship_what_cedarpy_sees(file: Path) -> None:
    for statement in statements(file.read_text()):
        wanted = of_cedarpy(statement.text)
        assert wanted is not None
        assert of_ours(statement.text) == wanted


@pytest.mark.parametrize("seed", range(50 if LONG else 1))
def test_sees_in_any_policy_what_cedarpy_sees(seed: int) -> None:
    taken = 0
    for number in range(250):
        text = CedarText(seed * 1000 + number).policy()
        wanted = of_cedarpy(text)
        assert of_ours(text) == wanted, text
        taken += wanted is not None
    assert taken > 125


@pytest.mark.parametrize("seed", range(50 if LONG else 1))
def test_refuses_what_cedarpy_refuses(seed: int) -> None:
    others = [
        "",
        "",
        " if ",
        "=",
        "?principal",
        "::",
        ")",
        "\x1c",
        '"',
        "@",
        "__cedar",
        "?x",
        "9" * 20,
        ",",
        "has",
        "é",
    ]
    refused = 0
    for number in range(250):
        maker = CedarText(seed * 1000 + number)
        text = maker.policy()
        place = maker.pick(list(TOKEN.finditer(text)))
        changed = text[: place.start()] + maker.pick(others) + text[place.end() :]
        if not any(excess(statement) for statement in statements(changed)):
            wanted = of_cedarpy(changed)
            assert of_ours(changed) == wanted, changed
            refused += wanted is None
    assert refused > 125


@pytest.mark.parametrize(
    ("condition", "span", "message"),
    [
        ("a", "a", "`a` is no variable"),
        ("principal = resource", "=", "`=` is no operator"),
        ("1 == 2 == 3", "==", "after another comparison"),
        ("principal.if", "if", "reserved"),
        ("principal.foo(1)", "foo", "no method"),
        ("foo(1)", "foo", "no function"),
        ("contains(1)", "contains", "is a method"),
        ('context["a\\q"]', "\\q", "no escape"),
        ('context == "\\u{d800}"', "\\u{d800}", "no character"),
        ("{a: 1, a: 2}", "a", "twice"),
        ("9223372036854775808 == 1", "9223372036854775808", "larger"),
        ("1 / 2", "/", "Cedar has no `/`"),
        ("!!!!!true", "!!!!!", "more than 4"),
        ("?principal == principal", "?principal", "in a condition"),
        ("principal.isEmpty(1)", "isEmpty", "no argument"),
        ("[1, 2", "}", "expected `,` or `]`"),
        ('principal == A::"x', '"x }};', "closing quote"),
    ],
)
def test_says_where_what_is_wrong_stands(condition: str, span: str, message: str) -> None:
    text = f"permit (principal, action, resource)\nwhen {{ {condition} }};"
    assert of_cedarpy(text) is None
    with pytest.raises(ParseError, match=message.replace("(", r"\(")) as caught:
        parse_policy(text)
    found = caught.value
    shown = text[found.span.start : found.span.end]
    assert shown == (text[text.index('"x') :] if span.startswith('"x') else span)
    assert (found.line, str(found)[:7]) == (2, "line 2,")
    assert found.column == text.split("\n")[1].rindex(shown) + 1 if span != "a" else found.column > 0


def test_knows_where_each_part_stands() -> None:
    text = (
        '@id("x") // note\n@empty permit (principal in A::"\\u{61}", action in [Action::"r", Action::"w"], '
        "resource is B::C in ?resource)\nwhen { (context.n + 1 == 2) && !(principal has p.q) }\n"
        'unless { context.s like "a*" || [ip("::1")].contains(context["x y"]) || {k: -1} == {k: resource is D} };'
    )
    syntax = parse_policy(text)
    assert syntax.est == of_cedarpy(text)

    def shown(*path: str | int) -> str:
        span = syntax.span(path)
        return text[span.start : span.end]

    first = ("conditions", 0, "body", "&&")
    second = ("conditions", 1, "body", "||")
    assert shown() == text
    assert shown("effect") == "permit"
    assert shown("annotations", "id") == '@id("x")'
    assert shown("annotations", "empty") == "@empty"
    assert shown("principal") == 'principal in A::"\\u{61}"'
    assert shown("principal", "entity") == 'A::"\\u{61}"'
    assert shown("principal", "entity", "id") == '"\\u{61}"'
    assert shown("action", "entities", 1) == 'Action::"w"'
    assert shown("resource", "entity_type") == "B::C"
    assert shown("resource", "in", "slot") == "?resource"
    assert shown("conditions", 0) == "when { (context.n + 1 == 2) && !(principal has p.q) }"
    assert shown(*first) == "(context.n + 1 == 2) && !(principal has p.q)"
    assert shown(*first, "left") == "context.n + 1 == 2"
    assert shown(*first, "left", "==", "left", "+", "left", ".", "attr") == "n"
    assert shown(*first, "right") == "!(principal has p.q)"
    assert shown(*first, "right", "!", "arg") == "principal has p.q"
    assert shown(*first, "right", "!", "arg", "&&", "right", "has", "attr") == "q"
    assert shown(*second, "left", "||", "left", "like", "pattern") == '"a*"'
    assert shown(*second, "left", "||", "right", "contains", "left", "Set", 0) == 'ip("::1")'
    assert shown(*second, "left", "||", "right", "contains", "right", ".", "attr") == '"x y"'
    assert shown(*second, "right", "==", "left", "Record", "k", "Value") == "-1"
    assert shown(*second, "right", "==", "right", "Record", "k", "is", "entity_type") == "D"
    for wrong in [("nothing",), ("conditions", 2), ("principal", "entity", "id", "x")]:
        with pytest.raises(KeyError):
            syntax.span(wrong)


def test_places_a_part_in_its_file(tmp_path: Path) -> None:
    text = '// first\n\n  @id("a") permit (principal, action,\n    resource) when { context.x };\n'
    files = {"p.cedar": text.encode()}
    schema = "entity A; action r appliesTo { principal: A, resource: A, context: { x: Bool } };"
    (policy,) = Subject.of_cedar("it", tmp_path, files, schema=schema).policies
    syntax = syntax_of(policy.text, policy.est)
    assert syntax is not None
    places = [place_of(policy, syntax.span(path)) for path in [("annotations", "id"), ("conditions", 0, "body")]]
    assert [(p.line, p.column, p.end_line, p.end_column) for p in places] == [(3, 3, 3, 11), (4, 22, 4, 31)]
    assert place_of(policy, Span(0, len(policy.text))) == policy.place


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        f"permit (principal in {'(' * 50_000}",
        f"permit (principal, action in {'(' * 50_000}[",
        f"permit (principal, action, resource) when {{ {'(' * 50_000}",
        f"permit (principal, action, resource) when {{ {'if ' * 50_000}",
        f"permit (principal, action, resource) when {{ {'[' * 50_000}",
        f"permit (principal, action, resource) when {{ {'!' * 50_000}1 }};",
        "@a" * 50_000,
        '"' + "\\" * 100_001,
        "\ud800",
        "",
    ],
)
def test_refuses_monsters_without_ado(text: str) -> None:
    with pytest.raises(ParseError):
        parse_policy(text)


def test_takes_a_chain_of_as_many_operators_as_a_policy_may_have() -> None:
    text = when(" && ".join(["true"] * 1000))
    assert of_ours(text) is not None
    assert parse_policy(text).span(("conditions", 0, "body")) == Span(text.index("true"), text.rindex("true") + 4)
