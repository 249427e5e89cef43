"""Attacks on the review of a change: what a repository, a bundle or an acceptance can say to get a widening past it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.unit.bundles import PERMIT_ALL
from tests.unit.repositories import Repository, bundle_files

from cedarbox.errors import BundleError, CedarboxError
from cedarbox.review.revisions import pairs
from cedarbox.review.version import Pair

NONE = "// nothing is permitted\n"
SITE = [Path("policies/site")]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path / "site")
    made.commit(bundle_files(NONE))
    monkeypatch.chdir(made.top)
    return made


def _program(tmp_path: Path) -> tuple[str, Path]:
    """Return a program that leaves a mark, and the mark."""
    mark, program = tmp_path / "mark", tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {mark}\nexit 0\n")
    program.chmod(0o755)
    return str(program), mark


def _head(found: Sequence[Pair]) -> bytes:
    (pair,) = found
    assert pair.head.files is not None
    return pair.head.files["policies.cedar"]


@pytest.mark.parametrize(
    "revision",
    [
        "--upload-pack=touch mark",
        "-c",
        "--help",
        "--output=mark",
        "--end-of-options",
        "-",
        "--",
        "main\n--all",
        "main\0x",
    ],
)
def test_a_revision_that_is_an_option_of_git(repository: Repository, revision: str) -> None:
    """Revisions that git would read as options. Each is refused in one line before git is asked; no file appears."""
    before = sorted(repository.top.iterdir())
    for base, head in ((revision, None), ("main", revision), (f"{revision}...", None), (f"{revision}:policies", None)):
        with pytest.raises(CedarboxError) as error:
            pairs(base, head, SITE if ":" not in base else ())
        assert "\n" not in str(error.value)
    assert sorted(repository.top.iterdir()) == before


def test_a_repository_that_names_programs(repository: Repository, tmp_path: Path) -> None:
    """A .git/config with a file system monitor, hooks, filters, textconv, a pager and aliases, each a program that
    leaves a mark. The bundle is read, by revisions and from the working tree, and no mark is there. With a filter, with
    which a checkout is something else than the commit, the working tree is refused, and the filter does not run.
    """
    program, mark = _program(tmp_path)
    hooks = repository.top / ".git" / "hooks"
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {mark}\n")
        (hooks / name).chmod(0o755)
    repository.commit({".gitattributes": "*.cedar diff=evil\n"}, ".")
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "core.editor",
        "core.askPass",
        "core.alternateRefsCommand",
        "diff.evil.textconv",
        "diff.external",
        "filter.evil.smudge",
        "filter.evil.clean",
        "filter.evil.process",
        "gpg.program",
        "credential.helper",
        "uploadpack.packObjectsHook",
    ):
        repository.git("config", key, program)
    for command in ("rev-parse", "cat-file", "merge-base", "ls-files", "check-attr", "symbolic-ref"):
        repository.git("config", f"alias.{command}", f"!{program}")
    mark.unlink(missing_ok=True)
    repository.write(bundle_files(PERMIT_ALL))
    assert _head(pairs("main", None)) == PERMIT_ALL.encode()
    assert _head(pairs(None, None)) == PERMIT_ALL.encode()
    assert _head(pairs("HEAD~1", "HEAD", SITE)) == NONE.encode()
    repository.write({".gitattributes": "*.cedar filter=evil\n"}, ".")
    with pytest.raises(BundleError, match="a checkout is not what is in the commit"):
        pairs("main", None)
    assert not mark.exists()


def test_a_partial_clone_that_fetches_with_a_program(repository: Repository, tmp_path: Path) -> None:
    """A clone without blobs, whose configuration says which program fetches what is missing. Nothing is fetched: the
    review says in one line that the clone is not whole, and the program did not run."""
    program, mark = _program(tmp_path)
    repository.git("config", "uploadpack.allowFilter", "true")
    clone = tmp_path / "clone"
    repository.git("clone", "--quiet", "--no-checkout", "--filter=blob:none", f"file://{repository.top}", str(clone))
    partial = Repository(clone)
    partial.git("config", "remote.origin.uploadpack", program)
    partial.git("config", "protocol.allow", "always")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(clone)
        with pytest.raises(CedarboxError, match="the clone is not whole"):
            pairs("HEAD", "HEAD", SITE)
    assert not mark.exists()


def test_an_object_that_is_replaced(repository: Repository) -> None:
    """A replace reference shows the reviewer another commit than the one that will be checked out. The review reads
    the true one, with the widening in it."""
    good = repository.git("rev-parse", "HEAD")
    bad = repository.commit(bundle_files(PERMIT_ALL))
    repository.git("replace", bad, good)
    assert repository.git("show", f"{bad}:policies/site/policies.cedar") == NONE.strip()
    assert _head(pairs("HEAD~1", bad, SITE)) == PERMIT_ALL.encode()


def test_a_graft_that_moves_the_merge_base(repository: Repository) -> None:
    """A graft makes the widening commit look like one of the main branch, so that the merge base has it already. The
    review takes the parents of the commits themselves, and sees the widening."""
    base = repository.git("rev-parse", "HEAD")
    repository.git("checkout", "--quiet", "-b", "change")
    bad = repository.commit(bundle_files(PERMIT_ALL))
    repository.git("checkout", "--quiet", "main")
    main = repository.commit({"README": "later\n"}, ".")
    (repository.top / ".git" / "info").mkdir(exist_ok=True)
    (repository.top / ".git" / "info" / "grafts").write_text(f"{main} {bad}\n")
    assert repository.git("merge-base", "main", "change") == bad
    (found,) = pairs("main...change", "change", SITE)
    assert base[:12] in found.base.label
    assert found.base.files is not None
    assert found.base.files["policies.cedar"] == NONE.encode()


@pytest.mark.parametrize("where", ["commit", "working tree"])
@pytest.mark.parametrize("what", ["bundle", "above it", "file"])
def test_a_bundle_behind_a_link(repository: Repository, where: str, what: str) -> None:
    """The bundle, a directory above it or a file in it is a link, whose target can change after the review. It is
    refused, in a commit as on disk, and the message names the link."""
    directory = repository.top / "policies"
    elsewhere = repository.write(bundle_files(PERMIT_ALL), "elsewhere/site")
    if what == "bundle":
        (directory / "site").rename(repository.top / "old")
        (directory / "site").symlink_to(elsewhere)
    elif what == "above it":
        directory.rename(repository.top / "old")
        directory.symlink_to(elsewhere.parent)
    else:
        (directory / "site" / "policies.cedar").unlink()
        (directory / "site" / "policies.cedar").symlink_to(elsewhere / "policies.cedar")
    if where == "commit":
        repository.commit()
    with pytest.raises(CedarboxError, match=r"link|regular file"):
        pairs("main~1" if where == "commit" else "main", "main" if where == "commit" else None, SITE)


def test_a_bundle_in_a_submodule(repository: Repository, tmp_path: Path) -> None:
    """The bundle is a submodule, whose content is not in the commit. It is refused: what is reviewed must be there."""
    other = Repository(tmp_path / "other")
    other.commit(bundle_files(PERMIT_ALL), ".")
    repository.git("submodule", "--quiet", "add", str(other.top), "policies/other")
    repository.commit()
    with pytest.raises(CedarboxError, match="submodule"):
        pairs("HEAD~1", "HEAD", [Path("policies/other")])


def test_names_and_sizes_that_a_bundle_has_not(repository: Repository) -> None:
    """A commit with a policy file of 5 MB, one whose name is not UTF-8, and one whose name moves the cursor. Each is
    refused in one line; none is passed over."""
    site = repository.top / "policies" / "site"
    (site / "large.cedar").write_bytes(b"// " + b"x" * 5_000_000)
    large = repository.commit()
    (site / "large.cedar").unlink()
    (site / os.fsdecode(b"\xff.cedar")).write_text(PERMIT_ALL)
    bytes_of = repository.commit()
    (site / os.fsdecode(b"\xff.cedar")).unlink()
    (site / "\x1b[2K.cedar").write_text(PERMIT_ALL)
    escape = repository.commit()
    for commit, said in ((large, "larger than"), (bytes_of, "name"), (escape, "name")):
        with pytest.raises(CedarboxError, match=said) as error:
            pairs("HEAD~3", commit, SITE)
        assert str(error.value).isprintable()
