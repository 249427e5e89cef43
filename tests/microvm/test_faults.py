"""Real boxes when something fails: every step of BoxLite, the guest, the process that uses it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from agents.sandbox.errors import ExecTransportError, SandboxError, WorkspaceArchiveWriteError
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.snapshot import LocalSnapshotSpec
from tests.microvm.boxes import leftovers, options, state_of, stream

from cedarbox.boxlite import BoxLiteSandboxClient, api, files
from cedarbox.errors import CedarboxError


@dataclass
class Saboteur:
    """Lets one call of the real BoxLite fail: before it has any effect, or after it had all of it."""

    call: str = ""
    when: str = ""

    def spoil(self, call: str, when: str) -> None:
        """Let the next call of this name fail."""
        self.call, self.when = call, when

    def hit(self, call: str, when: str) -> None:
        """Fail if this is the call."""
        if (call, when) == (self.call, self.when):
            self.call = ""
            raise api.StorageError("injected")

    def around(self, target: Any) -> Any:
        """Wrap a runtime or a box."""
        return _Spoiled(target, self)


class _Spoiled:
    def __init__(self, target: Any, saboteur: Saboteur) -> None:
        self._target, self._saboteur = target, saboteur

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return self._calling(name, value) if callable(value) else value

    def _calling(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*arguments: Any, **named: Any) -> Any:
            self._saboteur.hit(name, "before")
            result = await method(*arguments, **named)
            self._saboteur.hit(name, "after")
            return self._saboteur.around(result) if hasattr(result, "copy_out") else result

        return call


@pytest.fixture(scope="module")
def saboteur() -> Saboteur:
    """What lets calls fail in this module."""
    return Saboteur()


@pytest.fixture(scope="module")
async def spoiled(client: BoxLiteSandboxClient, home: Path, saboteur: Saboteur) -> BoxLiteSandboxClient:
    """A client on the same home whose calls of BoxLite can be made to fail."""
    made = BoxLiteSandboxClient(home=home)
    made._runtime = cast("api.Runtime", saboteur.around(client._open()))
    return made


@pytest.fixture(scope="module")
async def session(
    spoiled: BoxLiteSandboxClient, oci_layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SandboxSession]:
    """A session that is hurt again and again."""
    place = tmp_path_factory.mktemp("references")
    made = await spoiled.create(options=options(oci_layout), snapshot=LocalSnapshotSpec(base_path=place))
    await made.start()
    await made.exec("echo kept >kept; sync")
    yield made
    await made.shutdown()
    await spoiled.delete(made)


async def revived(session: SandboxSession) -> None:
    """Start a session again, whose guest died."""
    assert not await session.running()
    await session.start()
    assert (await session.exec("cat kept")).stdout == b"kept\n"


@pytest.mark.parametrize(
    ("call", "when"),
    [
        pytest.param("create", "before", marks=pytest.mark.long),
        ("create", "after"),
        pytest.param("start", "before", marks=pytest.mark.long),
        ("start", "after"),
        pytest.param("exec", "before", marks=pytest.mark.long),
        ("exec", "after"),
    ],
)
async def test_a_start_that_fails_at_any_step_leaves_nothing(
    spoiled: BoxLiteSandboxClient, saboteur: Saboteur, home: Path, oci_layout: Path, call: str, when: str
) -> None:
    before = leftovers(home)
    session = await spoiled.create(options=options(oci_layout))
    saboteur.spoil(call, when)
    with pytest.raises((CedarboxError, SandboxError)) as caught:
        await session.start()
    assert saboteur.call == ""
    assert "\n" not in str(caught.value)
    assert leftovers(home) == before
    assert state_of(session).box_id == ""
    await spoiled.delete(session)


async def test_a_command_that_cannot_be_started_leaves_the_session_usable(
    session: SandboxSession, saboteur: Saboteur
) -> None:
    for when in ("before", "after"):
        saboteur.spoil("exec", when)
        with pytest.raises(ExecTransportError):
            await session.exec("sleep 4331")
    listing = "for p in /proc/[0-9]*; do tr '\\0' ' ' <$p/cmdline | grep -x 'sleep 4331 '; done; cat kept"
    assert (await session.exec(listing)).stdout == b"kept\n"


@pytest.mark.parametrize(
    ("call", "when"),
    [
        pytest.param("stop", "before", marks=pytest.mark.long),
        ("stop", "after"),
        pytest.param("clone_box", "before", marks=pytest.mark.long),
        ("clone_box", "after"),
    ],
)
async def test_a_snapshot_that_fails_at_any_step_leaves_the_session_and_nothing_else(
    session: SandboxSession, spoiled: BoxLiteSandboxClient, saboteur: Saboteur, home: Path, call: str, when: str
) -> None:
    assert spoiled.snapshots is not None
    known, boxes = list(spoiled.snapshots.store), {path.name for path in (home / "boxes").iterdir()}
    saboteur.spoil(call, when)
    with pytest.raises(SandboxError):
        await session.stop()
    assert saboteur.call == ""
    assert list(spoiled.snapshots.store) == known
    assert (await session.exec("cat kept")).stdout == b"kept\n"
    assert {path.name for path in (home / "boxes").iterdir()} == boxes


@pytest.mark.parametrize(
    "seconds", [pytest.param(0, marks=pytest.mark.long), 0.05, pytest.param(0.3, marks=pytest.mark.long)]
)
async def test_a_snapshot_that_is_cancelled_at_any_moment_leaves_the_session_and_nothing_else(
    session: SandboxSession, spoiled: BoxLiteSandboxClient, home: Path, seconds: float
) -> None:
    assert spoiled.snapshots is not None
    known, boxes = list(spoiled.snapshots.store), {path.name for path in (home / "boxes").iterdir()}
    task = asyncio.create_task(session.stop())
    await asyncio.sleep(seconds)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(spoiled.snapshots.store) == known
    assert (await session.exec("cat kept")).stdout == b"kept\n"
    assert {path.name for path in (home / "boxes").iterdir()} == boxes


@pytest.mark.long
async def test_a_deletion_that_fails_can_be_repeated(
    spoiled: BoxLiteSandboxClient, saboteur: Saboteur, home: Path, oci_layout: Path
) -> None:
    before = leftovers(home)
    session = await spoiled.create(options=options(oci_layout))
    await session.start()
    saboteur.spoil("stop", "after")
    with pytest.raises((CedarboxError, SandboxError, api.BoxliteError)):
        await session.shutdown()
    saboteur.spoil("remove", "before")
    with pytest.raises((CedarboxError, SandboxError, api.BoxliteError)):
        await spoiled.delete(session)
    await spoiled.delete(session)
    assert leftovers(home) == before


async def test_a_guest_that_is_killed_from_outside_is_noticed_named_and_revived(
    session: SandboxSession, home: Path
) -> None:
    running = asyncio.create_task(session.exec("touch /tmp/begun; sleep 4332"))
    while not (await session.exec("test", "-e", "/tmp/begun", shell=False)).ok():  # noqa: ASYNC110 - it is in the guest
        await asyncio.sleep(0.1)
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            mine = f"{home}/boxes/{state_of(session).box_id}/".encode() in line.read_bytes()
        except OSError:
            continue
        if mine:
            os.kill(int(line.parent.name), signal.SIGKILL)
    with pytest.raises(ExecTransportError, match="its process on the host ended") as caught:
        await running
    assert not caught.value.context.get("retry_safe")
    with pytest.raises(ExecTransportError, match="its process on the host ended"):
        await session.exec("true")
    await revived(session)


@pytest.mark.long
async def test_a_guest_whose_main_process_ends_is_noticed_named_and_revived(session: SandboxSession) -> None:
    with pytest.raises(ExecTransportError, match=r"its main process ended \(exit code 0\)"):
        await session.exec("kill -TERM 1; sleep 60")
    await revived(session)


@pytest.mark.long
async def test_a_guest_whose_memory_ran_out_is_noticed_named_and_revived(session: SandboxSession) -> None:
    # The kernel would begin with the greedy command; it is told to begin with the main process.
    greedy = "python3 -c 'kept = [b\"x\" * 10**7 for _ in range(80)]'"
    with pytest.raises(ExecTransportError, match=r"killed \(exit code 137\), as when memory runs out"):
        await session.exec(f"echo 1000 >/proc/1/oom_score_adj; {greedy}; sleep 60")
    await revived(session)


async def test_a_full_disk_is_named_and_loses_nothing(session: SandboxSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART_BYTES", 100_000)
    # Room for the small file and no more.
    await session.exec(
        "fallocate -l 200K /room; for s in 400M 100M 50M 10M 1M 100K 4K; do n=0; "
        "while fallocate -l $s /fill-$s-$n 2>/dev/null; do n=$((n+1)); done; done; rm /room"
    )
    await session.write(Path("kept"), stream(b"kept\n"))
    with pytest.raises(WorkspaceArchiveWriteError) as caught:
        await session.write(Path("kept"), stream(b"x" * 2_000_000))
    assert "No space left on device" in str(caught.value.context)
    assert (await session.exec("cat kept; ls -A")).stdout.split() == [b"kept", b"kept"]
    await session.exec("rm -f /fill-*")
    await session.write(Path("more"), stream(b"x" * 2_000_000))
