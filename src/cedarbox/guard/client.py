"""A sandbox client under policy: decides what a sandbox would be given before the backend makes it.

What comes back of a saved state is what was saved: :meth:`GuardedClient.serialize_session_state` seals it, and no other
is taken. A state that never left this process has no seal; like all code here it is trusted, and decided on its facts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

from agents.sandbox.manifest import Manifest
from agents.sandbox.session.dependencies import Dependencies
from agents.sandbox.session.sandbox_client import BaseSandboxClient, BaseSandboxClientOptions
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from agents.sandbox.snapshot import NoopSnapshotSpec, SnapshotBase, SnapshotSpec

from cedarbox.audit import Entry, JsonValue
from cedarbox.errors import CedarboxError, ConfigurationError
from cedarbox.guard.allowlists import LEAKS, card_list, refused_entries
from cedarbox.guard.egress import Carrier
from cedarbox.guard.exports import delete_snapshot, export_snapshot
from cedarbox.guard.facts import SandboxFacts, facts_of
from cedarbox.guard.gate import Gate
from cedarbox.guard.keeper import Keeper
from cedarbox.guard.keys import KEY_NAME, SandboxKey
from cedarbox.guard.manifest import questions
from cedarbox.guard.question import Impossible, Question
from cedarbox.guard.sealed import SealedSnapshotSpec
from cedarbox.guard.session import GuardedSession
from cedarbox.guard.states import StateSeal
from cedarbox.guard.stores import is_default_of_sdk, saves, store_of
from cedarbox.policy import PolicyEngine, actions
from cedarbox.policy.endpoints import endpoints

__all__ = ["GuardedClient", "is_genuine_client"]


class GuardedClient(BaseSandboxClient[Any]):
    """Wraps any SDK sandbox client so that policies govern it.

    Args:
        inner: The client to guard.
        gate: Decides and records.
        key: The file of the sandbox key, which seals states and snapshots; made on first use. None for ``sandbox.key``
            beside the directory of the ledger.
        snapshots: What becomes of a workspace when a session ends and nobody asked for a snapshot: ``none`` or
            ``sealed``, in the directory ``snapshots`` beside that of the ledger.
        lifetime_s: Seconds after which a sandbox is ended, counted from when it is made or taken up; None for no end.
        carrier: Makes what carries the connections of a session whose backend hands them over; None when nobody carries
            any, so that such a sandbox has no network at all.

    Raises:
        ConfigurationError: The client is guarded already, or the key or the lifetime cannot be used.
    """

    def __init__(
        self,
        inner: BaseSandboxClient[Any],
        gate: Gate,
        *,
        key: Path | None = None,
        snapshots: Literal["none", "sealed"] = "none",
        lifetime_s: int | None = None,
        carrier: Carrier | None = None,
    ) -> None:
        if isinstance(inner, GuardedClient):
            raise ConfigurationError("this client is guarded already", hint="give the backend's own client")
        if lifetime_s is not None and (isinstance(lifetime_s, bool) or lifetime_s < 1):
            raise ConfigurationError(f"lifetime_s: {lifetime_s!r} cannot be used", hint="give seconds, 1 or more")
        self.inner, self.gate, self.lifetime_s, self.carrier = inner, gate, lifetime_s, carrier
        beside = gate.ledger.directory.parent
        self.key = SandboxKey.load((key or beside / KEY_NAME).absolute())
        if self.key.made:
            gate.ledger.append(Entry(event="key.created", attrs={"key": "sandbox"}))
        self._states = StateSeal(self.key, inner.backend_id)
        self.keeper = Keeper(gate, self.key)
        self.default_snapshot: SnapshotSpec = (
            SealedSnapshotSpec(base_path=beside / "snapshots", key=self.key.path)
            if snapshots == "sealed"
            else NoopSnapshotSpec()
        )
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

        Without a snapshot the sandbox gets :attr:`default_snapshot`, and so it does with the SDK's own default, which
        would leave the workspace in clear below the home directory.

        Raises:
            PolicyDenied: Something is not; nothing was made.
            SnapshotError: The snapshot is not what was written down when it was saved; recorded as a denial.
        """
        if isinstance(options, Mapping):
            options = BaseSandboxClientOptions.parse(dict(options))
        if snapshot is None or is_default_of_sdk(snapshot):
            snapshot = self.default_snapshot
        async with self.gate.noted("sandbox create", session=None, event="sandbox.created") as operation:
            engine, facts = self.gate.engine, await self._facts(options)
            card = None
            if facts.derive:
                card = card_list(endpoints(engine, self.gate.principal))
                options = options.model_copy(update={"egress_allowlist": card.names})
                facts = await self._facts(options)
            # A session that is made with a snapshot that exists starts from it.
            restores = isinstance(snapshot, SnapshotBase) and await self._restorable(snapshot)
            await self.gate.ask_all(self._of_the_lists(engine, facts))
            await self.gate.ask_all(_questions("create", facts, manifest, snapshot, restores=restores))
            adopted = await self._adopted(snapshot, None) if restores else ""
            session = await self.inner.create(snapshot=snapshot, manifest=manifest, options=options)
            operation.session = str(session.state.session_id)
            operation.facts.update(_record_of(facts, snapshot))
            if card is not None:
                operation.facts["egress_dropped"] = list(card.dropped)
            if manifest is not None and session.state.manifest.root != manifest.root:
                await self._asked_again(session, questions(session.state.manifest, isolated=facts.isolation != "none"))
            guarded = await self._guarded(session, facts, adopted)
            return await self._in_force(guarded, "create", facts, engine)

    async def resume(self, state: SandboxSessionState) -> SandboxSession:
        """Take a sandbox up again if everything that its state says is permitted.

        Raises:
            PolicyDenied: Something is not; nothing was taken up.
            SnapshotError: The snapshot is not what was written down when it was saved; recorded as a denial.
        """
        session_id = str(state.session_id)
        async with self.gate.noted("sandbox resume", session=session_id, event="sandbox.resumed") as operation:
            engine, facts = self.gate.engine, await self._facts(state)
            await self.gate.ask_all(self._of_the_lists(engine, facts), session=session_id)
            asked = _questions("resume", facts, state.manifest, state.snapshot, restores=True)
            await self.gate.ask_all(asked, session=session_id)
            restores = saves(state.snapshot) and await self._restorable(state.snapshot)
            adopted = await self._adopted(state.snapshot, session_id) if restores else ""
            saved_under = getattr(state, "policy_bundle", "")
            session = await self.inner.resume(state)
            operation.facts.update(_record_of(facts, state.snapshot))
            if saved_under:
                operation.facts["saved_under"] = saved_under
            guarded = await self._guarded(session, facts, adopted)
            return await self._in_force(guarded, "resume", facts, engine)

    async def delete(self, session: SandboxSession) -> SandboxSession:
        """Delete a sandbox; recorded, never denied: a denied delete would leak a running machine."""
        async with self.gate.noted("sandbox delete", session=str(session.state.session_id), event="sandbox.deleted"):
            if not isinstance(session, GuardedSession):
                return await self.inner.delete(session)
            await self.inner.delete(session._provider)
            session.release()
            return session

    async def may_restore(self, state: SandboxSessionState) -> None:
        """Ask whether what a session saved may be restored under the policies in force.

        Raises:
            PolicyDenied: It was made under others, and they do not permit to adopt it; recorded.
            SnapshotError: It is not what was written down when it was saved; recorded as a denial.
        """
        await self._adopted(state.snapshot, str(state.session_id))

    async def export_snapshot(
        self, state: SandboxSessionState, destination: Path | str, *, dependencies: Dependencies | None = None
    ) -> Path:
        """Write what a session saved to a file of this host, in clear, if ``export`` is permitted.

        Args:
            state: The state of a session that was saved with ``stop()``.
            destination: The file; what is there stays as it is until the new one is whole.
            dependencies: Where a remote snapshot finds its client.

        Returns:
            The real path that was decided and written.

        Raises:
            PolicyDenied: It is not permitted; nothing was written.
            SnapshotError: It is not what was saved, is a native one, which lives in its BoxLite home alone, or the file
                cannot be written.
        """
        return await export_snapshot(self.gate, self.keeper, state, destination, dependencies)

    async def delete_snapshot(self, state: SandboxSessionState) -> None:
        """Remove what a session saved; recorded, never denied.

        Raises:
            SnapshotError: It is of a kind that cannot be removed here, or was not removed.
        """
        await delete_snapshot(self.gate, state)

    def serialize_session_state(self, state: SandboxSessionState) -> dict[str, object]:
        """Serialise a state as the guarded client does, and seal it."""
        return self._states.sealed(self.inner.serialize_session_state(state))

    def deserialize_session_state(self, payload: dict[str, object]) -> SandboxSessionState:
        """Read a state back as the guarded client does; ``payload`` is left as it is.

        Raises:
            ConfigurationError: It is not what :meth:`serialize_session_state` gave: recorded as a denial.
        """
        try:
            plain = self._states.opened(payload)
        except ConfigurationError as error:
            session = payload.get("session_id")
            known = session[:64] if isinstance(session, str) and session.isascii() else None
            self.gate.refuse_now(Impossible("resume", "", error.message), session=known)
            raise
        return self.inner.deserialize_session_state(deepcopy(plain))

    async def _facts(self, source: object) -> SandboxFacts:
        try:
            # Checking the digests of an image reads all of it.
            facts = await asyncio.to_thread(facts_of, self.inner, source)
            return facts if self.lifetime_s is None else replace(facts, lifetime_s=self.lifetime_s)
        except CedarboxError as error:
            await self.gate.refuse(Impossible("create", 'Image::"unknown"', error.message))
            raise

    def _of_the_lists(self, engine: PolicyEngine, facts: SandboxFacts) -> Iterator[Impossible]:
        if facts.derive:
            yield Impossible(
                "connect", 'Host::"any"', "a network card without an allow-list would be open to everything"
            )
        if facts.requested:
            yield from refused_entries(endpoints(engine, self.gate.principal), facts.requested)

    async def _adopted(self, snapshot: Any, session: str | None) -> str:
        await self.keeper.check(snapshot, session=session)
        return await self.keeper.adopt(snapshot, session=session)

    async def _restorable(self, snapshot: SnapshotBase) -> bool:
        try:
            return await snapshot.restorable()
        except Exception:  # noqa: BLE001 - what cannot be told is asked about
            return True

    async def _asked_again(self, session: SandboxSession, asked: Iterable[Question | Impossible]) -> None:
        # Some backends choose the root of the workspace themselves, and rules are about paths.
        try:
            await self.gate.ask_all(asked, session=str(session.state.session_id))
        except BaseException:
            await self.inner.delete(session)
            raise

    async def _in_force(
        self, session: GuardedSession, verb: str, facts: SandboxFacts, engine: PolicyEngine
    ) -> GuardedSession:
        session.hold(facts.questions(verb))
        session._in_use(True)
        if self.gate.engine is not engine:
            # The policies changed between the first question and the moment from which a change ends the sandbox.
            manifest = questions(session.state.manifest, isolated=facts.isolation != "none")
            try:
                await self._asked_again(session._provider, [*facts.questions(verb), *manifest])
            except BaseException:
                session.release()
                raise
        return session

    async def _guarded(self, session: SandboxSession, facts: SandboxFacts, adopted: str) -> GuardedSession:
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
        try:
            guarded = GuardedSession.wrap(
                session,
                self.gate,
                isolated=facts.isolation != "none",
                snapshots=facts.snapshots,
                lifetime_s=self.lifetime_s,
                carrier=self.carrier,
            )
        except BaseException:
            # What carries its connections could not be made; nobody else will delete it.
            await self.inner.delete(session)
            raise
        guarded.keep(self.keeper, image_digest=facts.digest or "", adopted=adopted)
        return guarded


