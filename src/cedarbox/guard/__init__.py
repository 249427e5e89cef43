"""Enforces: the gate, and the wraps that lead every run, model and sandbox session through it."""

from cedarbox.guard.client import GuardedClient
from cedarbox.guard.coverage import check_coverage
from cedarbox.guard.gate import Gate
from cedarbox.guard.model import GuardedModel
from cedarbox.guard.runner import enforce, is_in_force
from cedarbox.guard.sealed import SealedSnapshot, SealedSnapshotSpec
from cedarbox.guard.session import GuardedSession

__all__ = [
    "Gate",
    "GuardedClient",
    "GuardedModel",
    "GuardedSession",
    "SealedSnapshot",
    "SealedSnapshotSpec",
    "check_coverage",
    "enforce",
    "is_in_force",
]
