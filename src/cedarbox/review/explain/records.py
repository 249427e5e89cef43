"""The request that a record of the ledger is about, as far as the record holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cedarbox.errors import ConfigurationError
from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.review.arguments import Value, arguments_of
from cedarbox.review.explain.requests import UID, Request, made_request, read_arguments, unescaped

__all__ = ["Facts", "of_record"]


@dataclass(frozen=True)
class Facts:
    """What a record of the ledger holds of a request.

    Attributes:
        number: Its number, for messages.
        action: The Cedar action.
        resource: The resource as it is recorded, such as ``Host::"mirror.corp.example"``.
        summary: The few words of :attr:`cedarbox.policy.actions.Action.summary`.
        time: When, in RFC 3339.
        principal: Id of the agent.
        tool: Name of the tool; None when no tool call led to it.
    """

    number: int
    action: str
    resource: str
    summary: str
    time: str
    principal: str
    tool: str | None = None


_CONNECTION: Final = re.compile(
    r"port (?P<port>\d+) (?P<proto>tcp|udp|tls|http)(?: to (?P<ip>[0-9a-f.:]+))?"
    r"(?: with TLS (?P<hello>unnamed|encrypted))?(?: (?P<method>[^ ]+) (?P<path>/.*?))?(?: to become (?P<upgrade>\S+))?"
)


def of_record(facts: Facts, given: Sequence[str]) -> Request:
    """Return the request that a record is about, as far as the record holds it.

    Args:
        facts: What it holds.
        given: ``name=value`` arguments for what it does not hold.

    Raises:
        ConfigurationError: It does not hold enough, or not a request; the message says what it lacks.
    """
    where = f"record {facts.number}"
    found = UID.fullmatch(facts.resource)
    if facts.action not in ACTION_GROUPS or found is None:
        told = f"{where} holds no request: {facts.action or 'no action'} on {facts.resource[:80] or 'nothing'}"
        raise ConfigurationError(told, hint="choose a record of a decision whose request had a canonical form")
    kind, name = found[1], unescaped(found[2])
    known = arguments_of(facts.action)
    held: dict[str, Value] = {"at": facts.time, "tool": facts.tool}
    held |= _held(facts.action, kind, name, facts.summary)
    added, principal = read_arguments(facts.action, given)
    if principal is not None and principal != facts.principal:
        raise ConfigurationError(f"{where} is about {facts.principal}, not {principal}", hint="leave principal= out")
    for argument, value in added.items():
        if argument in held and held[argument] != value:
            raise ConfigurationError(f"{where} says {argument} is {held[argument]}", hint=f"leave {argument}= out")
    values = {**held, **added}
    lacking = [argument for argument in known if argument not in values]
    needed = [argument for argument in lacking if known[argument].required]
    if needed:
        told = f"{where} does not hold {', '.join(needed)} of {facts.action}"
        raise ConfigurationError(told, hint=f"add {' '.join(f'{argument}=…' for argument in needed)}")
    notes = []
    if lacking:
        taken = ", ".join(f"{argument}={_told(known[argument].default)}" for argument in lacking)
        notes.append(f"{where} does not hold {', '.join(lacking)}; explained with {taken}")
    if added:
        notes.append(f"{', '.join(added)} is what you say, not what {where} holds")
    request = made_request(facts.principal, facts.action, values, tuple(notes))
    if request.made is not None and str(request.made.resource) != facts.resource:
        told = f"{where} is about {facts.resource[:80]}, and these arguments make {request.made.resource}"
        raise ConfigurationError(told, hint="check the arguments that you added")
    return request


def _held(  # noqa: PLR0911, PLR0912  # one return for each action
    action: str, kind: str, name: str, summary: str
) -> dict[str, Value]:
    """Return the arguments that a record holds."""
    match action:
        case "connect":
            found = _CONNECTION.fullmatch(summary)
            if found is None:
                return {"target": name}
            parts = found.groupdict()
            values: dict[str, Value] = {"target": name, "port": int(parts.pop("port"))}
            values |= {part: value for part, value in parts.items() if value is not None}
            # What is not told was not there, but for a hello that names the target.
            values |= dict.fromkeys({"method", "path", "upgrade", "ip"} - values.keys())
            # Of an address that is known the class is too.
            known = kind == "Address" or values["ip"] is not None
            return values | ({"assumed_class": arguments_of(action)["assumed_class"].default} if known else {})
        case "resolve":
            return {"host": None if kind == "Domain" else name}
        case "snapshot" | "restore":
            values = {"session" if action == "snapshot" else "snapshot_id": name}
            saved, comma, store = summary.partition(", ")
            return {**values, "kind": saved, "store": store} if comma else values
        case "fork":
            count = summary.removesuffix(" sandboxes")
            return {"snapshot_id": name, **({"copies": int(count)} if count.isascii() and count.isdecimal() else {})}
        case "adopt":
            return {"snapshot_id": name, "made_under": summary.removeprefix("made under ")}
        case "export":
            return {"snapshot_id": name, "destination": summary}
        case "mountRead" | "mountWrite":
            return {"host_path": name}
        case "readFile" | "writeFile":
            return {"path": name, "operation": summary}
        case "exposePort":
            return {"port": int(name)} if name.isascii() and name.isdecimal() else {}
        case "connectAnywhere":
            return {"backend": name}
        case "writeTerminal":
            return {"session": name}
        case "setEnvironment" | "createAccount":
            return {"name": name}
        case "useCapability":
            return {"capability": name}
        case "captureContent":
            return {"content": name}
        case "invokeTool":
            server, slash, tool = name.rpartition("/")
            return {"name": tool, "kind": summary, "server": server if slash else None}
        case "useSecret":
            found = re.fullmatch(r"for (\S+) port ([0-9]+)", summary)
            return {"name": name} | ({} if found is None else {"host": found[1], "port": int(found[2])})
        case "useModel":
            return {"model": summary, "host": None if name == "in-process" else name}
        case "useServerState":
            at = summary.removeprefix("at ")
            return {"state": name, "host": None if at == "in-process" else at}
        case "create" | "resume":
            isolation, comma, egress = summary.partition(", egress ")
            return {"isolation": isolation, "egress": egress} if comma else {}
    return {}


def _told(value: Value) -> str:
    return " ".join(value) if isinstance(value, tuple) else json.dumps(value) if not isinstance(value, str) else value
