"""The one place through which everything passes that crosses the boundary.

Invariants:

* nothing is done before its decision is in the ledger, on disk;
* an action that cannot be named, decided or recorded is not done;
* whatever was done leaves an outcome, also when it failed or was cancelled;
* no operation begins or goes on under policies that are no longer in force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Literal

from cedarbox.audit import JsonValue, Ledger, Record
from cedarbox.errors import CanonicalizationError, LedgerError, PolicyDenied
from cedarbox.guard.approval_store import ApprovalStore
from cedarbox.guard.approvals import Unapproved
from cedarbox.guard.entries import OPERATION, Recording, recordable, shown, why
from cedarbox.guard.holds import Cut, Hold, Holds
from cedarbox.guard.identity import current_caller
from cedarbox.guard.operation import NOWHERE, Captures, Operation, link_snapshots, timed
from cedarbox.guard.question import Impossible, Question, answer
from cedarbox.guard.recorder import Recorder
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.policy.entities import Base
from cedarbox.telemetry import attributes
from cedarbox.telemetry.spans import OperationSpan, SpanKind, Telemetry

__all__ = ["Gate", "Operation"]


class Gate(Recorder):
    """Names, decides, records, lets act, records again.

    Args:
        engine: Decides.
        ledger: Remembers; an operation waits until its decision is durable.
        telemetry: Shows.
        principal: Id of the agent as ``entities.json`` of the bundle declares it.
        backend: The ``backend_id`` of the client that is guarded.
        mode: ``enforce``; or ``shadow``, in which a denial is recorded as one and what was asked happens all the same.
            What cannot be named, or not be recorded, is denied in both.
        approvals: Where signed approvals are kept; None when there are none, so that what needs one is denied.
        capture: Longest content that a span may hold, in characters; 0 when spans hold none, whatever the policies say.

    Attributes:
        captures: What was decided about content, by bundle, run or session, and kind.
    """

    def __init__(
        self,
        *,
        engine: PolicyEngine,
        ledger: Ledger,
        telemetry: Telemetry,
        principal: str,
        backend: str,
        mode: Literal["enforce", "shadow"] = "enforce",
        approvals: ApprovalStore | None = None,
        capture: int = 0,
    ) -> None:
        super().__init__(engine=engine, ledger=ledger, telemetry=telemetry, principal=principal, backend=backend)
        self.mode, self.approvals, self.holds = mode, approvals, Holds()
        self.capture, self.captures = capture, Captures()

    def base(self) -> Base:
        """Return what every request carries, for the caller in whose context this runs."""
        caller = current_caller()
        return Base(at=datetime.now(UTC), backend=self.backend, agent=caller.agent, tool=caller.tool)

    @asynccontextmanager
    async def operation(
        self,
        question: Question,
        *,
        session: str | None = None,
        certain: bool = True,
        recording: Recording = OPERATION,
    ) -> AsyncIterator[Operation]:
        """Take one operation through the five steps; the block is the act.

        Args:
            question: What is to be done.
            session: Id of the sandbox session.
            certain: Whether cancelling the act is sure to end it.
            recording: The events under which its end is recorded.

        Raises:
            PolicyDenied: The answer is no, whatever the reason.
            LedgerError: The act was done and its outcome could not be recorded.
        """
        about, home = {**self.about(question.verb, session), **question.about}, self.homes.get(session or "", NOWHERE)
        kind = SpanKind.CLIENT if attributes.SERVER_ADDRESS in about else SpanKind.INTERNAL
        held = self.holds.running(question, session, certain=certain, event=recording.revoked)
        with (
            timed(self.telemetry.metrics, question.verb) as watch,
            self.telemetry.operation(question.verb, about, kind=kind, home=home.span) as span,
            held as running,
        ):
            try:
                action, decision, record = await self._admit(question, span, session)
            except BaseException as error:
                watch.outcome = "denied" if isinstance(error, PolicyDenied) else "error"
                if (denial := running.denial(error)) is not None:
                    span.fail("policy_denied", denial.reason)
                    raise denial from None
                raise
            operation = watch.operation = Operation(span, record, session)
            # 4. Act, inside the span that carries the record's sequence number.
            try:
                yield operation
            except BaseException as error:
                denial = running.denial(error)
                operation.failed(denial or error)
                if denial is not None:
                    operation.outcome = "revoked"
                # The loop may be going down: only a call that does not await is sure to be made.
                if recording.waits:
                    self._told(span, self.ledger.append(self._outcome(action, decision, operation, recording)))
                else:
                    self.ledger.note(self._outcome(action, decision, operation, recording))
                if denial is not None:
                    span.fail("policy_denied", denial.reason)
                    raise denial from None
                raise
            await running.finished()
            # 5. Record the outcome.
            if recording.waits:
                self._told(span, await self.ledger.record(self._outcome(action, decision, operation, recording)))
            else:
                self.ledger.note(self._outcome(action, decision, operation, recording))

    @asynccontextmanager
    async def while_permitted(self, question: Question, *, decided_by: PolicyEngine) -> AsyncIterator[None]:
        """Let the block, which was decided, go on for as long as the policies permit it.

        Args:
            question: What was asked for it.
            decided_by: What decided it.

        Raises:
            PolicyDenied: A change of policy denies it, before it began or while it ran.
        """
        with self.holds.running(question, None, certain=True, event=OPERATION.revoked) as running:
            try:
                if self.engine is not decided_by:
                    await self.ask(question)
                yield
            except BaseException as error:
                if (denial := running.denial(error)) is not None:
                    raise denial from None
                raise
            await running.finished()

    def hold(self, question: Question, *, session: str | None, event: str, cut: Cut) -> Hold:
        """Register something that goes on after its operation, so that a change of policy can end it.

        Args:
            question: What was asked for it.
            session: Id of the sandbox session.
            event: The event that its cut is recorded as.
            cut: Ends it.

        Returns:
            To be given to ``holds.release`` when it is over.
        """
        return self.holds.add(Hold(question, session, event, cut))

    async def ask(self, question: Question, *, session: str | None = None) -> Decision:
        """Steps 1 to 3 alone, for what others act on: a manifest entry, a tool offered to a model.

        Raises:
            PolicyDenied: The answer is no, whatever the reason.
        """
        about, home = {**self.about(question.verb, session), **question.about}, self.homes.get(session or "", NOWHERE)
        with self.telemetry.operation(f"decide {question.verb}", about, home=home.span) as span:
            return (await self._admit(question, span, session))[1]

    async def ask_all(self, questions: Iterable[Question | Impossible], *, session: str | None = None) -> None:
        """Ask in order and stop at the first no.

        Raises:
            PolicyDenied: The first no.
        """
        for question in questions:
            if not isinstance(question, Impossible):
                await self.ask(question, session=session)
                continue
            denial = await self.refuse(question, session=session)
            if self.mode == "enforce":
                raise denial

    async def refuse(
        self, denied: Impossible, *, session: str | None = None, decision: Decision | None = None
    ) -> PolicyDenied:
        """Record a denial that needs no policy, or one that the policies have given; return the error to raise."""
        about, home = self.about(denied.verb, session), self.homes.get(session or "", NOWHERE)
        with self.telemetry.operation(f"decide {denied.verb}", about, home=home.span) as span:
            errors = (denied.reason,) if decision is None else ()
            return await self._deny(denied, span, session, decision=decision, errors=errors)

    def refuse_now(self, denied: Impossible, *, session: str | None = None) -> None:
        """Record a denial that needs no policy, where nothing can be awaited.

        Raises:
            LedgerError: It cannot be recorded.
        """
        with self.telemetry.operation(f"decide {denied.verb}", self.about(denied.verb, session)) as span:
            span.fail("policy_denied", denied.reason)
            attrs: dict[str, JsonValue] = {"reason": denied.reason}
            entry = self.entry(
                "decision",
                span,
                session,
                action=denied.verb,
                resource=denied.resource or None,
                decision="deny",
                errors=(denied.reason,),
                attrs=attrs,
            )
            begun = time.perf_counter()
            self._decided(span, denied.verb, "deny", self.ledger.append(entry), begun)

    @asynccontextmanager
    async def noted(self, verb: str, *, session: str | None, event: str = "outcome") -> AsyncIterator[Operation]:
        """Record what is not decided itself: starting, stopping, shutting down, deleting.

        ``event`` is recorded when the block succeeds. When it fails, an ``outcome`` is; when it was denied, nothing
        more is, because the decision already stands in the ledger.
        """
        about, home = self.about(verb, session), self.homes.get(session or "", NOWHERE)
        with (
            timed(self.telemetry.metrics, verb) as watch,
            self.telemetry.operation(verb, about, home=home.span) as span,
        ):
            operation = watch.operation = Operation(span, None, session)
            try:
                yield operation
            except PolicyDenied:
                operation.outcome = "denied"
                raise
            except BaseException as error:
                operation.failed(error)
                self._told(span, self.ledger.append(self._noted("outcome", verb, operation)))
                raise
            link_snapshots(self.telemetry, event, operation)
            self._told(span, await self.ledger.record(self._noted(event, verb, operation)))

    async def _admit(
        self, question: Question, span: OperationSpan, session: str | None
    ) -> tuple[Action, Decision, Record]:
        while True:
            engine = self.engine
            admitted = await self._admit_by(engine, question, span, session)
            # The policies may have changed while the record was being written.
            if self.engine is engine:
                return admitted

    async def _admit_by(
        self, engine: PolicyEngine, question: Question, span: OperationSpan, session: str | None
    ) -> tuple[Action, Decision, Record]:
        begun = time.perf_counter()
        # 1. Name it; what has no canonical form is denied.
        # 2. Decide.
        try:
            action, decision = answer(question, engine, self.principal, self.base())
        except CanonicalizationError as error:
            unnamed = Impossible(question.verb, question.asked, error.message)
            raise await self._deny(unnamed, span, session, errors=(error.message,), begun=begun) from None
        span.set(attributes.CEDARBOX_POLICY_ACTION, action.name)
        span.set(attributes.CEDARBOX_POLICY_RESOURCE, shown(action))
        span.set(attributes.CEDARBOX_POLICY_MICROS, decision.micros)
        span.set(attributes.CEDARBOX_POLICY_IDS, decision.policies)
        span.set(attributes.CEDARBOX_POLICY_BUNDLE, decision.bundle)
        if action.resource.type == "Executable":
            span.set(attributes.PROCESS_EXECUTABLE_NAME, action.resource.id)
        summary = shown(action, action.summary)
        if not decision.allowed and self.mode == "enforce":
            denied = Impossible(action.name, shown(action), why(decision))
            raise await self._deny(denied, span, session, decision=decision, summary=summary, begun=begun)
        attrs: dict[str, JsonValue] = {"summary": summary} if summary else {}
        if decision.approval is not None and not question.offered and self.mode == "enforce":
            try:
                attrs["approval"] = await self._claim(engine, question, decision)
            except Unapproved as error:
                denied = Impossible(action.name, shown(action), error.message)
                raise await self._deny(
                    denied,
                    span,
                    session,
                    decision=decision,
                    errors=(error.message,),
                    summary=summary,
                    begun=begun,
                ) from None
        # 3. Record the decision and wait until it is on disk.
        if not decision.allowed:
            attrs |= {"mode": "shadow", "reason": why(decision)}
        verdict = "allow" if decision.allowed else "deny"
        entry = self.entry(
            "decision",
            span,
            session,
            action=action.name,
            resource=shown(action),
            decision=verdict,
            policies=decision.policies,
            errors=decision.errors,
            bundle=decision.bundle,
            attrs=attrs,
        )
        try:
            record = await self.ledger.record(entry)
        except asyncio.CancelledError:
            # The record is written all the same, and nobody shall take it for something that was done.
            unbegun = {"action": action.name, "resource": shown(action), "bundle": decision.bundle}
            with suppress(LedgerError):  # then the decision is not in it either
                self.ledger.note(
                    self.entry("outcome", span, session, **unbegun, outcome="cancelled", attrs={"begun": False})
                )
            raise
        except LedgerError as error:
            span.fail("unrecorded")
            reason = f"the decision cannot be recorded: {error.told}"
            raise PolicyDenied(action.name, shown(action), reason=reason) from error
        self._decided(span, action.name, verdict, record, begun)
        return action, decision, record

    async def _claim(self, engine: PolicyEngine, question: Question, decision: Decision) -> dict[str, JsonValue]:
        approval, bundle = decision.approval, engine.bundle
        assert approval is not None  # noqa: S101 - the caller looked
        if question.call is None or self.approvals is None:
            who = " or ".join(approval.approvers)
            raise Unapproved(f"it needs an approval by {who}, and there is nothing here that could wait for one")
        grant = await asyncio.to_thread(
            self.approvals.claim,
            question.call,
            principal=self.principal,
            bundle=bundle,
            decision=decision,
            approval=approval,
        )
        return {"approver": grant.statement()["approver"], **grant.facts()}

    async def _deny(
        self,
        denied: Impossible,
        span: OperationSpan,
        session: str | None,
        *,
        decision: Decision | None = None,
        errors: tuple[str, ...] = (),
        summary: str = "",
        begun: float | None = None,
    ) -> PolicyDenied:
        reason, seq, begun = denied.reason, None, time.perf_counter() if begun is None else begun
        unrecorded: LedgerError | None = None
        policies = decision.policies if decision is not None else ()
        span.set(attributes.CEDARBOX_POLICY_DECISION, "deny")
        span.fail("policy_denied", reason)
        entry = self.entry(
            "decision",
            span,
            session,
            action=denied.verb,
            resource=denied.resource,
            decision="deny",
            policies=policies,
            errors=errors or (decision.errors if decision is not None else ()),
            bundle=decision.bundle if decision is not None else None,
            attrs={"reason": reason, **({"summary": summary} if summary else {})},
        )
        try:
            record = await self.ledger.record(entry)
            seq = record.seq
            self._decided(span, denied.verb, "deny", record, begun)
        except LedgerError as error:
            # Denied all the same; the reason has to say that the ledger does not show it.
            reason = f"{reason} (and this denial cannot be recorded: {error.told})"
            unrecorded = error
        denial = PolicyDenied(denied.verb, recordable(denied.resource), reason=reason, policies=policies, seq=seq)
        denial.__cause__ = unrecorded
        return denial
