"""One decision, explained: the answer, the parts of the policies, the smallest change that turns it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cedarbox.errors import CanonicalizationError
from cedarbox.policy import Decision, PolicyEngine
from cedarbox.policy.bundle import PolicyBundle
from cedarbox.policy.canonical import ip_class
from cedarbox.review.arguments import Value, arguments_of, build
from cedarbox.review.explain.flips import Flip, Search, changed, search
from cedarbox.review.explain.parts import Part, PolicyParts, parts_of
from cedarbox.review.explain.requests import Request
from cedarbox.review.finding import Place, Report, Section
from cedarbox.review.subject import ReviewedPolicy, Subject
from cedarbox.review.syntax import Syntax, place_of, syntax_of
from cedarbox.review.words import sentence_of

__all__ = ["Explained", "explain", "report_of"]

_SHOWN: Final = 12
"""Policies that are shown in full to people; programs get all."""
_FLIPS: Final = 6


@dataclass(frozen=True)
class Explained:
    """A decision and why it is so.

    Attributes:
        subject: The bundle.
        request: The request.
        decision: The answer.
        parts: Every policy of the action with its parts; empty when none was evaluated.
        found: The changes that would turn it; None when none was looked for.
        least: What is known of smaller changes, in one sentence.
    """

    subject: Subject
    request: Request
    decision: Decision
    parts: tuple[PolicyParts, ...]
    found: Search | None
    least: str


def explain(
    subject: Subject,
    request: Request,
    *,
    bundle: PolicyBundle | None = None,
    flips: bool = True,
    time_limit_s: float = 5.0,
) -> Explained:
    """Explain the decision of a request.

    Args:
        subject: A bundle.
        request: The request.
        bundle: The bundle with agents that only its tests know; that of the subject when not given.
        flips: Look for changes that would turn it.
        time_limit_s: For the solver, where one is needed to tell that nothing smaller turns it.

    Raises:
        ValueError: The subject is no bundle.
    """
    bundle = bundle or subject.bundle
    if bundle is None:
        raise ValueError("only requests to a cedarbox bundle can be explained")
    engine = PolicyEngine(bundle)
    if request.made is None:
        return Explained(subject, request, engine.refusal(request.refusal), (), None, _CANONICAL)
    decision = engine.decide(request.principal, request.made)
    if request.principal not in bundle.principals:
        found = _as_others(engine, request) if flips else None
        return Explained(subject, request, decision, (), found, "An agent that is not declared is denied everything.")
    asked = {policy.id for policy in bundle.policies if request.action in policy.actions}
    policies = [policy for policy in subject.policies if policy.id in asked]
    parts = parts_of(bundle, policies, request.principal, request.made, locate=_Sources())
    if not flips:
        return Explained(subject, request, decision, parts, None, "")
    found = search(engine, request.principal, request.action, request.values, allowed=decision.allowed, parts=parts)
    found, least = _least(engine, request, found, allowed=decision.allowed, time_limit_s=time_limit_s)
    return Explained(subject, request, decision, parts, found, least)


_CANONICAL: Final = "No policy was asked: spell it so that it has one canonical form."


def _as_others(engine: PolicyEngine, request: Request) -> Search:
    assert request.made is not None  # noqa: S101 - the caller looked
    flips = []
    for other in sorted(engine.bundle.principals):
        decision = engine.decide(other, request.made)
        if decision.allowed:
            change: Mapping[str, Value] = {"principal": other}
            flips.append(Flip(other, request.values, request.made, change, frozenset({"principal"}), decision))
    return Search(tuple(flips), len(engine.bundle.principals), whole=True, least_is_proved=bool(flips))


def _least(  # noqa: PLR0911  # one return for each thing that can be known
    engine: PolicyEngine, request: Request, found: Search, *, allowed: bool, time_limit_s: float
) -> tuple[Search, str]:
    """Return what was found, and what is known of smaller changes."""
    if found.none_is_proved:
        none = "no permit of this bundle can apply to one"
        return found, f"No request with the action {request.action} can be permitted: {none}."
    if found.size == 1:
        return found, "Each of these changes one thing: no smaller change exists."
    if found.least_is_proved:
        return found, f"No smaller change exists: for every permit at least {found.size} things would have to change."
    tried = f"{found.tried} requests were tried, and the search was not exhaustive."
    assert request.made is not None  # noqa: S101 - it was searched for
    # Imported here because most explanations need no solver.
    from cedarbox.review.explain.smaller import smaller

    asked = smaller(
        engine,
        request.principal,
        request.made,
        allowed=allowed,
        most=found.size - 1 if found.flips else None,
        time_limit_s=time_limit_s,
    )
    if asked.flip is not None:
        flip = _shrunk(engine, request, asked.flip, allowed=allowed)
        better, rest = _least(
            engine, request, replace(found, flips=(flip,), whole=False), allowed=allowed, time_limit_s=time_limit_s
        )
        return better, f"{asked.words} {rest}"
    if asked.none and found.flips:
        return replace(found, least_is_proved=True), f"No smaller change exists. {asked.words}"
    if asked.none:
        answer = "denied" if allowed else "permitted"
        told = f"No request of a declared agent with the action {request.action} is {answer}. {asked.words}"
        return replace(found, none_is_proved=True), told
    if found.flips:
        return found, f"A smaller change may exist: {tried} {asked.words}"
    return found, f"None is decided otherwise: {tried} {asked.words}"


def _shrunk(engine: PolicyEngine, request: Request, flip: Flip, *, allowed: bool) -> Flip:
    """Take back what of a change that a solver found has no part in it."""
    assert request.made is not None  # noqa: S101 - the solver was asked about it
    best = replace(flip, change=_change(request, flip))
    for name in best.change:
        less = {other: value for other, value in best.change.items() if other != name}
        values = {**request.values, **less}
        principal = str(values.pop("principal", request.principal))
        try:
            made = build(request.action, values)
        except (CanonicalizationError, ValueError, OverflowError):
            continue
        decision = engine.decide(principal, made)
        seen = changed(request.principal, request.made, principal, made)
        # Fewer arguments can be more for a policy: without the address of a name there is none at all.
        if decision.allowed is not allowed and not decision.errors and seen and seen <= best.seen:
            best = Flip(principal, values, made, less, seen, decision)
    return best


def _change(request: Request, flip: Flip) -> Mapping[str, Value]:
    """Return what is different of a request that a solver found."""
    known = arguments_of(request.action)
    change: dict[str, Value] = {}
    if flip.principal != request.principal:
        change["principal"] = flip.principal
    for name, argument in known.items():
        was, new = (values.get(name, argument.default) for values in (request.values, flip.values))
        # A time has more than one spelling.
        if was != new and (name != "at" or "context.base.at" in flip.seen):
            change[name] = new
    return change


class _Sources:
    """Finds the source of parts of policies; each policy is parsed once."""

    def __init__(self) -> None:
        self._known: dict[str, Syntax | None] = {}

    def __call__(self, policy: ReviewedPolicy, path: tuple[str | int, ...]) -> tuple[str, Place] | None:
        if policy.id not in self._known:
            self._known[policy.id] = syntax_of(policy.text, policy.est)
        syntax = self._known[policy.id]
        if syntax is None:
            return None
        try:
            span = syntax.span(path)
        except KeyError:
            return None
        return " ".join(policy.text[span.start : span.end].split()), place_of(policy, span)


def report_of(told: Explained) -> Report:
    """Return an explanation as a report."""
    decision = told.decision
    verdict = "allow" if decision.allowed else "deny"
    by = " and ".join(decision.policies) or ("an error" if decision.errors else "no policy")
    sections = [_answer(told, verdict, by)]
    # What decided comes first, then what nearly did. A forbid that does not apply has no part in a denial.
    turning = "forbid" if decision.allowed else "permit"
    ordered = sorted(
        told.parts,
        key=lambda each: (each.policy.id not in decision.policies, each.policy.effect != turning, len(each.failed)),
    )
    sections += [_policy(each) for each in ordered[:_SHOWN]]
    notes = list(told.request.notes)
    if len(ordered) > _SHOWN:
        notes.append(f"{len(ordered) - _SHOWN} more policies of this action do not apply; --json has their parts too")
    changes = [] if told.found is None else [_flip_words(flip, told.request) for flip in told.found.flips]
    if told.found is not None or told.least:
        rest = [f"… and {len(changes) - _FLIPS} more"] if len(changes) > _FLIPS else []
        lines = [*changes[:_FLIPS], *rest, *([told.least] if told.least else [])]
        sections.append(Section("what would have to change", tuple(lines)))
    first = f"; {changes[0]}" if changes else ""
    return Report(
        command="explain",
        subject=told.subject.label,
        summary=f"{verdict} by {by}{first}",
        sections=sections,
        notes=notes,
        data=_data(told, verdict, changes),
    )


def _answer(told: Explained, verdict: str, by: str) -> Section:
    decision, request = told.decision, told.request
    lines = [f"{verdict.upper()} by {by}"]
    lines += [f"error: {error}" for error in decision.errors]
    if not decision.policies and not decision.errors:
        lines.append("no policy permits it, and what nothing permits is denied")
    for name in decision.policies:
        policy = told.subject.by_id[name]
        lines.append(f"{policy.effect} {name}, {policy.place.file}:{policy.place.line}")
        lines += [f"  {key}: {policy.annotations[key]}" for key in ("reason", "advice") if policy.annotations.get(key)]
    if decision.approval is not None:
        lines.append(f"it still needs an approval by one of: {', '.join(sorted(decision.approval.approvers))}")
    asked = f"{request.action} principal={request.principal}"
    known = arguments_of(request.action)
    said = [
        f"{name}={_value(value)}"
        for name, value in request.values.items()
        if known[name].required or value != known[name].default
    ]
    lines.append(f"asked: {' '.join([asked, *said])}")
    return Section("decision", tuple(lines))


_MARKS: Final[Mapping[str, str]] = {
    "held": "yes",
    "failed": "no",
    "unreached": "not reached",
    "error": "error",
}


def _policy(told: PolicyParts) -> Section:
    policy = told.policy
    failed = len(told.failed)
    if told.error:
        outcome = "cannot be evaluated, so everything is denied"
    elif told.applies:
        outcome = "applies"
    else:
        parts = f"{failed} of {len(told.parts)} parts do" if failed > 1 else f"1 of {len(told.parts)} parts does"
        outcome = f"does not apply: {parts} not hold"
    lines = [str(sentence_of(policy.est))]
    if told.error:
        lines.append(f"error: {told.error}")
    rows = [
        (
            _MARKS[part.status],
            f"{'not ' if part.kind == 'unless' else ''}{part.text}",
            "; ".join(part.values) if part.status != "error" else part.error,
            f"line {part.place.line}",
        )
        for part in told.parts
    ]
    title = f"{policy.effect} {policy.id} ({policy.place.file}:{policy.place.line}) {outcome}"
    columns = ("holds", "what it asks for", "the request has", "where") if rows else ()
    return Section(title, tuple(lines), columns, tuple(rows))


def _flip_words(flip: Flip, request: Request) -> str:
    known = arguments_of(request.action)
    said = []
    for name, value in flip.change.items():
        was = request.principal if name == "principal" else request.values.get(name, known[name].default)
        said.append(f"{name} were {_new(name, value, flip)} (it is {_value(was)})")
    answer = "permitted" if flip.decision.allowed else "denied"
    by = f", by {' and '.join(flip.decision.policies)}" if flip.decision.policies else ""
    needs = ", with an approval" if flip.decision.approval is not None else ""
    joined = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return f"{answer} if {joined}{by}{needs}"


def _new(name: str, value: Value, flip: Flip) -> str:
    if name == "ip" and value is not None:
        held = flip.made.context.get("ip")
        if isinstance(held, Mapping):
            of_class = ip_class(ipaddress.ip_address(held["__extn"]["arg"]))
            return f"{value}, a {of_class.replace('_', '-')} address"
    return _value(value)


def _value(value: Value) -> str:
    if isinstance(value, tuple):
        return f"{' '.join(value)!r}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def _data(told: Explained, verdict: str, changes: list[str]) -> dict[str, Any]:
    decision, request, found = told.decision, told.request, told.found
    return {
        "bundle": decision.bundle,
        "request": {
            "principal": request.principal,
            "action": request.action,
            "arguments": dict(request.values),
            "resource": None if request.made is None else str(request.made.resource),
            "context": None if request.made is None else dict(request.made.context),
        },
        "decision": verdict,
        "determined_by": [_named(told.subject.by_id[name]) for name in decision.policies],
        "reason": decision.reason,
        "advice": decision.advice,
        "errors": list(decision.errors),
        "approvers": sorted(decision.approval.approvers) if decision.approval is not None else [],
        "policies": [
            {
                **_named(each.policy),
                "words": str(sentence_of(each.policy.est)),
                "applies": each.applies,
                "error": each.error,
                "parts": [_part(part) for part in each.parts],
            }
            for each in told.parts
        ],
        "changes": [
            {
                "words": words,
                "change": dict(flip.change),
                "seen": sorted(flip.seen),
                "decision": "allow" if flip.decision.allowed else "deny",
                "determined_by": list(flip.decision.policies),
            }
            for words, flip in zip(changes, found.flips if found else (), strict=True)
        ],
        "smallest": {
            "size": found.size if found else 0,
            "proved": bool(found and (found.least_is_proved or found.none_is_proved)),
            "tried": found.tried if found else 0,
            "words": told.least,
        },
    }


def _named(policy: ReviewedPolicy) -> dict[str, Any]:
    return {
        "id": policy.id,
        "effect": policy.effect,
        "file": policy.place.file,
        "line": policy.place.line,
        "reason": policy.annotations.get("reason", ""),
        "advice": policy.annotations.get("advice", ""),
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "kind": part.kind,
        "text": part.text,
        "words": str(part.words),
        "status": part.status,
        "request": list(part.values),
        "error": part.error,
        "line": part.place.line,
        "column": part.place.column,
    }
