"""Fixes: they do away with what was found, no decision changes by the safe ones, and a file is whole or as it was."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.unit.bundles import write_bundle
from tests.unit.linting import found, lint_bundle, permit

from cedarbox.errors import BundleError
from cedarbox.policy import PolicyBundle
from cedarbox.policy.signing import SIGNATURE_FILE
from cedarbox.review.finding import Edit
from cedarbox.review.formatting import format_policies
from cedarbox.review.lint.fixes import Fixed, fixed, write
from cedarbox.review.lint.model import Fix
from cedarbox.review.subject import Subject, shown

SITE = 'when { context has ip && context.ip.isInRange(ip("10.20.3.4/16")) }'


def _fixed(directory: Path, *rules: str, unsafe: bool = False) -> Fixed:
    linted = lint_bundle(directory, *rules)
    made = fixed(linted.subject, linted.fixes, unsafe=unsafe)
    write(made)
    return made


def test_bits_behind_a_prefix_are_taken_off(tmp_path: Path) -> None:
    write_bundle(tmp_path, permit("site", "connect", SITE))
    made = _fixed(tmp_path, "S014")
    assert (made.made, made.notes) == (1, ())
    assert 'ip("10.20.0.0/16")' in (tmp_path / "policies.cedar").read_text()
    assert found(lint_bundle(tmp_path, "S014")) == []


def test_bits_behind_a_prefix_are_left_where_the_network_itself_is_compared(tmp_path: Path) -> None:
    text = permit("site", "connect", 'when { context has ip && context.ip == ip("10.20.3.4/16") }')
    write_bundle(tmp_path, text)
    assert found(lint_bundle(tmp_path, "S014")) == [("S014", "site")]
    assert _fixed(tmp_path, "S014").made == 0
    assert (tmp_path / "policies.cedar").read_text() == text


def test_a_policy_without_an_id_gets_one_that_no_other_has(tmp_path: Path) -> None:
    one = permit("x", "exec").replace('@id("x") ', "").replace("a reason", "Commands, in the sandbox!")
    two = permit("commands-in-the-sandbox", "readFile")
    three = permit("x", "writeFile").replace('@id("x") @reason("a reason") ', "")
    write_bundle(tmp_path, one + two + three)
    assert _fixed(tmp_path, "S050").made == 2
    ids = [policy.id for policy in PolicyBundle.load(tmp_path).policies]
    assert ids == ["commands-in-the-sandbox-2", "commands-in-the-sandbox", "permit-write-file"]


def test_exact_duplicates_go_with_the_comment_directly_above(tmp_path: Path) -> None:
    head = "// What this file is about.\n//\n"
    first, last = f"// The first.\n{permit('a', 'exec')}", permit("c", "readFile")
    text = f"{head}{first}\n// The second.\n{permit('b', 'exec')}\n{last}"
    write_bundle(tmp_path, text)
    assert _fixed(tmp_path, "S061").made == 1
    left = (tmp_path / "policies.cedar").read_text()
    assert left == f"{head}{first}\n\n{last}"


def test_a_duplicate_that_a_test_names_is_not_removed(tmp_path: Path) -> None:
    write_bundle(tmp_path, permit("a", "exec") + permit("b", "exec"))
    (tmp_path / "tests").mkdir()
    case = "exec:\n  allow:\n    - {case: x, principal: agent, command: [ls], by: [a, b]}\n"
    (tmp_path / "tests/exec.yaml").write_text(case)
    assert found(lint_bundle(tmp_path, "S061")) == [("S061", "b")]
    assert _fixed(tmp_path, "S061").made == 0


def test_a_file_is_laid_out_and_other_changes_come_first(tmp_path: Path) -> None:
    write_bundle(tmp_path, "// A comment.\n" + permit("site", "connect", SITE))
    made = _fixed(tmp_path, "S014", "S090")
    assert made.made == 2
    text = (tmp_path / "policies.cedar").read_text()
    assert text == format_policies(text)
    assert text.startswith("// A comment.\n")
    assert "10.20.0.0/16" in text


def test_a_misspelt_host_is_corrected_only_when_that_is_asked_for(tmp_path: Path) -> None:
    text = permit("m", "connect", resource='resource == Sandbox::Host::"Mirror.Corp.Example."')
    write_bundle(tmp_path, text)
    assert _fixed(tmp_path, "S011").made == 0
    assert (tmp_path / "policies.cedar").read_text() == text
    made = _fixed(tmp_path, "S011", unsafe=True)
    assert made.made == 1
    assert "decisions change" in made.notes[0]
    assert 'Host::"mirror.corp.example"' in (tmp_path / "policies.cedar").read_text()


@pytest.mark.parametrize(
    ("put", "said"),
    [
        ("permit (principal, action, resource", "would not load"),
        ('permit (principal, action == Sandbox::Action::"exec", resource);', "a decision might change"),
    ],
)
def test_a_change_that_is_called_safe_and_is_not_is_not_made(put: str, said: str, tmp_path: Path) -> None:
    text = permit("run", "exec")
    write_bundle(tmp_path, text)
    subject = Subject.load(tmp_path)
    edit = Edit(shown(tmp_path / "policies.cedar"), 0, len(text) - 1, f'@id("run") {put}')
    made = fixed(subject, [Fix((edit,), safe=True)], unsafe=False)
    assert (made.made, dict(made.after)) == (0, {})
    assert said in made.notes[0]


def test_changes_that_touch_each_other_are_made_one_after_the_other(tmp_path: Path) -> None:
    write_bundle(tmp_path, permit("a", "exec"))
    subject = Subject.load(tmp_path)
    file = shown(tmp_path / "policies.cedar")
    fixes = [Fix((Edit(file, 0, 0, f'@n{number}("x") '),), safe=True) for number in (1, 2)]
    made = fixed(subject, fixes, unsafe=False)
    assert (made.made, made.left) == (1, 1)


def test_the_mode_of_a_file_stays_and_a_signature_is_told(tmp_path: Path) -> None:
    write_bundle(tmp_path, permit("site", "connect", SITE))
    (tmp_path / "policies.cedar").chmod(0o640)
    (tmp_path / SIGNATURE_FILE).write_text("{}")
    old = os.umask(0o077)
    try:
        made = _fixed(tmp_path, "S014")
    finally:
        os.umask(old)
    assert (tmp_path / "policies.cedar").stat().st_mode & 0o777 == 0o640
    assert any("sign it again" in note for note in made.notes)


def test_what_was_edited_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    write_bundle(tmp_path, "// A comment.\n" + permit("site", "connect", SITE))
    subject = Subject.load(tmp_path)
    made = fixed(subject, lint_bundle(tmp_path, "S014").fixes, unsafe=False)
    file = tmp_path / "policies.cedar"
    file.write_text(edited := file.read_text() + "// Mine.\n")
    with pytest.raises(BundleError, match="it was edited meanwhile"):
        write(made)
    assert file.read_text() == edited
