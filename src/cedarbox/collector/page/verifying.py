"""Verification of the ledger on request: in the background, one at a time, its result kept with the time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time_ns

from cedarbox.audit import Report, verify_ledger
from cedarbox.audit.index_walk import ledger_in
from cedarbox.audit.notes import read_note
from cedarbox.errors import CedarboxError, LedgerError

__all__ = ["Verifier", "Verifying"]


@dataclass(frozen=True, slots=True)
class Verifying:
    """How far it is. Times are nanoseconds since 1970 UTC.

    Attributes:
        possible: The collector was given a ledger.
        ledger: Its directory.
        key: The public key; empty for the one beside the ledger.
        running: One is under way.
        begun_ns: When the last one began.
        ended_ns: When it ended.
        report: What it came to.
        error: Why it could not be decided; empty when it could.
    """

    possible: bool
    ledger: str = ""
    key: str = ""
    running: bool = False
    begun_ns: int = 0
    ended_ns: int = 0
    report: Report | None = None
    error: str = ""


class Verifier:
    """Verifies one ledger.

    Args:
        ledger: Its directory; None when there is none to verify.
        public_key: The key that is trusted; None for the one beside the ledger.
        anchors: Gives the signed notes that the collector received, as texts.
    """

    def __init__(
        self, ledger: Path | None, public_key: Path | None, anchors: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._key, self._anchors = public_key, anchors
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._state = Verifying(ledger is not None, str(ledger or ""), "" if public_key is None else str(public_key))

    @property
    def state(self) -> Verifying:
        """How far it is."""
        with self._lock:
            return self._state

    def start(self) -> bool:
        """Begin; return False when there is nothing to verify, or one is under way."""
        with self._lock:
            if not self._state.possible or self._state.running:
                return False
            self._state = replace(self._state, running=True, begun_ns=time_ns(), ended_ns=0, report=None, error="")
            self._thread = threading.Thread(target=self._run, name="cedarbox-verify", daemon=True)
            self._thread.start()
            return True

    def wait(self, seconds: float | None = None) -> None:
        """Wait until what is under way has ended."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        report, error = None, ""
        try:
            report = self._verified()
        except CedarboxError as reason:
            error = str(reason)
        except Exception as reason:  # noqa: BLE001 - whatever it is, the ledger is not verified, and the page says so
            error = f"the verification ended with {type(reason).__name__}: {reason}"
        with self._lock:
            self._state = replace(self._state, running=False, ended_ns=time_ns(), report=report, error=error)

    def _verified(self) -> Report:
        place = Path(self._state.ledger)
        notes = _of_ledger(self._anchors(), ledger_in(place))
        if not notes:
            return verify_ledger(place, public_key=self._key)
        with tempfile.TemporaryDirectory(prefix="cedarbox-anchors-") as directory:
            file = Path(directory) / "received.checkpoints"
            file.write_bytes(b"".join(note + b"\n" for note in notes))
            return verify_ledger(place, public_key=self._key, anchors=[file])


def _of_ledger(texts: Sequence[str], ledger: str) -> list[bytes]:
    """Return the notes among what was received that are of a ledger; anybody can send what is no note at all."""
    notes = []
    for text in texts:
        note = text.rstrip("\n").encode(errors="replace") + b"\n"
        try:
            origin = read_note(note).origin
        except LedgerError:
            continue
        if origin.split("/")[-2:-1] == [ledger]:
            notes.append(note)
    return notes
