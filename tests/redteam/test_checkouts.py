"""Attacks on a review by what is checked out: other files, or other bytes, than the commits have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.differing import cli, permit
from tests.unit.repositories import Repository, bundle_files

from cedarbox.errors import ConfigurationError

SITE = "policies/site"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """A repository with a bundle that permits one port."""
    repository = Repository(tmp_path / "repository")
    repository.commit(bundle_files(permit("mirror", "connect", "context.port == 443")), SITE)
    monkeypatch.chdir(repository.top)
    return repository


def _compared(base: str) -> tuple[int, Any]:
    done = cli("review", SITE, "--base", base, "--only", "diff", "--json")
    assert done.stdout.startswith("{"), done.output
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.parametrize("name", ["more.cedar", "properties/more.yaml"])
def test_a_file_that_a_sparse_checkout_leaves_out(name: str, site: Repository) -> None:
    """The change adds a file with a permit, and the pipeline checks out some files only: those that are there permit
    no more than before. Or it leaves out the properties, so that nothing is proved. The comparison refuses a bundle of
    which the index knows a file that is not there.
    """
    site.commit({name: permit("more", "exec")}, SITE)
    site.git("sparse-checkout", "set", "--no-cone", "/*", f"!{SITE}/{name}")
    assert not (site.top / SITE / name).exists()
    code, document = _compared("HEAD~1")
    assert code == 1
    assert "left out by a sparse checkout" in document["findings"][0]["message"]


@pytest.mark.parametrize("attribute", ["", "cedarbox.toml working-tree-encoding=UTF-7\n"])
def test_settings_that_are_not_checked_out_as_they_are(attribute: str, site: Repository) -> None:
    """The change has nothing enforced any more by settings that a sparse checkout leaves out, or that an attribute
    turns into others. The comparison refuses to say what decides.
    """
    settings = {"cedarbox.toml": f'[policy]\nbundle = "{SITE}"\nmode = "shadow"\n'}
    site.commit(settings | ({".gitattributes": attribute} if attribute else {}), ".")
    if not attribute:
        site.git("sparse-checkout", "set", "--no-cone", "/policies")
        assert not (site.top / "cedarbox.toml").exists()
    code, document = _compared("HEAD~1")
    (refused,) = document["findings"]
    assert (code, refused["rule"], refused["file"]) == (1, "diff-refused", "cedarbox.toml")
    assert ("in .gitattributes" if attribute else "left out by a sparse checkout") in refused["message"]


@pytest.mark.parametrize(
    "attribute", ["working-tree-encoding=UTF-7", "eol=crlf", "ident", "filter=lfs", "text working-tree-encoding=UTF-7"]
)
def test_a_file_that_a_checkout_turns_into_another(attribute: str, site: Repository) -> None:
    """A first change has a condition that is true in the bytes of the commit and false in those that an attribute makes
    of them, so it widens nothing as checked out. A second one takes the attribute away: both commits have the same
    bytes, and nothing seems to change. A file with such an attribute is refused, so the first change does not pass.
    """
    site.write({".gitattributes": f"*.cedar {attribute}\n"}, ".")
    site.git("add", ".gitattributes")
    code, document = _compared("HEAD")
    assert code == 1
    assert "a checkout is not what is in the commit" in document["findings"][0]["message"]


def test_attributes_that_change_nothing(site: Repository) -> None:
    """Attributes that leave the bytes as they are do not stand in the way."""
    site.write({".gitattributes": "* text=auto eol=lf -ident !filter\n*.cedar linguist-language=Cedar\n"}, ".")
    assert _compared("HEAD")[0] == 0


@pytest.mark.parametrize("ignored", [True, False])
def test_a_forbid_that_no_commit_has(ignored: bool, site: Repository) -> None:
    """A file with a forbid lies about in the checkout, from an earlier job, and no commit has it, be it one that git
    ignores or not: with it the change widens nothing. That it counts here and nowhere else is told.
    """
    site.commit({"more.cedar": permit("more", "exec")}, SITE)
    site.write({"local.cedar": permit("none", "exec", effect="forbid")}, SITE)
    site.write({"info/exclude": "local.cedar\n" if ignored else ""}, ".git")
    code, document = _compared("HEAD~1")
    assert code == 0
    told = f"local.cedar is {'ignored by git' if ignored else 'new to git'}: it counts here, and no commit has it"
    assert any(told in note for note in document["notes"])
    assert not any("more.cedar" in note for note in document["notes"])


def test_a_base_that_is_what_is_checked_out(site: Repository) -> None:
    """The pipeline compares the change with itself. Nothing differs then, and why is told."""
    site.commit({"more.cedar": permit("more", "exec")}, SITE)
    code, document = _compared("HEAD")
    assert code == 0
    assert any("only what is not committed was compared" in note for note in document["notes"])
    assert not any("only what" in note for note in _compared("HEAD~1")[1]["notes"])


def test_the_bundle_taken_away_and_another_one_put_above_it(site: Repository) -> None:
    """The change takes ``bundle.toml`` away and puts a bundle that permits nothing into the directory above. The one
    that the pipeline names is not there then, and the one above is not reviewed in its place.
    """
    (site.top / SITE / "bundle.toml").unlink()
    site.commit(bundle_files(permit("none", "exec", effect="forbid")), "policies")
    done = cli("review", SITE, "--base", "HEAD~1", "--json")
    assert isinstance(done.exception, ConfigurationError)
    assert "it is in no policy bundle" in str(done.exception)


@pytest.mark.parametrize("base", [f"./{SITE}", f"main:{SITE}"])
def test_a_base_that_is_a_directory(base: str, site: Repository) -> None:
    """The base of a review is a directory, which has no settings to compare. It is refused, and told how."""
    done = cli("review", SITE, "--base", base)
    assert isinstance(done.exception, ConfigurationError)
    assert "is compared with a revision; write it like origin/main" in str(done.exception)
