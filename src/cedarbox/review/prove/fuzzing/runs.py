"""Runs of random cases."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

import cedarpy

from cedarbox.review.prove.evaluate import evaluate
from cedarbox.review.prove.fuzzing.decisions import Tally, compare
from cedarbox.review.prove.fuzzing.random_actions import HOSTS, PATHS, RandomActions, noted
from cedarbox.review.prove.fuzzing.random_policies import RandomPolicies
from cedarbox.review.prove.fuzzing.random_values import RandomValues
from cedarbox.review.prove.fuzzing.tables import Table
from cedarbox.review.prove.goals import Allows, Or, PrincipalIs, Side, environments
from cedarbox.review.prove.prepared import Problems
from cedarbox.review.prove.problem import Problem
from cedarbox.review.prove.smt import with_guards
from cedarbox.review.prove.terms import Term, reachable
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values

__all__ = ["absent", "broken_facts", "policy_set", "random_entities", "run_bundle", "run_free"]

_SAME_ENTITIES: Final = 4
"""How many sets of policies meet the same entities."""
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "Sandbox::Agent": ("agent", "other", "third", "nobody"),
    "Sandbox::AgentGroup": ("agents", "staff", "ops", "all", "none"),
    "Sandbox::Tenant": ("t1", "t2", "t3"),
    "Sandbox::Host": (*HOSTS, "EXAMPLE", "a.example.", "10"),
    "Sandbox::Domain": ("example", "a.example", "x", ".", "localhost", "in-process", "Example", "", "2.x", "1"),
    "Sandbox::Address": ("10.0.0.1", "::1", "127.0.0.1", "010.0.0.1", "9.9.9.9", "::ffff:7f00:1", "x"),
    "Sandbox::Port": ("443", "22", "0443", "x", "65536"),
    "Sandbox::HostPath": (*PATHS, "/a/", "/a//b", "a", "/a/../b", ""),
    "Sandbox::GuestPath": (*PATHS, "/a/", "/./a"),
    "Sandbox::Image": ("sha256:0", "a", ""),
    "Sandbox::ImageRepo": ("local", "a", ""),
    "Sandbox::Executable": ("sh", "a", "", "x y"),
    "Sandbox::Backend": ("boxlite", "a", ""),
    "Sandbox::Instance": ("a", ""),
    "Sandbox::Snapshot": ("a", ""),
    "Sandbox::EnvironmentVariable": ("A", "LD_PRELOAD", "A=", ""),
    "Sandbox::Account": ("root", "app", "0", "x$"),
    "Sandbox::Secret": ("a", "local"),
    "Sandbox::Toolset": ("a", "", "x y"),
    "Sandbox::Tool": ("a", "a/b", "boxlite", "a/boxlite", "/a", "sh/sh"),
    "Sandbox::ModelEndpoint": (*HOSTS, "10.0.0.1", "::1", "127.0.0.1"),
}


def policy_set(policies: Mapping[str, Mapping[str, Any]]) -> cedarpy.PolicySet:
    """Return policies for Cedar."""
    document = {"staticPolicies": dict(policies), "templates": {}, "templateLinks": []}
    return cedarpy.PolicySet.from_json_str(json.dumps(document))


def run_free(schema_text: str, schema: Mapping[str, Any], cases: int, seed: int, each: int = 10) -> Tally:
    """Decide random requests of any schema, with random entities.

    Args:
        schema_text: The schema.
        schema: The same, resolved.
        cases: How many requests.
        seed: Of the randomness.
        each: How many requests each set of policies decides.
    """
    chance = random.Random(seed)  # noqa: S311  # nothing is kept secret with it
    types = SchemaTypes(schema)
    handle = cedarpy.Schema.from_str(schema_text)
    kinds = environments(schema)
    groups = tuple(
        (f"{namespace}::Action" if namespace else "Action", name)
        for namespace, content in schema.items()
        for name in content.get("actions", {})
    )
    tally = Tally()
    values = RandomValues(types, chance)
    rounds = 0
    store, table = cedarpy.Entities.from_json_str("[]", handle), Table(types, ())
    while tally.cases + tally.refused < cases:
        if rounds % _SAME_ENTITIES == 0:
            entities = values.entities()
            store, table = cedarpy.Entities.from_json_str(json.dumps(entities), handle), Table(types, entities)
        rounds += 1
        environment = chance.choice(kinds)
        maker = RandomPolicies(types, values, chance, environment, groups)
        side = Side({f"p{number}": maker.policy() for number in range(chance.randint(1, 5))})
        sides = {"it": side}
        (problem,) = Problems.of(types, environment, sides, Allows("it"), bundles=False).each
        policies = policy_set(side.policies)
        for _ in range(each):
            request = values.request(environment)
            compare(
                tally, problem, side, table.with_request(request), request=request, handles=(policies, store, handle)
            )
    return tally


def random_entities(chance: random.Random) -> list[dict[str, Any]]:
    """Return an ``entities.json``: a few agents in groups in groups, with tenants, trust and tags."""
    groups = ("agents", "staff", "ops", "all")
    found: list[dict[str, Any]] = [
        {"uid": {"type": "Sandbox::Tenant", "id": name}, "attrs": {}, "parents": []} for name in ("t1", "t2")
    ]
    for place, name in enumerate(groups):
        above = [other for other in groups[place + 1 :] if chance.random() < 0.4]
        found.append(_in_groups("AgentGroup", name, {}, above))
    for name in ("agent", "other", "third"):
        attrs = {
            "tenant": {"__entity": {"type": "Sandbox::Tenant", "id": chance.choice(("t1", "t2"))}},
            "trust": {
                "__entity": {"type": "Sandbox::Trust", "id": chance.choice(("untrusted", "internal", "trusted"))}
            },
        }
        agent = _in_groups("Agent", name, attrs, [group for group in groups if chance.random() < 0.4])
        tags = {key: chance.choice(("a", "b", "team")) for key in ("team", "a", "") if chance.random() < 0.4}
        found.append(agent | ({"tags": tags} if tags else {}))
    return found


def _in_groups(kind: str, name: str, attrs: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    parents = [{"type": "Sandbox::AgentGroup", "id": group} for group in groups]
    return {"uid": {"type": f"Sandbox::{kind}", "id": name}, "attrs": dict(attrs), "parents": parents}


def run_bundle(schema_text: str, schema: Mapping[str, Any], cases: int, seed: int, each: int = 10) -> Tally:
    """Decide random requests that the builders of cedarbox made, with random principals, and check every fact.

    Args:
        schema_text: The packaged schema.
        schema: The same, resolved.
        cases: How many requests.
        seed: Of the randomness.
        each: How many requests each set of policies decides.
    """
    chance = random.Random(seed)  # noqa: S311  # nothing is kept secret with it
    types = SchemaTypes(schema)
    handle = cedarpy.Schema.from_str(schema_text)
    kinds = environments(schema)
    groups = tuple(("Sandbox::Action", name) for name in schema["Sandbox"]["actions"])
    tally, values, builder = Tally(), RandomValues(types, chance), RandomActions(types, chance)
    values.pool |= _NAMES
    while tally.cases + tally.refused < cases:
        environment = chance.choice(kinds)
        declared = random_entities(chance)
        maker = RandomPolicies(types, values, chance, environment, groups)
        side = Side(
            {f"p{number}": maker.policy() for number in range(chance.randint(1, 5))}, declared, deny_on_error=True
        )
        goal = Or(*(PrincipalIs(name) for name in ("agent", "other", "third")))
        problems = Problems.of(types, environment, {"it": side}, goal, bundles=True)
        policies, store = policy_set(side.policies), cedarpy.Entities.from_json_str(json.dumps(declared), handle)
        for _ in range(each):
            action = builder.action(environment.action_id)
            if action is None or action.resource.uid["type"] != environment.resource_type:
                continue
            problem = chance.choice(problems.each)
            brought = [entity.to_json() for entity in (action.resource, *action.others)]
            request = {
                "principal": {"type": "Sandbox::Agent", "id": problem.principal},
                "action": {"type": environment.action_type, "id": environment.action_id},
                "resource": action.resource.uid,
                "context": dict(action.context),
            }
            table = noted(Table(types, brought).with_request(request), action)
            with_brought = store.with_added_json_str(json.dumps(brought), handle)
            before = tally.refused
            compare(tally, problem, side, table, request=request, handles=(policies, with_brought, handle))
            if tally.refused == before:
                tally.unlike += broken_facts(problems.values, problem, table, request)
    return tally


def broken_facts(values: Values, problem: Problem, table: Table, request: Mapping[str, Any]) -> list[str]:
    """Return the facts that are not so of a request, of those that its policies would bring to a solver.

    What is said of a member that the request does not have is left out: nothing depends on it.
    """
    used = [term for outcome in problem.outcomes("it") for term in outcome]
    said = [each for each in with_guards(values, used) if each not in used]
    known = evaluate(said, table)
    return [
        f"the fact {str(each)[:500]} of {json.dumps(request)}"
        for each in said
        if not known[each] and not any(absent(table, term, known) for term in reachable([each]))
    ]


def absent(table: Table, term: Term, known: Mapping[Term, Any]) -> bool:
    """Whether a term is of a member that the request does not have.

    Args:
        table: The request.
        term: The term.
        known: What its arguments are.
    """
    if term.op not in ("var", "app") or term.value.endswith("?"):
        return False
    args = tuple(known[arg] for arg in term.args)
    if (term.value, args) not in table.apps:
        return True
    names = term.value.split(".")
    return any(table.apps.get((".".join(names[:length]) + "?", args)) is False for length in range(1, len(names) + 1))
