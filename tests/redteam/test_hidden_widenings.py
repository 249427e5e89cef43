"""Attacks on the plan of a change: a widening that is written so that a reviewer, or the plan, looks past it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import AGENTS, change, cli, diff, entities, findings, permit, shared_prover, subjects
from tests.unit.repositories import METADATA, Repository, bundle_files

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.review.diff import plan as planning
from cedarbox.review.prove import Answer, Prover, Query

FEW = permit("few", "fork", "context.copies <= 2")
CODERS, OTHERS = (f'principal in Sandbox::AgentGroup::"{name}"' for name in ("coders", "others"))


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


def test_a_widening_hidden_behind_another(tmp_path: Path) -> None:
    """A pull request widens one policy a little, and says so, and with it adds a permit and takes away a forbid of the
    same action. Each of the three is found with a request of its own, not only the first that the solver comes upon."""
    old = FEW + permit("never", "fork", "context.copies == 0", effect="forbid")
    new = FEW.replace("<= 2", "<= 3") + permit("also", "fork", "context.copies == 1000000")
    report = diff(tmp_path, old, new)
    assert [each[3] for each in subjects(report)] == ["also", "few", "never"]
    asked = {each["policy"]: each["details"]["witness"]["context"]["copies"] for each in findings(report)}
    assert asked["also"] == 1_000_000
    assert (asked["few"], asked["never"]) == (3, 0)


def test_a_rename_with_a_silent_widening(tmp_path: Path) -> None:
    """A policy gets another id and, in the same edit, another limit; then it is only renamed. The first is a widening
    by the new id, told as changed from the old one; the second has no effect and is told as renamed."""
    both = FEW.replace('"few"', '"a-few"').replace("<= 2", "<= 3")
    report = diff(tmp_path, FEW, both)
    assert [each[3] for each in subjects(report)] == ["a-few"]
    told = next(section for section in report["sections"] if section["title"] == "Policies")
    assert told["rows"][0][:2] == ["a-few", "changed from few"]
    renamed = diff(tmp_path, FEW, FEW.replace('"few"', '"a-few"'))
    assert (renamed["exit"], subjects(renamed)) == (0, [])
    assert next(each for each in renamed["sections"] if each["title"] == "Policies")["rows"][0][1] == "renamed from few"


def test_ids_swapped_between_two_policies(tmp_path: Path) -> None:
    """Two policies exchange their ids, so that a comparison by id sees two changes: nothing is permitted that was not,
    and it says so. Exchanged between a permit and a forbid, with the bodies left in place, it is found."""
    more = permit("more", "fork", "context.copies == 9")
    swapped = FEW.replace('"few"', '"more"') + more.replace('"more"', '"few"')
    report = diff(tmp_path, FEW + more, swapped)
    assert (report["exit"], subjects(report)) == (0, [])
    effects = permit("few", "fork", "context.copies == 9") + permit(
        "more", "fork", "context.copies <= 2", effect="forbid"
    )
    report = diff(tmp_path, FEW + permit("more", "fork", "context.copies == 9", effect="forbid"), effects)
    assert [each[3] for each in subjects(report)] == ["few", "more"]


def test_agents_swapped(tmp_path: Path) -> None:
    """No policy changes. Two agents exchange their groups in entities.json, as a clean-up. Who could not fork can now,
    and the plan says so for exactly that agent, with the request."""
    policies = permit("few", "fork", "context.copies <= 2", who=CODERS)
    swapped = entities({"coder": ("others",), "other": ("coders",)})
    report = diff(tmp_path, policies, policies, new_entities=swapped)
    assert subjects(report) == [("fork", "Snapshot", "other", "entities.json")]
    assert len(findings(report, "D101")) == 1
    assert report["exit"] == 1


def test_a_change_of_agents_hidden_behind_a_change_of_policies(tmp_path: Path) -> None:
    """A policy is widened for one group, and an agent is moved into another group, which no changed policy names. Both
    are told, each by what does it."""
    old = permit("few", "fork", "context.copies <= 2", who=CODERS) + permit(
        "o", "fork", "context.copies == 7", who=OTHERS
    )
    people = entities({**AGENTS, "coder": ("coders", "others")})
    report = diff(tmp_path, old, old.replace("<= 2", "<= 3"), new_entities=people)
    assert subjects(report) == [
        ("fork", "Snapshot", "coder", "entities.json"),
        ("fork", "Snapshot", "coder", "few"),
    ]


@pytest.mark.parametrize(
    ("condition", "groups"),
    [
        ('Sandbox::AgentGroup::"x" in Sandbox::AgentGroup::"y"', {"x": ["y"]}),
        ('Sandbox::Agent::"other" in Sandbox::AgentGroup::"x"', {"others": ["x"]}),
        ('Sandbox::Agent::"new".trust == Sandbox::Trust::"untrusted"', {}),
        ('{Set: Sandbox::Agent::"new"}.Set has tenant', {}),
    ],
)
def test_a_condition_on_somebody_else(tmp_path: Path, condition: str, groups: dict[str, list[str]]) -> None:
    """A policy looks into a group or an agent that it names, not into the one that asks, and that is what changes:
    nothing about the agent itself, nor in a policy. It is widened for everybody whom the policy is about, and the base
    of an acceptance changes with it."""
    policies = permit("odd", "fork", condition, who='principal == Sandbox::Agent::"coder"')
    inside = {"x": [], "y": [], **groups}
    people = AGENTS if groups else {**AGENTS, "new": ()}
    old, new = entities(AGENTS, above={"x": [], "y": []}), entities(people, above=inside)
    report = diff(tmp_path, policies, policies, old_entities=old, new_entities=new)
    assert subjects(report) == [("fork", "Snapshot", "coder", "entities.json")]
    (found,) = findings(report)
    assert found["details"]["subject"]["base"] != found["details"]["subject"]["head"]
    assert diff(tmp_path / "same", policies, policies, entities=new)["exit"] == 0


def test_a_change_that_moves_a_policy_to_another_file(tmp_path: Path) -> None:
    """A policy moves to a new file, and on its way loses a condition. The move is no change, the condition is."""
    old, new = change(tmp_path, permit("p", "exec") + FEW, permit("p", "exec"))
    (new / "moved.cedar").write_text(FEW)
    assert cli("diff", old, new).exit_code == 0
    (new / "moved.cedar").write_text(FEW.replace("context.copies <= 2", "true"))
    result = cli("diff", old, new, "--json")
    assert result.exit_code == 1
    assert findings(json.loads(result.stdout))[0]["file"] == str(new / "moved.cedar")


def test_a_condition_that_only_looks_like_a_comment(tmp_path: Path) -> None:
    """The new text has the old condition in a comment, or in a string over two lines, where a look at the diff takes it
    for code. The plan goes by what Cedar reads."""
    for text in ("// context.copies <= 2\n true", '"\n context.copies <= 2 //" != ""'):
        report = diff(tmp_path, FEW, FEW.replace("context.copies <= 2", text))
        assert [each[3] for each in subjects(report)] == ["few"]


def test_more_parts_than_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change has so many parts that not each can be searched by itself. What is left over is not decided, which is
    neither proved nor acceptable: with everything that was found accepted, the exit code is still not 0."""
    monkeypatch.setattr(planning, "_MAX_SEARCHES", 3)
    new = "".join(permit(f"p{n}", "fork", f"context.copies == {n}") for n in range(10, 16))
    report = diff(tmp_path, FEW, FEW + new)
    assert (report["exit"], len(subjects(report))) == (1, 3)
    assert "more than 3 searches" in findings(report, "D102")[0]["message"]


