"""The report of ``policy diff``: the plan for people, the findings for programs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cedarbox.review.configured import SETTINGS
from cedarbox.review.diff.acceptance import Accepted, Subject, Verdict
from cedarbox.review.diff.agents import changed_entity
from cedarbox.review.diff.causes import AGENTS
from cedarbox.review.diff.compared import Compared, Incomparable
from cedarbox.review.diff.effects import Effects
from cedarbox.review.diff.metadata import MetadataChange
from cedarbox.review.diff.plan import Narrowing, Plan, Row, Widening
from cedarbox.review.diff.rules import ACCEPTANCE, METADATA, NARROWS, RULES, UNDECIDED, WEAKENS, WIDENS
from cedarbox.review.diff.texts import TextChange
from cedarbox.review.diff.widened import Outcome, identity, message, metadata_message, metadata_subject
from cedarbox.review.finding import Check, Finding, Place, Report, Section, Suppression
from cedarbox.review.json_places import entity_places
from cedarbox.review.prove import Witness
from cedarbox.review.reports.parts import counted
from cedarbox.review.subject import ReviewedPolicy, shown
from cedarbox.times import in_utc

__all__ = ["report"]

_ORDER: Final = (
    "widened",
    "widened and narrowed",
    "widened; narrowing not decided",
    "not decided",
    "narrowed",
    "unchanged",
    "no effect",
)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The acceptances, and where their file is."""

    verdict: Verdict
    file: str

    def place(self, entry: Accepted) -> Place:
        return Place(self.file, max(entry.line, 1))

    def of(self, subject: Subject) -> Suppression | None:
        entry = self.verdict.accepted.get(subject)
        if entry is None:
            return None
        told = f"{entry.reason} (signed by {entry.key[:19]}, until {in_utc(entry.expires)})"
        return Suppression("accepted", told, self.place(entry))


def report(
    title: str,
    outcomes: Sequence[Outcome],
    verdict: Verdict,
    accepted_file: str,
    notes: Sequence[str] = (),
    *,
    weakened: Sequence[Finding] = (),
) -> Report:
    """Make the report.

    Args:
        title: What was compared, in a few words.
        outcomes: The plan of each bundle, or why there is none.
        verdict: What the acceptances say.
        accepted_file: Where they stand.
        notes: What a reader must know besides.
        weakened: What makes the review itself say less, see :mod:`cedarbox.review.diff.weakening`.
    """
    judged = _Judged(verdict, accepted_file)
    findings = [finding for outcome in outcomes for finding in _findings(outcome, judged)]
    findings += weakened
    findings += [
        Finding(
            ACCEPTANCE.id,
            "warning",
            f"the acceptance of {_about(entry.subject)} counts for nothing: {why}",
            judged.place(entry),
            entry.subject.policy,
            hint="remove it, or make it anew with cedarbox policy accept",
            key=identity(entry.subject),
        )
        for entry, why in [*verdict.refused, *((entry, "nothing found is what it names") for entry in verdict.unused)]
    ]
    failed = any(finding.rule == WIDENS.id and finding.suppressed is None for finding in findings)
    undecided = any(finding.rule == UNDECIDED.id for finding in findings)
    told = [note for outcome in outcomes if isinstance(outcome, Plan) for note in outcome.compared.notes]
    return Report(
        "diff",
        title,
        _summary(outcomes, findings),
        findings,
        [check for outcome in outcomes if isinstance(outcome, Plan) for check in _checks(outcome)],
        [section for outcome in outcomes if isinstance(outcome, Plan) for section in _sections(outcome, judged)],
        [*told, *notes],
        RULES,
        {"bundles": [_data(outcome, judged) for outcome in outcomes]},
        failed=failed,
        undecided=undecided,
    )


