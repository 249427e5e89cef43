"""From a request in Cedar's form back to the arguments that make it.

What is read back is made again by the typed builders and must come out the same. So nothing here can be taken for a
request of cedarbox that is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cedarbox.policy.actions import Action
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.arguments import Value, arguments_of, build

__all__ = ["Given", "Missing", "arguments_from", "plain"]


class Missing(Exception):
    """The request does not say an argument; the message names it."""


@dataclass(frozen=True)
class Given:
    """A request as somebody gives it.

    Attributes:
        action: Its action, without a namespace.
        resource: The id of its resource.
        type: The type of its resource, without a namespace.
        context: In Cedar's JSON form.
        entities: What is known of entities, by type and id, in Cedar's JSON form.
    """

    action: str
    resource: str
    type: str
    context: Mapping[str, Any]
    entities: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    def attr(self, name: str, uid: tuple[str, str] | None = None) -> Any:
        """Return an attribute of the resource, or of another entity."""
        attrs = self.entities.get(uid or (self.type, self.resource), {}).get("attrs", {})
        if name not in attrs:
            raise Missing(name)
        return plain(attrs[name])

    def parent(self, kind: str) -> str | None:
        """Return the id of what the resource is in, of a type."""
        for uid in self.entities.get((self.type, self.resource), {}).get("parents", ()):
            held = plain(uid)
            if isinstance(held, tuple) and held[0] == kind:
                return str(held[1])
        return None

    def of(self, name: str, default: Any = Missing) -> Any:
        """Return an attribute of the context, as :func:`plain` has it."""
        if name not in self.context:
            if default is Missing:
                raise Missing(f"context.{name}")
            return default
        return plain(self.context[name])

    def member(self, name: str, default: Any = Missing) -> Any:
        """Return the id of an entity in the context."""
        held = self.of(name, default)
        return held[1] if isinstance(held, tuple) else held


def plain(value: Any) -> Any:
    """Return a value of Cedar's JSON form so that two that mean the same are equal.

    Entities become a type and an id, extension values a function and a text; times are compared as moments.
    """
    if isinstance(value, Mapping):
        if "__entity" in value or value.keys() == {"type", "id"}:
            uid = value.get("__entity", value)
            return str(uid["type"]).removeprefix(f"{NAMESPACE}::"), str(uid["id"])
        if "__extn" in value or value.keys() == {"fn", "arg"}:
            call = value.get("__extn", value)
            return _Extension(str(call["fn"]), _canonical(str(call["fn"]), str(call["arg"])))
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class _Extension:
    fn: str
    arg: str


def _canonical(fn: str, arg: str) -> str:
    if fn == "datetime":
        try:
            return datetime.fromisoformat(arg).isoformat()
        except ValueError:
            return arg
    if fn == "duration":
        milliseconds = _milliseconds(arg)
        return arg if milliseconds is None else f"{milliseconds}ms"
    return arg


_DURATION: Final = re.compile(r"(-?)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII)


def _milliseconds(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return None
    days, hours, minutes, seconds, rest = (int(part or 0) for part in found.groups()[1:])
    whole = (((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + rest
    return -whole if found[1] else whole


def arguments_from(given: Given) -> tuple[Mapping[str, Value], Action]:
    """Return the arguments of a request, and the request that they make.

    Args:
        given: The request.

    Raises:
        Missing: It does not say an argument.
        CanonicalizationError: It is not in canonical form.
        ValueError: cedarbox makes no such request; the message says what is different.
    """
    base = given.of("base")
    if not isinstance(base, Mapping) or not isinstance(base.get("at"), _Extension):
        raise Missing("context.base.at")
    values: dict[str, Value] = {"at": base["at"].arg}
    values |= {name: base[name] for name in ("backend", "agent", "tool") if name in base}
    values |= _BACK[given.action](given)
    known = arguments_of(given.action)
    for name, value in values.items():
        fits = {"text": str, "number": int, "truth": bool, "words": tuple}[known[name].kind]
        if value is not None and type(value) is not fits:
            raise ValueError(f"{name} is {value!r}, expected {known[name].expected}")
        if known[name].members and value is not None and value not in known[name].members:
            raise ValueError(f"{name} is {value!r}, expected {known[name].expected}")
    made = build(given.action, values)
    _same(given, made)
    return values, made


def _same(given: Given, made: Action) -> None:
    if (made.resource.type, made.resource.id) != (given.type, given.resource):
        raise ValueError(f"its resource would be {made.resource}")
    wanted, got = plain(dict(made.context)), plain(dict(given.context))
    for name in sorted({*wanted, *got}):
        if wanted.get(name) != got.get(name):
            raise ValueError(f"context.{name} would be {_shown(wanted.get(name))}, not {_shown(got.get(name))}")
    declared = given.entities.get((given.type, given.resource))
    if declared is not None:
        attrs = {name: plain(value) for name, value in (made.resource.attrs or {}).items()}
        for name, value in declared.get("attrs", {}).items():
            if attrs.get(name) != plain(value):
                raise ValueError(f"resource.{name} would be {_shown(attrs.get(name))}")


def _shown(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, _Extension):
        return f'{value.fn}("{value.arg}")'
    return f'{value[0]}::"{value[1]}"' if isinstance(value, tuple) else repr(value)


def _create(given: Given) -> dict[str, Value]:
    digest = given.attr("digest") if "digest" in _attrs(given) else None
    repository = given.parent("ImageRepo")
    if repository is None:
        raise Missing("the repository of the image (its parent)")
    lifetime = given.of("lifetime", None)
    seconds = None if lifetime is None else _milliseconds(lifetime.arg)
    return {
        "image": given.attr("reference"),
        "digest": digest,
        "repository": repository,
        "isolation": given.member("isolation"),
        "egress": given.member("egress"),
        "vcpus": given.of("vcpus", None),
        "memory_mib": given.of("memoryMib", None),
        "disk_gb": given.of("diskGb", None),
        "lifetime_s": None if seconds is None else seconds // 1000,
        "signed": given.attr("signed"),
    }


def _attrs(given: Given) -> Mapping[str, Any]:
    attrs: Mapping[str, Any] = given.entities.get((given.type, given.resource), {}).get("attrs", {})
    return attrs


def _connect(given: Given) -> dict[str, Value]:
    ip, http = given.of("ip", None), given.of("http", {})
    values: dict[str, Value] = {
        "target": given.resource,
        "port": given.of("port"),
        "proto": given.member("proto"),
        "hello": given.member("hello", None),
    }
    values |= {name: http[name] for name in ("method", "path", "upgrade") if name in http}
    if ip is None:
        values["assumed_class"] = given.member("ipClass")
    elif given.type == "Host":
        values["ip"] = ip.arg
    return values


def _tool(given: Given) -> dict[str, Value]:
    server, slash, name = given.resource.rpartition("/")
    return {"name": name, "kind": given.attr("kind")[1], **({"server": server} if slash else {})}


def _model(given: Given) -> dict[str, Value]:
    return {"model": given.attr("model"), "host": None if given.resource == "in-process" else given.resource}


def _state(given: Given) -> dict[str, Value]:
    endpoint = given.of("endpoint")
    host = None if endpoint[1] == "in-process" else endpoint[1]
    return {"state": given.resource, "model": given.attr("model", endpoint), "host": host}


def _command(given: Given) -> dict[str, Value]:
    shell, line = given.of("shell"), given.of("commandLine")
    if shell:
        return {"command": (line,), "shell": True, "user": given.of("user", None)}
    # The words of a command cannot be told apart in its line, and no policy sees more than the line.
    rest = line.removeprefix(given.resource)
    words = (given.resource, *([rest[1:]] if rest else []))
    return {"command": words, "shell": False, "user": given.of("user", None)}


_BACK: Final[Mapping[str, Callable[[Given], dict[str, Value]]]] = {
    "create": _create,
    "resume": _create,
    "snapshot": lambda g: {"session": g.resource, "kind": g.member("kind"), "store": g.member("store")},
    "restore": lambda g: {"snapshot_id": g.resource, "kind": g.member("kind"), "store": g.member("store")},
    "fork": lambda g: {"snapshot_id": g.resource, "copies": g.of("copies")},
    "adopt": lambda g: {"snapshot_id": g.resource, "made_under": g.of("madeUnder"), "in_force": g.of("inForce")},
    "export": lambda g: {"snapshot_id": g.resource, "destination": g.of("destination")},
    "resolve": lambda g: {"host": None if g.resource == "." else g.resource},
    "connect": _connect,
    "connectAnywhere": lambda _: {},
    "exposePort": lambda g: (
        {"port": int(g.resource) if g.resource.isascii() and g.resource.isdecimal() else g.resource}
        | {"public": g.of("public")}
    ),
    "mountRead": lambda g: {"host_path": g.resource, "guest_path": g.of("guestPath"), "is_symlink": g.of("isSymlink")},
    "mountWrite": lambda g: {"host_path": g.resource, "guest_path": g.of("guestPath"), "is_symlink": g.of("isSymlink")},
    "readFile": lambda g: {"path": g.resource, "operation": g.member("operation"), "user": g.of("user", None)},
    "writeFile": lambda g: {"path": g.resource, "operation": g.member("operation"), "user": g.of("user", None)},
    "exec": _command,
    "openTerminal": _command,
    "writeTerminal": lambda g: {"session": g.resource},
    "setEnvironment": lambda g: {"name": g.resource},
    "createAccount": lambda g: {"name": g.resource, "group": g.of("group")},
    "useCapability": lambda g: {"capability": g.resource},
    "useSecret": lambda g: {"name": g.resource, "host": g.member("host"), "port": g.of("port")},
    "invokeTool": _tool,
    "useModel": _model,
    "useServerState": _state,
    "captureContent": lambda g: {"content": g.resource},
}
