"""A request that cedarbox itself makes, from the values that a solver gave: by the builders, so that it is one."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host
from cedarbox.policy.entities import NAMESPACE, Base
from cedarbox.review.prove import canonical
from cedarbox.review.prove.bundled import REPOSITORY, SERVER
from cedarbox.review.prove.goals import Environment
from cedarbox.review.prove.models import SolverModel
from cedarbox.review.prove.worlds import attribute_name

__all__ = ["action_of"]

_AT: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# What stands for a part that nothing was asked about.
_BACKEND, _USUAL_HOST, _USUAL_PATH, _USUAL_NAME = "boxlite", "host.example", "/srv/example", "example"
_USUAL_PORT: Final = 443
_OF_CLASS: Final[Mapping[str, str]] = {
    "public": "9.9.9.9",
    "private": "10.0.0.1",
    "loopback": "127.0.0.1",
    "link_local": "169.254.1.1",
    "metadata": "169.254.169.254",
    "cgnat": "100.64.0.1",
    "multicast": "224.0.0.1",
    "reserved": "192.0.2.1",
}


class _Realiser:
    def __init__(self, environment: Environment, model: SolverModel) -> None:
        self._environment, self._model = environment, model
        self._is = environment.resource_type.removeprefix(f"{NAMESPACE}::")
        self.base = self._base()

    def get(self, name: str, default: Any = None) -> Any:
        """Return a part of the context, or a default when nothing was asked about it."""
        known = self._model.known(f"context.{name}")
        return default if known is None else known

    def optional(self, name: str, default: Any) -> Any:
        """Return a part of the context that may be missing; None when it is."""
        return self.get(name, default) if self._model.known(f"context.{name}?") else None

    def resource(self, default: str) -> str:
        """Return the id of the resource."""
        known = self._model.known("resource")
        return default if known is None else str(known)

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the resource."""
        full = attribute_name(self._environment.resource_type, name)
        return self._of(full, self._model.known("resource"), default)

    def _of(self, function: str, entity: str | None, default: Any) -> Any:
        found = [
            self._model.known(name, args)
            for name, args in self._model.functions()
            if name == function and (entity is None or args[0] == entity)
        ]
        return found[0] if found else default

    def _base(self) -> Base:
        at = self.get("base.at")
        moment = _AT if at is None else _EPOCH + timedelta(milliseconds=at)
        return Base(
            moment, self.get("base.backend", _BACKEND), self.optional("base.agent", ""), self.optional("base.tool", "")
        )

    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """Return the address of the context; None when nothing was asked about it."""
        address = self.get("ip.address")
        if address is None and self.get("ip.v4") is None:
            return None
        if self.get("ip.v4"):
            return ipaddress.IPv4Address((address or 0) & 0xFFFFFFFF)
        return ipaddress.IPv6Address(address or 0)

    def connect(self) -> Action:
        """Make the request of a connection."""
        proto, class_ = self.get("proto"), self.get("ipClass")
        hello = self.optional("hello", None)
        if self._model.known("context.hello?") and hello is None:
            hello = "named" if proto == "tls" else "unnamed"
        is_http = bool(self._model.known("context.http?"))
        if proto is None:
            proto = ("tls" if hello == "named" else "tcp") if hello is not None else "http" if is_http else "tcp"
        ip, known = self.ip(), self._model.known("context.ip?")
        if ip is None and class_ in _OF_CLASS and known is not False:
            ip = ipaddress.ip_address(_OF_CLASS[class_])
        if known is False:
            ip = None
        elif known and ip is None:
            ip = ipaddress.ip_address(_OF_CLASS["public"])
        target: Host | Address
        if self._is == "Address":
            target = Address(ip or ipaddress.ip_address(_OF_CLASS["public"]))
            ip = None
        else:
            target = Host(self.resource(_USUAL_HOST))
        return actions.connect(
            self.base,
            target,
            port=self.get("port", _USUAL_PORT),
            proto=proto,
            ip=None if ip is None else Address(ip),
            assumed_class="unresolved" if class_ is None else class_,
            hello=hello,
            method=self.get("http.method", "GET") if is_http else None,
            path=self.get("http.path", "/") if is_http else None,
            upgrade=self.optional("http.upgrade", "websocket") if is_http else None,
        )

    def create(self) -> Action:
        """Make the request of a sandbox."""
        image = self._model.known("resource")
        pinned = self.attribute("digest?", False)
        digest = self.attribute("digest", image if image is not None else _DIGEST) if pinned else None
        lifetime = self.optional("lifetime", 0)
        made = actions.create(
            self.base,
            image=self.attribute("reference", image if image is not None and not pinned else "image.example/app"),
            digest=digest,
            repository=self._of(REPOSITORY, image, "local"),
            isolation=self.get("isolation", "microvm"),
            egress=self.get("egress", "none"),
            vcpus=self.optional("vcpus", 1),
            memory_mib=self.optional("memoryMib", 1024),
            disk_gb=self.optional("diskGb", 1),
            lifetime_s=None if lifetime is None else lifetime // 1000,
            signed=self.attribute("signed", False),
        )
        return actions.resume(made) if self._environment.action_id == "resume" else made

    def file(self) -> Action:
        """Make the request about a file of the guest."""
        usual = "read" if self._environment.action_id == "readFile" else "write"
        return actions.touch_file(
            self.base,
            path=self.resource("/workspace/file"),
            operation=self.get("operation", usual),
            user=self.optional("user", "root"),
        )

    def execute(self) -> Action:
        """Make the request of a command."""
        line, shell = self.get("commandLine"), bool(self.get("shell", False))
        executable = self.resource("sh" if shell else line.split(" ", 1)[0] if line else "true")
        chosen = shell and executable != "sh"
        if shell and not chosen:
            command = [line if line is not None else "true"]
        elif line is None or line == executable:
            command = [executable]
        else:
            command = [executable, line[len(executable) + 1 :]]
        return actions.execute(
            self.base,
            command=command,
            shell=shell,
            user=self.optional("user", "root"),
            summary="",
            terminal=self._environment.action_id == "openTerminal",
            chosen=chosen,
        )

    def tool(self) -> Action:
        """Make the request of a tool."""
        tool = self._model.known("resource")
        server = self._of(SERVER, tool, "server") if self._of(f"{SERVER}?", tool, default=False) else None
        name = self.attribute("name")
        if name is None:
            head, slash, tail = (tool or _USUAL_NAME).rpartition("/")
            name = tail
            server = head if slash and server is None else server
        return actions.invoke_tool(self.base, name=name, kind=self.attribute("kind", "function"), server=server)

    def named_target(self) -> Host | None:
        """Return the name that is looked up; None for any."""
        return Host(self.resource(_USUAL_HOST)) if self._is == "Host" else None

    def served(self, entity: str | None) -> tuple[str, Host | Address | None]:
        """Return the model of an endpoint, and where it is."""
        kind = f"{NAMESPACE}::ModelEndpoint"
        model = self._of(attribute_name(kind, "model"), entity, "model")
        locality = self._of(attribute_name(kind, "locality"), entity, None)
        if locality == "in_process":
            return model, None
        if entity is None:
            return model, Host("localhost" if locality == "host" else _USUAL_HOST)
        ip = canonical.address_of(entity)
        return model, Host(entity) if ip is None else Address(ip)

    def model(self) -> Action:
        """Make the request of a model."""
        model, host = self.served(self._model.known("resource"))
        return actions.use_model(self.base, model=model, host=host)

    def server_state(self) -> Action:
        """Make the request of the state of a server."""
        model, host = self.served(self._model.known("context.endpoint"))
        return actions.use_server_state(self.base, state=self.resource("conversation"), model=model, host=host)

    def port(self) -> Action:
        """Make the request of a port."""
        number = self.attribute("number", _USUAL_PORT)
        return actions.expose_port(self.base, port=number, public=self.get("public", False))


