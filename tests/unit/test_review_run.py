"""Cases run against real Cedar; coverage and mutants tell what the cases say nothing about."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL, agents, write_bundle
from tests.unit.commands import Run, in_process

from cedarbox.policy import PolicyBundle
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import measure, percent
from cedarbox.review.mutants import mutants_of
from cedarbox.review.run import run_suite, survivors

PORTS = (
    '@id("web") permit (principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect", '
    'resource in Sandbox::Domain::"corp.example") '
    'when { context.port >= 443 && context.proto == Sandbox::Proto::"tls" };\n'
)
NEVER = (
    '@id("never") forbid (principal, action == Sandbox::Action::"connect", resource) '
    'when { [Sandbox::IpClass::"metadata", Sandbox::IpClass::"loopback"].contains(context.ipClass) };\n'
)
CONNECT = "agents: {outsider: {}}\nconnect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
WHOLE = (
    f"{CONNECT}  allow:\n"
    "    - {target: a.corp.example, port: [443, 8443], by: web}\n"
    "  deny:\n"
    "    - {target: a.corp.example, port: 442}\n"
    "    - {target: a.corp.example, proto: tcp}\n"
    "    - {target: b.example}\n"
    "    - {target: a.corp.example, principal: outsider}\n"
    "    - {target: [169.254.169.254, 127.0.0.1], by: never}\n"
)


def suite(directory: Path, policies: str, text: str) -> Suite:
    bundle = write_bundle(directory, policies)
    (bundle / "tests").mkdir(exist_ok=True)
    (bundle / "tests" / "a.yaml").write_text(text)
    return Suite.load(PolicyBundle.load(bundle))


def problems(directory: Path, policies: str, text: str) -> list[str]:
    return [outcome.problem for outcome in run_suite(suite(directory, policies, text))]


def unnoticed(directory: Path, text: str) -> set[tuple[str, str]]:
    alive, _ = survivors(suite(directory, PORTS + NEVER, text))
    return {(mutant.policy.id, mutant.change) for mutant in alive}


def test_a_case_fails_for_the_wrong_answer_the_wrong_policy_and_an_error(tmp_path: Path) -> None:
    overflow = (
        '@id("odd") forbid (principal, action == Sandbox::Action::"connect", resource) '
        "when { context.port + 9223372036854775807 > 0 };"
    )
    text = (
        f"{CONNECT}  allow:\n    - {{target: a.corp.example, by: web}}\n"
        "    - {target: b.example, by: web}\n"
        "  deny:\n    - {target: b.example}\n    - {target: a.corp.example}\n    - {target: 127.0.0.1}\n"
        "    - {target: b.example, by: never}\n    - {target: '0x7f'}\n    - {target: b.example, error: anything}\n"
        "    - {target: a.corp.example, error: anything}\n    - {target: b.example, principal: nobody}\n"
        "    - {target: '0x7f', error: numeric}\n    - {target: b.example, principal: nobody, error: not declared}\n"
    )
    told = problems(tmp_path / "one", PORTS + NEVER, text)
    assert told[0] == ""
    assert told[1] == "expected allow by web, got deny by no policy"
    assert told[2] == ""
    assert told[3] == "expected deny by no policy, got allow by web"
    assert told[4] == "expected deny by no policy, got deny by never"
    assert told[5] == "expected deny by never, got deny by no policy"
    assert "with the error" in told[6]
    assert told[7] == "expected a deny with an error about 'anything', got deny by no policy"
    assert told[8] == "expected a deny with an error about 'anything', got allow by web"
    assert "not declared" in told[9]
    assert told[10:] == ["", ""]
    # A forbid that cannot be evaluated denies, and is not what the case expects of a deny.
    (told_of_error,) = problems(tmp_path / "two", PERMIT_ALL + overflow, f"{CONNECT}  deny: [{{target: b.example}}]\n")
    assert "overflow" in told_of_error
    assert problems(
        tmp_path / "two", PERMIT_ALL + overflow, f"{CONNECT}  deny: [{{target: b.example, error: overflow}}]\n"
    ) == [""]


def test_a_policy_is_covered_when_it_decides_one_case_and_abstains_from_another(tmp_path: Path) -> None:
    def ways(text: str) -> dict[str, tuple[bool, bool]]:
        made = suite(tmp_path, PORTS + NEVER, text)
        covered = measure(made.bundle.policies, run_suite(made))
        return {each.policy.id: (each.decides, each.abstains) for each in covered}

    allow = "  allow: [{target: a.corp.example, by: web}]\n"
    assert ways(CONNECT + allow) == {"web": (True, False), "never": (False, False)}
    # What another action was asked says nothing, nor does a case that failed or ended in an error.
    other = "exec:\n  deny: [{principal: agent, command: ls}]\n"
    assert ways(CONNECT + allow + other)["web"] == (True, False)
    failed = "  deny: [{target: b.example, by: web}, {target: '0x7f', error: numeric}]\n"
    assert ways(CONNECT + allow + failed)["web"] == (True, False)
    assert ways(CONNECT + allow + "  deny: [{target: 127.0.0.1, by: never}]\n") == {
        "web": (True, True),
        "never": (True, True),
    }


def test_a_policy_that_no_case_can_do_without_is_covered_when_it_decides(tmp_path: Path) -> None:
    forbid = '@id("none") forbid (principal, action == Sandbox::Action::"exec", resource);'
    made = suite(tmp_path, forbid, "exec:\n  deny: [{principal: agent, command: ls, by: none}]\n")
    (covered,) = measure(made.bundle.policies, run_suite(made))
    assert (covered.decides, covered.abstains, covered.always, covered.both_ways) == (True, False, True, True)
    made = suite(tmp_path, forbid, "resolve:\n  deny: [{principal: agent, host: null}]\n")
    (covered,) = measure(made.bundle.policies, run_suite(made))
    assert not covered.both_ways
    assert percent([covered]) == 0
    assert percent([]) == 100


def test_cases_that_pin_every_policy_let_no_change_through(tmp_path: Path) -> None:
    made = suite(tmp_path, PORTS + NEVER, WHOLE)
    assert [outcome.problem for outcome in run_suite(made) if not outcome.passed] == []
    assert unnoticed(tmp_path, WHOLE) == set()


@pytest.mark.parametrize(
    ("left_out", "change"),
    [
        ("    - {target: a.corp.example, principal: outsider}\n", ("web", "any principal")),
        ("    - {target: b.example}\n", ("web", "any resource")),
        ("    - {target: a.corp.example, port: 442}\n", ("web", "its condition without context.port >= 443")),
        (
            "    - {target: a.corp.example, proto: tcp}\n",
            ("web", 'its condition without context.proto == Sandbox::Proto::"tls"'),
        ),
    ],
)
def test_a_case_that_is_left_out_lets_its_change_through(
    tmp_path: Path, left_out: str, change: tuple[str, str]
) -> None:
    assert left_out in WHOLE
    assert change in unnoticed(tmp_path, WHOLE.replace(left_out, ""))


def test_a_limit_that_is_not_tried_and_a_member_that_is_not_tried_are_found(tmp_path: Path) -> None:
    assert unnoticed(tmp_path, WHOLE.replace("[443, 8443]", "[444, 8443]").replace("port: 443,", "port: 444,")) == {
        ("web", "its condition with context.port > 443")
    }
    assert unnoticed(tmp_path, WHOLE.replace("[169.254.169.254, 127.0.0.1]", "169.254.169.254")) == {
        ("never", 'its condition without Sandbox::IpClass::"loopback"')
    }


def test_every_kind_of_change_is_made(tmp_path: Path) -> None:
    policy = (
        '@id("p") permit (principal == Sandbox::Agent::"agent", '
        'action in [Sandbox::Action::"exec", Sandbox::Action::"openTerminal"], resource == Sandbox::Executable::"sh") '
        'when { context.shell || (context has user && context.user != "root") } '
        'unless { if context.shell then context.commandLine like "*sudo*" '
        'else ["a", "b"].contains(context.commandLine) };'
    )
    bundle = PolicyBundle.load(write_bundle(tmp_path, policy, entities=agents("agent")))
    changes = [mutant.change for mutant in mutants_of(bundle.policies)]
    assert changes == [
        "deleted",
        "any principal",
        "any resource",
        "without the action exec",
        "without the action openTerminal",
        "condition 1 dropped",
        "condition 1 turned around",
        "condition 1 without context.shell",
        "condition 1 with !context.shell",
        'condition 1 without context has user && context.user != "root"',
        "condition 1 without context has user",
        "condition 1 with !(context has user)",
        'condition 1 without context.user != "root"',
        'condition 1 with !(context.user != "root")',
        "condition 2 dropped",
        "condition 2 turned around",
        'condition 2 without "a"',
        'condition 2 without "b"',
    ]
    made = [mutant.within(bundle).policies for mutant in mutants_of(bundle.policies)]
    assert len({json.dumps([policy.est for policy in policies]) for policies in made}) == len(changes)


def test_each_change_is_told_apart(tmp_path: Path) -> None:
    policy = (
        '@id("p") permit (principal, action == Sandbox::Action::"create", resource is Sandbox::Image) when {'
        " context has vcpus && context.vcpus <= 4 && context has diskGb && context.diskGb <= 20 }"
        " unless { resource.signed && resource.signed };"
    )
    bundle = PolicyBundle.load(write_bundle(tmp_path, policy, entities=agents("agent")))
    changes = [mutant.change for mutant in mutants_of(bundle.policies)]
    assert {"condition 1 with context.vcpus < 4", "condition 1 with context.diskGb < 20"} <= set(changes)
    assert len(set(changes)) == len(changes)


def test_a_number_becomes_a_lower_limit_and_a_network_twice_or_half_as_large(tmp_path: Path) -> None:
    policy = (
        '@id("p") permit (principal, action == Sandbox::Action::"connect", resource) when { context.port == 443 || '
        '22 == context.port || context has ip && (context.ip.isInRange(ip("10.20.0.0/16")) || '
        'context.ip.isInRange(ip("::/0")) || context.ip.isInRange(ip("192.0.2.7"))) || '
        'context.proto == Sandbox::Proto::"tls" };'
    )
    bundle = PolicyBundle.load(write_bundle(tmp_path, policy))
    changed = re.compile(r"its condition with (context\.port >= 443|22 <= context\.port|context\.ip\.isInRange\(.*)")
    made = [mutant for mutant in mutants_of(bundle.policies) if changed.fullmatch(mutant.change)]
    assert [mutant.change.removeprefix("its condition with ") for mutant in made] == [
        "context.port >= 443",
        "22 <= context.port",
        'context.ip.isInRange(ip("10.20.0.0/15"))',
        'context.ip.isInRange(ip("10.20.0.0/17"))',
        'context.ip.isInRange(ip("::/1"))',
        'context.ip.isInRange(ip("192.0.2.6/31"))',
    ]
    texts = [json.dumps(mutant.mutated.est) for mutant in made if mutant.mutated is not None]
    assert '{"<=": {"left": {"Value": 22}, "right": ' in texts[1]
    assert '{"ip": [{"Value": "10.20.0.0/15"}]}' in texts[2]


def test_a_record_whose_keys_look_like_operators_is_a_record(tmp_path: Path) -> None:
    (policy,) = PolicyBundle.load(write_bundle(tmp_path, PERMIT_ALL)).policies
    record = {
        "Record": {"like": {"Value": 1}, "==": {"Value": 2}, "in": {"<": {"left": {"Value": 3}, "right": {"Value": 4}}}}
    }
    plain = replace(policy, est={**policy.est, "conditions": [{"kind": "when", "body": record}]})
    changes = [mutant.change for mutant in mutants_of([plain])]
    assert changes == ["deleted", "its condition dropped", "its condition turned around", "its condition with 3 <= 4"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "test")


def test_the_command_tells_what_is_good_and_ends_with_0(tmp_path: Path, run: Run) -> None:
    suite(tmp_path, PORTS + NEVER, WHOLE)
    summary = "test: 8 of 8 cases pass, 2 of 2 policies covered both ways, 15 of 15 changes noticed\n"
    assert run(tmp_path) == (0, summary, "")


def test_the_command_names_what_failed_and_ends_with_1(tmp_path: Path, run: Run) -> None:
    suite(tmp_path, PORTS + NEVER, WHOLE.replace("by: never", "by: web"))
    code, out, err = run(tmp_path)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    place = f"{tmp_path}/tests/a.yaml:11: error T001: connect: target 169.254.169.254: "
    assert lines[0] == f"{place}expected deny by web, got deny by never"
    # Two cases begin there, and the hint is about this one.
    assert lines[1].endswith(f"explain {tmp_path} --case '{tmp_path}/tests/a.yaml:11:target 169.254.169.254'")
    assert lines[4] == f"{tmp_path}/policies.cedar:2: error T002: no case determined by it (never)"
    # Nothing is changed while a case fails: every change would be noticed by it.
    assert lines[-1] == "test: 6 of 8 cases pass, 1 of 2 policies covered both ways"


def test_a_change_that_nothing_notices_and_a_threshold_that_is_missed_end_with_1(tmp_path: Path, run: Run) -> None:
    suite(tmp_path, PORTS + NEVER, WHOLE.replace("    - {target: b.example}\n", ""))
    code, out, _ = run(tmp_path)
    assert code == 1
    assert f"{tmp_path}/policies.cedar:1: error T003: no case notices when it is changed: any resource (web)\n" in out
    assert run(tmp_path, "--no-mutate")[0] == 0
    suite(tmp_path, PORTS + NEVER, f"{CONNECT}  allow: [{{target: a.corp.example, by: web}}]\n")
    assert run(tmp_path, "--no-mutate")[0] == 1
    assert run(tmp_path, "--no-mutate", "--coverage-threshold", 0)[0] == 0


def test_the_command_prints_json(tmp_path: Path, run: Run) -> None:
    suite(tmp_path, PORTS + NEVER, WHOLE.replace("    - {target: b.example}\n", ""))
    code, out, _ = run(tmp_path, "--json")
    document = json.loads(out)
    assert (code, document["good"]) == (1, False)
    assert document["cases"] == {"run": 7, "failed": []}
    assert document["coverage"]["percent"] == 100
    assert document["mutants"]["unnoticed"] == [{"policy": "web", "change": "any resource", "line": 1}]
    assert document["bundle"]["digest"].startswith("sha256:")


def test_bad_input_is_one_line_and_ends_with_2(tmp_path: Path, run: Run) -> None:
    suite(tmp_path, PORTS + NEVER, WHOLE)
    (tmp_path / "tests" / "a.yaml").write_text("conect: {}\n")
    for arguments, said in (([tmp_path], "a.yaml:1:1"), ([tmp_path / "nowhere"], "nowhere")):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert said in err
