"""BoxLite microVMs as sandboxes of the OpenAI Agents SDK. This package runs; it decides and records nothing."""

from __future__ import annotations

from cedarbox.boxlite.client import BoxLiteSandboxClient
from cedarbox.boxlite.environment import SecretEnv
from cedarbox.boxlite.host import check_kvm
from cedarbox.boxlite.image_store import ImageStore
from cedarbox.boxlite.images import LayoutVerifier, VerifiedImage
from cedarbox.boxlite.mounts import Mount
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions
from cedarbox.boxlite.registry import Registry
from cedarbox.boxlite.secrets import EgressSecret
from cedarbox.boxlite.session import BoxLiteSandboxSession
from cedarbox.boxlite.state import BoxLiteSandboxSessionState

__all__ = [
    "BoxLiteSandboxClient",
    "BoxLiteSandboxClientOptions",
    "BoxLiteSandboxSession",
    "BoxLiteSandboxSessionState",
    "EgressSecret",
    "ImageStore",
    "LayoutVerifier",
    "Mount",
    "Registry",
    "SecretEnv",
    "VerifiedImage",
    "check_kvm",
]
