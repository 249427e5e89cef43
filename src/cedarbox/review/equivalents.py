"""Which of the changes that no case notices no case can notice.

A change is *equivalent* when it is proved that no request tells it from the policy as it is, whoever asks: neither the
answer, nor the policies that determine it, nor an error differs. What is not proved stays unnoticed. Where the prover
finds a request instead, that is the case that is missing.

Cases may declare agents of their own. So beside the declared agents stand those that a case could declare, as far as
the policies can tell them apart; where those are too many, nothing is proved. For plain Cedar, where a case brings its
entities, nothing is proved of policies that look into any: a case may leave them out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
from typing import Any, Final, Literal

import cedarpy

from cedarbox.policy.bundle import Policy
from cedarbox.policy.entities import NAMESPACE, Entity
from cedarbox.policy.schema import enumerations
from cedarbox.review.declared import AGENT, Declared, Named
from cedarbox.review.diff.agents import looked_into
from cedarbox.review.mutants import Mutant
from cedarbox.review.prove import (
    And,
    Answer,
    Environment,
    Fails,
    Goal,
    Matches,
    Not,
    Or,
    Prover,
    Query,
    Side,
    Witness,
    answers_of,
    environments,
)
from cedarbox.review.syntax import schema_json

__all__ = ["Looked", "look"]

_SIDE: Final = "policies"
_WAS, _BECOMES = "as it is", "changed"
_MAX_AGENTS: Final = 64
_LIMIT_S: Final = 5.0
"""For one search; the rest must have a part of the time, too."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What is known of a change that no case notices.

    Attributes:
        mutant: The change.
        verdict: It is proved that no case can notice it, there is a request that tells it apart, or neither.
        told: How that is known, the request, or why it is not known; one line.
        witness: The request, when there is one.
    """

    mutant: Mutant
    verdict: Literal["equivalent", "noticeable", "open"]
    told: str
    witness: Witness | None = None


def look(
    policies: Sequence[Policy],
    mutants: Sequence[Mutant],
    *,
    schema: str,
    entities: Sequence[Mapping[str, Any]] | None,
    limit_s: float,
) -> tuple[Looked, ...]:
    """Return what is known of some changes, in their order.

    Args:
        policies: The policies.
        mutants: Changes of them that no case notices.
        schema: Text of the schema.
        entities: What a bundle declares; None for plain Cedar, where a case brings any entities that fit the schema.
        limit_s: How long all of it may take, in seconds.
    """
    resolved, parsed = schema_json(schema), cedarpy.Schema.from_str(schema)
    kinds = environments(resolved)
    asked = [_question(policies, mutant, kinds, parsed, entities) for mutant in mutants]
    with Prover(schema, time_limit_s=min(_LIMIT_S, limit_s), schema=resolved) as prover:
        queries = [each if isinstance(each, tuple) else () for each in asked]
        answers = answers_of(prover, queries, within_s=limit_s)
    return tuple(
        each if isinstance(each, Looked) else _judged(mutant, len(each), got)
        for mutant, each, got in zip(mutants, asked, answers, strict=True)
    )


def _judged(mutant: Mutant, queries: int, answers: Sequence[Answer]) -> Looked:
    witness = next((answer.witness for answer in answers if answer.witness is not None), None)
    if witness is not None:
        return Looked(mutant, "noticeable", witness.told(), witness)
    if len(answers) == queries and all(answer.verdict == "none" for answer in answers):
        return Looked(mutant, "equivalent", "proved: no request tells it apart")
    why = next((answer.why for answer in answers if answer.verdict == "undecided"), "the time was over")
    return Looked(mutant, "open", why)


def _question(
    policies: Sequence[Policy],
    mutant: Mutant,
    kinds: Sequence[Environment],
    schema: cedarpy.Schema,
    entities: Sequence[Mapping[str, Any]] | None,
) -> tuple[Query, ...] | Looked:
    """Return the searches for a request that tells a change apart, or what is known without any."""
    policy, mutated, ours = mutant.policy, mutant.mutated, entities is not None
    if ours and mutated is not None and _refused(mutated, schema):
        return Looked(mutant, "equivalent", "the schema refuses it: it is never loaded")
    forbids = [
        other
        for other in (policies if policy.effect == "permit" else ())
        if other.effect == "forbid" and other is not policy and not other.actions.isdisjoint(policy.actions)
    ]
    chosen = {_WAS: policy.est, **({} if mutated is None else {_BECOMES: mutated.est})}
    chosen |= {f"forbid {number}": other.est for number, other in enumerate(forbids)}
    if not ours and any(_looks_into_entities(est) for est in chosen.values()):
        return Looked(mutant, "open", "a case can leave out an entity that a policy looks into")
    agents = () if entities is None else _agents(entities, list(chosen.values()))
    if agents is None:
        return Looked(mutant, "open", "it depends on who asks in other ways than are tried")
    side = Side(chosen, (*(entities or ()), *agents), deny_on_error=ours)
    goal = _told_apart(mutant, len(forbids))
    return tuple(Query(goal, kind, {_SIDE: side}) for kind in kinds if not ours or kind.action_id in policy.actions)


def _told_apart(mutant: Mutant, forbids: int) -> Goal:
    """Return when an answer may differ: more often than it does, never less."""
    was, becomes = Matches(_SIDE, _WAS), Matches(_SIDE, _BECOMES)
    fails: list[Goal] = [Fails(_SIDE, _WAS)]
    if mutant.mutated is None or mutant.mutated.est == mutant.policy.est:
        # It is gone, or something else than what it matches is changed: the approval that it asks for.
        differs: Goal = was
    else:
        differs = Or(And(was, Not(becomes)), And(becomes, Not(was)))
        fails.append(Fails(_SIDE, _BECOMES))
    # A permit determines nothing where a policy forbids.
    return Or(*fails, And(differs, *(Not(Matches(_SIDE, f"forbid {number}")) for number in range(forbids))))


def _refused(policy: Policy, schema: cedarpy.Schema) -> bool:
    document = {"staticPolicies": {"changed": policy.est}, "templates": {}, "templateLinks": []}
    return not cedarpy.validate_policies(cedarpy.policies_from_json_str(json.dumps(document)), schema).validation_passed


def _looks_into_entities(node: Any) -> bool:
    """Whether an attribute or a tag may be asked of an entity: it fails where a request comes without the entity.

    The prover takes all of them to be there. In a bundle they are.
    """
    if isinstance(node, list):
        return any(map(_looks_into_entities, node))
    if not isinstance(node, Mapping):
        return False
    for operator, operands in node.items():
        if operator in {"hasTag", "getTag"}:
            return True
        if operator in {".", "has"} and isinstance(operands, Mapping) and operands.get("left") != {"Var": "context"}:
            return True
    return any(map(_looks_into_entities, node.values()))


def _agents(
    entities: Sequence[Mapping[str, Any]], policies: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], ...] | None:
    """Return one agent of each kind that a case could declare and the policies could tell apart.

    None when they are too many, or when policies name an agent that is not declared, or look into an entity that they
    name: a case could declare it one way or another.
    """
    named, declared = Named.by(policies), Declared(entities).entities
    unknown = any(kind == AGENT and (kind, name) not in declared for kind, name in named.entities)
    if unknown or looked_into(entities, policies):
        return None
    groups = sorted(name for kind, name in named.entities if kind == f"{NAMESPACE}::AgentGroup")
    tenants = sorted(name for kind, name in named.entities if kind == f"{NAMESPACE}::Tenant")
    trusts = sorted(enumerations()["Trust"]) if "trust" in named.attributes else ["untrusted"]
    tenants = [*tenants, _new("tests", tenants)] if "tenant" in named.attributes else ["tests"]
    if 2 ** len(groups) * len(trusts) * len(tenants) > _MAX_AGENTS:
        return None
    taken = [name for kind, name in declared if kind == AGENT]
    made = list[Mapping[str, Any]]()
    for inside, trust, tenant in product(_subsets(groups), trusts, tenants):
        who = _new(f"member of {' and '.join(inside)}" if inside else "outsider", taken)
        taken.append(who)
        attrs = {"tenant": Entity("Tenant", tenant).ref, "trust": Entity("Trust", trust).ref}
        parents = tuple(Entity("AgentGroup", group) for group in inside)
        made.append(Entity("Agent", who, attrs, parents).to_json())
    return tuple(made)


def _subsets(groups: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(combinations(groups, size) for size in range(len(groups) + 1))


def _new(name: str, taken: Sequence[str]) -> str:
    return next(each for number in range(len(taken) + 1) if (each := name + f" {number}" * (number > 0)) not in taken)