def _findings(outcome: Outcome, judged: _Judged) -> Iterator[Finding]:
    if isinstance(outcome, Incomparable):
        hint = "compare with a version that loads"
        yield Finding(UNDECIDED.id, "warning", outcome.why, outcome.pair.place, hint=hint, key=outcome.pair.bundle)
        return
    compared = outcome.compared
    for change in compared.metadata:
        toml = _stands(compared, change)
        if change.widens:
            subject = metadata_subject(compared, change)
            yield Finding(
                WIDENS.id,
                "error",
                metadata_message(change),
                toml,
                hint=_accepting(subject),
                details={"subject": subject.to_json(), "id": identity(subject)},
                key=change.key,
                suppressed=judged.of(subject),
            )
        elif change.matters:
            yield Finding(METADATA.id, "warning", metadata_message(change), toml, key=change.key)
    for each in outcome.widenings:
        accept = _accepting(each.subject) if each.cause else "it cannot be accepted as it is"
        yield Finding(
            WIDENS.id,
            "error",
            message(each),
            _place(compared, each),
            each.subject.policy,
            hint=accept,
            details=_widening_data(each),
            key=f"{each.subject.action} {each.subject.resource} {' '.join(each.subject.principals)}",
            suppressed=judged.of(each.subject) if each.cause else None,
        )
    for narrowing in outcome.narrowings:
        action, resource = narrowing.environment.action_id, _short(narrowing.environment.resource_type)
        told = f"{action} on {resource} is narrowed for {narrowing.agents.told}: {narrowing.witness.told()} was "
        yield Finding(
            NARROWS.id,
            "note",
            f"{told}{narrowing.before}, and is {narrowing.after}",
            _near(compared, action),
            details=_narrowing_data(narrowing),
            key=f"{action} {resource} {narrowing.agents.told}",
        )
    yield from _undecided(outcome)


def _accepting(subject: Subject) -> str:
    return f"to accept it: cedarbox policy accept, with what was compared here, and --widening {identity(subject)}"


def _undecided(plan: Plan) -> Iterator[Finding]:
    # One reason, such as that no solver is installed, is told once.
    reasons: dict[str, list[str]] = {}
    places: dict[str, Place] = {}
    for missing in plan.undecided:
        reasons.setdefault(missing.why, []).append(f"{missing.action} on {missing.resource}: {missing.about}")
        places.setdefault(missing.why, _near(plan.compared, missing.action))
    for why, told in reasons.items():
        more = f" and {len(told) - 1} more" if len(told) > 1 else ""
        said = f"{told[0]}{more} was not decided: {why}"
        hint = "nothing is safe that is not proved"
        yield Finding(UNDECIDED.id, "warning", said, places[why], hint=hint, key=" ".join(told))


def _stands(compared: Compared, change: MetadataChange) -> Place:
    settings = compared.pair.head.settings
    if change.file == SETTINGS and settings is not None:
        return Place(shown(settings.path))
    return Place(shown(compared.pair.head.root / change.file), _line(compared, change))


def _line(compared: Compared, change: MetadataChange) -> int:
    """Return the line of a key, where one line only can be meant; else the first."""
    text = (compared.pair.head.files or {}).get(change.file, b"").decode("utf-8", "replace")
    key = re.compile(rf'\s*"?{re.escape(change.key.rsplit(".", 1)[-1])}"?\s*=')
    found = [number for number, line in enumerate(text.split("\n"), start=1) if key.match(line)]
    return found[0] if len(found) == 1 else 1


def _about(subject: Subject) -> str:
    return f"{subject.action} on {subject.resource} for {', '.join(subject.principals)} by {subject.policy}"


def _place(compared: Compared, each: Widening) -> Place:
    head = compared.pair.head
    found = None
    if each.cause is not None and each.cause.text is not None:
        found = _text_place(compared, each.cause.text)
    elif each.cause is not None and each.cause.place is not None:
        found = each.cause.place
    elif each.cause is not None and head.files is not None and AGENTS in head.files:
        found = _changed_agent(compared, each, head.files[AGENTS].decode())
    return found or compared.pair.place


