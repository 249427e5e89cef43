"""``cedarbox policy explain``: one decision in words, and what would have to change for another."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

import typer

from cedarbox.cli.policy_bundle import Bundle, Principal
from cedarbox.cli.policy_endpoints import print_endpoints
from cedarbox.cli.policy_reporting import AsJson, Output, emit
from cedarbox.errors import ConfigurationError

if TYPE_CHECKING:
    from cedarbox.policy.bundle import PolicyBundle
    from cedarbox.review.explain.requests import Request
    from cedarbox.review.reports import FormatName

__all__ = ["explain"]

_MAX_REQUEST: Final = 1024 * 1024
_AGENT: Final = re.compile(r'(?:Sandbox::)?Agent::"(.*)"', re.DOTALL)


def explain(
    bundle: Bundle,
    given: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ACTION] [NAME=VALUE]…",
            help="The request, with the arguments of the test tables; with --record, what the record lacks.",
            show_default=False,
        ),
    ] = None,
    *,
    case: Annotated[
        str | None, typer.Option(metavar="FILE:LINE[:TITLE]", help="The request of a test case.", show_default=False)
    ] = None,
    request: Annotated[
        Path | None,
        typer.Option(readable=False, help="A request in Cedar's JSON form, from a file.", show_default=False),
    ] = None,
    record: Annotated[
        int | None,
        typer.Option(min=0, help="The request of a record of the ledger, by its number.", show_default=False),
    ] = None,
    ledger: Annotated[
        Path | None,
        typer.Option(readable=False, help="Directory of the ledger; by default that of the settings."),
    ] = None,
    stream: Annotated[
        str | None, typer.Option(help="The stream of the record, where two have its number.", show_default=False)
    ] = None,
    endpoints: Annotated[
        bool, typer.Option("--endpoints", help="What an agent may connect to; the same as policy endpoints.")
    ] = False,
    principal: Principal = None,
    form: Annotated[
        Literal["text", "json", "junit", "tap", "sarif", "github", "gitlab", "markdown", "table", "csv"] | None,
        typer.Option("--format", help="How to print it; table and csv go with --endpoints.", show_default="text"),
    ] = None,
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Explain one decision: by which policies, which of their conditions held, and what would have to change.

    That is the smallest change of the request that turns the decision around. Every part of a policy and every change
    that is told was decided by Cedar. A change is told only when cedarbox could ask about it. Where
    nothing smaller is proved, it says that the search was not exhaustive.

    A record holds less than the request. What it lacks is told, never guessed: add it with NAME=VALUE.

    Exit code 0: explained, whatever the decision. 2: the bundle, the request or an option cannot be used. With
    --endpoints as policy endpoints.

    Example: cedarbox policy explain policies/internal-mirror connect principal=agent target=mirror.corp.example
    port=8443 proto=tls ip=10.0.0.5
    """
    if endpoints:
        if given or case or request or record is not None:
            raise ConfigurationError("--endpoints explains no request", hint="leave the request out")
        if form not in {None, "table", "csv", "json"}:
            raise ConfigurationError(f"--endpoints cannot be printed as {form}", hint="give table, csv or json")
        print_endpoints(bundle, principal, "json" if as_json else (form or "table"))
    if form in {"table", "csv"}:
        raise ConfigurationError(f"a decision cannot be printed as {form}", hint="give text, json or markdown")
    sources = [name for name, there in _sources(given, case, request, record).items() if there]
    if len(sources) != 1:
        told = " and ".join(sources) if sources else "nothing to explain"
        hint = "give an action with its arguments, --case, --request, --record, or --endpoints"
        raise ConfigurationError(f"which request? {told}", hint=hint)

    from cedarbox.review.explain.decision import explain as explained
    from cedarbox.review.explain.decision import report_of
    from cedarbox.review.explain.requests import of_arguments, of_document
    from cedarbox.review.subject import Subject

    subject = Subject.load(bundle)
    loaded, recorded = cast("PolicyBundle", subject.bundle), ""
    if case is not None:
        from cedarbox.review.cases import Suite
        from cedarbox.review.explain.requests import of_case

        suite = Suite.load(loaded)
        loaded, asked = suite.bundle, of_case(suite.cases, case)
    elif request is not None:
        asked = of_document(request, _text(request))
    elif record is not None:
        asked, recorded = _recorded(record, ledger, stream, given or [], loaded)
    else:
        action, *arguments = given or [""]
        only = next(iter(loaded.principals)) if len(loaded.principals) == 1 else None
        asked = of_arguments(action, arguments, default_principal=principal or only)
    answer = explained(subject, asked, bundle=loaded)
    if recorded and recorded != ("allow" if answer.decision.allowed else "deny"):
        why = f"this explanation is of another decision than record {record} holds: the bundle or what it lacks differs"
        answer = replace(answer, request=replace(asked, notes=(*asked.notes, why)))
    emit(report_of(answer), cast("FormatName", form or "text"), output, as_json=as_json)


def _sources(given: list[str] | None, case: str | None, request: Path | None, record: int | None) -> dict[str, bool]:
    return {
        "an action": bool(given) and record is None,
        "--case": case is not None,
        "--request": request is not None,
        "--record": record is not None,
    }


def _text(path: Path) -> str:
    from cedarbox.review.limited import limited_text

    return limited_text(path, _MAX_REQUEST, hint="one request is small")


def _recorded(
    number: int, ledger: Path | None, stream: str | None, given: list[str], bundle: PolicyBundle
) -> tuple[Request, str]:
    """Return the request of a record, and what the record says was decided."""
    from cedarbox.audit.browse import browse
    from cedarbox.audit.files import INDEX
    from cedarbox.audit.query import Query
    from cedarbox.cli.audit_filters import Unreadable, ledger_directory
    from cedarbox.review.explain.records import Facts, of_record

    directory = ledger_directory(ledger)
    unreadable = Unreadable()
    records = browse(directory, Query(stream=stream), unreadable=unreadable)
    found = [(of, each) for of, each in records if each.seq == number and of != INDEX]
    if len(found) != 1:
        unreadable.exit()
        told = f"{len(found)} streams have a record {number}" if found else f"there is no record {number}"
        hint = f"give --stream: {', '.join(of for of, _ in found)}" if found else "see: cedarbox audit show"
        raise ConfigurationError(f"{directory}: {told}", hint=hint)
    record, entry = found[0][1], found[0][1].entry
    if entry.event != "decision":
        hint = "give the number of a decision; see: cedarbox audit show --event decision"
        raise ConfigurationError(f"{directory}: record {number} is no decision but {entry.event}", hint=hint)
    named = entry.principal or ""
    agent = _AGENT.fullmatch(named)
    summary = entry.attrs.get("summary")
    facts = Facts(
        number=number,
        action=entry.action or "",
        resource=entry.resource or "",
        summary=summary if isinstance(summary, str) else "",
        time=record.time,
        principal=agent[1] if agent else named,
        tool=entry.tool,
    )
    by = " and ".join(entry.policies) or "no policy"
    other = "" if entry.bundle in {None, bundle.digest} else f", under another bundle ({entry.bundle})"
    note = f"record {number} says {entry.decision} by {by}{other}"
    return replace(made := of_record(facts, given), notes=(note, *made.notes)), entry.decision or ""
