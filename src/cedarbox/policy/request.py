"""A request to the policies, and the actions that there are. :mod:`cedarbox.policy.actions` makes requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cedarbox.policy.entities import NAMESPACE, Entity

__all__ = ["ACTION_GROUPS", "Action"]

ACTION_GROUPS: Mapping[str, str] = {
    "create": "lifecycle",
    "resume": "lifecycle",
    "snapshot": "lifecycle",
    "restore": "lifecycle",
    "fork": "lifecycle",
    "adopt": "lifecycle",
    "export": "lifecycle",
    "resolve": "network",
    "connect": "network",
    "connectAnywhere": "network",
    "exposePort": "network",
    "mountRead": "storage",
    "mountWrite": "storage",
    "readFile": "storage",
    "writeFile": "storage",
    "exec": "execution",
    "openTerminal": "execution",
    "writeTerminal": "execution",
    "setEnvironment": "execution",
    "createAccount": "execution",
    "useCapability": "execution",
    "useSecret": "execution",
    "invokeTool": "intelligence",
    "useModel": "intelligence",
    "useServerState": "intelligence",
    "captureContent": "disclosure",
}
"""Every action of the schema and the group it is in."""


@dataclass(frozen=True, slots=True)
class Action:
    """One request to the policies.

    Args:
        name: The Cedar action, a key of :data:`ACTION_GROUPS`.
        resource: What it is about.
        context: The rest, in Cedar's JSON form.
        summary: A few words for people, fit for the ledger; holds no content of files, prompts or results.
        others: Entities that the context refers to, so that conditions can look into them.
    """

    name: str
    resource: Entity
    context: Mapping[str, Any]
    summary: str = ""
    others: tuple[Entity, ...] = ()

    @property
    def brought(self) -> list[dict[str, Any]]:
        """The entities that it brings along, in Cedar's JSON form."""
        return [entity.to_json() for entity in (self.resource, *self.others)]

    def asked_by(self, principal: str) -> dict[str, Any]:
        """Return what Cedar is asked, in its JSON form.

        Args:
            principal: Id of the agent that asks.
        """
        return {
            "principal": {"type": f"{NAMESPACE}::Agent", "id": principal},
            "action": {"type": f"{NAMESPACE}::Action", "id": self.name},
            "resource": self.resource.uid,
            "context": dict(self.context),
        }
