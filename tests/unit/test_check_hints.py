"""What a policy that does not fit the schema is told to do about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cedarbox.review.check.whole import check

_SCHEMA = """
namespace N {
  entity Group; entity Other; entity Kind enum ["a", "b"];
  entity User in [Group] { name: String, age: Long, rec: { x: Long, y?: String } } tags String;
  action edits;
  action view in [edits] appliesTo {
    principal: User, resource: [User, Group],
    context: { ip: ipaddr, at: datetime, kind: Kind, o?: { q: Long } }
  };
}
"""
_ENTITIES = "known: N::Group, N::Kind, N::Other, N::User"


def hints(tmp_path: Path, policy: str) -> list[str]:
    """Return the hints of the findings about a policy."""
    (tmp_path / "s.cedarschema").write_text(_SCHEMA)
    (tmp_path / "p.cedar").write_text(policy)
    report = check([tmp_path / "p.cedar"], schema=tmp_path / "s.cedarschema")
    assert {finding.rule for finding in report.findings} == {"C003"}
    return [finding.hint for finding in report.findings]


@pytest.mark.parametrize(
    ("condition", "hint"),
    [
        ('principal.nme == "x"', "did you mean name? known: age, name, rec"),
        ("principal.rec.Y == 1", "did you mean y? known: x, y"),
        ('principal.rec.y == "x"', "ask for it first, with `has rec.y && ...`"),
        ("context.o.q == 1", "ask for it first: `context has o && ...`"),
        ("context has o && context.o.zz == 1", "known: q"),
        ('principal.getTag("t") == "x"', 'ask for it first, with `.hasTag("t") && ...`'),
        ("principal is Usr", f"did you mean N::User? {_ENTITIES}"),
        ('principal == Action::"view"', 'write N::Action::"view"'),
        ('context.kind == N::Kind::"c"', "known: a, b"),
        ('context.kind == "a"', 'an entity is no text: write N::Kind::"a" or N::Kind::"b"'),
        ('principal.age == "3"', "a number is written without quotes, a text with them"),
        ('context.ip == "10.0.0.1"', 'write it as in ip("10.0.0.0/8")'),
        ('context.at < "2026"', 'write it as in datetime("2026-01-31")'),
        ('context.ip.isInRange(ip("10/8"))', 'write it as in ip("10.0.0.0/8")'),
        ("principal.age && true", "compare it with something: a condition is true or false"),
        ("{a: 1} == {b: 1}", ""),
        ("{a: 1}.b == 1", ""),
    ],
)
def test_a_condition_that_does_not_fit(tmp_path: Path, condition: str, hint: str) -> None:
    (told,) = hints(tmp_path, f'permit (principal, action == N::Action::"view", resource) when {{ {condition} }};')
    assert told == hint


@pytest.mark.parametrize(
    ("scope", "told"),
    [
        (
            'principal, action == N::Action::"viw", resource',
            [
                "this may follow from what is not known in it",
                'did you mean N::Action::"view"? known: N::Action::"edits", N::Action::"view"',
            ],
        ),
        (
            'principal, action == N::Action::"edits", resource',
            ['N::Action::"edits" is a group of actions: write `action in N::Action::"edits"`'],
        ),
        (
            'principal is N::Other, action == N::Action::"view", resource',
            ["view is asked by N::User about N::User or N::Group"],
        ),
        (
            'principal is N::Other, action in N::Action::"edits", resource',
            ["no action that it names is for such a principal and such a resource"],
        ),
    ],
)
def test_a_scope_that_does_not_fit(tmp_path: Path, scope: str, told: list[str]) -> None:
    assert hints(tmp_path, f"permit ({scope});") == told


def test_names_that_are_cedars_own_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "s.cedarschema").write_text(_SCHEMA)
    (tmp_path / "p.cedar").write_text(
        'permit (principal, action == N::Action::"view", resource) when { principal in principal.name };'
    )
    (finding,) = check([tmp_path / "p.cedar"], schema=tmp_path / "s.cedarschema").findings
    assert finding.message == "unexpected type: expected a set of entities, or an entity but saw String"


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    (tmp_path / "s.cedarschema").write_text(
        f"entity U, {', '.join(f'E{number:02}' for number in range(40))};"
        "action view appliesTo { principal: U, resource: U };"
    )
    (tmp_path / "p.cedar").write_text('permit (principal, action == Action::"view", resource is Zzzzz);')
    hint = check([tmp_path / "p.cedar"], schema=tmp_path / "s.cedarschema").findings[-1].hint
    assert hint.endswith("E14, E15 and 25 more")
