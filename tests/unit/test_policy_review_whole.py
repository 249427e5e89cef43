"""``cedarbox policy review`` with its real parts, in a git repository."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.report_schemas import assert_gitlab, assert_junit, assert_sarif
from typer.testing import CliRunner

from cedarbox.cli.policy import app
from cedarbox.review.formatting import FormatError


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that ships, in a repository that has it in its first commit."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED / "airgapped", tmp_path / "policies" / "site")
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        subprocess.run(["git", *identity, *arguments], check=True)
    return Path("policies/site")


def review(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app, ["review", "policies/site", "--json", *arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def outcomes(document: dict[str, Any]) -> dict[str, int]:
    return {part["command"]: part["exit_code"] for part in document["parts"]}


def test_a_bundle_that_ships_is_good(bundle: Path) -> None:
    code, document = review("--base", "main", "--no-prover")
    assert outcomes(document) == dict.fromkeys(("check", "fmt", "lint", "test", "diff", "prove"), 0)
    assert code == 0, document["findings"]


def test_a_change_that_widens(bundle: Path) -> None:
    sandbox = bundle / "sandbox.cedar"
    text = sandbox.read_text()
    assert "context.vcpus <= 4" in text
    sandbox.write_text(text.replace("context.vcpus <= 4", "context.vcpus <= 5", 1))
    names = {"sarif": "a.sarif", "junit": "a.xml", "gitlab": "a.json", "markdown": "a.md"}
    outputs = (f"--output={form}={name}" for form, name in names.items())
    code, document = review("--base", "main", "--no-prover", *outputs)
    assert code == 1
    found = outcomes(document)
    assert (found["check"], found["fmt"], found["diff"]) == (0, 0, 1), document["findings"]
    widened = [finding for finding in document["findings"] if finding["rule"] == "D100"]
    assert widened
    assert widened[0]["file"] == "policies/site/sandbox.cedar"
    assert_sarif(Path("a.sarif").read_text())
    assert list(assert_junit(Path("a.xml").read_text()).iter("failure"))
    assert assert_gitlab(Path("a.json").read_text())
    assert "vcpus" in Path("a.md").read_text()


def test_a_bundle_that_is_not_cedar(bundle: Path) -> None:
    (bundle / "network.cedar").write_text("permit (principal, action resource);\n")
    code, document = review("--base", "main")
    assert code == 1
    assert outcomes(document) == {"check": 1, "fmt": 3, "lint": 3, "test": 3, "diff": 3, "prove": 3}
    (finding,) = document["findings"]
    assert (finding["rule"], finding["file"], finding["line"]) == ("C002", "policies/site/network.cedar", 1)
    # That it failed is told by the error, and not a second time.
    assert [each["message"] for each in document["checks"] if each["status"] == "failed"] == []


def test_a_widening_is_told_although_the_test_cases_cannot_be_used(bundle: Path) -> None:
    sandbox, tests = bundle / "sandbox.cedar", bundle / "tests" / "network.yaml"
    sandbox.write_text(sandbox.read_text().replace("context.vcpus <= 4", "context.vcpus <= 5", 1))
    tests.write_text(tests.read_text().replace("airgap-no-network", "gone"))
    code, document = review("--base", "main", "--only", "check", "--only", "test", "--only", "diff")
    assert code == 1
    assert outcomes(document) == {"check": 1, "test": 3, "diff": 1}
    told = [each["rule"] for each in document["findings"] if each["severity"] == "error"]
    assert list(dict.fromkeys(told)) == ["D100", "C008"]


def test_a_file_that_the_formatter_refuses_ends_no_review(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> str:
        raise FormatError("Cedar's formatter would change a comment", 3)

    monkeypatch.setattr("cedarbox.review.formatting.format_policies", refuse)
    code, document = review("--only", "fmt", "--only", "test")
    assert (code, outcomes(document)) == (1, {"fmt": 1, "test": 0})
    (finding,) = document["findings"]
    assert (finding["rule"], finding["line"]) == ("fmt-refused", 3)


def test_what_is_not_formatted_is_told_once(bundle: Path) -> None:
    sandbox = bundle / "sandbox.cedar"
    sandbox.write_text(sandbox.read_text().replace("permit (", "permit(", 1))
    code, document = review("--only", "fmt", "--only", "lint", "--no-prover")
    assert [each["rule"] for each in document["findings"] if each["file"] == "policies/site/sandbox.cedar"] == ["F001"]
    assert code == 1
    code, document = review("--only", "lint", "--no-prover")
    assert [each["rule"] for each in document["findings"]] == ["S090"]


@pytest.mark.parametrize("option", [("--prover",)] if os.environ.get("CEDARBOX_LONG") != "1" else [(), ("--prover",)])
def test_without_a_solver_the_summary_names_each_part_that_is_open(
    option: tuple[str, ...], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cedarbox.review.prove.solvers.installed", lambda: ())
    network = bundle / "sandbox.cedar"
    network.write_text(network.read_text().replace("context.vcpus <= 4", "context.vcpus <= 3", 1))
    code, document = review("--base", "main", "--only", "lint", "--only", "diff", "--fail-level", "error", *option)
    lint, diff = document["summary"].split(", ", 1)
    assert lint.startswith("lint not decided (" if option else "lint good (")
    assert lint.endswith(" rules not proved)")
    assert (code, diff.partition(" (")[0]) == (3, "diff not decided")


def test_a_bundle_is_found_in_its_repository_from_anywhere(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "link").symlink_to(tmp_path)
    given = [("", "policies/site"), ("policies", "site"), ("policies/site", "."), ("policies/site/tests", "..")]
    given += [(str(elsewhere), f"../{tmp_path.name}/policies/site"), (str(elsewhere), "link/policies/site")]
    given += [("/", str(tmp_path / "policies/site"))]
    for directory, path in given:
        monkeypatch.chdir(tmp_path / directory)
        done = CliRunner().invoke(app, ["review", path, "--base", "main", "--only", "diff", "--json"])
        assert done.exit_code == 0, (directory, path, done.output, done.exception)
        assert json.loads(done.stdout)["summary"] == "diff good"


def test_what_the_tests_say_the_linter_does_not_say_again(bundle: Path) -> None:
    network = bundle / "sandbox.cedar"
    network.write_text(network.read_text().replace("context.vcpus <= 4", "context.vcpus <= 3", 1))
    code, document = review("--only", "lint", "--only", "test")
    assert (code, {each["rule"] for each in document["findings"]}) == (1, {"T001"})
    assert "test failed (" in document["summary"]
