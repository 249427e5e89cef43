"""What runs a review where people work: the hooks of pre-commit, the Action of GitHub, the template of GitLab.

The files are held against the schemas that check-jsonschema brings and against pre-commit's own reader; the steps of
the Action are run as they are, in a git repository, with the API of GitHub played by a server on the loopback.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from pre_commit.clientlib import load_manifest
from tests.unit.bundles import PERMIT_ALL, write_bundle
from tests.unit.report_schemas import assert_junit, assert_sarif, vendored_schema
from typer.main import get_command

from cedarbox.cli.policy import app
from cedarbox.review.finding import Report
from cedarbox.review.reports.markdown import text as markdown

ROOT = Path(__file__).parents[2]
STEPS = ROOT / "ci" / "github" / "steps.sh"


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "schema"), [("action.yml", "github-actions"), ("ci/gitlab/cedarbox-policy.yml", "gitlab-ci")]
)
def test_a_file_fits_the_schema_of_its_reader(name: str, schema: str) -> None:
    validator = Draft7Validator(vendored_schema(schema))
    assert [error.message for error in validator.iter_errors(_yaml(name))] == []
    assert list(validator.iter_errors({"runs": 1, "cedarbox-policy": {"script": 1}}))


def test_the_hooks_are_read_by_pre_commit() -> None:
    hooks = load_manifest(str(ROOT / ".pre-commit-hooks.yaml"))
    names = ("fmt", "check", "lint", "test", "prove")
    assert [hook["id"] for hook in hooks] == [f"cedarbox-policy-{name}" for name in names]
    for hook in hooks:
        assert re.search(hook["files"], "policies/site/network.cedar")
        assert not re.search(hook["files"], "src/cedar.py")
        assert hook["require_serial"]
        # The name of a file, such as --baseline=x.cedar, is no option.
        assert hook["args"] == ["--"]
    assert re.search(hooks[3]["files"], "policies/site/tests/network.yaml")
    assert re.search(hooks[4]["files"], "policies/site/properties/network.yaml")


def test_each_option_of_a_hook_is_one_of_its_command() -> None:
    group: Any = get_command(app)
    for hook in load_manifest(str(ROOT / ".pre-commit-hooks.yaml")):
        program, policy, command, *options = hook["entry"].split()
        assert (program, policy) == ("cedarbox", "policy")
        if command in group.commands:
            known = {name for one in group.get_command(None, command).params for name in one.opts}
            assert {option for option in options if option.startswith("-")} <= known


def test_no_expression_is_in_a_command_of_the_action() -> None:
    action = _yaml("action.yml")
    for step in action["runs"]["steps"]:
        assert "${{" not in step["run"]
        assert "uses" not in step
    told = {value for step in action["runs"]["steps"] for value in step.get("env", {})}
    read = set(re.findall(r"\bREVIEW_[A-Z_]+", STEPS.read_text() + (STEPS.parent / "publish.py").read_text()))
    assert read == {name for name in told if name.startswith("REVIEW_")}
    used = set(re.findall(r"inputs\.([a-z-]+)", (ROOT / "action.yml").read_text()))
    assert used == set(action["inputs"])


def _gitlab() -> list[str]:
    script: list[str] = _yaml("ci/gitlab/cedarbox-policy.yml")["cedarbox-policy"]["script"]
    return script


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize(
    ("given", "base"),
    [
        ({}, None),
        ({"CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "begun"}, "--base=begun"),
        (
            {
                "CI_MERGE_REQUEST_IID": "7",
                "CI_MERGE_REQUEST_DIFF_BASE_SHA": "begun",
                "CI_MERGE_REQUEST_TARGET_BRANCH_SHA": "into",
            },
            "--base=into",
        ),
        ({"POLICY_BASE": "v1", "CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_DIFF_BASE_SHA": "begun"}, "--base=v1"),
        ({"CI_MERGE_REQUEST_IID": "7", "CI_MERGE_REQUEST_DIFF_BASE_SHA": ""}, "unknown"),
    ],
)
def test_the_script_of_gitlab(given: dict[str, str], base: str | None, shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    programs, checkout = tmp_path / "cedarbox-review-1" / "bin", tmp_path / "checkout"
    programs.mkdir(parents=True)
    checkout.mkdir()
    # A pattern of the name of the package, were it one.
    (checkout / "cedarboxp").touch()
    for program in (programs / "python", programs / "cedarbox", tmp_path / "python3"):
        program.write_text('#!/bin/sh\nprintf "%s " "${0##*/}" "$@" && echo\n')
        program.chmod(0o755)
    variables = {
        "CI_BUILDS_DIR": str(tmp_path),
        "CI_JOB_ID": "1",
        "POLICY_BUNDLE": "policies/site",
        "POLICY_INSTALL": "cedarbox[prove]",
        "POLICY_OPTIONS": "--only diff",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    # As the runner does it: one shell, which a command that fails ends.
    done = subprocess.run(
        [shell, "-e", "-c", "\n".join(_gitlab())],
        cwd=checkout,
        env={**variables, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    if base == "unknown":
        assert (done.returncode, done.stdout) == (2, "")
        assert "set POLICY_BASE" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    made, installed, reviewed = done.stdout.splitlines()
    assert made == f"python3 -I -m venv {tmp_path}/cedarbox-review-1 "
    assert installed.split()[-2:] == ["--quiet", "cedarbox[prove]"]
    words = reviewed.split()
    assert words[:3] == ["cedarbox", "policy", "review"]
    assert [word for word in words if word.startswith("--base")] == ([] if base is None else [base])
    assert words[words.index("--only") :][:2] == ["--only", "diff"]
    assert words[-2:] == ["--", "policies/site"]


def test_the_script_of_gitlab_gives_options_that_there_are() -> None:
    group: Any = get_command(app)
    known = {name for one in group.get_command(None, "review").params for name in one.opts}
    script = " ".join(_gitlab())
    assert (
        set(re.findall(r"--(?!no-index|find-links|quiet)[a-z-]+(?==| )", script.partition("policy review")[2])) <= known
    )


class Actions:
    """A job of GitHub Actions in a checkout with a bundle, whose cedarbox is that of this Python."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.checkout, self.runner = directory, directory / "checkout", directory / "runner"
        write_bundle(self.checkout / "policies" / "site", PERMIT_ALL)
        programs = self.runner / "cedarbox-review" / "venv" / "bin"
        programs.mkdir(parents=True)
        for name, module in (("python", ""), ("cedarbox", "-m cedarbox")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            (programs / name).chmod(0o755)
        for name in ("output", "summary"):
            (directory / name).touch()
        self.git("init", "-q", "-b", "main")
        self.commit("base")

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=self.checkout, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def __call__(self, step: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "src"),
            "RUNNER_TEMP": str(self.runner),
            "GITHUB_OUTPUT": str(self.directory / "output"),
            "GITHUB_STEP_SUMMARY": str(self.directory / "summary"),
            "GITHUB_ACTIONS": "true",
            "REVIEW_FILE": str(self.runner / "cedarbox-review" / {"sarif": "review.sarif"}.get(step, "comment.md")),
            **variables,
        }
        return subprocess.run(
            ["bash", str(STEPS), step], cwd=self.checkout, env=environment, capture_output=True, text=True, check=False
        )

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self.directory / "output").read_text().splitlines())


