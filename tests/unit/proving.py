"""Sides and searches for tests of the prover."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import cedarpy
from tests.unit.bundles import agents

from cedarbox.policy.schema import schema_text
from cedarbox.review.prove import Allows, And, Answer, Environment, Not, Prover, Side, environments
from cedarbox.review.syntax import schema_json

__all__ = ["PLAIN", "WIDENS", "bundle_side", "ests", "kinds", "plain_side", "widening"]

WIDENS = And(Allows("new"), Not(Allows("old")))

PLAIN = """
entity Group in [Group];
entity User in [Group] { age: Long, name: String, ip?: ipaddr, boss: User } tags String;
entity Doc { owner: User, at: datetime, readers: Set<User>, size: decimal };
action all;
action view in [all] appliesTo {
  principal: [User], resource: [Doc],
  context: {
    ip: ipaddr, net: ipaddr, n: Long, m: Long, s: String, words: Set<String>, more: Set<String>, span: duration
  }
};
"""


def ests(text: str) -> dict[str, Any]:
    """Return the policies of a text by their ``@id`` or number."""
    found = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    return {est.get("annotations", {}).get("id", name): est for name, est in found.items()}


def plain_side(text: str) -> Side:
    """Return policies of plain Cedar."""
    return Side(ests(text))


def bundle_side(text: str, entities: str | None = None) -> Side:
    """Return policies of a bundle; its agent is ``agent`` in the group ``agents`` unless the entities say otherwise."""
    return Side(ests(text), json.loads(agents("agent") if entities is None else entities), deny_on_error=True)


def kinds(schema: str, action: str) -> tuple[Environment, ...]:
    """Return the kinds of request of an action."""
    return tuple(each for each in environments(schema_json(schema)) if each.action_id == action)


def widening(prover: Prover, action: str, sides: Mapping[str, Side]) -> list[Answer]:
    """Return whether ``new`` allows what ``old`` does not, for each kind of request of an action of cedarbox."""
    return [prover.search(WIDENS, each, sides) for each in kinds(schema_text(), action)]
