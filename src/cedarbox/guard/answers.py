"""What the SDK is answered about commands, and what a record tells of them."""

from __future__ import annotations

from typing import Final

from agents.sandbox.session.pty_types import PtyExecUpdate

from cedarbox.errors import PolicyDenied
from cedarbox.guard.gate import Operation

__all__ = ["DENIED_EXIT_CODE", "denied_update", "described", "ended"]

DENIED_EXIT_CODE: Final = 126
"""POSIX: a command was found but may not be executed."""


def described(update: PtyExecUpdate, operation: Operation) -> None:
    """Put into a record what a process wrote and, when it ended, how; else its number."""
    operation.set("output_bytes", len(update.output))
    if update.process_id is not None:
        operation.set("process", update.process_id)
    if update.exit_code is not None:
        ended(operation, update.exit_code)


def ended(operation: Operation, exit_code: int) -> None:
    """Put into a record how a command ended; its span is an error when that was not with 0."""
    operation.set("exit_code", exit_code)
    if exit_code:
        operation.span.fail("exit_nonzero")


def denied_update(denial: PolicyDenied, process_id: int | None) -> PtyExecUpdate:
    """Return a denial as the answer to a call about a process, which runs on when it has a number."""
    return PtyExecUpdate(
        process_id=process_id,
        output=f"{denial}\n".encode(),
        exit_code=None if process_id is not None else DENIED_EXIT_CODE,
        original_token_count=None,
    )
