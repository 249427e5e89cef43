"""Attacks on what a change is compared with: names that mean something else, and histories that hide a part of it."""

from __future__ import annotations

from pathlib import Path
from shutil import copy, copytree

import pytest
from tests.unit.bundles import PERMIT_ALL
from tests.unit.differing import permit
from tests.unit.repositories import Repository, bundle_files

from cedarbox.errors import CedarboxError, ConfigurationError
from cedarbox.review import git_run
from cedarbox.review.revisions import pairs
from cedarbox.review.sources import read_at

NONE = permit("none", "exec", effect="forbid")
SITE = [Path("policies/site")]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A clone with a bundle that permits nothing, on a branch that changes it to permit everything."""
    made = Repository(tmp_path / "repository")
    made.git("update-ref", "refs/remotes/origin/main", made.commit(bundle_files(NONE)))
    made.git("checkout", "--quiet", "-b", "change")
    made.commit(bundle_files(PERMIT_ALL))
    monkeypatch.chdir(made.top)
    return made


def _needs_case(repository: Repository) -> None:
    if (repository.top / "POLICIES").exists():
        pytest.skip("this file system does not tell upper and lower case apart")


def _base(base: str | None, head: str | None = None) -> bytes:
    (pair,) = pairs(base, head)
    assert pair.base.files is not None
    return pair.base.files["policies.cedar"]


@pytest.mark.parametrize("kind", ["tags", "heads"])
def test_a_tag_with_the_name_of_the_base(repository: Repository, kind: str) -> None:
    """Whoever may push a tag calls one `origin/main`, or a branch, and puts it on the change: git takes it before the
    branch of the origin, and the change is compared with itself. The name is refused, for the keys of acceptors too; by
    default, and by its whole name, the branch is what is compared with."""
    repository.git("update-ref", f"refs/{kind}/origin/main", "HEAD")
    assert repository.git("rev-parse", "origin/main") == repository.git("rev-parse", "HEAD")
    for base in ("origin/main", "origin/main...", "origin/main:policies/site", "origin/main~0"):
        with pytest.raises(ConfigurationError, match="the name of more than one"):
            pairs(base, None)
    with pytest.raises(ConfigurationError, match="the name of more than one"):
        read_at("origin/main:policies/site/bundle.toml", 1000)
    assert _base(None) == _base("refs/remotes/origin/main...") == _base("refs/remotes/origin/main") == NONE.encode()


def test_a_tag_with_the_name_of_a_commit(repository: Repository) -> None:
    """A tag is called like the beginning of the id of the base, and one like HEAD. The first is refused where it would
    count, the second never counts."""
    main = repository.git("rev-parse", "origin/main")
    repository.git("update-ref", f"refs/tags/{main[:10]}", "HEAD")
    repository.git("update-ref", f"refs/tags/{main}", "HEAD")
    repository.git("update-ref", "refs/tags/HEAD", main)
    with pytest.raises(ConfigurationError, match="the name of more than one"):
        pairs(main[:10], None)
    assert _base(main, "HEAD") == NONE.encode()


@pytest.mark.parametrize("name", ["origin/main...", "origin/main:policies/site", "origin/main~0"])
def test_a_directory_with_the_name_of_the_base(repository: Repository, name: str) -> None:
    """The change brings along a directory that is named as the base is written, with a bundle that permits everything:
    compared with that, it widens nothing. What only a revision can be written like is never a directory."""
    repository.commit(bundle_files(PERMIT_ALL), name)
    head = "policies/site" if ":" in name else "HEAD"
    assert NONE.encode() in {(each.base.files or {}).get("policies.cedar") for each in pairs(name, head)}


def test_two_newest_common_commits(repository: Repository) -> None:
    """Main narrowed the bundle and merged a branch from before; the change merges that branch with main as it was, and
    keeps the policies of the branch. Compared with the branch nothing changes, and merged into main it widens. With two
    newest common commits the change is refused until main is merged into it."""
    git = repository.git
    git("checkout", "--quiet", "-B", "old", "change")
    side = repository.commit({"README": "later\n"}, ".")
    git("checkout", "--quiet", "-B", "main", "change")
    narrowed = repository.commit(bundle_files(NONE))
    git("merge", "--quiet", "--no-ff", "--message=main", side)
    git("checkout", "--quiet", "-B", "change", side)
    git("merge", "--quiet", "--no-ff", "--strategy=ours", "--message=change", narrowed)
    assert len(git("merge-base", "--all", "main", "change").split()) == 2
    with pytest.raises(ConfigurationError, match="2 newest common commits; merge main into"):
        pairs("main...", None, SITE)
    git("merge", "--quiet", "--strategy=ours", "--message=again", "main")
    assert _base("main...") == NONE.encode()


def test_a_shallow_clone_that_hides_the_newest_common_commit(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything was permitted, and main narrowed that. The change goes back to before on a way that the clone has, and
    comes from the narrowed main on one that it is too shallow for: what is common seems to be the older commit, in
    which everything was permitted. A shallow clone is no obstacle where it ends behind what is common."""
    git = repository.git
    wide = git("rev-parse", "change")
    git("checkout", "--quiet", "-B", "main", wide)
    repository.commit(bundle_files(NONE))
    git("checkout", "--quiet", "-b", "long")
    for number in range(4):
        repository.commit({"README": f"{number}\n"}, ".")
    git("checkout", "--quiet", "-B", "change", wide)
    git("merge", "--quiet", "--no-ff", "--strategy=ours", "--message=change", "long")
    git("checkout", "--quiet", "-b", "honest", "main")
    repository.commit(bundle_files(PERMIT_ALL))
    clone = Repository(tmp_path / "clone")
    branches = ("main:main", "change:change", "honest:honest")
    clone.git("fetch", "--quiet", "--depth=4", "--update-head-ok", f"file://{repository.top}", *branches)
    assert clone.git("merge-base", "main", "change") == wide
    clone.git("checkout", "--quiet", "change")
    monkeypatch.chdir(clone.top)
    with pytest.raises(ConfigurationError, match=r"older than where this shallow clone ends; .*unshallow"):
        pairs("main...", None, SITE)
    clone.git("checkout", "--quiet", "honest")
    assert _base("main...") == NONE.encode()


