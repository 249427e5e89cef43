"""Attacks on the review by the change that is reviewed: it has the files that say what is reviewed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import cli, permit
from tests.unit.repositories import Repository, bundle_files

GOOD = permit("mirror", "connect", 'resource == Sandbox::Host::"mirror.corp.example"')
CASES = """\
connect:
  defaults: {principal: agent, port: 443, proto: tls}
  allow:
    - {case: the mirror, target: mirror.corp.example, ip: 10.0.0.5, by: mirror}
  deny:
    - {case: metadata, target: 169.254.169.254}
    - {case: another, target: other.example, ip: 203.0.113.7}
"""
PROPERTIES = """\
properties:
  - name: metadata is out of reach
    never: {action: connect, when: 'context.ipClass == Sandbox::IpClass::"metadata"'}
"""
CONFIG = '[rules]\nS021 = "error"\n[options]\nsensitive_paths = ["/srv/ledger"]\nmax_ports = 4\n'
ENTRY = {"fingerprint": "0" * 32, "rule": "S013", "file": "policies.cedar", "policy": "mirror", "message": "reaches"}


def _baseline(*entries: dict[str, str]) -> str:
    return json.dumps({"format": "cedarbox lint baseline 1", "findings": entries})


FILES = {
    **bundle_files(GOOD),
    "tests/network.yaml": CASES,
    "properties/site.yaml": PROPERTIES,
    "lint.toml": CONFIG,
    "known.json": _baseline(),
}


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str | None]], list[dict[str, Any]]]:
    """Return what makes a change of a repository, and gives what the report says of the review itself."""
    repository = Repository(tmp_path / "site")
    repository.commit(FILES)
    monkeypatch.chdir(repository.top)

    def change(files: dict[str, str | None]) -> list[dict[str, Any]]:
        directory = repository.write({name: text for name, text in files.items() if text is not None})
        for name in (name for name, text in files.items() if text is None):
            (directory / name).unlink()
        result = cli("diff", "main", "--bundle", "policies/site", "--json")
        report = json.loads(result.stdout)
        assert result.exit_code == 0, report["summary"]
        return [each for each in report["findings"] if each["rule"] == "D105"]

    return change


Told = Callable[[dict[str, str | None]], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CONFIG.replace("[options]", 'S013 = {severity = "off", reason = "no time"}\n[options]'), "S013 (reaches-i"),
        (CONFIG.replace("[options]", 'S013 = {severity = "note", reason = "no time"}\n[options]'), "is only a note"),
        (CONFIG.replace('"error"', '"warning"'), "S021 (mount-through-link) is only a warning, and was an error"),
        (f'fail_level = "error"\n{CONFIG}', "lint fails at an error only, and did at a warning"),
        (CONFIG.replace('"/srv/ledger"', ""), "sensitive_paths has /srv/ledger no more"),
        (CONFIG.replace("= 4", "= 60000"), "max_ports is 60000, and was 4"),
        (f'{CONFIG}wide_domains = ["com"]\n', "wide_domains has com besides"),
        (f'{CONFIG}isolation_floor = "none"\n', "isolation_floor is none, and was microvm"),
    ],
)
def test_a_rule_is_switched_off_by_the_change_that_it_is_about(config: str, said: str, told: Told) -> None:
    """A change makes a rule of the linter milder in lint.toml, so that lint has nothing to say of its policies.

    The comparison warns of each rule and each option that says less, at its line, whatever lint reports.
    """
    (finding,) = told({"lint.toml": config})
    assert said in finding["message"]
    assert finding["severity"] == "warning"
    assert finding["file"] == "policies/site/lint.toml"
    names = {"S013", "S021", "fail_level", "sensitive_paths", "max_ports", "wide_domains", "isolation_floor"}
    assert any(name in config.splitlines()[finding["line"] - 1] for name in names)


def test_a_stricter_configuration_is_taken_away(told: Told) -> None:
    """A change deletes lint.toml, which made rules stricter than they are by default.

    Everything that it made stricter is told, at the bundle, since the file is gone.
    """
    found = told({"lint.toml": None})
    told_of = [finding["message"].split(": ", 1)[1].split()[0] for finding in found]
    assert told_of == ["S021", "sensitive_paths", "max_ports"]
    assert {finding["file"] for finding in found} == {"policies/site/bundle.toml"}


def test_a_configuration_is_made_unreadable(told: Told) -> None:
    """A change leaves lint.toml broken, so that what it says now cannot be compared.

    That is told too: what cannot be read is not taken for unchanged.
    """
    (finding,) = told({"lint.toml": "rules = ["})
    assert "lint.toml cannot be used any more" in finding["message"]


def test_a_suppression_comes_with_what_it_suppresses(told: Told) -> None:
    """A change brings a comment that suppresses a rule for its policy, and one that does for the whole file.

    Both are told with their reasons and lines. One that was there before, or that only moved, is not.
    """
    one = "// cedarbox-lint: ignore S013 -- the console needs it\n"
    found = told({"policies.cedar": one + GOOD})
    assert [(each["policy"], each["line"]) for each in found] == [("mirror", 1)]
    assert "S013 is suppressed for mirror, and was not: the console needs it" in found[0]["message"]
    whole = one.replace("ignore", "ignore-file")
    found = told({"policies.cedar": f"{whole}\n{GOOD}"})
    assert "for a whole file" in found[0]["message"]


def test_a_finding_is_put_into_the_baseline(told: Told) -> None:
    """A change adds an entry to the baseline of the linter, in the bundle.

    What was added is told, by rule and policy.
    """
    (finding,) = told({"known.json": _baseline(ENTRY)})
    assert "1 more finding is in the baseline: S013 of mirror" in finding["message"]
    assert finding["file"] == "policies/site/known.json"


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (CASES.replace("    - {case: metadata, target: 169.254.169.254}\n", ""), "connect[deny metadata]"),
        (CASES.replace("target: 169.254.169.254", "target: 203.0.113.9"), "connect[deny metadata]"),
        (CASES.replace("by: mirror", "by: [mirror, other]"), "cannot be read any more: tests/network.yaml:"),
        (None, "3 test cases of tests/network.yaml are gone"),
    ],
)
def test_a_test_case_is_taken_away(cases: str | None, said: str, told: Told) -> None:
    """A change removes a case that it would fail, turns it to something harmless, or removes the whole file.

    Cases are compared by what they ask for, so a case of the same name with another request counts as gone.
    """
    (finding,) = told({"tests/network.yaml": cases})
    assert said in finding["message"]


@pytest.mark.parametrize(
    "properties",
    [
        None,
        PROPERTIES.replace("metadata is out", "loopback is out").replace('"metadata"', '"loopback"'),
        PROPERTIES.replace("never: {action: connect,", "never: {action: connect, unless: 'true',"),
    ],
)
def test_a_property_is_taken_away(properties: str | None, told: Told) -> None:
    """A change removes a property that it would refute, or has it claim next to nothing under the same name.

    Properties are compared by what they claim, and what is gone is told.
    """
    (finding,) = told({"properties/site.yaml": properties})
    assert "a property of properties/site.yaml is gone or says something else: metadata is out of" in finding["message"]


def test_nothing_is_told_of_a_review_that_only_grew(told: Told) -> None:
    """The other side of these attacks: a warning that always comes is one that nobody reads.

    Stricter rules, more cases and properties, other names and another order weaken nothing.
    """
    first, second = CASES.splitlines(keepends=True)[-2:]
    stricter = CONFIG.replace("= 4", "= 1").replace("[options]", 'S012 = "error"\n[options]')
    cases = CASES.replace(first + second, second + first.replace("metadata", "the same by another name"))
    more = '  - {name: more, never: {action: exec, when: "true"}}\n'
    assert told({"lint.toml": stricter, "tests/network.yaml": cases, "properties/site.yaml": PROPERTIES + more}) == []
