"""Runs the rules over a subject and makes the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cedarbox.review.finding import SEVERITIES, Finding, Place, Report, Section, Severity
from cedarbox.review.finding import Suppression as Why
from cedarbox.review.lint.baseline import Baseline, Known
from cedarbox.review.lint.context import Context
from cedarbox.review.lint.model import Fix, Hit, LintRule
from cedarbox.review.lint.options import LintConfig
from cedarbox.review.lint.places import place_of_node
from cedarbox.review.lint.proving import Proved, Wanted, asks, open_questions, prove
from cedarbox.review.lint.rulebook import NEVER_SUPPRESSED, OWN, RULES, STALE, UNUSABLE, UNUSED, told
from cedarbox.review.lint.suppress import Suppression, suppressions
from cedarbox.review.reports.parts import counted
from cedarbox.review.subject import Subject, shown

__all__ = ["Chosen", "Linted", "lint", "report_of"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which rules are run.

    Attributes:
        only: Ids; all when empty.
        without: Ids.
    """

    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Linted:
    """What came of the rules.

    Attributes:
        subject: What was looked at.
        config: How.
        findings: What was found, in the order of places.
        suppressed: What was found and does not count, each with the reason.
        fixes: How findings can be done away with, those that are safe and the others.
        rules: The rules that were run.
        off: The rules that were not, and why.
        notes: What a reader must know.
        undecided: How many questions were left open.
        unproved: The rules for which the prover was not asked although it should be, sorted.
        data: More for programs.
    """

    subject: Subject
    config: LintConfig
    findings: tuple[Finding, ...]
    suppressed: tuple[Finding, ...]
    fixes: tuple[Fix, ...]
    rules: tuple[LintRule, ...]
    off: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    undecided: int = 0
    unproved: tuple[str, ...] = ()
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
    if prover is None:
        proved = Proved(pairs, ran=False, undecided=tuple(each.told for each in context.open))
    else:
        proved = prove(context, rules, pairs, prover)
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
        # What the prover has not said may be what a suppression is for.
        open_ = proved.open if proved.ran else _unasked(context, rules, proved.pairs, unused)
        kept += [_unused(own[UNUSED], mark, config) for mark in unused if mark.rule in ids and not _about(mark, open_)]
    if baseline is not None:
        kept, known, stale = baseline.split(kept)
        at = Place(shown(baseline.path))
        suppressed += [replace(finding, suppressed=Why("baseline", place=at)) for finding in known]
        if STALE in own:
            kept += [_stale(own[STALE], baseline, entry, config) for entry in stale if entry.rule in ids]
    told_of = set(map(id, kept))
    return Linted(
        subject,
        config,
        tuple(sorted(kept, key=_order)),
        tuple(sorted(suppressed, key=_order)),
        tuple(fix for finding, fix in fixes if id(finding) in told_of),
        rules,
        off,
        (*_not_for(subject), *context.notes, *proved.notes, *(f"not decided: {each}" for each in proved.undecided)),
        len(proved.undecided),
        proved.unproved,
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


def _not_for(subject: Subject) -> tuple[str, ...]:
    if subject.bundle is not None:
        return ()
    return (f"not run, they are about sandboxes: {', '.join(rule.id for rule in RULES if rule.sandbox)}",)


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
) -> tuple[list[Finding], list[Finding], list[Suppression]]:
    kept, suppressed = [], []
    used: set[int] = set()
    for finding in findings:
        covering = [mark for mark in marks if mark.covers(finding)]
        used |= set(map(id, covering))
        if covering:
            why = Why("inline", covering[0].reason, covering[0].place)
            suppressed.append(replace(finding, suppressed=why))
        else:
            kept.append(finding)
    return kept, suppressed, [mark for mark in marks if id(mark) not in used]


def _unasked(
    context: Context, rules: Sequence[LintRule], pairs: Sequence[tuple[LintRule, Hit]], unused: Sequence[Suppression]
) -> frozenset[tuple[str, str]]:
    """Return the rule and the policy of what the prover would be asked: a suppression may be for what it finds."""
    asking = {rule.id for rule in rules if asks(rule)}
    return open_questions(context, pairs) if any(mark.rule in asking for mark in unused) else frozenset()


def _about(mark: Suppression, open_: Iterable[tuple[str, str]]) -> bool:
    return any(rule == mark.rule and mark.policy in {"", policy} for rule, policy in open_)


def _unused(rule: LintRule, mark: Suppression, config: LintConfig) -> Finding:
    hit = Hit(f"the suppression of {mark.rule} suppresses nothing", place=mark.place, key=f"{mark.policy} {mark.rule}")
    return _finding(rule, hit, config)


def _stale(rule: LintRule, baseline: Baseline, entry: Known, config: LintConfig) -> Finding:
    message = f"{entry.rule} at {entry.policy or entry.file} is not found any more"
    return _finding(rule, Hit(message, place=Place(shown(baseline.path)), key=entry.fingerprint), config)


def _order(finding: Finding) -> tuple[str, int, int, str]:
    place = finding.place or Place("")
    return place.file, place.line, place.column or 0, finding.rule


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
    told_all = sorted((*linted.findings, *linted.suppressed), key=_order)
    names = {finding.rule for finding in told_all}
    parts = [counted(counts[severity], severity) for severity in SEVERITIES if counts[severity]] or ["no findings"]
    open_ = _left_open(linted)
    parts += [open_] if open_ else []
    if linted.off:
        switched = [rule for rule, why in linted.off if why != "not asked for"]
        parts += [f"{counted(len(switched), 'rule')} switched off"] if switched else []
    return Report(
        command="lint",
        subject=linted.subject.label,
        summary=", ".join(parts),
        findings=told_all,
        sections=tuple(_sections(linted)),
        notes=linted.notes,
        rules=tuple(told(rule) for rule in linted.rules if rule.id in names),
        data=_data(linted, counts),
        failed=failed,
        undecided=prover_needed and bool(linted.undecided or not linted.data["prover"]["ran"]),
    )


def _left_open(linted: Linted) -> str:
    """Return in a few words what was not decided; empty when everything was."""
    if linted.unproved:
        return f"{counted(len(linted.unproved), 'rule')} not proved"
    return f"{counted(linted.undecided, 'question')} not decided" if linted.undecided else ""


def _sections(linted: Linted) -> Iterable[Section]:
    milder = [(rule, setting.level, setting.reason) for rule, setting in linted.config.rules.items() if setting.reason]
    if milder:
        path = shown(linted.config.path) if linted.config.path else ""
        rows_of = tuple((rule, level, reason) for rule, level, reason in milder)
        yield Section("Milder than by default", (f"By {path}.",), ("rule", "severity", "reason"), rows_of)


def _data(linted: Linted, counts: Counter[Severity]) -> dict[str, Any]:
    return {
        "counts": {severity: counts[severity] for severity in SEVERITIES},
        "rules": {
            "run": [rule.id for rule in linted.rules],
            "off": [{"rule": rule, "reason": why} for rule, why in linted.off],
            "changed": [
                {"rule": rule, "severity": setting.level, "reason": setting.reason}
                for rule, setting in linted.config.rules.items()
            ],
        },
        "undecided": linted.undecided,
        "open": _left_open(linted),
        **linted.data,
    }
