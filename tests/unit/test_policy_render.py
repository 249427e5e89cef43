"""A bundle as a page."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED, write_bundle
from tests.unit.commands import Run, in_process

from cedarbox.ed25519 import write_key_pair
from cedarbox.policy import PolicyBundle
from cedarbox.review.rendering import Page, html, markdown, page_of
from cedarbox.review.subject import Subject

BUNDLES = sorted(path.parent.name for path in SHIPPED.glob("*/bundle.toml"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return in_process(monkeypatch, capsys, "policy")


@pytest.mark.parametrize("name", BUNDLES if os.environ.get("CEDARBOX_LONG") else ["internal-mirror", "regulated-data"])
def test_every_policy_is_on_the_page_with_its_source(name: str) -> None:
    subject = Subject.load(SHIPPED / name)
    page = page_of(subject, signed="none")
    shown = [policy for group in page.groups for policy in (*group.permits, *group.forbids)]
    assert sorted(policy.id for policy in shown) == sorted(policy.id for policy in subject.policies)
    assert all(policy.tests and all(test.passed for test in policy.tests) for policy in shown)
    for text in (unescape(html(page)), unescape(markdown(page))):
        for policy in subject.policies:
            assert policy.text in text.replace("\n\u200b\n", "\n\n")
        assert page.facts[1][1] in text.replace("\\", "")


def test_what_nothing_permits_is_said() -> None:
    page = page_of(Subject.load(SHIPPED / "regulated-data"), signed="none")
    network = next(group for group in page.groups if group.name == "network")
    assert "connect to any host or address" in network.never
    assert network.permits == ()


@pytest.mark.parametrize("form", [html, markdown])
def test_every_annotation_and_why_a_row_is_not_exact_are_on_the_page(
    tmp_path: Path, form: Callable[[Page], str]
) -> None:
    policies = """
        @id("a") @owner("netsec") @expires("2027") permit (principal, action == Sandbox::Action::"connect", resource);
        @id("b") permit (principal, action == Sandbox::Action::"connect", resource) when { context.port + 1 == 444 };
        @id("c") permit (principal, action == Sandbox::Action::"connectAnywhere", resource);
    """
    text = form(page_of(Subject.load(write_bundle(tmp_path, policies)), signed="none"))
    # The Cedar text is folded away, and has them too.
    shown = re.sub(r"(?s)<[^>]+>", "", re.sub(r"(?s)<details>.*?</details>", "", text)).replace("\\", "")
    assert "@owner: netsec" in shown
    assert "@expires: 2027" in shown
    assert "a policy fails to evaluate" in shown
    assert "c permits a network that cannot be restricted" in shown


def test_comments_without_the_head_of_the_file(tmp_path: Path) -> None:
    permit = "permit (principal, action, resource);"
    first = f'// About the file.\n//\n// The first.\n@id("a") {permit}\n'
    policies = f'{first}\n// The second,\n// in two lines.\n@id("b") {permit}\n@id("c") {permit}\n'
    page = page_of(Subject.load(write_bundle(tmp_path, policies)), signed="none")
    comments = [policy.comment for policy in page.groups[0].permits]
    assert comments == [("The first.",), ("The second, in two lines.",), ()]


def test_a_file_and_who_signed(run: Run, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", '@id("a") permit (principal, action, resource);')
    page = tmp_path / "page.html"
    assert run("render", bundle, "--into", page)[0] == 0
    assert "<dd>none</dd>" in page.read_text()
    write_key_pair(tmp_path / "release.key")
    assert run("sign", bundle, "--key", tmp_path / "release.key")[0] == 0
    run("render", bundle, "--into", page)
    assert "there, and not verified here" in page.read_text()
    code, out, _ = run("render", bundle, "--format", "markdown", "--public-key", tmp_path / "release.pub")
    assert (code, "verified" in out) == (0, True)
    write_key_pair(tmp_path / "other.key")
    assert run("render", bundle, "--public-key", tmp_path / "other.pub")[0] == 2
    before = page.read_text()
    (bundle / "policies.cedar").write_text("permit (")
    assert run("render", bundle, "--into", page)[0] == 2
    assert page.read_text() == before
    assert run("render", SHIPPED / "baseline", "--into", tmp_path)[0] == 2


def test_it_is_the_same_each_time() -> None:
    first, second = (html(page_of(Subject.load(SHIPPED / "baseline"), signed="none")) for _ in range(2))
    assert first == second
    assert PolicyBundle.load(SHIPPED / "baseline").digest in first