@pytest.mark.parametrize("ours", [True, False])
def test_files_of_a_bundle_that_are_a_repository(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    """The change brings along, in the bundle, the files of a bare repository in which main permits everything already,
    with a configuration that says what its working tree is. Run in the bundle git takes it for the repository. It is
    refused, by a git of before 2.38 too, which has no word against it.
    """
    other = Repository(tmp_path / "other")
    other.commit(bundle_files(PERMIT_ALL), ".")
    other.git("config", "core.worktree", ".")
    site = repository.top / "policies" / "site"
    for name in ("HEAD", "config", "objects", "refs"):
        source = other.top / ".git" / name
        (copytree if source.is_dir() else copy)(source, site / name)
    monkeypatch.chdir(site)
    assert repository.git("-C", str(site), "rev-parse", "--show-toplevel") == str(site)
    if not ours:
        monkeypatch.setattr(git_run, "_SWITCHED_OFF", ())
    with pytest.raises(ConfigurationError, match="cannot use bare repository" if ours else r"has no \.git"):
        pairs("main", None, [Path()])
    monkeypatch.chdir(repository.top)
    assert _base("origin/main") == NONE.encode()


@pytest.mark.parametrize("where", ["policies/site", "policies", "policies/site/properties"])
def test_a_submodule_that_is_not_checked_out(repository: Repository, tmp_path: Path, where: str) -> None:
    """The bundle, what it is in or a part of it becomes a submodule. A pipeline that does not fetch it sees an empty
    directory, in which nothing is permitted, and a host fetches it. It is refused, filled or not."""
    other = Repository(tmp_path / "other")
    other.commit(bundle_files(PERMIT_ALL), "site" if where == "policies" else ".")
    if not where.endswith("properties"):
        repository.git("rm", "-r", "--quiet", where)
    repository.git("submodule", "--quiet", "add", str(other.top), where)
    repository.commit()
    clone = Repository(tmp_path / "clone")
    clone.git("pull", "--quiet", f"file://{repository.top}", "change")
    assert list((clone.top / where).iterdir()) == []
    base = repository.git("rev-parse", "origin/main")
    for top in (repository.top, clone.top):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(top)
            with pytest.raises(CedarboxError, match="a submodule, whose files"):
                pairs(base, None, SITE)


def test_a_submodule_that_decides_nothing(repository: Repository, tmp_path: Path) -> None:
    """A repository is a bundle as a whole, and has a submodule with something else. That is no obstacle."""
    other = Repository(tmp_path / "other")
    other.commit({"README": "other\n"}, ".")
    repository.git("submodule", "--quiet", "add", str(other.top), "third/party")
    base = repository.commit(bundle_files(NONE), ".")
    (pair,) = pairs(base, None, [Path()])
    assert pair.head.files == pair.base.files


@pytest.mark.parametrize(
    "attributes",
    [
        b"*.cedar plain\n[attr]plain more\n[attr]more ident\n",
        b"*.cedar diff=a\x0cb ident\n",
        "*.cedar diff=a\u2028b ident\n".encode(),
        b"policies/**/site/**/policies.cedar ident\n",
        b"*.CEDAR ident\n",
        Path("*.cedar ident"),
    ],
)
def test_attributes_that_two_readers_read_differently(
    repository: Repository, tmp_path: Path, attributes: bytes | Path
) -> None:
    """`.gitattributes` has git put text into the policies of a checkout, in words that only git reads so: a macro that
    is used before it is made, white space and ends of lines that are none for git, two stars
    twice, another case where case does not count, a link whose target is the line. Of such a commit nothing is said."""
    git = repository.git
    if isinstance(attributes, Path):
        (repository.top / ".gitattributes").symlink_to(attributes)
    else:
        (repository.top / ".gitattributes").write_bytes(attributes)
    head = repository.commit({"policies.cedar": f"// $Id$\n{PERMIT_ALL}"})
    git("config", "core.ignoreCase", "true")
    git("worktree", "add", "--quiet", "--detach", str(tmp_path / "host"), head)
    assert "// $Id: " in (tmp_path / "host/policies/site/policies.cedar").read_text()
    with pytest.raises(CedarboxError, match="otherwise than it stands in the commit"):
        pairs("origin/main", head, SITE)


@pytest.mark.parametrize("where", ["commit", "working tree"])
@pytest.mark.parametrize("name", ["policies/site/POLICIES.CEDAR", "Policies/site/more.cedar", "policies/\u017fite/x"])
def test_a_file_that_is_another_one_where_case_does_not_count(repository: Repository, where: str, name: str) -> None:
    """The change adds a file that stands apart on the machine of the pipeline. On macOS it takes the place of the
    policies, or lands beside them. The bundle is refused while there is such a name."""
    _needs_case(repository)
    repository.git("checkout", "--quiet", "-B", "change", "origin/main")
    repository.commit({name: PERMIT_ALL}, ".")
    with pytest.raises(CedarboxError, match="are one where upper and lower case are not told apart"):
        pairs("origin/main", "HEAD" if where == "commit" else None, SITE)


@pytest.mark.parametrize("head", ["HEAD", None])
def test_settings_that_are_others_where_case_does_not_count(repository: Repository, head: str | None) -> None:
    """The change adds `CedarBox.toml`, which has nothing enforced any more on a host with macOS, and is no settings on
    the machine of the pipeline."""
    _needs_case(repository)
    repository.commit({"CedarBox.toml": '[policy]\nmode = "shadow"\n'}, ".")
    with pytest.raises(CedarboxError, match="are one where upper and lower case are not told apart"):
        pairs("origin/main", head)


@pytest.mark.parametrize("name", ["cedarbox.toml", "links.json", "site.cedarschema"])
def test_what_decides_beside_the_policies_is_another_on_disk(repository: Repository, name: str) -> None:
    """Attributes turn the settings of a commit into others, or the schema or the links of plain Cedar. Nothing is said
    of such a commit."""
    files = {"cedarbox.toml": "", "links.json": "[]", "site.cedarschema": "entity User; action view;"}
    plain = () if name == "cedarbox.toml" else (Path("site.cedarschema"), Path("links.json"))
    base = repository.commit(files, ".")
    repository.commit({".gitattributes": f"{name} working-tree-encoding=UTF-7\n"}, ".")
    schema, links = plain or (None, None)
    with pytest.raises(CedarboxError, match=f"{name}: git writes it to disk otherwise"):
        pairs(base, "HEAD", SITE if plain else (), schema=schema, links=links)


@pytest.mark.parametrize("how", ["a mode with a zero", "two of one name", "cut off"])
def test_a_directory_that_no_git_writes(repository: Repository, tmp_path: Path, how: str) -> None:
    """The change has a directory written by hand: the mode of the one with the bundle begins with a zero, as some
    servers let pass and every git reads; or there are two with its name, of which a checkout takes one; or it ends in
    the middle. The bundle is found all the same, or nothing is said; it is never taken for gone."""
    ours, none = (bytes.fromhex(repository.git("rev-parse", f"{each}:policies")) for each in ("HEAD", "origin/main"))
    written = b"%b policies\0%b" % (b"040000" if how == "a mode with a zero" else b"40000", ours)
    if how == "two of one name":
        written += b"40000 policies\0%b" % none
    (tmp_path / "tree").write_bytes(written[:-1] if how == "cut off" else written)
    tree = repository.git("hash-object", "-t", "tree", "--literally", "-w", str(tmp_path / "tree"))
    head = repository.git("commit-tree", tree, "-p", "origin/main", "-m", "change")
    if how == "a mode with a zero":
        (pair,) = pairs("origin/main", head)
        assert pair.head.files is not None
        assert pair.head.files["policies.cedar"] == PERMIT_ALL.encode()
    else:
        with pytest.raises(CedarboxError, match="cannot be read"):
            pairs("origin/main", head)
