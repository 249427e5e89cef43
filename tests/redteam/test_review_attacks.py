"""Attacks on the verdict of a review: changes that permit more, and that are to pass as changes that do not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.differing import change, cli, diff, permit
from tests.unit.repositories import Repository

from cedarbox.errors import BundleError, CanonicalizationError
from cedarbox.policy import actions
from cedarbox.policy.canonical import Host
from cedarbox.policy.entities import Base
from cedarbox.review.subject import Subject

BASE = Base(datetime(2026, 1, 1, tzinfo=UTC), "boxlite")
SCHEMA = """\
entity Group;
entity User in [Group];
entity Thing;
action read;
action look in [read] appliesTo { principal: [User], resource: [Thing], context: { tries: Long } };
action erase appliesTo { principal: [User], resource: [Thing], context: { tries: Long } };
"""
READERS = '@id("readers")\npermit (principal in Group::"readers", action in Action::"read", resource);\n'
USER = {"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []}


def _plain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, str], after: dict[str, str]
) -> tuple[int, str]:
    """Compare two commits of plain Cedar, and return the exit code and what is printed."""
    repository = Repository(tmp_path / "plain")
    whole = {"policies.cedar": READERS, "entities.json": json.dumps([USER]), "s.cedarschema": SCHEMA}
    repository.commit(whole | before, "app")
    repository.commit(whole | before | after, "app")
    monkeypatch.chdir(repository.top)
    result = cli("diff", "HEAD~1", "HEAD", "--bundle", "app", "--schema", "app/s.cedarschema")
    return result.exit_code, result.output


def test_an_action_put_into_a_permitted_group_by_the_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No policy changes: the schema puts an action into a group that a policy permits. Both versions look alike when
    they are read with the new schema. It is not decided, with the name of the action, and never without effect.
    """
    changed = SCHEMA.replace("action erase", "action erase in [read]")
    code, told = _plain(tmp_path, monkeypatch, {}, {"s.cedarschema": changed})
    assert code == 3
    assert "the change of erase in the schema was not decided" in told


def test_a_user_put_into_a_group_of_plain_cedar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entities beside plain policies change, and a user is in the group that everything is permitted to. A search
    goes over all entities that there could be, so it sees no change. It is not decided.
    """
    inside = {**USER, "parents": [{"type": "Group", "id": "readers"}]}
    code, told = _plain(tmp_path, monkeypatch, {}, {"entities.json": json.dumps([inside])})
    assert code == 3
    assert "the change of entities.json was not decided" in told


def test_a_template_that_loses_its_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template is made wider, and who is linked to it stands in another file that is not compared. Without links it
    decides nothing, so nothing would be found. It is not decided.
    """
    template = (
        '@id("t")\npermit (principal == ?principal, action == Action::"look", resource)\nwhen { context.tries < 3 };\n'
    )
    wide = template.replace("context.tries < 3", "true")
    code, told = _plain(tmp_path, monkeypatch, {"policies.cedar": template}, {"policies.cedar": wide})
    assert code == 3
    assert "what is linked from templates was not decided" in told


def test_a_template_in_policies_of_which_something_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template permits what a property says never happens, and its links stand elsewhere. What is proved without them
    would hold of the policies alone: it is refused, naming the template, and nothing is called proved.
    """
    template = '@id("t")\npermit (principal == ?principal, action == Action::"look", resource);\n'
    _plain(tmp_path, monkeypatch, {"policies.cedar": template}, {})
    result = cli("prove", "app", "--implies", "HEAD~1", "--schema", "app/s.cedarschema")
    assert result.exit_code != 0
    assert "'t' is a template without links" in f"{result.output}{result.exception}"


def test_links_that_a_change_brings_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change adds the file with the links of a template, or takes it away. Taken for both versions, it would look
    like no change. What is linked anew is a widening, and the links that a version has not are not decided.
    """
    template = '@id("t")\npermit (principal == ?principal, action == Action::"look", resource);\n'
    link = {"templateId": "t", "newId": "l", "values": {"?principal": {"type": "User", "id": "u"}}}
    code, told = _plain(tmp_path, monkeypatch, {"policies.cedar": template}, {"links.json": json.dumps([link])})
    unknown = "what is linked from templates was not decided: the links of HEAD"
    assert (code, unknown in told) == (1, True)
    named = ("--schema", "app/s.cedarschema", "--bundle", "app", "--links", "app/links.json")
    for versions, expected in ((("HEAD~1", "HEAD"), 1), (("HEAD~1",), 1), (("HEAD", "HEAD~1"), 3)):
        result = cli("diff", *versions, *named)
        assert (result.exit_code, unknown in result.output) == (expected, True), versions


