"""Changes at random of whole bundles: no request at random contradicts what the review of the change says.

The prover has a fuzzer of its own, which compares its encoding with Cedar. This one knows nothing of it: it takes the
plan of a change, makes requests near the policies with the real builders, and lets the real engine decide them.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bundles import SHIPPED
from tests.unit.changes import CORPUS
from tests.unit.sampling import Sampler, wider

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.engine import PolicyEngine
from cedarbox.policy.schema import schema_text
from cedarbox.review.diff.compared import Compared
from cedarbox.review.diff.effects import Effects
from cedarbox.review.diff.plan import Plan, plan
from cedarbox.review.kinds import action_groups
from cedarbox.review.prove import Prover, environments
from cedarbox.review.subject import Subject
from cedarbox.review.syntax import schema_json
from cedarbox.review.version import Pair, Version

_LONG = os.environ.get("CEDARBOX_LONG") == "1"
_BASES = (CORPUS / "registry", CORPUS / "workshop", *(SHIPPED / name for name in ("internal-mirror", "regulated-data")))
_TRUST = ("untrusted", "internal", "trusted")


def _terms(body: Any) -> Iterator[Any]:
    """Yield an expression with one part of it changed, for each part that can be."""
    if not isinstance(body, Mapping):
        return
    for operator, parts in body.items():
        if operator in {"&&", "||"}:
            yield parts["left"]
            yield parts["right"]
            yield {"||" if operator == "&&" else "&&": parts}
        if operator in {"<", "<=", ">", ">="}:
            yield {operator.strip("=") if "=" in operator else f"{operator}=": parts}
        if operator == "==":
            yield {"!=": parts}
        if operator == "Set" and len(parts) > 1:
            yield {"Set": parts[1:]}
        if isinstance(parts, Mapping):
            for side in parts.keys() & {"left", "right", "arg"}:
                for term in _terms(parts[side]):
                    yield {operator: {**parts, side: term}}


def _policies(est: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a policy with one change, for each that can be made of it."""
    conditions = est.get("conditions", [])
    for part in ("principal", "resource"):
        yield {**est, part: {"op": "All"}}
    for number, condition in enumerate(conditions):
        kind = "unless" if condition["kind"] == "when" else "when"
        changed = [[], [{**condition, "kind": kind}]]
        changed += [[{**condition, "body": body}] for body in _terms(condition["body"])]
        for put in changed:
            yield {**est, "conditions": [*conditions[:number], *put, *conditions[number + 1 :]]}


def _bundle(subject: Subject) -> PolicyBundle:
    assert subject.bundle is not None
    return subject.bundle


def _with(subject: Subject, ests: Mapping[str, Mapping[str, Any]], entities: Any) -> Subject:
    """Return a bundle with these policies, and with none that is not among them."""
    kept = tuple(replace(each, est=ests[each.id]) for each in subject.policies if each.id in ests)
    bundle = _bundle(subject)
    policies = tuple(replace(each, est=ests[each.id]) for each in bundle.policies if each.id in ests)
    whole = replace(bundle, policies=policies, entities=tuple(entities))
    return replace(subject, policies=kept, entities=tuple(entities), bundle=whole)


def _changed(subject: Subject, rng: random.Random) -> Subject:
    ests = {policy.id: policy.est for policy in subject.policies}
    entities = json.loads(json.dumps(subject.entities))
    for _ in range(rng.choice([1, 1, 2])):
        roll = rng.random()
        name = rng.choice(sorted(ests))
        if roll < 0.15:
            del ests[name]
        elif roll < 0.3:
            agent = rng.choice([each for each in entities if each["uid"]["type"] == "Sandbox::Agent"])
            groups = [each["uid"] for each in entities if each["uid"]["type"] == "Sandbox::AgentGroup"]
            agent["parents"] = rng.sample(groups, rng.randint(0, len(groups)))
            agent["attrs"]["trust"] = {"__entity": {"type": "Sandbox::Trust", "id": rng.choice(_TRUST)}}
        else:
            ests[name] = rng.choice(list(_policies(ests[name])))
    return _with(subject, ests, entities)


def _outcomes(found: Plan) -> Mapping[tuple[str, str], str]:
    told: dict[tuple[str, str], str] = {}
    for row in found.rows:
        for agent in row.agents.ids if row.agents else ():
            told[agent, row.action] = f"{told.get((agent, row.action), '')} {row.outcome}"
    return told


@pytest.mark.timeout(3600)
def test_no_request_at_random_contradicts_the_plan_of_a_change() -> None:
    rng, counted = random.Random(7), Counter[str]()
    document = schema_json(schema_text())
    groups, kinds = action_groups(document), environments(document)
    bases = [Subject.load(path) for path in _BASES]
    with Prover(schema_text(), time_limit_s=60) as prover:
        for _ in range(400 if _LONG else 2):
            base = rng.choice(bases)
            pair = [base, _changed(base, rng)]
            rng.shuffle(pair)
            old, new = (Effects(each, groups, is_bundle=True) for each in pair)
            versions = [Version("x", Path("x"), each.files) for each in pair]
            found = plan(Compared(Pair("x", *versions), old, new, schema_text(), kinds), prover)
            told = _outcomes(found)
            counted["changes"] += 1
            counted["not decided"] += bool(found.undecided)
            counted["widened"] += bool(found.widenings)
            counted["narrowed"] += bool(found.narrowings)
            before, after = (PolicyEngine(_bundle(each)) for each in pair)
            agents = sorted(before.bundle.principals | after.bundle.principals)
            sampler = Sampler(rng)
            for policy in (*pair[0].policies, *pair[1].policies):
                sampler.show(policy.est)
            touched = {action for _, action in told}
            for action in ACTION_GROUPS:
                for request in sampler.requests(action, 80 if action in touched else 2):
                    agent = rng.choice(agents)
                    one, two = before.decide(agent, request), after.decide(agent, request)
                    outcome = told.get((agent, action), "unchanged")
                    counted["requests"] += 1
                    if wider(one, two):
                        counted["wider"] += 1
                        assert "widened" in outcome or "not decided" in outcome, (agent, request, outcome)
                    if wider(two, one):
                        counted["narrower"] += 1
                        # A row says widened too when the search for what is gone had no answer, told beside it.
                        known = "narrowed" in outcome or "not decided" in outcome or found.undecided
                        assert known, (agent, request, outcome)
    print(f"\n{dict(counted)}")
    assert counted["requests"] > 0
    assert counted["not decided"] < counted["changes"]
