"""An approver answers from the command line; the example runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from agents import (
    RunState,
)
from tests.unit.approving import DESK, OFFICER, Scene, outputs, pem
from tests.unit.forked import command
from tests.unit.test_cli import assert_one_line
from typer.testing import CliRunner

from cedarbox import approvals, verify_ledger
from cedarbox.cli import app
from cedarbox.errors import ConfigurationError


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def configured(scene: Scene) -> Path:
    """Write the settings that the command line reads, and return their directory."""
    directory = scene.directory
    (directory / "cedarbox.toml").write_text(
        f'[policy]\nbundle = "{directory / "bundle"}"\n'
        f'[audit]\ndirectory = "{directory / "ledger"}"\nsigning_key = "{directory / "ledger.key"}"\n'
    )
    return directory


def cedarbox(scene: Scene, *arguments: object) -> subprocess.CompletedProcess[str]:
    return command("approve", *arguments, directory=configured(scene))


async def test_an_approver_at_another_terminal(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    listed = json.loads(cedarbox(scene, "list", "--json").stdout)
    assert json.loads(listed[0]["call"]["arguments"]) == {"amount": 5}
    assert '{"amount": 5}' in cedarbox(scene, "list").stdout.replace('{"amount":5}', '{"amount": 5}')
    key = pem(scene.directory / "desk.key", DESK)
    done = cedarbox(scene, "grant", listed[0]["id"][:8], "--key", key, "--as", "desk", "--expires", "5m")
    assert done.returncode == 0, done.stderr
    assert "granted as desk until" in done.stdout
    state = await RunState.from_json(agent, state.to_json())
    assert approvals.collect(state, client=scene.client) == []
    await scene.run(agent, state)
    assert scene.paid == [5]
    (granted,) = scene.guarded.records("approval.granted")
    assert scene.used()[0]["digest"] == granted.entry.attrs["digest"]
    assert json.loads(cedarbox(scene, "list", "--json").stdout) == []


async def test_a_rejection_at_another_terminal(scene: Scene) -> None:
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (request,) = scene.store.requests()
    done = cedarbox(scene, "reject", request.id, "--reason", "no order number")
    assert done.returncode == 0, done.stderr
    key = pem(scene.directory / "desk.key", DESK)
    assert_one_line(cedarbox(scene, "grant", request.id, "--key", key, "--as", "desk"), "rejected already")
    assert approvals.collect(state, client=scene.client) == []
    result = await scene.run(agent, state)
    assert scene.paid == []
    assert "no order number" in outputs(result)
    assert scene.events() == ["approval.requested", "approval.rejected"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grant", "../../etc", "--key", "desk.key", "--as", "desk"], "no request"),
        (["grant", "", "--key", "desk.key", "--as", "desk"], "no request"),
        (["grant", "ID", "--key", "desk.key", "--as", "officer"], "desk may"),
        (["grant", "ID", "--key", "desk.key", "--as", "../desk"], "desk may"),
        (["grant", "ID", "--key", "officer.key", "--as", "desk"], "not by the key of 'desk'"),
        (["grant", "ID", "--key", "none.key", "--as", "desk"], "the private key cannot be read"),
        (["grant", "ID", "--key", "desk.key", "--as", "desk", "--expires", "tomorrow"], "--expires"),
        (["grant", "ID", "--key", "desk.key", "--as", "desk", "--expires", "2h"], "1 to 900 s"),
        (["reject", "ID", "--key", "officer.key", "--as", "desk"], "not that of"),
    ],
)
async def test_a_command_that_cannot_be_done_is_one_line(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    await scene.interrupted(scene.agent())
    pem(scene.directory / "desk.key", DESK)
    pem(scene.directory / "officer.key", OFFICER)
    (request,) = scene.store.requests()
    configured(scene)
    monkeypatch.chdir(scene.directory)
    done = CliRunner().invoke(app, ["approve", *(request.id if word == "ID" else word for word in arguments)])
    assert isinstance(done.exception, ConfigurationError)
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)
    assert scene.events() == ["approval.requested"]


@pytest.mark.parametrize("name", ["list", "grant", "reject"])
def test_help_has_an_example(name: str) -> None:
    done = CliRunner().invoke(app, ["approve", name, "--help"])
    assert f"Example: cedarbox approve {name}" in " ".join(done.stdout.split())


def test_the_example(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(root / "examples/approvals.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["waiting: wire {'amount': 250}", "wired 250", "The money is on its way."]
    assert verify_ledger(tmp_path / "ledger").ok
