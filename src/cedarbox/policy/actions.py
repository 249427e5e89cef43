"""Typed requests: every privilege that the policies know, built from canonical values.

Each function below makes one :class:`Action`. They take canonical values only and derive from them what policies match
on: the DNS suffixes of a host, the ancestors of a path, the class of an address. Callers never write Cedar by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, ancestors, canonical_path, ip_class

__all__ = [
    "ACTION_GROUPS",
    "NAMESPACE",
    "Action",
    "Base",
    "Entity",
    "connect",
    "connect_anywhere",
    "create",
    "execute",
    "expose_port",
    "invoke_tool",
    "mount",
    "resolve",
    "restore",
    "resume",
    "snapshot",
    "touch_file",
    "use_model",
    "write_terminal",
]

NAMESPACE = "Sandbox"

ACTION_GROUPS: Mapping[str, str] = {
    "create": "lifecycle",
    "resume": "lifecycle",
    "snapshot": "lifecycle",
    "restore": "lifecycle",
    "resolve": "network",
    "connect": "network",
    "connectAnywhere": "network",
    "exposePort": "network",
    "mountRead": "storage",
    "mountWrite": "storage",
    "readFile": "storage",
    "writeFile": "storage",
    "exec": "execution",
    "openTerminal": "execution",
    "writeTerminal": "execution",
    "invokeTool": "intelligence",
    "useModel": "intelligence",
}
"""Every action of the schema and the group it is in."""

_WRITING = frozenset({"write", "create", "remove", "move", "make_directory"})


@dataclass(frozen=True, slots=True)
class Entity:
    """A Cedar entity: its type without the namespace, its id, its attributes and its parents."""

    type: str
    id: str
    attrs: Mapping[str, Any] | None = None
    parents: tuple[Entity, ...] = ()

    @property
    def uid(self) -> dict[str, str]:
        """The uid in Cedar's JSON form."""
        return {"type": f"{NAMESPACE}::{self.type}", "id": self.id}

    @property
    def ref(self) -> dict[str, dict[str, str]]:
        """The reference in Cedar's JSON form, for attributes and contexts."""
        return {"__entity": self.uid}

    def to_json(self) -> dict[str, Any]:
        """Return the entity in Cedar's JSON form."""
        return {"uid": self.uid, "attrs": dict(self.attrs or {}), "parents": [parent.uid for parent in self.parents]}

    def __str__(self) -> str:
        escaped = self.id.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.type}::"{escaped}"'


@dataclass(frozen=True, slots=True)
class Base:
    """What every request carries.

    Args:
        at: The time of the request; aware.
        backend: The ``backend_id`` of the sandbox client.
        agent: Name of the SDK agent whose tool call this is, when it is one.
        tool: Name of the tool whose call this is, when it is one.
    """

    at: datetime
    backend: str
    agent: str | None = None
    tool: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the record in Cedar's JSON form."""
        moment = self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        record: dict[str, Any] = {"at": {"__extn": {"fn": "datetime", "arg": moment}}, "backend": self.backend}
        return record | _present(agent=self.agent, tool=self.tool)


@dataclass(frozen=True, slots=True)
class Action:
    """One request to the policies.

    Args:
        name: The Cedar action, a key of :data:`ACTION_GROUPS`.
        resource: What it is about.
        context: The rest, in Cedar's JSON form.
        summary: A few words for people, fit for the ledger; holds no content of files, prompts or results.
    """

    name: str
    resource: Entity
    context: Mapping[str, Any]
    summary: str = ""


def create(
    base: Base,
    *,
    image: str,
    digest: str | None,
    repository: str,
    isolation: str,
    egress: Literal["none", "listed", "unrestricted"],
    vcpus: int | None = None,
    memory_mib: int | None = None,
    disk_gb: int | None = None,
) -> Action:
    """Make a sandbox.

    Args:
        base: What every request carries.
        image: The reference as configured, or the digest of a local layout.
        digest: ``sha256:…`` of the manifest; None when the reference is not pinned.
        repository: What the image comes from: ``local``, or the registry and path of a reference.
        isolation: A member of ``Sandbox::Isolation``.
        egress: What the backend will let out on its own.
        vcpus: Virtual processors; None when the backend does not say.
        memory_mib: Memory in MiB; None when the backend does not say.
        disk_gb: Disk in GB; None when the backend does not say.
    """
    attrs = {"reference": image} | _present(digest=digest)
    resource = Entity("Image", digest or image, attrs, (Entity("ImageRepo", repository),))
    context = _context(base, isolation=Entity("Isolation", isolation).ref, egress=Entity("Egress", egress).ref)
    context |= _present(vcpus=vcpus, memoryMib=memory_mib, diskGb=disk_gb)
    return Action("create", resource, context, f"{isolation}, egress {egress}")


def resume(created: Action) -> Action:
    """Take up a sandbox from its saved state; asked with the same facts as :func:`create`."""
    return Action("resume", created.resource, created.context, created.summary)


def snapshot(base: Base, *, session: str, kind: Literal["tar", "native"]) -> Action:
    """Save the workspace of a sandbox."""
    resource = Entity("Instance", session, {"backend": base.backend})
    return Action("snapshot", resource, _context(base, kind=Entity("SnapshotKind", kind).ref))


def restore(base: Base, *, snapshot_id: str, kind: Literal["tar", "native"]) -> Action:
    """Fill a sandbox from a saved workspace."""
    resource = Entity("Snapshot", snapshot_id, {"backend": base.backend})
    return Action("restore", resource, _context(base, kind=Entity("SnapshotKind", kind).ref))


