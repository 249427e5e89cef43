"""REMEMBERS: the ledger, its verifier, and the shipper that copies it to a collector."""

from __future__ import annotations

from cedarbox.audit.browse import read_records
from cedarbox.audit.events import EVENTS
from cedarbox.audit.ledger import Ledger
from cedarbox.audit.record import Entry, JsonValue, Record
from cedarbox.audit.verify import Finding, Report, verify_ledger

__all__ = [
    "EVENTS",
    "Entry",
    "Finding",
    "JsonValue",
    "Ledger",
    "Record",
    "Report",
    "read_records",
    "verify_ledger",
]
