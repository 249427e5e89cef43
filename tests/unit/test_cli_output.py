"""What the command line does when its output, its input or its locale is not as it should be."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.bundles import SHIPPED
from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger
from cedarbox.cli import app
from cedarbox.collector.store import FILE_NAME
from cedarbox.errors import CedarboxError, ConfigurationError, LedgerError
from cedarbox.files import write_file, write_new
from cedarbox.settings import load_settings


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A closed ledger with a few records."""
    with Ledger.open(tmp_path / "ledger") as opened:
        for number in range(5):
            opened.append(Entry(event="decision", decision="deny", attrs={"reason": f"no … {number}"}))
    return tmp_path / "ledger"


def run(*arguments: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cedarbox", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_on_a_full_disk_is_an_error_and_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "cedarbox", "audit", "verifier"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            check=False,
        )
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (2, 1)
    assert said == "cedarbox: the output: No space left on device; what was written is not whole\n"


def test_an_output_that_a_file_takes_a_part_of_only_is_no_success(tmp_path: Path) -> None:
    # With PYTHONUNBUFFERED the first write(2) takes a part and does not fail.
    limited = f"ulimit -f 1; exec {sys.executable} -P -m cedarbox audit verifier > {tmp_path}/verify.py"
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    done = subprocess.run(["bash", "-c", limited], stderr=subprocess.PIPE, env=environment, check=False)
    assert done.returncode == 2
    assert b"File too large" in done.stderr


def test_a_locale_without_the_characters_gets_them_written_out(ledger: Path) -> None:
    with run("audit", "show", ledger, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") as process:
        output, said = process.communicate()
    assert (process.returncode, said) == (0, b"")
    assert b"no \\u2026 4" in output


def test_a_closed_pipe_says_nothing(ledger: Path) -> None:
    with run("audit", "show", ledger) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["show", "export", "ship", "verify", "prove"])
def test_a_directory_without_a_ledger_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("CEDARBOX_OTLP__ENDPOINT", "http://127.0.0.1:9")
    number = ["1"] if command == "prove" else []
    for make, said in ((_nothing, "there is no ledger in it"), (_other, "no ledger in it"), (_first, "of format 1")):
        place = tmp_path / make.__name__
        place.mkdir()
        make(place)
        failed = CliRunner().invoke(app, ["audit", command, *number, str(place)])
        assert isinstance(failed.exception, LedgerError), failed.output
        assert said in str(failed.exception)
    failed = CliRunner().invoke(app, ["audit", command, *number, str(tmp_path / "nowhere")])
    assert "nowhere: the ledger cannot be read: No such file or directory" in str(failed.exception)


def _nothing(_place: Path) -> None:
    pass


def _other(place: Path) -> None:
    (place / "passwd").write_text("root\n")


def _first(place: Path) -> None:
    (place / "20261123T000931123456Z-5f0c2a9e.jsonl").write_text("{}\n")


def test_a_lineage_without_a_ledger_names_the_directory_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed = CliRunner().invoke(app, ["audit", "show", "--lineage", "site/ledger"])
    assert str(failed.exception).startswith("site/ledger: ")


def test_a_proof_is_found_by_the_short_name_of_its_stream(ledger: Path) -> None:
    (stream,) = (path.name.split(".")[0] for path in ledger.glob("*Z-*.checkpoints"))
    by_short, by_long = (
        CliRunner().invoke(app, ["audit", "prove", "2", str(ledger), "--stream", name]).output
        for name in (stream.rpartition("-")[2], stream)
    )
    assert by_short == by_long
    assert stream in by_short
    refused = CliRunner().invoke(app, ["audit", "prove", "0", str(ledger), "--stream", "index"])
    assert "a record of the index has no proof of its own" in str(refused.exception)


@pytest.mark.parametrize("command", [["collector", "status", "--directory"], ["collector", "show", "--directory"]])
def test_the_file_of_another_program_is_left_as_it_is(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / FILE_NAME
    with sqlite3.connect(file) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = file.read_bytes()
    failed = CliRunner().invoke(app, [*command, str(tmp_path)])
    assert "another program made this file" in str(failed.exception)
    assert file.read_bytes() == before


def test_an_error_cannot_drive_the_terminal() -> None:
    assert str(CedarboxError("a\x1b[31m\u202eb\nc", hint="d\x07")) == "a\\x1b[31m\\u202eb c; d\\x07"


def test_a_path_that_names_no_file_is_an_error_of_the_output() -> None:
    for path in (Path(), Path("a\0b")):
        with pytest.raises(OSError, match="Invalid argument"):
            write_file(path, b"", 0o600)
        with pytest.raises(OSError, match="Invalid argument"):
            write_new(path, b"", 0o600)


def test_a_table_in_the_environment_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEDARBOX_OTLP__HEADERS", "authorization=secret")
    with pytest.raises(ConfigurationError, match="CEDARBOX_OTLP__HEADERS: the value is not JSON") as caught:
        load_settings()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("closed", "command", "code", "said"),
    [
        (">&-", "check", 0, ""),
        (">&-", "lint --rules", 0, ""),
        ("<&- >&-", "fmt -", 0, ""),
        (">&- 2>&-", "check", 0, ""),
        ("2>/dev/full", "lint nowhere", 2, ""),
        ("2>/dev/full", "fmt nowhere", 2, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_changes_no_exit_code(closed: str, command: str, code: int, said: str) -> None:
    bundle = str(SHIPPED / "airgapped") if command == "check" else ""
    line = f"exec {sys.executable} -P -m cedarbox policy {command} {bundle} {closed}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"x = " + b"[" * 3000, "not TOML: nested too deep"),
        (b"[policy]\n# \xff", ":2: not UTF-8 text"),
        (None, "cannot read it (it is not a regular file)"),
    ],
)
def test_settings_that_cannot_be_read_are_one_line(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is None:
        os.mkfifo("cedarbox.toml")
    else:
        Path("cedarbox.toml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^cedarbox\.toml") as caught:
        load_settings()
    assert said in str(caught.value)


def test_settings_behind_a_link_that_leads_nowhere_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cedarbox.toml").symlink_to("gone.toml")
    with pytest.raises(ConfigurationError, match="No such file"):
        load_settings()
