"""Runs the rules over a subject and makes the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cedarbox.review.finding import SEVERITIES, Finding, Place, Report, Section, Severity
from cedarbox.review.lint.baseline import Baseline, Known
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule
from cedarbox.review.lint.options import LintConfig
from cedarbox.review.lint.places import place_of_node
from cedarbox.review.lint.proving import Proved, Wanted, prove
from cedarbox.review.lint.rulebook import NEVER_SUPPRESSED, OWN, RULES, STALE, UNUSABLE, UNUSED, told
from cedarbox.review.lint.suppress import Suppression, suppressions
from cedarbox.review.subject import Subject, shown

__all__ = ["Chosen", "Linted", "Suppressed", "lint", "report_of"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rules are run.

    Attributes:
        only: Ids; all when empty.
        without: Ids.
    """

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A finding that is not told as one.

    Attributes:
        finding: The finding.
        by: ``comment`` or ``baseline``.
        reason: Why; of a baseline there is none.
        place: The comment.
    """

    finding: Finding
    by: str
    reason: str = ""
    place: Place | None = None


@dataclass(frozen=True)
class Linted:
    """What came of the rules.

    Attributes:
        subject: What was looked at.
        config: How.
        findings: What was found, in the order of places.
        suppressed: What was found and is not told as a finding.
        fixes: How findings can be done away with, those that are safe and the others.
        rules: The rules that were run.
        off: The rules that were not, and why.
        notes: What a reader must know.
        undecided: How many questions were left open.
    """

    subject: Subject
    config: LintConfig
    findings: tuple[Finding, ...]
    suppressed: tuple[Suppressed, ...]
    fixes: tuple[Fix, ...]
    rules: tuple[LintRule, ...]
    off: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    undecided: int = 0
    data: dict[str, Any] = field(default_factory=dict)


def lint(
    subject: Subject,
    config: LintConfig,
    *,
    now: datetime,
    chosen: Chosen = Chosen(),
    baseline: Baseline | None = None,
    prover: Wanted | None = None,
) -> Linted:
    """Look at a subject with every rule that is chosen.

    Args:
        subject: What is reviewed.
        config: How.
        now: The time of the review, aware.
        chosen: Which rules.
        baseline: Findings that are known.
        prover: How to use the prover; None to leave it out without a word.
    """
    context = Context(subject, config.options, now)
    rules, off = _selected(subject, config, chosen)
    pairs = [(rule, hit) for rule in rules for hit in _hits(rule, context)]
    proved = (
        Proved(pairs, ran=False, undecided=_open(context)) if prover is None else prove(context, rules, pairs, prover)
    )
    findings, fixes = [], []
    for rule, hit in proved.pairs:
        findings.append(_finding(rule, hit, config))
        if hit.fix is not None:
            fixes.append((findings[-1], hit.fix))
    marks, problems = suppressions(subject, frozenset(rule.id for rule in RULES), NEVER_SUPPRESSED)
    kept, suppressed, unused = _apply(findings, marks)
    ids = {rule.id for rule in rules}
    own = {rule.id: rule for rule in rules if rule in OWN}
    if UNUSABLE in own:
        kept += [
            _finding(own[UNUSABLE], Hit(each.message, place=each.place, hint=each.hint, key=each.message), config)
            for each in problems
        ]
    if UNUSED in own:
        silent = frozenset() if proved.ran else frozenset(rule.id for rule in rules if rule.how == "prover")
        kept += [_unused(own[UNUSED], mark, config) for mark in unused if mark.rule in ids - silent]
    if baseline is not None:
        kept, known, stale = baseline.split(kept)
        suppressed += [Suppressed(finding, "baseline") for finding in known]
        if STALE in own:
            kept += [_stale(own[STALE], baseline, entry, config) for entry in stale if entry.rule in ids]
    told_of = set(map(id, kept))
    return Linted(
        subject,
        config,
        tuple(sorted(kept, key=_order)),
        tuple(suppressed),
        tuple(fix for finding, fix in fixes if id(finding) in told_of),
        rules,
        off,
        (*context.notes, *proved.notes, *(f"not decided: {each}" for each in proved.undecided)),
        len(proved.undecided),
        {"prover": {"ran": proved.ran, "questions": proved.asked, "seconds": proved.seconds}},
    )


def _selected(
    subject: Subject, config: LintConfig, chosen: Chosen
) -> tuple[tuple[LintRule, ...], tuple[tuple[str, str], ...]]:
    rules, off = [], []
    for rule in RULES:
        setting = config.rules.get(rule.id)
        if rule.sandbox and subject.bundle is None:
            continue
        if (chosen.only and rule.id not in chosen.only) or rule.id in chosen.without:
            off.append((rule.id, "not asked for"))
        elif setting is not None and setting.level == "off" and rule.id not in chosen.only:
            off.append((rule.id, setting.reason))
        else:
            rules.append(rule)
    return tuple(rules), tuple(off)


def _hits(rule: LintRule, context: Context) -> list[Hit]:
    try:
        return list(rule.find(context))
    except RecursionError:
        message = f"{rule.id} could not be run: a policy is nested too deeply"
        context.notes.append(message)
        return [Hit(message, place=Place(shown(context.subject.root)), severity="error", key="depth")]


def _finding(rule: LintRule, hit: Hit, config: LintConfig) -> Finding:
    place = hit.place
    if place is None and hit.policy is not None:
        place = place_of_node(hit.policy, hit.path)
    setting = config.rules.get(rule.id)
    severity: Severity = hit.severity or rule.severity
    if setting is not None and setting.level != "off":
        severity = setting.level
    return Finding(
        rule.id,
        severity,
        hit.message,
        place,
        hit.policy.id if hit.policy else "",
        hit.hint or rule.hint,
        hit.fix.edits if hit.fix is not None and hit.fix.safe else (),
        hit.details,
        hit.key,
    )


def _apply(
    findings: Sequence[Finding], marks: Sequence[Suppression]
) -> tuple[list[Finding], list[Suppressed], list[Suppression]]:
    kept, suppressed = [], []
    used: set[int] = set()
    for finding in findings:
        covering = [mark for mark in marks if mark.covers(finding)]
        used |= set(map(id, covering))
        if covering:
            suppressed.append(Suppressed(finding, "comment", covering[0].reason, covering[0].place))
        else:
            kept.append(finding)
    return kept, suppressed, [mark for mark in marks if id(mark) not in used]


def _unused(rule: LintRule, mark: Suppression, config: LintConfig) -> Finding:
    hit = Hit(f"the suppression of {mark.rule} suppresses nothing", place=mark.place, key=f"{mark.policy} {mark.rule}")
    return _finding(rule, hit, config)


def _stale(rule: LintRule, baseline: Baseline, entry: Known, config: LintConfig) -> Finding:
    message = f"{entry.rule} at {entry.policy or entry.file} is not found any more"
    return _finding(rule, Hit(message, place=Place(shown(baseline.path)), key=entry.fingerprint), config)


def _order(finding: Finding) -> tuple[str, int, int, str]:
    place = finding.place or Place("")
    return place.file, place.line, place.column or 0, finding.rule


def _open(context: Context) -> tuple[str, ...]:
    return tuple(f"{each.rule} {each.policy.id}: {each.question}" for each in context.open)


def report_of(linted: Linted, *, fail_level: Severity | None = None, prover_needed: bool = False) -> Report:
    """Make the report.

    Args:
        linted: What came of the rules.
        fail_level: The mildest finding that fails; None for what the configuration says.
        prover_needed: A question that was left open is no success, nor that the prover was not there to be asked.
    """
    level = SEVERITIES.index(fail_level or linted.config.fail_level)
    counts = Counter(finding.severity for finding in linted.findings)
    failed = any(counts[severity] for severity in SEVERITIES[: level + 1])
    names = {finding.rule for finding in linted.findings}
    parts = [_many(counts[severity], severity) for severity in SEVERITIES if counts[severity]] or ["no findings"]
    if linted.suppressed:
        parts.append(f"{len(linted.suppressed)} suppressed")
    if linted.off:
        switched = [rule for rule, why in linted.off if why != "not asked for"]
        parts += [f"{_many(len(switched), 'rule')} switched off"] if switched else []
    return Report(
        command="lint",
        subject=linted.subject.label,
        summary=", ".join(parts),
        findings=linted.findings,
        sections=tuple(_sections(linted)),
        notes=linted.notes,
        rules=tuple(told(rule) for rule in linted.rules if rule.id in names),
        data=_data(linted, counts),
        failed=failed,
        undecided=prover_needed and bool(linted.undecided or not linted.data["prover"]["ran"]),
    )


def _many(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _sections(linted: Linted) -> Iterable[Section]:
    if linted.suppressed:
        rows = tuple(
            (each.finding.rule, str(each.finding.place or ""), each.finding.message, each.by, each.reason)
            for each in linted.suppressed
        )
        yield Section("Suppressed", (), ("rule", "place", "finding", "by", "reason"), rows)
    milder = [(rule, setting.level, setting.reason) for rule, setting in linted.config.rules.items() if setting.reason]
    if milder:
        path = shown(linted.config.path) if linted.config.path else ""
        rows_of = tuple((rule, level, reason) for rule, level, reason in milder)
        yield Section("Milder than by default", (f"By {path}.",), ("rule", "severity", "reason"), rows_of)


def _data(linted: Linted, counts: Counter[Severity]) -> dict[str, Any]:
    return {
        "counts": {severity: counts[severity] for severity in SEVERITIES},
        "suppressed": [
            {
                "rule": each.finding.rule,
                "policy": each.finding.policy,
                "place": str(each.finding.place or ""),
                "message": each.finding.message,
                "fingerprint": each.finding.fingerprint,
                "by": each.by,
                "reason": each.reason,
            }
            for each in linted.suppressed
        ],
        "rules": {
            "run": [rule.id for rule in linted.rules],
            "off": [{"rule": rule, "reason": why} for rule, why in linted.off],
            "changed": [
                {"rule": rule, "severity": setting.level, "reason": setting.reason}
                for rule, setting in linted.config.rules.items()
            ],
        },
        "undecided": linted.undecided,
        **linted.data,
    }
