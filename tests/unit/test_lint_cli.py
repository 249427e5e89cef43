"""``cedarbox policy lint``: what it prints, its exit codes, its options, its refusals."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, write_bundle
from tests.unit.linting import permit
from typer.testing import CliRunner

from cedarbox.cli import app
from cedarbox.errors import CedarboxError
from cedarbox.policy.schema import enumerations
from cedarbox.review.formatting import format_policies
from cedarbox.review.lint.options import ISOLATIONS

BUNDLES = sorted(path.name for path in SHIPPED.iterdir())
RULES = ("--rule", "S003", "--rule", "S014", "--rule", "S005")


def _run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["policy", "lint", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, (SystemExit, CedarboxError)):
        raise result.exception
    if isinstance(result.exception, CedarboxError):
        return 2, str(result.exception)
    return result.exit_code, result.output


def _wide(tmp_path: Path) -> Path:
    text = permit("all", "exec").replace('principal in Sandbox::AgentGroup::"agents"', "principal")
    return write_bundle(tmp_path / "bundle", text)


@pytest.mark.parametrize("name", BUNDLES)
def test_the_bundles_that_ship_have_no_finding_of_any_severity(name: str) -> None:
    code, printed = _run(SHIPPED / name, "--fail-level", "note", "--json")
    told = json.loads(printed)
    assert code == 0
    kinds = [finding["suppressed"] and finding["suppressed"]["kind"] for finding in told["findings"]]
    assert kinds == ["inline"] * {"developer": 2}.get(name, 0)


def test_what_init_writes_has_no_finding(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["init", str(tmp_path), "--profile", "developer"])
    assert made.exit_code == 0
    code, printed = _run(tmp_path / "policies/developer", "--fail-level", "note", "--no-prover", "--json")
    assert (code, [each for each in json.loads(printed)["findings"] if not each["suppressed"]]) == (0, [])


def test_a_finding_at_the_fail_level_is_exit_code_1_and_one_below_is_not(tmp_path: Path) -> None:
    bundle = _wide(tmp_path)
    assert _run(bundle, *RULES)[0] == 1
    code, printed = _run(bundle, *RULES, "--fail-level", "error")
    assert code == 0
    assert "S003" in printed
    assert _run(bundle, "--rule", "permits-everybody")[0] == 1
    assert _run(bundle, *RULES, "--disable", "S003")[0] == 0


def test_a_configuration_beside_the_policies_is_read_or_the_one_that_is_named(tmp_path: Path) -> None:
    bundle = _wide(tmp_path)
    (bundle / "lint.toml").write_text('fail_level = "error"\n')
    assert _run(bundle, *RULES)[0] == 0
    other = tmp_path / "strict.toml"
    other.write_text('[rules]\nS003 = "error"\n')
    assert _run(bundle, *RULES, "--config", other)[0] == 1
    assert _run(bundle, *RULES, "--config", tmp_path / "none.toml")[0] == 2


def test_a_baseline_is_written_and_takes_its_findings_away(tmp_path: Path) -> None:
    bundle, baseline = _wide(tmp_path), tmp_path / "known.json"
    code, printed = _run(bundle, *RULES, "--baseline", baseline, "--write-baseline")
    assert code == 0
    assert "1 findings were written" in printed
    code, printed = _run(bundle, *RULES, "--baseline", baseline)
    assert code == 0
    assert "1 finding suppressed" in printed
    (bundle / "policies.cedar").write_text(permit("all", "exec"))
    code, printed = _run(bundle, *RULES, "--rule", "S094", "--baseline", baseline)
    assert code == 0
    assert "is not found any more" in printed


def test_fix_writes_and_diff_only_shows(tmp_path: Path) -> None:
    text = permit("site", "connect", 'when { context has ip && context.ip.isInRange(ip("10.20.3.4/16")) }')
    bundle = write_bundle(tmp_path, format_policies(text))
    before = (bundle / "policies.cedar").read_bytes()
    code, printed = _run(bundle, *RULES, "--fix", "--diff")
    assert code == 1
    assert '+when { context has ip && context.ip.isInRange(ip("10.20.0.0/16")) };' in printed
    assert "nothing was written" in printed
    assert (bundle / "policies.cedar").read_bytes() == before
    code, printed = _run(bundle, *RULES, "--fix")
    assert code == 0
    assert "1 changes were made in 1 files" in printed
    assert b"10.20.0.0/16" in (bundle / "policies.cedar").read_bytes()


def test_explain_prints_the_page_and_rules_prints_all(tmp_path: Path) -> None:
    code, printed = _run("--explain", "S013")
    assert code == 0
    assert printed.startswith("# S013 reaches-inner-address\n")
    assert _run("--explain", "reaches-inner-address") == (0, printed)
    code, printed = _run("--rules")
    assert code == 0
    assert "S090  error    not-formatted:" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--explain", "S999"), "there is no rule"),
        (("--rule", "S999"), "there is no rule"),
        (("--disable", "nothing"), "there is no rule"),
        (("--fail-level", "fatal"), "is no severity"),
        (("--diff",), "go with --fix"),
        (("--unsafe-fixes",), "go with --fix"),
        (("--write-baseline",), "add --baseline"),
        (("--baseline", "known.json", "--write-baseline", "--fix"), "at once"),
        (("--baseline", "missing.json"), "no such baseline"),
    ],
)
def test_what_cannot_be_used_is_one_line_that_says_so(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, printed = _run(_wide(tmp_path), *arguments)
    assert code == 2
    assert said in printed
    assert "\n" not in printed.strip()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"{",
        b"[]",
        b'{"format": "x"}',
        b'{"format": "cedarbox lint baseline 1", "findings": [1]}',
        b"[" * 99_999,
    ],
)
def test_a_file_that_is_no_baseline_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "known.json"
    path.write_bytes(content)
    code, printed = _run(_wide(tmp_path), "--baseline", path)
    assert code == 2
    assert "known.json" in printed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff", "not UTF-8 text"),
        (b"x = ", "not TOML"),
        (b"a = " + b"[" * 5000, "not TOML"),
        (b"[rules]\nS013 = 1", "cannot use what is said"),
        (b'[rules]\nS013 = "loud"', "severity of S013"),
        (b"rules = 1", "table of rules"),
        (b"[options]\nmax_ports = true", "must be a whole number"),
        (b"[options]\nmax_ports = 0", "1 or more"),
        (b'[options]\nsensitive_paths = ["etc"]', "not absolute"),
        (b'[options]\nsensitive_paths = ["/etc/"]', "write '/etc'"),
        (b'[options]\nwide_domains = ["CORP"]', "write 'corp'"),
        (b'[options]\nisolation_floor = "vm"', "known: none"),
        (b'fail_level = "all"', "one of error"),
        (b"#" * 300_000, "larger than"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    bundle = _wide(tmp_path)
    (bundle / "lint.toml").write_bytes(content)
    code, printed = _run(bundle)
    assert code == 2
    assert "lint.toml" in printed
    assert said in printed


def test_every_isolation_of_the_schema_is_stronger_or_weaker_than_others() -> None:
    assert len(ISOLATIONS) == len(set(ISOLATIONS))
    assert set(ISOLATIONS) == enumerations()["Isolation"]


def test_options_are_used(tmp_path: Path) -> None:
    tls = 'when { context.proto == Sandbox::Proto::"tls" && context.ipClass == Sandbox::IpClass::"public" }'
    text = permit("d", "connect", tls, "when { context.port < 90 }", resource='resource in Sandbox::Domain::"corp"')
    text += permit("w", "mountWrite", resource='resource in Sandbox::HostPath::"/srv/ledger/x"')
    bundle = write_bundle(tmp_path, text)
    asked = [each for rule in ("S010", "S012", "S020") for each in ("--rule", rule)]
    first = json.loads(_run(bundle, *asked, "--no-prover", "--json")[1])
    assert sorted(finding["rule"] for finding in first["findings"]) == ["S010", "S012"]
    options = '[options]\nwide_domains = ["corp"]\nmax_ports = 100\nsensitive_paths = ["/srv/ledger"]\n'
    (bundle / "lint.toml").write_text(options)
    second = json.loads(_run(bundle, *asked, "--no-prover", "--json")[1])
    assert [finding["rule"] for finding in second["findings"]] == ["S020"]


def test_without_the_prover_the_report_says_what_was_not_proved(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, permit("run", "exec"))
    code, printed = _run(bundle, "--rule", "S060", "--no-prover")
    assert code == 0
    assert "not proved: S060: the prover was switched off" in printed


def test_a_prover_that_is_needed_and_not_there_is_exit_code_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cedarbox.review.lint.proving as proving

    monkeypatch.setattr(proving, "available", lambda: "no solver is installed; pip install 'cedarbox[prove]'")
    bundle = write_bundle(tmp_path, permit("run", "exec"))
    assert _run(bundle, "--rule", "S060")[0] == 0
    code, printed = _run(bundle, "--rule", "S060", "--prover")
    assert code == 3
    assert "no solver is installed" in printed


SCHEMA = """\
entity Team;
entity Person in [Team];
entity Note { owner: Person, about?: String };
action read, write appliesTo { principal: Person, resource: Note };
"""
OWNERS = '@id("owners")\npermit (principal, action, resource)\nwhen { resource.owner == principal };\n'


def _cedar(directory: Path, policies: str) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "notes.cedar").write_text(format_policies(policies))
    (directory / "notes.cedarschema").write_text(SCHEMA)
    return directory


def test_policies_of_another_project_are_linted_without_the_rules_about_sandboxes(tmp_path: Path) -> None:
    given = _cedar(tmp_path / "a", OWNERS)
    (given / "notes.cedar").write_text(
        OWNERS.replace("@id", "// as it was\n@id") + '@id("x") forbid (principal, action, resource);'
    )
    code, printed = _run(given, "--no-prover", "--json")
    told = json.loads(printed)
    assert code == 1
    assert {"S002", "S090"} <= {finding["rule"] for finding in told["findings"]}
    (note,) = [note for note in told["notes"] if note.startswith("not run, they are about sandboxes: ")]
    assert {"S013", "S080"} <= set(note.partition(": ")[2].split(", "))
    schema = (given / "notes.cedarschema").rename(tmp_path / "b.cedarschema")
    assert _run(given, "--no-prover")[0] == 2
    options = ("--no-prover", "--json", "--schema", schema)
    for path in (given, given / "notes.cedar"):
        again = json.loads(_run(path, *options)[1])
        assert [each["rule"] for each in again["findings"]] == [each["rule"] for each in told["findings"]]


def test_the_prover_is_asked_about_policies_of_another_project(tmp_path: Path) -> None:
    never = "when { resource.owner == principal && !(principal == resource.owner) }"
    given = _cedar(tmp_path / "a", f'@id("never") permit (principal, action, resource) {never};')
    code, printed = _run(given, "--rule", "S060")
    assert code == 1
    assert "matches no request: proved" in printed


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--schema", "entity", "not a schema"),
        (
            "--entities",
            '[{"uid": {"type": "Ghost", "id": "1"}, "attrs": {}, "parents": []}]',
            "does not fit the schema",
        ),
        ("--links", '{"templateLinks": 1}', "list of template links"),
    ],
)
def test_a_file_of_another_project_that_cannot_be_used_is_named(
    option: str, content: str, said: str, tmp_path: Path
) -> None:
    given = _cedar(tmp_path / "a", OWNERS)
    (tmp_path / "wrong").write_text(content)
    code, printed = _run(given, option, tmp_path / "wrong")
    assert code == 2
    assert said in printed
    assert "wrong" in printed
    assert "\n" not in printed.strip()


def test_the_time_of_the_prover_holds_for_all_questions_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cedarbox.review.prove.solvers import Solved, Solvers

    limits = []

    def slow(self: Solvers, solver: str, text: str, values: object, limit_s: float) -> Solved:
        limits.append(limit_s)
        time.sleep(limit_s)
        return Solved("unknown", "", "it was slow", limit_s)

    monkeypatch.setattr(Solvers, "solve", slow)
    conditions = [f'when {{ context.base.backend like "*{letter}" }}' for letter in "abcdefgh"]
    bundle = write_bundle(tmp_path, "".join(permit(f"p{n}", "exec", each) for n, each in enumerate(conditions)))
    report = json.loads(_run(bundle, "--prover-timeout", "2", "--rule", "S061", "--rule", "S060", "--json")[1])
    assert report["prover"]["questions"] > len(limits)
    # Two solvers run at once, so that no two of them are waited for any longer than the whole may take.
    assert 0 < sum(limits) <= 2 * 2
    assert report["open"].endswith("not decided")


@pytest.mark.parametrize("name", ["D100", "change-widens", "t001", "C003", "P002", "s013"])
def test_a_rule_of_any_command_is_explained(name: str) -> None:
    done = CliRunner().invoke(app, ["policy", "lint", "--explain", name])
    assert (done.exit_code, done.stdout[:2]) == (0, "# ")
    assert "Severity: " in done.stdout
    assert len(done.stdout) > 200
