"""Which parts of a policy held for a request: each scope part and each condition, evaluated by Cedar itself.

Each part is made a policy of its own, and one call to cedarpy decides them all. Nothing is evaluated here. The value
that is shown beside a part is looked up in the request, and Cedar is asked whether it is that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cedarpy

from cedarbox.policy.actions import Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.policy.schema import packaged_schema
from cedarbox.review.declared import Declared, uid_of
from cedarbox.review.finding import Place
from cedarbox.review.phrases import condition_words, subject_of
from cedarbox.review.pieces import Words
from cedarbox.review.subject import ReviewedPolicy
from cedarbox.review.written import Node, cedar_text

__all__ = ["Part", "PolicyParts", "parts_of"]

Status = Literal["held", "failed", "unreached", "error"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a policy: one of its scope, or one condition of several that must all hold.

    Attributes:
        kind: ``principal``, ``resource``, ``when`` or ``unless``.
        text: Its source text.
        place: Where it stands.
        words: What it asks for, in words.
        status: It held, it did not, an earlier one that did not keeps it from being evaluated, or it is an error.
        values: What the request has in its place, such as ``context.port is 8443``.
        error: What Cedar said, for an error.
        about: What of the request it depends on and on nothing else, as :func:`~cedarbox.review.explain.flips.changed`
            names it; None when that cannot be told.
    """

    kind: str
    text: str
    place: Place
    words: Words
    status: Status
    values: tuple[str, ...]
    error: str = ""
    about: frozenset[str] | None = None


@dataclass(frozen=True)
class PolicyParts:
    """A policy and its parts.

    Attributes:
        policy: The policy.
        applies: All of it held.
        error: What Cedar said when the policy could not be evaluated; empty when it could.
        parts: In the order in which Cedar evaluates them.
    """

    policy: ReviewedPolicy
    applies: bool
    error: str
    parts: tuple[Part, ...]

    @property
    def failed(self) -> tuple[Part, ...]:
        """The parts that did not hold."""
        return tuple(part for part in self.parts if part.status in {"failed", "error"})


@dataclass(frozen=True)
class _Asked:
    """Something to be made a policy of."""

    kind: str
    node: Node
    path: tuple[str | int, ...]
    want: bool = True


Locate = Callable[[ReviewedPolicy, tuple[str | int, ...]], tuple[str, Place] | None]
"""Gives the source text and the place of a node of a policy's JSON form; None when that is not known."""


def parts_of(
    bundle: PolicyBundle, policies: Sequence[ReviewedPolicy], principal: str, made: Action, *, locate: Locate
) -> tuple[PolicyParts, ...]:
    """Evaluate the parts of policies for a request.

    Args:
        bundle: Where they are from.
        policies: Those of the request's action.
        principal: Id of the agent, which the bundle declares.
        made: The request.
        locate: Finds the source of a part.

    Raises:
        ValueError: Cedar takes the request or a part for something else than it is.
    """
    world = _World(bundle, principal, made)
    asked = [list(_asked(policy)) for policy in policies]
    nodes: dict[str, Node] = {}
    for number, (policy, parts) in enumerate(zip(policies, asked, strict=True)):
        nodes[f"p{number}"] = policy.est
        for index, part in enumerate(parts):
            nodes[f"p{number}.{index}"] = _when(part.node)
            for at, (_, value) in enumerate(world.values(part.node)):
                nodes[f"p{number}.{index}.{at}"] = _when(value)
    held, errors = world.ask(nodes)
    told = []
    for number, (policy, parts) in enumerate(zip(policies, asked, strict=True)):
        made_parts: list[Part] = []
        for index, part in enumerate(parts):
            name = f"p{number}.{index}"
            stopped = any(before.status in {"failed", "error", "unreached"} for before in made_parts)
            if name in errors:
                status: Status = "unreached" if stopped else "error"
            else:
                status = "held" if (name in held) is part.want else "failed"
            values = [text for at, (text, _) in enumerate(world.values(part.node)) if f"{name}.{at}" in held and text]
            found = locate(policy, part.path)
            text, place = found or (cedar_text(part.node), policy.place)
            made_parts.append(
                Part(
                    part.kind,
                    text,
                    place,
                    condition_words(part.node, want=part.want),
                    status,
                    tuple(dict.fromkeys(values)),
                    errors[name] if status == "error" else "",
                    _about(part.node),
                )
            )
        whole = f"p{number}"
        told.append(PolicyParts(policy, whole in held, errors.get(whole, ""), tuple(made_parts)))
    return tuple(told)


