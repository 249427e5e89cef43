"""How a report is given out: the options, the files, the summary of a step."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tests.unit.some_reports import FULL
from typer.testing import CliRunner

from cedarbox.cli.policy_reporting import AsJson, Format, Output, Target, emit, reported
from cedarbox.errors import ConfigurationError
from cedarbox.review.finding import Finding, Place, Report, Section
from cedarbox.review.reports import render

_REPOSITORY = Path(__file__).parents[2]

app = typer.Typer()


@app.command()
def give(*, form: Format = "text", output: Output = None, as_json: AsJson = False) -> None:
    emit(FULL, form, output, as_json=as_json)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


def test_several_files_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "a.sarif").write_text("old")
    done = CliRunner().invoke(app, ["--output", "sarif=a.sarif", "--output", "markdown=b=c.md", "--format", "tap"])
    assert done.exit_code == 1
    assert done.stdout == render(FULL, "tap")
    assert (tmp_path / "a.sarif").read_text() == render(FULL, "sarif")
    assert (tmp_path / "b=c.md").read_text() == render(FULL, "markdown")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.sarif", "b=c.md"]


def test_json_is_the_short_form() -> None:
    done = CliRunner().invoke(app, ["--json", "--format", "text"])
    assert json.loads(done.stdout)["command"] == "lint"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sarif", "is not FORMAT=FILE"),
        ("sarif=", "is not FORMAT=FILE"),
        ("xml=a", "is not FORMAT=FILE"),
        ("sarif=no/such/a.sarif", "No such file or directory"),
        ("sarif=..", "Is a directory"),
        ("sarif=.", "Invalid argument"),
        ("sarif=/dev/full/x", "Not a directory"),
        ("sarif=a\0b", "Invalid argument"),
        (f"sarif={'a' * 300}", "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_any_work(given: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Target.of(given)


def test_a_file_that_cannot_be_written_any_more_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    target = Target.of("sarif=d/a.sarif")
    (tmp_path / "d").rmdir()
    with pytest.raises(ConfigurationError, match=r"d/a\.sarif cannot be written"):
        emit(FULL, "text", [target])


def test_github_adds_to_the_summary_of_the_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert CliRunner().invoke(app, ["--format", "github"]).exit_code == 1
    text = summary.read_text()
    assert text.startswith("# before\n<!-- cedarbox-policy:")
    assert text.endswith("</details>\n\n")
    CliRunner().invoke(app, ["--format", "text"])
    assert summary.read_text() == text


def test_a_summary_that_is_full_gets_no_more_than_github_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("x" * (1024 * 1024 - 1500))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert CliRunner().invoke(app, ["--format", "github"]).exit_code == 1
    assert summary.stat().st_size <= 1024 * 1024


@pytest.mark.parametrize("name", ["no/such", ".", "a\0b"])
def test_a_summary_that_cannot_be_written_fails_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {**os.environ, "GITHUB_STEP_SUMMARY": name})
    done = CliRunner().invoke(app, ["--format", "github"])
    assert (done.exit_code, done.stdout) == (1, render(FULL, "github"))
    assert "the summary of the step cannot be written" in done.stderr


def test_a_report_is_returned_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert reported(give, output=[Target("json", Path("a.json"))]) is FULL
    assert capsys.readouterr().out == ""
    assert not Path("a.json").exists()


def test_a_terminal_gets_the_line_and_a_mark_below(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("permit (\n\tprincipal, action, resource);\n")
    program = (
        "from cedarbox.cli.policy_reporting import *; from cedarbox.review.finding import *; import typer\n"
        "emit(Report('lint', 'x', '1 error', findings=[Finding('S001', 'error', 'too wide', "
        "Place('a.cedar', 2, 2, 2, 11), 'all', hint='name one')], failed=True), 'text')"
    )
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stdout=follower, stderr=subprocess.PIPE, check=False)
    os.close(follower)
    output = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        output += part
    os.close(leader)
    plain = __import__("re").sub(r"\x1b\[[0-9;]*m", "", output.decode()).replace("\r\n", "\n").splitlines()
    assert plain[0] == "a.cedar:2:2: error S001: too wide (all)"
    assert plain[1:4] == ["  2 |  principal, action, resource);", "    |  ^^^^^^^^^", "  name one"]
    assert plain[-1] == "x: 1 error"


def test_a_long_line_is_shown_around_the_place(tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from cedarbox.review.reports.terminal import show

    (tmp_path / "a.cedar").write_text("x" * 500 + "HERE" + "y" * 500)
    output = StringIO()
    finding = Finding("S1", "error", "m", Place("a.cedar", 1, 501, 1, 505))
    show(Report("lint", "x", "s", findings=[finding]), Console(file=output, width=60))
    line, marks = output.getvalue().splitlines()[1:3]
    assert len(line) <= 60
    assert line.index("HERE") == marks.index("^^^^")


def test_a_pipe_or_a_device_is_not_replaced_by_a_report(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigurationError, match="no regular file"):
        Target.of(f"sarif={pipe}").try_directory()
    assert pipe.is_fifo()


def test_two_reports_do_not_go_into_one_file() -> None:
    done = CliRunner().invoke(app, ["--output", "json=a", "--output", "sarif=./a"])
    assert isinstance(done.exception, ConfigurationError)
    assert "a is given twice" in str(done.exception)


def test_the_worst_is_told_first_and_nothing_is_cut_off_a_table() -> None:
    from io import StringIO

    from rich.console import Console

    from cedarbox.review.reports.terminal import show

    findings = [Finding("S1", "warning", "w"), Finding("S2", "error", "e")]
    word = "context.http.method" * 3
    section = Section("t", (), ("one", "two"), ((word, "x" * 40),))
    report = Report("lint", "x", "s", findings=findings, sections=[section])
    output = StringIO()
    show(report, Console(file=output, width=60))
    assert output.getvalue().index("S2") < output.getvalue().index("S1")
    assert "…" not in output.getvalue()
    assert render(report, "text").index("S2") < render(report, "text").index("S1")


def test_what_programs_read_is_utf_8_in_every_locale() -> None:
    code = (
        "from cedarbox.cli.policy_reporting import emit\n"
        "from cedarbox.review.finding import Report\n"
        "emit(Report('lint', '\u00e9', 's'), 'junit')"
    )
    environment = os.environ | {"PYTHONIOENCODING": "latin-1:backslashreplace"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=_REPOSITORY, check=False)
    assert "\u00e9" in done.stdout.decode("utf-8")
