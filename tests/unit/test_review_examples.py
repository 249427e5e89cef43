"""What REVIEW.md shows of the files beside a bundle is used as it stands there."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED
from typer.testing import CliRunner

from cedarbox.cli.policy import app

PAGE = Path(__file__).parents[2] / "REVIEW.md"
FILES = ("tests/example.yaml", "lint.toml", "properties/example.yaml")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    made = shutil.copytree(SHIPPED / "internal-mirror", tmp_path / "bundle", ignore=shutil.ignore_patterns("*.yaml"))
    part = PAGE.read_text().partition("## What stands beside the policies\n")[2].partition("\n## ")[0]
    for name, text in zip(FILES, re.findall(r"```(?:yaml|toml)\n(.*?)```", part, re.DOTALL), strict=True):
        (made / name).write_text(text)
    return made


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("test", "--no-mutate", "--coverage-threshold", "0"), "11 of 11 cases pass"),
        (("lint", "--no-prover", "--disable", "S080"), "1 rule switched off"),
        (("prove",), "4 properties: 4 proved"),
    ],
)
def test_the_page_shows_files_that_can_be_used(bundle: Path, options: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, [options[0], str(bundle), *options[1:]])
    assert (done.exit_code, said in done.output) == (0, True), done.output
