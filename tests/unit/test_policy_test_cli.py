"""``cedarbox policy test``: choosing cases, other formats, Cedar's own tests, and watching."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.commands import Run, in_process
from tests.unit.suites import large_bundle, write_suite

WEB = (
    '@id("web") permit (principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect", '
    'resource in Sandbox::Domain::"corp.example");\n'
)
CASES = (
    "agents: {outsider: {}}\nconnect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
    "  allow:\n    - {case: inside, target: a.corp.example, by: web}\n"
    "  deny:\n    - {case: outside, target: b.example}\n"
    "    - {case: who, target: a.corp.example, principal: outsider}\n"
)
WRONG = CASES.replace("target: b.example", "target: b.corp.example")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy", "test")


def test_cases_are_chosen_by_a_part_or_a_pattern_of_their_names(tmp_path: Path, run: Run) -> None:
    bundle = write_suite(tmp_path, WEB, CASES)
    assert run(bundle)[:2] == (
        0,
        "test: 3 of 3 cases pass, 1 of 1 policies covered both ways, 3 of 3 changes noticed\n",
    )
    for pattern, number in (("INSIDE", 1), ("0.yaml::connect[deny*", 2), ("*side]", 2), ("deny", 2), ("0.yaml", 3)):
        assert run(bundle, "--run", pattern)[:2] == (0, f"test: {number} of {number} cases pass\n"), pattern
    assert run(bundle, "--run", "inside", "--run", "who")[1] == "test: 2 of 2 cases pass\n"
    code, out, err = run(bundle, "--run", "nowhere")
    assert (code, out) == (2, "")
    assert err == "cedarbox: --run 'nowhere' matches no case; such as 0.yaml::connect[allow inside]\n"


def test_fail_fast_stops_at_the_first_and_tells_what_was_not_run(tmp_path: Path, run: Run) -> None:
    bundle = write_suite(tmp_path, WEB, WRONG)
    assert run(bundle)[1].splitlines()[-1].startswith("test: 2 of 3 cases pass, ")
    code, out, _ = run(bundle, "--fail-fast", "--format", "tap")
    assert code == 1
    assert [line.split(" - ")[0] for line in out.splitlines() if "ok" in line[:6]] == ["ok 1", "not ok 2", "ok 3"]
    assert "who] # SKIP an earlier case failed" in out
    assert run(bundle, "--fail-fast")[1].splitlines()[-1] == "test: 1 of 2 cases pass, 1 not run"


def test_the_slowest_cases_and_the_coverage_of_each_policy_are_told(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(write_suite(tmp_path, WEB, CASES), "--slowest", 2, "--coverage-table")
    assert code == 0
    assert sum(" ms " in line and " 0.yaml::connect[" in line for line in out.splitlines()) == 2
    assert f"  web     permit  1           2                   yes      {tmp_path}/policies.cedar:1\n" in out


def test_a_threshold_that_is_met_leaves_warnings(tmp_path: Path, run: Run) -> None:
    other = WEB.replace("web", "other").replace("corp.example", "other.example")
    bundle = write_suite(tmp_path, WEB + other, CASES)
    code, out, _ = run(bundle, "--no-mutate", "--coverage-threshold", 50)
    assert (code, "warning T002" in out, "error" in out) == (0, True, False)
    code, out, _ = run(bundle, "--no-mutate", "--coverage-threshold", 51)
    assert (code, "error T002" in out) == (1, True)


def test_every_case_is_a_check_and_what_was_found_names_its_rule(tmp_path: Path, run: Run) -> None:
    bundle = write_suite(
        tmp_path,
        WEB,
        WRONG.replace(
            "    - {case: inside, target: a.corp.example, by: web}\n",
            "    - {case: inside, target: c.corp.example, by: web}\n",
        ),
    )
    code, out, _ = run(bundle, "--json")
    told = json.loads(out)
    assert (code, told["exit_code"]) == (1, 1)
    assert [(check["name"], check["status"]) for check in told["checks"]] == [
        ("connect[allow inside]", "passed"),
        ("connect[deny outside]", "failed"),
        ("connect[deny who]", "passed"),
    ]
    assert [(one["rule"], one["line"]) for one in told["findings"]] == [("T001", 7)]
    assert {rule["id"] for rule in told["rules"]} == {"T001", "T002", "T003"}
    assert all(rule["help"] for rule in told["rules"])
    # As before, for programs that read it.
    assert set(told) >= {"good", "bundle", "cases", "coverage", "mutants"}
    assert told["cases"]["failed"][0]["case"] == "outside"
    assert told["coverage"]["policies"][0]["decides"] is True
    for form in ("junit", "sarif", "gitlab", "github", "markdown"):
        code, out, _ = run(bundle, "--format", form)
        assert code == 1
        assert "expected deny by no policy, got allow by web" in out


def test_plain_cedar_is_tested_with_cedars_own_tests(tmp_path: Path, run: Run) -> None:
    (tmp_path / "a.cedar").write_text('permit (principal == User::"ann", action, resource);')
    (tmp_path / "s.cedarschema").write_text(
        "entity User; entity Photo; action view appliesTo { principal: User, resource: Photo };"
    )
    ask = {"action": 'Action::"view"', "resource": 'Photo::"p"', "context": {}}
    tests = [
        {"name": f"{who} asks", "request": {"principal": f'User::"{who}"', **ask}, "entities": [], "decision": decision,
         "reason": ["policy0"][: decision == "allow"], "num_errors": 0}
        for who, decision in (("ann", "allow"), ("bob", "deny"))
    ]  # fmt: skip
    (tmp_path / "t.json").write_text(json.dumps(tests))
    options = ["--schema", tmp_path / "s.cedarschema", "--tests", tmp_path / "t.json"]
    code, out, err = run(tmp_path, *options, "--export", tmp_path / "out.json")
    assert (code, err) == (0, "")
    assert (
        out.splitlines()[-1]
        == f"{tmp_path}: 2 of 2 cases pass, 1 of 1 policies covered both ways, 2 of 2 changes noticed"
    )
    assert json.loads((tmp_path / "out.json").read_text()) == tests
    (tmp_path / "t.json").write_text(json.dumps(tests[:1]))
    code, out, _ = run(tmp_path / "a.cedar", *options)
    assert code == 1
    assert f"{tmp_path}/a.cedar:1: error T003: no case notices when it is changed: any principal" in out
    tests[1]["decision"] = "allow"
    (tmp_path / "t.json").write_text(json.dumps(tests))
    code, out, _ = run(tmp_path, *options)
    assert code == 1
    assert out.startswith(f"{tmp_path}/t.json:1: error T001: bob asks: expected allow, got deny by no policy\n")
    for bad, said in (
        (["--schema", tmp_path / "s.cedarschema"], "--schema without --tests"),
        (["--schema", tmp_path / "none", "--tests", tmp_path / "t.json"], "none: cannot read it"),
        (["--schema", tmp_path / "t.json", "--tests", tmp_path / "t.json"], "t.json"),
        (["--schema", tmp_path / "s.cedarschema", "--tests", tmp_path / "a.cedar"], "a.cedar:1:1: no array"),
    ):
        code, out, err = run(tmp_path, *bad)
        assert (code, out, len(err.splitlines())) == (2, "", 1), err
        assert said in err


def test_the_cases_of_a_bundle_are_exported_and_come_back(tmp_path: Path, run: Run) -> None:
    bundle = write_suite(tmp_path / "b", WEB, CASES + "    - {case: odd, target: '0x7f', error: numeric}\n")
    code, out, _ = run(bundle, "--export", tmp_path / "t.json")
    assert code == 0
    assert "note: 1 cases that Cedar by itself cannot answer were left out of it\n" in out
    code, out, _ = run(bundle, "--tests", tmp_path / "t.json")
    assert (code, out) == (0, "test: 3 of 3 cases pass, 1 of 1 policies covered both ways, 3 of 3 changes noticed\n")
    code, _, err = run(bundle, "--export", tmp_path / "nowhere" / "t.json")
    assert (code, len(err.splitlines())) == (2, 1)


def test_a_large_bundle_passes_and_is_covered(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(large_bundle(tmp_path, 60), "--no-mutate")
    assert (code, out) == (0, "test: 122 of 122 cases pass, 60 of 60 policies covered both ways\n")


class Watched:
    """The command with ``--watch``, in a process of its own."""

    def __init__(self, bundle: Path) -> None:
        command = [sys.executable, "-P", "-u", "-m", "cedarbox", "policy", "test", str(bundle), "--watch"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def told(self) -> list[str]:
        """Wait until it watches again, and return what it said until then."""
        lines: list[str] = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if " watching " in line:
                return lines
            lines.append(line)
        raise AssertionError(f"it ended: {lines}")

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(120)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(write_suite(tmp_path, WEB, CASES))
    yield made
    made.close()


def test_watch_runs_again_for_each_change_outlives_broken_files_and_ends_with_130(
    tmp_path: Path, watched: Watched
) -> None:
    good = "test: 3 of 3 cases pass, 1 of 1 policies covered both ways, 3 of 3 changes noticed\n"
    assert watched.told() == [good]
    (tmp_path / "tests" / "0.yaml").write_text(WRONG)
    assert "error T001: connect: outside" in watched.told()[0]
    (tmp_path / "policies.cedar").write_text("permit (")
    (broken,) = watched.told()
    assert broken.startswith(f"cedarbox: {tmp_path}/policies.cedar:1")
    (tmp_path / "policies.cedar").write_text(WEB)
    assert "error T001" in watched.told()[0]
    # An editor puts a new file in the place of the old one, and files come and go.
    (tmp_path / "new.yaml").write_text(CASES)
    (tmp_path / "new.yaml").replace(tmp_path / "tests" / "0.yaml")
    assert watched.told() == [good]
    assert watched.interrupt() == 130


@pytest.mark.parametrize("option", [["--json"], ["--format", "tap"], ["--output", "tap=x"], ["--export", "x"]])
def test_watch_prints_text_only(tmp_path: Path, run: Run, option: list[str]) -> None:
    code, out, err = run(write_suite(tmp_path, WEB, CASES), "--watch", *option)
    assert (code, out) == (2, "")
    assert "--watch prints text" in err
