"""What ``policy test`` costs, and what trying all changes at once saves against an engine for each change.

Run it: python -m tests.bench.bench_policy_test [POLICIES ...]     (200 and 1000 when none is given)
The slow way is timed on a sample of the changes, in turns with the fast way over all of them, and scaled to all: on the
whole it takes minutes. Both are compared on the sample: they must agree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.unit.suites import large_bundle

from cedarbox.policy import PolicyBundle, PolicyEngine
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import measure
from cedarbox.review.mutants import Mutant, mutants_of
from cedarbox.review.run import outcome_of, run_suite, survivors

_SAMPLE = 24
_ROUNDS = 3

Made = TypeVar("Made")


def _timed(make: Callable[[], Made]) -> tuple[Made, float]:
    started = time.process_time()
    made = make()
    return made, time.process_time() - started


def _best(make: Callable[[], Made]) -> tuple[Made, float]:
    rounds = [_timed(make) for _ in range(_ROUNDS)]
    return rounds[0][0], min(seconds for _, seconds in rounds)


def _slowly(suite: Suite, mutants: list[Mutant]) -> list[Mutant]:
    alive = []
    for mutant in mutants:
        engine = PolicyEngine(mutant.within(suite.bundle))
        asked = [case for case in suite.cases if case.action in mutant.policy.actions]
        if all(outcome_of(engine, case).passed for case in asked):
            alive.append(mutant)
    return alive


def measured(number: int, directory: Path) -> None:
    """Print the figures of a bundle with ``number`` policies."""
    large_bundle(directory, number)
    bundle, load = _best(lambda: PolicyBundle.load(directory))
    suite, read = _best(lambda: Suite.load(bundle))
    outcomes, run = _best(lambda: run_suite(suite))
    _, covered = _best(lambda: measure(suite.bundle.policies, outcomes))
    (alive, made), fast = _best(lambda: survivors(suite))
    mutants = list(mutants_of(suite.bundle.policies))
    sample = mutants[:: max(1, len(mutants) // _SAMPLE)]
    slow_alive, seconds = _timed(lambda: _slowly(suite, sample))
    known = {(mutant.policy.id, mutant.change) for mutant in alive}
    agreed = [(m.policy.id, m.change) for m in sample if (m.policy.id, m.change) in known]
    assert agreed == [(m.policy.id, m.change) for m in slow_alive], "the two ways differ"
    slow = seconds * len(mutants) / len(sample)
    print(f"{number} policies, {len(suite.cases)} cases, {made} changes, {len(alive)} unnoticed (CPU seconds)")
    print(f"  load {load:.2f}  read cases {read:.2f}  run {run:.2f}  coverage {covered:.3f}")
    print(f"  changes {fast:.2f}  with an engine for each {slow:.0f} (from {len(sample)})  ratio {slow / fast:.0f}")
    for options in (["--no-mutate"], []):
        command = [
            sys.executable,
            "-P",
            "-m",
            "cedarbox",
            "policy",
            "test",
            str(directory),
            *options,
            "--format",
            "tap",
        ]
        before, started = os.times(), time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        wall, after = time.perf_counter() - started, os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        print(f"  policy test {' '.join(options) or '(all)':12} {spent:.2f} s of CPU, {wall:.2f} s")


def main() -> None:
    """Print the figures of each size that is asked for."""
    for number in [int(text) for text in sys.argv[1:]] or [200, 1000]:
        with tempfile.TemporaryDirectory() as directory:
            measured(number, Path(directory))


if __name__ == "__main__":
    main()
