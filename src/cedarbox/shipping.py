"""What of a ledger goes to the collector, and where it is kept how far that came."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cedarbox.audit.otlp import LedgerSource
from cedarbox.audit.otlp_checkpoints import CheckpointSource
from cedarbox.telemetry.spool import SpoolSource

if TYPE_CHECKING:
    from cedarbox.audit.source import Source

__all__ = ["place_of", "sources_of"]


def place_of(ledger: Path) -> Path:
    """Return the place file of a ledger: ``<name of the directory>.shipped.json`` beside it.

    It has the ledger's name, because every ledger has an ``index.jsonl``, and several may lie in one directory.
    """
    return ledger.with_name(f"{ledger.name}.shipped.json")


def sources_of(ledger: Path, spans: Path) -> list[Source]:
    """Return what is sent: records, checkpoints, spans and metrics.

    Args:
        ledger: Directory of the ledger.
        spans: Directory of the spans and metrics.
    """
    return [
        LedgerSource(ledger),
        CheckpointSource(ledger),
        SpoolSource(spans),
        SpoolSource(spans, "metrics"),
    ]
