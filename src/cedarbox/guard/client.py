"""A sandbox client under policy: decides what a sandbox would be given before the backend makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import SnapshotBase, SnapshotSpec

from cedarbox.audit import JsonValue
from cedarbox.errors import CedarboxError
from cedarbox.guard.facts import SandboxFacts, facts_of
from cedarbox.guard.gate import Gate, Impossible, Question
from cedarbox.guard.manifest import questions
from cedarbox.guard.session import GuardedSession
from cedarbox.guard.stores import store_of
from cedarbox.policy import actions

__all__ = ["GuardedClient"]

_NO_SNAPSHOT = "noop"


class GuardedClient(BaseSandboxClient[Any]):
    """Wraps any SDK sandbox client so that policies govern it.

    Args:
        inner: The client to guard.
        gate: Decides and records.
    """

    def __init__(self, inner: BaseSandboxClient[Any], gate: Gate) -> None:
        self.inner, self.gate = inner, gate
        # The SDK stores the id in a run's state and refuses to resume under another one.
        self.backend_id = inner.backend_id
        self.supports_default_options = inner.supports_default_options

    async def create(
        self,
        *,
        snapshot: SnapshotSpec | SnapshotBase | None = None,
        manifest: Manifest | None = None,
        options: Any = None,
    ) -> SandboxSession:
        """Make a sandbox if everything it would be given is permitted.

        Raises:
            PolicyDenied: Something is not; nothing was made.
        """
        if isinstance(options, Mapping):
            options = BaseSandboxClientOptions.parse(dict(options))
        async with self.gate.noted("sandbox create", session=None, event="sandbox.created") as operation:
            facts = await self._facts(options)
            # A session that is made with a snapshot that exists starts from it.
            restores = isinstance(snapshot, SnapshotBase) and await self._restorable(snapshot)
            await self.gate.ask_all(_questions("create", facts, manifest, snapshot, restores=restores))
            session = await self.inner.create(snapshot=snapshot, manifest=manifest, options=options)
            operation.session = str(session.state.session_id)
            operation.facts.update(_record_of(facts))
            return await self._guarded(session, facts)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Take a sandbox up again if everything that its state says is permitted.

        Raises:
            PolicyDenied: Something is not; nothing was taken up.
        """
        session_id = str(state.session_id)
        async with self.gate.noted("sandbox resume", session=session_id, event="sandbox.resumed") as operation:
            facts = await self._facts(state)
            asked = _questions("resume", facts, state.manifest, state.snapshot, restores=True)
            await self.gate.ask_all(asked, session=session_id)
            session = await self.inner.resume(state)
            operation.facts.update(_record_of(facts))
            return await self._guarded(session, facts)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete a sandbox; recorded, never denied: a denied delete would leak a running machine."""
        async with self.gate.noted("sandbox delete", session=str(session.state.session_id), event="sandbox.deleted"):
            if not isinstance(session, GuardedSession):
                return await self.inner.delete(session)
            await self.inner.delete(session._provider)
            return session

    def serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        """Serialise a state as the guarded client does."""
        return self.inner.serialize_session_state(state)

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Read a state back as the guarded client does."""
        return self.inner.deserialize_session_state(payload)

    async def _facts(self, source: object) -> SandboxFacts:
        try:
            # Checking the digests of an image reads all of it.
            return await asyncio.to_thread(facts_of, self.inner, source)
        except CedarboxError as error:
            await self.gate.refuse(Impossible("create", 'Image::"unknown"', error.message))
            raise

    async def _restorable(self, snapshot: SnapshotBase) -> bool:
        try:
            return await snapshot.restorable()
        except Exception:  # noqa: BLE001 - what cannot be told is asked about
            return True

    async def _guarded(self, session: SandboxSession, facts: SandboxFacts) -> SandboxSession:
        state = session.state
        if facts.digest is not None and getattr(state, "image_digest", facts.digest) is None:
            # A backend that keeps a digest boots nothing else: the image cannot change after the decision.
            state.image_digest = facts.digest  # type: ignore[attr-defined]  # seen by getattr above
        if (actual := getattr(state, "image_digest", facts.digest)) != facts.digest:
            await self.inner.delete(session)
            reason = f"the image changed while it was being decided: {facts.digest} became {actual}"
            raise await self.gate.refuse(Impossible("create", f'Image::"{actual}"', reason))
        if facts.mounts and (found := (await self._facts(state)).mounts) != facts.mounts:
            await self.inner.delete(session)
            reason = f"the mounts changed while they were being decided: {facts.mounts} became {found}"
            raise await self.gate.refuse(Impossible("create", "the mounts", reason))
        if hasattr(state, "policy_bundle"):
            # Its snapshots tell which policies it ran under.
            state.policy_bundle = self.gate.engine.bundle.digest
        return GuardedSession.wrap(session, self.gate, isolated=facts.isolation != "none", snapshots=facts.snapshots)


def _questions(
    verb: str,
    facts: SandboxFacts,
    manifest: Manifest | None,
    snapshot: SnapshotSpec | SnapshotBase | None,
    *,
    restores: bool,
) -> Iterator[Question | Impossible]:
    yield from facts.questions(verb)
    if manifest is not None:
        yield from questions(manifest, isolated=facts.isolation != "none")
    # The backend persists on its own when it stops, so saving is decided here, where it can still be refused.
    if snapshot is not None and snapshot.type != _NO_SNAPSHOT:
        name = str(getattr(snapshot, "id", "new"))
        for kind in facts.snapshots:
            store = store_of(snapshot, kind)
            yield Question("snapshot create", partial(actions.snapshot, session=name, kind=kind, store=store), name)
            if restores:
                saved = partial(actions.restore, snapshot_id=name, kind=kind, store=store)
                yield Question("snapshot restore", saved, name)


def _record_of(facts: SandboxFacts) -> dict[str, JsonValue]:
    return {
        "image": facts.image,
        "image_digest": facts.digest,
        "image_signed": facts.signed,
        "isolation": facts.isolation,
        "egress": None if facts.egress is None else list(facts.egress),
        "vcpus": facts.vcpus,
        "memory_mib": facts.memory_mib,
        "disk_gb": facts.disk_gb,
        "mounts": [
            f"{real} at {guest}, {'writable' if write else 'read-only'}" for _, real, guest, write in facts.mounts
        ],
    }
