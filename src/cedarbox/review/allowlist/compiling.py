"""Compiles what an agent may connect to into the allow-list of a backend, and holds any list against the policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cedarpy

from cedarbox.policy import PolicyEngine
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.cards import card_list
from cedarbox.policy.endpoints import Endpoints
from cedarbox.policy.endpoints import endpoints as endpoints_of
from cedarbox.review.allowlist.cedar import policy_of
from cedarbox.review.allowlist.forms import Backend, Entry
from cedarbox.review.allowlist.judge import Left, Verdict, judge, left_closed
from cedarbox.review.finding import Check, Finding, Place, Report, Rule, Section
from cedarbox.review.subject import ReviewedPolicy, Subject

__all__ = ["Compiled", "check_list", "compile_list", "report_of"]

WIDER = Rule("C100", "list-wider-than-policies", "error", "an allow-list opens what the policies deny")
UNTOLD = Rule("C101", "list-cannot-tell-condition", "error", "a policy depends on more than a list can tell")
CLOSED = Rule("C102", "list-leaves-closed", "note", "an allow-list leaves closed what the policies permit")
UNDECIDED = Rule(
    "C103", "list-not-proved", "error", "whether the policies permit all that an entry opens is not proved"
)
RULES = (WIDER, UNTOLD, CLOSED, UNDECIDED)


@dataclass(frozen=True)
class Compiled:
    """A list, and how it compares to the policies.

    Attributes:
        subject: The bundle.
        agent: Id of the agent.
        backend: Whose list it is.
        verdicts: Each entry, and what is known of it.
        proof: What the solver said.
        left: What the policies permit and the list leaves closed.
        why: Why so, in words, for some of it.
        untold: Permits that depend on more than a list can tell, with what that is.
        notes: What else a reader of the policies should know, see :class:`cedarbox.policy.endpoints.Endpoints`.
        narrow: They were to be left out.
        given: The list was given, not made here.
    """

    subject: Subject
    agent: str
    backend: Backend
    verdicts: tuple[Verdict, ...]
    proof: str
    left: tuple[Left, ...]
    why: tuple[str, ...]
    untold: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    narrow: bool
    given: bool

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The entries."""
        return tuple(verdict.entry for verdict in self.verdicts)

    @property
    def wider(self) -> tuple[Verdict, ...]:
        """The entries that open something that is denied."""
        return tuple(verdict for verdict in self.verdicts if verdict.said == "wider")

    @property
    def undecided(self) -> tuple[Verdict, ...]:
        """The entries of which that is not known."""
        return tuple(verdict for verdict in self.verdicts if verdict.said == "unknown")

    @property
    def refused(self) -> bool:
        """It must not be used: it is wider, or leaves out what nobody said it may."""
        return bool(self.wider) or (bool(self.untold) and not self.narrow and not self.given)

    @property
    def good(self) -> bool:
        """It is proved to be equal to the policies, or narrower, and may be used."""
        return not self.refused and not self.undecided

    @property
    def text(self) -> str:
        """The list as the backend takes it."""
        return self.backend.write(self.entries, self.agent, _bundle(self.subject).digest)


def compile_list(
    subject: Subject, agent: str, backend: Backend, *, narrow: bool = False, time_limit_s: float = 20.0
) -> Compiled:
    """Compile what an agent may connect to into a list.

    Only entries are in it of which all that they open is permitted.

    Args:
        subject: A bundle.
        agent: Id of the agent, which the bundle declares.
        backend: Whose list.
        narrow: Leave out what depends on more than a list can tell, instead of refusing.
        time_limit_s: For the solver.
    """
    engine = PolicyEngine(_bundle(subject))
    found = endpoints_of(engine, agent)
    wanted: dict[str, Entry] = {}
    for endpoint in found.entries:
        for entry in backend.entries(endpoint):
            if all(found.permits(box) for box in entry.opens):
                wanted[entry.text] = entry
    kept = tuple(wanted.values())
    return _compared(
        subject, agent, backend, found, kept, engine=engine, narrow=narrow, given=False, limit_s=time_limit_s
    )


def check_list(subject: Subject, agent: str, backend: Backend, text: str, *, time_limit_s: float = 20.0) -> Compiled:
    """Hold a list against the policies.

    Args:
        subject: A bundle.
        agent: Id of the agent, which the bundle declares.
        backend: Whose list it is.
        text: The list, in the form that :attr:`Compiled.text` has.
        time_limit_s: For the solver.

    Raises:
        ConfigurationError: It is no such list.
    """
    engine = PolicyEngine(_bundle(subject))
    found = endpoints_of(engine, agent)
    entries = tuple(backend.parse(entry) for entry in dict.fromkeys(backend.read(text)))
    return _compared(
        subject, agent, backend, found, entries, engine=engine, narrow=False, given=True, limit_s=time_limit_s
    )


def _compared(
    subject: Subject,
    agent: str,
    backend: Backend,
    found: Endpoints,
    entries: Sequence[Entry],
    *,
    engine: PolicyEngine,
    narrow: bool,
    given: bool,
    limit_s: float,
) -> Compiled:
    verdicts, proof = judge(engine, agent, found, entries, time_limit_s=limit_s)
    left = left_closed(engine, agent, found, entries)
    untold = {each.policy: "; ".join(sorted(each.box.conditions)) for each in found.entries if each.box.conditions}
    for each in found.entries:
        if each.excepted and each.policy not in untold:
            untold[each.policy] = f"some of it is forbidden by {', '.join(sorted({f.policy for f in each.excepted}))}"
    untold |= {item.policy: item.text for item in found.unknown}
    if not found.certain:
        untold |= {
            each.policy: "a policy may fail to evaluate, and then everything is denied" for each in found.entries
        }
    why = card_list(found).dropped if backend.name == "boxlite" else ()
    return Compiled(
        subject,
        agent,
        backend,
        verdicts,
        proof,
        left,
        why,
        tuple(untold.items()),
        found.notes,
        narrow=narrow,
        given=given,
    )


