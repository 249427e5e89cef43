"""The arguments of a request, as a test case gives them: those of the typed builders, by name, each of one type.

A case goes through the same builders as the guard, so canonical forms are tested with the policies: a host in capital
letters must be decided like the same host in small ones, and a host without a canonical form must be refused.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import actions
from cedarbox.policy.actions import Action
from cedarbox.policy.canonical import Address, Host, canonical_host
from cedarbox.policy.entities import Base
from cedarbox.policy.schema import enumerations

__all__ = ["AT", "BACKEND", "Argument", "Scalar", "Value", "arguments_of", "build"]

Scalar = str | int | bool | None
Value = Scalar | tuple[str, ...]
Kind = Literal["text", "number", "truth", "words"]

AT: Final = "2026-01-01T12:00:00Z"
"""The time of a request whose case gives none."""
BACKEND: Final = "boxlite"
"""The backend of a request whose case gives none."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a request.

    Attributes:
        name: Its name.
        kind: ``text``, ``number`` (a whole one), ``truth`` (true or false) or ``words`` (a command line).
        nullable: It can be ``null``.
        default: What it is when a case does not give it.
        required: A case must give it; ``default`` means nothing then.
        members: The texts that it can be; empty for any text.
    """

    name: str
    kind: Kind
    nullable: bool
    default: Value
    required: bool
    members: frozenset[str] = frozenset()

    @property
    def expected(self) -> str:
        """What it must be, in words."""
        words = {
            "text": "text",
            "number": "a whole number",
            "truth": "true or false",
            "words": "text or a list of text",
        }
        plain = f"one of {', '.join(sorted(self.members))}" if self.members else words[self.kind]
        return f"{plain}, or null" if self.nullable else plain


@dataclass(frozen=True, slots=True)
class _Builder:
    make: Callable[..., Action]
    fixed: Mapping[str, Any]
    wrap: Callable[[Action], Action] = lambda made: made


def _same(make: Callable[..., Action], **fixed: Any) -> _Builder:
    return _Builder(make, fixed)


_BUILDERS: Final[Mapping[str, _Builder]] = {
    "create": _same(actions.create),
    "resume": _Builder(actions.create, {}, actions.resume),
    "snapshot": _same(actions.snapshot),
    "restore": _same(actions.restore),
    "fork": _same(actions.fork),
    "adopt": _same(actions.adopt),
    "export": _same(actions.export),
    "resolve": _same(actions.resolve),
    "connect": _same(actions.connect),
    "connectAnywhere": _same(actions.connect_anywhere),
    "exposePort": _same(actions.expose_port),
    "mountRead": _same(actions.mount, writable=False),
    "mountWrite": _same(actions.mount, writable=True),
    "readFile": _same(actions.touch_file),
    "writeFile": _same(actions.touch_file),
    "exec": _same(actions.execute, terminal=False, summary=""),
    "openTerminal": _same(actions.execute, terminal=True, summary=""),
    "writeTerminal": _same(actions.write_terminal),
    "setEnvironment": _same(actions.set_environment),
    "createAccount": _same(actions.create_account),
    "useCapability": _same(actions.use_capability),
    "useSecret": _same(actions.use_secret),
    "invokeTool": _same(actions.invoke_tool),
    "useModel": _same(actions.use_model),
    "useServerState": _same(actions.use_server_state),
    "captureContent": _same(actions.capture_content),
}

# What a case can leave out although the builder wants it spelt out.
_LEFT_OUT: Final[Mapping[str, Value]] = {"user": None, "shell": True}
# Closed sets of the schema that the builders take as plain text.
_ENUMS: Final = {
    "isolation": "Isolation",
    "store": "SnapshotStore",
    "proto": "Proto",
    "assumed_class": "IpClass",
    "hello": "Hello",
    "operation": "FileOperation",
    "capability": "Capability",
    "content": "Content",
    "state": "ServerState",
    "kind": "ToolKind",
}
_BASE: Final = (
    Argument("at", "text", nullable=False, default=AT, required=False),
    Argument("backend", "text", nullable=False, default=BACKEND, required=False),
    Argument("agent", "text", nullable=True, default=None, required=False),
    Argument("tool", "text", nullable=True, default=None, required=False),
)


@cache
def arguments_of(action: str) -> Mapping[str, Argument]:
    """Return the arguments of an action by name: those that every request has, then its own.

    Args:
        action: A key of :data:`cedarbox.policy.actions.ACTION_GROUPS`.
    """
    builder = _BUILDERS[action]
    hints = _hints(action)
    parameters = inspect.signature(builder.make).parameters
    own = [
        _argument(name, hints[name], parameter)
        for name, parameter in parameters.items()
        if name != "base" and name not in builder.fixed
    ]
    return {argument.name: argument for argument in (*_BASE, *own)}


def build(action: str, values: Mapping[str, Value]) -> Action:
    """Make the request of a case.

    Args:
        action: The action of its table.
        values: Its arguments, checked against :func:`arguments_of`; what is left out has its default.

    Raises:
        CanonicalizationError: A host, address, path or name has no canonical form; the guard denies such a request.
        ValueError: The time is not one, or the request turns out to be another action's.
    """
    builder = _BUILDERS[action]
    hints = _hints(action)
    given = {name: values.get(name, known.default) for name, known in arguments_of(action).items()}
    about = {known.name: given.pop(known.name) for known in _BASE}
    try:
        at = datetime.fromisoformat(str(about.pop("at")))
    except ValueError:
        raise ValueError("at must be a time such as 2026-01-01T12:00:00Z") from None
    if at.tzinfo is None:
        raise ValueError("at needs a time zone, such as the Z of 2026-01-01T12:00:00Z")
    base = Base(at.astimezone(UTC), **about)  # type: ignore[arg-type]  # checked by name and type before
    converted = {name: _converted(hints[name], name, value) for name, value in given.items()}
    made = builder.wrap(builder.make(base, **builder.fixed, **converted))
    if made.name != action:
        raise ValueError(f"this operation makes it the action {made.name}")
    return made


@cache
def _hints(action: str) -> Mapping[str, Any]:
    # Annotations are texts that have to be evaluated, and a suite makes thousands of requests.
    return get_type_hints(_BUILDERS[action].make)


def _argument(name: str, hint: Any, parameter: inspect.Parameter) -> Argument:
    members = _alternatives(hint)
    nullable = type(None) in members
    plain = [member for member in members if member is not type(None)]
    closed: frozenset[str] = frozenset()
    kind: Kind = "text"
    if get_origin(plain[0]) is Literal:
        closed = frozenset(get_args(plain[0]))
    elif plain == [bool]:
        kind = "truth"
    elif plain == [int]:
        kind = "number"
    elif get_origin(plain[0]) is Sequence:
        kind = "words"
    elif name in _ENUMS:
        closed = enumerations()[_ENUMS[name]]
    required = parameter.default is inspect.Parameter.empty and name not in _LEFT_OUT
    default = _LEFT_OUT.get(name, None if required else parameter.default)
    return Argument(name, kind, nullable, default, required, closed)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in {types.UnionType, Union} else (hint,)


def _converted(hint: Any, name: str, value: Value) -> Any:
    members = _alternatives(hint)
    if value is None or not {Host, Address} & set(members):
        return value
    known = canonical_host(str(value))
    if not isinstance(known, members):
        expected = "a name" if Host in members else "an address"
        raise CanonicalizationError(f"{name} {str(value)[:80]!r} is not {expected}")
    return known