_DIGEST: Final = "sha256:" + "0" * 64


def _store(realiser: _Realiser) -> tuple[Literal["tar", "native"], str]:
    return realiser.get("kind", "tar"), realiser.get("store", "backend")


def _saving(make: Callable[..., Action], name: str) -> Callable[[_Realiser], Action]:
    def made(realiser: _Realiser) -> Action:
        kind, store = _store(realiser)
        return make(realiser.base, **{name: realiser.resource(_USUAL_NAME)}, kind=kind, store=store)

    return made


def _mount(writable: bool) -> Callable[[_Realiser], Action]:
    def made(realiser: _Realiser) -> Action:
        return actions.mount(
            realiser.base,
            host_path=realiser.resource(_USUAL_PATH),
            guest_path=realiser.get("guestPath", "/workspace"),
            writable=writable,
            is_symlink=realiser.get("isSymlink", False),
        )

    return made


_MAKERS: Final[Mapping[str, Callable[[_Realiser], Action]]] = {
    "create": _Realiser.create,
    "resume": _Realiser.create,
    "snapshot": _saving(actions.snapshot, "session"),
    "restore": _saving(actions.restore, "snapshot_id"),
    "fork": lambda it: actions.fork(it.base, snapshot_id=it.resource(_USUAL_NAME), copies=it.get("copies", 1)),
    "adopt": lambda it: actions.adopt(
        it.base,
        snapshot_id=it.resource(_USUAL_NAME),
        made_under=it.get("madeUnder", "unknown"),
        in_force=it.get("inForce", _DIGEST),
    ),
    "export": lambda it: actions.export(
        it.base, snapshot_id=it.resource(_USUAL_NAME), destination=it.get("destination", _USUAL_PATH)
    ),
    "resolve": lambda it: actions.resolve(it.base, it.named_target()),
    "connect": _Realiser.connect,
    "connectAnywhere": lambda it: actions.connect_anywhere(it.base),
    "exposePort": _Realiser.port,
    "mountRead": _mount(writable=False),
    "mountWrite": _mount(writable=True),
    "readFile": _Realiser.file,
    "writeFile": _Realiser.file,
    "exec": _Realiser.execute,
    "openTerminal": _Realiser.execute,
    "writeTerminal": lambda it: actions.write_terminal(it.base, session=it.resource(_USUAL_NAME)),
    "setEnvironment": lambda it: actions.set_environment(it.base, name=it.resource("NAME")),
    "createAccount": lambda it: actions.create_account(
        it.base, name=it.resource(_USUAL_NAME), group=it.get("group", False)
    ),
    "useCapability": lambda it: actions.use_capability(it.base, capability=it.resource("shell")),
    "useSecret": lambda it: actions.use_secret(
        it.base,
        name=it.resource(_USUAL_NAME),
        host=Host(it.get("host", _USUAL_HOST)),
        port=it.get("port", _USUAL_PORT),
    ),
    "invokeTool": _Realiser.tool,
    "useModel": _Realiser.model,
    "useServerState": _Realiser.server_state,
    "captureContent": lambda it: actions.capture_content(it.base, content=it.resource("prompts")),
}


def action_of(environment: Environment, model: SolverModel) -> Action:
    """Return a request that the builders make of the values.

    Args:
        environment: The kind of request.
        model: What the solver gave.

    Raises:
        ValueError: The builders do not make such a request, or a name in it is not canonical.
    """
    try:
        made = _MAKERS[environment.action_id](_Realiser(environment, model))
    except (OverflowError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    uses_host = (made.resource, *made.others)
    for entity in uses_host:
        if entity.type == "Host" and not canonical.is_host(entity.id):
            raise ValueError(f"{entity} is not canonical")
        if entity.type == "ModelEndpoint" and entity.parents and not canonical.is_host(entity.id):
            raise ValueError(f"{entity} is not canonical")
    return made
