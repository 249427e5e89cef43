"""Attacks on the review by tests: files of cases that run code, exhaust a host, forge a report, or prove nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.commands import in_process
from tests.unit.suites import load_suite, write_suite

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import measure, percent
from cedarbox.review.reports import FORMATS
from cedarbox.review.run import run_suite, survivors

WEB = (
    '@id("web") permit (principal in Sandbox::AgentGroup::"agents", action == Sandbox::Action::"connect", resource) '
    'when { resource in Sandbox::Domain::"corp.example" };\n'
)
CONNECT = "connect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
WIRE = (
    '@id("wire") {} permit (principal == Sandbox::Agent::"agent", action == Sandbox::Action::"invokeTool", '
    'resource == Sandbox::Tool::"wire");'
)
METADATA = 'name = "test"\nschema = 1\n[approvers]\ndesk = "xWg+FfYw5REpZroy7QQUu+b/EziNHKc1B4UVlaeCG+c="\n'


@pytest.mark.parametrize(
    "text",
    [
        "connect: !!python/object/apply:os.system ['touch hacked']\n",
        "!!python/name:os.system {}\n",
        "fixtures: {a: !!python/object/new:os.system ['touch hacked']}\n",
        "connect: {deny: [!include /etc/passwd]}\n",
    ],
)
def test_cases_that_name_code_to_run(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of cases has tags of YAML that make some readers call functions or read other files.

    Every tag is refused with its place. Nothing ran: the file that it would have made is not there.
    """
    monkeypatch.chdir(tmp_path)
    bundle = write_suite(tmp_path / "bundle", WEB, text)
    code, out, err = in_process(monkeypatch, capsys, "policy", "test")(bundle)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "0.yaml:1:" in err
    assert not (tmp_path / "hacked").exists()


def test_cases_that_multiply(tmp_path: Path) -> None:
    """Ten aliases of ten aliases, a matrix of ten lists of ten, and a fixture that uses itself would exhaust a host.

    Aliases and fixtures in fixtures are refused, and a case makes a thousand requests at most. One line says where.
    """
    ports = ", ".join(map(str, range(1, 11)))
    hosts = ", ".join(f"h{number}.example" for number in range(101))
    for text, said in (
        ("a: &a [x]\nb: &b [*a, *a]\n", "an anchor or alias"),
        (f"{CONNECT}  deny:\n    - matrix: {{target: [{hosts}], port: [{ports}]}}\n", "one case makes 1010 requests"),
        (f"fixtures: {{a: [{{fixture: a}}]}}\n{CONNECT}  deny: [{{target: x}}]\n", "a fixture that uses a fixture"),
    ):
        with pytest.raises(BundleError, match=said) as caught:
            load_suite(tmp_path, WEB, text)
        assert caught.value.line is not None


def test_a_title_that_commands_the_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The title of a case that fails holds commands of GitHub's runner, escapes of a terminal and the end of XML parts.

    Each format escapes them: no line begins with a command, no control character is printed, XML and JSON parse.
    """
    from xml.etree import ElementTree

    title = "x\\n::stop-commands::t\\n##[error]y\\e[2J</failure>]]>&| `<img src=x>`"
    text = f'{CONNECT}  deny:\n    - {{case: "{title}", target: a.corp.example}}\n'
    bundle = write_suite(tmp_path, WEB, text)
    for form in FORMATS:
        code, out, err = in_process(monkeypatch, capsys, "policy", "test")(bundle, "--format", form)
        assert (code, err) == (1, "")
        assert "\x1b" not in out
        lines = [line.strip() for line in out.splitlines()]
        assert not any(line.startswith(("::stop-commands", "##[")) for line in lines)
        if form in {"json", "sarif", "gitlab"}:
            json.loads(out)
        if form == "junit":
            ElementTree.fromstring(out)


def test_an_approval_that_is_dropped_while_every_test_passes(tmp_path: Path) -> None:
    """Somebody drops `@requires_approval` from a permit. The answer is still allow by that policy, so plain cases pass.

    A case that states the approval fails. Where none does, the dropped approval is reported as a change that no case
    notices, before anybody makes it.
    """
    table = "agents: {outsider: {}}\ninvokeTool:\n  defaults: {principal: agent, kind: function}\n"
    rest = "  deny:\n    - {name: other}\n    - {name: wire, principal: outsider}\n"
    plain = f"{table}  allow: [{{name: wire, by: wire}}]\n{rest}"
    stated = plain.replace("by: wire}", "by: wire, approval: desk}")
    before, after = WIRE.format('@requires_approval("desk")'), WIRE.format("")
    for policies, text, passes in ((after, plain, True), (before, stated, True), (after, stated, False)):
        suite = load_suite(tmp_path, policies, text, metadata=METADATA)
        assert all(outcome.passed for outcome in run_suite(suite)) is passes
    alive, _ = survivors(load_suite(tmp_path, before, plain, metadata=METADATA))
    assert [mutant.change for mutant in alive] == ["without its approval"]
    assert survivors(load_suite(tmp_path, before, stated, metadata=METADATA))[0] == ()


def test_tests_that_cover_every_policy_and_prove_nothing(tmp_path: Path) -> None:
    """Two cases show the one permit at work and at rest, so coverage is whole; whom and when it permits is not tried.

    The changes that no case notices are told, with exit code 1: a permit for every agent is among them.
    """
    suite = load_suite(
        tmp_path,
        WEB,
        f"{CONNECT}  allow: [{{target: a.corp.example, by: web}}]\n  deny: [{{target: b.example}}]\n",
    )
    outcomes = run_suite(suite)
    assert percent(measure(suite.bundle.policies, outcomes)) == 100
    assert "any principal" in [mutant.change for mutant in survivors(suite)[0]]


def test_a_denial_that_is_an_error(tmp_path: Path) -> None:
    """A forbid cannot be evaluated and the case expects a plain denial: in Cedar itself such a forbid is passed over.

    The case fails and names the error: a denial because of an error is no proof that the forbid works.
    """
    odd = '@id("odd") forbid (principal, action == Sandbox::Action::"connect", resource) '
    odd += "when { context.port + 9223372036854775807 > 0 };"
    suite = load_suite(
        tmp_path, WEB + odd, f"{CONNECT}  deny:\n    - {{target: b.example}}\n    - {{target: c, by: odd}}\n"
    )
    told = [outcome.problem for outcome in run_suite(suite)]
    assert ["with the error: error while evaluating policy `odd`" in problem for problem in told] == [True, True]


def test_a_file_of_cases_that_leads_elsewhere(tmp_path: Path) -> None:
    """A file of cases, or of shared fixtures, is a link to a file outside the bundle, a pipe, or a directory.

    None is followed or waited for. One line names it.
    """
    import os

    bundle = write_suite(tmp_path / "bundle", WEB, f"{CONNECT}  deny: [{{target: b.example}}]\n")
    odd = bundle / "tests" / "fixtures.yaml"
    outside = tmp_path / "outside.yaml"
    outside.write_text("fixtures: {a: b}\n")
    makers: tuple[Callable[[], None], ...] = (lambda: odd.symlink_to(outside), lambda: os.mkfifo(odd), odd.mkdir)
    for make in makers:
        make()
        with pytest.raises(BundleError, match="not a regular file") as caught:
            Suite.load(PolicyBundle.load(bundle))
        assert caught.value.path == odd
        odd.rmdir() if odd.is_dir() and not odd.is_symlink() else odd.unlink()
