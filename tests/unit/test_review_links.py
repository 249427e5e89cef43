"""Template links of plain Cedar: with them templates are decided, without them nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import cli
from tests.unit.repositories import Repository

SCHEMA = """\
entity User;
entity Thing;
action look appliesTo { principal: [User], resource: [Thing], context: { tries: Long } };
"""
TEMPLATE = (
    '@id("t")\npermit (principal == ?principal, action == Action::"look", resource)\nwhen { context.tries < 3 };\n'
)


def link(user: str, name: str = "l", *, kind: str = "User") -> dict[str, Any]:
    """Return a link of the template."""
    return {"templateId": "t", "newId": name, "values": {"?principal": {"type": kind, "id": user}}}


def files(*links: dict[str, Any], template: str = TEMPLATE) -> dict[str, str]:
    """Return the files of a directory of policies."""
    return {"policies.cedar": template, "s.cedarschema": SCHEMA, "links.json": json.dumps(links)}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path / "plain")
    monkeypatch.chdir(made.top)
    return made


def diff(*options: str) -> tuple[int, str]:
    """Compare the last two commits."""
    result = cli("diff", "HEAD~1", "HEAD", "--bundle", "app", "--schema", "app/s.cedarschema", *options)
    return result.exit_code, result.output


def test_links_beside_the_policies(repository: Repository) -> None:
    repository.commit(files(link("ann")), "app")
    repository.commit(files(link("ann", "another name")), "app")
    code, told = diff()
    assert (code, "nothing that decides was changed" in told) == (0, True)
    repository.commit(files(link("ann"), link("bob", "m")), "app")
    code, told = diff()
    assert code == 1
    assert 'User::"bob"' in told
    assert "widened" in told
    result = cli("prove", "app", "--schema", "app/s.cedarschema", "--implies", "HEAD~1", "--equivalent", "HEAD")
    assert result.exit_code == 1
    assert "1 proved, 1 refuted" in result.output


def test_one_file_of_links_for_both(repository: Repository, tmp_path: Path) -> None:
    named = tmp_path / "links.json"
    named.write_text(json.dumps([link("ann")]))
    plain = files(link("ann"))
    del plain["links.json"]
    repository.commit(plain, "app")
    repository.commit({"policies.cedar": TEMPLATE.replace("< 3", "< 4")}, "app")
    assert diff()[0] == 3
    code, told = diff("--links", str(named))
    assert (code, 'User::"ann"' in told) == (1, True)
    named.write_text("[]")
    assert diff("--links", str(named))[0] == 0


@pytest.mark.parametrize(
    ("links", "told"),
    [
        ([{**link("ann"), "templateId": "u"}], "is of 'u', which is no template"),
        ([link("ann"), link("bob")], "has the id of another policy"),
        ([{**link("ann"), "values": {}}], "leaves a slot"),
        ([link("ann", kind="Robot")], "does not fit the schema"),
        ([{"templateId": "t"}], "incomplete"),
    ],
)
def test_links_that_are_none(tmp_path: Path, links: list[Any], told: str) -> None:
    for name, content in files(*links).items():
        (tmp_path / name).write_text(content)
    result = cli("diff", tmp_path, tmp_path, "--schema", tmp_path / "s.cedarschema")
    assert result.exit_code != 0
    assert told in f"{result.output}{result.exception}"
    assert "links.json" in f"{result.output}{result.exception}"


def test_links_of_a_bundle(tmp_path: Path) -> None:
    for command in (["diff", tmp_path, tmp_path], ["prove", tmp_path]):
        result = cli(*command, "--links", tmp_path / "links.json")
        assert "--links is for plain Cedar" in f"{result.output}{result.exception}"
