"""A bundle of any number of policies as a large site may have it: permits of every action, forbids, and their cases."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cedarbox.review.formatting import format_policies

__all__ = ["changed", "write_large"]

_GROUPS: Final = 8

# Two permits of the same action are about hosts, paths or names of their own, as they are in a real bundle.
_TLS: Final = (
    'when { context.proto == Sandbox::Proto::"tls" && context.port == 443 }\n'
    'when { context.ipClass == Sandbox::IpClass::"private" }'
)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of permit: its resource and conditions, and the arguments that it allows and that it does not."""

    action: str
    resource: Callable[[int], str]
    conditions: Callable[[int], str]
    allowed: Callable[[int], str]
    denied: Callable[[int], str]


def _any(_: int) -> str:
    return "resource"


def _none(_: int) -> str:
    return ""


def _is(kind: str, name: str) -> Callable[[int], str]:
    return lambda i: f'resource == Sandbox::{kind}::"{name.format(i)}"'


def _under(kind: str, name: str) -> Callable[[int], str]:
    return lambda i: f'resource in Sandbox::{kind}::"{name.format(i)}"'


def _text(text: str) -> Callable[[int], str]:
    return lambda i: text.replace("<i>", str(i)).replace("<n>", f"10.{i // 250}.{i % 250}")


