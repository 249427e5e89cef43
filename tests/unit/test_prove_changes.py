"""Changes of policies with the verdict that is known for each; what is found was replayed through Cedar."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.unit.bundles import agents
from tests.unit.proving import PLAIN, WIDENS, bundle_side, ests, kinds, plain_side, widening

from cedarbox.policy.schema import schema_text
from cedarbox.review.prove import (
    Allows,
    And,
    Answer,
    Environment,
    Fails,
    Holds,
    Matches,
    Not,
    Or,
    PrincipalIs,
    Prover,
    Query,
    Side,
    environments,
)
from cedarbox.review.prove.solvers import Solver
from cedarbox.review.syntax import schema_json


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    with Prover(schema_text(), time_limit_s=20) as made:
        yield made


@pytest.fixture(scope="module")
def plain() -> Iterator[Prover]:
    with Prover(PLAIN, time_limit_s=20) as made:
        yield made


def _of(action: str, condition: str) -> str:
    return f'permit (principal, action == Sandbox::Action::"{action}", resource) when {{ {condition} }};'


# Action, old condition, new condition, whether the new one allows more.
CHANGES = [
    # A host of a domain is the domain or ends with a dot and it.
    (
        "connect",
        'resource is Sandbox::Host && resource in Sandbox::Domain::"p.example"',
        'resource is Sandbox::Host && (resource.fqdn == "p.example" || resource.fqdn like "*.p.example")',
        False,
    ),
    (
        "connect",
        'resource is Sandbox::Host && resource.fqdn like "*.p.example"',
        'resource is Sandbox::Host && resource.fqdn like "*p.example"',
        True,
    ),
    ("connect", 'resource in Sandbox::Domain::"p.example"', 'resource in Sandbox::Domain::"x.p.example"', False),
    # No host has such a name.
    ("connect", "1 == 2", 'resource == Sandbox::Host::"P.example" || resource in Sandbox::Domain::"example."', False),
    ("connect", "context.port == 443", "context.port >= 443", True),
    ("connect", "context.port >= 1", "true", False),
    # The class is what the address is.
    (
        "connect",
        'context has ip && context.ip.isInRange(ip("0.0.0.0/0"))',
        'context has ip && context.ip.isIpv4() && context.ipClass == Sandbox::IpClass::"private"',
        False,
    ),
    (
        "connect",
        'context.ipClass == Sandbox::IpClass::"private"',
        'context has ip && context.ip.isInRange(ip("10.0.0.0/8"))',
        False,
    ),
    (
        "connect",
        'context.ipClass == Sandbox::IpClass::"private"',
        'context has ip && context.ip.isInRange(ip("10.0.0.0/7"))',
        True,
    ),
    ("connect", 'context.ip.isInRange(ip("10.20.0.0/16"))', 'context.ip.isInRange(ip("10.20.0.0/15"))', True),
    (
        "connect",
        'context.ip.isInRange(ip("10.20.0.0/16"))',
        'context.ip.isInRange(ip("10.20.0.0/17")) || context.ip.isInRange(ip("10.20.128.0/17"))',
        False,
    ),
    # A name is named in TLS only.
    (
        "connect",
        'context.proto == Sandbox::Proto::"tls"',
        'context has hello && context.hello == Sandbox::Hello::"named"',
        False,
    ),
    ("connect", 'context.proto == Sandbox::Proto::"http"', "context has http", False),
    ("connect", "context has http", 'context.proto == Sandbox::Proto::"http"', True),
    # The shell of a command is that of the guest, or one that the caller chose.
    ("exec", "1 == 2", 'resource == Sandbox::Executable::"bash" && context.shell', True),
    ("exec", "1 == 2", 'resource == Sandbox::Executable::"bash" && context.commandLine like "sh*"', False),
    # No path has a character that nobody sees; one that only looks like another is in some.
    ("writeFile", "1 == 2", 'resource.path like "*/.git/\\u{200d}hooks/*"', False),
    ("writeFile", "1 == 2", 'resource.path like "*/.git/\\u{a0}hooks/*"', True),
    # An address is its own.
    (
        "connect",
        'resource == Sandbox::Address::"10.0.0.1"',
        'resource is Sandbox::Address && context.ip == ip("10.0.0.1")',
        False,
    ),
    ("mountWrite", 'resource in Sandbox::HostPath::"/srv"', 'resource.path like "/srv/*"', False),
    ("mountWrite", 'resource in Sandbox::HostPath::"/srv"', 'resource.path like "/srv*"', True),
    ("mountWrite", '!(resource in Sandbox::HostPath::"/etc")', '!(resource.path like "/etc/*")', True),
    ("readFile", "1 == 2", 'context.operation == Sandbox::FileOperation::"write"', False),
    (
        "invokeTool",
        'resource in Sandbox::Toolset::"git"',
        'resource == Sandbox::Tool::"git/push" && resource.name == "push"',
        False,
    ),
    ("exec", 'resource == Sandbox::Executable::"git"', 'context.commandLine == "git" && !context.shell', False),
    (
        "useModel",
        'resource.locality != Sandbox::Locality::"remote"',
        'resource == Sandbox::ModelEndpoint::"127.0.0.1"',
        False,
    ),
    ("exposePort", "resource.number == 8080", 'resource == Sandbox::Port::"8080"', False),
    (
        "create",
        'context has lifetime && context.lifetime >= duration("1s")',
        'context has lifetime && context.lifetime > duration("0s")',
        False,
    ),
    ("snapshot", 'resource.backend == "a"', 'context.base.backend == "a"', False),
    ("connect", 'context.base.at.toTime() < duration("8h")', 'context.base.at.toTime() <= duration("8h")', True),
]


@pytest.mark.parametrize(("action", "old", "new", "widens"), CHANGES, ids=range(len(CHANGES)))
def test_a_change_of_a_bundle_has_the_verdict_that_is_known(
    prover: Prover, action: str, old: str, new: str, widens: bool
) -> None:
    answers = widening(prover, action, {"old": bundle_side(_of(action, old)), "new": bundle_side(_of(action, new))})
    assert all(answer.verdict != "undecided" for answer in answers), answers
    found = [answer.witness for answer in answers if answer.verdict == "found"]
    assert bool(found) is widens, found
    for witness in found:
        assert witness is not None
        assert witness.sides["new"].allowed
        assert not witness.sides["old"].allowed


# Old condition, new condition, whether the new one allows more, in plain Cedar where entities are free.
PLAIN_CHANGES = [
    ("principal.age > 18", "principal.age >= 18", True),
    ("principal.age + 1 > 18", "principal.age >= 18", True),  # it overflows at the end of the numbers
    ('principal in Group::"a"', 'principal in Group::"b"', True),
    (
        'Group::"a" in Group::"b" && principal in Group::"b"',
        'Group::"a" in Group::"b" && principal in Group::"a"',
        False,
    ),
    ("principal in resource.readers", "resource.readers.contains(principal)", False),
    ("context.words.containsAny(context.more)", 'context.words.contains("x") && context.more.contains("x")', False),
    ("context.words.containsAll(context.more)", "context.more.isEmpty()", False),
    ("context.words == context.more", "context.words.containsAll(context.more)", True),
    (
        "context.words == context.more",
        "context.words.containsAll(context.more) && context.more.containsAll(context.words)",
        False,
    ),
    ('context.words == ["a", "b"]', 'context.words == ["b", "a", "a"]', False),
    ("context.ip.isInRange(context.net)", "context.ip == context.net", False),
    ("context.ip == context.net", "context.ip.isInRange(context.net)", True),
    (
        'resource.at.toDate() == datetime("2024-01-01")',
        'resource.at >= datetime("2024-01-01") && resource.at < datetime("2024-01-02")',
        False,
    ),
    ("context.span.toDays() < 1", 'context.span < duration("1d")', False),
    ("context.span.toDays() == 0", 'context.span > duration("-1d") && context.span <= duration("1d")', True),
    ("context.n * 3 < 10", "context.n < 4", True),  # three times the least number overflows
    ('context.s like "a*b*c"', 'context.s like "a*c"', True),
    ('context.s like "*\\**"', 'context.s == "a*"', False),
    ('principal.hasTag("t") && principal.getTag("t") == "x"', 'principal.getTag("t") like "x"', False),
    ('{a: context.n, b: context.s} == {a: context.m, b: "x"}', 'context.n == context.m && context.s == "x"', False),
    ("(if context.n > 0 then context.n else 1) > 0", "true", False),
    ('resource.size.lessThan(decimal("1.0"))', 'resource.size.lessThanOrEqual(decimal("0.9999"))', False),
    ("principal has ip && principal.ip.isIpv4()", "principal.ip.isIpv4()", False),
    ("principal.boss.boss.age < 3", "principal.boss.age < 3", True),
    ("1 == 2", '(if context.n > 0 then {s: []} else {s: context.words}).s.contains("x")', True),
]


@pytest.mark.parametrize(("old", "new", "widens"), PLAIN_CHANGES, ids=range(len(PLAIN_CHANGES)))
def test_a_change_of_plain_cedar_has_the_verdict_that_is_known(plain: Prover, old: str, new: str, widens: bool) -> None:
    sides = {
        name: plain_side(f"permit (principal, action, resource) when {{ {condition} }};")
        for name, condition in (("old", old), ("new", new))
    }
    answer = plain.search(WIDENS, kinds(PLAIN, "view")[0], sides)
    assert answer.verdict == ("found" if widens else "none"), answer
    if answer.witness is not None:
        assert [answer.witness.sides[name].allowed for name in ("old", "new")] == [False, True]


def test_a_group_in_a_group_widens_and_names_the_agent(prover: Prover) -> None:
    """The proof is about the declared principals of both versions, so a change of entities.json alone is seen."""
    policy = 'permit (principal in Sandbox::AgentGroup::"staff", action, resource);'
    before = json.loads(agents("agent", "other"))
    after = json.loads(agents("agent", "other"))
    after[1]["parents"] = [{"type": "Sandbox::AgentGroup", "id": "staff"}]
    sides = {"old": bundle_side(policy, json.dumps(before)), "new": bundle_side(policy, json.dumps(after))}
    answers = widening(prover, "exec", sides)
    assert [answer.verdict for answer in answers] == ["found"]
    assert answers[0].witness is not None
    assert answers[0].witness.principal["id"] == "agent"
    again = [
        prover.search(WIDENS, each, {"old": sides["new"], "new": sides["old"]}) for each in kinds(schema_text(), "exec")
    ]
    assert [answer.verdict for answer in again] == ["none"]


def test_an_agent_that_is_new_widens(prover: Prover) -> None:
    policy = "permit (principal, action, resource);"
    sides = {"old": bundle_side(policy, agents("agent")), "new": bundle_side(policy, agents("agent", "b"))}
    (answer,) = widening(prover, "exec", sides)
    assert answer.witness is not None
    assert answer.witness.principal["id"] == "b"
    assert answer.witness.sides["old"].decision == "Undeclared"
    (fewer,) = widening(prover, "exec", {"old": sides["new"], "new": sides["old"]})
    assert fewer.verdict == "none"


def test_an_error_denies_in_a_bundle_and_not_in_cedar(prover: Prover) -> None:
    """A permit that can fail takes from a bundle what the others permit; in plain Cedar it is skipped."""
    always = "permit (principal, action, resource);"
    failing = always + " " + _of("connect", 'context.http.path == "/"')
    env = kinds(schema_text(), "connect")[0]
    narrower = prover.search(WIDENS, env, {"old": bundle_side(failing), "new": bundle_side(always)})
    assert narrower.verdict == "found"
    assert narrower.witness is not None
    assert narrower.witness.sides["old"].errors
    assert prover.search(WIDENS, env, {"old": plain_side(failing), "new": plain_side(always)}).verdict == "none"


def test_the_other_formulas(prover: Prover) -> None:
    policies = """
    @id("a") permit (principal, action == Sandbox::Action::"fork", resource) when { context.copies < 4 };
    @id("b") forbid (principal, action == Sandbox::Action::"fork", resource) when { context.copies + 1 > 3 };
    """
    sides = {"it": bundle_side(policies, agents("x", "y"))}
    (env,) = kinds(schema_text(), "fork")
    three = Holds({"==": {"left": {".": {"left": {"Var": "context"}, "attr": "copies"}}, "right": {"Value": 3}}})

    def search(goal: And | Or | Not | Matches | Fails | Holds | Allows | PrincipalIs) -> Answer:
        return prover.search(goal, env, sides)

    assert search(And(Matches("it", "a"), Matches("it", "b"), Not(three))).verdict == "none"
    assert search(And(Matches("it", "a"), three)).verdict == "found"
    overflow = search(Fails("it", "b"))
    assert overflow.witness is not None
    assert overflow.witness.context["copies"] == 2**63 - 1
    assert search(Fails("it", "a")).verdict == "none"
    named = search(And(Allows("it"), PrincipalIs("y")))
    assert named.witness is not None
    assert named.witness.principal["id"] == "y"
    assert search(And(Allows("it"), PrincipalIs("nobody"))).verdict == "none"
    assert search(Or()).verdict == "none"
    assert search(And()).verdict == "found"
    with pytest.raises(KeyError):
        search(Matches("it", "nothing"))
    with pytest.raises(KeyError):
        search(Allows("nothing"))


def test_links_of_templates_are_filled_in(plain: Prover) -> None:
    template = {
        "effect": "permit",
        "principal": {"op": "in", "slot": "?principal"},
        "action": {"op": "All"},
        "resource": {"op": "==", "slot": "?resource"},
        "conditions": [],
    }
    links = [
        {
            "templateId": "t",
            "newId": "l",
            "values": {
                "?principal": {"type": "Group", "id": "g"},
                "?resource": {"__entity": {"type": "Doc", "id": "d"}},
            },
        }
    ]
    linked = Side({"t": template}, links=links)
    written = plain_side('permit (principal in Group::"g", action, resource == Doc::"d");')
    env = kinds(PLAIN, "view")[0]
    for sides in ({"old": linked, "new": written}, {"old": written, "new": linked}):
        assert plain.search(WIDENS, env, sides).verdict == "none"
    wider = plain_side('permit (principal in Group::"g", action, resource);')
    assert plain.search(WIDENS, env, {"old": linked, "new": wider}).verdict == "found"
    # The template decides nothing by itself.
    assert plain.search(Allows("it"), env, {"it": Side({"t": template})}).verdict == "none"
    with pytest.raises(ValueError, match="leaves a slot"):
        plain.search(Allows("it"), env, {"it": Side({"t": template}, links=[{**links[0], "values": {}}])})
    with pytest.raises(ValueError, match="there is not"):
        plain.search(Allows("it"), env, {"it": Side({}, links=links)})


def test_what_is_not_encoded_is_named_and_the_rest_is_still_proved(plain: Prover) -> None:
    odd = 'permit (principal, action, resource) when { context.s == "\U00030000" && context.n > 3 };'
    env = kinds(PLAIN, "view")[0]
    narrower = plain_side(odd.replace("context.n > 3", "context.n > 4"))
    assert plain.search(WIDENS, env, {"old": plain_side(odd), "new": narrower}).verdict == "none"
    nothing = plain.search(WIDENS, env, {"old": Side({}), "new": plain_side(f'@id("odd") {odd}')})
    assert nothing.verdict == "undecided"
    assert "policy `odd`" in nothing.why
    assert "U+30000" in nothing.why


def test_bundles_are_not_compared_with_other_policies(prover: Prover) -> None:
    sides = {"old": plain_side("permit (principal, action, resource);"), "new": bundle_side("")}
    with pytest.raises(ValueError, match="bundles"):
        prover.search(WIDENS, kinds(schema_text(), "fork")[0], sides)


@pytest.mark.parametrize("solver", ["cvc5", "z3"])
def test_either_solver_works_alone(solver: Solver) -> None:
    old, new = (bundle_side(_of("fork", f"context.copies < {number}")) for number in (4, 5))
    (env,) = kinds(schema_text(), "fork")
    with Prover(schema_text(), solvers=(solver,)) as alone:
        found = alone.search(WIDENS, env, {"old": old, "new": new})
        assert (found.verdict, found.solver) == ("found", solver)
        assert alone.search(WIDENS, env, {"old": new, "new": old}).verdict == "none"


def test_a_second_opinion_is_asked_for() -> None:
    old, new = (
        plain_side(f"permit (principal, action, resource) when {{ {text} }};")
        for text in ("context.n < 5", "context.n < 4")
    )
    with Prover(PLAIN, second_opinion=True) as both:
        answer = both.search(WIDENS, kinds(PLAIN, "view")[0], {"old": old, "new": new})
    assert (answer.verdict, answer.solver) == ("none", "cvc5+z3")


def test_many_queries_are_answered_in_order(prover: Prover) -> None:
    side = {"old": bundle_side(""), "new": bundle_side("permit (principal, action, resource);")}
    queries = [Query(WIDENS, each, side) for each in environments(schema_json(schema_text()))]
    seen: list[tuple[int, int, Environment]] = []
    answers = prover.search_all(queries, lambda done, total, query, _: seen.append((done, total, query.environment)))
    assert [answer.verdict for answer in answers] == ["found"] * len(queries), answers
    assert seen == [(number, len(queries), query.environment) for number, query in enumerate(queries, start=1)]
    for query, answer in zip(queries, answers, strict=True):
        assert answer.witness is not None
        assert answer.witness.action["id"] == query.environment.action_id
        assert answer.witness.resource["type"] == query.environment.resource_type


def test_an_unchanged_bundle_needs_no_solver() -> None:
    policies = ests("\n".join(_of("fork", f"context.copies == {number}") for number in range(50)))
    entities = json.loads(agents("agent"))
    sides = {name: Side(dict(policies), entities, deny_on_error=True) for name in ("old", "new")}
    with Prover(schema_text(), solvers=()) as nothing:
        answer = nothing.search(WIDENS, kinds(schema_text(), "fork")[0], sides)
    assert (answer.verdict, answer.solver) == ("none", "simplification")
