"""The options of a BoxLite sandbox, checked before a microVM exists.

BoxLite 0.10.8 accepts nonsense when a box is created and says only "The VM failed to start" when it boots (measured),
so every value is checked here, and each bad one gives one line.
"""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import Any, Literal, Self

from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from pydantic import ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator

from cedarbox.boxlite.mounts import Mount, check_mounts
from cedarbox.boxlite.network import EgressMode, check_egress, check_mode, check_ports
from cedarbox.boxlite.secrets import EgressSecret, check_secrets
from cedarbox.errors import ConfigurationError, ImageError

__all__ = ["BoxLiteSandboxClientOptions", "check_root", "checked"]

# The grammar of distribution/reference: [registry[:port]/]path[:tag][@digest].
_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_SYSTEM_DIRECTORIES = frozenset(
    ("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "run", "sbin", "sys", "usr", "var", "tmp")
)
_NO_WORKSPACE_BELOW = frozenset(("dev", "proc", "sys"))
PERSISTENCE = ("auto", "native", "tar")


def _whole_number(name: str, value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigurationError(f"{name}: {value!r} cannot be used", hint=f"give a whole number from {low} to {high}")
    return value


def check_root(value: object) -> str:
    """Check the workspace directory of the guest.

    Args:
        value: An absolute, normal path that is not a directory of the system.

    Returns:
        The path.

    Raises:
        ConfigurationError: The path cannot be a workspace.
    """
    hint = "give an absolute path such as /workspace"
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        raise ConfigurationError(f"workspace_root: {value!r} is not an absolute path", hint=hint)
    parts = PurePosixPath(value).parts[1:]
    if any(ord(char) < 32 or ord(char) == 127 for char in value) or ".." in parts or str(PurePosixPath(value)) != value:
        raise ConfigurationError(f"workspace_root: {value!r} is not a plain path", hint=hint)
    if not parts or parts[0] in _NO_WORKSPACE_BELOW or (len(parts) == 1 and parts[0] in _SYSTEM_DIRECTORIES):
        raise ConfigurationError(f"workspace_root: {value!r} belongs to the system", hint=hint)
    return value


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """Check every field of the options together.

    Args:
        values: The fields by name, as in :class:`BoxLiteSandboxClientOptions`.

    Returns:
        The same fields in canonical form.

    Raises:
        ConfigurationError: A value cannot be used.
        ImageError: Neither or both of ``image`` and ``rootfs`` are given, or one is malformed.
    """
    image, rootfs = values["image"], values["rootfs"]
    if (image is None) == (rootfs is None):
        raise ImageError(
            "a sandbox needs exactly one of image and rootfs",
            hint="image: a reference; rootfs: an OCI layout directory",
        )
    if image is not None and not (isinstance(image, str) and len(image) <= 512 and _REFERENCE.fullmatch(image)):
        raise ImageError(
            f"image: {image!r} is not an image reference", hint="write it like mirror.corp.example/python:3.12-slim"
        )
    if rootfs is not None and (not str(rootfs) or "\0" in str(rootfs)):
        raise ImageError(f"rootfs: {str(rootfs)!r} is not a path", hint="give the directory of an OCI layout")
    boot = values["boot_timeout_s"]
    if isinstance(boot, bool) or not isinstance(boot, int | float) or not (math.isfinite(boot) and 1 <= boot <= 3600):
        raise ConfigurationError(f"boot_timeout_s: {boot!r} cannot be used", hint="give seconds from 1 to 3600")
    if not isinstance(values["auto_remove"], bool):
        raise ConfigurationError(f"auto_remove: {values['auto_remove']!r} is not true or false")
    if values["workspace_persistence"] not in PERSISTENCE:
        raise ConfigurationError(
            f"workspace_persistence: {values['workspace_persistence']!r} cannot be used",
            hint=f"give {', '.join(PERSISTENCE[:-1])} or {PERSISTENCE[-1]}",
        )
    disk = values["disk_size_gb"]
    mode = check_mode(values["egress_mode"])
    egress = check_egress(mode, values["egress_allowlist"])
    check_secrets(values["secrets"], mode=mode, egress=egress, persistence=values["workspace_persistence"])
    root = check_root(values["workspace_root"])
    return {
        **values,
        "rootfs": None if rootfs is None else str(rootfs),
        "cpus": _whole_number("cpus", values["cpus"], 1, 64),
        "memory_mib": _whole_number("memory_mib", values["memory_mib"], 128, 1024 * 1024),
        "disk_size_gb": None if disk is None else _whole_number("disk_size_gb", disk, 1, 4096),
        "workspace_root": root,
        "mounts": check_mounts(values.get("mounts", ()), root=root),
        "egress_mode": mode,
        "egress_allowlist": egress,
        "exposed_ports": check_ports(values["exposed_ports"], mode=mode, egress=egress),
        "boot_timeout_s": float(boot),
    }


class BoxLiteSandboxClientOptions(BaseSandboxClientOptions):
    """Settings of one BoxLite sandbox. Immutable; every value is checked when the object is made.

    Attributes:
        image: An OCI image reference that BoxLite may pull; pin it with ``@sha256:``.
        cpus: Virtual processors, 1 to 64; default 2.
        memory_mib: Memory in MiB, 128 to 1048576; default 1024.
        workspace_root: The workspace directory of the guest; default ``/workspace``.
        egress_allowlist: Narrows what may be reached: host names, ``*.`` and a name for all below it, addresses,
            networks. ``None``, the default, means what the policies permit, and an empty list nothing at all. BoxLite
            cannot express IPv6 for a network card.
        auto_remove: Whether deleting the session removes the microVM's disk; default true.
        boot_timeout_s: Seconds that a boot may take, pulling included, 1 to 3600; default 30.
        rootfs: The directory of a local OCI layout, instead of ``image``. It is verified before every boot.
        disk_size_gb: Size of the root disk in GB, 1 to 4096; ``None`` means BoxLite's default.
        exposed_ports: TCP ports of the guest to bind on 127.0.0.1; needs ``egress_mode="nic"`` and a list.
        workspace_persistence: How a workspace is saved: ``"native"`` as a copy-on-write snapshot of the whole disk that
            stays in the BoxLite home, ``"tar"`` as an archive of the workspace; ``"auto"``, the default, natively
            where that is possible. It is not where the workspace has parts that must not be saved.
        mounts: Directories of the host that the guest is given; none by default. Each is found and checked when the
            options are made.
        egress_mode: ``broker``, the default: the microVM has **no network card**, and its connections go through the
            host, one decision each. ``nic``: it has one, with BoxLite's own allow-list; when that is ``None`` a guard
            has to derive it from the policies, and without a guard the sandbox is refused. ``none``: it reaches
            nothing. A card costs isolation as well: BoxLite 0.10.8 applies its seccomp filter only to microVMs
            without one (measured).
        secrets: Secrets for requests to hosts on the list; the guest sees placeholders.

    Raises:
        ConfigurationError: A value cannot be used.
        ImageError: Neither or both of ``image`` and ``rootfs`` are given, or one is malformed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: Literal["boxlite"] = "boxlite"
    image: str | None = None
    cpus: int = 2
    memory_mib: int = 1024
    workspace_root: str = "/workspace"
    egress_allowlist: tuple[str, ...] | None = None
    auto_remove: bool = True
    boot_timeout_s: float = 30.0
    rootfs: str | None = None
    disk_size_gb: int | None = None
    exposed_ports: tuple[int, ...] = ()
    workspace_persistence: Literal["auto", "native", "tar"] = "auto"
    mounts: tuple[Mount, ...] = ()
    egress_mode: EgressMode = "broker"
    secrets: tuple[EgressSecret, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict):
            defaults = {name: field.default for name, field in cls.model_fields.items()}
            data = {**data, **checked({**defaults, **data})}
        try:
            return handler(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "options"
            raise ConfigurationError(f"{field}: {first['msg']}", hint="see BoxLiteSandboxClientOptions") from None
