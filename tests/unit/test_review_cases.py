"""Test cases are read whole and right, or refused with one line that names the file and the line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL, write_bundle

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.arguments import Value, arguments_of, build
from cedarbox.review.cases import Suite

CONNECT = "connect:\n  defaults: {principal: agent, port: 443, proto: tls}\n"
EXEC = "exec:\n  defaults: {principal: agent}\n"


def load(directory: Path, *texts: str) -> Suite:
    bundle = write_bundle(directory / "bundle", PERMIT_ALL)
    (bundle / "tests").mkdir()
    for number, text in enumerate(texts):
        (bundle / "tests" / f"{number}.yaml").write_text(text)
    return Suite.load(PolicyBundle.load(bundle))


def test_a_case_has_the_defaults_of_its_table_and_its_own_values(tmp_path: Path) -> None:
    text = (
        f"{CONNECT}  allow:\n"
        "    - {case: one, target: A.example., by: all}\n"
        "    - {target: b.example, port: 22, by: [all]}\n"
        "  deny:\n"
        "    - {case: two, target: '0xA9', error: numeric}\n"
    )
    first, second, third = load(tmp_path, text).cases
    assert (first.title, first.principal, first.line, first.allowed, first.by) == (
        "one",
        "agent",
        4,
        True,
        frozenset({"all"}),
    )
    assert first.request is not None
    assert str(first.request.resource) == 'Host::"a.example"'
    assert second.request is not None
    assert second.request.summary == "port 22 tls"
    assert second.title == "target b.example, port 22"
    assert (third.request, third.allowed, third.error) == (None, False, "numeric")
    assert "numeric" in third.refusal


def test_a_list_makes_a_case_of_each_value(tmp_path: Path) -> None:
    text = (
        f"{CONNECT}  deny:\n    - {{case: odd, target: [a.example, b.example]}}\n"
        "    - {target: c.example, port: [1, 2]}\n"
        "    - {case: who, target: d.example, principal: [agent, other]}\n"
    )
    cases = load(tmp_path, text).cases
    assert [case.title for case in cases] == [
        "odd, target a.example",
        "odd, target b.example",
        "target c.example, port 1",
        "target c.example, port 2",
        "who, principal agent",
        "who, principal other",
    ]
    assert [case.principal for case in cases] == ["agent", "agent", "agent", "agent", "agent", "other"]


def test_a_command_line_is_text_or_words_and_varies_as_a_list_of_them(tmp_path: Path) -> None:
    text = (
        f"{EXEC}  deny:\n    - {{command: ls -l}}\n    - {{command: [ls, -l]}}\n    - {{command: [[ls], [id, -u]]}}\n"
    )
    lines = [case.request.context["commandLine"] for case in load(tmp_path, text).cases if case.request]
    assert lines == ["ls -l", "ls -l", "ls", "id -u"]


def test_words_of_yaml_1_1_are_plain_text(tmp_path: Path) -> None:
    text = (
        "setEnvironment:\n  defaults: {principal: agent}\n  deny:\n    - {name: [no, on, y, 22:22, 0x1F, 1e3, 010]}\n"
    )
    names = [case.request.resource.id for case in load(tmp_path, text).cases if case.request]
    assert names == ["no", "on", "y", "22:22", "0x1F", "1e3", "010"]


def test_agents_of_a_file_are_known_to_the_tests_and_not_to_the_bundle(tmp_path: Path) -> None:
    agents = "agents:\n  outsider: {}\n  friend: {groups: [agents, others], trust: internal, tenant: site}\n"
    suite = load(
        tmp_path,
        f"{agents}{CONNECT}  deny:\n    - {{target: a.example}}\n",
        f"agents: {{outsider: {{}}}}\n{EXEC}  deny: [{{command: ls}}]\n",
    )
    assert suite.bundle.principals == {"agent", "outsider", "friend"}
    assert PolicyBundle.load(tmp_path / "bundle").principals == {"agent"}


def test_what_every_request_carries_can_be_given(tmp_path: Path) -> None:
    about = "at: '2026-03-01T10:00:00+02:00', backend: docker, agent: coder, tool: exec_command"
    text = f"{EXEC}  deny:\n    - {{command: ls, {about}}}\n"
    (case,) = load(tmp_path, text).cases
    assert case.request is not None
    assert case.request.context["base"] == {
        "at": {"__extn": {"fn": "datetime", "arg": "2026-03-01T08:00:00.000Z"}},
        "backend": "docker",
        "agent": "coder",
        "tool": "exec_command",
    }


def test_every_action_of_the_schema_can_be_built_from_its_arguments() -> None:
    samples: dict[str, Value] = {"number": 1, "truth": False, "words": ("ls",)}
    texts = {"path": "/a", "host_path": "/a", "guest_path": "/a", "destination": "/a", "kind": "tar", "egress": "none"}
    for action in ACTION_GROUPS:
        values: dict[str, Value] = {}
        for name, known in arguments_of(action).items():
            if known.required:
                given = texts.get(name) if not known.members or texts.get(name) in known.members else None
                values[name] = samples.get(known.kind) or given or min(known.members, default="a.example")
        if action == "writeFile":
            values["operation"] = "write"
        if action == "readFile":
            values["operation"] = "read"
        assert build(action, values).name == action


CASES = f"{CONNECT}  deny:\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", None, "empty"),
        ("# nothing\n", None, "empty"),
        ("connect: [\n", 2, "not YAML"),
        ("connect: {a: b}\n---\nexec: {}\n", 2, "not YAML"),
        ("- connect\n", 1, "expected tables by action"),
        ("agents: {}\n", None, "no test case"),
        ("conect:\n  deny: []\n", 1, "unknown action 'conect'"),
        ("connect:\n  forbid: []\n", 2, "unknown key 'forbid'"),
        ("connect: {}\n", 1, "has no cases"),
        ("connect:\n  deny: []\n", 2, "must be a list"),
        ("connect:\n  deny: {target: a}\n", 2, "must be a list"),
        ("connect:\n  deny:\n    - a\n", 3, "expected a case"),
        (f"{CASES}    - {{target: a.example, prot: tls}}\n", 4, "unknown key 'prot'"),
        (f"{CASES}    - {{target: a.example, proto: tsl}}\n", 4, "one of http, tcp, tls, udp"),
        (f"{CASES}    - {{target: a.example, port: '443'}}\n", 4, "a whole number"),
        (f"{CASES}    - {{target: a.example, port: 443.0}}\n", 4, "a whole number"),
        (f"{CASES}    - {{target: a.example, port: true}}\n", 4, "a whole number"),
        (f"{CASES}    - {{target: 5}}\n", 4, "expected text, in quotes"),
        (f"{CASES}    - {{target: null}}\n", 4, "target is null"),
        (f"{CASES}    - {{target: {{a: b}}}}\n", 4, "expected text"),
        (f"{CASES}    - {{target: []}}\n", 4, "an empty list"),
        (f"{CASES}    - {{port: 5}}\n", 4, "no target"),
        (f"{CASES}    - {{target: [a.example, b.example], port: [1, 2]}}\n", 4, "lists for target and port"),
        (f"{CASES}    - {{target: a.example, target: b.example}}\n", 4, "'target' is there twice"),
        (f"{CASES}    - {{target: a.example, by: al}}\n", 4, "no policy has the id 'al'"),
        (f"{CASES}    - {{target: a.example, by: []}}\n", 4, "an empty list"),
        (f"{CASES}    - {{target: a.example, error: x, by: all}}\n", 4, "not both"),
        (f"{CONNECT}  allow:\n    - {{target: a.example}}\n", 4, "does not say by which policy"),
        (f"{CONNECT}  allow:\n    - {{target: a.example, error: x}}\n", 4, "does not say by which policy"),
        ("connect:\n  deny:\n    - {target: a.example, port: 1, proto: tls}\n", 3, "no principal"),
        ("connect:\n  defaults: {port: [1, 2]}\n  deny: [{target: a}]\n", 2, "a list as the default"),
        ("connect:\n  defaults: {principal: [a, b]}\n  deny: [{target: a}]\n", 2, "expected one agent"),
        ("connect:\n  defaults: {by: all}\n  deny: [{target: a}]\n", 2, "unknown key 'by'"),
        (f"{CASES}    - &a {{target: a.example}}\n    - *a\n", 4, "anchor"),
        (f"{CASES}    - {{target: !!str a.example}}\n", 4, "tag"),
        (f"{CASES}    - !!python/object/apply:os.system ['true']\n", 4, "tag"),
        ("connect:\n  deny:\n    - {<<: {target: a.example}}\n", 3, "unknown key '<<'"),
        ("readFile:\n  deny:\n    - {principal: agent, path: /a, operation: write}\n", 3, "the action writeFile"),
        ("exec:\n  deny:\n    - {principal: agent, command: ls, terminal: true}\n", 3, "unknown key 'terminal'"),
        ("exec:\n  deny:\n    - {principal: agent, command: ls, at: noon}\n", 3, "at must be a time"),
        ("exec:\n  deny:\n    - {principal: agent, command: ls, at: '2026-01-01T12:00:00'}\n", 3, "a time zone"),
        (f"agents:\n  agent: {{}}\n{EXEC}  deny: [{{command: ls}}]\n", 2, "entities.json declares"),
        (f"agents:\n  a: {{trust: much}}\n{EXEC}  deny: [{{command: ls}}]\n", 2, "one of internal, trusted, untrusted"),
        (f"agents:\n  a: {{group: x}}\n{EXEC}  deny: [{{command: ls}}]\n", 2, "unknown key 'group'"),
        (f"{'[' * 5000}\n", 1, "nested more than"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_place(tmp_path: Path, text: str, line: int | None, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        load(tmp_path, text)
    assert caught.value.path == tmp_path / "bundle" / "tests" / "0.yaml"
    if line is not None:
        assert caught.value.line == line
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_files_may_not_differ_about_an_agent(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="another file declares") as caught:
        load(tmp_path, f"agents: {{a: {{}}}}\n{EXEC}  deny: [{{command: ls}}]\n", "agents: {a: {groups: agents}}\n")
    assert caught.value.path.name == "1.yaml"


def test_a_bundle_without_cases_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, PERMIT_ALL)
    with pytest.raises(BundleError, match="no test cases can be read"):
        Suite.load(PolicyBundle.load(bundle))
    (bundle / "tests").mkdir()
    with pytest.raises(BundleError, match=r"no \.yaml file"):
        Suite.load(PolicyBundle.load(bundle))
    (bundle / "tests" / "a.yml").write_text(f"{EXEC}  deny: [{{command: ls}}]\n")
    with pytest.raises(BundleError, match="rename it"):
        Suite.load(PolicyBundle.load(bundle))


def test_a_file_of_cases_is_plain_utf_8_and_no_link(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", PERMIT_ALL)
    (bundle / "tests").mkdir()
    file = bundle / "tests" / "a.yaml"
    file.write_bytes(b"exec: \xff\n")
    with pytest.raises(BundleError, match=r"a\.yaml:1: not UTF-8 text"):
        Suite.load(PolicyBundle.load(bundle))
    file.write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(BundleError, match="larger than"):
        Suite.load(PolicyBundle.load(bundle))
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere.yaml")
    with pytest.raises(BundleError, match="not a regular file"):
        Suite.load(PolicyBundle.load(bundle))


def test_the_cases_are_no_part_of_the_digest(tmp_path: Path) -> None:
    before = PolicyBundle.load(write_bundle(tmp_path / "bundle", PERMIT_ALL)).digest
    load(tmp_path, f"{EXEC}  deny: [{{command: ls}}]\n")
    assert PolicyBundle.load(tmp_path / "bundle").digest == before
