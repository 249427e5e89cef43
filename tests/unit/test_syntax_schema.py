"""The parser of schemas: what it makes of one means the same to Cedar, and it says where a mistake stands."""

from __future__ import annotations

import json

import cedarpy
import pytest
from tests.unit.bundles import SHIPPED

from cedarbox.policy.schema import schema_text
from cedarbox.review.syntax import ParseError, schema_json

WHOLE = r"""
type G = { a: Long, "b \"c"?: Set<Foo> };  // outside of any namespace
type Alias = N::W;
@doc("x") @empty
entity Foo, Bar in [Foo, N::M] = { x: String, y?: __cedar::Long, g: G,
  deep: Set<Set<{ z?: Alias, }>>, } tags Set<ipaddr>;
entity E enum ["a", "b\u{41}"];
entity User in E { "if": E };
@doc("n") namespace N {
  type W = Foo;
  entity M { l: Long, i: ipaddr, d: decimal, dt: datetime, du: duration, w: W, b: Bool, of: Action };
  entity decimal;
  entity Own { d: decimal, real: __cedar::decimal };
  action "do it", other in [grp, "grp2", Foo::Action::"x"]
    appliesTo { context: Ctx, principal: M, resource: [M, Foo, M] };
  action grp, grp2;
  type Ctx = { @doc("h") q: { r?: Bool } };
}
namespace Foo::Deep { entity Z in Foo; action z in Action::"w"; action w; }
namespace Foo { action x appliesTo { principal: [N::M], resource: [N::M], } attributes {}; }
"""

POLICIES = """
permit (principal is N::M, action == N::Action::"do it", resource is Foo)
when { context.q has r && context.q.r && resource.g["b \\"c"].contains(Foo::"1") };
permit (principal, action == N::Action::"do it", resource is Foo) when { resource.g.a == 1 && resource.hasTag("t") };
permit (principal, action == N::Action::"other", resource is Foo) when { resource has y && resource.y > 1 };
permit (principal, action == N::Action::"other", resource is Foo) when { resource.y > 1 };
permit (principal, action == N::Action::"other", resource is Foo) when { resource.getTag("t").contains(ip("::1")) };
permit (principal is N::M, action in N::Action::"grp", resource) when { principal.dt < datetime("2024-01-01") };
permit (principal is N::M, action in N::Action::"grp", resource) when { principal.d.lessThan(decimal("1.0")) };
permit (principal is N::M, action in Foo::Action::"x", resource) when { principal.w == Foo::"a" && principal.b };
permit (principal is Bar, action, resource);
permit (principal in E::"c", action, resource);
permit (principal, action == Foo::Action::"x", resource) when { context.q.r };
"""


def errors(policies: str, schema: str | dict[str, object]) -> list[tuple[str | None, str]]:
    found = cedarpy.validate_policies(policies, schema)
    return sorted((error.policy_id, error.error) for error in found.errors)


def test_writes_out_every_type_and_qualifies_every_name() -> None:
    found = schema_json(WHOLE)
    assert list(found) == ["", "N", "Foo::Deep", "Foo"]
    assert found[""]["entityTypes"]["E"] == {"enum": ["a", "bA"]}
    assert found[""]["entityTypes"]["Bar"]["memberOfTypes"] == ["Foo", "N::M"]
    attributes = found[""]["entityTypes"]["Foo"]["shape"]["attributes"]
    assert attributes["x"] == {"type": "String", "required": True}
    assert attributes["y"] == {"type": "Long", "required": False}
    assert attributes["g"]["attributes"]['b "c'] == {
        "type": "Set",
        "element": {"type": "Entity", "name": "Foo"},
        "required": False,
    }
    deep = attributes["deep"]["element"]["element"]["attributes"]["z"]
    assert deep == {"type": "Entity", "name": "Foo", "required": False}
    assert found[""]["entityTypes"]["Foo"]["tags"] == {
        "type": "Set",
        "element": {"type": "Extension", "name": "ipaddr"},
    }
    of_m = found["N"]["entityTypes"]["M"]["shape"]["attributes"]
    assert of_m["w"] == {"type": "Entity", "name": "Foo", "required": True}
    assert of_m["d"] == {"type": "Entity", "name": "N::decimal", "required": True}
    assert of_m["of"] == {"type": "Entity", "name": "N::Action", "required": True}
    assert of_m["b"] == {"type": "Boolean", "required": True}
    own = found["N"]["entityTypes"]["Own"]["shape"]["attributes"]
    assert own["real"] == {"type": "Extension", "name": "decimal", "required": True}
    action = found["N"]["actions"]["do it"]
    assert action["memberOf"] == [
        {"type": "N::Action", "id": "grp"},
        {"type": "N::Action", "id": "grp2"},
        {"type": "Foo::Action", "id": "x"},
    ]
    assert action["appliesTo"]["principalTypes"] == ["N::M"]
    assert action["appliesTo"]["resourceTypes"] == ["N::M", "Foo"]
    assert action["appliesTo"]["context"]["attributes"]["q"]["attributes"]["r"]["required"] is False
    assert found["N"]["actions"]["grp"]["appliesTo"] == {
        "principalTypes": [],
        "resourceTypes": [],
        "context": {"type": "Record", "attributes": {}},
    }
    assert found["Foo::Deep"]["actions"]["z"]["memberOf"] == [{"type": "Foo::Deep::Action", "id": "w"}]
    assert schema_json(json.dumps(found)) == found


def test_means_the_same_to_cedar() -> None:
    wanted = errors(POLICIES, WHOLE)
    assert len(wanted) > 3
    assert errors(POLICIES, schema_json(WHOLE)) == wanted


