"""Attacks on what approvals are kept in: signatures, statements, keys, files."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from agents import RunState
from agents.testing import assistant_message, function_call
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.approving import ASKS, DESK, OFFICER, PERMITS, Scene, metadata, pem, public
from tests.unit.bundles import write_bundle

from cedarbox import PolicyBundle, PolicyEngine, approvals
from cedarbox.errors import BundleError, ConfigurationError, LedgerError
from cedarbox.guard.approvals import Request

PAY = [function_call("pay", {"amount": 5}, call_id="c1")]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_a_signature_by_an_undeclared_key(scene: Scene) -> None:
    """Someone signs in the name of the desk with a key of their own: the tool does not run.

    The denial in the ledger says whose key it is not.
    """
    agent = scene.agent()
    state = await scene.interrupted(agent)
    scene.forge(Ed25519PrivateKey.generate())
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "not by the key of 'desk'" in scene.denials()[0]


async def test_an_approver_that_no_one_declared(scene: Scene) -> None:
    """Someone signs in a name of their own: the tool does not run, and the denial names who may."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    scene.forge(Ed25519PrivateKey.generate(), "mallory")
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "'mallory' may not approve it, only desk" in scene.denials()[0]


async def test_a_declared_approver_whom_this_policy_does_not_name(scene: Scene) -> None:
    """The officer is declared, signs with the right key, and is not named: the tool does not run.

    The denial names who may; the front door refuses it before anything is signed.
    """
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (item,) = state.get_interruptions()
    with pytest.raises(ConfigurationError, match="desk may"):
        await approvals.approve(state, item, client=scene.client, key=OFFICER, approver="officer")
    scene.forge(OFFICER, "officer")
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "'officer' may not approve it" in scene.denials()[0]


async def test_the_mark_of_a_used_approval_taken_away(scene: Scene, tmp_path: Path) -> None:
    """As below, and the file that says "used" is removed too: this process knows all the same, and denies."""
    agent = scene.agent(PAY, [assistant_message("done")])
    state = await scene.interrupted(agent)
    await scene.sign(state)
    stored = state.to_json()
    shutil.copytree(tmp_path / "approvals", tmp_path / "kept")
    await scene.run(agent, await RunState.from_json(agent, stored))
    shutil.rmtree(tmp_path / "approvals")
    shutil.copytree(tmp_path / "kept", tmp_path / "approvals")
    await scene.run(agent, await RunState.from_json(agent, stored))
    assert scene.paid == [5]
    assert "it was used before" in scene.denials()[0]


@pytest.mark.parametrize("process", ["same", "another"])
async def test_a_used_approval_replayed_with_its_files_put_back(scene: Scene, process: str, tmp_path: Path) -> None:
    """The files of the request and of the grant are put back, and the stored state is taken up again: nothing runs.

    The denial says that the approval was used before, in this process and in one that opens the directory anew.
    """
    agent = scene.agent(PAY, [assistant_message("done")])
    state = await scene.interrupted(agent)
    await scene.sign(state)
    stored = state.to_json()
    shutil.copytree(tmp_path / "approvals", tmp_path / "kept")
    await scene.run(agent, await RunState.from_json(agent, stored))
    assert scene.paid == [5]
    shutil.copytree(tmp_path / "kept", tmp_path / "approvals", dirs_exist_ok=True)
    if process == "another":
        scene.client.close()
        scene = Scene(tmp_path)
        agent = scene.agent([assistant_message("done")])
    paid = list(scene.paid)
    await scene.run(agent, await RunState.from_json(agent, stored))
    assert scene.paid == paid
    assert "it was used before" in scene.denials()[0]


async def test_an_approver_who_signs_for_longer_than_the_policy_allows(scene: Scene) -> None:
    """The signed statement says that it holds for a year; the policy says fifteen minutes, and the policy counts."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    scene.forge(DESK, expires="2099-01-01T00:00:00Z")
    scene.late = timedelta(minutes=16)
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "it holds from" in scene.denials()[0]


def edit_payload(envelope: dict[str, Any]) -> None:
    statement = json.loads(b64decode(envelope["payload"]))
    statement["expires"] = "2099-01-01T00:00:00Z"
    text = json.dumps(statement, sort_keys=True, separators=(",", ":"))
    envelope["payload"] = b64encode(text.encode()).decode()


def edit_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = b64encode(bytes(64)).decode()


def edit_type(envelope: dict[str, Any]) -> None:
    envelope["payloadType"] = "application/vnd.in-toto+json"


def drop_signatures(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = []


@pytest.mark.parametrize("edit", [edit_payload, edit_signature, edit_type, drop_signatures])
async def test_a_grant_edited_in_its_file(scene: Scene, edit: Callable[[dict[str, Any]], None]) -> None:
    """The statement, the signature or the type is changed in the file: the tool does not run.

    The denial in the ledger says what is wrong with the approval.
    """
    agent = scene.agent()
    state = await scene.interrupted(agent)
    await scene.sign(state)
    (file,) = scene.directory.glob("approvals/*.grant.json")
    envelope = json.loads(file.read_bytes())
    edit(envelope)
    file.write_text(json.dumps(envelope))
    await scene.run(agent, state)
    assert scene.paid == []
    assert scene.denials()[0].startswith("the approval does not hold: ")


async def test_a_signed_rejection_passed_off_as_a_grant(scene: Scene) -> None:
    """The desk signs that it rejects; that statement is put where a grant would be: the tool does not run."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    scene.forge(DESK, verdict="rejected")
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "no grant" in scene.denials()[0]


