"""The state of a BoxLite session: all that is needed to find its microVM again, or to make an equal one."""

from __future__ import annotations

from typing import Any, Literal, Self

from agents.sandbox.session.sandbox_session_state import SandboxSessionState
from pydantic import model_validator

from cedarbox.boxlite.options import checked

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
        egress_allowlist: What the guest may reach; empty means no network card.
        auto_remove: Whether deleting the session removes the microVM's disk.
        boot_timeout_s: Seconds that a boot may take.
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
    egress_allowlist: tuple[str, ...]
    auto_remove: bool
    boot_timeout_s: float

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = ("image", "rootfs", "cpus", "memory_mib", "disk_size_gb", "workspace_root", "egress_allowlist")
        checked({name: getattr(self, name) for name in (*names, "auto_remove", "boot_timeout_s", "exposed_ports")})
        return self

    def _sanitize_persisted_provider_identity(self, data: dict[str, Any], *, mount_authority_redacted: bool) -> None:
        if mount_authority_redacted:
            data["box_id"] = ""
            data["workspace_root_ready"] = False