def _text_place(compared: Compared, text: TextChange) -> Place | None:
    if text.place is not None:
        return text.place
    # It is gone: the file that it stood in is where the change is, if that is still there.
    head, old = compared.pair.head, text.old
    if old is not None and head.files is not None and old.file in head.files:
        return Place(shown(head.root / old.file))
    return None


def _near(compared: Compared, action: str) -> Place:
    """Return the first place where the text of a policy changed that can be for an action.

    A line that the change has not is shown to nobody who looks at the change.
    """
    for text in compared.texts:
        policy = text.new or text.old
        if policy is None or text.kind == "annotated":
            continue
        scope = policy.est["action"]
        about = scope["op"] != "==" or scope["entity"]["id"] == action
        if about and (place := _text_place(compared, text)) is not None:
            return place
    return compared.pair.place


def _changed_agent(compared: Compared, each: Widening, text: str) -> Place:
    file = shown(compared.pair.head.root / AGENTS)
    old, new = (effects.subject.entities if effects.subject else () for effects in (compared.old, compared.new))
    uid = changed_entity(old, new, each.agents.ids)
    return Place(file) if uid is None else entity_places(file, text).get(uid, Place(file))


def _summary(outcomes: Sequence[Outcome], findings: Sequence[Finding]) -> str:
    wide = [finding for finding in findings if finding.rule == WIDENS.id]
    accepted = sum(finding.suppressed is not None for finding in wide)
    parts = []
    if wide:
        parts.append(f"{counted(len(wide), 'widening')}" + (f", {accepted} of them accepted" if accepted else ""))
    if narrow := sum(finding.rule == NARROWS.id for finding in findings):
        parts.append(counted(narrow, "narrowing"))
    weaker = sum(finding.rule == WEAKENS.id for finding in findings)
    if unknown := sum(len(each.undecided) if isinstance(each, Plan) else 1 for each in outcomes):
        parts.append(f"{unknown} not decided")
    if weaker:
        parts.append(f"the review is weakened in {counted(weaker, 'way')}")
    if parts:
        return ", ".join(parts)
    if not outcomes:
        return "no bundle differs"
    texts = any(isinstance(each, Plan) and (each.compared.texts or each.compared.agent_changes) for each in outcomes)
    return "the change has no effect on what is permitted" if texts else "nothing that decides was changed"


def _sections(plan: Plan, judged: _Judged) -> Iterator[Section]:
    compared = plan.compared
    pair = compared.pair
    lines = [f"{pair.base.label} → {pair.head.label}"]
    if plan.unchanged:
        lines.append(f"Not touched by the change: {', '.join(plan.unchanged)}.")
    yield Section(f"Plan for {pair.bundle}", tuple(lines), *_plan_table(plan.rows), opened=True)
    for number, each in enumerate(plan.widenings, start=1):
        yield _widening_section(compared, each, judged, number)
    if plan.narrowings:
        rows = [
            (each.environment.action_id, each.agents.told, each.witness.told(), each.before, each.after)
            for each in plan.narrowings
        ]
        yield Section("Narrowed", (), ("action", "principals", "request", "before", "after"), tuple(rows))
    if compared.texts:
        rows_of = [(each.policy, each.told, str(each.place or "")) for each in compared.texts]
        yield Section("Policies", (), ("policy", "change", "place"), tuple(rows_of))
    if compared.agent_changes:
        told = tuple(each.told for each in compared.agent_changes)
        yield Section("Agents", ("What these changes permit is part of the plan.", *told))
    for file in sorted({each.file for each in compared.metadata}):
        meta = tuple((each.key, each.old, each.new, each.told) for each in compared.metadata if each.file == file)
        yield Section(file, (), ("key", "before", "after", "means"), meta)


