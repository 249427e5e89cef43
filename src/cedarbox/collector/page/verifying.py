"""Verification of the ledger on request: in the background, one at a time, its result kept with the time."""

from __future__ import annotations

import inspect
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time_ns
from typing import Any

from cedarbox.audit import Report, verify_ledger
from cedarbox.errors import CedarboxError

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
        anchors: How many checkpoints of the collector it was compared with.
        error: Why it could not be decided; empty when it could.
    """

    possible: bool
    ledger: str = ""
    key: str = ""
    running: bool = False
    begun_ns: int = 0
    ended_ns: int = 0
    report: Report | None = None
    anchors: int = 0
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
        self._ledger, self._key, self._anchors = ledger, public_key, anchors
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
        report, error, used = None, "", 0
        try:
            report, used = self._verified()
        except CedarboxError as reason:
            error = str(reason)
        except Exception as reason:  # noqa: BLE001 - whatever it is, the ledger is not verified, and the page says so
            error = f"the verification ended with {type(reason).__name__}: {reason}"
        with self._lock:
            self._state = replace(
                self._state, running=False, ended_ns=time_ns(), report=report, error=error, anchors=used
            )

    def _verified(self) -> tuple[Report, int]:
        assert self._ledger is not None
        notes = list(self._anchors())
        given: dict[str, Any] = {"public_key": self._key}
        if not notes or "anchors" not in inspect.signature(verify_ledger).parameters:
            return verify_ledger(self._ledger, **given), 0
        with tempfile.TemporaryDirectory(prefix="cedarbox-anchors-") as directory:
            file = Path(directory) / "received.checkpoints"
            file.write_bytes("".join(f"{note.rstrip(chr(10))}\n\n" for note in notes).encode())
            return verify_ledger(self._ledger, anchors=[file], **given), len(notes)