def _asked(policy: ReviewedPolicy) -> Iterator[_Asked]:
    for name in ("principal", "resource"):
        scope = policy.est[name]
        if scope["op"] != "All":
            yield _Asked(name, _scope_node(name, scope), (name,))
    for number, condition in enumerate(policy.est.get("conditions", ())):
        when = condition["kind"] == "when"
        for node, path in _split(condition["body"], ("conditions", number, "body"), "&&" if when else "||"):
            yield _Asked(condition["kind"], node, path, when)


def _split(node: Node, path: tuple[str | int, ...], by: str) -> Iterator[tuple[Node, tuple[str | int, ...]]]:
    (operator, given), *_ = node.items()
    if operator == by:
        yield from _split(given["left"], (*path, by, "left"), by)
        yield from _split(given["right"], (*path, by, "right"), by)
    else:
        yield node, path


def _scope_node(name: str, scope: Node) -> Node:
    left = {"Var": name}
    match scope["op"]:
        case "==" | "in":
            return {scope["op"]: {"left": left, "right": {"Value": {"__entity": scope["entity"]}}}}
        case _:
            inside = {} if "in" not in scope else {"in": {"Value": {"__entity": scope["in"]["entity"]}}}
            return {"is": {"left": left, "entity_type": scope["entity_type"], **inside}}


def _when(node: Node) -> Node:
    scope = {"op": "All"}
    return {
        "effect": "permit",
        "principal": scope,
        "action": scope,
        "resource": scope,
        "conditions": [{"kind": "when", "body": node}],
    }


_ERROR: Final = re.compile(r"error while evaluating policy `([^`]*)`: (.*)", re.DOTALL)


class _World:
    """A request with all that Cedar needs to decide about it."""

    def __init__(self, bundle: PolicyBundle, principal: str, made: Action) -> None:
        self._schema = packaged_schema()
        brought = made.brought
        self._entities = cedarpy.Entities.from_json_str(json.dumps([*bundle.entities, *brought]), self._schema)
        self._declared = Declared([*bundle.entities, *brought])
        self._made = made
        self._principal = Entity("Agent", principal)
        self._roots = {
            "principal": self._principal.ref,
            "resource": made.resource.ref,
            "context": dict(made.context),
        }

    def ask(self, nodes: Mapping[str, Node]) -> tuple[frozenset[str], Mapping[str, str]]:
        """Return which policies apply, and the errors of those that cannot be evaluated."""
        # What applies must be seen whatever it does, so a forbid is asked as a permit.
        permits = {name: {**node, "effect": "permit"} for name, node in nodes.items()}
        document = {"staticPolicies": permits, "templates": {}, "templateLinks": []}
        result = cedarpy.is_authorized(
            self._made.asked_by(self._principal.id),
            cedarpy.PolicySet.from_json_str(json.dumps(document)),
            self._entities,
            self._schema,
        )
        if result.decision is cedarpy.Decision.NoDecision:
            raise ValueError(" ".join(str(error) for error in result.diagnostics.errors) or "no decision")
        errors = {}
        for text in result.diagnostics.errors:
            found = _ERROR.fullmatch(str(text))
            if found is None:
                raise ValueError(str(text))
            errors[found[1]] = " ".join(found[2].split())
        return frozenset(result.diagnostics.reasons), errors

    def values(self, node: Node) -> Iterator[tuple[str, Node]]:
        """Yield what the request has for each attribute in an expression: in text, and as what Cedar is to confirm."""
        for leaf in _leaves(node):
            subject = subject_of(leaf) or ""
            if subject == "principal":
                groups = sorted(name for _, name in self._declared.above(uid_of(self._principal.uid)))
                said = f", in {_names(groups)}" if groups else ", in no group"
                yield f"principal is {self._principal}{said}", _is(leaf, self._principal.ref)
                continue
            found = self._at(leaf)
            if found is _ABSENT:
                left, name = leaf["."]["left"], leaf["."]["attr"]
                yield f"{subject} is absent", {"!": {"arg": {"has": {"left": left, "attr": name}}}}
            elif not isinstance(found, dict) or {"__entity", "__extn"} & found.keys():
                # Of what other resources are in, their id tells.
                above = (
                    self._made.resource.parents if subject == "resource" and self._made.resource.type == "Image" else ()
                )
                yield f"{subject} is {_shown(found)}{''.join(f', in {each}' for each in above)}", _is(leaf, found)

    def _at(self, node: Node) -> Any:
        (operator, given), *_ = node.items()
        if operator == "Var":
            return self._roots.get(given, _ABSENT)
        held = self._at(given["left"])
        if isinstance(held, dict) and "__entity" in held:
            held = self._declared.entities.get(uid_of(held), {}).get("attrs", {})
        return held.get(given["attr"], _ABSENT) if isinstance(held, dict) else _ABSENT


