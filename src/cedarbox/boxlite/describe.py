"""What a BoxLite sandbox would be given, in the terms that a guard asks about."""

from __future__ import annotations

from collections.abc import Mapping

from cedarbox.boxlite.image_supply import ImageFacts, ImageSupply
from cedarbox.boxlite.mounts import PinnedMount, pinned
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions
from cedarbox.boxlite.references import parse_reference
from cedarbox.boxlite.remote import check_remote
from cedarbox.boxlite.state import BoxLiteSandboxSessionState
from cedarbox.errors import ConfigurationError

__all__ = ["described"]


def described(source: object, images: ImageSupply, *, native: bool, remote: bool) -> Mapping[str, object]:
    """Return the facts of a sandbox before it exists.

    Args:
        source: Options, or the state of a session.
        images: Finds and verifies the image; its digest is one of the facts.
        native: Whether the client can take native snapshots.
        remote: Whether the sandbox runs on somebody's server. Its isolation is that operator's word then; the network
            that was asked for is sent with its creation.

    Raises:
        ConfigurationError: It is neither options nor a state of BoxLite.
        ImageError: The image is not what it should be.
    """
    if not isinstance(source, (BoxLiteSandboxClientOptions, BoxLiteSandboxSessionState)):
        hint = "give BoxLiteSandboxClientOptions"
        raise ConfigurationError(f"{type(source).__name__} does not describe a BoxLite sandbox", hint=hint)
    known = source.image_digest if isinstance(source, BoxLiteSandboxSessionState) else None
    if remote:
        check_remote(source)
        reference = parse_reference(source.image or "")
        facts = ImageFacts(str(reference), reference.digest, reference.repository)
    else:
        facts = images.facts(image=source.image, rootfs=source.rootfs, digest=known)
    return {
        "image": facts.image,
        "digest": facts.digest,
        "repository": facts.repository,
        "signed": facts.signed,
        "isolation": "hosted" if remote else "microvm",
        "egress": tuple(source.egress_allowlist or ()) if source.egress_mode == "nic" else (),
        "requested": source.egress_allowlist if source.egress_mode == "broker" else None,
        "derive": source.egress_mode == "nic" and source.egress_allowlist is None,
        "secrets": tuple((secret.name, host) for secret in source.secrets for host in secret.hosts)
        if source.egress_mode == "nic"
        else (),
        "ports": tuple(source.exposed_ports or ()),
        "public_ports": False,
        "vcpus": source.cpus,
        "memory_mib": source.memory_mib,
        "disk_gb": source.disk_size_gb,
        "mounts": _mounts(source),
        "snapshots": _snapshots(source.workspace_persistence, native=native),
    }


def _mounts(
    source: BoxLiteSandboxClientOptions | BoxLiteSandboxSessionState,
) -> tuple[tuple[str, str, str, bool], ...]:
    found = (mount if isinstance(mount, PinnedMount) else pinned(mount) for mount in source.mounts)
    return tuple((mount.host, mount.real, mount.guest, not mount.read_only) for mount in found)


def _snapshots(wanted: str, *, native: bool) -> tuple[str, ...]:
    if wanted == "auto":
        return ("native", "tar") if native else ("tar",)
    return (wanted,)
