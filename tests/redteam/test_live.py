"""Attacks on a change of policy: going on with what is no longer permitted, and policies that are not quite there."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from agents import Agent, Runner
from agents.sandbox.manifest import Manifest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec, NoopSnapshotSpec
from agents.testing import ModelStep, ScriptedModel, assistant_message
from tests.unit.bundles import PERMIT_ALL
from tests.unit.guarded import Guarded

from cedarbox.audit import read_records, verify_ledger
from cedarbox.errors import BundleError, ConfigurationError, LedgerError, PolicyDenied
from cedarbox.guard import is_in_force
from cedarbox.policy import PolicyEngine


def without(*actions: str) -> str:
    listed = ", ".join(f'Sandbox::Action::"{action}"' for action in actions)
    return f'{PERMIT_ALL} @id("no") @reason("withdrawn") forbid (principal, action in [{listed}], resource);'


@asynccontextmanager
async def session_of(guarded: Guarded) -> AsyncIterator[SandboxSession]:
    session = await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    try:
        async with session:
            yield session
    finally:
        await guarded.client.delete(session)


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110 - what is waited for is on a disk
        await asyncio.sleep(0.01)


async def test_a_command_that_runs_on_after_it_was_withdrawn(tmp_path: Path) -> None:
    """A long command goes on after the policies deny commands.

    Its caller is answered 126 at once; ``operation.revoked`` and an outcome ``revoked`` are on record. That unix-local
    leaves the process of a cancelled command running is on record too: the outcome of the cut is ``unknown``.
    """
    guarded = Guarded(tmp_path)
    begun = tmp_path / "begun"
    async with session_of(guarded) as session:
        running = asyncio.create_task(session.exec(f"touch {begun}; sleep 10; echo late"))
        await until(begun.exists)
        guarded.rewrite(without("exec"))
        change = await guarded.client.reload()
        result = await running
        denied = await session.exec("echo again")
    assert (result.exit_code, denied.exit_code) == (126, 126)
    assert b"withdrawn" in result.stderr
    assert b"late" not in result.stdout
    assert [(cut.event, cut.action, cut.policies, cut.ended) for cut in change.cuts] == [
        ("operation.revoked", "exec", ("no",), False)
    ]
    (revoked,) = [record.entry for record in guarded.records("operation.revoked")]
    assert (revoked.decision, revoked.outcome, revoked.bundle) == ("deny", "unknown", change.after)
    outcomes = [r.entry for r in guarded.records("outcome") if r.entry.action == "exec"]
    assert [(entry.outcome, entry.bundle) for entry in outcomes] == [("revoked", change.before)]


@pytest.mark.parametrize("tty", [True, False])
async def test_a_terminal_that_stays_open_after_it_was_withdrawn(tmp_path: Path, tty: bool) -> None:
    """A process with or without a terminal goes on after its start returned, and is typed into and polled.

    It is killed, says nothing any more, and cannot be typed into; ``terminal.revoked`` is on record.
    """
    guarded = Guarded(tmp_path)
    ticks = tmp_path / "ticks"
    async with session_of(guarded) as session:
        loop = f"while :; do echo tick | tee -a {ticks}; sleep 0.02; done"
        started = await session.pty_exec_start(loop, tty=tty, yield_time_s=0.3)
        assert started.process_id is not None
        await until(ticks.exists)
        guarded.rewrite(without("openTerminal", "exec"))
        change = await guarded.client.reload()
        size = ticks.stat().st_size
        typed = await session.pty_write_stdin(session_id=started.process_id, chars="echo more\n", yield_time_s=0.3)
        polled = await session.pty_write_stdin(session_id=started.process_id, chars="", yield_time_s=0.3)
        await asyncio.sleep(0.3)
        assert ticks.stat().st_size == size
    assert [cut.event for cut in change.cuts] == ["terminal.revoked"]
    for update in (typed, polled):
        assert (update.process_id, update.exit_code) == (None, 126)
        assert b"withdrawn" in update.output
        assert b"tick" not in update.output
    (revoked,) = [record.entry for record in guarded.records("terminal.revoked")]
    assert (revoked.action, revoked.policies) == ("openTerminal" if tty else "exec", ("no",))


async def test_a_terminal_that_the_new_policies_permit_lives_on(tmp_path: Path) -> None:
    """A change that denies other things leaves what it permits alone. The control of the attacks above."""
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        started = await session.pty_exec_start("cat", tty=True, yield_time_s=0.3)
        assert started.process_id is not None
        guarded.rewrite(without("connect", "mountWrite"))
        change = await guarded.client.reload()
        typed, output = "still\n", b""
        while b"still" not in output:
            update = await session.pty_write_stdin(session_id=started.process_id, chars=typed, yield_time_s=0.3)
            typed, output = "", output + update.output
        await session.pty_terminate_all()
    assert (change.asked, change.cuts) == (3, ())


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_of_a_model_that_is_still_coming_when_the_model_is_withdrawn(
    tmp_path: Path, streamed: bool
) -> None:
    """A conversation is on its way to a model that the policies deny by then: the answer never arrives.

    ``operation.revoked`` (or, for a stream, the denial of what is asked again) is on record.
    """
    guarded = Guarded(tmp_path)
    called, withdrawn = asyncio.Event(), asyncio.Event()

    async def slowly(_: object) -> list[Any]:
        called.set()
        await withdrawn.wait()
        return [assistant_message("too late")]

    agent = Agent(name="talker", model=ScriptedModel([ModelStep.respond(slowly)]))
    result = Runner.run_streamed(agent, "Hello.", run_config=guarded.config) if streamed else None

    async def run() -> object:
        if result is None:
            return await Runner.run(agent, "Hello.", run_config=guarded.config)
        return [event async for event in result.stream_events()]

    running = asyncio.create_task(run())
    await called.wait()
    guarded.rewrite(without("useModel"))
    await guarded.client.reload()
    if streamed:
        withdrawn.set()
    with pytest.raises(PolicyDenied, match="withdrawn"):
        await running
    if streamed:
        assert ("deny", "useModel") in {(decision, action) for decision, action, _ in guarded.decisions()}
    else:
        assert {record.entry.action for record in guarded.records("operation.revoked")} == {"useModel"}


@pytest.mark.parametrize("withdrawn", ["create", "connectAnywhere"])
async def test_a_sandbox_that_lives_on_after_what_it_was_given_was_withdrawn(tmp_path: Path, withdrawn: str) -> None:
    """A sandbox, or the network it was given, is denied while it runs.

    It is ended with its terminals, does nothing more, is not saved and cannot be started again; ``sandbox.revoked`` and
    the denials of what is asked of it afterwards are on record.
    """
    guarded = Guarded(tmp_path)
    ticks = tmp_path / "ticks"
    spec = LocalSnapshotSpec(base_path=tmp_path / "saved")
    session = await guarded.client.create(snapshot=spec, manifest=Manifest(), options=None)
    await session.start()
    started = await session.pty_exec_start(f"while :; do echo x >> {ticks}; sleep 0.02; done", yield_time_s=0.3)
    assert started.process_id is not None
    guarded.rewrite(without(withdrawn))
    change = await guarded.client.reload()
    size = ticks.stat().st_size
    assert "sandbox.revoked" in {cut.event for cut in change.cuts}
    assert all(cut.ended for cut in change.cuts)
    assert (await session.exec("echo still")).exit_code == 126
    with pytest.raises(PolicyDenied, match="ended"):
        await session.write(Path("a"), io.BytesIO(b"x"))
    with pytest.raises(PolicyDenied, match="ended"):
        await session.start()
    await session.stop()
    await session.shutdown()
    assert ticks.stat().st_size == size
    assert not list((tmp_path / "saved").glob("*"))
    await guarded.client.delete(session)
    assert guarded.client.gate.holds.all() == []
    revoked = {r.entry.action for r in guarded.records("sandbox.revoked")}
    assert revoked == {withdrawn}
    denied = {record.entry.action for record in guarded.records("decision") if record.entry.decision == "deny"}
    assert {"exec", "sandbox start"} <= denied


async def test_a_workspace_is_not_saved_after_snapshots_were_withdrawn(tmp_path: Path) -> None:
    """Saving was permitted when the sandbox was made, and is denied when it stops: it stops and is not saved."""
    guarded = Guarded(tmp_path)
    spec = LocalSnapshotSpec(base_path=tmp_path / "saved")
    session = await guarded.client.create(snapshot=spec, manifest=Manifest(), options=None)
    await session.start()
    guarded.rewrite(without("snapshot"))
    change = await guarded.client.reload()
    assert change.cuts == ()
    await session.stop()
    await session.shutdown()
    await guarded.client.delete(session)
    assert not list((tmp_path / "saved").glob("*"))
    denied = [r.entry for r in guarded.records("decision") if r.entry.decision == "deny"]
    assert [(entry.action, entry.policies) for entry in denied] == [("snapshot", ("no",))]


async def test_policies_that_change_while_a_sandbox_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox is permitted, and is denied before the backend has made it: it is deleted again."""
    inner = UnixLocalSandboxClient()
    guarded = Guarded(tmp_path, inner=inner)
    create, deleted, delete = inner.create, [], inner.delete

    async def slow(**given: Any) -> SandboxSession:
        made = await create(**given)
        guarded.rewrite(without("create"))
        await guarded.client.reload()
        return made

    async def noticed(session: SandboxSession) -> SandboxSession:
        deleted.append(session)
        return await delete(session)

    monkeypatch.setattr(inner, "create", slow)
    monkeypatch.setattr(inner, "delete", noticed)
    with pytest.raises(PolicyDenied, match="withdrawn"):
        await guarded.client.create(snapshot=NoopSnapshotSpec(), manifest=Manifest(), options=None)
    assert len(deleted) == 1
    assert guarded.client.gate.holds.all() == []
    assert guarded.records("sandbox.created") == []