def test_entities_that_differ_between_what_is_proved_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Policies are to permit no more than before, and the same as before: they are the same to the letter, and a user
    was put into the group that they permit. A search knows no entities, so that is not decided, and never proved.
    """
    inside = {**USER, "parents": [{"type": "Group", "id": "readers"}]}
    _plain(tmp_path, monkeypatch, {}, {"entities.json": json.dumps([inside])})
    asked = ("--schema", "app/s.cedarschema", "--json")
    result = cli("prove", "app", "--implies", "HEAD~1", "--equivalent", "HEAD~1", *asked)
    told = json.loads(result.stdout)["properties"]
    assert (result.exit_code, {each["verdict"] for each in told}) == (3, {"undecided"})
    assert all("entities.json is not the same in both" in each["why"] for each in told)
    same = cli("prove", "app", "--implies", "HEAD", "--equivalent", "HEAD", *asked)
    assert same.exit_code == 0


def test_a_widening_too_hard_to_find_behind_a_narrowing(tmp_path: Path) -> None:
    """A pattern that no solver gets through in time replaces a plain one, so that only what is lost is found. The plan
    must not call that narrowed, nor pass the check that nothing is widened.
    """
    stars = "*a" * 600
    old, new = (
        permit("p", "invokeTool", 'resource.name like "a"'),
        permit("p", "invokeTool", f'resource.name like "{stars}"'),
    )
    report = diff(tmp_path, old, new, "--timeout", "0.2")
    outcomes = {row["outcome"] for row in report["bundles"][0]["plan"]}
    if report["exit"] == 1:
        assert outcomes <= {"widened", "widened and narrowed", "not decided"}
    else:
        assert report["exit"] == 3
        assert outcomes == {"not decided"}
        assert not [check for check in report["checks"] if "invokeTool on Tool is not widened" in check["name"]]


@pytest.mark.parametrize("port", [0, -1, 65536, 2**63, True])
def test_a_port_that_is_none(port: int) -> None:
    """Ports that no connection has. Reviews take it for granted that a policy never sees one, so a condition against
    them proves to be without effect. No builder makes a request with one, whoever asks.
    """
    with pytest.raises(CanonicalizationError, match="not a port"):
        actions.connect(BASE, Host("a.example"), port=port, proto="tcp")
    with pytest.raises(CanonicalizationError, match="not a port"):
        actions.expose_port(BASE, port=port, public=False)
    with pytest.raises(CanonicalizationError, match="not a port"):
        actions.use_secret(BASE, name="s", host=Host("a.example"), port=port)


def test_a_list_of_no_actions(tmp_path: Path) -> None:
    """A policy about an empty list of actions. The loader does not fall over it: it is refused in one line that names
    the file and the policy.
    """
    with pytest.raises(BundleError, match=r"policies\.cedar:1:1: policy 'x' does not fit the schema"):
        Subject.load(change(tmp_path, "", '@id("x") permit (principal, action in [], resource);')[1])


def test_texts_that_mean_something_to_a_solver(tmp_path: Path) -> None:
    """Texts of policies that are escapes, quotes or commands where solvers read them. Two that differ for Cedar are
    never alike for the proof: each change is a widening, with a request that Cedar itself decides so.
    """
    pairs = [
        (r"\\u{41}", "A"), (r"\\u0041", "A"), (r"a\"\"b", r"a\"b"), (r"\0", r"\u{1}"), (r"|)(assert false)", "x"),
        (r"\u{2028}", r"\n"), (r"\u{1F512}", r"\u{1F513}"),
    ]  # fmt: skip
    old = "".join(permit(f"p{i}|", "invokeTool", f'resource.name == "{a}"') for i, (a, _) in enumerate(pairs))
    new = "".join(permit(f"p{i}|", "invokeTool", f'resource.name == "{b}"') for i, (_, b) in enumerate(pairs))
    report = diff(tmp_path, old, new)
    assert report["exit"] == 1
    policies = {widening["subject"]["policy"] for widening in report["bundles"][0]["widenings"]}
    # Two of the new texts are the same, and each is found for both policies.
    assert policies == {f"p{i}|" for i in range(len(pairs))}


def test_solvers_killed_while_they_search(tmp_path: Path) -> None:
    """Whoever runs the review, or the machine that is short of memory, kills the solvers again and again. What they
    were asked is not decided, or found by one that lived; never without effect.
    """
    old, new = change(
        tmp_path,
        permit("p", "connect", 'resource is Sandbox::Host && resource.fqdn like "*.a*b*c.example"'),
        permit("p", "connect", 'resource is Sandbox::Host && resource.fqdn like "*a*b*c.example"'),
    )
    command = [sys.executable, "-P", "-m", "cedarbox", "policy", "diff", str(old), str(new), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed: list[int] = []

    def kill() -> None:
        while process.poll() is None:
            for child in _children(process.pid):
                killed.append(child)
                os.kill(child, signal.SIGKILL)
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    told, _ = process.communicate(timeout=120)
    killer.join()
    assert killed
    assert process.returncode in {1, 3}
    assert "no effect" not in {
        row["outcome"] for row in json.loads(told)["bundles"][0]["plan"] if row["resource"] == "Host"
    }


def _children(parent: int) -> list[int]:
    found: list[int] = []
    # A child belongs to the thread that started it.
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, task.read_text().split())
    return found