def _bundle(subject: Subject) -> PolicyBundle:
    if subject.bundle is None:
        raise ValueError("only a cedarbox bundle can be compiled")
    return subject.bundle


def report_of(told: Compiled) -> Report:
    """Return a compilation as a report."""
    bundle = _bundle(told.subject)
    findings = [*_wrong(told), *_untold(told), *_closed(told)]
    checks = [
        Check(
            f"{told.backend.name} list of {told.agent}",
            verdict.entry.text,
            {"within": "passed", "wider": "failed", "unknown": "undecided"}[verdict.said],  # type: ignore[arg-type]
            "" if verdict.said == "within" else _message(verdict),
        )
        for verdict in told.verdicts
    ]
    rows = tuple((verdict.entry.text, _SAID[verdict.said], verdict.how) for verdict in told.verdicts)
    lines = [f"{told.backend.name} opens {told.backend.opens}"]
    lines += [f"not held up by a list: {text}" for text in told.backend.lacks]
    return Report(
        command="compile",
        subject=told.subject.label,
        summary=_summary(told),
        findings=findings,
        checks=checks,
        sections=[
            Section(
                f"list of {told.agent} for {told.backend.name}",
                tuple(lines),
                ("entry", "the policies permit all of it", "how that is known") if rows else (),
                rows,
            )
        ],
        notes=[told.proof, *told.notes],
        rules=[rule for rule in RULES if any(finding.rule == rule.id for finding in findings)],
        data={
            "bundle": bundle.digest,
            "principal": told.agent,
            "backend": told.backend.name,
            "opens": told.backend.opens,
            "lacks": list(told.backend.lacks),
            "good": told.good,
            "equal": told.good and not told.left,
            "entries": [verdict.entry.text for verdict in told.verdicts],
            "list": told.text if told.good else None,
            "cedar": _cedar(told),
            "proof": told.proof,
            "left_closed": [
                {"policy": left.policy, "witness": left.witness, "why": _why(told, left.policy)} for left in told.left
            ],
        },
        failed=told.refused,
        undecided=bool(told.undecided),
    )


_SAID = {"within": "yes", "wider": "NO", "unknown": "not proved"}


def _summary(told: Compiled) -> str:
    what = f"{told.backend.name} list of {told.agent}: {len(told.verdicts)} entries"
    if told.wider:
        return f"{what}, {len(told.wider)} of them open what the policies deny"
    if told.refused:
        ids = ", ".join(policy for policy, _ in told.untold)
        return f"refused: {ids} cannot be told in a list"
    if told.undecided:
        return f"{what}, {len(told.undecided)} of them not proved to lie within the policies"
    if not told.left:
        return f"{what}, equal to the policies{' about single connections' if told.notes else ''}"
    return f"{what}, narrower than the policies: {len(told.left)} of them are not, or not all, in it"


def _wrong(told: Compiled) -> list[Finding]:
    found = []
    for verdict in told.verdicts:
        if verdict.said == "within":
            continue
        rule = WIDER if verdict.said == "wider" else UNDECIDED
        found.append(
            Finding(
                rule.id,
                rule.severity,
                _message(verdict),
                hint="take it off the list" if verdict.said == "wider" else told.proof,
                details={"entry": verdict.entry.text, "witness": verdict.witness},
                key=verdict.entry.text,
            )
        )
    return found


def _message(verdict: Verdict) -> str:
    if verdict.said == "wider":
        return f"{verdict.entry.text} opens {verdict.witness}, which is denied: {verdict.reason}"
    return f"{verdict.entry.text}: {verdict.how}"


def _untold(told: Compiled) -> list[Finding]:
    if told.given:
        return []
    return [
        Finding(
            UNTOLD.id,
            "note" if told.narrow else "error",
            f"it depends on more than a list can tell: {text}",
            _place(told, policy),
            policy,
            hint="" if told.narrow else "--narrow leaves it out; with the broker each connection is decided by itself",
            key=policy,
        )
        for policy, text in told.untold
    ]


def _closed(told: Compiled) -> list[Finding]:
    said = []
    for left in told.left:
        such = f", such as {left.witness}" if left.witness else ""
        why = "; ".join(_why(told, left.policy))
        message = f"the list leaves closed what it permits{such}{f': {why}' if why else ''}"
        said.append(Finding(CLOSED.id, "note", message, _place(told, left.policy), left.policy, key=left.policy))
    return said


def _why(told: Compiled, policy: str) -> list[str]:
    return [text.partition(": ")[2] for text in told.why if text.startswith(f"{policy}: ")]


def _place(told: Compiled, policy: str) -> Place | None:
    known: ReviewedPolicy | None = told.subject.by_id.get(policy)
    return None if known is None else known.place


def _cedar(told: Compiled) -> str:
    """Return the list as Cedar policies: what was proved, for whoever wants to see it."""
    made: dict[str, Any] = {
        f"{number}.{part}": {**policy_of(box, told.agent), "annotations": {"id": f"{verdict.entry.text}#{part}"}}
        for number, verdict in enumerate(told.verdicts)
        for part, box in enumerate(verdict.entry.opens)
    }
    if not made:
        return ""
    return cedarpy.policies_from_json_str(json.dumps({"staticPolicies": made, "templates": {}, "templateLinks": []}))
