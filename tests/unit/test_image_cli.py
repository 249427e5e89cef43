"""``cedarbox image``, as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.imaging import HOST, Image, packed, root
from typer.testing import CliRunner

from cedarbox.cli import app
from cedarbox.errors import CedarboxError

PYTHON = "docker.io/library/python:3.12-slim"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two images, in which everything of the user's is as well."""
    packed(tmp_path / "one.tar", Image().files())
    packed(tmp_path / "two.tar", Image([root(b"second")]).docker())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def run(place: Path, *arguments: str, code: int = 0) -> str:
    """Run a command; returns what it printed, or its error, which is one line."""
    result = CliRunner().invoke(app, ["image", *arguments])
    assert place == Path.cwd()
    if code == 2:
        assert isinstance(result.exception, CedarboxError), result.output
        assert "\n" not in str(result.exception)
        return str(result.exception)
    assert result.exit_code == code, result.output
    assert not result.stderr
    return result.stdout


def documents(place: Path, *arguments: str, code: int = 0) -> Any:
    return json.loads(run(place, *arguments, "--json", code=code))


def test_import_list_pin_check_remove(place: Path) -> None:
    digest = Image().digest
    assert run(place, "import", "one.tar", "--name", "python:3.12-slim") == f"python:3.12-slim is {digest}\n"
    listed = documents(place, "list", "--verify")
    assert [(each["names"], each["digest"], each["damaged"]) for each in listed] == [([PYTHON], digest, None)]
    assert listed[0]["platform"] == f"linux/{HOST}"
    assert Path(listed[0]["layout"]).is_relative_to(place / "data" / "cedarbox" / "images")
    assert "python:3.12-slim" in run(place, "list")

    assert "no lock file" in run(place, "pin", "--check", code=2)
    assert run(place, "pin") == f"python:3.12-slim is pinned to {digest}\n"
    lock = json.loads((place / "cedarbox.images.lock").read_text())
    assert lock == {"version": 1, "images": {PYTHON: digest}}
    assert run(place, "pin", "--check") == "1 of 1 names agree\n"

    # Another image takes the name: the lock file says so, and the name boots no more.
    assert documents(place, "import", "two.tar", "--name", "python:3.12-slim")["names"] == [PYTHON]
    differing = documents(place, "pin", "--check", code=1)["differing"]
    assert [(each["name"], each["locked"]) for each in differing] == [(PYTHON, digest)]
    run(place, "remove", "python:3.12-slim")
    assert [each["stored"] for each in documents(place, "pin", "--check", code=1)["differing"]] == [None]
    assert documents(place, "remove", digest) == {"digest": digest, "removed": True}
    assert documents(place, "list") == []


def test_pin_keeps_what_it_does_not_know(place: Path) -> None:
    run(place, "import", "one.tar", "--name", "a:1")
    run(place, "import", "two.tar", "--name", "b:1")
    run(place, "pin", "a:1", "--lock", "x.lock")
    assert list(json.loads((place / "x.lock").read_text())["images"]) == ["docker.io/library/a:1"]
    run(place, "pin", "--check", "a:1", "--lock", "x.lock")
    assert len(documents(place, "pin", "--check", "--lock", "x.lock", code=1)["differing"]) == 1
    run(place, "pin", "b:1", "--lock", "x.lock")
    run(place, "pin", "--check", "--lock", "x.lock")


def test_damage_is_a_finding(place: Path) -> None:
    run(place, "import", "one.tar", "--store", "elsewhere")
    blob = max((place / "elsewhere/layouts").rglob("blobs/sha256/*"), key=lambda path: path.stat().st_size)
    blob.write_bytes(b"x")
    assert "DAMAGED" in run(place, "list", "--verify", "--store", "elsewhere", code=1)
    assert documents(place, "list", "--verify", "--store", "elsewhere", code=1)[0]["damaged"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (("import", "missing.tar"), "missing.tar"),
        (("import", "one.tar", "--name", "A B"), "not an image reference"),
        (("import", "one.tar", "--max-size", "1", "--store", "one.tar"), "cannot be used"),
        (("pin", "nobody:1"), "has no nobody:1"),
        (("remove", "nobody:1"), "has no nobody:1"),
        (("pull", "127.0.0.1:1/a/b:1"), "cannot be pulled"),
        (("pull", "not a reference"), "not an image reference"),
    ],
)
def test_mistakes_are_one_line(place: Path, arguments: tuple[str, ...], what: str) -> None:
    assert what in run(place, *arguments, code=2)


def test_a_mistake_as_the_shell_sees_it(place: Path) -> None:
    command = [sys.executable, "-m", "cedarbox", "image", "import", "missing.tar"]
    done = subprocess.run(command, cwd=place, env={**os.environ}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert " ".join(done.stderr.split()).startswith("cedarbox: missing.tar: No such file")


def test_the_settings_name_store_and_lock(place: Path) -> None:
    (place / "cedarbox.toml").write_text('[sandbox]\nstore = "mine"\nlock = "mine.lock"\n')
    run(place, "import", "one.tar")
    run(place, "pin")
    assert (place / "mine" / "catalogue.json").is_file()
    assert (place / "mine.lock").is_file()


@pytest.mark.parametrize("command", ["import", "pull", "list", "pin", "remove"])
def test_every_command_has_help_with_an_example(place: Path, command: str) -> None:
    text = run(place, command, "--help")
    assert f"Example: cedarbox image {command}" in text
    assert "Exit code 0:" in text
    assert "--json" in text
