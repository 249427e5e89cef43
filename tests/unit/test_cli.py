"""The command line: help, exit codes, and one clear line for whatever cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.unit.bundles import PERMIT_ALL, SHIPPED, write_bundle
from tests.unit.forked import command
from tests.unit.imaging import Image, unpacked
from typer.testing import CliRunner

from cedarbox.audit import Entry, Ledger
from cedarbox.cli import app


def cedarbox(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command(*arguments, directory=cwd)


def assert_one_line(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode == 2, done
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert all(text in lines[0] for text in said), lines[0]
    assert "Traceback" not in done.stdout + done.stderr


def _commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    if not hasattr(command, "list_commands"):
        yield path
        return
    context = typer.Context(command)
    for name in command.list_commands(context):
        yield from _commands(command.get_command(context, name), *path, name)


@pytest.mark.parametrize("named", sorted(_commands(typer.main.get_command(app))), ids=" ".join)
def test_every_command_has_help_with_an_example(named: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, [*named, "--help"])
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert f"Example: cedarbox {' '.join(named)}" in text
    assert "Exit code 0" in text


def test_a_policy_with_a_syntax_error(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", "// fine\npermit (principal, action, resource) whn { true };")
    done = cedarbox("demo", "--policies", bundle, "--image", "x", "--directory", tmp_path / "out")
    assert_one_line(done, "policies.cedar:2", "whn")
    assert not (tmp_path / "out").exists()


def test_a_missing_bundle(tmp_path: Path) -> None:
    done = cedarbox("demo", "--policies", tmp_path / "nowhere", "--image", "x", "--directory", tmp_path / "out")
    assert_one_line(done, "nowhere")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every directory")
def test_an_unreadable_bundle(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle", PERMIT_ALL)
    bundle.chmod(0)
    done = cedarbox("demo", "--policies", bundle, "--image", "x", "--directory", tmp_path / "out")
    bundle.chmod(0o700)
    assert_one_line(done, "bundle", "cannot read")
    assert not (tmp_path / "out").exists()


def test_a_bundle_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    done = cedarbox("demo", "--policies", tmp_path / "file", "--image", "x", "--directory", tmp_path / "out")
    assert_one_line(done, "file", "cannot read")


def test_an_image_that_does_not_exist(tmp_path: Path) -> None:
    done = cedarbox(
        "demo", "--policies", SHIPPED / "airgapped", "--rootfs", tmp_path / "none", "--directory", tmp_path / "out"
    )
    assert_one_line(done, "none")
    assert list(tmp_path.iterdir()) == []


def test_neither_image_nor_layout(tmp_path: Path) -> None:
    done = cedarbox("demo", "--policies", SHIPPED / "airgapped", "--directory", tmp_path / "out")
    assert_one_line(done, "image", "rootfs")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    done = cedarbox("demo", "--policies", SHIPPED / "airgapped", "--image", "x", "--directory", tmp_path)
    assert_one_line(done, "not empty")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_host_without_kvm_gets_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    layout = unpacked(tmp_path / "layout", Image().files())
    (tmp_path / "dev").mkdir()
    hidden = (
        f"for n in null urandom random; do touch {tmp_path}/dev/$n && "
        f"mount --bind /dev/$n {tmp_path}/dev/$n || exit 77; done; mount --rbind {tmp_path}/dev /dev || exit 77; "
        f"exec {sys.executable} -m cedarbox demo --rootfs {layout} --directory {tmp_path}/out"
    )
    own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = ["unshare", *own, "--mount", "sh", "-c", hidden]
    done = subprocess.run(apart, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 77 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no mount namespace can be made here: {done.stderr.strip()}")
    assert_one_line(done, "/dev/kvm is missing")
    assert not (tmp_path / "out").exists()


def test_verify_and_show(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger") as ledger:
        ledger.append(Entry(event="decision", action="exec", decision="deny", policies=("no",)))
        stream = ledger.path
    good = cedarbox("audit", "verify", tmp_path / "ledger")
    assert good.returncode == 0
    assert "the ledger verifies" in good.stdout
    shown = cedarbox("audit", "show", tmp_path / "ledger", "--json")
    events = [json.loads(line)["event"] for line in shown.stdout.splitlines()]
    assert "decision" in events
    stream.write_bytes(stream.read_bytes().replace(b'"deny"', b'"allow"'))
    bad = cedarbox("audit", "verify", tmp_path / "ledger", "--json")
    assert bad.returncode == 1
    assert json.loads(bad.stdout)["ok"] is False


def test_verify_without_a_ledger(tmp_path: Path) -> None:
    assert_one_line(cedarbox("audit", "verify", tmp_path / "nowhere"), "nowhere")
    assert list(tmp_path.iterdir()) == []
