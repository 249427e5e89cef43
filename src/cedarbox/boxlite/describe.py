"""What a BoxLite sandbox would be given, in the terms that a guard asks about."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cedarbox.boxlite.images import LayoutVerifier, pinned_digest
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import ConfigurationError

__all__ = ["described"]

_DEFAULT_REGISTRY = "docker.io"


def described(source: object, verifier: LayoutVerifier) -> Mapping[str, object]:
    """Return the facts of a sandbox before it exists.

    Args:
        source: Options, or the state of a session.
        verifier: Reads and checks a local layout; its digest is one of the facts.

    Raises:
        ConfigurationError: It is neither options nor a state of BoxLite.
        ImageError: The layout is missing or does not match its digests.
    """
    if not isinstance(source, (BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState)):
        hint = "give BoxLiteSandboxClientOptions"
        raise ConfigurationError(f"{type(source).__name__} does not describe a BoxLite sandbox", hint=hint)
    if source.rootfs is not None:
        digest: str | None = verifier.verify(Path(source.rootfs).expanduser()).digest
        image, repository = str(digest), "local"
    else:
        image = source.image or ""
        digest, repository = pinned_digest(image), _repository(image)
    return {
        "image": image,
        "digest": digest,
        "repository": repository,
        "isolation": "microvm",
        "egress": tuple(source.egress_allowlist or ()),
        "ports": tuple(source.exposed_ports or ()),
        "public_ports": False,
        "vcpus": source.cpus,
        "memory_mib": source.memory_mib,
        "disk_gb": source.disk_size_gb,
    }


def _repository(reference: str) -> str:
    """Return registry and path of a reference, without tag and digest; a bare name is on the default registry."""
    name = reference.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    name = path if colon and "/" not in tag else name
    first = name.partition("/")[0]
    qualified = "/" in name and ("." in first or ":" in first or first == "localhost")
    return name if qualified else f"{_DEFAULT_REGISTRY}/{name if '/' in name else f'library/{name}'}"
