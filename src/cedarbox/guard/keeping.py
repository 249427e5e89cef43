"""Starting, stopping, saving and restoring a guarded session."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Literal

from cedarbox.errors import PolicyDenied, SnapshotError
from cedarbox.guard.backend import KeepsSnapshots
from cedarbox.guard.files import FilesSession
from cedarbox.guard.keeper import Keeper, new_save, told_of
from cedarbox.guard.kept import kept, restored_of, saved_of, taken_of, with_saved
from cedarbox.guard.question import Impossible
from cedarbox.guard.saved import Used, measured_copy, measured_in_place
from cedarbox.guard.stores import saves, store_of
from cedarbox.policy import actions

__all__ = ["KeepingSession"]

_Facts = Mapping[str, str | int]


class KeepingSession(FilesSession):
    """A session whose saves and restores pass the gate and are written down."""

    # What the guarded client sets; a session that was wrapped without one writes nothing down in its state.
    _keeper: Keeper | None = None
    _image_digest: str = ""
    _may_adopt: str = ""
    # Name of the save that the sandbox started from, or that was last made of it.
    _origin: str = ""

    def keep(self, keeper: Keeper, *, image_digest: str, adopted: str) -> None:
        """Write down what is saved of this session, and restore only what was written down.

        Args:
            keeper: That of the client.
            image_digest: Digest of the image; empty when nobody knows it.
            adopted: Digest of the bundle under which the snapshot may be restored; empty when nobody asked.
        """
        self._keeper, self._image_digest, self._may_adopt = keeper, image_digest, adopted
        self.state.snapshot = kept(self.state.snapshot)

    async def start(self) -> None:
        """Start the sandbox; recorded. What it does was decided when it was created; what was added since is now.

        Raises:
            PolicyDenied: The manifest was changed since and may not be applied, the lifetime is over, or the snapshot
                was made under other policies and may not be restored.
            SnapshotError: The snapshot is not what was saved; recorded as a denial.
        """
        await self._living("sandbox start")
        await self._decide(self.state.manifest)
        await self._adopted()
        if self._carriage is not None:
            self._carriage.begin()
        restored_of(self.state.snapshot, forget=True)
        try:
            async with self._gate.noted("sandbox start", session=self.session_id) as operation:
                await super().start()
                self._in_use(True)
                # Known only now for an image that nothing pinned: it was pulled by the start.
                if (digest := getattr(self.state, "image_digest", None)) is not None:
                    operation.facts["image_digest"] = digest
        except Exception as error:
            if (damage := _damage_in(error)) is not None:
                await self._refuse(damage)
            raise
        native, measure = self._snapshot_facts("restored"), restored_of(self.state.snapshot)
        if (saved := saved_of(self.state.snapshot)) is not None:
            self._origin = saved.name
        elif native is not None or measure is not None:
            # Nothing was written down of it: its id is all that is known of where this comes from.
            self._origin = str(native["native.id"]) if native is not None else self.state.snapshot.id
        if native is not None or measure is not None:
            facts = dict(native or {})
            if measure is not None:
                facts = {"sha256": measure.sha256, "size_bytes": measure.size_bytes, **facts}
            await self._note_snapshot("snapshot restore", "snapshot.restored", facts)

    async def stop(self) -> None:
        """Persist the workspace; recorded, never denied.

        It is not saved when the lifetime is over, when a change of policy ended the sandbox, or when the policies that
        are in force by now deny the snapshot.
        """
        keeps = saves(self.state.snapshot) and await self._may_save()
        bundle = self._gate.engine.bundle.digest
        if keeps and hasattr(self.state, "policy_bundle"):
            # What the backend writes down of its own snapshots tells the bundle too.
            self.state.policy_bundle = bundle
        async with self._gate.noted("sandbox stop", session=self.session_id) as operation:
            if saves(self.state.snapshot):
                operation.set("snapshot.type", str(told_of(self.state.snapshot)["snapshot.type"]))
                operation.set("snapshot.id", self.state.snapshot.id)
                operation.set("snapshot.saved", keeps)
            if keeps or not saves(self.state.snapshot):
                await super().stop()
        if not keeps:
            return
        native, measure = self._snapshot_facts("taken"), taken_of(self.state.snapshot)
        if measure is not None and self._keeper is not None:
            saved = new_save(
                measure,
                native,
                session=self.session_id,
                parent=self._origin,
                image_digest=getattr(self.state, "image_digest", None) or self._image_digest,
                bundle=bundle,
            )
            # From here on the state restores this and nothing else.
            written = self._keeper.written(self.state.snapshot.id, saved)
            self.state.snapshot = with_saved(self.state.snapshot, written)
            self._origin, self._may_adopt = saved.name, bundle
        await self._note_snapshot("snapshot create", "snapshot.created", native or {})

    async def persist_workspace(self) -> io.IOBase:
        """Hand the workspace out as an archive."""
        *others, kind = self._snapshots
        for other in others:
            question = self._question("snapshot create", actions.snapshot, session=self.session_id, **self._how(other))
            await self._ask(question)
        async with self._operation(
            "snapshot create", actions.snapshot, session=self.session_id, **self._how(kind)
        ) as operation:
            content = await super().persist_workspace()
            if (measure := await measured_in_place(content)) is not None:
                operation.set("sha256", measure.sha256)
                operation.set("size_bytes", measure.size_bytes)
                if self._keeper is not None:
                    self._keeper.handed_out(measure)
            return content

    async def hydrate_workspace(self, data: io.IOBase) -> None:
        """Fill the workspace from an archive.

        One that this guard did not hand out under the policies in force counts as made under others.
        """
        *others, kind = self._snapshots
        saved = self.state.snapshot.id
        for other in others:
            question = self._question("snapshot restore", actions.restore, snapshot_id=saved, **self._how(other))
            await self._ask(question)
        # What is counted is what is unpacked, whoever else holds the stream.
        copied, measure = await measured_copy(data)
        with Used(copied) as content:
            if self._keeper is not None:
                await self._keeper.adopt_archive(self.state.snapshot, measure, session=self.session_id)
            async with self._operation(
                "snapshot restore", actions.restore, snapshot_id=saved, **self._how(kind)
            ) as operation:
                operation.set("sha256", measure.sha256)
                operation.set("size_bytes", measure.size_bytes)
                await super().hydrate_workspace(content)

    async def _may_save(self) -> bool:
        try:
            await self._living("snapshot create")
            if self._gate.engine is not self._decided_by:
                for kind in self._snapshots:
                    await self._ask(
                        self._question("snapshot create", actions.snapshot, session=self.session_id, **self._how(kind))
                    )
        except PolicyDenied:
            return False
        return True

    async def _adopted(self) -> None:
        # The policies may have changed since the client asked.
        snapshot = self.state.snapshot
        if self._keeper is None or self._may_adopt == self._gate.engine.bundle.digest or not saves(snapshot):
            return
        if saved_of(snapshot) is not None or await snapshot.restorable(dependencies=self._inner.dependencies):
            await self._keeper.check(snapshot, session=self.session_id)
            self._may_adopt = await self._keeper.adopt(snapshot, session=self.session_id)

    async def _refuse(self, damage: SnapshotError) -> None:
        if self._keeper is not None:
            await self._keeper.refuse(self.state.snapshot, damage.message, session=self.session_id)
            return
        refused = Impossible("restore", f'Snapshot::"{self.state.snapshot.id}"', damage.message)
        await self._gate.refuse(refused, session=self.session_id)

    def _how(self, kind: Literal["tar", "native"]) -> dict[str, str]:
        return {"kind": kind, "store": store_of(self.state.snapshot, kind)}

    def _snapshot_facts(self, when: Literal["taken", "restored"]) -> _Facts | None:
        return self._inner.snapshot_facts(when) if isinstance(self._inner, KeepsSnapshots) else None

    async def _note_snapshot(self, verb: str, event: str, facts: _Facts) -> None:
        async with self._gate.noted(verb, session=self.session_id, event=event) as operation:
            operation.tell({f"snapshot.{name}": value for name, value in facts.items()})
            operation.tell(told_of(self.state.snapshot))


def _damage_in(error: BaseException | None) -> SnapshotError | None:
    # Backends wrap what goes wrong in a start.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, SnapshotError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