def test_the_packaged_schema_means_the_same_to_cedar() -> None:
    text = "\n".join(path.read_text() for path in sorted(SHIPPED.glob("*/*.cedar")))
    wrong = text.replace("context.ipClass", "context.port").replace("resource.kind", "resource.sort")
    found = schema_json(schema_text())
    assert cedarpy.validate_policies(text, found).validation_passed
    assert errors(wrong, found) == errors(wrong, schema_text()) != []


def test_reads_the_json_form() -> None:
    document = {
        "N": {
            "commonTypes": {"T": {"type": "Record", "attributes": {"a": {"type": "Set", "element": {"type": "U"}}}}},
            "entityTypes": {
                "A": {"memberOfTypes": ["A"], "shape": {"type": "T"}, "tags": {"type": "Boolean"}},
                "B": {"enum": ["x"]},
                "C": {"shape": {"type": "Record", "attributes": {"e": {"type": "EntityOrCommon", "name": "B"}}}},
            },
            "actions": {
                "a": {
                    "memberOf": [{"id": "b"}, {"id": "c", "type": "Action"}],
                    "appliesTo": {"principalTypes": ["A"], "resourceTypes": ["N::B"], "context": {"type": "T"}},
                },
                "b": {},
                "c": {"appliesTo": None},
            },
        },
        "": {
            "commonTypes": {"U": {"type": "Extension", "name": "ipaddr"}},
            "entityTypes": {"D": {"shape": {"type": "Record", "attributes": {"l": {"type": "__cedar::Long"}}}}},
            "actions": {},
        },
    }
    found = schema_json(json.dumps(document))
    record = {
        "type": "Record",
        "attributes": {"a": {"type": "Set", "element": {"type": "Extension", "name": "ipaddr"}, "required": True}},
    }
    assert found["N"]["entityTypes"]["A"] == {"memberOfTypes": ["N::A"], "shape": record, "tags": {"type": "Boolean"}}
    assert found["N"]["entityTypes"]["C"]["shape"]["attributes"]["e"]["name"] == "N::B"
    assert found["N"]["actions"]["a"]["appliesTo"]["context"] == record
    assert found["N"]["actions"]["a"]["memberOf"] == [
        {"type": "N::Action", "id": "b"},
        {"type": "N::Action", "id": "c"},
    ]
    assert found[""]["entityTypes"]["D"]["shape"]["attributes"]["l"] == {"type": "Long", "required": True}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("entity A in B;", "B"),
        ("entity A { x: Strin };", "Strin"),
        ("entity A { x: __cedar::Foo };", "__cedar::Foo"),
        ("entity A; entity A;", "A"),
        ("entity A, A;", "A"),
        ("entity in;", "in"),
        ("type Bool = Long;", "Bool"),
        ("type A = { x: A };", "A"),
        ("type A = Set<B>; type B = A;", "A"),
        ("action a in b;", "b"),
        ("action a in Foo::b;", ";"),
        ("action a; action b, a;", "a"),
        ('action a in [Foo::Action::"b"];', 'Foo::Action::"b"'),
        ("entity A; action a appliesTo { principal: A };", "{"),
        ("entity A; action a appliesTo { principal: A, resource: [] };", "resource"),
        ("entity A; action a appliesTo { principal: A, resource: A, context: A };", "A"),
        ("type T = Long; entity A; action a appliesTo { principal: A, resource: A, context: T };", "T"),
        ("entity A; action a appliesTo { principal: A, principal: A };", "principal"),
        ("namespace N { entity A } ", "}"),
        ("namespace N { entity A; ", ""),
        ("namespace N {} namespace N {}", "N"),
        ("namespace __cedar {}", "__cedar"),
        ("entity A; namespace N { entity A; }", "A"),
        ("action a in a;", None),
        ("entity Action;", "Action"),
        ("entity A enum [];", "]"),
        ('entity A enum ["a",];', "]"),
        ("entity A { x: Long y: Long };", "y"),
        ('action "a\\*";', "\\*"),
        ("@a @a entity A;", "a"),
        ("/* */ entity A;", "/"),
        ("\ufeffentity A;", "\ufeff"),
        ('{"N": []}', None),
        ('{"": {"entityTypes": {"A": {"shape": {"type": "Nope"}}}, "actions": {}}}', None),
        ('{"": {"entityTypes": {"A b": {}}, "actions": {}}}', None),
        ('{"a": 1', None),
        ("[" * 100_000, "["),
        ('{"":' * 100_000, None),
        (f"entity A {{ x: {'Set<' * 50_000}", "<"),
        (f"entity A {{ x: {'{ y: ' * 50_000}", "{"),
    ],
)
def test_says_where_a_mistake_stands(text: str, place: str | None) -> None:
    with pytest.raises(ParseError) as caught:
        schema_json(text)
    if len(text) < 200:
        with pytest.raises(ValueError, match=r".+"):
            (cedarpy.Schema.from_json_str if text[0] == "{" else cedarpy.Schema.from_str)(text)
    found = caught.value
    assert f"line {found.line}, column {found.column}: " in str(found)
    if place is not None:
        assert text[found.span.start : found.span.end] == place


def test_refuses_types_that_grow_by_doubling() -> None:
    lines = [f"type T{i} = {{ a: T{i + 1}, b: T{i + 1} }};" for i in range(20)]
    text = "\n".join([*lines, "type T20 = Long; entity A { t: T0 };"])
    with pytest.raises(ParseError, match="parts when they are written out"):
        schema_json(text)


def test_refuses_a_chain_of_types_that_is_too_deep_when_it_is_written_out() -> None:
    text = "\n".join(
        [*(f"type T{i} = {{ a: T{i + 1} }};" for i in range(400)), "type T400 = Long; entity A { t: T0 };"]
    )
    with pytest.raises(ParseError, match="nested more than"):
        schema_json(text)