async def test_an_approver_whose_key_was_replaced(scene: Scene) -> None:
    """The key of the desk was lost and is replaced in the bundle; a grant is made for the new bundle with the old key.

    The keys of the bundle in force count: the tool does not run, and the denial says whose key it is not.
    """
    bundle = write_bundle(
        scene.directory / "next", ASKS, metadata=metadata().replace(public(DESK), public(Ed25519PrivateKey.generate()))
    )
    scene.client.gate.engine = PolicyEngine(PolicyBundle.load(bundle))
    agent = scene.agent()
    state = await scene.interrupted(agent)
    scene.forge(DESK)
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert "not by the key of 'desk'" in scene.denials()[0]


@pytest.mark.parametrize("name", ["../../ledger", "/etc/passwd", "desk/../desk", "desk\x00", ""])
async def test_an_approver_name_with_a_path_in_it(scene: Scene, tmp_path: Path, name: str) -> None:
    """An approver is named like a path, in the bundle and when approving: both are refused, and no file is made."""
    toml = f'name = "test"\nschema = 1\n[approvers]\n{json.dumps(name)} = "{public(DESK)}"\n'
    with pytest.raises(BundleError, match=r"bundle\.toml"):
        PolicyBundle.load(write_bundle(tmp_path / "other", PERMITS, metadata=toml))
    agent = scene.agent()
    state = await scene.interrupted(agent)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match="may not approve"):
        await approvals.approve(state, state.get_interruptions()[0], client=scene.client, key=DESK, approver=name)
    assert sorted(tmp_path.rglob("*")) == before
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert scene.denials() == ["nobody has signed an approval; desk may"]


async def test_a_grant_replaced_by_a_symbolic_link(scene: Scene, tmp_path: Path) -> None:
    """A valid grant is moved elsewhere and a link put in its place: it is not followed, and the tool does not run.

    The denial in the ledger names the file that cannot be read.
    """
    agent = scene.agent()
    state = await scene.interrupted(agent)
    await scene.sign(state)
    (file,) = scene.directory.glob("approvals/*.grant.json")
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    await scene.run(agent, state)
    assert scene.paid == []
    assert "cannot be read" in scene.denials()[0]


@pytest.mark.parametrize("how", ["link", "writable"])
async def test_a_directory_of_approvals_that_others_control(scene: Scene, tmp_path: Path, how: str) -> None:
    """The directory is a link, or others can write to it: nothing in it counts, and the tool does not run."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    await scene.sign(state)
    if how == "link":
        (tmp_path / "approvals").rename(tmp_path / "elsewhere")
        (tmp_path / "approvals").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "approvals").chmod(0o777)
    await scene.run(agent, state)
    assert scene.paid == []
    assert "cannot be trusted" in scene.denials()[0]


async def test_a_ledger_that_takes_no_record(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The grant cannot be recorded: nothing is signed into the directory, and the state is not approved."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (item,) = state.get_interruptions()

    def broken(_: object) -> None:
        raise LedgerError("the disk is full")

    monkeypatch.setattr(scene.client.ledger, "append", broken)
    with pytest.raises(LedgerError):
        await approvals.approve(state, item, client=scene.client, key=DESK, approver="desk")
    monkeypatch.undo()
    assert list(scene.directory.glob("approvals/*.grant.json")) == []
    result = await scene.run(agent, state)
    assert len(result.interruptions) == 1
    assert scene.paid == []


async def test_a_request_whose_arguments_were_changed_for_the_approver(scene: Scene) -> None:
    """The file of the request shows the approver another amount than the call has: it cannot be approved any more.

    It is not listed, and approving fails; the call itself is denied on the record.
    """
    agent = scene.agent()
    state = await scene.interrupted(agent)
    (file,) = scene.directory.glob("approvals/*.request.json")
    shown = json.loads(file.read_bytes())
    shown["call"]["arguments"] = '{"amount": 1}'
    file.write_text(json.dumps(shown))
    assert scene.store.requests() == []
    with pytest.raises(ConfigurationError, match="or it is over"):
        await scene.sign(state)
    await scene.carry_on(agent, state)
    assert scene.paid == []
    assert scene.denials() == ["the file of the request was changed"]


async def test_a_key_that_others_can_read(scene: Scene, tmp_path: Path) -> None:
    """The approver's key lies open to others: it is refused, nothing is granted, and the call still waits."""
    agent = scene.agent()
    state = await scene.interrupted(agent)
    path = pem(tmp_path / "desk.key", DESK)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="can be read by others"):
        await approvals.approve(state, state.get_interruptions()[0], client=scene.client, key=path, approver="desk")
    with pytest.raises(ConfigurationError, match="the private key cannot be read"):
        await approvals.approve(
            state, state.get_interruptions()[0], client=scene.client, key=tmp_path / "none.key", approver="desk"
        )
    assert not (tmp_path / "none.key").exists()
    assert scene.events() == ["approval.requested"]
    assert isinstance(scene.store.requests()[0], Request)
