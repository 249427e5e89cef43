"""``cedarbox policy test``: the test cases beside a bundle, how much they cover, what they would miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer

from cedarbox.policy import PolicyBundle
from cedarbox.review.cases import Suite
from cedarbox.review.coverage import PolicyCoverage, measure, percent
from cedarbox.review.mutants import Mutant
from cedarbox.review.run import Outcome, run_suite, survivors
from cedarbox.settings import load_settings

__all__ = ["test"]


@dataclass(frozen=True, slots=True)
class _Result:
    bundle: PolicyBundle
    outcomes: Sequence[Outcome]
    coverage: Sequence[PolicyCoverage]
    threshold: float
    mutants: int | None
    alive: Sequence[Mutant]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]

    @property
    def uncovered(self) -> list[PolicyCoverage]:
        return [covered for covered in self.coverage if not covered.both_ways]

    @property
    def good(self) -> bool:
        return not self.failed and not self.alive and percent(self.coverage) >= self.threshold


def test(
    bundle: Annotated[
        Path | None,
        typer.Argument(readable=False, help="The bundle; by default that of the settings.", show_default=False),
    ] = None,
    *,
    coverage_threshold: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of the policies that the cases must show both ways.")
    ] = 100,
    mutate: Annotated[
        bool, typer.Option(help="Change each policy step by step; a case must fail for each change.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the test cases in tests/*.yaml of a bundle against Cedar itself.

    A policy is covered when it determines some case, and some other case with the same action is decided without it; a
    policy with neither scope nor condition, which no case can do without, when it determines one. Changes are made only
    when every case passes.

    Exit code 0: good. 1: a case failed, too few policies are covered, or a change went unnoticed. 2: bad input.

    Example: cedarbox policy test policies/airgapped
    """
    loaded = PolicyBundle.load(bundle or load_settings().policy.bundle)
    suite = Suite.load(loaded)
    outcomes = run_suite(suite)
    alive: Sequence[Mutant] = ()
    mutants = None
    if mutate and all(outcome.passed for outcome in outcomes):
        alive, mutants = survivors(suite)
    result = _Result(loaded, outcomes, measure(loaded, outcomes), coverage_threshold, mutants, alive)
    if as_json:
        typer.echo(orjson.dumps(_document(result)).decode())
    else:
        for line in _lines(result):
            typer.echo(line)
    raise typer.Exit(0 if result.good else 1)


def _lines(result: _Result) -> list[str]:
    lines = [f"{o.case.file}:{o.case.line}: {o.case.action}: {o.case.title}: {o.problem}" for o in result.failed]
    for covered in result.uncovered:
        lacks = "decided without it" if covered.decides else "determined by it"
        lines.append(
            f"{_place(result, covered.policy.file, covered.policy.line)}: {covered.policy.id}: no case {lacks}"
        )
    for mutant in result.alive:
        place = _place(result, mutant.policy.file, mutant.policy.line)
        lines.append(f"{place}: {mutant.policy.id}: no case notices when it is {_become(mutant.change)}")
    passed = len(result.outcomes) - len(result.failed)
    covered_both = len(result.coverage) - len(result.uncovered)
    summary = f"{result.bundle.name}: {passed} of {len(result.outcomes)} cases pass"
    summary += f", {covered_both} of {len(result.coverage)} policies covered both ways"
    if result.mutants is not None:
        summary += f", {result.mutants - len(result.alive)} of {result.mutants} changes noticed"
    return [*lines, summary]


def _place(result: _Result, file: str, line: int) -> str:
    return f"{result.bundle.path / file}:{line}"


def _become(change: str) -> str:
    return change if change == "deleted" else f"changed: {change}"


def _document(result: _Result) -> dict[str, object]:
    mutants = None
    if result.mutants is not None:
        alive = [{"policy": m.policy.id, "change": m.change, "line": m.policy.line} for m in result.alive]
        mutants = {"made": result.mutants, "unnoticed": alive}
    return {
        "good": result.good,
        "bundle": {"name": result.bundle.name, "path": str(result.bundle.path), "digest": result.bundle.digest},
        "cases": {"run": len(result.outcomes), "failed": [_failure(outcome) for outcome in result.failed]},
        "coverage": {
            "percent": percent(result.coverage),
            "threshold": result.threshold,
            "policies": [
                {"id": c.policy.id, "decides": c.decides, "abstains": c.abstains, "always": c.always}
                for c in result.coverage
            ],
        },
        "mutants": mutants,
    }


def _failure(outcome: Outcome) -> dict[str, object]:
    case = outcome.case
    return {
        "file": str(case.file),
        "line": case.line,
        "action": case.action,
        "case": case.title,
        "problem": outcome.problem,
    }
