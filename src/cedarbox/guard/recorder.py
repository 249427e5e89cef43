"""What the ledger and the spans are told of operations: who asked, in which run, under which policies."""

from __future__ import annotations

import time
from typing import Any

from cedarbox.audit import Entry, Ledger, Record
from cedarbox.guard.entries import Recording, recordable, shown
from cedarbox.guard.identity import called_by, current_caller, current_run
from cedarbox.guard.operation import NOWHERE, Home, Operation
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.actions import Action
from cedarbox.telemetry import attributes
from cedarbox.telemetry.spans import OperationSpan, Telemetry

__all__ = ["Recorder"]


class Recorder:
    """Makes the records of a gate, and puts their numbers on its spans.

    Args:
        engine: Whose bundle stands in records.
        ledger: Remembers.
        telemetry: Shows.
        principal: Id of the agent.
        backend: The ``backend_id`` of the client that is guarded.

    Attributes:
        records: How many records the stream has, as far as is known here.
        homes: Where sessions were made, by id: what is done to one outside of any run belongs there.
    """

    def __init__(
        self, *, engine: PolicyEngine, ledger: Ledger, telemetry: Telemetry, principal: str, backend: str
    ) -> None:
        self.engine, self.ledger, self.telemetry = engine, ledger, telemetry
        self.principal, self.backend = principal, backend
        self.records, self.homes = 0, dict[str, Home]()

    def _outcome(self, action: Action, decision: Decision, operation: Operation, recording: Recording) -> Entry:
        of = operation.decision.seq if operation.decision is not None else None
        return self.entry(
            recording.outcome,
            operation.span,
            operation.session,
            action=action.name,
            resource=shown(action),
            policies=decision.policies,
            bundle=decision.bundle,
            outcome=operation.outcome,
            attrs={"decision_seq": of, **operation.facts},
        )

    def _noted(self, event: str, verb: str, operation: Operation) -> Entry:
        facts = dict(operation.facts)
        return self.entry(event, operation.span, operation.session, action=verb, outcome=operation.outcome, attrs=facts)

    def entry(self, event: str, span: OperationSpan, session: str | None, **fields: Any) -> Entry:
        """Return what is recorded of something: who, in which run, under which policies, and ``fields``."""
        caller, run, home = current_caller(), current_run(), self.homes.get(session or "", NOWHERE)
        fields["bundle"] = fields.get("bundle") or self.engine.bundle.digest
        return Entry(
            event=event,
            session=session,
            run=run.id if run is not None else home.run,
            trace_id=span.trace_id,
            span_id=span.span_id,
            principal=self.principal,
            tool=recordable(caller.tool),
            call_id=recordable(caller.call_id),
            **{name: recordable(value) for name, value in fields.items()},
        )

    def about(self, verb: str, session: str | None) -> dict[str, str]:
        """Return the attributes of the span of an operation."""
        known = {attributes.SANDBOX_OPERATION: verb, attributes.SANDBOX_BACKEND: self.backend}
        home = self.homes.get(session or "", NOWHERE)
        if home.run is not None:
            # Where the run is known by itself, that is what the span says.
            known[attributes.CEDARBOX_RUN_ID] = home.run
        return known | called_by(current_caller()) | ({attributes.SANDBOX_SESSION_ID: session} if session else {})

    def _told(self, span: OperationSpan, record: Record) -> None:
        self.records = max(self.records, record.seq + 1)
        span.set(attributes.CEDARBOX_OUTCOME_SEQ, record.seq)

    def _decided(self, span: OperationSpan, action: str, verdict: str, record: Record, begun: float) -> None:
        self.records = max(self.records, record.seq + 1)
        span.set(attributes.CEDARBOX_POLICY_DECISION, verdict)
        span.set(attributes.CEDARBOX_RECORD_SEQ, record.seq)
        span.set(attributes.AUDIT_RECORD_ID, f"{self.ledger.stream}/{record.seq}")
        self.telemetry.metrics.decided(action, verdict, time.perf_counter() - begun)
