"""Small changes of real bundles: what is proved of them against real requests, and against itself without shortcuts."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cedarpy

from cedarbox.policy.actions import Action
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.schema import schema_text
from cedarbox.review.cases import Case, Suite
from cedarbox.review.mutants import mutants_of
from cedarbox.review.prove.fuzzing.pairs import GOAL
from cedarbox.review.prove.fuzzing.random_actions import RandomActions
from cedarbox.review.prove.goals import Environment, Side, environments
from cedarbox.review.prove.prover import Prover
from cedarbox.review.prove.replay import Replayer, ReplayError
from cedarbox.review.prove.solvers import Solver
from cedarbox.review.prove.types import SchemaTypes
from cedarbox.review.syntax import schema_json

__all__ = ["BundleTally", "run_bundle_pairs"]

_RANDOM: Final = 20
"""How many random requests are tried beside those of the tests of a bundle."""


@dataclass
class BundleTally:
    """What came of changes of bundles.

    Attributes:
        pairs: How many.
        verdicts: How often it was answered how, and by whom.
        both: To how many a solver gave an answer without simplification, too.
        tried: How many requests were held against a *none*.
        allowed: How many of them the new version allowed.
        wrong: The cases in which something contradicts something.
    """

    pairs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    both: int = 0
    tried: int = 0
    allowed: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        said = ", ".join(f"{name} {count}" for name, count in sorted(self.verdicts.items()))
        return (
            f"{self.pairs} pairs of bundles, {len(self.wrong)} contradictions; {said}; {self.both} answered without "
            f"simplification, too; {self.tried} requests held against a none, {self.allowed} of them allowed"
        )


def run_bundle_pairs(
    bundles: Sequence[Path], pairs: int, seed: int, *, solvers: Sequence[Solver], whole: float = 0.5
) -> BundleTally:
    """Ask whether changes of bundles widen them, and hold each *none* against real requests.

    Args:
        bundles: Directories of bundles, with their tests.
        pairs: How many changes.
        seed: Of the randomness.
        solvers: Whom to ask, in this order.
        whole: What part of the questions is also put to the solvers without simplification.
    """
    chance = random.Random(seed)  # noqa: S311  # nothing is kept secret with it
    text = schema_text()
    schema = schema_json(text)
    types, handle = SchemaTypes(schema), cedarpy.Schema.from_str(text)
    suites = [Suite.load(PolicyBundle.load(path)) for path in bundles]
    tally, builder = BundleTally(), RandomActions(types, chance)
    with (
        Prover(text, schema=schema, time_limit_s=10.0, solvers=solvers) as prover,
        Prover(text, schema=schema, time_limit_s=10.0, solvers=solvers, simplify=False) as plain,
    ):
        while tally.pairs < pairs:
            suite = chance.choice(suites)
            told, old, new, touched = _pair(chance, suite.bundle)
            kinds = [each for each in environments(schema) if each.action_id in touched]
            if not kinds:
                continue
            environment = chance.choice(kinds)
            sides = {"old": Side.of_bundle(old), "new": Side.of_bundle(new)}
            tally.pairs += 1
            story = f"{suite.bundle.path.name} {environment}: {told}"
            answer = prover.search(GOAL, environment, sides)
            by = "simplification" if answer.solver == "simplification" else "solver"
            tally.verdicts[f"{answer.verdict} by {by}" if answer.solver else answer.verdict] += 1
            said = {answer.verdict}
            if chance.random() < whole:
                other = plain.search(GOAL, environment, sides)
                said.add(other.verdict)
                tally.both += other.verdict != "undecided" and other.solver != "simplification"
                if {"found", "none"} <= said:
                    tally.wrong.append(f"{answer.verdict}, without simplification {other.verdict}: {story}")
            if "none" in said:
                replayer = Replayer(handle, types, environment, sides)
                agents = [
                    each["uid"]["id"] for each in suite.bundle.entities if each["uid"]["type"].endswith("::Agent")
                ]
                for agent, action in _requests(chance, builder, environment, suite.cases, agents):
                    tally.tried += 1
                    wider, allowed = _widened(replayer, environment, agent, action)
                    tally.allowed += allowed
                    if wider:
                        tally.wrong.append(f"none, and yet {agent} {action.name} {action.resource}: {story}")
                        break
    return tally


def _pair(chance: random.Random, bundle: PolicyBundle) -> tuple[str, PolicyBundle, PolicyBundle, frozenset[str]]:
    """Return a bundle with a step or two on each side, and the actions that they touch."""
    told, touched = [], frozenset[str]()
    sides = []
    for name, steps in (("old", chance.choice((0, 0, 1))), ("new", chance.choice((1, 1, 2)))):
        changed = bundle
        for _ in range(steps):
            policy = chance.choice(changed.policies)
            mutant = chance.choice(list(mutants_of([policy], approvals=False)))
            changed = mutant.within(changed)
            told.append(f"{name} {policy.id} {mutant.change}")
            touched |= policy.actions
        sides.append(changed)
    return "; ".join(told), sides[0], sides[1], touched


def _requests(
    chance: random.Random,
    builder: RandomActions,
    environment: Environment,
    cases: Sequence[Case],
    agents: Sequence[str],
) -> Iterator[tuple[str, Action]]:
    """Yield the requests of the tests of a bundle, for every agent, and random ones: all made by the builders."""
    for case in cases:
        if case.request is not None and case.action == environment.action_id:
            yield from ((agent, case.request) for agent in dict.fromkeys((case.principal, *agents)))
    for action in (builder.action(environment.action_id) for _ in range(_RANDOM)):
        if action is not None:
            yield chance.choice(agents), action


def _widened(replayer: Replayer, environment: Environment, agent: str, action: Action) -> tuple[bool, bool]:
    """Return whether only the new version allows a request, and whether the new one allows it."""
    if action.resource.uid["type"] != environment.resource_type:
        return False, False
    request = action.asked_by(agent)
    try:
        before, after = (replayer.decide(name, request, action.brought).allowed for name in ("old", "new"))
    except ReplayError as error:
        raise AssertionError(f"a request of the builders is refused: {error}: {json.dumps(request)}") from error
    return after and not before, after