@pytest.fixture
def job(tmp_path: Path) -> Actions:
    return Actions(tmp_path)


def test_the_step_that_reviews(job: Actions) -> None:
    base = job.git("rev-parse", "HEAD")
    done = job("review", REVIEW_BUNDLE="policies/site\n", REVIEW_BASE=base, REVIEW_FAIL_LEVEL="error")
    assert "Traceback" not in done.stderr
    assert done.returncode in {1, 3}, done.stderr
    outputs = job.outputs
    assert outputs["exit-code"] == str(done.returncode)
    assert_sarif(Path(outputs["sarif"]).read_text())
    assert_junit(Path(outputs["junit"]).read_text())
    document = json.loads(Path(outputs["json"]).read_text())
    assert document["parts"][0]["command"] == "check"
    assert Path(outputs["comment"]).read_text().splitlines()[1].startswith("<h3>")
    assert re.match(r"::(error|warning) ", done.stdout)
    assert (job.directory / "summary").read_text().startswith("<!-- cedarbox-policy:")


def test_each_input_of_the_step_becomes_an_option(job: Actions) -> None:
    program = job.runner / "cedarbox-review" / "venv" / "bin" / "cedarbox"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    inputs = {"FAIL_LEVEL": "note", "BASELINE": "b.json", "ACCEPTED": "a.toml", "ACCEPTORS": "x.pub\ny z.pub\n"}
    told = job("review", REVIEW_BUNDLE="a\n\nb c", **{f"REVIEW_{name}": of for name, of in inputs.items()})
    lines = told.stdout.splitlines()
    lines = lines[lines.index("policy") :]
    assert lines[:2] == ["policy", "review"]
    expected = ["--fail-level=note", "--baseline=b.json", "--accepted=a.toml", "--acceptor=x.pub", "--acceptor=y z.pub"]
    assert lines[-8:] == [*expected, "--", "a", "b c"]


