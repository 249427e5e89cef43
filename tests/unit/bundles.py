"""Policy bundles for tests, written to disk and loaded for real."""

from __future__ import annotations

import json
from pathlib import Path

from cedarbox.policy import PolicyBundle, PolicyEngine

__all__ = ["PERMIT_ALL", "SHIPPED", "agents", "engine", "write_bundle"]

SHIPPED = Path(__file__).parents[2] / "policies"

PERMIT_ALL = '@id("all") permit (principal, action, resource);'


def agents(*names: str) -> str:
    """Return an entities.json with these agents, all in the group ``agents``."""
    tenant = {"uid": {"type": "Sandbox::Tenant", "id": "site"}, "attrs": {}, "parents": []}
    group = {"uid": {"type": "Sandbox::AgentGroup", "id": "agents"}, "attrs": {}, "parents": []}
    attrs = {
        "tenant": {"__entity": {"type": "Sandbox::Tenant", "id": "site"}},
        "trust": {"__entity": {"type": "Sandbox::Trust", "id": "untrusted"}},
    }
    members = [
        {"uid": {"type": "Sandbox::Agent", "id": name}, "attrs": attrs, "parents": [group["uid"]]} for name in names
    ]
    return json.dumps([tenant, group, *members])


def write_bundle(directory: Path, policies: str, *, entities: str | None = None, metadata: str | None = None) -> Path:
    """Write a bundle and return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "policies.cedar").write_text(policies)
    (directory / "entities.json").write_text(agents("agent") if entities is None else entities)
    (directory / "bundle.toml").write_text('name = "test"\nschema = 1\n' if metadata is None else metadata)
    return directory


def engine(directory: Path, policies: str, *, entities: str | None = None) -> PolicyEngine:
    """Write a bundle, load it, and return its engine."""
    return PolicyEngine(PolicyBundle.load(write_bundle(directory, policies, entities=entities)))
