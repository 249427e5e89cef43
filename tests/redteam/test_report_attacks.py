"""Attacks on the report of a review: whoever writes a policy tries to say more than a text through what is told of it.

Ids, file names, messages and the answers of solvers all come from files that a pull request brings. Each test gives
hostile ones to a form of the report and reads it as its reader does.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from rich.console import Console
from tests.unit.report_schemas import assert_gitlab, assert_junit, assert_sarif, assert_tap
from tests.unit.some_reports import reports

from cedarbox.cli import main
from cedarbox.review.finding import Check, Finding, Place, Report, Section
from cedarbox.review.reports import FORMATS, render
from cedarbox.review.reports.markdown import MAX_COMMENT, marker
from cedarbox.review.reports.terminal import show

HOSTILE = (
    "::error::owned",
    "\n::add-mask::secret",
    " ::stop-commands::x",
    "##[error]owned",
    "x##[add-matcher]/tmp/m.json",
    "##vso[task.setvariable variable=a]b",
    "%0A::error::owned",
    "\r\n::error::owned",
    "a]]>b",
    "--><script>alert(1)</script>",
    "</code></td></tr></table>\n\n# owned",
    "<img src=x onerror=alert(1)>",
    "a | b | c",
    "``` \n# owned",
    "`owned`",
    "@org/team and @octocat",
    "fixes #12, closes org/repo#3, !7, ~bug",
    "[click](https://evil.example)",
    "https://evil.example/?q=1 www.evil.example",
    "\x1b[31mred\x1b]0;title\x07",
    "\x00\x08\x7f\x85\u2028\u2029",
    "\u202egnp.exe\u2066",
    "\ud800 \udcff",
    "ok\n1..0\nBail out! owned\nnot ok 9",
    "x # SKIP owned",
    "x # TODO owned",
    "\\# TODO owned",
    "  ---\n  owned: 1\n  ...",
    "/close\n/merge",
    "&lt;b&gt; &amp; &#64;octocat",
)
"""Texts that are more than text to some reader."""

LONG = bool(os.environ.get("CEDARBOX_LONG"))


def report(text: str) -> Report:
    """Return a report with a text wherever one may be."""
    place = Place(text, 1, 1, 1, 5)
    return Report(
        "lint",
        text,
        text,
        findings=[
            Finding(text, "error", text, place, text, hint=text, details={text: text}),
            Finding("S1", "note", text),
        ],
        checks=[
            Check(text, text, status, f"{status} {text}", place)
            for status in ("passed", "failed", "skipped", "undecided")
        ],
        sections=[Section(text, (text,), (text, text), ((text, text),))],
        notes=[text],
        failed=True,
    )


_EACH = pytest.mark.parametrize("text", HOSTILE)


def commands(output: str) -> list[str]:
    """Return what the runner of GitHub takes for commands.

    As ``ActionCommand`` of actions/runner does: a line that begins with ``::`` after blanks, or has ``##[`` anywhere.
    Its reader ends lines at LF, CR, and CR LF.
    """
    lines = re.split(r"\r\n|\r|\n", output)
    return [line for line in lines if line.lstrip().startswith("::") or "##[" in line or "##vso[" in line]


@_EACH
def test_a_command_to_the_runner_in_a_plain_report(text: str) -> None:
    """A text is written like a command of a pipeline. No line of the plain report is one, wherever the text stands."""
    assert commands(render(report(text), "text")) == []


@_EACH
def test_a_command_to_the_runner_in_an_annotation(text: str) -> None:
    """The same in annotations: there are only the commands of the report, and each ends in its own line."""
    found = commands(render(report(text), "github"))
    assert len(found) == 4  # two findings, the failed check, the undecided one
    for line in found:
        assert re.match(
            r"::(error|warning|notice) (file=[^:,\s][^:,]*,line=1,endLine=1,col=1,endColumn=5,)?title=[^:,]*::", line
        )
        assert line.isprintable()
        # A percent sign of a text is escaped: what the runner turns back are our own.
        assert not re.search(r"%(?!25|0A|3A|2C)", line)


@_EACH
def test_text_that_leaves_its_place_in_xml(text: str) -> None:
    """A text tries to end its element, or has what XML has no form for. The document is well-formed, and has no element
    more."""
    root = assert_junit(render(report(text), "junit"))
    assert len(list(root.iter("testcase"))) == 6
    assert not list(root.iter("script"))


def test_text_that_changes_the_outcome_in_tap(tmp_path: Path) -> None:
    """A text holds a directive, a plan, a test point or a bailing out. Perl's reader counts what there is, and no
    more."""
    told = [report(text) for text in HOSTILE]
    findings = [finding for one in told for finding in one.findings]
    checks = [check for one in told for check in one.checks]
    points, failed = assert_tap(
        render(replace(told[0], findings=findings, checks=checks, notes=HOSTILE), "tap"), tmp_path
    )
    assert (points, failed) == (6 * len(HOSTILE), 3 * len(HOSTILE))


def test_a_text_that_ends_the_reader_of_tap(tmp_path: Path) -> None:
    """A message is longer than what Perl's reader takes, which stops there and reads none of the points behind."""
    told = [report("\U0001f600" * 100_000), report("x")]
    checks = [check for one in told for check in one.checks]
    assert assert_tap(render(replace(told[0], findings=(), checks=checks), "tap"), tmp_path) == (len(checks), 4)


