"""Hardened microVM sandboxes for the OpenAI Agents SDK: Cedar decides, a ledger remembers, nothing phones home.

Importing this package seals the tracing of the SDK: from then on no span of this process can reach a vendor.
"""

from cedarbox.telemetry.tracing import seal

seal()

from cedarbox.audit import Ledger, verify_ledger  # noqa: E402  # the seal comes before anything that could be traced
from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, Mount, SecretEnv  # noqa: E402
from cedarbox.errors import (  # noqa: E402
    BundleError,
    CanonicalizationError,
    CedarboxError,
    ConfigurationError,
    HostError,
    ImageError,
    LedgerError,
    PolicyDenied,
    SealError,
    SnapshotError,
    UnsupportedToolError,
)
from cedarbox.forks import fork  # noqa: E402
from cedarbox.guard import SealedSnapshotSpec  # noqa: E402
from cedarbox.guard.capabilities import capabilities_for  # noqa: E402
from cedarbox.hardened import PolicySandboxClient, harden  # noqa: E402
from cedarbox.policy import Decision, PolicyBundle, PolicyEngine  # noqa: E402
from cedarbox.settings import Settings  # noqa: E402

__all__ = [
    "BoxLiteSandboxClient",
    "BoxLiteSandboxClientOptions",
    "BundleError",
    "CanonicalizationError",
    "CedarboxError",
    "ConfigurationError",
    "Decision",
    "HostError",
    "ImageError",
    "Ledger",
    "LedgerError",
    "Mount",
    "PolicyBundle",
    "PolicyDenied",
    "PolicyEngine",
    "PolicySandboxClient",
    "SealError",
    "SealedSnapshotSpec",
    "SecretEnv",
    "Settings",
    "SnapshotError",
    "UnsupportedToolError",
    "capabilities_for",
    "fork",
    "harden",
    "verify_ledger",
]
