"""The words of a sentence about policies: a verb for every action, and what can be said of its requests.

Each word stands for a Cedar expression, which is what is proved; ``policy prove`` prints it beside the sentence.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.canonical import Address, Host, ancestors, canonical_host, canonical_path
from cedarbox.policy.schema import enumerations
from cedarbox.review.written import quoted

__all__ = ["BARE", "FLAGS", "KEYS", "VERBS", "Key"]

Maker = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Key:
    """Something that can be said of a request with a value.

    Attributes:
        make: Makes the Cedar expression of a value.
        expects: What the value is, in words.
        members: The only values that there are; empty for any.
    """

    make: Maker
    expects: str
    members: frozenset[str] = frozenset()


def _entity(kind: str, form: str) -> Key:
    members = enumerations().get(kind, frozenset())

    def make(value: str) -> str:
        if members and value not in members:
            raise CanonicalizationError(f"{value!r} is none", hint=f"one of {', '.join(sorted(members))}")
        return form.format(f"Sandbox::{kind}::{quoted(value)}")

    expects = f"one of {', '.join(sorted(members))}" if members else "a name"
    return Key(make, expects, members)


def _host(form: str) -> Key:
    return Key(partial(_name_in, "Host", form), "the name of a host")


def _domain(form: str) -> Key:
    return Key(partial(_name_in, "Domain", form), "a domain: itself and every name below it")


def _name_in(kind: str, form: str, value: str) -> str:
    found = canonical_host(value)
    if not isinstance(found, Host):
        raise CanonicalizationError(f"{value!r} is an address", hint="write: address or network")
    return form.format(f"Sandbox::{kind}::{quoted(found.name)}")


def _address() -> Key:
    def make(value: str) -> str:
        found = canonical_host(value)
        if not isinstance(found, Address):
            raise CanonicalizationError(f"{value!r} is a name", hint="write: host or domain")
        return f'(context has ip && context.ip == ip("{found}"))'

    return Key(make, "an address")


def _network() -> Key:
    def make(value: str) -> str:
        try:
            network = ipaddress.ip_network(value)
        except ValueError as error:
            raise CanonicalizationError(str(error), hint="write it like 10.0.0.0/8") from None
        return f'(context has ip && context.ip.isInRange(ip("{network}")))'

    return Key(make, "a network such as 10.0.0.0/8")


def _number(term: str, guard: str = "") -> Key:
    def make(value: str) -> str:
        match = re.fullmatch(r"([0-9]{1,18})(?:-([0-9]{1,18}))?", value, re.ASCII)
        if match is None:
            raise CanonicalizationError(f"{value!r} is no whole number", hint="write 443, or 1-1023 for a range")
        low, high = int(match[1]), int(match[2] or match[1])
        if low > high:
            raise CanonicalizationError(f"{value!r} is no number at all", hint=f"write {high}-{low}")
        told = f"{term} == {low}" if low == high else f"{term} >= {low} && {term} <= {high}"
        return f"({guard}{told})"

    return Key(make, "a whole number, or a range such as 1-1023")


def _path(kind: str, how: str) -> Key:
    def make(value: str) -> str:
        path = canonical_path(value)
        one = f"Sandbox::{kind}::{quoted(path)}"
        if how == "exactly":
            return f"resource == {one}"
        if how == "under":
            return f"resource in {one}"
        # What is mounted, removed or moved above a directory reaches into it.
        above = " || ".join(f"resource == Sandbox::{kind}::{quoted(each)}" for each in ancestors(path))
        if not above:
            return f"resource in {one}"
        if kind == "GuestPath":
            gone = 'Sandbox::FileOperation::"remove", Sandbox::FileOperation::"move"'
            above = f"([{gone}].contains(context.operation) && ({above}))"
        return f"(resource in {one} || {above})"

    return Key(make, "an absolute path")


def _text(form: str) -> Key:
    return Key(lambda value: form.format(quoted(value)), "text")


def _sized() -> dict[str, Key]:
    return {
        "image": _entity("Image", "resource == {}"),
        "repository": _entity("ImageRepo", "resource in {}"),
        "isolation": _entity("Isolation", "context.isolation == {}"),
        "egress": _entity("Egress", "context.egress == {}"),
        "vcpus": _number("context.vcpus", "context has vcpus && "),
        "memoryMib": _number("context.memoryMib", "context has memoryMib && "),
        "diskGb": _number("context.diskGb", "context has diskGb && "),
    }


def _saving() -> dict[str, Key]:
    return {
        "kind": _entity("SnapshotKind", "context.kind == {}"),
        "store": _entity("SnapshotStore", "context.store == {}"),
    }


def _mounting() -> dict[str, Key]:
    return {
        "path": _path("HostPath", "exactly"),
        "under": _path("HostPath", "under"),
        "reaching": _path("HostPath", "reaching"),
        "guestPath": Key(lambda value: f"context.guestPath == {quoted(canonical_path(value))}", "an absolute path"),
    }


def _touching() -> dict[str, Key]:
    return {
        "path": _path("GuestPath", "exactly"),
        "under": _path("GuestPath", "under"),
        "reaching": _path("GuestPath", "reaching"),
        "operation": _entity("FileOperation", "context.operation == {}"),
        "user": _text("(context has user && context.user == {})"),
    }


def _running() -> dict[str, Key]:
    return {
        "command": _entity("Executable", "resource == {}"),
        "user": _text("(context has user && context.user == {})"),
    }


_NAMES: Final = {"host": _host("resource == {}"), "domain": _domain("resource in {}")}

KEYS: Final[Mapping[str, Mapping[str, Key]]] = {
    "create": _sized(),
    "resume": _sized(),
    "snapshot": _saving(),
    "restore": {**_saving(), "snapshot": _entity("Snapshot", "resource == {}")},
    "fork": {"copies": _number("context.copies"), "snapshot": _entity("Snapshot", "resource == {}")},
    "adopt": {"snapshot": _entity("Snapshot", "resource == {}")},
    "export": {"destination": _text("context.destination == {}"), "snapshot": _entity("Snapshot", "resource == {}")},
    "resolve": dict(_NAMES),
    "connect": {
        **_NAMES,
        "address": _address(),
        "network": _network(),
        "port": _number("context.port"),
        "proto": _entity("Proto", "context.proto == {}"),
        "ipClass": _entity("IpClass", "context.ipClass == {}"),
        "hello": _entity("Hello", "(context has hello && context.hello == {})"),
        "method": _text("(context has http && context.http.method == {})"),
    },
    "connectAnywhere": {},
    "exposePort": {"port": _number("resource.number")},
    "mountRead": _mounting(),
    "mountWrite": _mounting(),
    "readFile": _touching(),
    "writeFile": _touching(),
    "exec": _running(),
    "openTerminal": _running(),
    "writeTerminal": {},
    "setEnvironment": {"variable": _entity("EnvironmentVariable", "resource == {}")},
    "createAccount": {"account": _entity("Account", "resource == {}")},
    "useCapability": {"capability": _entity("Capability", "resource == {}")},
    "useSecret": {
        "secret": _entity("Secret", "resource == {}"),
        "host": _host("context.host == {}"),
        "domain": _domain("context.host in {}"),
        "port": _number("context.port"),
    },
    "invokeTool": {
        "tool": _entity("Tool", "resource == {}"),
        "kind": _entity("ToolKind", "resource.kind == {}"),
        "server": _entity("Toolset", "resource in {}"),
    },
    "useModel": {
        "model": _text("resource.model == {}"),
        "locality": _entity("Locality", "resource.locality == {}"),
        "domain": _domain("resource in {}"),
    },
    "useServerState": {"state": _entity("ServerState", "resource == {}")},
    "captureContent": {"content": _entity("Content", "resource == {}")},
}
"""What can be said of the requests of each action with a value."""

FLAGS: Final[Mapping[str, Mapping[str, str]]] = {
    "create": {"signed": "resource.signed", "pinned": "(resource has digest)"},
    "resume": {"signed": "resource.signed", "pinned": "(resource has digest)"},
    "exposePort": {"public": "context.public"},
    "mountRead": {"symlink": "context.isSymlink"},
    "mountWrite": {"symlink": "context.isSymlink"},
    "exec": {"shell": "context.shell"},
    "openTerminal": {"shell": "context.shell"},
    "createAccount": {"group": "context.group"},
}
"""What can be said of them without a value."""

BARE: Final[Mapping[str, str]] = {
    "create": "image",
    "resume": "image",
    "restore": "snapshot",
    "fork": "snapshot",
    "adopt": "snapshot",
    "export": "snapshot",
    "resolve": "host",
    "connect": "host",
    "exposePort": "port",
    "mountRead": "reaching",
    "mountWrite": "reaching",
    "readFile": "reaching",
    "writeFile": "reaching",
    "exec": "command",
    "openTerminal": "command",
    "setEnvironment": "variable",
    "createAccount": "account",
    "useCapability": "capability",
    "useSecret": "secret",
    "invokeTool": "tool",
    "useModel": "model",
    "useServerState": "state",
    "captureContent": "content",
}
"""What a value right behind the verb is."""

_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "create sandbox": ("create",),
    "start sandbox": ("create", "resume"),
    "resume sandbox": ("resume",),
    "save": ("snapshot",),
    "look up": ("resolve",),
    "connect anywhere": ("connectAnywhere",),
    "expose": ("exposePort",),
    "publish": ("exposePort",),
    "mount": ("mountRead", "mountWrite"),
    "mount read-only": ("mountRead",),
    "mount writable": ("mountWrite",),
    "read": ("readFile", "mountRead", "mountWrite"),
    "write": ("writeFile", "mountWrite"),
    "run": ("exec", "openTerminal"),
    "execute": ("exec", "openTerminal"),
    "open terminal": ("openTerminal",),
    "type": ("writeTerminal",),
    "set": ("setEnvironment",),
    "create account": ("createAccount",),
    "use capability": ("useCapability",),
    "use secret": ("useSecret",),
    "call": ("invokeTool",),
    "use tool": ("invokeTool",),
    "use model": ("useModel",),
    "use server state": ("useServerState",),
    "capture": ("captureContent",),
    "do anything": tuple(ACTION_GROUPS),
    **{
        f"do anything in {group}": tuple(a for a, g in ACTION_GROUPS.items() if g == group)
        for group in dict.fromkeys(ACTION_GROUPS.values())
    },
}

VERBS: Final[Mapping[tuple[str, ...], tuple[str, ...]]] = {
    **{(action,): (action,) for action in ACTION_GROUPS},
    **{tuple(words.split()): actions for words, actions in _WORDS.items()},
}
"""The actions of each verb, by its words. A first word may have the ``s`` of the third person."""
