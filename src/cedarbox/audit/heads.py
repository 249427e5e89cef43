"""Reading checkpoint files without looking at signatures."""

from __future__ import annotations

from base64 import b64decode

from cedarbox.audit.checkpoint import Checkpoint
from cedarbox.errors import LedgerError

__all__ = ["INDEX", "read_note", "whole_notes"]

INDEX = "index"
"""Id of the index, in the place of the id of a stream."""


def whole_notes(data: bytes) -> list[bytes]:
    """Give the notes at the beginning of a checkpoint file that are whole, each without the empty line after it."""
    notes: list[bytes] = []
    end = 0
    while (middle := data.find(b"\n\n", end)) >= 0 and (last := data.find(b"\n\n", middle + 2)) >= 0:
        notes.append(data[end : last + 1])
        end = last + 2
    return notes


def read_note(note: bytes) -> Checkpoint:
    """Read a note without looking at its signatures.

    Raises:
        LedgerError: It is malformed.
    """
    try:
        head, middle, _ = note.decode().partition("\n\n")
        lines = head.split("\n")
        if not middle or len(lines) != 3 or not note.endswith(b"\n") or not lines[1].isdecimal():
            raise LedgerError("the checkpoint is not a signed note of three lines")
        root = b64decode(lines[2], validate=True)
        if len(root) != 32 or len(lines[1]) > 16:
            raise LedgerError("the checkpoint has no root of 32 bytes")
    except ValueError as error:  # UnicodeDecodeError and binascii.Error are such
        raise LedgerError("the checkpoint is not UTF-8 and base64") from error
    return Checkpoint(lines[0], int(lines[1]), root)