async def test_sixty_four_operations_during_a_reload(tmp_path: Path) -> None:
    """Operations that are decided, recorded and running in every phase meet a change that denies them.

    None goes on: after the change returned, no command writes; every allow stands under the old bundle.
    """
    guarded = Guarded(tmp_path)
    marks = tmp_path / "marks"
    marks.mkdir()

    async def operate(session: SandboxSession, number: int) -> int:
        codes = []
        for turn in range(40):
            result = await session.exec(f"echo x > {marks}/{number}-{turn}; sleep 0.05")
            codes.append(result.exit_code)
        assert codes == sorted(codes), "an operation was permitted after another was denied"
        return codes.count(0)

    async with session_of(guarded) as session:
        working = [asyncio.create_task(operate(session, number)) for number in range(64)]
        await until((marks / "63-0").exists)
        guarded.rewrite(without("exec"))
        change = await guarded.client.reload()
        done = sum(await asyncio.gather(*working))
    assert change.cuts
    assert done < 64 * 40
    decisions = [r.entry for r in guarded.records("decision") if r.entry.action == "exec"]
    assert {(entry.decision, entry.bundle) for entry in decisions} == {("allow", change.before), ("deny", change.after)}


async def test_an_operation_whose_decision_is_being_recorded_when_the_policies_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change comes after Cedar said Allow and before the record is on disk: the act must not happen."""
    guarded = Guarded(tmp_path)
    gate = guarded.client.gate
    record, marker = gate.ledger.record, tmp_path / "marker"
    guarded.rewrite(without("exec"))

    async def slow(entry: object) -> object:
        written = await record(entry)  # type: ignore[arg-type]  # handed on as it came
        if getattr(entry, "action", None) == "exec" and getattr(entry, "decision", None) == "allow":
            # Swapped without asking again what goes on, so that only the gate itself can notice.
            gate.engine = PolicyEngine(type(gate.engine.bundle).load(guarded.directory / "bundle"))
        return written

    async with session_of(guarded) as session:
        monkeypatch.setattr(gate.ledger, "record", slow)
        result = await session.exec(f"touch {marker}")
        monkeypatch.undo()
    assert result.exit_code == 126
    assert not marker.exists()
    assert [decision for decision, action, _ in guarded.decisions() if action == "exec"] == ["allow", "deny"]


@pytest.mark.parametrize("broken", ["permit (", 'permit (principal, action == Sandbox::Action::"fly", resource);'])
async def test_a_bundle_that_is_broken_does_not_replace_the_good_one(tmp_path: Path, broken: str) -> None:
    """A reload of policies that do not parse or do not fit: the last good ones stay, with ``policy.rejected``."""
    guarded = Guarded(tmp_path, without("mountRead"))
    before = guarded.client.gate.engine.bundle.digest
    guarded.rewrite(broken)
    with pytest.raises(BundleError, match=r"policies\.cedar"):
        await guarded.client.reload()
    assert guarded.client.gate.engine.bundle.digest == before
    (rejected,) = [entry.entry for entry in guarded.records("policy.rejected")]
    assert rejected.bundle == before
    assert "policies.cedar" in rejected.errors[0]
    async with session_of(guarded) as session:
        assert (await session.exec("true")).exit_code == 0


async def test_a_bundle_that_vanished_does_not_replace_the_good_one(tmp_path: Path) -> None:
    """The directory of the bundle goes away: the policies in force stay, with ``policy.rejected``."""
    guarded = Guarded(tmp_path)
    (tmp_path / "bundle").rename(tmp_path / "elsewhere")
    with pytest.raises(BundleError):
        await guarded.client.reload()
    assert len(guarded.records("policy.rejected")) == 1


async def test_an_agent_that_the_new_bundle_no_longer_declares_may_do_nothing(tmp_path: Path) -> None:
    """Striking an agent from entities.json is a way of withdrawing everything from it, so it is not a broken bundle."""
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        (tmp_path / "bundle" / "entities.json").write_text("[]")
        await guarded.client.reload()
        assert (await session.exec("true")).exit_code == 126


async def test_a_change_that_cannot_be_recorded_does_not_happen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger takes no record of a change, which would permit more: the change does not happen."""
    guarded = Guarded(tmp_path, without("exec"))
    before = guarded.client.gate.engine
    guarded.rewrite(PERMIT_ALL)

    def full(_: object) -> None:
        raise LedgerError("no space left on the device")

    monkeypatch.setattr(guarded.client.ledger, "append", full)
    with pytest.raises(LedgerError):
        await guarded.client.reload()
    monkeypatch.undo()
    assert guarded.client.gate.engine is before


