"""Typed requests: every privilege that the policies know, built from canonical values.

Each function below makes one :class:`Action`. They take canonical values only and derive from them what policies match
on: the DNS suffixes of a host, the ancestors of a path, the class of an address. Callers never write Cedar by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.canonical import Address, Host, canonical_path, canonical_user, ip_class
from cedarbox.policy.entities import (
    Base,
    Entity,
    context_of,
    host_entity,
    ip_value,
    model_endpoint,
    path_entity,
    present,
    target_entity,
)
from cedarbox.policy.request import ACTION_GROUPS, Action
from cedarbox.policy.wire import check_hello, http_request

__all__ = [
    "ACTION_GROUPS",
    "Action",
    "adopt",
    "capture_content",
    "connect",
    "connect_anywhere",
    "create",
    "create_account",
    "execute",
    "export",
    "expose_port",
    "fork",
    "invoke_tool",
    "mount",
    "resolve",
    "restore",
    "resume",
    "set_environment",
    "snapshot",
    "touch_file",
    "use_capability",
    "use_model",
    "use_secret",
    "use_server_state",
    "write_terminal",
]

_WRITING = frozenset({"write", "create", "remove", "move", "make_directory"})


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
    lifetime_s: int | None = None,
    signed: bool = False,
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
        lifetime_s: Seconds after which it is ended whatever it does; None when nothing ends it.
        signed: A signature of the image by a key that the site trusts was verified.
    """
    attrs = {"reference": image, "signed": signed} | present(digest=digest)
    resource = Entity("Image", digest or image, attrs, (Entity("ImageRepo", repository),))
    context = context_of(base, isolation=Entity("Isolation", isolation).ref, egress=Entity("Egress", egress).ref)
    context |= present(vcpus=vcpus, memoryMib=memory_mib, diskGb=disk_gb)
    if lifetime_s is not None:
        context["lifetime"] = {"__extn": {"fn": "duration", "arg": f"{lifetime_s}s"}}
    return Action("create", resource, context, f"{isolation}, egress {egress}")


def resume(created: Action) -> Action:
    """Take up a sandbox from its saved state; asked with the same facts as :func:`create`."""
    return Action("resume", created.resource, created.context, created.summary)


def snapshot(base: Base, *, session: str, kind: Literal["tar", "native"], store: str) -> Action:
    """Save the workspace of a sandbox.

    Args:
        base: What every request carries.
        session: Id of the session.
        kind: An archive of the workspace, or a disk of the backend.
        store: Where it is put, a member of ``Sandbox::SnapshotStore``.
    """
    resource = Entity("Instance", session, {"backend": base.backend})
    return Action("snapshot", resource, _saving(base, kind, store), f"{kind}, {store}")


def restore(base: Base, *, snapshot_id: str, kind: Literal["tar", "native"], store: str) -> Action:
    """Fill a sandbox from a saved workspace; ``kind`` and ``store`` as in :func:`snapshot`."""
    return Action("restore", _snapshot(base, snapshot_id), _saving(base, kind, store), f"{kind}, {store}")


def fork(base: Base, *, snapshot_id: str, copies: int) -> Action:
    """Start several sandboxes from one snapshot."""
    return Action("fork", _snapshot(base, snapshot_id), context_of(base, copies=copies), f"{copies} sandboxes")


def adopt(base: Base, *, snapshot_id: str, made_under: str, in_force: str) -> Action:
    """Restore a snapshot that was made under another policy bundle.

    Args:
        base: What every request carries.
        snapshot_id: Its id.
        made_under: Digest of the bundle under which it was made; ``unknown`` when nobody knows.
        in_force: Digest of the bundle in force.
    """
    context = context_of(base, madeUnder=made_under, inForce=in_force)
    return Action("adopt", _snapshot(base, snapshot_id), context, f"made under {made_under}")


def export(base: Base, *, snapshot_id: str, destination: str) -> Action:
    """Write a snapshot to a file; ``destination`` is the canonical real path on the host."""
    context = context_of(base, destination=canonical_path(destination))
    return Action("export", _snapshot(base, snapshot_id), context, destination)


def _snapshot(base: Base, snapshot_id: str) -> Entity:
    return Entity("Snapshot", snapshot_id, {"backend": base.backend})


def _saving(base: Base, kind: str, store: str) -> dict[str, Any]:
    return context_of(base, kind=Entity("SnapshotKind", kind).ref, store=Entity("SnapshotStore", store).ref)


