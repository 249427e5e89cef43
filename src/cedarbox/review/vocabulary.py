"""The words for what cedarbox policies speak about: its actions, its resources, what a request carries.

One place for all texts that people read about a policy. What has no word here is told as the Cedar text itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = [
    "ACTIONS",
    "ENUM_WORDS",
    "GROUPS",
    "KINDS",
    "SUBJECTS",
    "TRUTHS",
    "Act",
    "Kind",
]


@dataclass(frozen=True, slots=True)
class Act:
    """What an action is in words: a verb, a link, what it is about, a tail.

    Attributes:
        verb: What the agent does, such as ``connect``.
        anything: The resource when a policy names none, such as ``any host or address``.
        link: Between the two, such as ``to``; may be empty.
        tail: After the resource; may be empty.
    """

    verb: str
    anything: str
    link: str = ""
    tail: str = ""


ACTIONS: Final[Mapping[str, Act]] = {
    "create": Act("make a sandbox", "any image", "from"),
    "resume": Act("take a sandbox up again", "any image", "from"),
    "snapshot": Act("save the workspace", "any sandbox", "of"),
    "restore": Act("fill a sandbox", "any snapshot", "from"),
    "fork": Act("start several sandboxes", "any snapshot", "from"),
    "adopt": Act("restore", "any snapshot", "", "although it was made under another policy bundle"),
    "export": Act("write", "any snapshot", "", "to a file of the host"),
    "resolve": Act("look up", "any name"),
    "connect": Act("connect", "any host or address", "to"),
    "connectAnywhere": Act("have a network without restrictions", "any backend", "with"),
    "exposePort": Act("publish", "any port of the guest"),
    "mountRead": Act("mount read-only", "any path of the host"),
    "mountWrite": Act("mount writable", "any path of the host"),
    "readFile": Act("read", "any path of the guest"),
    "writeFile": Act("write", "any path of the guest"),
    "exec": Act("run", "any command"),
    "openTerminal": Act("open a terminal", "any command", "with"),
    "writeTerminal": Act("type into a terminal", "any sandbox", "of"),
    "setEnvironment": Act("set", "any environment variable"),
    "createAccount": Act("make", "any user or group of the guest"),
    "useCapability": Act("have", "any capability of the SDK"),
    "useSecret": Act("use", "any secret of the host", "", "without seeing it"),
    "invokeTool": Act("use", "any tool"),
    "useModel": Act("send conversations", "any model", "to"),
    "useServerState": Act("have a model server keep or bring in", "anything from its store"),
    "captureContent": Act("put on spans", "content of any kind"),
}
"""Every action of the schema."""

GROUPS: Final[Mapping[str, tuple[str, str]]] = {
    "network": ("Network", "What may be connected to, and what may be reached from outside."),
    "storage": ("Files", "Which paths of the guest and of the host may be read and written."),
    "execution": ("Commands", "What may be run in the guest, and with what."),
    "intelligence": ("Models and tools", "Where conversations go, and which tools a model is offered."),
    "lifecycle": ("Sandboxes and snapshots", "Which sandboxes may be made, and what is kept of them."),
    "disclosure": ("Content on spans", "What traces may hold besides names and numbers."),
}
"""The groups of actions in the order in which they are read: a title, and what it is about."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How entities of a type are called.

    Attributes:
        one: The one with an id, as a format, such as ``{} (this name exactly)``.
        below: One and all that is in it; empty when nothing is in one of its kind but itself.
        under: What is in it, after ``every`` or ``any``; empty where ``below`` says it in one word.
    """

    one: str
    below: str = ""
    under: str = ""


KINDS: Final[Mapping[str, Kind]] = {
    "Agent": Kind("the agent {}"),
    "AgentGroup": Kind("the group {}", "agents in the group {}"),
    "Tenant": Kind("the tenant {}"),
    "Domain": Kind("the domain {} itself", "{}", " name below it"),
    "Host": Kind("{} (this name exactly)"),
    "Address": Kind("the address {}"),
    "Port": Kind("port {}"),
    "HostPath": Kind("the host's {} itself", "the host's {}", "thing below it"),
    "GuestPath": Kind("the guest's {} itself", "the guest's {}", "thing below it"),
    "ImageRepo": Kind("the repository {}", "images of the repository {}"),
    "Image": Kind("the image {}"),
    "Executable": Kind("the command {}"),
    "Backend": Kind("the backend {}"),
    "Instance": Kind("the sandbox {}"),
    "Snapshot": Kind("the snapshot {}"),
    "EnvironmentVariable": Kind("the variable {}"),
    "Account": Kind("the account {}"),
    "Secret": Kind("the secret {}"),
    "Toolset": Kind("the MCP server {}", "tools of the MCP server {}"),
    "Tool": Kind("the tool {}"),
    "Capability": Kind("the capability {}"),
    "ModelEndpoint": Kind("the model server {}"),
}
"""Types of entities with their words; members of enumerations are told by :data:`ENUM_WORDS` or as they are."""

ENUM_WORDS: Final[Mapping[tuple[str, str], str]] = {
    ("Proto", "tls"): "TLS",
    ("Proto", "http"): "plain HTTP",
    ("Proto", "tcp"): "TCP",
    ("Proto", "udp"): "UDP",
    ("Hello", "named"): "naming the target",
    ("Hello", "unnamed"): "without a name",
    ("Hello", "encrypted"): "with an encrypted name",
    ("IpClass", "link_local"): "link-local",
    ("IpClass", "metadata"): "of a metadata service",
    ("IpClass", "cgnat"): "of carrier-grade NAT",
    ("IpClass", "unresolved"): "one that nobody looked up",
    ("Isolation", "microvm"): "a microVM",
    ("Isolation", "container"): "a container",
    ("Isolation", "none"): "a plain process",
    ("Isolation", "hosted"): "one at a vendor",
    ("Egress", "none"): "none",
    ("Egress", "listed"): "restricted to a list",
    ("Egress", "unrestricted"): "unrestricted",
    ("SnapshotStore", "backend"): "with the backend",
    ("SnapshotStore", "sealed"): "encrypted by cedarbox",
    ("SnapshotStore", "local"): "in clear on this host",
    ("SnapshotStore", "remote"): "on another machine",
    ("SnapshotStore", "unknown"): "somewhere that is not known",
    ("SnapshotKind", "tar"): "an archive of the workspace",
    ("SnapshotKind", "native"): "a disk of the backend",
    ("Locality", "in_process"): "this process",
    ("Locality", "host"): "this host",
    ("Locality", "remote"): "another machine",
    ("FileOperation", "make_directory"): "make a directory",
    ("ServerState", "previous_response"): "the previous response",
    ("ServerState", "prompt_template"): "a prompt template",
    ("ServerState", "stored_response"): "a stored response",
    ("ServerState", "conversation"): "a conversation",
    ("Content", "toolArguments"): "arguments of tools",
    ("Content", "toolResults"): "results of tools",
    ("Content", "commandOutput"): "output of commands",
}
"""Members of enumerations whose name is no word."""

SUBJECTS: Final[Mapping[str, str]] = {
    "context.port": "the port",
    "context.proto": "the protocol",
    "context.ipClass": "the address that would be dialled",
    "context.ip": "the address that would be dialled",
    "context.hello": "the TLS hello",
    "context.http": "a request in plain HTTP",
    "context.http.method": "the method of the request",
    "context.http.path": "the path of the request",
    "context.http.upgrade": "the protocol that the request asks to become",
    "context.isolation": "the sandbox",
    "context.egress": "the network that the backend gives",
    "context.vcpus": "the number of processors",
    "context.memoryMib": "the memory in MiB",
    "context.diskGb": "the disk in GB",
    "context.lifetime": "the lifetime",
    "context.kind": "the kind of snapshot",
    "context.store": "the place where the snapshot is put",
    "context.copies": "the number of sandboxes",
    "context.madeUnder": "the bundle that the snapshot was made under",
    "context.inForce": "the bundle in force",
    "context.destination": "the file that it is written to",
    "context.guestPath": "the path in the guest",
    "context.operation": "the operation",
    "context.user": "the user of the guest",
    "context.commandLine": "the command line",
    "context.host": "the host that the secret is sent to",
    "context.endpoint": "the model server",
    "context.endpoint.model": "the name of the model",
    "context.endpoint.locality": "the place where the model runs",
    "context.base.at": "the time of the request",
    "context.base.backend": "the backend",
    "context.base.agent": "the SDK agent that makes this call",
    "context.base.tool": "the tool that makes this call",
    "resource.digest": "the digest of the image",
    "resource.reference": "the reference of the image",
    "resource.fqdn": "the name of the host",
    "resource.ip": "the address asked for",
    "resource.number": "the port",
    "resource.path": "the path",
    "resource.backend": "the backend of it",
    "resource.name": "the name of the tool",
    "resource.kind": "the kind of tool",
    "resource.model": "the name of the model",
    "resource.locality": "the place where the model runs",
    "principal.tenant": "the tenant of the agent",
    "principal.trust": "the trust in the agent",
    "principal": "the agent",
    "resource": "the resource",
    "action": "the action",
    "context": "the request",
    "context.base": "the request",
}
"""What a condition can be about."""

TRUTHS: Final[Mapping[str, tuple[str, str]]] = {
    "context.isSymlink": ("the path as configured goes through a link", "the path as configured goes through no link"),
    "context.public": ("the port is reachable from other machines", "the port is reachable from this host only"),
    "context.shell": ("a shell of the guest reads the command", "no shell reads the command"),
    "context.group": ("it is a group", "it is a user"),
    "resource.signed": ("a signature of the image was verified", "no signature of the image was verified"),
}
"""Truth values: what is said when it is true, and when it is not."""
