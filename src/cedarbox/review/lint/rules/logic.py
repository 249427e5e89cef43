"""Rules about policies that do not do what they seem to: S060 to S064."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.policy.conditions import FALLIBLE
from cedarbox.policy.regions import TooLargeError, difference, intersection
from cedarbox.review.finding import Edit, Severity
from cedarbox.review.lint.agents import Agent
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule
from cedarbox.review.lint.walk import always, attribute_chain
from cedarbox.review.subject import ReviewedPolicy

__all__ = ["RULES", "binding", "can_fail", "decides"]

_APPROVAL: Final = "approv"  # Also in the name of an annotation that is misspelt, or of a later version.
_MOST: Final = 60  # Each is held against all others.


def _never(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        if policy.template:
            continue
        if context.trivially(policy) is False:
            path = next(
                ("conditions", number, "body")
                for number, condition in enumerate(policy.est["conditions"])
                if always(condition["body"]) is (condition["kind"] == "unless")
            )
            yield Hit("matches no request: this condition is never met", policy, path)
            continue
        if context.actions_of(policy) == {"connect"} and not _can_match(context, policy):
            yield Hit("matches no request: what it asks of a connection cannot be all at once", policy)


def _can_match(context: Context, policy: ReviewedPolicy) -> bool:
    """Whether some connection could meet a policy about ``connect``, for some kind of agent."""
    for agent in context.agents:
        region = context.region(agent, policy)
        if region is None or region:
            return True
    return False


def decides(policy: ReviewedPolicy) -> str:
    """Return a text that is the same for policies that decide the same and are written alike.

    What they are called does not count, nor the order of their conditions, nor bits behind the prefix of a network that
    an address is looked for in: Cedar looks at none of it.
    """
    kept = {name: policy.est.get(name) for name in ("effect", "principal", "action", "resource")}
    approval = {name: text for name, text in policy.annotations.items() if _APPROVAL in name}
    parts = sorted(_text(_masked(condition)) for condition in policy.est.get("conditions", ()))
    return _text([kept, parts, approval])


def _masked(body: Any) -> Any:
    """Return an expression with every network of ``isInRange`` written by its first address."""
    if isinstance(body, list):
        return [_masked(item) for item in body]
    if not isinstance(body, Mapping) or "Value" in body:
        return body
    made = {name: _masked(item) for name, item in body.items()}
    if "isInRange" in made and "ip" in made["isInRange"][1]:
        text = made["isInRange"][1]["ip"][0].get("Value")
        try:
            network = str(ipaddress.ip_network(text, strict=False))
        except (ValueError, TypeError):
            return made
        made["isInRange"] = [made["isInRange"][0], {"ip": [{"Value": network}]}]
    return made


def _shadowed(context: Context) -> Iterator[Hit]:
    seen: dict[str, ReviewedPolicy] = {}
    told: set[str] = set()
    for policy in context.policies:
        if policy.template:
            continue
        first = seen.setdefault(decides(policy), policy)
        if first is not policy:
            told.add(policy.id)
            message = f"decides exactly what {first.id!r} decides"
            yield Hit(message, policy, hint="remove one of the two", fix=_removal(context, policy), key="same")
    forms = [_Form.of(policy) for policy in context.policies if policy.id not in told and not policy.template]
    index: dict[tuple[str, str, str], list[_Form]] = {}
    for form in forms:
        index.setdefault((form.group, form.principal, form.resource), []).append(form)
    for form in forms:
        wider = _wider(form, index)
        if wider is not None:
            told.add(form.policy.id)
            # Two that are each as wide as the other are told as duplicates.
            word = "permits" if form.policy.effect == "permit" else "forbids"
            yield Hit(f"{word} nothing that {wider.id!r} does not", form.policy, hint="remove it", key="wider")
    yield from _shadowed_connections(context, told)


@dataclass(frozen=True, slots=True)
class _Form:
    """How a policy is written, in texts that can be compared."""

    policy: ReviewedPolicy
    group: str
    principal: str
    resource: str
    conditions: frozenset[str]

    @classmethod
    def of(cls, policy: ReviewedPolicy) -> _Form:
        group = _text([policy.effect, policy.est["action"], binding(policy)])
        principal, resource = _text(policy.est["principal"]), _text(policy.est["resource"])
        return cls(policy, group, principal, resource, frozenset(map(_text, policy.est.get("conditions", ()))))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_ANY: Final = _text({"op": "All"})


def _wider(form: _Form, index: Mapping[tuple[str, str, str], list[_Form]]) -> ReviewedPolicy | None:
    for principal in dict.fromkeys((_ANY, form.principal)):
        for resource in dict.fromkeys((_ANY, form.resource)):
            for other in index.get((form.group, principal, resource), ()):
                if other is not form and other.conditions <= form.conditions and not _fallible(other.policy):
                    return other.policy
    return None


def _fallible(policy: ReviewedPolicy) -> bool:
    text = json.dumps(policy.est)
    return any(f'"{name}"' in text for name in FALLIBLE)


def _removal(context: Context, policy: ReviewedPolicy) -> Fix:
    text = context.subject.text(policy.file)
    start, end = policy.offset, policy.offset + len(policy.text)
    # The comment directly above is about it; what stands above an empty line, or an empty comment, is not.
    while start and text[start - 1] == "\n":
        above = text.rfind("\n", 0, start - 1) + 1
        line = text[above : start - 1].strip()
        if not line.startswith("//") or line == "//":
            break
        start = above
    end += text[end : end + 1] == "\n"
    # A test may name it.
    return Fix((Edit(policy.place.file, start, end, ""),), safe=not context.tests_name(policy.id))


def _shadowed_connections(context: Context, told: set[str]) -> Iterator[Hit]:
    about = [
        policy
        for policy in context.policies
        if context.actions_of(policy) == {"connect"} and policy.id not in told and not _fallible(policy)
    ]
    for effect in ("permit", "forbid"):
        same = [policy for policy in about if policy.effect == effect and not binding(policy)]
        if len(same) > _MOST:
            context.notes.append(
                f"S061: more than {_MOST} {effect}s of connect, so only those that look alike were compared"
            )
            continue
        for policy in same:
            others = [other for other in same if other is not policy and other.id not in told]
            if others and all(_inside(context, agent, policy, others) for agent in context.agents):
                if not _can_match(context, policy):
                    continue
                told.add(policy.id)
                word = "permits" if effect == "permit" else "forbids"
                yield Hit(f"{word} no connection that others do not {effect}", policy, hint="remove it", key="covered")


def binding(policy: ReviewedPolicy) -> bool:
    """Whether a policy may ask for an approval: it then does not do what another does that matches the same."""
    return any(_APPROVAL in name for name in policy.annotations)


def _inside(context: Context, agent: Agent, policy: ReviewedPolicy, others: list[ReviewedPolicy]) -> bool:
    mine = context.region(agent, policy)
    if mine is None:
        return False
    theirs = [context.region(agent, other) for other in others]
    sure = tuple(box for region in theirs for box in region or () if not box.conditions)
    try:
        return not difference(mine, sure)
    except TooLargeError:
        return False


def _overridden(context: Context) -> Iterator[Hit]:
    for policy in context.permits("connect"):
        if context.actions_of(policy) != {"connect"}:
            continue
        entries = [entry for listed in context.endpoints.values() for entry in listed.entries]
        listed_whole = all(not listed.unknown for listed in context.endpoints.values())
        if listed_whole and _can_match(context, policy) and all(entry.policy != policy.id for entry in entries):
            yield Hit("permits nothing: forbids deny every connection that it is about", policy)
    for policy in context.policies:
        if policy.effect == "forbid" and context.trivially(policy):
            if any(policy.est[part]["op"] != "All" for part in ("principal", "resource")):
                continue
            for permit in context.permits(*context.actions_of(policy)):
                if context.actions_of(permit) <= context.actions_of(policy):
                    yield Hit(f"permits nothing: {policy.id!r} forbids all of it to everybody", permit, key=policy.id)
    if context.options.idle_forbids:
        yield from _idle(context)


def _idle(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        actions = context.actions_of(policy)
        if policy.effect != "forbid" or not actions:
            continue
        message = "changes no decision: no permit is about what it forbids"
        if not context.permits(*actions) or (actions == {"connect"} and not _touches(context, policy)):
            yield Hit(message, policy, severity="note", key="idle")


def _touches(context: Context, policy: ReviewedPolicy) -> bool:
    for agent in context.agents:
        mine = context.region(agent, policy)
        if mine is None:
            return True
        for permit in context.permits("connect"):
            theirs = context.region(agent, permit)
            try:
                if theirs is None or intersection(mine, theirs):
                    return True
            except TooLargeError:
                return True
    return False


def can_fail(context: Context, policy: ReviewedPolicy) -> bool:
    """Whether a policy has an operator that can fail on values of the right types."""
    return any(
        node.operator in FALLIBLE and not _constant({node.operator: node.given}) for node in context.nodes(policy)
    )


def _failing(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        for node in context.nodes(policy):
            if node.operator not in FALLIBLE or _constant({node.operator: node.given}):
                continue
            plain = context.subject.bundle is None and policy.effect == "forbid"
            what = "Cedar skips the forbid then" if plain else "everything is denied then"
            message = f"can fail to evaluate: {node.operator} on values that are too large, and {what}"
            if context.subject.bundle is None and policy.effect == "permit":
                message = f"can fail to evaluate: {node.operator} on values that are too large"
            yield Hit(message, policy, node.path, severity="error" if plain else None)
            break


def _constant(body: Any) -> bool:
    if isinstance(body, list):
        return all(_constant(item) for item in body)
    if not isinstance(body, Mapping):
        return True
    return "Var" not in body and all(_constant(item) for item in body.values())


def _not_supplied(context: Context) -> Iterator[Hit]:
    for policy in context.policies:
        if policy.effect != "forbid":
            continue
        for node in context.nodes(policy):
            if node.operator not in {".", "has", "getTag", "hasTag"}:
                continue
            if what := _reads(context, node.operator, node.given):
                # What a program of somebody else supplies is not known here; almost always the two of the request.
                severity: Severity | None = None if context.subject.bundle or "::" in what else "note"
                message = f"reads {what}, which may not be there when it is asked"
                yield Hit(message, policy, node.path, severity=severity, key=what)
                break


def _reads(context: Context, operator: str, given: Mapping[str, Any]) -> str:
    left = given["left"]
    if "__entity" in left.get("Value", {}) if isinstance(left.get("Value"), Mapping) else False:
        uid = left["Value"]["__entity"]
        declared = any(item["uid"] == {"type": uid["type"], "id": uid["id"]} for item in context.subject.entities)
        return "" if declared else f'{uid["type"]}::"{uid["id"]}"'
    chained = attribute_chain(left)
    if context.subject.bundle is None:
        return f"attributes of {chained[0]}" if chained in {("principal",), ("resource",)} and operator == "." else ""
    # Of cedarbox, principal, resource and the entities of the context are supplied; a tenant is, and has nothing.
    return "attributes of the tenant" if chained == ("principal", "tenant") else ""


RULES: Final = (
    LintRule(
        "S060",
        "never-matches",
        "error",
        "A policy that matches no request",
        "correct the conditions, or remove the policy",
        "prover",
        _never,
        sandbox=False,
    ),
    LintRule(
        "S061",
        "shadowed",
        "warning",
        "A policy that others of the same effect make superfluous",
        "remove it",
        "prover",
        _shadowed,
        sandbox=False,
    ),
    LintRule(
        "S062",
        "always-overridden",
        "warning",
        "A permit that forbids always override",
        "remove it, or narrow the forbid",
        "prover",
        _overridden,
    ),
    LintRule(
        "S063",
        "can-fail",
        "warning",
        "A policy that can fail to evaluate",
        "compare before you calculate, or compare without calculating",
        "prover",
        _failing,
        sandbox=False,
    ),
    LintRule(
        "S064",
        "forbid-reads-absent-entity",
        "error",
        "A forbid that reads attributes of an entity that may not be there",
        "compare the entity itself, or declare it in entities.json",
        "text",
        _not_supplied,
        sandbox=False,
    ),
)
"""The rules."""
