"""The report of ``policy prove``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from cedarbox.review.finding import Check, Finding, Report, Rule, Section, Status
from cedarbox.review.properties.check import Counterexample, Reach, Result
from cedarbox.review.prove import Witness

__all__ = ["EMPTY", "REFUTED", "RULES", "UNDECIDED", "property_report", "reach_report"]

REFUTED: Final = Rule(
    "P001",
    "property-refuted",
    "error",
    "A property does not hold",
    "There is a request that the property rules out, or none that it promises. The request was replayed through Cedar, "
    "so it is real: change the policies that determined it, or the property if it says too much.",
)
UNDECIDED: Final = Rule(
    "P002",
    "property-not-decided",
    "warning",
    "It could not be proved whether a property holds",
    "The time limit was reached, or a policy uses something that the prover does not know. Nothing is safe that is not "
    "proved: exit code 3. Give it more time with `--timeout`, or write the policy or the property in simpler words.",
)
EMPTY: Final = Rule(
    "P003",
    "property-of-nothing",
    "warning",
    "A property is about no request at all",
    "It holds whatever the policies say, because no request is meant: a group without agents, a name that is not "
    "declared, conditions that exclude each other. Look for a slip in its words.",
)
RULES: Final = (REFUTED, UNDECIDED, EMPTY)
"""All of them."""

_STATUS: Final[dict[str, Status]] = {"holds": "passed", "refuted": "failed", "undecided": "undecided"}
Owners = Callable[[Witness], Sequence[str]]


def property_report(subject: str, results: Sequence[Result], owners: Owners, notes: Sequence[str] = ()) -> Report:
    """Make the report of properties.

    Args:
        subject: What was looked at.
        results: What came of each property.
        owners: Tells the policies that determined a request, with their places.
        notes: What a reader must know besides.
    """
    findings = [finding for result in results if (finding := _finding(result)) is not None]
    verdicts = [result.verdict for result in results]
    counted = [f"{verdicts.count(each)} {word}" for each, word in _COUNTED if each in verdicts]
    rows = [(result.verdict, result.property.name, result.property.told, _why(result)) for result in results]
    sections = [Section("Properties", (), ("verdict", "property", "claim", "because"), tuple(rows))]
    sections += [section for result in results for section in _sections(result, owners)]
    return Report(
        "prove",
        subject,
        f"{_plural(len(results))}: {', '.join(counted) or 'none'}",
        findings,
        [_check(result, subject) for result in results],
        sections,
        notes,
        RULES,
        {"properties": [_data(result) for result in results]},
        failed="refuted" in verdicts,
        undecided="undecided" in verdicts,
    )


def reach_report(subject: str, question: str, reached: Sequence[Reach], owners: Owners) -> Report:
    """Make the report of who can do something.

    Args:
        subject: What was looked at.
        question: What was asked.
        reached: The answer for each class of agents.
        owners: As for :func:`property_report`.
    """
    rows = []
    for each in reached:
        if not each.found:
            rows.append((each.verdict, each.agents.told, "; ".join(each.undecided), ""))
        rows += [("yes", each.agents.told, one.witness.told(), ", ".join(owners(one.witness))) for one in each.found]
    able = [each.agents.told for each in reached if each.verdict == "yes"]
    unknown = [each.agents.told for each in reached if each.undecided]
    parts = [f"{', '.join(able)} can" if able else "no declared agent can, proved" if not unknown else ""]
    parts.append(f"not decided for {', '.join(unknown)}" if unknown else "")
    findings = [
        Finding(UNDECIDED.id, "warning", f"{question}: not decided for {each.agents.told}: {'; '.join(each.undecided)}")
        for each in reached
        if each.undecided
    ]
    data = [
        {
            "agents": list(each.agents.ids) or [each.agents.told],
            "can": each.verdict,
            "undecided": list(each.undecided),
            "requests": [example.witness.to_json() for example in each.found],
        }
        for each in reached
    ]
    section = Section(f"Who can {question}?", (), ("can", "agents", "request", "by"), tuple(rows))
    return Report(
        "prove",
        subject,
        "; ".join(part for part in parts if part),
        findings,
        (),
        [section],
        (),
        RULES,
        {"question": question, "agents": data},
        undecided=bool(unknown),
    )


_COUNTED: Final = (("holds", "proved"), ("refuted", "refuted"), ("undecided", "not decided"))


def _plural(number: int) -> str:
    return f"{number} propert{'y' if number == 1 else 'ies'}"


def _finding(result: Result) -> Finding | None:
    claimed = result.property
    where = claimed.place
    if result.verdict == "refuted":
        told = [each.witness.told() for each in result.found[:1]] or [result.why]
        by = _determining(result.found)
        message = f"{claimed.name!r} does not hold: {told[0]}{by}"
        data = {"requests": [each.witness.to_json() for each in result.found]}
        hint = "change the policy, or the property"
        return Finding(REFUTED.id, "error", message, where, hint=hint, details=data, key=claimed.name)
    if result.verdict == "undecided":
        message = f"{claimed.name!r} was not decided: {result.why}"
        hint = "nothing is safe that is not proved"
        return Finding(UNDECIDED.id, "warning", message, where, hint=hint, key=claimed.name)
    if result.empty:
        message = f"{claimed.name!r} holds of no request at all: {claimed.told}"
        hint = "look for a slip in its words, or a group without agents"
        return Finding(EMPTY.id, "warning", message, where, hint=hint, key=claimed.name)
    return None


def _determining(found: Sequence[Counterexample]) -> str:
    ids = next((replay.policies for each in found[:1] for replay in each.witness.sides.values()), ())
    return f" is allowed by {', '.join(ids)}" if ids else " is denied" if found else ""


def _why(result: Result) -> str:
    if result.verdict == "undecided":
        return result.why
    if result.verdict == "holds":
        told = "of no request at all" if result.empty else f"{', '.join(result.solvers)} in {result.seconds:.2f} s"
        return "an example was found" if result.found else told
    return f"{len(result.found)} counterexample{'s' if len(result.found) != 1 else ''}" if result.found else result.why


def _sections(result: Result, owners: Owners) -> Iterator[Section]:
    if not result.found:
        return
    rows = []
    for each in result.found:
        answers = [f"{name}: {'allow' if replay.allowed else 'deny'}" for name, replay in each.witness.sides.items()]
        if len(answers) == 1:
            answers = [answers[0].split(": ", 1)[1]]
        rows.append(
            (each.witness.told(), ", ".join(answers), ", ".join(owners(each.witness)) or "no policy permits it")
        )
    title = "Example" if result.verdict == "holds" else "Refuted"
    yield Section(f"{title}: {result.property.name}", (), ("request", "answer", "determined by"), tuple(rows))


def _check(result: Result, subject: str) -> Check:
    claimed = result.property
    suite = claimed.place.file if claimed.place else subject
    finding = _finding(result)
    message = finding.message if finding is not None and result.verdict != "holds" else ""
    return Check(suite, claimed.name, _STATUS[result.verdict], message, claimed.place, result.seconds)


def _data(result: Result) -> dict[str, Any]:
    claimed = result.property
    return {
        "name": claimed.name,
        "claim": claimed.told,
        "means": [about.told for about in claimed.about],
        "file": claimed.place.file if claimed.place else None,
        "line": claimed.place.line if claimed.place else None,
        "verdict": result.verdict,
        "why": result.why,
        "about_no_request": result.empty,
        "solvers": list(result.solvers),
        "seconds": round(result.seconds, 3),
        "requests": [each.witness.to_json() for each in result.found],
    }
