"""The SDK's own sandbox tests, with our guarded client in place of the unix-local one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance import shown
from tests.conformance.sdist import VERSION, Unavailable, check_digest, source_tree
from tests.conformance.upstream import Inapplicable, run_upstream
from tests.rig.trouble import RigError


@pytest.fixture(scope="module")
def tree() -> Path:
    """The SDK's source tree."""
    try:
        return source_tree()
    except Unavailable as error:
        pytest.skip(f"the tests of openai-agents {VERSION} are not cached, and pip cannot fetch them: {error}")


@pytest.mark.timeout(960)
def test_the_sdks_own_tests_pass_behind_the_guard(tree: Path, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    listed = Inapplicable.load()
    run = run_upstream(tree, tmp_path, "tests/sandbox", ignore=listed.files)
    shown.count(pytestconfig, "the SDK's own sandbox tests, behind the guard", run.counts)
    failed = {name: reason for name, (outcome, reason) in run.outcomes.items() if outcome == "failed"}
    # Some give an interpreter ten seconds, or an event one, of which it needs more beside enough other tests.
    late = [name for name, reason in failed.items() if name not in listed.tests and "Timeout" in reason]
    if late:
        again = run_upstream(tree, tmp_path / "again", *late, ignore={})
        assert again.outcomes.keys() == set(late)
        failed = {
            name: reason for name, reason in failed.items() if again.outcomes.get(name, ("failed",))[0] != "passed"
        }
    assert {name: reason for name, reason in failed.items() if name not in listed.tests} == {}, run.output
    # A reason that no longer holds must leave the list.
    assert sorted(set(listed.tests) - set(failed)) == []
    assert all((tree / path).is_file() for path in listed.files)
    # And the guard was in the way: every client made decisions, and they are in ledgers.
    assert run.counts["passed"] > 1500
    assert run.clients > 80
    assert run.records > 5 * run.clients


def test_another_source_distribution_is_refused(tmp_path: Path) -> None:
    forged = tmp_path / f"openai_agents-{VERSION}.tar.gz"
    forged.write_bytes(b"forged")
    with pytest.raises(RigError, match=rf"{forged.name} has the SHA-256 digest [0-9a-f]{{64}}; it should have "):
        check_digest(forged)


def test_it_is_unavailable_without_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    with pytest.raises(Unavailable, match="No matching distribution found"):
        source_tree(root=tmp_path / "cache")
    assert list((tmp_path / "cache" / "sdk-tests").iterdir()) == [tmp_path / "cache" / "sdk-tests" / ".lock"]
