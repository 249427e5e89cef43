"""Random changes of policies: the solvers against each other, and what they say against Cedar."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cedarpy

from cedarbox.review.prove.fuzzing.random_policies import RandomPolicies
from cedarbox.review.prove.fuzzing.random_values import RandomValues
from cedarbox.review.prove.fuzzing.runs import policy_set
from cedarbox.review.prove.goals import Allows, And, Not, Side, environments
from cedarbox.review.prove.prover import Prover
from cedarbox.review.prove.solvers import Solver
from cedarbox.review.prove.types import SchemaTypes

__all__ = ["PairTally", "changed", "run_pairs"]

GOAL = And(Allows("new"), Not(Allows("old")))


@dataclass
class PairTally:
    """What came of random changes.

    Attributes:
        pairs: How many.
        verdicts: How often each solver said what.
        tried: How many random requests were held against a *none*.
        why: Why it was undecided, and how often.
        wrong: The cases in which something contradicts something.
    """

    pairs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    tried: int = 0
    why: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = ", ".join(f"{name} {count}" for name, count in sorted(self.verdicts.items()))
        return (
            f"{self.pairs} pairs, {len(self.wrong)} contradictions; {said}; {self.tried} requests held against a none"
        )


def changed(chance: random.Random, maker: RandomPolicies, old: Mapping[str, Any]) -> dict[str, Any]:
    """Return policies with one of them changed, dropped, or one more."""
    new = dict(old)
    name = chance.choice(list(new))
    match chance.randrange(5):
        case 0:
            del new[name]
        case 1:
            new["more"] = maker.policy()
        case 2:
            new[name] = {**new[name], "conditions": new[name]["conditions"][:-1]}
        case 3:
            new[name] = maker.policy()
        case _:
            conditions = [{**each, "kind": "when"} for each in new[name]["conditions"]]
            new[name] = {**new[name], "conditions": conditions}
    return new


def run_pairs(
    schema_text: str,
    schema: Mapping[str, Any],
    pairs: int,
    seed: int,
    *,
    solvers: tuple[Solver, ...] = ("cvc5", "z3"),
    tries: int = 200,
) -> PairTally:
    """Ask each solver whether random changes widen, under any schema.

    Args:
        schema_text: The schema.
        schema: The same, resolved.
        pairs: How many changes.
        seed: Of the randomness.
        solvers: Whom to ask.
        tries: How many random requests are held against each *none*.
    """
    chance = random.Random(seed)  # noqa: S311  # nothing is kept secret with it
    types, handle = SchemaTypes(schema), cedarpy.Schema.from_str(schema_text)
    kinds = environments(schema)
    groups = tuple(("N::Action", name) for name in next(iter(schema.values()))["actions"])
    values, tally = RandomValues(types, chance), PairTally()
    provers = {name: Prover(schema_text, schema=schema, time_limit_s=5.0, solvers=(name,)) for name in solvers}
    try:
        while tally.pairs < pairs:
            environment = chance.choice(kinds)
            maker = RandomPolicies(types, values, chance, environment, groups)
            old = {f"p{number}": maker.policy() for number in range(chance.randint(2, 5))}
            new = changed(chance, maker, old)
            sides = {"old": Side(old), "new": Side(new)}
            tally.pairs += 1
            story = json.dumps({"old": old, "new": new, "environment": str(environment)}, ensure_ascii=False)
            verdicts = {}
            for name, prover in provers.items():
                answer = prover.search(GOAL, environment, sides)
                verdicts[name] = answer.verdict
                trivial = " at once" if answer.solver == "simplification" else ""
                tally.verdicts[f"{name} {answer.verdict}{trivial}"] += 1
                if answer.verdict == "undecided":
                    tally.why[f"{name}: {answer.why[:160]}"] += 1
            if {"found", "none"} <= set(verdicts.values()):
                tally.wrong.append(f"{verdicts} {story}")
            if "none" in verdicts.values():
                sets = policy_set(old), policy_set(new)
                store = cedarpy.Entities.from_json_str(json.dumps(values.entities()), handle)
                for _ in range(tries):
                    request = values.request(environment)
                    tally.tried += 1
                    before, after = (cedarpy.is_authorized(dict(request), each, store, handle) for each in sets)
                    if after.allowed and not before.allowed:
                        tally.wrong.append(f"none, and yet {json.dumps(request)}: {story}")
                        break
    finally:
        for prover in provers.values():
            prover.close()
    return tally