def test_a_review_that_cannot_run_gives_no_report_out(job: Actions) -> None:
    (job.runner / "cedarbox-review" / "comment.md").write_text("<!-- of yesterday -->")
    for bundle in ("no/such/bundle", ""):
        done = job("review", REVIEW_BUNDLE=bundle)
        assert done.returncode == 2
        assert "::error title=cedarbox policy review::" in done.stdout
        assert job.outputs == {"exit-code": "2"}


def test_the_reports_of_two_reviews_in_a_job_are_apart(job: Actions) -> None:
    (job.runner / "cedarbox-review" / "venv" / "bin" / "cedarbox").write_text(
        '#!/bin/sh\nfor one; do case $one in sarif=*) echo > "${one#*=}";; esac; done\n'
    )
    paths = []
    for _ in range(2):
        job("review", REVIEW_BUNDLE="policies/site")
        paths.append(job.outputs["sarif"])
    assert paths[0] != paths[1]
    assert all(Path(path).is_file() for path in paths)


def _bases(job: Actions, **variables: str) -> tuple[list[str], str]:
    program = job.runner / "cedarbox-review" / "venv" / "bin" / "cedarbox"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    done = job("review", REVIEW_BUNDLE="policies/site", **variables)
    return [
        line.removeprefix("--base=") for line in done.stdout.splitlines() if line.startswith("--base=")
    ], done.stdout


def test_what_a_change_is_compared_with(job: Actions) -> None:
    begun = job.git("rev-parse", "HEAD")
    job.git("checkout", "-q", "-b", "change")
    (job.checkout / "change").touch()
    change = job.commit("change")
    job.git("checkout", "-q", "main")
    (job.checkout / "other").touch()
    taken_back = job.commit("taken back")
    job.git("checkout", "-q", "--detach", "main")
    job.git("merge", "-q", "--no-ff", "-m", "merge", "change")
    merge = {"GITHUB_REF": "refs/pull/7/merge", "GITHUB_SHA": job.git("rev-parse", "HEAD")}
    assert _bases(job, REVIEW_EVENT_BASE=begun, **merge)[0] == [taken_back]
    assert _bases(job, REVIEW_EVENT_BASE=begun)[0] == [begun]
    assert _bases(job, REVIEW_BASE="main...", REVIEW_EVENT_BASE=begun, **merge)[0] == ["main..."]
    bases, told = _bases(job, REVIEW_BASE="none", REVIEW_EVENT_BASE=begun, **merge)
    assert not bases
    assert "::" not in told
    bases, told = _bases(job)
    assert not bases
    assert "::notice title=cedarbox policy review::Nothing is compared" in told
    # On pull_request_target the base is what is checked out.
    job.git("checkout", "-q", change)
    bases, told = _bases(job, REVIEW_EVENT_BASE=change)
    assert not bases
    assert "the base of the change and not the change" in told


def test_a_shallow_clone_asks_for_the_base(job: Actions) -> None:
    base = job.git("rev-parse", "HEAD")
    (job.checkout / "policies" / "site" / "more.cedar").write_text('@id("no") forbid (principal, action, resource);\n')
    job.commit("change")
    origin = job.checkout.rename(job.directory / "origin")
    subprocess.run(["git", "clone", "-q", "--depth=1", f"file://{origin}", str(job.checkout)], check=True)
    (job.runner / "cedarbox-review" / "venv" / "bin" / "cedarbox").write_text("#!/bin/sh\n")
    assert "not in this clone" in job("review", REVIEW_BUNDLE="policies/site", REVIEW_BASE="0" * 40).stdout
    done = job("review", REVIEW_BUNDLE="policies/site", REVIEW_BASE=base)
    assert "not in this clone" not in done.stdout
    assert job.git("cat-file", "-t", base) == "commit"


