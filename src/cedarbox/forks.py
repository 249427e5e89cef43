"""Starting several sandboxes from one snapshot."""

from __future__ import annotations

import asyncio
import os
import uuid
from functools import partial
from typing import Any

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase

from cedarbox.boxlite import BoxLiteSandboxSessionState
from cedarbox.boxlite.waiting import finish
from cedarbox.errors import ConfigurationError, SnapshotError
from cedarbox.guard import GuardedClient
from cedarbox.guard.keeper import told_of
from cedarbox.guard.kept import beside, remove_snapshot, saved_of, with_saved
from cedarbox.guard.question import Question
from cedarbox.policy import actions

__all__ = ["fork"]

_MAX = 256


async def fork(
    client: BaseSandboxClient[Any],
    snapshot: SandboxSessionState,
    n: int,
    *,
    options: BaseSandboxClientOptions | None = None,
    dependencies: Dependencies | None = None,
    at_once: int | None = None,
) -> list[SandboxSession]:
    """Start independent sandboxes that all begin where one session was saved.

    On BoxLite, from a native snapshot, each is a copy-on-write clone: nothing is copied, and none sees what another
    writes. On other backends, and from an archive, each unpacks the archive. Each fork has an id of its own and a place
    of its own for its snapshots, beside the one it came from. The session that was saved is not touched.

    Args:
        client: The client of the session, guarded or not. A guarded one decides first that so many may be forked, and
            then about each: that it may be made, and that it may restore the snapshot.
        snapshot: The state of a session that was saved with ``stop()``; it may be deleted since.
        n: How many, 1 to 256.
        options: Options of the forks. ``None`` means those of the session on BoxLite, and the client's own elsewhere.
        dependencies: Where a remote snapshot finds its client.
        at_once: How many start at the same time. ``None`` means one for each processor, at most 4: BoxLite 0.10.8 gives
            a guest 30 s to be ready, however many boot beside it.

    Returns:
        Started sessions, to be shut down and deleted by the caller.

    Raises:
        ConfigurationError: ``n`` or ``at_once`` cannot be used, or the client needs options.
        SnapshotError: The state has no snapshot that could be restored.
        PolicyDenied: A policy forbids one of them.
        Exception: What a start raised. All forks that were made are deleted again then.
    """
    at_once = min(os.cpu_count() or 1, 4) if at_once is None else at_once
    for name, value in (("n", n), ("at_once", at_once)):
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX:
            raise ConfigurationError(f"{name}: {value!r} cannot be used", hint=f"give a whole number from 1 to {_MAX}")
    if options is None and isinstance(snapshot, BoxLiteSandboxSessionState):
        options = snapshot.options()
    if options is None and not client.supports_default_options:
        raise ConfigurationError(f"the client {client.backend_id} needs options", hint="give options=")
    if not await snapshot.snapshot.restorable(dependencies=dependencies):
        raise SnapshotError(
            f"the session {snapshot.session_id} was not saved", hint="give it a snapshot, stop it, then fork its state"
        )
    if isinstance(client, GuardedClient):
        # Before anything is copied; each fork is asked about again when it is made.
        await client.may_restore(snapshot)
        asked = partial(actions.fork, snapshot_id=snapshot.snapshot.id, copies=n)
        await client.gate.ask(Question("snapshot fork", asked, snapshot.snapshot.id), session=str(snapshot.session_id))
    places: list[SnapshotBase] = []
    sessions: list[SandboxSession] = []
    gate = asyncio.Semaphore(at_once)

    async def one() -> SandboxSession:
        async with gate:
            place = beside(snapshot.snapshot, str(uuid.uuid4()))
            try:
                content = await snapshot.snapshot.restore(dependencies=dependencies)
            except SnapshotError as error:
                if isinstance(client, GuardedClient):
                    await client.keeper.refuse(snapshot.snapshot, error.message, session=str(snapshot.session_id))
                raise
            with content:
                await place.persist(content, dependencies=dependencies)
            places.append(place)
            if isinstance(client, GuardedClient) and (saved := saved_of(snapshot.snapshot)) is not None:
                # It is the same save: of the same session, under the policies that were in force then.
                place = with_saved(place, client.keeper.written(place.id, saved))
            session = await _made(client, snapshot, place, options)
            sessions.append(session)
            await session.start()
            return session

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one()) for _ in range(n)]
    except BaseException as error:
        await finish(_deleted(client, sessions, places))
        if isinstance(error, BaseExceptionGroup):
            # The first is the reason; the others were cancelled for it or say the same.
            raise error.exceptions[0] from None
        raise
    return [task.result() for task in tasks]


async def _made(
    client: BaseSandboxClient[Any],
    state: SandboxSessionState,
    place: SnapshotBase,
    options: BaseSandboxClientOptions | None,
) -> SandboxSession:
    manifest = state.manifest.model_copy(deep=True)
    if getattr(state, "workspace_root_owned", False):
        # unix-local keeps every session in a directory of its own, whose name is the root of that session alone.
        manifest = manifest.model_copy(update={"root": Manifest().root})
    if not isinstance(client, GuardedClient):
        return await client.create(snapshot=place, manifest=manifest, options=options)
    async with client.gate.noted("snapshot fork", session=None, event="snapshot.forked") as operation:
        session = await client.create(snapshot=place, manifest=manifest, options=options)
        operation.session = str(session.state.session_id)
        operation.tell(told_of(session.state.snapshot))
        operation.set("snapshot.of", str(state.session_id))
        operation.set("snapshot.from", state.snapshot.id)
        return session


async def _deleted(client: BaseSandboxClient[Any], sessions: list[SandboxSession], places: list[SnapshotBase]) -> None:
    async def gone(session: SandboxSession) -> None:
        try:
            await session.shutdown()
        finally:
            await client.delete(session)

    for place in places:
        removed = remove_snapshot(place)
        if removed and isinstance(client, GuardedClient):
            async with client.gate.noted("snapshot delete", session=None, event="snapshot.deleted") as operation:
                operation.tell(told_of(place))
    await asyncio.gather(*(gone(session) for session in sessions), return_exceptions=True)
