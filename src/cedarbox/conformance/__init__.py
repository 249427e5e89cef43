"""A black-box test kit for sandbox backends of the Agents SDK.

Any ``BaseSandboxClient`` can be run through it; only the SDK's session and client API is used. ``python -m
cedarbox.conformance --backend unix-local`` runs it from the command line.
"""

from cedarbox.conformance.backend import FEATURES, Backend
from cedarbox.conformance.bench import shared_manifest
from cedarbox.conformance.check import Check
from cedarbox.conformance.checks import all_checks
from cedarbox.conformance.report import Outcome, Report, Result
from cedarbox.conformance.runner import run_conformance

__all__ = [
    "FEATURES",
    "Backend",
    "Check",
    "Outcome",
    "Report",
    "Result",
    "all_checks",
    "run_conformance",
    "shared_manifest",
]
