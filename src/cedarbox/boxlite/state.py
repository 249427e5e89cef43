"""The state of a BoxLite session: all that is needed to find its microVM again, or to make an equal one."""

from __future__ import annotations

from typing import Any, Literal, Self

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import model_validator

from cedarbox.boxlite.environment import check_environment
from cedarbox.boxlite.mounts import Mount, PinnedMount, check_pinned
from cedarbox.boxlite.network import EgressMode, card
from cedarbox.boxlite.options import BoxLiteSandboxClientOptions, checked
from cedarbox.boxlite.secrets import EgressSecret

__all__ = ["BoxLiteSandboxSessionState"]


class BoxLiteSandboxSessionState(SandboxSessionState):
    """What a session resumes from.

    A replacement microVM is made from these fields alone, so everything that matters for security is among them; they
    are checked like the options when the state is read back.

    Attributes:
        box_id: BoxLite's own id of the microVM; empty before the first start.
        image: The image reference, or ``None``.
        rootfs: The directory of the OCI layout, or ``None``.
        image_digest: ``sha256:...`` of the image manifest; ``None`` for an image reference that is not pinned.
        cpus: Virtual processors.
        memory_mib: Memory in MiB.
        disk_size_gb: Size of the root disk in GB, or ``None``.
        workspace_root: The workspace directory of the guest.
        egress_mode: How the guest reaches others: ``broker``, ``nic`` or ``none``.
        egress_allowlist: What it may reach; ``None`` for what the policies permit, which a card cannot have.
        auto_remove: Whether deleting the session removes the microVM's disk.
        boot_timeout_s: Seconds that a boot may take.
        workspace_persistence: How the workspace is saved: ``auto``, ``native`` or ``tar``.
        snapshot_parent: Id of the native snapshot that the microVM was started from; empty when that was the image.
        mounts: Directories of the host that the guest is given, as they were found when the session was made.
        policy_bundle: Digest of the policy bundle in force; empty when nothing guards the session.
        secrets: Secrets for requests to hosts on the list, by reference.
    """

    type: Literal["boxlite"] = "boxlite"
    box_id: str = ""
    image: str | None = None
    rootfs: str | None = None
    image_digest: str | None = None
    cpus: int
    memory_mib: int
    disk_size_gb: int | None = None
    workspace_root: str
    egress_mode: EgressMode
    egress_allowlist: tuple[str, ...] | None
    auto_remove: bool
    boot_timeout_s: float
    workspace_persistence: Literal["auto", "native", "tar"] = "auto"
    snapshot_parent: str = ""
    mounts: tuple[PinnedMount, ...] = ()
    policy_bundle: str = ""
    secrets: tuple[EgressSecret, ...] = ()

    def options(self) -> BoxLiteSandboxClientOptions:
        """Return the options with which an equal session is made."""
        names = set(BoxLiteSandboxClientOptions.model_fields) - {"type", "mounts"}
        mounts = tuple(Mount(mount.host, mount.guest, mount.read_only) for mount in self.mounts)
        return BoxLiteSandboxClientOptions(mounts=mounts, **{name: getattr(self, name) for name in names})

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = ("image", "rootfs", "cpus", "memory_mib", "disk_size_gb", "workspace_root", "egress_allowlist")
        more = ("egress_mode", "secrets", "auto_remove", "boot_timeout_s", "exposed_ports", "workspace_persistence")
        checked({name: getattr(self, name) for name in (*names, *more)})
        # A state says what a microVM was made with; a card that nobody gave a list to cannot have been made.
        card(self.egress_mode, self.egress_allowlist)
        check_pinned(self.mounts, root=self.workspace_root)
        check_environment(self.manifest.environment)
        return self

    def _sanitize_persisted_provider_identity(self, data: dict[str, Any], *, mount_authority_redacted: bool) -> None:
        if mount_authority_redacted:
            data["box_id"] = ""
            data["workspace_root_ready"] = False