def is_genuine_client(client: Any) -> bool:
    """Whether a client is a guarded one, with none of its methods replaced by a subclass or on the object."""
    methods = {name: member for name, member in vars(GuardedClient).items() if isinstance(member, FunctionType)}
    own = (name for name in methods if name != "__init__")
    return isinstance(client, GuardedClient) and all(
        getattr(type(client), name) is methods[name] and name not in vars(client) for name in own
    )


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
    if snapshot is not None and saves(snapshot):
        name = str(getattr(snapshot, "id", "new"))
        for kind in facts.snapshots:
            store = store_of(snapshot, kind)
            yield Question("snapshot create", partial(actions.snapshot, session=name, kind=kind, store=store), name)
            if restores:
                saved = partial(actions.restore, snapshot_id=name, kind=kind, store=store)
                yield Question("snapshot restore", saved, name)


def _record_of(facts: SandboxFacts, snapshot: SnapshotSpec | SnapshotBase) -> dict[str, JsonValue]:
    return {
        "snapshot": store_of(snapshot, "tar") if saves(snapshot) else "none",
        "lifetime_s": facts.lifetime_s,
        "image": facts.image,
        "image_digest": facts.digest,
        "image_signed": facts.signed,
        "isolation": facts.isolation,
        "egress": None if facts.egress is None else list(facts.egress),
        **({} if facts.requested is None else {"egress_requested": list(facts.requested)}),
        **({"leaks": list(LEAKS)} if facts.egress else {}),
        **({"secrets": [f"{name} for {host}" for name, host in facts.secrets]} if facts.secrets else {}),
        "vcpus": facts.vcpus,
        "memory_mib": facts.memory_mib,
        "disk_gb": facts.disk_gb,
        "mounts": [
            f"{real} at {guest}, {'writable' if write else 'read-only'}" for _, real, guest, write in facts.mounts
        ],
    }
