"""Changes whose verdict is known: the verdict is true, and the review of a change comes to it.

The changes are data, see :mod:`tests.unit.changes`. That their verdicts are true is shown without any prover: by
requests that both versions decide, and, when CEDARBOX_LONG=1, by requests at random near the policies.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Final

import pytest
from tests.unit.changes import Change, Verdict, changes
from tests.unit.sampling import Sampler, wider

from cedarbox.policy.actions import ACTION_GROUPS
from cedarbox.policy.engine import PolicyEngine
from cedarbox.policy.schema import schema_text
from cedarbox.review.diff.plan import Plan
from cedarbox.review.diff.run import plans
from cedarbox.review.prove import Prover
from cedarbox.review.subject import Subject
from cedarbox.review.version import Pair, Version

_LONG = os.environ.get("CEDARBOX_LONG") == "1"
# One of each sort, that no solver needs more than a moment for. All are compared when there is time.
_QUICK = frozenset(
    {
        "approval-dropped", "brackets-taken-away", "cidr-one-bit-wider", "de-morgan",
        "forbid-that-cannot-be-evaluated", "group-in-a-scope", "lost-dot", "midnight", "new-agent",
        "permit-under-a-forbid", "split-range", "tag-changed", "unless-for-when-on-a-forbid", "unless-split-in-two",
        "what-the-address-implies", "write-for-read",
    }
)  # fmt: skip
_PROMISED: Final[Mapping[Verdict, int]] = {"widened": 30, "narrowed": 15, "unchanged": 15, "both": 5}


@cache
def _changes() -> tuple[Change, ...]:
    return changes()


@cache
def _engine(subject: Path) -> PolicyEngine:
    bundle = Subject.load(subject).bundle
    assert bundle is not None
    return PolicyEngine(bundle)


def _engines(change: Change) -> tuple[PolicyEngine, PolicyEngine]:
    assert change.after.bundle is not None
    return _engine(change.before.root), PolicyEngine(change.after.bundle)


@pytest.fixture(scope="module")
def prover() -> Iterator[Prover]:
    with Prover(schema_text(), time_limit_s=20 if _LONG else 10) as made:
        yield made


def _verdicts(plan: Plan) -> Mapping[tuple[str, str], Verdict | str]:
    """Return what a plan says of each agent and action; what it does not name is unchanged."""
    told: dict[tuple[str, str], set[str]] = {}
    for row in plan.rows:
        agents = row.agents.ids if row.agents else ()
        if row.outcome not in {"unchanged", "no effect"}:
            for agent in agents:
                told.setdefault((agent, row.action), set()).add(row.outcome)
    verdicts: dict[tuple[str, str], Verdict | str] = {}
    for key, outcomes in told.items():
        # Kinds of resources are told apart in a plan, and not here.
        words = " ".join(sorted(outcomes))
        both = "widened" in words and "narrowed" in words
        verdicts[key] = "not decided" if "not decided" in words else "both" if both else words
    return verdicts


def _planned(change: Change, prover: Prover) -> Plan:
    before, after = (
        Version(name, Path(name), subject.files)
        for name, subject in (("before", change.before), ("after", change.after))
    )
    (plan,) = plans([Pair(change.id, before, after)], lambda _: nullcontext(prover))
    assert isinstance(plan, Plan)
    return plan


def test_there_are_as_many_changes_of_each_sort_as_are_promised() -> None:
    counted = Counter(change.verdict for change in _changes())
    assert sum(counted.values()) >= 60
    assert all(counted[verdict] >= count for verdict, count in _PROMISED.items()), counted
    assert {change.id for change in _changes()} >= _QUICK
    assert all(change.why for change in _changes())


def test_each_request_beside_a_change_shows_what_the_verdict_says() -> None:
    for change in _changes():
        before, after = _engines(change)
        for example in change.wider:
            old, new = (each.decide(example.principal, example.action) for each in (before, after))
            assert wider(old, new), (change.id, example)
            assert change.verdicts[example.principal, example.action.name] in {"widened", "both"}, change.id
        for example in change.narrower:
            old, new = (each.decide(example.principal, example.action) for each in (before, after))
            assert wider(new, old), (change.id, example)
            assert change.verdicts[example.principal, example.action.name] in {"narrowed", "both"}, change.id
        # Who signs is no part of a decision, so no request shows that a key is another one.
        shown = change.wider or change.narrower or change.id == "key-of-an-approver-replaced"
        assert bool(shown) is (change.verdict != "unchanged"), change.id


@pytest.mark.long
@pytest.mark.skipif(not _LONG, reason="minutes of requests at random")
@pytest.mark.timeout(3600)
def test_no_request_at_random_contradicts_a_verdict() -> None:
    asked = allowed = 0
    for change in _changes():
        before, after = _engines(change)
        sampler = Sampler(random.Random(change.id))
        for policy in (*change.before.policies, *change.after.policies):
            sampler.show(policy.est)
        agents = sorted(before.bundle.principals | after.bundle.principals)
        for action in ACTION_GROUPS:
            for request in sampler.requests(action, 60):
                agent = sampler.rng.choice(agents)
                old, new = before.decide(agent, request), after.decide(agent, request)
                verdict = change.verdicts.get((agent, action), "unchanged")
                asked, allowed = asked + 1, allowed + old.allowed
                if wider(old, new):
                    assert verdict in {"widened", "both"}, (change.id, agent, request)
                if wider(new, old):
                    assert verdict in {"narrowed", "both"}, (change.id, agent, request)
    print(f"\n{asked} requests, {allowed} of them allowed before, contradict no verdict")


@pytest.mark.timeout(3600)
def test_the_review_comes_to_the_verdict(prover: Prover) -> None:
    lines, wrong, undecided = [], [], []
    for change in _changes():
        if not (_LONG or change.id in _QUICK):
            continue
        begun = time.monotonic()
        plan = _planned(change, prover)
        told, known = _verdicts(plan), change.verdicts
        open_ = {key for key, verdict in told.items() if verdict == "not decided"}
        if {key: verdict for key, verdict in told.items() if key not in open_} != {
            key: verdict for key, verdict in known.items() if key not in open_
        }:
            wrong.append((change.id, told, known))
        if plan.undecided or open_:
            undecided.append(change.id)
        found = (
            "not decided"
            if open_
            else "both"
            if len(set(told.values())) > 1
            else next(iter(told.values()), "unchanged")
        )
        lines.append(f"{change.id:42} {change.verdict:10} {found:12} {time.monotonic() - begun:6.2f} s")
    print("\nchange                                     expected   found            time\n" + "\n".join(lines))
    print(f"{len(lines)} changes, {len(undecided)} not decided in time: {', '.join(undecided) or 'none'}")
    # What no solver decides in time is no wrong verdict, and is told as what it is. Of the quick ones there is none.
    assert wrong == []
    assert not _QUICK & set(undecided)
