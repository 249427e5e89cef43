"""What can be recorded: the names of the events."""

from __future__ import annotations

from typing import Final

__all__ = ["EVENTS"]

EVENTS: Final = frozenset(
    {
        "approval.granted",
        "approval.rejected",
        "approval.requested",
        "clock.stepped",
        "decision",
        "egress.closed",
        "egress.opened",
        "egress.revoked",
        "key.created",
        "key.rotated",
        "ledger.anchored",
        "ledger.closed",
        "ledger.created",
        "ledger.opened",
        "ledger.recovered",
        "operation.revoked",
        "outcome",
        "policy.loaded",
        "policy.rejected",
        "policy.reloaded",
        "sandbox.created",
        "sandbox.deleted",
        "sandbox.resumed",
        "sandbox.revoked",
        "segment.sealed",
        "shipping.left",
        "snapshot.created",
        "snapshot.deleted",
        "snapshot.exported",
        "snapshot.forked",
        "snapshot.refused",
        "snapshot.restored",
        "stream.closed",
        "stream.opened",
        "stream.recovered",
        "terminal.revoked",
        "tracing.sealed",
    }
)
"""The closed set of events."""