def resolve(base: Base, host: Host | None) -> Action:
    """Look a name up; None means that any name at all can be looked up."""
    resource = Entity("Domain", ".") if host is None else host_entity(host)
    return Action("resolve", resource, context_of(base))


def connect(
    base: Base,
    target: Host | Address,
    *,
    port: int,
    proto: str,
    ip: Address | None = None,
    assumed_class: str = "unresolved",
    hello: str | None = None,
    method: str | None = None,
    path: str | None = None,
    upgrade: str | None = None,
) -> Action:
    """Open a connection.

    Args:
        base: What every request carries.
        target: The host or address asked for.
        port: TCP or UDP port, 1 to 65535.
        proto: A member of ``Sandbox::Proto``.
        ip: The address that was resolved, when it was; an address as target is its own.
        assumed_class: The class when nothing was resolved but the backend guarantees one.
        hello: A member of ``Sandbox::Hello``; None when it is not TLS, or nobody looked.
        method: Of a request in plain HTTP, in upper case; None for no request.
        path: Of that request, without query.
        upgrade: What that request asks the connection to become, in lower case; None for nothing.

    Raises:
        CanonicalizationError: The request is not in canonical form.
        ValueError: Facts that no connection has together.
    """
    _check_port(port)
    request = http_request(proto, method, path, upgrade)
    check_hello(proto, hello)
    known = target if isinstance(target, Address) else ip
    context = context_of(base, port=port, proto=Entity("Proto", proto).ref)
    context["ipClass"] = Entity("IpClass", ip_class(known.ip) if known else assumed_class).ref
    if known is not None:
        context["ip"] = ip_value(known)
    if hello is not None:
        context["hello"] = Entity("Hello", hello).ref
    if request is not None:
        context["http"] = request
    resource = target_entity(target)
    told = [f"port {port} {proto}", f"to {ip}" if ip is not None and isinstance(target, Host) else ""]
    told += [f"with TLS {hello}" if hello in {"unnamed", "encrypted"} else "", f"{method} {path}" if request else ""]
    told.append(f"to become {upgrade}" if upgrade else "")
    return Action("connect", resource, context, " ".join(filter(None, told)))


def _check_port(port: int) -> None:
    # What reviews prove of ports they prove of these: no other may reach a policy.
    if type(port) is not int or not 1 <= port <= 65535:
        raise CanonicalizationError(f"{str(port)[:80]!r} is not a port from 1 to 65535")


def connect_anywhere(base: Base) -> Action:
    """Have a network that the backend cannot restrict."""
    return Action("connectAnywhere", Entity("Backend", base.backend), context_of(base))


def expose_port(base: Base, *, port: int, public: bool) -> Action:
    """Publish a port of the guest, 1 to 65535; ``public`` when it is reachable from other machines.

    Raises:
        CanonicalizationError: It is no port.
    """
    _check_port(port)
    return Action("exposePort", Entity("Port", str(port), {"number": port}), context_of(base, public=public))


def mount(base: Base, *, host_path: str, guest_path: str, writable: bool, is_symlink: bool) -> Action:
    """Let a directory or file of the host into the guest.

    Args:
        base: What every request carries.
        host_path: The canonical *real* path on the host, symbolic links resolved.
        guest_path: Where it appears in the guest.
        writable: The guest can change it.
        is_symlink: The path as configured went through a symbolic link.
    """
    context = context_of(base, guestPath=canonical_path(guest_path), isSymlink=is_symlink)
    return Action("mountWrite" if writable else "mountRead", path_entity("HostPath", host_path), context)


def touch_file(base: Base, *, path: str, operation: str, user: str | None = None) -> Action:
    """Read or change a path in the guest, from outside the guest.

    Args:
        base: What every request carries.
        path: The canonical absolute path in the guest.
        operation: A member of ``Sandbox::FileOperation``; it decides between ``readFile`` and ``writeFile``.
        user: The guest user it is done as, by name; None for the backend's default.
    """
    context = context_of(base, operation=Entity("FileOperation", operation).ref) | _as_user(user)
    return Action(
        "writeFile" if operation in _WRITING else "readFile", path_entity("GuestPath", path), context, operation
    )