def _kinds() -> tuple[_Kind, ...]:
    host = _Kind(
        "connect",
        _is("Host", "h{0}.corp.example"),
        _text(_TLS),
        _text("target: h<i>.corp.example, ip: 10.0.0.5, port: 443, proto: tls"),
        _text("target: h<i>.corp.example, ip: 10.0.0.5, port: 8443, proto: tls"),
    )
    domain = _Kind(
        "connect",
        _under("Domain", "d{0}.example"),
        _text(_TLS),
        _text("target: x.d<i>.example, ip: 10.0.0.5, port: 443, proto: tls"),
        _text("target: xd<i>.example, ip: 10.0.0.5, port: 443, proto: tls"),
    )
    like = _Kind(
        "connect",
        lambda _: "resource is Sandbox::Host",
        _text(f'when {{ resource.fqdn like "*.l<i>.example" }}\n{_TLS}'),
        _text("target: x.l<i>.example, ip: 10.0.0.5, port: 443, proto: tls"),
        _text("target: x.l<i>.example, ip: 8.8.8.8, port: 443, proto: tls"),
    )
    block = _Kind(
        "connect",
        lambda _: "resource is Sandbox::Address",
        _text('when { resource.ip.isInRange(ip("<n>.0/24")) && context.port < 9000 }'),
        _text("target: <n>.9, port: 443, proto: tls"),
        _text("target: <n>.9, port: 9000, proto: tls"),
    )
    reading = _Kind(
        "mountRead",
        _under("HostPath", "/srv/d{0}"),
        _text("unless { context.isSymlink }"),
        _text("host_path: /srv/d<i>/a, guest_path: /a, is_symlink: false"),
        _text("host_path: /srv/d<i>/a, guest_path: /a, is_symlink: true"),
    )
    writing = _Kind(
        "mountWrite",
        _under("HostPath", "/srv/w{0}"),
        _text("unless { context.isSymlink }"),
        _text("host_path: /srv/w<i>/a, guest_path: /a, is_symlink: false"),
        _text("host_path: /srv/w<i>x/a, guest_path: /a, is_symlink: false"),
    )
    tool = _Kind(
        "invokeTool",
        _is("Tool", "t{0}"),
        _text('when { resource.kind == Sandbox::ToolKind::"function" }'),
        _text("name: t<i>, kind: function"),
        _text("name: t<i>, kind: hosted_shell"),
    )
    model = _Kind(
        "useModel",
        _is("ModelEndpoint", "m{0}.corp.example"),
        _none,
        _text("model: a, host: m<i>.corp.example"),
        _text("model: a, host: x.m<i>.corp.example"),
    )
    file = _Kind(
        "readFile",
        _under("GuestPath", "/workspace/r{0}"),
        _none,
        _text("path: /workspace/r<i>/a, operation: read"),
        _text("path: /workspace/r<i>x/a, operation: read"),
    )
    change = _Kind(
        "writeFile",
        _under("GuestPath", "/workspace/w{0}"),
        _text('unless { context.operation == Sandbox::FileOperation::"remove" }'),
        _text("path: /workspace/w<i>/a, operation: write"),
        _text("path: /workspace/w<i>/a, operation: remove"),
    )
    create = _Kind(
        "create",
        _under("ImageRepo", "registry.corp.example/i{0}"),
        _text(
            'when { context.isolation == Sandbox::Isolation::"microvm" && context.egress == Sandbox::Egress::"none" }\n'
            "when { resource has digest && context has memoryMib && context.memoryMib <= 4096 }"
        ),
        _text(
            "image: registry.corp.example/i<i>, digest: sha256:2f5e, repository: registry.corp.example/i<i>,"
            " isolation: microvm, egress: none, memory_mib: 4096"
        ),
        _text(
            "image: registry.corp.example/i<i>, digest: sha256:2f5e, repository: registry.corp.example/i<i>,"
            " isolation: microvm, egress: none, memory_mib: 4097"
        ),
    )
    resume = _Kind("resume", create.resource, create.conditions, create.allowed, create.denied)
    secret = _Kind(
        "useSecret",
        _is("Secret", "s{0}"),
        _text('when { context.host in Sandbox::Domain::"h<i>.corp.example" && context.port == 443 }'),
        _text("name: s<i>, host: h<i>.corp.example, port: 443"),
        _text("name: s<i>, host: x<i>.corp.example, port: 443"),
    )
    variable = _Kind(
        "setEnvironment", _is("EnvironmentVariable", "V{0}"), _none, _text("name: V<i>"), _text("name: W<i>")
    )
    account = _Kind(
        "createAccount",
        _is("Account", "u{0}"),
        _text("unless { context.group }"),
        _text("name: u<i>, group: false"),
        _text("name: u<i>, group: true"),
    )
    command = _Kind(
        "exec",
        _any,
        _text('when { context.commandLine like "run-<i> *" && context has user && context.user == "coder" }'),
        _text("command: run-<i> it, user: coder"),
        _text("command: run-<i> it, user: root"),
    )
    terminal = _Kind("openTerminal", command.resource, command.conditions, command.allowed, command.denied)
    resolve = _Kind(
        "resolve",
        _under("Domain", "d{0}.example"),
        _none,
        _text("host: x.d<i>.example"),
        _text("host: xd<i>.example"),
    )
    port = _Kind(
        "exposePort",
        lambda i: f'resource == Sandbox::Port::"{2000 + i}"',
        _text("unless { context.public }"),
        lambda i: f"port: {2000 + i}, public: false",
        lambda i: f"port: {2000 + i}, public: true",
    )
    save = _Kind(
        "snapshot",
        _any,
        _text(
            'when { context.store == Sandbox::SnapshotStore::"sealed" }\n'
            'when { context.base has tool && context.base.tool == "save-<i>" }'
        ),
        _text("session: s1, kind: tar, store: sealed, tool: save-<i>"),
        _text("session: s1, kind: tar, store: local, tool: save-<i>"),
    )
    load = _Kind(
        "restore",
        _is("Snapshot", "snap-{0}"),
        _text('when { context.store == Sandbox::SnapshotStore::"sealed" }'),
        _text("snapshot_id: snap-<i>, kind: tar, store: sealed"),
        _text("snapshot_id: snap-<i>, kind: tar, store: remote"),
    )
    fork = _Kind(
        "fork",
        _is("Snapshot", "snap-{0}"),
        _text("when { context.copies <= 8 }"),
        _text("snapshot_id: snap-<i>, copies: 8"),
        _text("snapshot_id: snap-<i>, copies: 9"),
    )
    # Most of a large bundle is about the network and the tools.
    return (
        host, domain, like, tool, block, reading, host, model, file, tool,
        change, host, writing, create, secret, domain, tool, host, command, resume,
        variable, host, reading, resolve, account, like, tool, port, terminal, file,
        save, host, load, block, tool, fork, model, host, domain, tool,
    )  # fmt: skip


