"""What requests are made of: Cedar entities, and what every request carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cedarbox.policy.canonical import Address, Host, ancestors, canonical_path

__all__ = [
    "NAMESPACE",
    "Base",
    "Entity",
    "context_of",
    "domains",
    "host_entity",
    "ip_value",
    "model_endpoint",
    "path_entity",
    "present",
    "target_entity",
]

NAMESPACE = "Sandbox"


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
        return record | present(agent=self.agent, tool=self.tool)


def context_of(base: Base, **rest: Any) -> dict[str, Any]:
    """Return a context: what every request carries, and ``rest``."""
    return {"base": base.to_json(), **rest}


def present(**values: Any) -> dict[str, Any]:
    """Return the values that are not None."""
    return {key: value for key, value in values.items() if value is not None}


def ip_value(address: Address) -> dict[str, Any]:
    """Return an address as a value of Cedar's ``ipaddr``."""
    return {"__extn": {"fn": "ip", "arg": str(address)}}


def domains(host: Host) -> tuple[Entity, ...]:
    """Return every DNS suffix of a host, itself first."""
    labels = host.name.split(".")
    return tuple(Entity("Domain", ".".join(labels[start:])) for start in range(len(labels)))


def host_entity(host: Host) -> Entity:
    """Return a host with its domains as parents."""
    return Entity("Host", host.name, {"fqdn": host.name}, domains(host))


def target_entity(target: Host | Address) -> Entity:
    """Return what a connection is made to: a host with its domains as parents, or an address."""
    if isinstance(target, Host):
        return host_entity(target)
    return Entity("Address", str(target), {"ip": ip_value(target)})


def path_entity(kind: str, path: str) -> Entity:
    """Return a ``HostPath`` or ``GuestPath`` with its ancestors as parents.

    Raises:
        CanonicalizationError: The path has no single canonical form.
    """
    canonical = canonical_path(path)
    return Entity(kind, canonical, {"path": canonical}, tuple(Entity(kind, above) for above in ancestors(canonical)))


def model_endpoint(model: str, host: Host | Address | None) -> Entity:
    """Return where a model is served.

    Args:
        model: The model's name.
        host: Where it is served; None when it runs in this process.
    """
    locality = "in_process" if host is None else "host" if _is_this_host(host) else "remote"
    attrs = {"model": model, "locality": Entity("Locality", locality).ref}
    return Entity("ModelEndpoint", str(host or "in-process"), attrs, domains(host) if isinstance(host, Host) else ())


def _is_this_host(host: Host | Address) -> bool:
    if isinstance(host, Address):
        return host.ip.is_loopback
    return host.name == "localhost" or host.name.endswith(".localhost")  # RFC 6761 §6.3