@_EACH
def test_text_that_is_a_link_in_sarif(text: str) -> None:
    """A text holds a link, a half of a surrogate pair or a control character. The file is valid and has no link."""
    (run,) = assert_sarif(render(report(text), "sarif"))["runs"]
    assert len(run["results"]) == 4
    for result in run["results"]:
        assert "](" not in result["message"]["text"]
        assert result["message"]["text"].isprintable()
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"(file://)?[A-Za-z0-9_.~/%-]*", uri)


@_EACH
def test_text_in_a_report_for_gitlab(text: str) -> None:
    """The same for Code Quality: descriptions are one printable line, fingerprints stay apart."""
    issues = assert_gitlab(render(report(text), "gitlab"))
    assert [issue["description"].isprintable() for issue in issues] == [True] * 4


class _Reader(HTMLParser):
    """Reads a comment as a browser would, and as the filter that looks for references does: it skips code."""

    ALLOWED = frozenset(
        ["h3", "p", "details", "summary", "table", "tr", "th", "td", "code", "b", "i", "br", "ul", "li"]
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.ALLOWED or (attrs and (tag, attrs) != ("details", [("open", None)])):
            self.wrong.append(f"<{tag} {attrs}>")
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        if "code" not in self.open:
            self.text.append(data)


def read_comment(comment: str) -> str:
    """Check a comment, and return its text outside of code."""
    lines = comment.rstrip("\n").split("\n")
    assert re.fullmatch(r"<!-- cedarbox-policy:[0-9a-f]{32} -->", lines[0])
    # One block of HTML: each line begins with a tag of ours, none is empty, so that nothing is read as Markdown.
    assert all(re.match(r"</?(h3|p|details|table|tr|ul|li)\b", line) for line in lines[1:])
    assert len(comment.encode()) <= MAX_COMMENT
    reader = _Reader()
    reader.feed("\n".join(lines[1:]))
    reader.close()
    assert (reader.wrong, reader.open) == ([], [])
    return "".join(reader.text)


@_EACH
def test_text_that_breaks_out_of_a_comment(text: str) -> None:
    """A text holds HTML, Markdown, a mention, a reference or a quick action. The comment has only the tags of the
    report, and notifies nobody."""
    outside = read_comment(render(report(text), "markdown"))
    assert not re.search(r"(?<![\w`])@\w", outside)
    assert not re.search(r"[#!~%$&^]\w", outside)
    assert "://" not in outside
    assert "www." not in outside


@given(reports)
@settings(max_examples=500 if LONG else 10, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_that_breaks_out_of_a_comment(any_report: Report) -> None:
    """The same with texts made at random of such parts: one block of HTML, only tags of the report, no mention."""
    outside = read_comment(render(any_report, "markdown"))
    assert not re.search(r"@\w", outside)


@given(reports)
@settings(max_examples=500 if LONG else 10, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_that_is_a_command_to_the_runner(any_report: Report) -> None:
    """The same for the runner of a pipeline: the plain report has no command, the annotations ten at most."""
    assert commands(render(any_report, "text")) == []
    found = commands(render(any_report, "github"))
    assert len(found) <= 10
    assert all(re.match(r"::(error|warning|notice) ", line) for line in found)


def test_a_comment_that_is_made_too_long() -> None:
    """A change makes thousands of findings, so that the comment is too long to be taken, or the worst is cut off. The
    comment fits, is whole, has the error first, and says how much is left out."""
    findings = [Finding("S050", "note", "long " * 200, Place("a.cedar", n), f"p{n}") for n in range(1, 5000)]
    worst = Finding("S001", "error", "the worst", Place("a.cedar", 9), "last")
    comment = render(
        Report("review", "x", "s", findings=[*findings, worst], notes=["note"] * 999, failed=True), "markdown"
    )
    outside = read_comment(comment)
    assert "the worst" in outside
    assert re.search(r"[0-9]+ more rows left out\.", outside)
    assert "More did not fit in here." in outside


def test_one_text_that_is_too_long() -> None:
    """One message has a million characters. It is cut in the comment, and the cut is told."""
    outside = read_comment(render(Report("lint", "x", "y" * 1_000_000, failed=True), "markdown"))
    assert "(999600 more characters)" in outside


def test_the_marker_of_another_review() -> None:
    """A file name tries to be the hidden marker of another comment. The marker is a digest of command and subject, and
    only the first line can be it."""
    other = marker(Report("lint", "policies/site", ""))
    comment = render(report(f"{other}\n{other}"), "markdown")
    assert comment.count("<!--") == 1
    assert not comment.startswith(other)


@_EACH
def test_text_that_drives_the_terminal(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text, and the lines of the file that the finding is about, hold escape sequences and characters that turn the
    direction of writing. On a terminal they are written out; the only sequences are the colours of the report."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "a.cedar"
    source.write_text(text.encode("utf-8", "replace").decode() + "\n")
    told = report(text)
    finding = replace(told.findings[0], place=Place("a.cedar", 1, 1, 1, 3))
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=60, highlight=False, markup=False, emoji=False)
    show(replace(told, findings=[finding]), console)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", output.getvalue())
    assert all(char.isprintable() or char == "\n" for char in plain)


@_EACH
def test_text_that_no_encoding_can_hold(text: str) -> None:
    """A file name is no UTF-8, so that a text holds half of a surrogate pair. Each form can be written as UTF-8."""
    for form in FORMATS:
        encoded = render(report(text), form).encode("utf-8")
        assert b"\x00" not in encoded
        assert b"\x1b" not in encoded


def test_numbers_that_json_does_not_have() -> None:
    """Details hold NaN and infinity, for which JSON has no form. Strict readers read the report all the same."""

    def refuse(name: str) -> Any:
        raise AssertionError(name)

    told = Report("lint", "x", "s", data={"a": float("nan"), "b": [float("inf")], "c": {1, 2}, "d": Path("e")})
    document = json.loads(render(told, "json"), parse_constant=refuse)
    assert (document["a"], document["b"], document["c"], document["d"]) == ("nan", ["inf"], [1, 2], "e")


def test_a_report_that_is_a_pipe_or_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that a finding is about is a pipe that never ends, or leads elsewhere. The report is shown without a
    line of it."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.cedar")
    (tmp_path / "secret").write_text("the secret\n")
    (tmp_path / "link.cedar").symlink_to("secret")
    for name in ("pipe.cedar", "link.cedar"):
        output = io.StringIO()
        show(
            Report("lint", "x", "s", findings=[Finding("S1", "error", "m", Place(name, 1, 1))]),
            Console(file=output, force_terminal=True),
        )
        assert "the secret" not in output.getvalue()


def _steps(tmp_path: Path, step: str, **variables: str) -> subprocess.CompletedProcess[str]:
    place = tmp_path / "runner" / "cedarbox-review" / "venv" / "bin"
    place.mkdir(parents=True, exist_ok=True)
    for name in ("cedarbox", "python"):
        program = place / name
        program.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$RUNNER_TEMP/arguments"\n')
        program.chmod(0o755)
    script = Path(__file__).parents[2] / "ci" / "github" / "steps.sh"
    environment = {"PATH": os.environ["PATH"], "RUNNER_TEMP": str(tmp_path / "runner"), **variables}
    return subprocess.run(
        ["bash", str(script), step], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )


def test_a_command_to_the_runner_in_what_cannot_be_reviewed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name in the change holds a command to the runner, and the review ends with an error that quotes it."""
    monkeypatch.setattr("sys.argv", ["cedarbox", "policy", "review", "##[add-mask]cedarbox\n::add-mask::cedarbox"])
    with pytest.raises(SystemExit, match="2"):
        main()
    told = capfd.readouterr().err
    assert "it is in no policy bundle" in told
    assert "##[" not in told
    assert not any(line.lstrip().startswith("::") for line in told.splitlines())


@pytest.mark.parametrize(
    "text", ["$(touch owned)", "`touch owned`", "'; touch owned; '", "--output=json=owned", "a b\tc", "*"]
)
def test_an_input_of_the_action_that_is_a_command(text: str, tmp_path: Path) -> None:
    """The name of a bundle, as a workflow may take it from a branch, holds a command of the shell or an option. It is
    one argument behind the options, and nothing is run."""
    done = _steps(tmp_path, "review", REVIEW_BUNDLE=text)
    assert done.returncode == 0, done.stdout
    arguments = (tmp_path / "runner" / "arguments").read_text().splitlines()
    assert arguments[-2:] == ["--", text]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("text", ["--upload-pack=touch owned", "-x", "$(touch owned)", "main\n::error::owned"])
def test_a_base_of_the_action_that_is_an_option(text: str, tmp_path: Path) -> None:
    """The revision to compare with is an option of git, a command, or has a second line. It is refused with exit code 2
    and one command to the runner."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    done = _steps(tmp_path, "review", REVIEW_BUNDLE="b", REVIEW_BASE=text)
    assert done.returncode == 2
    assert len(commands(done.stdout)) == 1
    assert not (tmp_path / "owned").exists()


def test_a_module_of_the_checkout_in_the_place_of_pythons(tmp_path: Path) -> None:
    """A pull request brings venv.py and others, which Python would import from the working directory. The step that
    installs runs isolated, and does not. The control: without that, one is imported."""
    for name in ("venv", "json", "subprocess"):
        (tmp_path / f"{name}.py").write_text("open('owned', 'w')\n")
    python = tmp_path / "python"
    # Python itself, but that making an environment takes seconds: its help is printed by the same module.
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *venv*) exec {sys.executable} "$@" --help;; esac; exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    done = _steps(tmp_path, "install", REVIEW_PYTHON=str(python), REVIEW_INSTALL="--index-url=x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "usage: venv" in done.stdout
    assert not (tmp_path / "owned").exists()
    arguments = (tmp_path / "runner" / "arguments").read_text().splitlines()
    assert arguments[0] == "-I"
    assert arguments[-2:] == ["--", "--index-url=x"]
    subprocess.run([sys.executable, "-m", "venv", "--help"], cwd=tmp_path, capture_output=True, check=False)
    assert (tmp_path / "owned").exists()
