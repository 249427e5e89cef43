"""Fixtures, matrices, rows and approvals of test cases: what they make, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.suites import load_suite

from cedarbox.errors import BundleError
from cedarbox.review.cases import Suite
from cedarbox.review.run import run_suite, survivors
from cedarbox.review.tables import OWN_KEYS

ALL = '@id("all") permit (principal, action, resource);'
CONNECT = "connect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
CALLS = "invokeTool:\n  defaults: {principal: agent, kind: function}\n"
KEYS = (
    "[approvers]\n"
    'desk = "xWg+FfYw5REpZroy7QQUu+b/EziNHKc1B4UVlaeCG+c="\n'
    'boss = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="\n'
)
METADATA = f'name = "test"\nschema = 1\n{KEYS}'
WIRE = (
    '@id("wire") @requires_approval("desk,boss") @approval_expires("10m") '
    'permit (principal == Sandbox::Agent::"agent", action == Sandbox::Action::"invokeTool", '
    'resource == Sandbox::Tool::"wire");'
)


def cases(directory: Path, *tables: str, shared: str = "") -> Suite:
    if shared:
        (directory / "tests").mkdir(parents=True)
        (directory / "tests" / "fixtures.yaml").write_text(shared)
    return load_suite(directory, ALL, *tables)


def titles(suite: Suite) -> list[str]:
    return [case.title for case in suite.cases]


def test_a_fixture_stands_for_a_value_a_list_and_several_arguments(tmp_path: Path) -> None:
    text = (
        "fixtures:\n  mirror: mirror.example\n  bad: [a.example, b.example]\n  ids: [all]\n"
        "  there: {target: c.example, port: 22, proto: tcp}\n"
        f"{CONNECT}  deny:\n"
        "    - {case: one, target: {fixture: mirror}, by: {fixture: ids}}\n"
        "    - {case: many, target: {fixture: bad}}\n"
        "    - {case: more, target: [{fixture: bad}, {fixture: mirror}, d.example]}\n"
        "    - {case: together, with: there, proto: tls}\n"
    )
    suite = cases(tmp_path, text)
    assert titles(suite) == [
        "one",
        "many, target a.example",
        "many, target b.example",
        "more, target a.example",
        "more, target b.example",
        "more, target mirror.example",
        "more, target d.example",
        "together",
    ]
    first, last = suite.cases[0].request, suite.cases[-1].request
    assert first is not None
    assert last is not None
    assert str(first.resource) == 'Host::"mirror.example"'
    assert (str(last.resource), last.summary) == ('Host::"c.example"', "port 22 tls")
    assert suite.cases[0].by == {"all"}


def test_fixtures_and_agents_of_the_shared_file_are_known_to_every_file(tmp_path: Path) -> None:
    one = f"{CONNECT}  deny:\n    - {{case: one, target: {{fixture: host}}, principal: outsider}}\n"
    two = "resolve:\n  deny:\n    - {case: two, host: {fixture: host}, principal: agent}\n"
    suite = cases(tmp_path, one, two, shared="agents: {outsider: {}}\nfixtures: {host: a.example}\n")
    assert [str(case.request.resource) for case in suite.cases if case.request] == ['Host::"a.example"'] * 2
    assert "outsider" in suite.bundle.principals


def test_a_matrix_makes_a_case_of_each_combination_in_the_order_that_it_is_written(tmp_path: Path) -> None:
    text = (
        "fixtures: {ports: [1, 2]}\n"
        f"{CONNECT}  deny:\n    - case: odd\n      target: a.example\n"
        "      matrix: {proto: [tcp, udp], port: {fixture: ports}, principal: [agent]}\n"
        "exec:\n  deny:\n    - {principal: agent, matrix: {command: [ls, [id, -u]], shell: [true]}}\n"
    )
    suite = cases(tmp_path, text)
    assert titles(suite) == [
        "odd, proto tcp, port 1, principal agent",
        "odd, proto tcp, port 2, principal agent",
        "odd, proto udp, port 1, principal agent",
        "odd, proto udp, port 2, principal agent",
        "command ls, shell true",
        "command id -u, shell true",
    ]
    assert [case.request.summary for case in suite.cases[:4] if case.request] == [
        "port 1 tcp",
        "port 2 tcp",
        "port 1 udp",
        "port 2 udp",
    ]


def test_rows_make_a_case_of_each_under_its_name(tmp_path: Path) -> None:
    text = (
        f"{CONNECT}  deny:\n    - case: services\n      rows:\n"
        "        git: {target: g.example, port: 22, proto: tcp}\n"
        "        mirror: {target: m.example}\n    - rows: {only: {target: o.example}}\n"
    )
    suite = cases(tmp_path, text)
    assert titles(suite) == ["services, git", "services, mirror", "only"]
    assert [case.request.summary for case in suite.cases if case.request] == [
        "port 22 tcp",
        "port 443 tls",
        "port 443 tls",
    ]
    assert [case.line for case in suite.cases] == [4, 4, 8]


def test_each_case_has_a_name_of_its_own(tmp_path: Path) -> None:
    twice = "    - {case: same, target: a.example}\n" * 2
    suite = cases(tmp_path, f"{CONNECT}  deny:\n{twice}  allow: [{{case: same, target: a.example, by: all}}]\n")
    assert [case.id for case in suite.cases] == [
        "0.yaml::connect[allow same]",
        "0.yaml::connect[deny same]",
        "0.yaml::connect[deny same (2)]",
    ]


DENY = f"{CONNECT}  deny:\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (f"fixtures: {{a: b.example}}\n{DENY}    - {{target: x}}\n", 1, "the fixture 'a' is used by no case"),
        (f"{DENY}    - {{target: {{fixture: a}}}}\n", 4, "unknown fixture 'a'; known: none"),
        (f"fixtures: {{a: x}}\n{DENY}    - {{target: {{fixture: b}}}}\n", 5, "known: a"),
        (f"fixtures: {{a: x, a: y}}\n{DENY}    - {{target: x}}\n", 1, "'a' is there twice"),
        (f"fixtures: {{a b: x}}\n{DENY}    - {{target: x}}\n", 1, "no usable name"),
        (f"fixtures: {{a: {{fixture: b}}, b: x}}\n{DENY}    - {{target: x}}\n", 1, "a fixture that uses a fixture"),
        (f"fixtures: {{a: [{{fixture: b}}], b: x}}\n{DENY}    - {{target: x}}\n", 1, "a fixture that uses a fixture"),
        (f"fixtures: [a]\n{DENY}    - {{target: x}}\n", 1, "expected fixtures by name"),
        # What is wrong with the value of a fixture is told where the value stands.
        (f"fixtures:\n  a: 5\n{DENY}    - {{target: {{fixture: a}}}}\n", 2, "expected text, in quotes"),
        (f"fixtures:\n  a: {{prot: tls}}\n{DENY}    - {{target: x, with: a}}\n", 2, "unknown key 'prot'"),
        (f"fixtures:\n  a: x\n{DENY}    - {{target: x, with: a}}\n", 2, "a fixture of arguments of connect"),
        (
            f"fixtures:\n  a: {{port: 1}}\n  b: {{port: 2}}\n{DENY}    - {{target: x, with: [a, b]}}\n",
            7,
            "two fixtures give port",
        ),
        (f"{DENY}    - {{target: x, with: {{port: 1}}}}\n", 4, "expected the name of a fixture"),
        (f"{DENY}    - {{target: x, matrix: {{port: [1], proto: tls}}}}\n", 4, "proto is no list"),
        (f"{DENY}    - {{target: x, matrix: {{}}}}\n", 4, "an empty matrix"),
        (f"{DENY}    - {{target: x, matrix: {{prt: [1]}}}}\n", 4, "unknown key 'prt'"),
        (f"{DENY}    - {{target: x, matrix: {{by: [all]}}}}\n", 4, "unknown key 'by'"),
        (
            f"{DENY}    - {{target: x, port: 1, matrix: {{port: [1, 2]}}}}\n",
            4,
            "given by the case and by what it varies",
        ),
        (f"{DENY}    - {{target: [x, y], matrix: {{port: [1, 2]}}}}\n", 4, "vary a case in one way"),
        (f"{DENY}    - {{target: x, matrix: {{port: [[1, 2]]}}}}\n", 4, "a list in the list of port"),
        (f"{DENY}    - {{target: x, matrix: {{port: [1]}}, rows: {{a: {{port: 2}}}}}}\n", 4, "vary a case in one way"),
        (f"{DENY}    - {{target: x, rows: {{}}}}\n", 4, "no rows"),
        (f"{DENY}    - {{rows: {{a: {{target: [x, y]}}}}}}\n", 4, "vary a case in one way"),
        (f"{DENY}    - {{target: x, rows: {{a: {{target: y}}}}}}\n", 4, "given by the case and by what it varies"),
        (f"{DENY}    - {{target: x, rows: {{a: {{by: all}}}}}}\n", 4, "unknown key 'by'"),
        (f"{DENY}    - {{target: x, approval: desk}}\n", 4, "an approval on a deny"),
        (f"{CONNECT}  allow:\n    - {{target: x, by: all, approval: desk}}\n", 4, "'desk' is no declared approver"),
        (f"{CONNECT}  allow:\n    - {{target: x, by: all, approval: {{expires: 1m}}}}\n", 4, "no approvers"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_place(tmp_path: Path, text: str, line: int, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        cases(tmp_path, text)
    assert said in str(caught.value)
    assert (caught.value.path, caught.value.line) == (tmp_path / "tests" / "0.yaml", line)
    assert "\n" not in str(caught.value)


def test_a_fixture_of_the_shared_file_is_refused_there_when_unused_or_shadowed_or_wrong(tmp_path: Path) -> None:
    shared = tmp_path / "tests" / "fixtures.yaml"
    with pytest.raises(BundleError, match="used by no case") as caught:
        cases(tmp_path, f"{DENY}    - {{target: x}}\n", shared="fixtures:\n  host: a.example\n")
    assert (caught.value.path, caught.value.line) == (shared, 2)
    with pytest.raises(BundleError, match=r"shadows the fixture 'host' of fixtures\.yaml:2") as caught:
        load_suite(tmp_path, ALL, f"fixtures:\n  host: b\n{DENY}    - {{target: {{fixture: host}}}}\n")
    assert (caught.value.path, caught.value.line) == (tmp_path / "tests" / "0.yaml", 2)
    shared.write_text("fixtures:\n  host: 7\n")
    with pytest.raises(BundleError, match="in quotes") as caught:
        load_suite(tmp_path, ALL, f"{DENY}    - {{target: {{fixture: host}}}}\n")
    assert (caught.value.path, caught.value.line) == (shared, 2)


def test_a_file_called_fixtures_can_still_be_a_file_of_cases(tmp_path: Path) -> None:
    suite = cases(tmp_path, f"{DENY}    - {{target: x}}\n", shared=f"{DENY}    - {{target: y}}\n")
    assert [case.id for case in suite.cases] == [
        "0.yaml::connect[deny target x]",
        "fixtures.yaml::connect[deny target y]",
    ]


def test_no_argument_has_the_name_of_a_key_of_a_case() -> None:
    from cedarbox.policy.actions import ACTION_GROUPS
    from cedarbox.review.arguments import arguments_of

    for action in ACTION_GROUPS:
        assert not {*OWN_KEYS, "fixture"} & set(arguments_of(action))


@pytest.mark.parametrize(
    ("approval", "problem"),
    [
        ("[desk, boss]", ""),
        ("{approvers: [boss, desk], expires: 10m}", ""),
        ("desk", "expected an approval by desk, got an approval by boss or desk"),
        ("null", "expected no need of an approval, got an approval by boss or desk"),
        ("{approvers: [boss, desk], expires: 15m}", "expected an approval that holds 900 s, got one that holds 600 s"),
    ],
)
def test_a_case_can_state_the_approval_that_an_allow_needs(tmp_path: Path, approval: str, problem: str) -> None:
    text = f"{CALLS}  allow:\n    - {{name: wire, by: wire, approval: {approval}}}\n"
    (outcome,) = run_suite(load_suite(tmp_path, WIRE, text, metadata=METADATA))
    assert outcome.problem == problem


def test_a_permit_that_needs_no_approval_is_told_apart(tmp_path: Path) -> None:
    wire = "name: wire, by: all"
    text = f"{CALLS}  allow:\n    - {{{wire}, approval: desk}}\n    - {{{wire}, approval: null}}\n"
    told = [outcome.problem for outcome in run_suite(load_suite(tmp_path, ALL, text, metadata=METADATA))]
    assert told == ["expected an approval by desk, got no need of an approval", ""]


@pytest.mark.parametrize(
    ("approval", "left"),
    [
        (
            "",
            {
                "without its approval",
                "without the approver boss",
                "without the approver desk",
                "without its @approval_expires",
            },
        ),
        (", approval: [desk, boss]", {"without its @approval_expires"}),
        (", approval: {approvers: [desk, boss], expires: 10m}", set()),
    ],
)
def test_an_approval_that_no_case_states_could_be_dropped_and_that_is_told(
    tmp_path: Path, approval: str, left: set[str]
) -> None:
    text = (
        f"agents: {{outsider: {{}}}}\n{CALLS}  allow:\n    - {{name: wire, by: wire{approval}}}\n"
        "  deny:\n    - {name: other}\n    - {name: wire, principal: outsider}\n"
    )
    alive, _ = survivors(load_suite(tmp_path, WIRE, text, metadata=METADATA))
    assert {mutant.change for mutant in alive} == left
