"""The report of a run of test cases, of whatever format: what failed, what is not covered, what went unnoticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from cedarbox.policy.bundle import Policy
from cedarbox.review.cedar_tests import CedarCase, CedarOutcome
from cedarbox.review.coverage import PolicyCoverage, percent
from cedarbox.review.finding import Check, Finding, Place, Report, Rule, Section, Severity, Status
from cedarbox.review.mutants import Mutant
from cedarbox.review.run import Outcome
from cedarbox.review.subject import shown

if TYPE_CHECKING:
    from cedarbox.review.equivalents import Looked

__all__ = ["RULES", "Ran", "report_of"]

_SHOWN: Final = 300

RULES: Final = (
    Rule(
        "T001",
        "case-failed",
        "error",
        "A test case was answered otherwise than it says",
        "A case states a request, the answer and the policies that must determine it. Cedar gave another answer, named "
        "other policies, or a policy could not be evaluated.\n\nLook first whether the policy or the case is wrong: "
        "`cedarbox policy explain` tells which policies have a part in a request. A deny that no policy determines is "
        "written without `by:`, one because of an error with `error:` and a part of its text.",
    ),
    Rule(
        "T002",
        "policy-not-covered",
        "error",
        "The cases do not show a policy both at work and at rest",
        "A policy is covered when it determines some case, and some other case with the same action is decided "
        "without it. A policy with neither scope nor condition, which no case can do without, when it determines "
        "one.\n\nAdd a case that it must determine, and the nearest request that it must leave alone. "
        "`--coverage-threshold` says how "
        "many of the policies must be covered; below 100 the rest are warnings.",
    ),
    Rule(
        "T003",
        "change-unnoticed",
        "error",
        "A policy can be changed without any case failing",
        "Each policy is deleted and changed in small steps: its scope is widened, a condition is dropped, turned "
        "around or loses a part, a limit is moved by one, a number becomes a lower limit, a network becomes twice or "
        "half as large, a pattern loses the dot beside its star, the approval it asks for is dropped. No case fails "
        "for this one, so the tests would not notice if somebody made it by mistake.\n\nAdd the case that tells the "
        "two apart: for a scope that is widened, a request from outside it; for a limit, the value on it and the one "
        "beside it; for a network, its last address and the first behind it; for an approval, `approval:` with who "
        "approves. Where the prover was asked, the finding names such a request.\n\nWhat is proved to make no "
        "difference to any request, or is refused by the schema, no case can notice: that is told apart, and no "
        "finding. A part of a condition that makes no difference is not needed. What is not decided stays a finding.",
    ),
)
"""The rules of what a run of tests finds."""


@dataclass(frozen=True)
class Ran:
    """A run of test cases.

    Attributes:
        label: What was tested, in a few words.
        root: The directory of its policies.
        policies: The policies.
        outcomes: What came of each case that ran.
        coverage: The coverage of each policy; None when only some cases were chosen.
        threshold: How many per cent of the policies must be covered.
        mutants: How many changes were made; None when none was.
        alive: The changes that no case noticed, and one could, for all that is known.
        looked: What the prover said of those, by their identity; nothing where it was not asked.
        equivalent: The changes that no case can notice.
        skipped: The cases that were not run because an earlier one failed.
        about: More of ``--json`` about what was tested.
        notes: As in the report.
        slowest: How many of the slowest cases to tell.
        table: Tell the coverage of every policy.
    """

    label: str
    root: Path
    policies: Sequence[Policy]
    outcomes: Sequence[Outcome | CedarOutcome]
    coverage: Sequence[PolicyCoverage] | None
    threshold: float = 100
    mutants: int | None = None
    alive: Sequence[Mutant] = ()
    looked: Mapping[int, Looked] = field(default_factory=dict)
    equivalent: Sequence[Looked] = ()
    skipped: Sequence[Any] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    slowest: int = 0
    table: bool = False

    @property
    def failed(self) -> list[Outcome | CedarOutcome]:
        """What did not pass."""
        return [outcome for outcome in self.outcomes if not outcome.passed]

    @property
    def uncovered(self) -> list[PolicyCoverage]:
        """The policies that are not covered both ways."""
        return [covered for covered in self.coverage or () if not covered.both_ways]

    @property
    def enough(self) -> bool:
        """As many policies are covered as must be."""
        return self.coverage is None or percent(self.coverage) >= self.threshold

    @property
    def good(self) -> bool:
        """There is nothing to act on."""
        return not self.failed and not self.alive and self.enough


def report_of(ran: Ran) -> Report:
    """Return the report of a run."""
    findings = [_failure(ran, outcome) for outcome in ran.failed]
    findings += [_uncovered(ran, covered) for covered in ran.uncovered]
    findings += [_unnoticed(ran, mutant) for mutant in ran.alive]
    checks = [_check(outcome) for outcome in ran.outcomes]
    checks += [
        Check(shown(case.file), case.name, "skipped", "an earlier case failed", _place_of(case)) for case in ran.skipped
    ]
    return Report(
        command="test",
        subject=ran.label,
        summary=_summary(ran),
        findings=findings,
        checks=checks,
        sections=_sections(ran),
        notes=ran.notes,
        rules=RULES,
        data=_data(ran),
        failed=not ran.good,
    )


def _summary(ran: Ran) -> str:
    passed = len(ran.outcomes) - len(ran.failed)
    summary = f"{passed} of {len(ran.outcomes)} cases pass"
    if ran.skipped:
        summary += f", {len(ran.skipped)} not run"
    if ran.coverage is not None:
        covered = len(ran.coverage) - len(ran.uncovered)
        summary += f", {covered} of {len(ran.coverage)} policies covered both ways"
    if ran.mutants is not None:
        noticed = ran.mutants - len(ran.alive) - len(ran.equivalent)
        summary += f", {noticed} of {ran.mutants} changes noticed"
        if ran.equivalent:
            summary += f", {len(ran.equivalent)} cannot be"
    return summary


def _check(outcome: Outcome | CedarOutcome) -> Check:
    case = outcome.case
    status: Status = "passed" if outcome.passed else "failed"
    message = "" if outcome.passed else _told(outcome)
    return Check(shown(case.file), case.name, status, message, _place_of(case), outcome.seconds)


def _told(outcome: Outcome | CedarOutcome) -> str:
    case = outcome.case
    about = case.title if isinstance(case, CedarCase) else f"{case.action}: {case.title}"
    return f"{about}: {outcome.problem}"


def _failure(ran: Ran, outcome: Outcome | CedarOutcome) -> Finding:
    place = _place_of(outcome.case)
    hint = ""
    if isinstance(outcome, Outcome):
        case = f"{place.file}:{place.line}:{outcome.case.title}"
        hint = f"to see why: cedarbox policy explain {quote(shown(ran.root))} --case {quote(case)}"
    # The same words as the check, so that a format that has both tells it once.
    return Finding("T001", "error", _told(outcome), place, hint=hint, key=outcome.case.id)


def _uncovered(ran: Ran, covered: PolicyCoverage) -> Finding:
    lacks = "decided without it" if covered.decides else "determined by it"
    hint = "add the nearest request that it must leave alone" if covered.decides else "add a case with its id under by:"
    policy = covered.policy
    severity: Severity = "warning" if ran.enough else "error"
    return Finding("T002", severity, f"no case {lacks}", _policy_place(ran, policy), policy.id, hint, key=lacks)


def _unnoticed(ran: Ran, mutant: Mutant) -> Finding:
    become = mutant.change if mutant.change == "deleted" else f"changed: {mutant.change}"
    looked = ran.looked.get(id(mutant))
    such = f", such as {looked.told}"[:_SHOWN] if looked is not None and looked.witness is not None else ""
    details: dict[str, Any] = {"change": mutant.change}
    if looked is not None:
        details["proof"] = looked.verdict
        details |= {"witness": looked.witness.to_json()} if looked.witness is not None else {"why": looked.told}
    return Finding(
        "T003",
        "error",
        f"no case notices when it is {become}",
        _policy_place(ran, mutant.policy),
        mutant.policy.id,
        f"add a case whose answer the change would alter{such}",
        details=details,
        key=mutant.change,
    )


def _place_of(case: Any) -> Place:
    return Place(shown(case.file), case.line)


def _policy_place(ran: Ran, policy: Policy) -> Place:
    return Place(shown(ran.root / policy.file), policy.line)


def _sections(ran: Ran) -> tuple[Section, ...]:
    sections = []
    if ran.table and ran.coverage is not None:
        rows = tuple(
            (
                covered.policy.id,
                covered.policy.effect,
                str(covered.with_it),
                "cannot" if covered.always else str(covered.without_it),
                "yes" if covered.both_ways else "no",
                str(_policy_place(ran, covered.policy)),
            )
            for covered in ran.coverage
        )
        columns = ("policy", "effect", "determines", "decided without it", "covered", "place")
        sections.append(Section("Coverage", columns=columns, rows=rows))
    if ran.equivalent:
        same = tuple(
            (each.mutant.policy.id, each.mutant.change, each.told, str(_policy_place(ran, each.mutant.policy)))
            for each in ran.equivalent
        )
        heads = ("policy", "change", "why", "place")
        sections.append(Section("Equivalent changes, which no case can notice", columns=heads, rows=same))
    if ran.slowest:
        slow = sorted(ran.outcomes, key=lambda outcome: outcome.seconds, reverse=True)[: ran.slowest]
        timed = tuple((f"{outcome.seconds * 1000:.2f} ms", outcome.case.id) for outcome in slow)
        sections.append(Section("Slowest cases", columns=("time", "case"), rows=timed))
    return tuple(sections)


def _data(ran: Ran) -> dict[str, Any]:
    mutants = coverage = None
    if ran.mutants is not None:
        alive = [{"policy": m.policy.id, "change": m.change, "line": m.policy.line} for m in ran.alive]
        mutants = {
            "made": ran.mutants,
            "unnoticed": alive,
            "equivalent": [
                {
                    "policy": each.mutant.policy.id,
                    "change": each.mutant.change,
                    "line": each.mutant.policy.line,
                    "why": each.told,
                }
                for each in ran.equivalent
            ],
        }
    if ran.coverage is not None:
        coverage = {
            "percent": percent(ran.coverage),
            "threshold": ran.threshold,
            "policies": [
                {
                    "id": covered.policy.id,
                    "effect": covered.policy.effect,
                    "decides": covered.decides,
                    "abstains": covered.abstains,
                    "always": covered.always,
                    "with_it": covered.with_it,
                    "without_it": covered.without_it,
                }
                for covered in ran.coverage
            ],
        }
    return {
        "good": ran.good,
        **ran.about,
        "cases": {"run": len(ran.outcomes), "failed": [_failed(outcome) for outcome in ran.failed]},
        "coverage": coverage,
        "mutants": mutants,
    }


def _failed(outcome: Outcome | CedarOutcome) -> dict[str, Any]:
    case = outcome.case
    return {
        "file": str(case.file),
        "line": case.line,
        "action": case.action,
        "case": case.title,
        "problem": outcome.problem,
    }
