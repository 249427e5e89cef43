"""Bundles read from git revisions and directories, against the real git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.repositories import Repository, bundle_files
from tests.unit.signed import make_key, signed_bundle
from typer.testing import CliRunner

from cedarbox.cli.policy import app
from cedarbox.errors import BundleError, ConfigurationError, HostError
from cedarbox.policy.signing import Signers
from cedarbox.review.revisions import pairs
from cedarbox.review.version import Pair

NONE = "// nothing is permitted\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path / "site")
    made.commit(bundle_files(NONE))
    monkeypatch.chdir(made.top)
    return made


def _texts(pair: Pair) -> tuple[bytes | None, bytes | None]:
    return tuple(  # type: ignore[return-value]
        None if version.files is None else version.files["policies.cedar"] for version in (pair.base, pair.head)
    )


def test_the_working_tree_against_the_merge_base_by_default(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "change")
    repository.git("checkout", "--quiet", "main")
    repository.commit(bundle_files("// later on main\n"))
    repository.git("checkout", "--quiet", "change")
    repository.write(bundle_files(PERMIT_ALL))
    (found,) = pairs(None, None)
    assert found.bundle == "policies/site"
    assert _texts(found) == (NONE.encode(), PERMIT_ALL.encode())
    assert found.base.label.startswith("where it left main (")
    assert str(found.head.root) == "policies/site"


@pytest.mark.parametrize(
    ("base", "head"),
    [
        ("HEAD~1", "HEAD"),
        ("HEAD~1", None),
        ("main~1", "main"),
        ("HEAD~1...", None),
        ("HEAD~1...main", "main"),
        ("HEAD~1:policies/site", "HEAD:policies/site"),
        ("HEAD~1:policies/site", None),
        ("HEAD~1", "./policies/site"),
        ("HEAD~1", "policies/site"),
        ("HEAD~1:policies//site/", "policies/site"),
    ],
)
def test_each_way_to_name_two_versions(repository: Repository, base: str, head: str | None) -> None:
    repository.commit(bundle_files(PERMIT_ALL))
    (found,) = pairs(base, head)
    assert _texts(found) == (NONE.encode(), PERMIT_ALL.encode())
    assert found.bundle == "policies/site"
    subject = found.base.subject()
    assert subject is not None
    assert subject.policies == ()


def test_a_revision_before_a_directory_was_named(repository: Repository) -> None:
    repository.write(bundle_files(PERMIT_ALL))
    (found,) = pairs(None, "policies/site")
    assert _texts(found) == (NONE.encode(), PERMIT_ALL.encode())


def test_two_directories_need_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "old", NONE)
    write_bundle(tmp_path / "new", PERMIT_ALL)
    (found,) = pairs("old", "new")
    assert _texts(found) == (NONE.encode(), PERMIT_ALL.encode())
    with pytest.raises(ConfigurationError, match="give the new one too"):
        pairs("old", None)
    with pytest.raises(ConfigurationError, match="gone: no bundle there"):
        pairs("./old", "./gone")


def test_a_bundle_in_a_subdirectory_of_the_working_directory(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(bundle_files(PERMIT_ALL))
    monkeypatch.chdir(repository.top / "policies")
    (found,) = pairs("HEAD", None, [Path("site")])
    assert found.bundle == "site"
    assert str(found.head.root) == "site"
    assert _texts(found) == (NONE.encode(), PERMIT_ALL.encode())


def test_a_new_bundle_and_a_removed_one_are_found(repository: Repository) -> None:
    repository.git("mv", "policies/site", "policies/moved")
    repository.commit()
    found = pairs("HEAD~1", "HEAD")
    assert [each.bundle for each in found] == ["policies/moved", "policies/site"]
    assert [each.base.files is None for each in found] == [True, False]
    assert [each.head.files is None for each in found] == [False, True]
    assert found[0].base.subject() is None


def test_bundles_that_are_the_same_are_left_out(repository: Repository) -> None:
    repository.write(bundle_files(PERMIT_ALL), "policies/other")
    assert [each.bundle for each in pairs("HEAD", None)] == ["policies/other"]
    assert [each.bundle for each in pairs("HEAD", None, [Path("policies/site")])] == ["policies/site"]


def test_places_of_the_old_version_name_the_commit(repository: Repository) -> None:
    commit = repository.commit(bundle_files("permit (oops);"))
    repository.write(bundle_files(PERMIT_ALL))
    (found,) = pairs("HEAD", None)
    with pytest.raises(BundleError, match=f"^{commit[:12]}:policies/site/policies.cedar:1:"):
        found.base.subject()


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("no-such-branch", "names no commit"),
        ("HEAD~99", "names no commit"),
        ("HEAD^{tree}", "names no commit"),
        ("", "empty"),
        ("HEAD:../x", "no path inside"),
        ("HEAD:/etc", "no path inside"),
        ("a\nb", "no revision"),
        ("x" * 5000, "no revision"),
    ],
)
def test_what_names_no_version(repository: Repository, base: str, said: str) -> None:
    assert repository.top.exists()
    with pytest.raises(ConfigurationError, match=said) as error:
        pairs(base, None)
    assert "\n" not in str(error.value)


def test_a_shallow_clone_says_what_to_fetch(repository: Repository, tmp_path: Path) -> None:
    repository.commit(bundle_files(PERMIT_ALL))
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.top}", str(clone))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        with pytest.raises(ConfigurationError, match="fetch-depth: 0"):
            pairs("HEAD~1", None)


def test_no_repository_and_no_main_branch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(ConfigurationError, match="in no git repository"):
        pairs("main", None)
    made = Repository(tmp_path / "other")
    made.git("checkout", "--quiet", "-b", "trunk")
    made.commit(bundle_files(NONE))
    monkeypatch.chdir(made.top)
    with pytest.raises(ConfigurationError, match="no main branch"):
        pairs(None, None)


def test_a_name_that_is_a_branch_and_a_directory_is_not_guessed(repository: Repository) -> None:
    repository.git("branch", "policies")
    with pytest.raises(ConfigurationError, match=r"write \./policies"):
        pairs("policies", None)


def test_the_environment_of_a_hook_leads_nowhere_else(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repository(tmp_path / "other")
    other.commit(bundle_files(PERMIT_ALL))
    monkeypatch.setenv("GIT_DIR", str(other.top / ".git"))
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    repository.write(bundle_files("// third\n"))
    (found,) = pairs("HEAD", None)
    assert _texts(found) == (NONE.encode(), b"// third\n")
    assert not (tmp_path / "trace").exists()


def test_no_bundle_anywhere(repository: Repository) -> None:
    with pytest.raises(ConfigurationError, match="no bundle there, before or after"):
        pairs("HEAD", None, [Path("policies/none")])
    with pytest.raises(ConfigurationError, match="not below"):
        pairs("HEAD", None, [Path("/srv")])
    repository.git("rm", "--quiet", "-r", "policies")
    repository.git("commit", "--quiet", "--amend", "--allow-empty", "--message=none")
    with pytest.raises(ConfigurationError, match="no policy bundle"):
        pairs("HEAD", None)


def test_signed_versions_are_verified_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, _ = make_key(tmp_path)
    signers = Signers.of([key.public_key()])
    monkeypatch.chdir(tmp_path)
    signed_bundle(tmp_path / "old", key, policies=NONE)
    signed_bundle(tmp_path / "new", key, revision=2)
    (found,) = pairs("old", "new", signers=signers)
    assert [len(version.signed_by) for version in (found.base, found.head)] == [1, 1]
    assert found.head.subject() is not None
    (tmp_path / "new" / "policies.cedar").write_text(NONE)
    with pytest.raises(BundleError, match="not what was signed"):
        pairs("old", "new", signers=signers)


def test_a_signed_bundle_in_a_revision(repository: Repository, tmp_path: Path) -> None:
    key, _ = make_key(tmp_path)
    with pytest.raises(BundleError, match="is not signed"):
        pairs("HEAD", "HEAD", [Path("policies/site")], signers=Signers.of([key.public_key()]))
    signed_bundle(repository.top / "policies" / "site", key)
    repository.commit()
    (found,) = pairs("HEAD", "HEAD", [Path("policies/site")], signers=Signers.of([key.public_key()]))
    assert found.base.files is not None
    assert "bundle.sig.json" not in found.base.files


def test_git_is_not_installed(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    assert subprocess.run(["git", "--version"], check=True, capture_output=True).stdout
    monkeypatch.setenv("PATH", str(repository.top))
    with pytest.raises(Exception, match="git is not installed"):
        pairs("HEAD", None)


def test_a_git_that_was_killed_does_not_have_another_branch_compared(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without origin/main the branch main would be taken, in which the change is already.
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")
    repository.commit({"policies.cedar": PERMIT_ALL.replace("all", "more")})
    assert len(pairs(None, None)) == 1
    (tmp_path / "bin").mkdir()
    killed = tmp_path / "bin" / "git"
    real = shutil.which("git")
    killed.write_text(f'#!/bin/sh\ncase "$*" in *origin/main*) kill -9 $$ ;; esac\nexec {real} "$@"\n')
    killed.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(HostError, match="git was ended by signal 9"):
        pairs(None, None)


def test_what_nothing_differs_from_is_told(repository: Repository) -> None:
    done = CliRunner().invoke(app, ["diff"])
    assert done.exit_code == 0
    assert f"compared with where it left main ({repository.git('rev-parse', '--short=12', 'HEAD')})" in done.stdout