def test_a_narrowing_that_is_not_found_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a change takes away is searched until the time is over, so that its widening looks like all that it does.
    The row, also in JSON, says that the narrowing is not decided, next to the widening that was found."""
    whole = Prover.search_all

    def late(self: Prover, queries: Sequence[Query], progress: Any = None) -> list[Answer]:
        answers = whole(self, queries, progress)
        pairs = zip(queries, answers, strict=True)
        return [Answer("undecided", why="time limit") if q.label.startswith("gone") else a for q, a in pairs]

    monkeypatch.setattr(Prover, "search_all", late)
    old, new = change(tmp_path, FEW, permit("few", "fork", "context.copies > 2"))
    result = cli("diff", old, new)
    assert result.exit_code == 1
    assert "widened; narrowing not decided" in result.output
    (bundle,) = json.loads(cli("diff", old, new, "--json").stdout)["bundles"]
    assert {row["outcome"] for row in bundle["plan"]} == {"widened; narrowing not decided"}
    assert [(each["about"], each["why"]) for each in bundle["undecided"]] == [("what is gone", "time limit")]


def test_names_that_write_into_the_report(tmp_path: Path) -> None:
    """Ids and texts of policies hold commands of a pipeline, escapes of a terminal, Markdown and HTML. In no form of
    the report do they come out as such."""
    name = "::error title=x::y\\u{1b}[2K<script>alert(1)</script> | `a` ](http://x) @all"
    old, new = change(tmp_path, FEW, FEW + permit(name, "fork", 'context.copies == 9 && context.base.backend != "<b>"'))
    forms = ("text", "markdown", "github", "gitlab", "junit", "sarif", "tap", "json")
    outputs = [part for form in forms for part in ("--output", f"{form}={tmp_path / form}")]
    assert cli("diff", old, new, *outputs).exit_code == 1
    for form in forms:
        text = (tmp_path / form).read_text()
        assert "title=x" in text, form
        assert "\x1b" not in text
        assert not any(line.lstrip().startswith("::error title=x") for line in text.splitlines())
    for form in ("markdown", "junit"):
        assert "<script>" not in (tmp_path / form).read_text()


def test_a_bundle_that_is_renamed_to_be_new(tmp_path: Path) -> None:
    """The bundle gets another name and a lower revision, so that hosts that keep the highest revision of a name take
    it. What it permits is compared all the same, and both are told as warnings."""
    metadata = METADATA.replace('"test"', '"other"').replace("revision = 1", "revision = 0")
    report = diff(tmp_path, FEW, FEW.replace("<= 2", "<= 3"), new_metadata=metadata)
    assert [each[3] for each in subjects(report)] == ["few"]
    told = " ".join(each["message"] for each in findings(report, "D104"))
    assert "name was test and is other" in told
    assert "a step back" in told


def test_a_policy_file_that_only_one_reader_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forbid is moved into a file of the name `.cedar`, which a commit had as a file of policies and a host had not:
    then nothing was changed for the review, and the forbid was gone where it mattered. Both count it."""
    forbid = '@id("no") forbid (principal, action, resource);\n'
    repository = Repository(tmp_path / "site")
    repository.commit(bundle_files(FEW) | {"no.cedar": forbid})
    (repository.top / "policies/site/no.cedar").rename(repository.top / "policies/site/.cedar")
    repository.commit()
    monkeypatch.chdir(repository.top)
    report = json.loads(cli("diff", "HEAD~1", "HEAD", "--json").stdout)
    assert (report["bundles"][0]["widenings"], report["bundles"][0]["undecided"]) == ([], [])
    loaded = PolicyBundle.load(repository.top / "policies/site")
    assert [policy.id for policy in loaded.policies] == ["no", "few"]


