"""What the end of a stream says, when all its records are good and nothing that is known about it goes further."""

from __future__ import annotations

from cedarbox.audit.claims import Facts, Finding

__all__ = ["judge_state"]


def judge_state(  # noqa: PLR0911  # one return for each outcome
    stream: str, facts: Facts, size: int, signed: int, *, closed: bool, torn: bool
) -> tuple[list[Finding], list[Finding]]:
    """Compare the end of a stream with what the index says about it.

    Args:
        stream: Id of the stream.
        facts: What the index says.
        size: Number of records.
        signed: Number of records under the last good note.
        closed: Whether the last record is ``ledger.closed``.
        torn: Whether bytes that are no note stand after the last note.

    Returns:
        What is wrong, and what is worth knowing and not wrong.
    """
    end = facts.end
    if size > 1 and not signed:
        # Record 0 is signed before there is a second one.
        return [Finding("checkpoint", stream, 0, None, "the file with the notes is gone or holds none")], []
    if end is None:
        message = f"the stream is open, or its writer died; {size - signed} records come after its last note"
        return [], [Finding("open" if size else "empty", stream, size, None, message)]
    if end.closed:
        if signed < size or not closed:
            message = f"the stream is closed, but its last note has {signed} records"
            return [Finding("unsealed", stream, signed, None, message)], []
        message = "bytes that are no note stand after the last note"
        return [Finding("checkpoint", stream, size, None, message)] if torn else [], []
    if end.state != "ended":
        message = f"the index says since its recovery that the stream is {end.state}"
        return [Finding("deleted" if end.state == "missing" else "unreadable", stream, None, None, message)], []
    if signed < size - end.unsigned:
        return [Finding("checkpoint", stream, signed, None, f"the notes after {signed} records are gone")], []
    message = f"its writer died; the index vouches for its {size} records, of which {signed} are signed"
    return [], [Finding("recovered", stream, signed, None, message)]
