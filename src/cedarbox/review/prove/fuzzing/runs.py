"""Runs of random cases."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from cedarbox.policy.actions import Action
from cedarbox.review.prove.evaluate import evaluate
from cedarbox.review.prove.fuzzing.decisions import Encoded, Tally, compare
from cedarbox.review.prove.fuzzing.random_actions import HOSTS, PATHS, RandomActions, noted
from cedarbox.review.prove.fuzzing.random_policies import RandomPolicies
from cedarbox.review.prove.fuzzing.random_values import RandomValues
from cedarbox.review.prove.fuzzing.tables import Table
from cedarbox.review.prove.goals import Allows, Environment, Or, PrincipalIs, Side, environments
from cedarbox.review.prove.prepared import Problems
from cedarbox.review.prove.problem import Problem
from cedarbox.review.prove.smt import with_guards
from cedarbox.review.prove.terms import Term, reachable
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.prove.values import Values

__all__ = ["absent", "policy_set", "random_entities", "run_bundle", "run_free"]

_SAME_REQUESTS: Final = 4
"""How many sets of policies decide the same requests: to make a request costs as much as to decide it."""
_AGENTS: Final = ("agent", "other", "third")
_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "Sandbox::Agent": (*_AGENTS, "nobody"),
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
    while tally.cases + tally.refused < cases:
        entities = values.entities()
        store, declared = cedarpy.Entities.from_json_str(json.dumps(entities), handle), Table(types, entities)
        environment = chance.choice(kinds)
        maker = RandomPolicies(types, values, chance, environment, groups)
        requests = [values.request(environment) for _ in range(each)]
        tables = [declared.with_request(request) for request in requests]
        for _ in range(_SAME_REQUESTS):
            side = Side({f"p{number}": maker.policy() for number in range(chance.randint(1, 5))})
            (problem,) = Problems.of(types, environment, {"it": side}, Allows("it"), bundles=False).each
            encoded = Encoded.of(problem, side)
            results = cedarpy.is_authorized_batch(
                [dict(each) for each in requests], policy_set(side.policies), store, handle
            )
            for request, table, result in zip(requests, tables, results, strict=True):
                compare(tally, encoded, table, request=request, result=result)
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
    for name in _AGENTS:
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
    goal = Or(*map(PrincipalIs, _AGENTS))
    while tally.cases + tally.refused < cases:
        environment = chance.choice(kinds)
        declared = random_entities(chance)
        store = cedarpy.Entities.from_json_str(json.dumps(declared), handle)
        maker = RandomPolicies(types, values, chance, environment, groups)
        made = [one for _ in range(each) if (one := _request(builder, environment, chance)) is not None]
        tables = [noted(Table(types, brought).with_request(request), action) for action, request, brought in made]
        stores = [store.with_added_json_str(json.dumps(brought), handle) for _, _, brought in made]
        for _ in range(_SAME_REQUESTS):
            side = Side(
                {f"p{number}": maker.policy() for number in range(chance.randint(1, 5))}, declared, deny_on_error=True
            )
            problems = Problems.of(types, environment, {"it": side}, goal, bundles=True)
            asked = {problem.principal: _Asked.of(problems.values, problem, side) for problem in problems.each}
            policies = policy_set(side.policies)
            for (_, request, _), table, all_ in zip(made, tables, stores, strict=True):
                of_agent = asked[request["principal"]["id"]]
                result = cedarpy.is_authorized(dict(request), policies, all_, handle)
                if compare(tally, of_agent.encoded, table, request=request, result=result):
                    tally.unlike += of_agent.broken_facts(table, request)
    return tally


def _request(
    builder: RandomActions, environment: Environment, chance: random.Random
) -> tuple[Action, dict[str, Any], list[dict[str, Any]]] | None:
    action = builder.action(environment.action_id)
    if action is None or action.resource.uid["type"] != environment.resource_type:
        return None
    return action, action.asked_by(chance.choice(_AGENTS)), action.brought


@dataclass(frozen=True)
class _Asked:
    """Policies as formulas for one principal, and the facts that they would bring to a solver."""

    encoded: Encoded
    facts: tuple[Term, ...]

    @classmethod
    def of(cls, values: Values, problem: Problem, side: Side) -> _Asked:
        encoded = Encoded.of(problem, side)
        used = [term for both in encoded.terms.values() for term in both]
        return cls(encoded, tuple(each for each in with_guards(values, used) if each not in used))

    def broken_facts(self, table: Table, request: Mapping[str, Any]) -> list[str]:
        # What is said of a member that the request does not have is left out: nothing depends on it.
        known = evaluate(self.facts, table)
        return [
            f"the fact {str(each)[:500]} of {json.dumps(request)}"
            for each in self.facts
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