def _plan_table(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    ordered = sorted(rows, key=lambda row: _ORDER.index(row.outcome))
    told = tuple((row.outcome, row.action, row.resource, _who(row)) for row in ordered)
    return (("outcome", "action", "resource", "principals") if told else (), told)


def _who(row: Row) -> str:
    return row.agents.told if row.agents else "everybody"


def _widening_section(compared: Compared, each: Widening, judged: _Judged, number: int) -> Section:
    rows = [("request", each.witness.told())]
    for name, word, effects, answer in (
        ("old", "was", compared.old, each.before),
        ("new", "is", compared.new, each.after),
    ):
        rows.append((word, f"{answer}: {_by(effects, each.witness, name)}"))
    if each.cause is not None:
        rows.append(("because", f"{each.cause.told}: {each.cause.policy}, {_place(compared, each)}"))
        text = each.cause.text
        rows += [("text", line) for line in (text.lines if text else [one.told for one in compared.agent_changes])]
    suppressed = judged.of(each.subject) if each.cause else None
    if suppressed is not None:
        rows.append(("accepted", suppressed.reason))
    elif each.cause is not None:
        rows.append(("id", identity(each.subject)))
    title = f"Widening {number}: {each.subject.action} on {each.subject.resource}, for {each.agents.told}"
    return Section(title, (), ("what", "how"), tuple(rows), opened=True)


def _by(effects: Effects, witness: Witness, name: str) -> str:
    replay = witness.sides[name]
    policies = [owner.policy for each in replay.policies if (owner := effects.owner(each)) is not None]
    told = [_named(policy) for policy in policies] + [f"error: {error}" for error in replay.errors]
    return ", ".join(told) or "no policy permits it"


def _named(policy: ReviewedPolicy) -> str:
    return f"{policy.id} ({policy.place.file}:{policy.place.line})"


def _checks(plan: Plan) -> Iterator[Check]:
    # What did not pass is a finding.
    for row in plan.rows:
        if row.outcome in {"narrowed", "unchanged", "no effect"}:
            name = f"{row.action} on {row.resource} is not widened for {_who(row)}"
            yield Check(plan.compared.pair.bundle, name, "passed")
    for action in plan.unchanged:
        yield Check(plan.compared.pair.bundle, f"{action} is not touched", "passed")


def _data(outcome: Outcome, judged: _Judged) -> dict[str, Any]:
    pair = outcome.pair if isinstance(outcome, Incomparable) else outcome.compared.pair
    data: dict[str, Any] = {"bundle": pair.bundle, "base": pair.base.label, "head": pair.head.label}
    if isinstance(outcome, Incomparable):
        return {**data, "decided": False, "why": outcome.why}
    data["signed_by"] = {"base": list(pair.base.signed_by), "head": list(pair.head.signed_by)}
    data["plan"] = [
        {"action": row.action, "resource": row.resource, "principals": _who(row), "outcome": row.outcome}
        for row in outcome.rows
    ]
    data["unchanged"] = list(outcome.unchanged)
    data["widenings"] = [
        {**_widening_data(each), "accepted": each.cause is not None and judged.of(each.subject) is not None}
        for each in outcome.widenings
    ]
    data["narrowings"] = [_narrowing_data(each) for each in outcome.narrowings]
    data["undecided"] = [
        {"action": each.action, "resource": each.resource, "about": each.about, "why": each.why}
        for each in outcome.undecided
    ]
    data["agents"] = [each.told for each in outcome.compared.agent_changes]
    return data


def _widening_data(each: Widening) -> dict[str, Any]:
    return {
        "id": identity(each.subject),
        "subject": each.subject.to_json(),
        "cause": each.cause.told if each.cause else None,
        "before": each.before,
        "after": each.after,
        "witness": each.witness.to_json(),
    }


def _narrowing_data(each: Narrowing) -> Mapping[str, Any]:
    return {
        "action": each.environment.action_id,
        "resource": _short(each.environment.resource_type),
        "principals": list(each.agents.ids),
        "before": each.before,
        "after": each.after,
        "witness": each.witness.to_json(),
    }


def _short(name: str) -> str:
    return name.rsplit("::", 1)[-1]