def test_an_agent_that_two_readers_read_differently(tmp_path: Path) -> None:
    """The uid of an agent has another uid in it, which Cedar takes instead: the engine would ask about an agent that is
    in no group, so that no forbid for its group meets it, and the plan would be about the other. It is refused."""
    people = json.loads(entities(AGENTS))
    people[-1]["uid"]["__entity"] = {"type": "Sandbox::Agent", "id": "ghost"}
    result = cli("diff", *change(tmp_path, FEW, FEW, entities=entities(AGENTS), new_entities=json.dumps(people)))
    assert isinstance(result.exception, BundleError)
    assert "has the key '__entity'" in str(result.exception)


@pytest.mark.parametrize(
    ("attributes", "place"),
    [
        ("*.cedar working-tree-encoding=SHIFT_JIS", "."),
        ("/policies/**/site/*.cedar text ident", "."),
        ("[attr]plain export-subst\np*.cedar plain", "."),
        ("policies.cedar ident", "policies/site"),
        ('"policies.cedar" ident', "policies"),
    ],
)
def test_a_policy_that_is_another_one_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: str, place: str
) -> None:
    """`.gitattributes` has git write the policies otherwise than they stand in the commit: with this encoding a yen
    sign becomes a backslash, the reason ends later, and a permit for everything stands where the review saw a comment.
    Of a commit nothing is said, nor of a working tree that the next comparison would read out of a commit; only an
    archive is made with export-subst. What is about other files changes nothing."""
    repository = Repository(tmp_path / "site")
    repository.commit(bundle_files(FEW))
    monkeypatch.chdir(repository.top)
    repository.commit({".gitattributes": "*.png filter=lfs\n* text=auto\n*.cedar -ident\n"}, ".")
    assert cli("diff", "HEAD~1", "HEAD", "--bundle", "policies/site").exit_code == 0
    repository.commit({".gitattributes": f"{attributes}\n"}, place)
    result = cli("diff", "HEAD~1", "HEAD", "--bundle", "policies/site")
    assert isinstance(result.exception, BundleError)
    assert "otherwise than it stands in the commit" in str(result.exception)
    here = cli("diff", "HEAD~1", "--bundle", "policies/site")
    assert here.exit_code == 0 if "export-subst" in attributes else isinstance(here.exception, BundleError)
