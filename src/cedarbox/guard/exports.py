"""Writing a saved workspace to a file of this host, and removing one."""

from __future__ import annotations

import asyncio
import os
import shutil
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, cast

from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_session_state import SandboxSessionState

from cedarbox.errors import SnapshotError
from cedarbox.files import replacing
from cedarbox.guard.backend import real_path_on_host
from cedarbox.guard.gate import Gate
from cedarbox.guard.keeper import Keeper, told_of
from cedarbox.guard.kept import remove_snapshot, saved_of
from cedarbox.guard.question import Question
from cedarbox.guard.saved import measured_in_place
from cedarbox.guard.stores import saves
from cedarbox.policy import actions

__all__ = ["delete_snapshot", "export_snapshot"]

_CHUNK: Final = 1024 * 1024


async def export_snapshot(
    gate: Gate, keeper: Keeper, state: SandboxSessionState, destination: Path | str, dependencies: Dependencies | None
) -> Path:
    """See :meth:`cedarbox.guard.client.GuardedClient.export_snapshot`."""
    snapshot, session = state.snapshot, str(state.session_id)
    if not saves(snapshot) or not await snapshot.restorable(dependencies=dependencies):
        raise SnapshotError(f"the session {session} was not saved", hint="give it a snapshot and stop it first")
    saved = saved_of(snapshot)
    if saved is not None and saved.kind == "native":
        raise SnapshotError(
            f"the snapshot {saved.name} is a disk of its BoxLite home and cannot be exported",
            hint='save with workspace_persistence = "tar"',
        )
    path = _real(destination)
    asked = partial(actions.export, snapshot_id=snapshot.id, destination=str(path))
    await gate.ask(Question("snapshot export", asked, str(path)), session=session)
    await keeper.check(snapshot, session=session)
    async with gate.noted("snapshot export", session=session, event="snapshot.exported") as operation:
        operation.tell(told_of(snapshot))
        try:
            content = await snapshot.restore(dependencies=dependencies)
        except SnapshotError as error:
            await keeper.refuse(snapshot, error.message, session=session)
            raise
        with content:
            if (measure := await measured_in_place(content)) is not None:
                operation.set("snapshot.sha256", measure.sha256)
                operation.set("snapshot.size_bytes", measure.size_bytes)
            operation.set("destination", str(path))
            try:
                await asyncio.to_thread(_write, cast("BinaryIO", content), path)
            except OSError as error:
                raise SnapshotError(f"{path}: the snapshot cannot be written: {error.strerror}") from error
    return path


async def delete_snapshot(gate: Gate, state: SandboxSessionState) -> None:
    """See :meth:`cedarbox.guard.client.GuardedClient.delete_snapshot`."""
    snapshot, session = state.snapshot, str(state.session_id)
    async with gate.noted("snapshot delete", session=session, event="snapshot.deleted") as operation:
        operation.tell(told_of(snapshot))
        if not await asyncio.to_thread(remove_snapshot, snapshot):
            raise SnapshotError(
                f"the snapshot {snapshot.id} cannot be removed here", hint="ask the service that has it"
            )


def _real(destination: Path | str) -> Path:
    # The directory is followed, the name is not: what stands there is replaced, not written through.
    directory, name = os.path.split(os.path.abspath(destination))  # noqa: PTH100  # pathlib keeps `..`
    real = real_path_on_host(directory)
    if not real or not name:
        raise SnapshotError(f"{destination}: where this path leads cannot be told", hint="name a file in a directory")
    return Path(real) / name


def _write(content: BinaryIO, path: Path) -> None:
    with replacing(path, 0o600) as sink:
        shutil.copyfileobj(content, sink, _CHUNK)
