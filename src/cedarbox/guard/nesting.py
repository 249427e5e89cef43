"""A run inside a run: it is under the guard of the run that it is part of, or it is not at all.

A nested run that brought a guard of its own would carry the data of the outer run into a sandbox that the policies of
the outer run know nothing of. So another guard is refused, a stricter one too: which of two is stricter, no one can
tell by looking.
"""

from __future__ import annotations

from cedarbox.audit import Entry
from cedarbox.errors import PolicyDenied
from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_caller, current_run

__all__ = ["refuse_another_guard"]


def refuse_another_guard(outer: Gate, inner: Gate) -> None:
    """Refuse a nested run whose sandbox client is under another guard than the run it is nested in.

    Args:
        outer: The gate of the run that is under way.
        inner: The gate that the nested run would be under.

    Raises:
        PolicyDenied: They differ; the denial is in the ledger of the outer run.
    """
    if inner is outer:
        return
    reason = "a nested run brings the guard of another client; give it the client of the outer run"
    caller, run = current_caller(), current_run()
    entry = Entry(
        event="decision",
        run=run.id if run is not None else None,
        principal=outer.principal,
        tool=caller.tool,
        call_id=caller.call_id,
        action="run nested",
        resource=f'Backend::"{inner.backend}"',
        decision="deny",
        errors=(reason,),
        bundle=outer.engine.bundle.digest,
        attrs={"reason": reason},
    )
    # Nothing is done that would have to wait for the record.
    outer.ledger.append(entry)
    raise PolicyDenied("run nested", f'Backend::"{inner.backend}"', reason=reason)
