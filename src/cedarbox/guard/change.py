"""A change of the policies in force, and what it means for what already goes on.

1. The change is recorded; a change that cannot be recorded does not happen.
2. The new engine takes the place of the old one, at once, for everything that is decided from then on.
3. Everything that goes on is asked about again, as the caller that it was asked for.
4. What the new policies deny is cut, each without waiting for another, and every cut is recorded when it has ended.

A cut does not wait for its record: it takes away, and a ledger that fails must not keep a connection open.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, wait
from dataclasses import dataclass
from dataclasses import replace as replaced
from typing import Final

from cedarbox.audit import Entry, JsonValue
from cedarbox.errors import CanonicalizationError, LedgerError, PolicyDenied
from cedarbox.guard.entries import recordable, why
from cedarbox.guard.gate import Gate
from cedarbox.guard.holds import Hold
from cedarbox.guard.question import answer
from cedarbox.policy import PolicyEngine

__all__ = ["Change", "Cut", "change_policies"]

_CUT_SECONDS: Final = 30.0
_WIDEST: Final = frozenset({"sandbox.revoked", "egress.revoked"})
"""What carries data out of a sandbox is asked about first."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One thing that a change of policy ended.

    Attributes:
        event: What it was, as the event of its record.
        session: Id of the sandbox session.
        action: The Cedar action that is denied now.
        resource: Its resource.
        policies: Ids of the policies that deny it; empty when none permits it any more.
        reason: Why.
        seconds: From the moment at which the new policies were in force to its end.
        ended: False when its end could not be seen.
    """

    event: str
    session: str | None
    action: str
    resource: str
    policies: tuple[str, ...]
    reason: str
    seconds: float
    ended: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What came of a change of policy.

    Attributes:
        before: Digest of the bundle that was in force.
        after: Digest of the one that is.
        asked: How many things went on and were asked about again.
        cuts: Those that ended.
    """

    before: str
    after: str
    asked: int
    cuts: tuple[Cut, ...]


def change_policies(gate: Gate, engine: PolicyEngine) -> Change:
    """Put other policies in force.

    It blocks until everything that had to end has ended, so an event loop must call it in a thread.

    Args:
        gate: The gate.
        engine: Decides from now on.

    Raises:
        LedgerError: The change cannot be recorded; nothing was changed.
    """
    before, bundle = gate.engine.bundle.digest, engine.bundle
    attrs: dict[str, JsonValue] = {
        "name": bundle.name,
        "revision": bundle.revision,
        "policies": len(bundle.policies),
        "before": before,
    }
    # 1. Record it.
    gate.ledger.append(Entry(event="policy.reloaded", principal=gate.principal, bundle=bundle.digest, attrs=attrs))
    # 2. In force.
    gate.engine = engine
    since = time.monotonic()
    # 3. Ask again, and 4. cut at once what is denied: what else goes on must not make it wait.
    held = sorted(gate.holds.all(), key=lambda hold: hold.event not in _WIDEST)
    endings = []
    for hold in held:
        if (denial := _denial(gate, engine, hold)) is None:
            continue
        if gate.mode == "shadow":
            _record(gate, hold, _told(hold, denial, since, ended=False), outcome="shadow")
        else:
            endings.append(_Ending(hold, denial, hold.cut(denial)))
    wait([ending.end for ending in endings], timeout=_CUT_SECONDS)
    cuts = []
    for ending in endings:
        cut = _told(ending.hold, ending.denial, since, ended=ending.seen())
        cut = replaced(cut, seconds=ending.at - since) if cut.ended else cut
        _record(gate, ending.hold, cut, outcome="ok" if cut.ended else "unknown")
        cuts.append(cut)
    return Change(before, bundle.digest, len(held), tuple(cuts))


class _Ending:
    """A cut under way; notes when its end came."""

    def __init__(self, hold: Hold, denial: PolicyDenied, end: Future[None]) -> None:
        self.hold, self.denial, self.end, self.at = hold, denial, end, 0.0
        end.add_done_callback(self._note)

    def _note(self, _: Future[None]) -> None:
        self.at = time.monotonic()

    def seen(self) -> bool:
        """Whether it ended, and without an error."""
        failed = not self.end.done() or self.end.cancelled() or self.end.exception() is not None
        return self.hold.certain and not failed


def _denial(gate: Gate, engine: PolicyEngine, hold: Hold) -> PolicyDenied | None:
    base = replaced(gate.base(), agent=hold.caller.agent, tool=hold.caller.tool)
    try:
        action, decision = answer(hold.question, engine, gate.principal, base)
    except CanonicalizationError as error:
        return PolicyDenied(hold.question.verb, hold.question.asked, reason=error.message)
    if decision.allowed:
        return None
    reason = f"the policies have changed: {why(decision)}"
    return PolicyDenied(action.name, str(action.resource), reason=reason, policies=decision.policies)


def _told(hold: Hold, denial: PolicyDenied, since: float, *, ended: bool) -> Cut:
    seconds = time.monotonic() - since
    return Cut(hold.event, hold.session, denial.action, denial.resource, denial.policies, denial.reason, seconds, ended)


def _record(gate: Gate, hold: Hold, cut: Cut, *, outcome: str) -> None:
    entry = Entry(
        event=cut.event,
        session=cut.session,
        run=hold.run.id if hold.run else None,
        principal=gate.principal,
        tool=recordable(hold.caller.tool),
        call_id=recordable(hold.caller.call_id),
        action=cut.action,
        resource=recordable(cut.resource),
        decision="deny",
        policies=cut.policies,
        bundle=gate.engine.bundle.digest,
        outcome=outcome,
        attrs={"reason": recordable(cut.reason), "milliseconds": round(cut.seconds * 1000)},
    )
    try:
        gate.ledger.append(entry)
    except LedgerError:
        # It has ended. That nothing can be recorded any more denies whatever is asked next.
        return
