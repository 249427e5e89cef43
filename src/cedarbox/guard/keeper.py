"""What may be restored, and what is written down of each save.

Two rules hold for every restore, beside the decisions that it takes anyway:

* its content has to be what was saved, and what is said of it what was written down then; nothing permits otherwise;
* it has to be made under the policy bundle that is in force, unless that bundle permits ``adopt``.

A restore that breaks one is refused: a denial, and ``snapshot.refused`` with what is known of the snapshot.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from cedarbox.audit import JsonValue
from cedarbox.errors import PolicyDenied, SnapshotError
from cedarbox.guard.gate import Gate
from cedarbox.guard.kept import bare, saved_of
from cedarbox.guard.keys import SandboxKey
from cedarbox.guard.question import Impossible, Question
from cedarbox.guard.saved import UNKNOWN, Measure, Saved, SavedSeal
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base

__all__ = ["Keeper", "new_save", "told_of"]

_REMEMBERED: Final = 4096


class Keeper:
    """Keeps the snapshots of one guarded client.

    Args:
        gate: Decides and records.
        key: The sandbox key.
    """

    def __init__(self, gate: Gate, key: SandboxKey) -> None:
        self._gate, self._seal = gate, SavedSeal(key)
        # Archives that a session handed to the program: SHA-256 and the bundle in force then.
        self._handed_out: OrderedDict[str, str] = OrderedDict()

    def written(self, snapshot_id: str, saved: Saved) -> Saved:
        """Return a description that holds for the snapshot with this id."""
        return self._seal.sealed(saved, snapshot_id)

    async def check(self, snapshot: Any, *, session: str | None) -> None:
        """Check that what a snapshot says of itself was written by this guard.

        Raises:
            SnapshotError: It was not; recorded.
        """
        saved = saved_of(snapshot)
        if saved is None:
            return
        try:
            self._seal.check(saved, snapshot.id)
        except SnapshotError as error:
            await self.refuse(snapshot, error.message, session=session)
            raise

    async def adopt(self, snapshot: Any, *, session: str | None) -> str:
        """Ask whether a snapshot may be restored although another bundle than its own is in force.

        Returns:
            The digest of the bundle under which it may be.

        Raises:
            PolicyDenied: It may not; recorded.
        """
        saved = saved_of(snapshot)
        return await self._adopt(snapshot, snapshot.id, UNKNOWN if saved is None else saved.bundle, session=session)

    async def adopt_archive(self, snapshot: Any, measure: Measure, *, session: str | None) -> None:
        """Ask the same of an archive that the program hands over.

        Raises:
            PolicyDenied: It may not be restored; recorded.
        """
        made_under = self._handed_out.get(measure.sha256, UNKNOWN)
        await self._adopt(snapshot, snapshot.id, made_under, session=session)

    def handed_out(self, measure: Measure) -> None:
        """Remember an archive that the program was given; the last 4,096 are."""
        self._handed_out[measure.sha256] = self._gate.engine.bundle.digest
        self._handed_out.move_to_end(measure.sha256)
        if len(self._handed_out) > _REMEMBERED:
            self._handed_out.popitem(last=False)

    async def refuse(
        self, snapshot: Any, reason: str, *, session: str | None, facts: Mapping[str, JsonValue] | None = None
    ) -> PolicyDenied:
        """Record that a snapshot is not restored, as a denial and as what it is."""
        denial = await self._gate.refuse(Impossible("restore", f'Snapshot::"{snapshot.id}"', reason), session=session)
        await self._refused(snapshot, {"reason": reason, **(facts or {})}, session=session)
        return denial

    async def _adopt(self, snapshot: Any, snapshot_id: str, made_under: str, *, session: str | None) -> str:
        in_force = self._gate.engine.bundle.digest
        if made_under == in_force:
            return in_force

        def name(base: Base) -> Action:
            now = self._gate.engine.bundle.digest
            return actions.adopt(base, snapshot_id=snapshot_id, made_under=made_under, in_force=now)

        try:
            await self._gate.ask(Question("snapshot adopt", name, snapshot_id), session=session)
        except PolicyDenied as denial:
            in_force = self._gate.engine.bundle.digest
            under = "nobody knows which policy bundle" if made_under == UNKNOWN else f"the policy bundle {made_under}"
            reason = (
                f"it was made under {under}, and {in_force} is in force; "
                f'permit Sandbox::Action::"adopt" to restore it all the same ({denial.reason})'
            )
            facts: dict[str, JsonValue] = {"reason": reason, "made_under": made_under, "in_force": in_force}
            await self._refused(snapshot, facts, session=session)
            raise PolicyDenied(
                denial.action, denial.resource, reason=reason, policies=denial.policies, seq=denial.seq
            ) from denial
        return in_force

    async def _refused(self, snapshot: Any, facts: Mapping[str, JsonValue], *, session: str | None) -> None:
        async with self._gate.noted("snapshot restore", session=session, event="snapshot.refused") as operation:
            operation.outcome = "refused"
            operation.tell(told_of(snapshot))
            operation.facts.update(facts)


def told_of(snapshot: Any) -> dict[str, JsonValue]:
    """Return what a record tells of a snapshot: its type, its id, and what was written down of its last save."""
    saved = saved_of(snapshot)
    known = {} if saved is None else {f"snapshot.{name}": value for name, value in saved.facts().items()}
    return {"snapshot.type": bare(snapshot).type, "snapshot.id": snapshot.id, **known}


def new_save(
    measure: Measure,
    native: Mapping[str, str | int] | None,
    *,
    session: str,
    parent: str,
    image_digest: str,
    bundle: str,
) -> Saved:
    """Return what is to be written down of a save.

    Args:
        measure: What passed on the way there.
        native: What the backend tells of its own snapshot; None for an archive.
        session: Id of the session that was saved.
        parent: Name of the save that it started from.
        image_digest: Digest of its image; empty when nobody knows it.
        bundle: Digest of the bundle in force.
    """
    made: dict[str, Any] = {
        "name": f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}",
        "parent": parent,
        "kind": "tar",
        "size_bytes": measure.size_bytes,
        "image_digest": image_digest,
    }
    if native is not None:
        made["kind"] = "native"
        names = {"name": "native.id", "parent": "native.parent", "size_bytes": "native.size_bytes"}
        made |= {name: native[of] for name, of in names.items() if of in native}
    return Saved(session=session, sha256=measure.sha256, bundle=bundle, **made)
