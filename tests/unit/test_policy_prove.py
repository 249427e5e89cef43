"""``cedarbox policy prove``: properties of real bundles, by the real prover."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import SHIPPED, write_bundle
from tests.unit.differing import AGENTS, change, cli, entities, findings, permit, shared_prover
from tests.unit.repositories import Repository, bundle_files

from cedarbox.cli import policy_versions
from cedarbox.errors import ConfigurationError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.approval import approval_of
from cedarbox.policy.schema import schema_text
from cedarbox.review.properties.files import read_properties
from cedarbox.review.prove import solvers

TLS = 'context.proto == Sandbox::Proto::"tls" && context.port == 443'
MIRROR = permit("mirror", "connect", f'{TLS} && resource == Sandbox::Host::"mirror.corp.example"')
CODERS = 'principal in Sandbox::AgentGroup::"coders"'


_REAL_PROVER = policy_versions.prover


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    policies = MIRROR + permit("run", "exec", who=CODERS)
    return write_bundle(tmp_path / "site", policies, entities=entities(AGENTS))


def _prove(*arguments: object) -> tuple[int, dict[str, Any]]:
    result = cli("prove", *arguments, "--json")
    assert result.stdout.startswith("{"), (result.exit_code, result.output, result.exception)
    return result.exit_code, json.loads(result.stdout)


def _file(site: Path, text: str, name: str = "mine.yaml") -> Path:
    path = site / "properties" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", sorted(path.name for path in SHIPPED.iterdir()))
def test_the_bundles_that_ship_keep_their_promises(name: str) -> None:
    code, report = _prove(SHIPPED / name)
    assert (code, findings(report, "P003")) == (0, [])
    assert len(report["properties"]) >= 8
    assert {each["verdict"] for each in report["properties"]} == {"holds"}
    assert not PolicyBundle.load(SHIPPED / name).files.keys() & {"properties"}


def test_a_file_with_each_kind_of_property(site: Path) -> None:
    _file(
        site,
        """
properties:
  - name: only to the mirror
    never: anyone connects to not host mirror.corp.example
  - name: coders run
    always: agent in coders runs
  - name: no mirror for others
    never: agent in AgentGroup::"others" connects to host mirror.corp.example
  - name: fetched
    reachable: anyone connects to mirror.corp.example on port 443
  - name: never on port 80
    reachable: anyone connects on port 80
  - name: in Cedar
    never:
      action: [connect, exec]
      when: 'context.base.backend == "docker"'
      unless: principal.trust == Sandbox::Trust::"untrusted"
  - name: apart
    disjoint: [mirror, run]
  - name: within
    implies: [mirror, run]
