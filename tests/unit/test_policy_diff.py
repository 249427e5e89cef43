"""``cedarbox policy diff``: the plan of a change, by the real prover over real bundles."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import SHIPPED, write_bundle
from tests.unit.differing import AGENTS, change, cli, diff, entities, findings, permit, shared_prover, subjects
from tests.unit.repositories import METADATA, Repository, bundle_files
from tests.unit.signed import make_key, signed_bundle

from cedarbox.cli import policy_versions
from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.schema import schema_text
from cedarbox.review.arguments import build
from cedarbox.review.diff.effects import Effects
from cedarbox.review.kinds import action_groups
from cedarbox.review.prove import Unavailable
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json

TLS = 'context.proto == Sandbox::Proto::"tls" && context.port == 443'
HOST = 'resource == Sandbox::Host::"mirror.corp.example"'


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


def _rows(report: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    (bundle,) = report["bundles"]
    return [(row["outcome"], row["action"], row["resource"], row["principals"]) for row in bundle["plan"]]


def test_a_wider_port_is_found_with_a_request_that_cedar_answers_otherwise(tmp_path: Path) -> None:
    old = permit("mirror", "connect", f"{HOST} && {TLS}")
    report = diff(tmp_path, old, old.replace("port == 443", "port >= 443"))
    assert report["exit"] == 1
    assert ("connect", "Host", "coder other", "mirror") in subjects(report)
    (finding,) = findings(report)
    assert (finding["line"], finding["file"]) == (3, str(tmp_path / "new" / "policies.cedar"))
    witness = finding["details"]["witness"]
    assert witness["context"]["port"] > 443
    assert witness["resource"] == {"type": "Sandbox::Host", "id": "mirror.corp.example"}
    assert [witness["sides"][side]["decision"] for side in ("old", "new")] == ["Deny", "Allow"]
    assert witness["sides"]["new"]["policies"] == ["mirror"]
    assert ("no effect", "connect", "Address", "everybody") in _rows(report)


def test_what_is_not_touched_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cedarbox.review.prove import Prover

    searched: list[str] = []
    search_all = Prover.search_all

    def watched(self: Prover, queries: object, progress: object = None) -> object:
        searched.extend(query.environment.action_id for query in queries)  # type: ignore[attr-defined]
        return search_all(self, queries, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(Prover, "search_all", watched)
    old = permit("a", "exec") + permit("b", "connect", TLS)
    report = diff(tmp_path, old, "// a comment\n" + permit("b", "connect", TLS) + permit("a", "exec"))
    assert (report["exit"], report["summary"], searched) == (0, "nothing that decides was changed", [])
    diff(tmp_path, old, old.replace("443", "444"))
    assert set(searched) == {"connect"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('context.proto == Sandbox::Proto::"tls" && context.port == 443',
         'context.port == 443 && context.proto == Sandbox::Proto::"tls"'),
        ("context.port == 443 || context.port == 444", "context.port >= 443 && context.port <= 444"),
        ('resource in Sandbox::Domain::"corp.example"',
         'resource is Sandbox::Host && (resource.fqdn == "corp.example" || resource.fqdn like "*.corp.example")'),
    ],
)  # fmt: skip
def test_an_equivalent_change_has_no_effect(tmp_path: Path, before: str, after: str) -> None:
    report = diff(tmp_path, permit("p", "connect", before), permit("p", "connect", after))
    assert (report["exit"], report["summary"]) == (0, "the change has no effect on what is permitted")
    assert {row[0] for row in _rows(report)} == {"no effect"}


def test_a_narrowing_is_a_note_and_passes(tmp_path: Path) -> None:
    old = permit("p", "connect", TLS)
    report = diff(tmp_path, old, old + permit("never", "connect", HOST, effect="forbid"))
    assert report["exit"] == 0
    (note,) = findings(report, "D101")
    assert note["severity"] == "note"
    assert "never" in note["details"]["witness"]["sides"]["new"]["policies"]
    assert ("narrowed", "connect", "Host", "coder, other") in _rows(report)


def test_each_class_of_agents_is_told_by_itself(tmp_path: Path) -> None:
    old = permit("p", "exec", who='principal in Sandbox::AgentGroup::"coders"')
    new = old.replace('"coders"', '"others"')
    report = diff(tmp_path, old, new)
    assert subjects(report) == [("exec", "Executable", "other", "p")]
    assert sorted(_rows(report)) == [
        ("narrowed", "exec", "Executable", "coder"),
        ("widened", "exec", "Executable", "other"),
    ]


def test_a_forbid_that_is_gone_is_what_widens(tmp_path: Path) -> None:
    old = permit("p", "connect", TLS) + permit("never", "connect", HOST, effect="forbid")
    report = diff(tmp_path, old, permit("p", "connect", TLS))
    assert subjects(report) == [("connect", "Host", "coder other", "never")]
    assert findings(report)[0]["details"]["cause"] == "forbid removed"


def test_a_policy_that_could_not_be_evaluated_and_now_can(tmp_path: Path) -> None:
    # In a bundle an error denies, so taking the policy away that has it permits.
    broken = permit("odd", "fork", "context.copies + 9223372036854775807 > 0", effect="forbid")
    old = permit("p", "fork") + broken
    report = diff(tmp_path, old, permit("p", "fork"))
    assert subjects(report) == [("fork", "Snapshot", "coder other", "odd")]
    assert findings(report)[0]["details"]["witness"]["sides"]["old"]["errors"]


def test_agents_are_part_of_the_proof(tmp_path: Path) -> None:
    policies = permit("p", "exec", who='principal in Sandbox::AgentGroup::"coders"')
    report = diff(tmp_path, policies, policies, new_entities=entities({**AGENTS, "other": ("others", "coders")}))
    assert subjects(report) == [("exec", "Executable", "other", "entities.json")]
    assert report["bundles"][0]["agents"] == ["agent other: added to group coders"]
    whole = (tmp_path / "new" / "entities.json").read_text()
    (told,) = findings(report)
    assert whole[told["column"] - 1 : told["end_column"] - 1] == '{"type": "Sandbox::Agent", "id": "other"}'
    assert report["exit"] == 1


def test_a_group_in_a_group_and_a_new_agent(tmp_path: Path) -> None:
    policies = permit("p", "exec", who='principal in Sandbox::AgentGroup::"coders"')
    people = entities({**AGENTS, "third": ("coders",)}, above={"others": ("coders",)})
    report = diff(tmp_path, policies, policies, new_entities=people)
    assert [each[2] for each in subjects(report)] == ["other", "third"]
    told = report["bundles"][0]["agents"]
    assert "agent other: added to group coders, through another group" in told
    assert "group others was put into group coders, with every agent in it" in told
    assert "agent third is new, in group coders" in told


def test_an_agent_that_nobody_treats_otherwise_changes_nothing(tmp_path: Path) -> None:
    policies = permit("p", "exec", who='principal in Sandbox::AgentGroup::"coders"')
    report = diff(tmp_path, policies, policies, new_entities=entities({**AGENTS, "other": ("others", "more")}))
    assert (report["exit"], subjects(report)) == (0, [])


KEYS = ("xWg+FfYw5REpZroy7QQUu+b/EziNHKc1B4UVlaeCG+c=", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")


def _approving(names: str, extra: str = "") -> str:
    annotations = f'@requires_approval("{names}")\n{extra}' if names else ""
    return annotations + permit("call", "invokeTool", 'resource == Sandbox::Tool::"exec_command"')


def _metadata(revision: int = 2, **approvers: str) -> str:
    lines = [f'{name} = "{key}"' for name, key in approvers.items()]
    return METADATA.replace("revision = 1", f"revision = {revision}") + "\n".join(["[approvers]", *lines, ""])


@pytest.mark.parametrize(
    ("old", "new", "approvers", "after"),
    [
        (_approving("a"), _approving(""), ({"a": KEYS[0]}, {"a": KEYS[0]}), "allow"),
        (_approving("a"), _approving("a, b"), ({"a": KEYS[0], "b": KEYS[1]},) * 2, "approval of a or b"),
        (_approving("a"), _approving("a"), ({"a": KEYS[0]}, {"a": KEYS[1]}), "approval of a"),
        (
            _approving("a", '@approval_expires("5m")\n'),
            _approving("a", '@approval_expires("1h")\n'),
            ({"a": KEYS[0]},) * 2,
            "within 3600 s",
        ),
        (
            _approving("a") + _approving("b").replace('"call"', '"also"'),
            _approving("a"),
            ({"a": KEYS[0], "b": KEYS[1]},) * 2,
            "approval of a",
        ),
    ],
    ids=["dropped", "an approver more", "another key", "longer", "nobody could approve"],
)
def test_less_of_an_approval_is_wider(
    tmp_path: Path, old: str, new: str, approvers: tuple[dict[str, str], dict[str, str]], after: str
) -> None:
    metadata = {"old_metadata": _metadata(1, **approvers[0]), "new_metadata": _metadata(2, **approvers[1])}
    report = diff(tmp_path, old, new, **metadata)
    assert report["exit"] == 1
    details = findings(report)[0]["details"]
    assert after in details["after"]
    assert details["before"] != details["after"]
    request = build("invokeTool", {"name": "exec_command", "kind": "function"})
    for version, told in (("old", details["before"]), ("new", details["after"])):
        decision = PolicyEngine(PolicyBundle.load(tmp_path / version)).decide("coder", request)
        if decision.approval is None:
            assert told.startswith("allow" if decision.allowed else "deny")
            assert "approval of" not in told
        else:
            who = " or ".join(decision.approval.approvers)
            assert told.startswith(f"allow with the approval of {who} within {decision.approval.expires_s} s")
    back = diff(
        tmp_path, new, old, old_metadata=_metadata(1, **approvers[1]), new_metadata=_metadata(2, **approvers[0])
    )
    assert back["exit"] == (1 if after == "approval of a" and old == new else 0)


def test_what_bundle_toml_says_is_told_and_counts(tmp_path: Path) -> None:
    policies = permit("p", "exec")
    removing = METADATA.replace("revision = 1", "revision = 2") + 'on_denied_tool = "remove"\n'
    report = diff(tmp_path, policies, policies, new_metadata=removing)
    assert report["exit"] == 1
    assert findings(report)[0]["message"].startswith("on_denied_tool was error and is remove")
    back = diff(tmp_path, policies, policies, old_metadata=removing, new_metadata=METADATA.replace("test", "more"))
    assert back["exit"] == 0
    told = " ".join(each["message"] for each in findings(back, "D104"))
    assert "a step back" in told
    assert "name was test and is more" in told


def test_a_new_bundle_is_held_against_denying_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    repository.commit()
    repository.write(bundle_files(permit("p", "exec")))
    monkeypatch.chdir(tmp_path)
    result = cli("diff", "HEAD", "--json")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert subjects(report) == [("exec", "Executable", "agent", "p")]
    assert any("is new" in note for note in report["notes"])
    repository.commit()
    gone = json.loads(cli("diff", "HEAD", "HEAD~1", "--json").stdout)
    assert (gone["exit_code"], len(findings(gone, "D101"))) == (0, 1)


def test_an_old_version_that_does_not_load_is_not_decided(tmp_path: Path) -> None:
    old, new = change(tmp_path, "permit (oops);", permit("p", "exec"))
    result = cli("diff", old, new)
    assert result.exit_code == 3
    assert "the old version cannot be loaded" in result.stdout
    broken = cli("diff", new, old)
    assert broken.exit_code != 0
    assert "policies.cedar:1" in str(broken.exception)


def test_without_a_solver_nothing_is_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unavailable = Unavailable("no solver; pip install 'cedarbox[prove]'")
    monkeypatch.setattr(policy_versions, "prover", lambda *_, **__: lambda _: nullcontext(unavailable))
    report = diff(tmp_path, permit("p", "exec"), permit("p", "exec", "context.shell"))
    assert (report["exit"], report["undecided"]) == (3, True)
    assert len(findings(report, "D102")) == 1
    assert "cedarbox[prove]" in findings(report, "D102")[0]["message"]
    same = diff(tmp_path, permit("p", "exec"), permit("p", "exec"))
    assert same["exit"] == 0


def test_signed_versions(tmp_path: Path) -> None:
    key, public = make_key(tmp_path)
    old = signed_bundle(tmp_path / "old", key, policies=permit("p", "exec"))
    new = signed_bundle(tmp_path / "new", key, policies=permit("p", "exec", "context.shell"), revision=2)
    result = cli("diff", old, new, "--public-key", public, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["bundles"][0]["signed_by"]["head"]
    (new / "policies.cedar").write_text(permit("p", "exec"))
    assert "not what was signed" in str(cli("diff", old, new, "--public-key", public).exception)


def test_each_form_has_the_request(tmp_path: Path) -> None:
    old, new = change(tmp_path, permit("p", "fork", "context.copies <= 2"), permit("p", "fork"))
    forms = ("text", "markdown", "sarif", "junit", "tap", "github", "gitlab")
    outputs = [part for form in forms for part in ("--output", f"{form}={tmp_path / form}")]
    assert cli("diff", old, new, *outputs).exit_code == 1
    for form in forms:
        text = (tmp_path / form).read_text()
        assert "copies=3" in text, form
        assert "p (permit changed)" in text or "permit changed: p" in text, form


PLAIN = """
entity User { level: Long };
entity Doc { public: Bool };
action view, edit appliesTo { principal: [User], resource: [Doc], context: { mfa: Bool } };
"""


def test_plain_cedar_with_a_schema_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.cedarschema").write_text(PLAIN)
    text = '@id("view") permit (principal, action == Action::"view", resource) when { principal.level > 3 };'
    for name, policies in (("old", text), ("new", text.replace("> 3", ">= 3"))):
        Path(name).mkdir()
        Path(name, "view.cedar").write_text(policies)
        Path(name, "entities.json").write_text("[]")
    result = cli("diff", "old", "new", "--schema", "plain.cedarschema", "--json")
    assert result.exit_code == 1
    assert subjects(json.loads(result.stdout)) == [("view", "Doc", "[User]", "view")]
    narrowed = cli("diff", "new", "old", "--schema", "plain.cedarschema", "--json")
    assert narrowed.exit_code == 0
    assert [finding["file"] for finding in json.loads(narrowed.stdout)["findings"]] == ["old/view.cedar"]


def test_what_is_narrowed_stands_where_the_text_changed(tmp_path: Path) -> None:
    others = permit("e", "exec") + permit("f", "fork")
    old, new = (others + permit("c", "connect", f"context.port {sign} 443") for sign in (">=", "=="))
    told = findings(diff(tmp_path, old, new), "D101")
    assert {(each["file"], each["line"]) for each in told} == {(str(tmp_path / "new" / "policies.cedar"), 9)}


def test_a_request_tells_what_it_is_about(tmp_path: Path) -> None:
    image = permit("p", "create", 'resource has digest && resource in Sandbox::ImageRepo::"images.example/python"')
    (told,) = findings(diff(tmp_path / "bundle", "", image))
    assert 'resource in ImageRepo::"images.example/python"' in told["message"]
    # Cedar takes an empty digest, and the solver gives one; nobody has seen such an image.
    assert 'create Image::"sha256:00' in told["message"]
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    schema = "entity Team; entity User in [Team] { level: Long } tags String; action view appliesTo "
    (tmp_path / "s.cedarschema").write_text(schema + "{ principal: [User], resource: [User] };")
    asked = 'principal in Team::"ops" && principal.level == 7 && principal.hasTag("role") && principal != resource'
    (tmp_path / "old" / "p.cedar").write_text("")
    (tmp_path / "new" / "p.cedar").write_text(f"permit (principal, action, resource) when {{ {asked} }};")
    result = cli("diff", tmp_path / "old", tmp_path / "new", "--schema", tmp_path / "s.cedarschema", "--json")
    (told,) = findings(json.loads(result.stdout))
    assert 'principal.level=7 principal.tags["role"]=' in told["message"]
    assert 'principal in Team::"ops"' in told["message"]


def test_a_schema_that_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    policy = '@id("view") permit (principal, action == Action::"view", resource);'
    repository.commit({"plain.cedarschema": PLAIN, "site/view.cedar": policy}, ".")
    repository.write({"plain.cedarschema": PLAIN.replace("view, edit", "view, edit, remove")}, ".")
    given = ("--schema", "plain.cedarschema", "--bundle", "site", "--json")
    report = json.loads(cli("diff", "HEAD", *given).stdout)
    assert report["exit_code"] == 0
    assert any("the schema changed" in note for note in report["notes"])
    # What was about anything is now about an action that the old schema did not have.
    repository.commit({"site/view.cedar": "permit (principal, action, resource);"}, ".")
    repository.write({"plain.cedarschema": PLAIN.replace("view, edit", "view, edit, remove, burn")}, ".")
    wider = cli("diff", "HEAD", *given)
    assert wider.exit_code == 1
    assert {each[0] for each in subjects(json.loads(wider.stdout))} == {"burn"}
    repository.write({"plain.cedarschema": PLAIN.replace("view, edit", "edit")}, ".")
    repository.write({"view.cedar": ""}, "site")
    repository.git("reset", "--quiet", "--hard", "HEAD~1")
    repository.write({"plain.cedarschema": PLAIN.replace("view, edit", "edit"), "site/view.cedar": ""}, ".")
    undecided = cli("diff", "HEAD", *given)
    assert undecided.exit_code == 3
    assert "do not fit the new one" in undecided.stdout


def test_the_policies_that_can_match_an_action_are_those_that_the_engine_asks() -> None:
    groups = action_groups(schema_json(schema_text()))
    for path in (SHIPPED / "internal-mirror", SHIPPED / "regulated-data"):
        effects = Effects(Subject.load(path), groups, is_bundle=True)
        policies = PolicyBundle.load(path).policies
        for action in ACTION_GROUPS:
            asked = {policy.id for policy in policies if action in policy.actions}
            assert effects.on(f'Sandbox::Action::"{action}"').keys() == asked
    assert cli("diff", SHIPPED / "airgapped", SHIPPED / "airgapped").exit_code == 0


def test_a_pull_request_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path / "site")
    policies = permit("few", "fork", "context.copies <= 2")
    repository.commit(bundle_files(policies))
    repository.git("checkout", "--quiet", "-b", "change")
    more = METADATA.replace("revision = 1", "revision = 2")
    repository.commit(bundle_files(policies.replace("<= 2", "<= 3"), metadata=more))
    monkeypatch.chdir(repository.top)
    make_key(tmp_path / "keys", "desk")
    refused = cli("diff", "--format", "markdown")
    assert refused.exit_code == 1
    assert "policies/site/policies.cedar:3:1" in refused.stdout
    (name,) = re.findall(r"--widening ([0-9a-f]{16})", refused.stdout)
    key = ("--key", "../keys/desk.key", "--reason", "three are enough", "--expires", "30d")
    signed = cli("accept", "--widening", name, *key, "--to", "policies/accepted.toml")
    assert (signed.exit_code, name in signed.stdout) == (0, True)
    repository.commit()
    given = ("--accepted", "policies/accepted.toml", "--acceptor", "../keys/desk.pub")
    report = json.loads(cli("diff", *given, "--json").stdout)
    assert (report["exit_code"], report["summary"]) == (0, "1 widening, 1 of them accepted")
    assert findings(report)[0]["suppressed"]["reason"].startswith("three are enough (signed by sha256:")
    # Once it is in the base it is used up.
    repository.git("checkout", "--quiet", "main")
    repository.git("merge", "--quiet", "change")
    repository.commit(bundle_files(policies.replace("<= 2", "<= 3") + permit("p", "exec", "false"), metadata=more))
    later = json.loads(cli("diff", "HEAD~1", "HEAD", *given, "--json").stdout)
    assert [each["rule"] for each in later["findings"]] == ["D104", "D103"]
    assert later["exit_code"] == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--expires", "forever"), "no time up to 366d"),
        (("--expires", "400d"), "no time up to 366d"),
        (("--reason", " "), "must be one line"),
        (("--reason", "a\nb"), "must be one line"),
        (("--key", "no.key"), "cannot be read"),
        (("--widening", "12"), "16 hex digits"),
        (("--to", "no/such/accepted.toml"), "cannot write it"),
    ],
)
def test_an_acceptance_that_cannot_be_made(tmp_path: Path, options: tuple[str, str], said: str) -> None:
    make_key(tmp_path, "desk")
    old, new = change(tmp_path, permit("p", "fork", "context.copies <= 2"), permit("p", "fork"))
    (name,) = [each["details"]["id"] for each in findings(json.loads(cli("diff", old, new, "--json").stdout))]
    given = {"--widening": name, "--key": tmp_path / "desk.key", "--reason": "x", "--expires": "1d"}
    given |= {"--to": tmp_path / "accepted.toml", options[0]: options[1]}
    if options[0] == "--to":
        given["--to"] = tmp_path / options[1]
    result = cli("accept", old, new, *[part for pair in given.items() for part in pair])
    assert result.exit_code != 0
    assert said in str(result.exception)
    assert not (tmp_path / "accepted.toml").exists()


def test_the_line_of_the_key_is_told_and_the_time_comes_last(tmp_path: Path) -> None:
    old = permit("mirror", "connect", f"{HOST} && {TLS}")
    report = diff(tmp_path, old, old.replace("port == 443", "port >= 443"), new_metadata=METADATA)
    (revision,) = findings(report, "D104")
    metadata = (tmp_path / "new" / "bundle.toml").read_text().split("\n")
    assert metadata[revision["line"] - 1].startswith("revision")
    (wider,) = findings(report)
    assert wider["message"].index("port=444") < wider["message"].index("base.at=")


def test_a_name_that_is_neither_a_directory_nor_a_revision_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert str(cli("diff", "nowhere").exception).startswith("'nowhere' is no directory, and for a revision: ")


def test_a_baseline_that_no_version_has_is_bad_input(tmp_path: Path) -> None:
    for name, files in (("old", permit("p", "exec")), ("new", permit("p", "exec", "context.shell"))):
        write_bundle(tmp_path / name, files)
    done = cli("diff", str(tmp_path / "old"), str(tmp_path / "new"), "--baseline", str(tmp_path / "gone.json"))
    assert "gone.json: in neither version" in str(done.exception)


def test_a_schema_that_is_none_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "p.cedar").write_text("permit (principal, action, resource);")
    (tmp_path / "s.cedarschema").write_text("entity U;\nentity [;\n")
    done = cli("diff", str(tmp_path / "p"), str(tmp_path / "p"), "--schema", str(tmp_path / "s.cedarschema"))
    assert "s.cedarschema:2:8: not a schema: " in str(done.exception)


def test_a_bundle_that_was_moved_can_be_compared_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Repository(tmp_path)
    repository.commit(bundle_files(permit("a", "exec")), "policies/old name")
    repository.git("mv", "policies/old name", "policies/new")
    monkeypatch.chdir(tmp_path)
    moved = cli("diff", "HEAD", "--json")
    assert moved.exit_code == 1
    (note,) = [note for note in json.loads(moved.stdout)["notes"] if "when it was moved" in note]
    asked = shlex.split(note.rpartition("cedarbox policy ")[2])
    assert cli(*asked).exit_code == 0
