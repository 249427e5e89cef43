"""Attacks on the review with cedarbox.toml: settings that undo what the policies say, where no policy changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
from tests.unit.differing import AGENTS, cli, entities, findings, permit, shared_prover, subjects
from tests.unit.repositories import METADATA, Repository, bundle_files
from tests.unit.signed import make_key

from cedarbox.egress.limits import EgressLimits
from cedarbox.errors import ConfigurationError
from cedarbox.review.configured import DEFAULT_BUNDLE
from cedarbox.review.diff.opening import DEFAULTS, LIMITS
from cedarbox.settings import Settings, load_settings

FEW = permit("few", "fork", "context.copies <= 2")


@pytest.fixture(autouse=True, scope="module")
def _prover() -> Iterator[None]:
    yield from shared_prover()


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
    settings = Settings()
    assert settings.policy.bundle == Path(DEFAULT_BUNDLE)
    for key, value in DEFAULTS.items():
        said = attrgetter(key)(settings)
        if said is None and key.startswith("egress.limits."):
            said = getattr(EgressLimits(), key.rpartition(".")[2])
        assert value == (list(said) if isinstance(said, tuple) else str(said) if isinstance(said, Path) else said)
    assert {f"egress.limits.{name}" for name in LIMITS} < DEFAULTS.keys()


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
        ("", '[sandbox]\nimage_keys = ["a.pub"]', "sandbox.image_keys", "counts as signed"),
        ("", '[egress]\nmode = "nic"', "egress.mode", "a network card"),
        ("", '[egress.secrets.t]\nreference = "file:/etc/shadow"', "egress.secrets.t.reference", "another secret"),
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


@pytest.mark.parametrize("setting", ["policy.public_keys", "sandbox.image_keys"])
def test_a_public_key_in_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """Neither a bundle nor cedarbox.toml changes, and a file of a public key that it names holds another key. That is
    told as what it is: somebody else's signature counts. In a commit too, and behind a link."""
    section, key = setting.split(".")
    settings = f'{NARROW if section == "policy" else NARROW + "[sandbox]"}\n{key} = ["now.pub"]\n'
    repository = _site(tmp_path, monkeypatch, settings)
    (repository.top / "now.pub").symlink_to("keys/a.pub")
    repository.write({"keys/a.pub": "one\n"}, ".")
    repository.commit()
    assert cli("diff", "HEAD").exit_code == 0
    repository.write({"keys/a.pub": "two\n"}, ".")
    result = cli("diff", "HEAD", "--json")
    (found,) = findings(json.loads(result.stdout))
    assert (result.exit_code, found["file"]) == (1, "cedarbox.toml")
    assert found["message"].startswith(f"{setting} was ")
    repository.commit()
    assert cli("diff", "HEAD~1", "HEAD").exit_code == 1


@pytest.mark.parametrize(
    "settings",
    [
        '[POLICY]\nmode = "shadow"',
        '_env_file = "more.env"',
        '_cli_parse_args = ["--policy.mode=shadow"]',
        '"policy.mode" = "enforce"',
    ],
)
def test_settings_that_are_read_otherwise_than_they_are_reviewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    """cedarbox.toml spells a section otherwise, or has a key that the library behind the settings takes for a command
    to read more of them. A review knows none of these, so they are refused where they would count."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.env").write_text("CEDARBOX_POLICY__MODE=shadow\n")
    (tmp_path / "cedarbox.toml").write_text(f"{settings}\n")
    with pytest.raises(ConfigurationError, match="unknown section"):
        load_settings()


def test_an_acceptance_of_settings_is_for_these_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of keys is longer than what a report shows of it. What is accepted is all of it: another key at its end is
    another change. And once it is in the base, the same change on top of other settings is not accepted."""
    long = ", ".join(f'"keys/{number:04}.pub"' for number in range(20))
    repository = _site(tmp_path, monkeypatch, f"{NARROW}public_keys = [{long}]\n")
    known = {}
    for name in ("a", "b"):
        repository.write({"cedarbox.toml": f'{NARROW}public_keys = [{long}, "{name}.pub"]\n'}, ".")
        (found,) = findings(json.loads(cli("diff", "HEAD", "--json").stdout))
        known[name] = found["details"]["id"]
    repository.commit({"cedarbox.toml": f"{NARROW}watch_s = 1.0\npublic_keys = [{long}]\n"}, ".")
    repository.write({"cedarbox.toml": f'{NARROW}watch_s = 1.0\npublic_keys = [{long}, "a.pub"]\n'}, ".")
    (found,) = findings(json.loads(cli("diff", "HEAD", "--json").stdout))
    assert len({*known.values(), found["details"]["id"]}) == 3


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
    """A change of the settings that decides nothing by itself, such as which image is taken, is a warning and fails
    nothing; what has no weight, such as a comment or how often a file is looked at, is not told."""
    repository = _site(tmp_path, monkeypatch, NARROW)
    for settings, keys in (("# x\nwatch_s = 5\n", []), ('[sandbox]\nimage = "x"\n', ["sandbox.image"])):
        repository.write({"cedarbox.toml": NARROW + settings}, ".")
        result = cli("diff", "HEAD", "--json")
        assert result.exit_code == 0
        assert [each["message"].split()[0] for each in findings(json.loads(result.stdout), "D104")] == keys