def _about(node: Node) -> frozenset[str] | None:
    """Return what of a request decides an expression; None when it is not only that."""
    found: set[str] = set()
    for leaf in _leaves(node, whole=True):
        path = (subject_of(leaf) or "").split(".")
        if path[0] in {"principal", "resource"}:
            found.add(path[0])
        elif path[0] == "context" and len(path) > 1 and path[1] != "base":
            found.add("context.ip" if path[1] in {"ip", "ipClass"} else f"context.{path[1]}")
        elif path[:2] == ["context", "base"] and len(path) > 2:
            found.add(f"context.base.{path[2]}")
        elif path != ["action"]:
            return None
    return frozenset(found)


_ABSENT: Final = object()
_MAX_SHOWN: Final = 120


def _leaves(node: Any, *, whole: bool = False) -> Iterator[Node]:
    """Yield the longest chains of attributes of the request in an expression; for ``has`` that which it asks for.

    Args:
        node: The expression.
        whole: Yield the action, and the context when it is not asked for an attribute, too.
    """
    if isinstance(node, Mapping):
        if "has" in node and subject_of(node["has"]["left"]) is not None:
            yield {".": {"left": node["has"]["left"], "attr": node["has"]["attr"]}}
            return
        if node.keys() == {"."} or node.keys() == {"Var"}:
            if subject_of(node) is not None and (whole or node.get("Var") not in {"context", "action"}):
                yield node
            elif "." in node:
                yield from _leaves(node["."]["left"], whole=whole)
            return
        if node.keys() == {"Value"}:
            return
        for item in node.values():
            yield from _leaves(item, whole=whole)
    elif isinstance(node, Sequence) and not isinstance(node, str):
        for item in node:
            yield from _leaves(item, whole=whole)


def _is(leaf: Node, value: Any) -> Node:
    return {"==": {"left": leaf, "right": _literal(value)}}


def _literal(value: Any) -> Node:
    if isinstance(value, dict) and "__extn" in value:
        return {value["__extn"]["fn"]: [{"Value": value["__extn"]["arg"]}]}
    return {"Value": value}


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        if "__entity" in value:
            uid = value["__entity"]
            return f"{uid['type'].removeprefix(f'{NAMESPACE}::')}::{json.dumps(uid['id'], ensure_ascii=False)}"
        return str(value["__extn"]["arg"])
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _names(groups: Sequence[str]) -> str:
    return f"the group{'s' * (len(groups) > 1)} {', '.join(groups)}"