_FORBIDS: Final = """\
@id("never-here")
@reason("the host, its link and metadata services")
@advice("name another host")
forbid (
  principal,
  action == Sandbox::Action::"connect",
  resource
)
when
{
  [Sandbox::IpClass::"metadata",
   Sandbox::IpClass::"loopback",
   Sandbox::IpClass::"link_local"].contains(context.ipClass)
};

@id("no-hosted-tools")
@reason("hosted tools run at a vendor")
@advice("use a function")
forbid (
  principal,
  action == Sandbox::Action::"invokeTool",
  resource
)
unless
{
  [Sandbox::ToolKind::"function",
   Sandbox::ToolKind::"custom"].contains(resource.kind)
};
"""
_PROPERTIES: Final = """\
properties:
  - name: nobody reaches metadata services
    never: anyone connects to ipClass metadata
  - name: no tool runs at a vendor
    never: anyone calls kind not function or custom
  - name: nothing of the host's configuration is mounted
    never: anyone mounts writable not under /srv
"""


def write_large(directory: Path, count: int) -> Path:
    """Write a bundle of ``count`` policies, with two cases for each permit and three properties; return its directory.

    Args:
        directory: Where; made when it is missing.
        count: How many policies, three at least.
    """
    kinds = _kinds()
    texts: list[str] = []
    allowed: dict[str, list[str]] = {}
    denied: dict[str, list[str]] = {}
    for number in range(count - 2):
        kind, group, name = kinds[number % len(kinds)], number % _GROUPS, f"p{number:05}"
        conditions = kind.conditions(number)
        texts.append(
            f'@id("{name}")\n@reason("what {name} is for")\n'
            f'permit (\n  principal in Sandbox::AgentGroup::"g{group}",\n'
            f'  action == Sandbox::Action::"{kind.action}",\n  {kind.resource(number)}\n)'
            f"{chr(10) if conditions else ''}{conditions};\n"
        )
        who = f"principal: a{group}"
        allowed.setdefault(kind.action, []).append(f"    - {{{who}, {kind.allowed(number)}, by: {name}}}\n")
        by = ", by: no-hosted-tools" if kind.action == "invokeTool" else ""
        denied.setdefault(kind.action, []).append(f"    - {{{who}, {kind.denied(number)}{by}}}\n")
    (directory / "tests").mkdir(parents=True)
    (directory / "properties").mkdir()
    (directory / "policies.cedar").write_text(format_policies("\n".join([*texts, _FORBIDS])))
    (directory / "bundle.toml").write_text('name = "large"\nrevision = 1\nschema = 1\n')
    (directory / "entities.json").write_text(json.dumps(_entities(), indent=1))
    (directory / "properties" / "all.yaml").write_text(_PROPERTIES)
    for action, cases in allowed.items():
        table = "".join([f"{action}:\n  allow:\n", *cases, "  deny:\n", *denied[action]])
        (directory / "tests" / f"{action}.yaml").write_text(table)
    return directory


def _entities() -> list[dict[str, object]]:
    site = {"type": "Sandbox::Tenant", "id": "site"}
    found: list[dict[str, object]] = [{"uid": site, "attrs": {}, "parents": []}]
    trust = {"__entity": {"type": "Sandbox::Trust", "id": "untrusted"}}
    for group in range(_GROUPS):
        uid = {"type": "Sandbox::AgentGroup", "id": f"g{group}"}
        agent = {"type": "Sandbox::Agent", "id": f"a{group}"}
        found.append({"uid": uid, "attrs": {}, "parents": []})
        found.append({"uid": agent, "attrs": {"tenant": {"__entity": site}, "trust": trust}, "parents": [uid]})
    return found


def changed(base: Path, to: Path, find: str, put: str) -> Path:
    """Write a copy of a bundle without its cases, in which one text is replaced once; return its directory.

    Args:
        base: The bundle.
        to: Where.
        find: The text; some policy holds it.
        put: What stands there instead.

    Raises:
        ValueError: No policy holds the text.
    """
    to.mkdir()
    found = False
    for path in (each for each in base.iterdir() if each.is_file()):
        text = path.read_text()
        if path.suffix == ".cedar" and not found and find in text:
            text, found = text.replace(find, put, 1), True
        (to / path.name).write_text(text)
    if not found:
        raise ValueError(f"no policy holds {find}")
    return to