async def test_a_watched_bundle_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """Files are written into a watched bundle, broken ones first: ``policy.rejected``, then ``policy.reloaded``."""
    guarded = Guarded(tmp_path, watch_s=0.1)
    async with session_of(guarded) as session:
        assert (await session.exec("true")).exit_code == 0
        guarded.rewrite("permit (")
        await until(lambda: guarded.records("policy.rejected"))
        assert (await session.exec("true")).exit_code == 0
        guarded.rewrite(without("exec"))
        await until(lambda: guarded.records("policy.reloaded"))
        assert (await session.exec("true")).exit_code == 126
    assert len(guarded.records("policy.reloaded")) == 1


async def test_a_hangup_reloads(tmp_path: Path) -> None:
    """SIGHUP brings a bundle in force that denies commands: ``policy.reloaded`` is on record."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        guarded = Guarded(tmp_path, sighup=True)
        guarded.rewrite(without("exec"))
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: guarded.records("policy.reloaded"))
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_hangup_after_the_client_was_closed(tmp_path: Path) -> None:
    """SIGHUP comes after the client was closed: it means again what it meant before, and no ledger is written to."""
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: seen.append(number))
    try:
        guarded = Guarded(tmp_path, sighup=True)
        guarded.client.close()
        records = len(guarded.records())
        os.kill(os.getpid(), signal.SIGHUP)
        assert seen == [signal.SIGHUP]
        assert len(guarded.records()) == records
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_watcher_survives_what_nobody_foresaw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change fails with an error of no known kind: the policies in force stay, and the next change is taken up."""
    guarded = Guarded(tmp_path, watch_s=0.1)
    called = threading.Event()

    def broken(*_: object) -> None:
        called.set()
        raise ZeroDivisionError

    monkeypatch.setattr("cedarbox.live.change_policies", broken)
    guarded.rewrite(without("mountRead"))
    await until(called.is_set)
    monkeypatch.undo()
    guarded.rewrite(without("exec"))
    await until(lambda: guarded.records("policy.reloaded"))


