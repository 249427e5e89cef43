"""Attacks on the plan of a change: a widening that is written so that a reviewer, or the plan, looks past it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import AGENTS, change, cli, diff, entities, findings, permit, shared_prover, subjects
from tests.unit.repositories import METADATA, Repository, bundle_files
from tests.unit.signed import make_key

from cedarbox.errors import ConfigurationError
from cedarbox.review.configured import DEFAULT_BUNDLE
from cedarbox.review.diff import plan as planning
from cedarbox.review.diff.settings import DEFAULTS
from cedarbox.review.prove import Answer, Prover, Query
from cedarbox.settings import PolicySettings

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


def _site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str | None) -> Repository:
    """Return a repository with a narrow and a wide bundle that never change, and settings."""
    repository = Repository(tmp_path / "site")
    for name, policies in (("narrow", FEW), ("wide", FEW.replace("<= 2", "<= 3"))):
        metadata = METADATA.replace('"test"', f'"{name}"')
        repository.write(bundle_files(policies, entities=entities(AGENTS), metadata=metadata), f"policies/{name}")
    repository.commit({} if settings is None else {"cedarbox.toml": settings}, ".")
    monkeypatch.chdir(repository.top)
    return repository


NARROW, WIDE = (f'[policy]\nbundle = "policies/{name}"\n' for name in ("narrow", "wide"))


def test_settings_that_name_another_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bundle changes, and cedarbox.toml names a wider one that was there all along. The bundle that decided is
    compared with the one that will, and what that widens is told; another spelling of the same path is no change."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    for settings, expected in ((NARROW.replace("policies/", "./policies//"), 0), (WIDE, 1)):
        repository.write({"cedarbox.toml": settings}, ".")
        assert cli("diff", "HEAD").exit_code == expected
    repository.commit()
    report = json.loads(cli("diff", "HEAD~1", "HEAD", "--json").stdout)
    assert [each[3] for each in subjects(report)] == ["few"]
    assert report["bundles"][0]["bundle"] == "policies/wide (cedarbox.toml named policies/narrow)"
    back = json.loads(cli("diff", "HEAD", "HEAD~1", "--json").stdout)
    assert (subjects(back), len(findings(back, "D101"))) == ([], 1)


def test_settings_that_name_another_bundle_than_the_one_that_is_reviewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job reviews the bundle that it is told of, which nobody touches, and cedarbox.toml names a wider one from now
    on. The review compares what decided with what will, once for all bundles that it reviews, and fails; so it does
    when it cannot tell what will decide. With the settings as they were it says nothing of them."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    asked = "review", "policies/narrow", "--base", "HEAD", "--only", "diff", "--json"
    for settings, expected in ((NARROW.replace("policies/", "./policies//"), 0), (WIDE, 1)):
        repository.write({"cedarbox.toml": settings}, ".")
        result = cli(*asked)
        assert result.exit_code == expected
        parts = [part["subject"] for part in json.loads(result.stdout)["parts"]]
        assert parts == ["policies/narrow", "policies/wide (cedarbox.toml named policies/narrow)"][: 1 + expected]
    assert [found["policy"] for found in findings(json.loads(result.stdout))] == ["few"]
    # What is not looked at but compared is told, when something else is looked at.
    told = "policies/wide is what decides, and was compared only"
    assert told in cli(*asked[:-1], "--only", "check").stdout
    assert told not in cli(*asked[:-1], "--only", "check", "policies/wide").stdout
    both = json.loads(cli(*asked, "policies/wide").stdout)
    assert [part["subject"] for part in both["parts"]].count("policies/wide (cedarbox.toml named policies/narrow)") == 1
    repository.write({"cedarbox.toml": '[policy]\nbundle = "../wide"\n'}, ".")
    result = cli(*asked)
    (found,) = findings(json.loads(result.stdout), "diff-refused")
    assert (result.exit_code, found["file"]) == (1, "cedarbox.toml")
    assert "one is not in this repository" in found["message"]


@pytest.mark.parametrize("named", ["sets/now/../../current/.", "sets/now/x"])
def test_a_link_to_a_bundle_that_leads_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    """cedarbox.toml names a link, or a path through one, and the change turns the link to a wider bundle. Neither a
    bundle nor the settings change. What it leads to is compared, in commits and in the working tree."""
    repository = _site(tmp_path, monkeypatch, f'[policy]\nbundle = "{named}"\n')
    for name in ("narrow", "wide"):
        (repository.top / "sets" / name).mkdir(parents=True)
        (repository.top / "sets" / name / "x").symlink_to(f"../../policies/{name}")
    links = {"current": "policies/{}", "sets/now": "{}"}

    def turn(to: str) -> None:
        for link, target in links.items():
            (repository.top / link).unlink(missing_ok=True)
            (repository.top / link).symlink_to(target.format(to))

    turn("narrow")
    repository.commit()
    assert cli("diff", "HEAD").exit_code == 0
    turn("wide")
    assert cli("diff", "HEAD").exit_code == 1
    repository.commit()
    assert cli("diff", "HEAD~1", "HEAD").exit_code == 1


def test_settings_that_hide_which_bundle_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cedarbox.toml is changed so that it cannot be told which bundle decides, or so that one decides which is not in
    the repository, or not yet. The comparison is refused in one line that says so, from a commit too."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    wrong = {
        "[policy": "cedarbox.toml: not TOML",
        'policy = "x"\n': "policy.bundle is no path",
        '[policy]\nbundle = "/etc/wide"\n': "one is not in this repository",
        '[policy]\nbundle = "../wide"\n': "one is not in this repository",
        '[policy]\nbundle = "build/wide"\n': "none is there",
        f'[policy]\nbundle = "{"x" * 300}"\n': "cedarbox.toml",
        "[policy]\nbundle = 1\n": "policy.bundle is no path",
    }
    for settings, told in wrong.items():
        repository.write({"cedarbox.toml": settings}, ".")
        result = cli("diff", "HEAD")
        assert isinstance(result.exception, ConfigurationError), settings
        assert told in str(result.exception)
    repository.commit()
    result = cli("diff", "HEAD~1", "HEAD")
    assert isinstance(result.exception, ConfigurationError)
    assert "cedarbox.toml: policy.bundle is no path" in str(result.exception)


def test_the_bundle_of_no_settings() -> None:
    """What is taken to decide where no settings are is what the program takes, not a guess that drifted from it."""
    settings = PolicySettings()
    assert settings.bundle == Path(DEFAULT_BUNDLE)
    for key, value in DEFAULTS.items():
        said = getattr(settings, key.removeprefix("policy."))
        assert value == (list(said) if isinstance(said, tuple) else said)


@pytest.mark.parametrize(
    ("old", "new", "key", "told"),
    [
        ("", 'mode = "shadow"', "policy.mode", "happens all the same"),
        ('mode = "enforce"', 'mode = "SHADOW"', "policy.mode", "happens all the same"),
        ("", 'principal = "root"', "policy.principal", "another agent"),
        ("require_signature = true", "", "policy.require_signature", "nobody signed"),
        ("require_signature = true", "require_signature = 0", "policy.require_signature", "nobody signed"),
        ('public_keys = ["a.pub"]', 'public_keys = ["a.pub", "b.pub"]', "policy.public_keys", "somebody else"),
        ('public_keys = ["a.pub"]', "public_keys = []", "policy.public_keys", "no signature is looked at"),
        ('public_keys = ["a.pub"]', 'public_keys = "a.pub"', "policy.public_keys", "cannot be told"),
        ("signature_threshold = 2", "signature_threshold = 1", "policy.signature_threshold", "fewer"),
        ("signature_threshold = 2", "signature_threshold = true", "policy.signature_threshold", "fewer"),
    ],
)
def test_settings_that_undo_what_the_policies_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, key: str, told: str
) -> None:
    """Not a line of a bundle changes, and cedarbox.toml has it enforced no more, asked about another agent, or signed
    by nobody. The comparison and the review fail with the line; the way back fails nothing."""
    repository = _site(tmp_path, monkeypatch, f"{NARROW}{old}\n")
    repository.write({"cedarbox.toml": f"{NARROW}{new}\n"}, ".")
    for asked in (
        ("diff", "HEAD"),
        ("diff", "HEAD", "--configured"),
        ("review", "policies/wide", "--base", "HEAD", "--only", "diff"),
    ):
        result = cli(*asked, "--json")
        (found,) = findings(json.loads(result.stdout))
        assert (result.exit_code, found["file"]) == (1, "cedarbox.toml")
        assert found["message"].startswith(f"{key} ")
        assert told in found["message"]
    repository.commit()
    if key != "policy.principal":
        assert cli("diff", "HEAD", "HEAD~1").exit_code == 0


def test_settings_and_policies_that_change_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle that is reviewed is the one that the settings name, and both change. Each widening is told once, in
    the one comparison, and each needs an acceptance of its own: that of the settings does not cover the policy."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    repository.write({"cedarbox.toml": f'{NARROW}mode = "shadow"\n'}, ".")
    repository.write({"policies.cedar": FEW.replace("<= 2", "<= 4")}, "policies/narrow")
    make_key(tmp_path, "desk")
    asked = "review", "policies/narrow", "--base", "HEAD", "--only", "diff", "--json"
    left = [("", "cedarbox.toml"), ("few", "policies/narrow/policies.cedar")]
    for accepted in range(3):
        given = ("--accepted", "accepted.toml", "--acceptor", tmp_path / "desk.pub") if accepted else ()
        result = cli(*asked, *given)
        document = json.loads(result.stdout)
        assert [part["subject"] for part in document["parts"]] == ["policies/narrow"]
        found = [each for each in findings(document) if not each["suppressed"]]
        assert [(each["policy"] or "", each["file"]) for each in found] == left[accepted:]
        assert (result.exit_code, findings(document, "D103")) == (1 if accepted < 2 else 0, [])
        if found:
            why = "--reason", "a trial", "--expires", "1d", "--to", "accepted.toml", "--key", tmp_path / "desk.key"
            assert cli("accept", "HEAD", "--widening", found[0]["details"]["id"], *why).exit_code == 0


def test_settings_that_no_proof_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the settings that decides nothing by itself, such as whose images count, is a warning and fails
    nothing; what has no weight, such as a comment or how often a file is looked at, is not told."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    for settings, keys in (("# x\nwatch_s = 5\n", []), ('[sandbox]\nimage_keys = ["x.pub"]\n', ["sandbox.image_keys"])):
        repository.write({"cedarbox.toml": NARROW + settings}, ".")
        result = cli("diff", "HEAD", "--json")
        assert result.exit_code == 0
        assert [each["message"].split()[0] for each in findings(json.loads(result.stdout), "D104")] == keys
