"""Rules about whom and what a policy is for: S001 to S005."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.entities import NAMESPACE
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Hit, LintRule
from cedarbox.review.lint.walk import attribute_chain

__all__ = ["RULES"]

_GROUPS: Final = frozenset(ACTION_GROUPS.values())


def _unlimited(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        if policy.effect != "permit" or policy.template:
            continue
        if context.trivially(policy) and context.kinds.everything(policy.est):
            yield Hit("permits every action on everything to everybody", policy)


def _groups(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        scope = policy.est["action"]
        if policy.effect != "permit":
            continue
        if scope["op"] == "All":
            yield Hit("permits whatever action its conditions let through", policy, ("action",), key="all")
        for uid in _named(scope) if context.subject.bundle else ():
            if uid["type"] == f"{NAMESPACE}::Action" and uid["id"] in _GROUPS:
                message = f"permits the whole group of actions {uid['id']!r}, and what is added to it later"
                yield Hit(message, policy, ("action",), key=uid["id"])


def _named(scope: Any) -> list[Any]:
    return list(scope.get("entities") or ([scope["entity"]] if "entity" in scope else []))


def _everybody(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        scope = policy.est["principal"]
        if policy.effect != "permit" or scope["op"] not in {"All", "is"} or "in" in scope:
            continue
        # In other Cedar a type can be a role, which says for whom the permit is.
        if scope["op"] == "is" and not context.subject.bundle and not context.kinds.imply(policy.est, "principal"):
            continue
        if not any(node.operator == "Var" and node.given == "principal" for node in context.nodes(policy)):
            if context.subject.bundle:
                yield Hit("permits to every agent that is declared, and to those that are declared later", policy)
            else:
                whom = scope.get("entity_type") or "principal"
                yield Hit(f"permits to every {whom}", policy, hint="name one or a group, or ask for what they have")


def _partial_forbids(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        if policy.effect != "forbid":
            continue
        for node in context.nodes(policy):
            if node.operator == "Var" and node.given == "principal" and node.path[0] == "conditions":
                number = node.path[1]
                assert isinstance(number, int)  # noqa: S101  # the second part of a path into the conditions
                if policy.est["conditions"][number]["kind"] == "unless":
                    yield Hit("exempts some agents from what it forbids", policy, ("conditions", number, "body"))
                    break


def _command_lines(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        for node in context.nodes(policy):
            if node.operator == "." and attribute_chain({".": node.given}) == ("context", "commandLine"):
                word = "permits by" if policy.effect == "permit" else "forbids by"
                yield Hit(f"{word} the text of a command line, which a shell reads otherwise", policy, node.path)
                break


RULES: Final = (
    LintRule(
        "S001",
        "permits-everything",
        "error",
        "A permit with neither scope nor condition",
        "name the principal, the action and the resource",
        "prover",
        _unlimited,
        sandbox=False,
    ),
    LintRule(
        "S002",
        "permits-action-group",
        "warning",
        "A permit for a group of actions, or for any action",
        'list the actions that are needed: action in [Sandbox::Action::"…"]',
        "text",
        _groups,
        sandbox=False,
    ),
    LintRule(
        "S003",
        "permits-everybody",
        "warning",
        "A permit for every principal",
        'name a group: principal in Sandbox::AgentGroup::"…"',
        "text",
        _everybody,
        sandbox=False,
    ),
    LintRule(
        "S004",
        "forbid-exempts-agents",
        "note",
        "A forbid that leaves some agents out by an unless",
        "forbid it to everybody, and give the exception an agent of its own in another bundle",
        "text",
        _partial_forbids,
    ),
    LintRule(
        "S005",
        "command-line-as-boundary",
        "warning",
        "A condition on the text of a command line",
        "decide by what the command touches: files, connections, mounts",
        "text",
        _command_lines,
    ),
)
"""The rules."""