async def test_a_client_that_cannot_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    """The sandbox key lies open to others: nothing is put in force, and the ledger is closed and verifies."""
    (tmp_path / "sandbox.key").write_text("0" * 64 + "\n")
    (tmp_path / "sandbox.key").chmod(0o644)
    with pytest.raises(ConfigurationError, match="read by others"):
        Guarded(tmp_path)
    assert not is_in_force()
    events = [record.entry.event for _, record in read_records(tmp_path / "ledger")]
    assert events[-1] == "ledger.closed"
    assert verify_ledger(tmp_path / "ledger").ok


async def test_shadow_denies_nothing_and_records_every_denial(tmp_path: Path) -> None:
    """Shadow is for trying a bundle: what would have been denied happens, and stands in the ledger as denied."""
    guarded = Guarded(tmp_path, without("exec"), mode="shadow")
    async with session_of(guarded) as session:
        assert (await session.exec("exit 7")).exit_code == 7
        started = await session.pty_exec_start("cat", tty=True, yield_time_s=0.3)
        assert started.process_id is not None
        guarded.rewrite(without("exec", "openTerminal"))
        change = await guarded.client.reload()
        typed, output = "on\n", b""
        while b"on" not in output:
            update = await session.pty_write_stdin(session_id=started.process_id, chars=typed, yield_time_s=0.3)
            typed, output = "", output + update.output
        await session.pty_terminate_all()
    assert change.cuts == ()
    denied = [r.entry for r in guarded.records("decision") if r.entry.decision == "deny"]
    assert [(entry.action, entry.attrs["mode"]) for entry in denied] == [
        ("exec", "shadow"),
        ("openTerminal", "shadow"),
    ]
    assert [(r.entry.action, r.entry.outcome) for r in guarded.records("terminal.revoked")] == [
        ("openTerminal", "shadow")
    ]
    assert guarded.records("policy.loaded")[0].entry.attrs["mode"] == "shadow"


async def test_a_task_that_was_cancelled_by_its_caller_is_not_taken_for_a_cut(tmp_path: Path) -> None:
    """A caller cancels its own command: the outcome is ``cancelled``, not ``revoked``, and the next command runs."""
    guarded = Guarded(tmp_path)
    async with session_of(guarded) as session:
        running = asyncio.create_task(session.exec("sleep 3"))
        await until(lambda: [r for r in guarded.records("decision") if r.entry.action == "exec"])
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert (await session.exec("true")).exit_code == 0
    assert [r.entry.outcome for r in guarded.records("outcome") if r.entry.action == "exec"] == ["cancelled", "ok"]