""",
    )
    code, report = _prove(site)
    assert code == 1
    verdicts = {each["name"]: each["verdict"] for each in report["properties"]}
    assert verdicts == {
        "only to the mirror": "holds",
        "coders run": "refuted",
        "no mirror for others": "refuted",
        "fetched": "holds",
        "never on port 80": "refuted",
        "in Cedar": "holds",
        "apart": "holds",
        "within": "refuted",
    }
    lines = {each["message"].split("'")[1]: each["line"] for each in findings(report, "P001")}
    assert lines["no mirror for others"] == 7
    (found,) = next(each for each in report["properties"] if each["name"] == "no mirror for others")["requests"]
    assert found["principal"]["id"] == "other"
    assert found["sides"]["these"] == {"allowed": True, "decision": "Allow", "policies": ["mirror"], "errors": []}
    # "coders run" is refuted by the terminals that nothing permits.
    (found,) = next(each for each in report["properties"] if each["name"] == "coders run")["requests"]
    assert found["action"]["id"] == "openTerminal"


def test_a_property_of_no_request_is_told(site: Path) -> None:
    _file(site, "properties: [{name: slip, never: agent in untrustd connects}]")
    code, report = _prove(site)
    assert (code, len(findings(report, "P003"))) == (0, 1)
    assert "no request at all" in findings(report, "P003")[0]["message"]


def test_who_can(site: Path) -> None:
    code, report = _prove(site, "--who-can", "run bash")
    assert code == 0
    answers = {" ".join(each["agents"]): each["can"] for each in report["agents"]}
    assert answers == {"coder": "yes", "other": "no"}
    assert report["agents"][0]["requests"][0]["resource"]["id"] == "bash"
    code, report = _prove(site, "--who-can", "write /etc")
    assert (code, report["summary"]) == (0, "no declared agent can, proved")
    told = cli("prove", site, "--who-can", "connect to mirror.corp.example").stdout
    assert "mirror (" in told
    assert "policies.cedar:1)" in told


def test_mounting_above_a_directory_reaches_it(tmp_path: Path) -> None:
    policies = permit("all", "mountWrite", 'resource == Sandbox::HostPath::"/"')
    site = write_bundle(tmp_path / "site", policies)
    assert _prove(site, "--who-can", "write /etc")[1]["agents"][0]["can"] == "yes"
    assert _prove(site, "--never", "anyone mounts writable under /etc")[0] == 0


def test_what_is_removed_or_moved_above_a_file_is_written(tmp_path: Path) -> None:
    policies = permit("all", "writeFile", 'resource == Sandbox::GuestPath::"/w"')
    site = write_bundle(tmp_path / "site", policies)
    code, report = _prove(site, "--never", "anyone writes /w/kept")
    (request,) = report["properties"][0]["requests"]
    assert (code, request["context"]["operation"]["__entity"]["id"] in {"remove", "move"}) == (1, True)
    assert _prove(site, "--never", "anyone writes under /w/kept")[0] == 0


def test_a_condition_that_cannot_be_evaluated_counts_against_the_claim(tmp_path: Path) -> None:
    site = write_bundle(tmp_path / "site", permit("many", "fork", "context.copies > 1000"))
    # Of more than 807 copies the sum is too large a number.
    more = "context.copies + 9223372036854775000 > 9223372036854775100"
    for kind, verdict in (("never", "refuted"), ("reachable", "refuted")):
        _file(site, f"properties: [{{name: a, {kind}: {{action: fork, when: {more}}}}}]")
        assert _prove(site)[1]["properties"][0]["verdict"] == verdict


def test_on_the_command_line(site: Path) -> None:
    never = ("--never", "anyone connects on port 444", "--never", "anyone mounts")
    code, report = _prove(site, *never, "--reachable", "anyone runs", "--always", "anyone runs")
    assert code == 1
    assert [each["verdict"] for each in report["properties"]] == ["holds", "holds", "refuted", "holds"]


def test_approvals(tmp_path: Path) -> None:
    source = SHIPPED / "regulated-data"
    approved = [policy for policy in PolicyBundle.load(source).policies if approval_of(policy.annotations)]
    assert [policy.id for policy in approved] == ["data-commands"]
    sentence = "anyone calls tool exec_command"
    assert _prove(source, "--never", f"{sentence} without approval")[0] == 0
    assert _prove(source, "--never", sentence)[0] == 1
    assert _prove(source, "--always", sentence)[0] == 1
    assert _prove(source, "--reachable", sentence)[0] == 0
    assert _prove(source, "--reachable", f"{sentence} without approval")[0] == 1


def test_two_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide, narrow = change(tmp_path, permit("p", "connect", "context.port == 443"), permit("p", "connect", TLS))
    other = write_bundle(tmp_path / "other", permit("q", "exec"), entities=entities(AGENTS))
    assert _prove(narrow, "--implies", wide)[0] == 0
    code, report = _prove(wide, "--implies", narrow)
    assert code == 1
    sides = report["properties"][0]["requests"][0]["sides"]
    assert (sides["these"]["allowed"], sides["those"]["allowed"]) == (True, False)
    assert _prove(wide, "--equivalent", narrow)[0] == 1
    assert _prove(wide, "--equivalent", wide, "--disjoint", other)[0] == 0
    assert _prove(wide, "--disjoint", narrow)[0] == 1
    # A file beside the policies names its neighbours from where the policies are.
    _file(narrow, "properties: [{name: within, implies: ../old}]")
    monkeypatch.chdir(tmp_path)
    assert _prove("new")[0] == 0


def test_a_revision_as_the_other_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    repository.commit(bundle_files(permit("p", "exec")))
    repository.write(bundle_files(permit("p", "exec", "context.shell")))
    monkeypatch.chdir(tmp_path)
    assert _prove("policies/site", "--implies", "HEAD")[0] == 0
    assert _prove("policies/site", "--equivalent", "main")[0] == 1


def test_without_a_solver(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cedarbox.review.prove.available", lambda: "no solver: pip install 'cedarbox[prove]'")
    result = cli("prove", site, "--never", "anyone connects")
    assert (result.exit_code, len(result.stdout.splitlines())) == (3, 1)
    assert "pip install 'cedarbox[prove]'" in result.stdout


def _in_cedar(when: str) -> str:
    return f"properties:\n  - {{name: a, never: {{action: connect, when: '{when}'}}}}\n"


def _one(claim: str) -> str:
    return f"properties:\n  - name: a\n    {claim}\n"


def test_a_second_opinion_needs_a_second_solver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = write_bundle(tmp_path / "site", permit("many", "fork", "context.copies > 2"))
    monkeypatch.setattr(policy_versions, "prover", _REAL_PROVER)
    code, report = _prove(site, "--never", "anyone forks copies 1-2", "--second-opinion")
    assert code == 0
    assert "cvc5+z3" in report["properties"][0]["solvers"]
    monkeypatch.setattr(solvers, "installed", lambda: ("cvc5",))
    refused = pytest.raises(ConfigurationError, match="needs two solvers")
    with refused, _REAL_PROVER(5, second_opinion=True)(schema_text()):
        pass


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("properties: []", 1, "no list of properties"),
        ("never: x", 1, "unknown key 'never'"),
        ("properties:\n  - name: a\n", 2, "claims one thing"),
        ("properties:\n  - never: anyone connects\n", 2, "without a name"),
        ("properties:\n  - {name: a, never: anyone runs}\n  - {name: a, never: anyone mounts}\n", 3, "second property"),
        (_one("never: anyone frobs"), 3, "'frobs' is no verb"),
        (_one("never: {action: fly}"), 3, "unknown action 'fly'"),
        (_one("never: {when: 'true'}"), 3, "no action"),
        (_one("disjoint: [x]"), 3, "two policies"),
        (_one("disjoint: [mirror, nothing]"), 2, "no policy 'nothing'"),
        (_one("implies: no-such-thing"), 2, "no-such-thing"),
        (_in_cedar("context.ip.isLoopback()"), 2, "does not fit"),
        (_in_cedar('context.port == "x"'), 2, "does not fit"),
        (_in_cedar("true }; permit (principal, action, resource) when { true"), 2, "more than one"),
        (_in_cedar("((("), 2, "no Cedar expression"),
        (_in_cedar("(" * 2000), 2, "deep"),
    ],
)
def test_what_is_no_property(site: Path, text: str, line: int, said: str) -> None:
    path = _file(site, text)
    result = cli("prove", site)
    assert result.exit_code != 0
    assert f"{path}:{line}" in str(result.exception)
    assert said in str(result.exception)
    assert str(result.exception).isprintable()


def test_a_file_that_is_no_file_of_properties(site: Path, tmp_path: Path) -> None:
    (site / "properties").mkdir()
    assert "no properties" in str(cli("prove", site).exception)
    (site / "properties" / "a.yml").write_text("properties: []")
    assert "rename it" in str(cli("prove", site).exception)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "b.yaml:1: not UTF-8 text" in str(cli("prove", site, "--properties", tmp_path / "b.yaml").exception)
    assert "a question by itself" in str(cli("prove", site, "--who-can", "run", "--never", "anyone runs").exception)


def test_plain_cedar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.cedarschema").write_text(
        "entity User { level: Long };\nentity Doc;\n"
        "action view appliesTo { principal: [User], resource: [Doc], context: { mfa: Bool } };\n"
    )
    Path("plain").mkdir()
    Path("plain/view.cedar").write_text("permit (principal, action, resource) when { principal.level > 3 };")
    Path("low.yaml").write_text(
        "properties:\n  - {name: low, never: {action: view, when: principal.level < 3}}\n"
        "  - {name: mfa, never: {action: view, unless: context.mfa}}\n"
    )
    code, report = _prove("plain", "--schema", "plain.cedarschema", "--properties", "low.yaml")
    assert code == 1
    assert [each["verdict"] for each in report["properties"]] == ["holds", "refuted"]


def test_the_shipped_files_read_as_written() -> None:
    for bundle in SHIPPED.iterdir():
        path = bundle / "properties/promises.yaml"
        told = read_properties(path)
        assert told
        for each in told:
            assert each.place is not None
            assert path.read_text().splitlines()[each.place.line - 1].strip() == f"- name: {each.name}"
