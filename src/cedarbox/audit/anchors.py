"""Anchors: notes of a ledger that were saved elsewhere, where whoever changes the ledger cannot change them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cedarbox.audit.claims import Claim
from cedarbox.audit.notes import notes_in, read_note
from cedarbox.errors import LedgerError
from cedarbox.files import open_regular

__all__ = ["read_anchors"]

_ORIGIN: Final = re.compile(r"cedarbox\.local/ledger/([0-9a-f]{16})/([0-9A-Za-z-]+)").fullmatch


def read_anchors(paths: Iterable[Path], ledger: str) -> dict[str, list[Claim]]:
    """Read files of notes.

    The signatures are not looked at: an anchor counts because of where it was kept.

    Args:
        paths: The files; each is a sequence of notes, as checkpoint files are, of other ledgers too.
        ledger: Id of the ledger.

    Returns:
        What they say, by stream; the index is the stream ``index``.

    Raises:
        LedgerError: A file cannot be read, holds something that is no note, or says nothing about this ledger.
    """
    claims: dict[str, list[Claim]] = {}
    for path in paths:
        found = False
        for number, (data, whole) in enumerate(_notes(path), 1):
            try:
                note = read_note(data if whole else data.rstrip(b"\n") + b"\n")
            except LedgerError as error:
                message = f"{path}: note {number} cannot be used: {error.message}"
                raise LedgerError(message, hint="give notes as they stand in a .checkpoints file") from None
            match = _ORIGIN(note.origin)
            if match is not None and match[1] == ledger:
                found = True
                claims.setdefault(match[2], []).append(Claim(f"the anchor {path.name}", note.size, note.root))
        if not found:
            message = f"{path}: no note in it is of the ledger {ledger}"
            raise LedgerError(message, hint="give the anchors that were saved of this ledger")
    return claims


def _notes(path: Path) -> list[tuple[bytes, bool]]:
    try:
        with open_regular(path, follow=True) as file:
            return list(notes_in(file, os.fstat(file.fileno()).st_size))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its path has a NUL"
        raise LedgerError(f"{path}: the anchor cannot be read: {reason}", hint="check the path") from None
