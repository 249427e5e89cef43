"""A ledger with real time stamps and the notes of a witness, and what the verifier says of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.shipping import Authority
from tests.unit.stamping import StampServer

from cedarbox.audit import Entry, Ledger, Report, verify_ledger
from cedarbox.audit.anchoring import Anchoring, anchors_of
from cedarbox.audit.timestamps import TimestampAnchor
from cedarbox.audit.witness import WitnessAnchor

__all__ = ["SIGNER", "AnchoredLedger", "anchored_ledger"]

SIGNER = "witness.corp.example"
_WITNESS = f"#!/bin/sh\ncat > /dev/null\nprintf '\\342\\200\\224 {SIGNER} QUJDREVGR0g=\\n'\n"


class AnchoredLedger:
    """An open ledger, a time-stamp server, and a witness whose signature is eight bytes that nobody checks.

    Attributes:
        ledger: The ledger.
        stream: Its stream.
        directory: Where it is.
        kept: The directory with what the anchors gave.
        trusted: A copy of the first public key.
    """

    def __init__(self, root: Path, authority: Authority, server: StampServer, ledger: Ledger) -> None:
        self.authority, self.server, self.ledger = authority, server, ledger
        self.stream, self.directory, self.kept = ledger.stream, ledger.directory, anchors_of(ledger.directory)
        self.trusted = root / "trusted.pub"
        shutil.copy(ledger.directory / "ledger.pub", self.trusted)
        command = root / "witness"
        command.write_text(_WITNESS)
        command.chmod(0o755)
        anchors = (
            TimestampAnchor(server.url, ca_file=authority.path, every_s=0.0, timeout_s=60),
            WitnessAnchor((str(command),), every_s=0.0, timeout_s=60),
        )
        self.anchoring = Anchoring(ledger.directory, ledger.stream, anchors, ledger.append)

    @property
    def stamps(self) -> Path:
        """The time stamps of the stream."""
        return self.kept / f"{self.stream}.timestamps"

    @property
    def cosigned(self) -> Path:
        """The notes of the stream that the witness signed."""
        return self.kept / f"{self.stream}.cosigned"

    def anchor(self) -> None:
        """Record something and have it anchored."""
        self.ledger.append(Entry(event="decision", decision="allow"))
        self.ledger.checkpoint()
        self.anchoring._round(last=False)
        self.ledger.checkpoint()
        assert self.anchoring.last_error == ""

    def verify(self, *, ca_file: Path | None = None, stamps: bool = True, jobs: int = 1) -> Report:
        """Verify it with the directory of anchors."""
        authority = (ca_file or self.authority.path) if stamps else None
        return verify_ledger(self.directory, public_key=self.trusted, kept=self.kept, timestamp_ca=authority, jobs=jobs)

    def kinds(self) -> list[tuple[str, str]]:
        """The kind and stream of each finding."""
        return [(finding.kind, finding.stream) for finding in self.verify().findings]


@contextmanager
def anchored_ledger(root: Path) -> Iterator[AnchoredLedger]:
    """Make one; its first note, and that of the index, have been anchored."""
    authority = Authority(root)
    server = StampServer(root, authority)
    try:
        with Ledger.open(root / "ledger") as ledger:
            it = AnchoredLedger(root, authority, server, ledger)
            it.anchor()
            yield it
    finally:
        server.close()