def execute(
    base: Base,
    *,
    command: Sequence[str],
    shell: bool,
    user: str | None,
    summary: str,
    terminal: bool = False,
    chosen: bool = False,
) -> Action:
    """Run a command in the guest, on a terminal when ``terminal``.

    Args:
        base: What every request carries.
        command: The argument vector, or the text for the shell as its only member.
        shell: The command is text that a shell of the guest reads.
        user: The guest user, by name; None for the backend's default.
        summary: The command line with its secrets taken out, for the ledger.
        terminal: A terminal is opened for it.
        chosen: The shell is the first word, and not that of the guest.

    Raises:
        CanonicalizationError: A word holds a NUL or an unpaired surrogate, or the user is not a name.
    """
    if any(char == "\0" or 0xD800 <= ord(char) <= 0xDFFF for word in command for char in word):
        raise CanonicalizationError("a command with a NUL, or that is not Unicode, has no single form")
    executable = "sh" if shell and not chosen else next(iter(command), "")
    context = context_of(base, commandLine=" ".join(command), shell=shell) | _as_user(user)
    return Action("openTerminal" if terminal else "exec", Entity("Executable", executable), context, summary)


def _as_user(user: str | None) -> dict[str, str]:
    return {} if user is None else {"user": canonical_user(user)}


def write_terminal(base: Base, *, session: str) -> Action:
    """Type into a running process."""
    return Action("writeTerminal", Entity("Instance", session, {"backend": base.backend}), context_of(base))


def set_environment(base: Base, *, name: str) -> Action:
    """Give every process of the guest an environment variable; its value is nobody's business here."""
    if not name or any(ord(char) < 0x20 or char == "=" or 0xD800 <= ord(char) <= 0xDFFF for char in name):
        raise CanonicalizationError(f"{name[:80]!r} is not the name of an environment variable")
    return Action("setEnvironment", Entity("EnvironmentVariable", name), context_of(base))


def create_account(base: Base, *, name: str, group: bool) -> Action:
    """Make a user, or a group when ``group``, in the guest."""
    return Action("createAccount", Entity("Account", canonical_user(name)), context_of(base, group=group))


def use_capability(base: Base, *, capability: str) -> Action:
    """Give an agent a capability of the SDK; a member of ``Sandbox::Capability``."""
    return Action("useCapability", Entity("Capability", capability), context_of(base))


def use_secret(base: Base, *, name: str, host: Host, port: int) -> Action:
    """Put a secret of the host into a request to one host and port, 1 to 65535; the guest never has it.

    Raises:
        CanonicalizationError: It is no port.
    """
    _check_port(port)
    target = host_entity(host)
    context = context_of(base, host=target.ref, port=port)
    return Action("useSecret", Entity("Secret", name), context, f"for {host} port {port}", (target,))


def invoke_tool(base: Base, *, name: str, kind: str, server: str | None = None) -> Action:
    """Offer a tool to a model, or run it.

    Args:
        base: What every request carries.
        name: The tool's name, as the model sees it.
        kind: A member of ``Sandbox::ToolKind``.
        server: Name of the MCP server it belongs to, the toolset of its tools; None for others.

    Raises:
        CanonicalizationError: The name has a slash, which is what tells a server and its tool apart.
    """
    if "/" in name:
        raise CanonicalizationError(f"the tool name {name[:80]!r} has a slash")
    toolset = () if server is None else (Entity("Toolset", server),)
    # Two servers may have a tool of one name, and none may pass for a tool of this process.
    identity = name if server is None else f"{server}/{name}"
    resource = Entity("Tool", identity, {"name": name, "kind": Entity("ToolKind", kind).ref}, toolset)
    return Action("invokeTool", resource, context_of(base), kind)


def use_model(base: Base, *, model: str, host: Host | Address | None) -> Action:
    """Send a conversation to a model.

    Args:
        base: What every request carries.
        model: The model's name.
        host: Where it is served; None when it runs in this process.
    """
    return Action("useModel", model_endpoint(model, host), context_of(base), model)


def use_server_state(base: Base, *, state: str, model: str, host: Host | Address | None) -> Action:
    """Let a model server keep a conversation, or bring to it what it has in store.

    Args:
        base: What every request carries.
        state: A member of ``Sandbox::ServerState``.
        model: The model's name.
        host: As in :func:`use_model`.
    """
    endpoint = model_endpoint(model, host)
    context = context_of(base, endpoint=endpoint.ref)
    return Action("useServerState", Entity("ServerState", state), context, f"at {endpoint.id}", (endpoint,))


def capture_content(base: Base, *, content: str) -> Action:
    """Put content of one kind on spans; a member of ``Sandbox::Content``."""
    return Action("captureContent", Entity("Content", content), context_of(base))