def resolve(base: Base, host: Host | None) -> Action:
    """Look a name up; None means that any name at all can be looked up."""
    resource = Entity("Domain", ".") if host is None else _host(host)
    return Action("resolve", resource, _context(base))


def connect(
    base: Base,
    target: Host | Address,
    *,
    port: int,
    proto: str,
    ip: Address | None = None,
    assumed_class: str = "unresolved",
) -> Action:
    """Open a connection.

    Args:
        base: What every request carries.
        target: The host or address asked for.
        port: TCP or UDP port, 1 to 65535.
        proto: A member of ``Sandbox::Proto``.
        ip: The address that was resolved, when it was; an address as target is its own.
        assumed_class: The class when nothing was resolved but the backend guarantees one.
    """
    known = target if isinstance(target, Address) else ip
    context = _context(base, port=port, proto=Entity("Proto", proto).ref)
    context["ipClass"] = Entity("IpClass", ip_class(known.ip) if known else assumed_class).ref
    if known is not None:
        context["ip"] = _ip(known)
    resource = _host(target) if isinstance(target, Host) else Entity("Address", str(target), {"ip": _ip(target)})
    return Action("connect", resource, context, f"port {port} {proto}")


def connect_anywhere(base: Base) -> Action:
    """Have a network that the backend cannot restrict."""
    return Action("connectAnywhere", Entity("Backend", base.backend), _context(base))


def expose_port(base: Base, *, port: int, public: bool) -> Action:
    """Publish a port of the guest; ``public`` when it is reachable from other machines."""
    return Action("exposePort", Entity("Port", str(port), {"number": port}), _context(base, public=public))


def mount(base: Base, *, host_path: str, guest_path: str, writable: bool, is_symlink: bool) -> Action:
    """Let a directory or file of the host into the guest.

    Args:
        base: What every request carries.
        host_path: The canonical *real* path on the host, symbolic links resolved.
        guest_path: Where it appears in the guest.
        writable: The guest can change it.
        is_symlink: The path as configured went through a symbolic link.
    """
    context = _context(base, guestPath=canonical_path(guest_path), isSymlink=is_symlink)
    return Action("mountWrite" if writable else "mountRead", _path("HostPath", host_path), context)


def touch_file(base: Base, *, path: str, operation: str, user: str | None = None) -> Action:
    """Read or change a path in the guest, from outside the guest.

    Args:
        base: What every request carries.
        path: The canonical absolute path in the guest.
        operation: A member of ``Sandbox::FileOperation``; it decides between ``readFile`` and ``writeFile``.
        user: The guest user it is done as; None for the backend's default.
    """
    context = _context(base, operation=Entity("FileOperation", operation).ref) | _present(user=user)
    return Action("writeFile" if operation in _WRITING else "readFile", _path("GuestPath", path), context, operation)


def execute(
    base: Base, *, command: Sequence[str], shell: bool, user: str | None, summary: str, terminal: bool = False
) -> Action:
    """Run a command in the guest, on a terminal when ``terminal``.

    Args:
        base: What every request carries.
        command: The argument vector, or the text for the shell as its only member.
        shell: The command is text that a shell of the guest reads.
        user: The guest user; None for the backend's default.
        summary: The command line with its secrets taken out, for the ledger.
        terminal: A terminal is opened for it.

    Raises:
        CanonicalizationError: A word holds a NUL or an unpaired surrogate.
    """
    if any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for word in command for char in word):
        raise CanonicalizationError("a command with a NUL, or that is not Unicode, has no single form")
    executable = "sh" if shell else next(iter(command), "")
    context = _context(base, commandLine=" ".join(command), shell=shell) | _present(user=user)
    return Action("openTerminal" if terminal else "exec", Entity("Executable", executable), context, summary)


def write_terminal(base: Base, *, session: str) -> Action:
    """Type into a running process."""
    return Action("writeTerminal", Entity("Instance", session, {"backend": base.backend}), _context(base))


def invoke_tool(base: Base, *, name: str, kind: str) -> Action:
    """Offer a tool to a model, or run it."""
    resource = Entity("Tool", name, {"name": name, "kind": Entity("ToolKind", kind).ref})
    return Action("invokeTool", resource, _context(base), kind)


def use_model(base: Base, *, model: str, host: Host | Address | None) -> Action:
    """Send a conversation to a model.

    Args:
        base: What every request carries.
        model: The model's name.
        host: Where it is served; None when it runs in this process.
    """
    locality = "in_process" if host is None else "host" if _is_this_host(host) else "remote"
    attrs = {"model": model, "locality": Entity("Locality", locality).ref}
    parents = _suffixes(host) if isinstance(host, Host) else ()
    return Action("useModel", Entity("ModelEndpoint", str(host or "in-process"), attrs, parents), _context(base), model)


def _is_this_host(host: Host | Address) -> bool:
    if isinstance(host, Address):
        return host.ip.is_loopback
    return host.name == "localhost" or host.name.endswith(".localhost")  # RFC 6761 §6.3


def _context(base: Base, **rest: Any) -> dict[str, Any]:
    return {"base": base.to_json(), **rest}


def _present(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _ip(address: Address) -> dict[str, Any]:
    return {"__extn": {"fn": "ip", "arg": str(address)}}


def _suffixes(host: Host) -> tuple[Entity, ...]:
    labels = host.name.split(".")
    return tuple(Entity("Domain", ".".join(labels[start:])) for start in range(len(labels)))


def _host(host: Host) -> Entity:
    return Entity("Host", host.name, {"fqdn": host.name}, _suffixes(host))


def _path(kind: str, path: str) -> Entity:
    canonical = canonical_path(path)
    return Entity(kind, canonical, {"path": canonical}, tuple(Entity(kind, above) for above in ancestors(canonical)))
