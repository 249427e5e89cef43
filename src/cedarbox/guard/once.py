"""Questions that are asked once in a run, as long as the policies stay the same."""

from __future__ import annotations

from cedarbox.guard.gate import Gate
from cedarbox.guard.identity import current_run
from cedarbox.guard.question import Question

__all__ = ["ask_once"]


async def ask_once(gate: Gate, kind: str, name: str, question: Question) -> None:
    """Ask, unless this run was permitted the same under the same bundle.

    Args:
        gate: Decides and records.
        kind: What sort of thing it is; with ``name`` it tells one question from another.
        name: Which one of them.
        question: The request.

    Raises:
        PolicyDenied: The answer is no.
    """
    run, key = current_run(), (gate.engine.bundle.digest, kind, name)
    if run is not None and key in run.offered:
        return
    await gate.ask(question)
    if run is not None:
        run.offered.add(key)