class GitHub(BaseHTTPRequestHandler):
    """The API of GitHub, as far as it is used here."""

    calls: list[tuple[str, str, Any]]
    pages: list[list[dict[str, Any] | None]]
    status = 201

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Authorization"] == "Bearer token"
        self.calls.append((self.command, self.path, body))
        answer: Any = {}
        status = self.status
        if self.path == "/graphql":
            number = int(body["variables"]["after"] or 0)
            more = {"hasNextPage": number + 1 < len(self.pages), "endCursor": str(number + 1)}
            comments = {"nodes": self.pages[number], "pageInfo": more}
            answer = {"data": {"repository": {"pullRequest": {"comments": comments}}}}
            status = 200
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github() -> Iterator[tuple[type[GitHub], dict[str, str]]]:
    handler = type("Fresh", (GitHub,), {"calls": [], "pages": [[]]})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield (
            handler,
            {
                "GITHUB_API_URL": address,
                "GITHUB_GRAPHQL_URL": f"{address}/graphql",
                "GITHUB_REPOSITORY": "corp/policies",
                "GITHUB_TOKEN": "token",
                "GITHUB_SHA": "a" * 40,
                "GITHUB_REF": "refs/pull/7/merge",
                "REVIEW_PULL_REQUEST": "7",
            },
        )
        server.shutdown()


def _comment(job: Actions) -> str:
    body = markdown(Report("review", "policies/site", "good"))
    (job.runner / "cedarbox-review" / "comment.md").write_text(body)
    return body


def test_a_comment_is_written_once_and_then_anew(job: Actions, github: tuple[type[GitHub], dict[str, str]]) -> None:
    server, variables = github
    variables["REVIEW_COMMIT"] = "b" * 40
    body = f"{_comment(job)}<p>Commit <code>{'b' * 40}</code></p>\n"
    marker = body.splitlines()[0]
    assert job("comment", **variables).stdout == ""
    assert server.calls[-1] == ("POST", "/repos/corp/policies/issues/7/comments", {"body": body})
    server.pages = [
        [
            {"databaseId": 1, "viewerDidAuthor": False, "body": f"{marker}\nof somebody else"},
            None,
            {"databaseId": 2, "viewerDidAuthor": True, "body": f"see {marker}"},
            {"databaseId": None, "viewerDidAuthor": True, "body": marker},
        ],
        [{"databaseId": 3, "viewerDidAuthor": True, "body": f"{marker}\nof yesterday"}],
    ]
    assert job("comment", **variables).stdout == ""
    assert server.calls[-1] == ("PATCH", "/repos/corp/policies/issues/comments/3", {"body": body})


def test_findings_are_uploaded(job: Actions, github: tuple[type[GitHub], dict[str, str]]) -> None:
    server, variables = github
    (job.runner / "cedarbox-review" / "review.sarif").write_text("{}")
    assert job("sarif", **variables).stdout == ""
    method, path, body = server.calls[-1]
    assert (method, path) == ("POST", "/repos/corp/policies/code-scanning/sarifs")
    assert gzip.decompress(base64.b64decode(body["sarif"])) == b"{}"
    assert (body["commit_sha"], body["ref"]) == ("a" * 40, "refs/pull/7/merge")


@pytest.mark.parametrize(
    ("status", "changed", "said"),
    [
        (403, {}, "HTTP 403; the job needs the permission, which a fork has not"),
        (302, {}, "HTTP 302"),
        (201, {"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
        (201, {"GITHUB_TOKEN": "secret-1\n"}, "GITHUB_TOKEN has characters that no token has"),
        (201, {"GITHUB_TOKEN": "secret-1\u2026"}, "GITHUB_TOKEN has characters that no token has"),
        (201, {"REVIEW_PULL_REQUEST": "7/../8"}, "there is no pull request"),
        (201, {"GITHUB_REPOSITORY": "a/b/../c"}, "names no repository"),
        (201, {"GITHUB_API_URL": "file:///etc/passwd?"}, "the address of the API is none"),
        (201, {"GITHUB_API_URL": "http://127.0.0.1:1"}, "Connection refused"),
    ],
)
def test_what_cannot_be_handed_over_is_a_warning(
    status: int, changed: dict[str, str], said: str, job: Actions, github: tuple[type[GitHub], dict[str, str]]
) -> None:
    server, variables = github
    server.status = status
    _comment(job)
    done = job("comment", **{**variables, **changed})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("::warning title=cedarbox policy review::The comment could not be handed over: ")
    assert said in done.stdout
    assert "secret-1" not in done.stdout
    assert not any(path == "/elsewhere" for _, path, _ in server.calls)


def test_a_comment_that_is_no_report_is_not_posted(job: Actions, github: tuple[type[GitHub], dict[str, str]]) -> None:
    server, variables = github
    (job.runner / "cedarbox-review" / "comment.md").write_text("@everybody\n")
    assert "does not begin with the marker" in job("comment", **variables).stdout
    assert server.calls == []
