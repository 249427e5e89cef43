"""BoxLite microVMs as sandboxes of the OpenAI Agents SDK. This package runs; it decides and records nothing."""

from __future__ import annotations

from .client import BoxLiteSandboxClient
from .host import check_kvm
from .images import LayoutVerifier, VerifiedImage
from .options import BoxLiteSandboxClientOptions
from .session import BoxLiteSandboxSession
from .state import BoxLiteSandboxSessionState

__all__ = [
    "BoxLiteSandboxClient",
    "BoxLiteSandboxClientOptions",
    "BoxLiteSandboxSession",
    "BoxLiteSandboxSessionState",
    "LayoutVerifier",
    "VerifiedImage",
    "check_kvm",
]
