"""A set of connections as a Cedar policy, so that a list can be held against policies by Cedar and by a solver."""

from __future__ import annotations

from functools import reduce
from typing import Any, Final

from cedarbox.policy.entities import NAMESPACE
from cedarbox.policy.protocols import KINDS, Kind
from cedarbox.policy.regions import CLASSES, PORTS, PRESENT, Box, Targets, networks

__all__ = ["policy_of"]

Est = dict[str, Any]

_CONTEXT: Final[Est] = {"Var": "context"}
_RESOURCE: Final[Est] = {"Var": "resource"}


def policy_of(box: Box, agent: str) -> Est:
    """Return a permit of exactly the connections of a box, in Cedar's JSON form.

    Args:
        box: The connections, without conditions; its targets are names, each alone or with what is below it, or all
            addresses.
        agent: Id of the agent.

    Raises:
        ValueError: The box is not of that form.
    """
    if box.conditions:
        raise ValueError("a box with conditions is no set of connections")
    body = [_any([*_targets(box.targets)])]
    if box.ports != PORTS:
        body.append(_any([_between(low, high) for low, high in box.ports.parts]))
    if box.kinds != KINDS:
        body.append(_any([_kind(kind) for kind in sorted(box.kinds, key=str)]))
    if box.classes != CLASSES:
        members = [_uid("IpClass", name) for name in sorted(box.classes)]
        body.append({"contains": {"left": {"Set": members}, "right": _attr("ipClass")}})
    if PRESENT - box.ips or -1 not in box.ips:
        body.append(_any(_addresses(box)))
    return {
        "effect": "permit",
        "principal": {"op": "==", "entity": {"type": f"{NAMESPACE}::Agent", "id": agent}},
        "action": {"op": "==", "entity": {"type": f"{NAMESPACE}::Action", "id": "connect"}},
        "resource": {"op": "All"},
        "conditions": [{"kind": "when", "body": part} for part in body],
    }


def _targets(held: Targets) -> list[Est]:
    found: list[Est] = []
    for name, (here, below) in held.rules.items():
        if not name and (here or below):
            raise ValueError("a list of any name is no list")
        if not here and not below:
            if name and any(name.endswith(f".{other}") for other in held.rules if other):
                raise ValueError("a name that is left out below another")
            continue
        host, domain = _uid("Host", name), _uid("Domain", name)
        inside = {"in": {"left": _RESOURCE, "right": domain}}
        itself = {"==": {"left": _RESOURCE, "right": host}}
        if here and below:
            found.append(inside)
        else:
            found.append(itself if here else _both(inside, {"!": {"arg": itself}}))
    if held.addresses:
        found.append({"is": {"left": _RESOURCE, "entity_type": f"{NAMESPACE}::Address"}})
    return found


def _between(low: int, high: int) -> Est:
    port = _attr("port")
    if low == high:
        return {"==": {"left": port, "right": {"Value": low}}}
    at_least: Est = {">=": {"left": port, "right": {"Value": low}}}
    return _both(at_least, {"<=": {"left": port, "right": {"Value": high}}})


def _kind(kind: Kind) -> Est:
    parts: list[Est] = [{"==": {"left": _attr("proto"), "right": _uid("Proto", kind.proto)}}]
    if kind.hello is None:
        parts.append({"!": {"arg": _has("hello")}})
    else:
        hello: Est = {"==": {"left": _attr("hello"), "right": _uid("Hello", kind.hello)}}
        parts += [_has("hello"), hello]
    parts.append(_has("http") if kind.request else {"!": {"arg": _has("http")}})
    return reduce(_both, parts)


def _addresses(box: Box) -> list[Est]:
    parts: list[Est] = [{"!": {"arg": _has("ip")}}] if -1 in box.ips else []
    held = networks(box.ips & PRESENT)
    if held:
        inside = [{"isInRange": [_attr("ip"), {"ip": [{"Value": str(network)}]}]} for network in held]
        parts.append(_both(_has("ip"), _any(inside)))
    return parts


def _any(parts: list[Est]) -> Est:
    def either(left: Est, right: Est) -> Est:
        return {"||": {"left": left, "right": right}}

    return reduce(either, parts) if parts else {"Value": False}


def _both(left: Est, right: Est) -> Est:
    return {"&&": {"left": left, "right": right}}


def _attr(name: str) -> Est:
    return {".": {"left": _CONTEXT, "attr": name}}


def _has(name: str) -> Est:
    return {"has": {"left": _CONTEXT, "attr": name}}


def _uid(kind: str, name: str) -> Est:
    return {"Value": {"__entity": {"type": f"{NAMESPACE}::{kind}", "id": name}}}
