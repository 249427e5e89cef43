"""A project starts from a bundle that ships: written whole or not at all, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED

from cedarbox.cli import main
from cedarbox.errors import ConfigurationError
from cedarbox.policy import PolicyBundle
from cedarbox.profiles import find_profile, profiles, write_project
from cedarbox.settings import load_settings

CHECKOUT = SHIPPED.parent
Init = Callable[..., tuple[int, str, str]]
NAMES = ["airgapped", "baseline", "developer", "internal-mirror", "regulated-data"]


def files(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Init:
    """Runs the command in this process, in the temporary directory: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cedarbox", "init", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run


def test_the_profiles_are_the_bundles_of_the_checkout_with_their_tests() -> None:
    assert [profile.name for profile in profiles()] == NAMES
    for profile in profiles():
        assert profile.files == files(SHIPPED / profile.name)
        assert any(name.startswith("tests/") for name in profile.files)
        assert profile.description
        assert "\n" not in profile.description


@pytest.mark.parametrize("name", NAMES)
def test_a_project_has_the_bundle_and_settings_that_use_it(tmp_path: Path, name: str) -> None:
    written = write_project(tmp_path / "new" / "project", find_profile(name))
    assert written.bundle == tmp_path / "new" / "project" / "policies" / name
    assert files(written.bundle) == files(SHIPPED / name)
    settings = load_settings(written.settings)
    assert settings.policy.bundle == Path("policies") / name
    assert PolicyBundle.load(written.bundle).digest == PolicyBundle.load(SHIPPED / name).digest
    assert sorted(path.name for path in (tmp_path / "new" / "project").iterdir()) == ["cedarbox.toml", "policies"]
    assert [path.name for path in (tmp_path / "new" / "project" / "policies").iterdir()] == [name]


def test_what_the_settings_show_in_comments_are_settings(tmp_path: Path) -> None:
    written = write_project(tmp_path, find_profile("airgapped"))
    text = written.settings.read_text()
    shown = re.sub(r"(?m)^# (?=\[|\w+ = )", "", text)
    assert shown.count("\n# ") < text.count("\n# ")
    written.settings.write_text(shown)
    settings = load_settings(written.settings)
    assert settings.registries["registry.corp.example:5000"].username == "puller"
    assert settings.sandbox.rootfs is not None


@pytest.mark.parametrize("there", ["cedarbox.toml", "policies/airgapped", "policies/airgapped/mine.cedar"])
def test_nothing_is_overwritten_and_nothing_is_half_written(tmp_path: Path, there: str) -> None:
    place = tmp_path / there
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix:
        place.write_text("mine")
    else:
        place.mkdir()
    before = files(tmp_path)
    with pytest.raises(ConfigurationError, match="is there already"):
        write_project(tmp_path, find_profile("airgapped"))
    assert files(tmp_path) == before
    assert not (tmp_path / "policies" / "airgapped" / "bundle.toml").exists()


def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "cedarbox.toml").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is there already"):
        write_project(tmp_path, find_profile("airgapped"))
    write_project(tmp_path, find_profile("airgapped"), force=True)
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "cedarbox.toml.bak1").is_symlink()


def test_force_keeps_everything_that_was_there(tmp_path: Path) -> None:
    write_project(tmp_path, find_profile("airgapped"))
    (tmp_path / "cedarbox.toml").write_text("first")
    (tmp_path / "policies" / "airgapped" / "mine.cedar").write_text("mine")
    first = write_project(tmp_path, find_profile("airgapped"), force=True)
    (tmp_path / "cedarbox.toml").write_text("second")
    second = write_project(tmp_path, find_profile("airgapped"), force=True)
    assert first.kept[tmp_path / "cedarbox.toml"].read_text() == "first"
    assert second.kept[tmp_path / "cedarbox.toml"].read_text() == "second"
    assert (first.kept[tmp_path / "policies" / "airgapped"] / "mine.cedar").read_text() == "mine"
    assert files(tmp_path / "policies" / "airgapped") == files(SHIPPED / "airgapped")


def test_a_failure_half_way_puts_everything_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path / "old", find_profile("airgapped"))
    before = files(tmp_path)

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "link", full)
    for directory, force in ((tmp_path / "new" / "deep", False), (tmp_path / "old", True)):
        with pytest.raises(ConfigurationError, match="No space left"):
            write_project(directory, find_profile("airgapped"), force=force)
        assert files(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_a_file_where_the_project_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigurationError):
            write_project(directory, find_profile("airgapped"))
    assert files(tmp_path) == {"file": b"mine"}


def test_the_command_writes_tells_and_refuses(tmp_path: Path, init: Init) -> None:
    code, out, err = init("--profile", "baseline")
    assert (code, err) == (0, "")
    assert "wrote policies/baseline\nwrote cedarbox.toml\n" in out
    assert "cedarbox policy test policies/baseline" in out
    before = files(tmp_path)
    for arguments, said in (
        (["--profile", "baseline"], "there already"),
        (["--profile", "../airgapped"], "no profile '../airgapped'"),
        ([], "--profile is missing"),
    ):
        code, out, err = init(*arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert said in err
    assert files(tmp_path) == before
    code, out, _ = init("--profile", "baseline", "--force", "--json")
    assert code == 0
    assert json.loads(out)["kept"] == {
        "policies/baseline": "policies/baseline.bak1",
        "cedarbox.toml": "cedarbox.toml.bak1",
    }


def test_the_command_lists_the_profiles(tmp_path: Path, init: Init) -> None:
    code, out, _ = init("--list", "--json")
    assert code == 0
    assert [profile["name"] for profile in json.loads(out)] == NAMES
    assert "internal-mirror" in init("--list")[1]
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_has_the_bundles_once_and_finds_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in NAMES:
        below = f"cedarbox/bundles/{name}/"
        found = {path.removeprefix(below) for path in names if path.startswith(below)}
        assert found == set(files(SHIPPED / name))
    assert not [path for path in names if path.startswith("policies/")]
    target = tmp_path / "installed"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True, capture_output=True, timeout=120)
    probe = (
        "import cedarbox, sys; from cedarbox.profiles import profiles\n"
        "assert cedarbox.__file__.startswith(sys.argv[1]), cedarbox.__file__\n"
        "print(*(f'{p.name}:{len(p.files)}' for p in profiles()))"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}
    command = [sys.executable, "-c", probe, str(target)]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.split() == [f"{name}:{len(files(SHIPPED / name))}" for name in NAMES]
