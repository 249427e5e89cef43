"""Hardened microVM sandboxes for the OpenAI Agents SDK: Cedar decides, a ledger remembers, nothing phones home.

Importing this package seals the tracing of the SDK: from then on no span of this process can reach a vendor. What the
names below need is imported when they are first used, so that a tool that reads a ledger does not load the SDK.
"""

from cedarbox.on_import import watch

# Not from typing, which takes longer than all of this, and until the command line is there Ctrl-C is Python's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cedarbox.audit import Ledger, verify_ledger
    from cedarbox.boxlite import BoxLiteSandboxClient, BoxLiteSandboxClientOptions, Mount, SecretEnv
    from cedarbox.errors import (
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
    from cedarbox.forks import fork
    from cedarbox.guard import SealedSnapshotSpec
    from cedarbox.guard.capabilities import capabilities_for
    from cedarbox.hardened import PolicySandboxClient, harden
    from cedarbox.policy import Decision, PolicyBundle, PolicyEngine
    from cedarbox.settings import Settings

watch()

_HOMES = {
    "BoxLiteSandboxClient": "boxlite",
    "BoxLiteSandboxClientOptions": "boxlite",
    "BundleError": "errors",
    "CanonicalizationError": "errors",
    "CedarboxError": "errors",
    "ConfigurationError": "errors",
    "Decision": "policy",
    "HostError": "errors",
    "ImageError": "errors",
    "Ledger": "audit",
    "LedgerError": "errors",
    "Mount": "boxlite",
    "PolicyBundle": "policy",
    "PolicyDenied": "errors",
    "PolicyEngine": "policy",
    "PolicySandboxClient": "hardened",
    "SealError": "errors",
    "SealedSnapshotSpec": "guard",
    "SecretEnv": "boxlite",
    "Settings": "settings",
    "SnapshotError": "errors",
    "UnsupportedToolError": "errors",
    "capabilities_for": "guard.capabilities",
    "fork": "forks",
    "harden": "hardened",
    "verify_ledger": "audit",
}

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


def __getattr__(name: str) -> "Any":
    from importlib import import_module

    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
