"""``cedarbox policy prove``: what policies never, always or sometimes permit, proved, and who can do something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cedarbox.cli import policy_versions as versions
from cedarbox.cli.policy_bundle import BundleOrConfigured, configured_bundle
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.text import printable

if TYPE_CHECKING:
    from cedarbox.review.properties.check import Checker, Result
    from cedarbox.review.properties.files import Property
    from cedarbox.review.subject import Subject

__all__ = ["prove"]

_Sentences = Annotated[
    list[str] | None, typer.Option(metavar="SENTENCE", help="No such request is allowed.", show_default=False)
]
_Others = Annotated[
    list[str] | None,
    typer.Option(metavar="VERSION", help="The same is allowed as by this directory or revision.", show_default=False),
]


def prove(
    bundle: BundleOrConfigured = None,
    *,
    properties: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False,
            help="A property file; may be repeated. By default each properties/*.yaml of the bundle, unless something "
            "below is asked.",
            show_default=False,
        ),
    ] = None,
    never: _Sentences = None,
    always: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SENTENCE", help="Every such request is allowed, without an approval.", show_default=False
        ),
    ] = None,
    reachable: Annotated[
        list[str] | None, typer.Option(metavar="SENTENCE", help="Some such request is allowed.", show_default=False)
    ] = None,
    who_can: Annotated[
        str | None,
        typer.Option(
            metavar="WORDS",
            help="Tell for every agent whether it can, such as 'write /etc' or 'connect to ipClass private'.",
            show_default=False,
        ),
    ] = None,
    equivalent: _Others = None,
    implies: Annotated[
        list[str] | None,
        typer.Option(metavar="VERSION", help="No more is allowed than by it.", show_default=False),
    ] = None,
    disjoint: Annotated[
        list[str] | None, typer.Option(metavar="VERSION", help="Nothing is allowed by both.", show_default=False)
    ] = None,
    schema: versions.Schema = None,
    links: versions.Links = None,
    timeout: versions.Timeout = 10,
    second_opinion: versions.SecondOpinion = False,
    dump_smt: versions.DumpSmt = None,
    cedar: versions.Cedar = None,
    form: Format = "text",
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Prove properties of policies, or find a request that refutes them, replayed through Cedar.

    A sentence says who does what to what: agent in AgentGroup::"untrusted" connects to ipClass private. The files
    beside a bundle have such sentences, each with a name. Not decided is never taken for proved.

    Exit code 0: all hold, or the question is answered. 1: one is refuted. 2: bad input. 3: one is not decided.

    Example: cedarbox policy prove policies/airgapped --never "anyone connects"
    """
    from cedarbox.review.finding import Report
    from cedarbox.review.properties.check import Checker
    from cedarbox.review.properties.files import sentence_property
    from cedarbox.review.properties.report import RULES, property_report, reach_report
    from cedarbox.review.prove import available

    path = bundle or configured_bundle()
    subject = _subject(path, schema, links)
    asked = [
        *(sentence_property("never", each) for each in never or ()),
        *(sentence_property("always", each) for each in always or ()),
        *(sentence_property("reachable", each) for each in reachable or ()),
        *_related("equivalent", equivalent),
        *_related("implies", implies),
        *_related("disjoint", disjoint),
    ]
    if who_can is not None and (asked or properties):
        raise ConfigurationError("--who-can is a question by itself", hint="ask it without the other options")
    question = None if who_can is None else sentence_property("reachable", who_can, who=False)
    claims = [] if question is not None else [*_from_files(path, properties, subject, asked=bool(asked)), *asked]
    if not claims and question is None:
        hint = "write properties/*.yaml beside the policies, or ask with --never or --who-can"
        raise ConfigurationError(f"{path}: no properties", hint=hint)
    if why := available():
        emit(Report("prove", str(path), why, rules=RULES, undecided=True), form, output, as_json=as_json)
    extras = versions.Extras(dump_smt, cedar)
    with (
        versions.progress() as told,
        versions.prover(timeout, second_opinion=second_opinion, extras=extras)(subject.schema) as searcher,
    ):
        checker = Checker(subject, searcher, lambda other: _other(other, path, schema, links), told)
        if question is not None:
            report = reach_report(str(path), who_can or "", checker.who_can(question), checker.owners)
        else:
            results = [_checked(checker, each) for each in claims]
            report = property_report(str(path), results, checker.owners)
    if extras.notes:
        report = replace(report, notes=(*report.notes, *extras.notes))
    emit(report, form, output, as_json=as_json)


def _subject(path: Path, schema: Path | None, links: Path | None) -> Subject:
    from cedarbox.review.revisions import pairs
    from cedarbox.review.subject import Subject

    if schema is None:
        if links is not None:
            raise ConfigurationError("--links is for plain Cedar; bundles have no templates", hint="give --schema too")
        return Subject.load(path)
    found = pairs(_as_directory(path), _as_directory(path), schema=schema, links=links)[0].head.subject()
    assert found is not None  # noqa: S101 - refused before
    return found


def _from_files(path: Path, named: list[Path] | None, subject: Subject, *, asked: bool) -> list[Property]:
    from cedarbox.policy.actions import ACTION_GROUPS
    from cedarbox.review.properties.files import property_files, read_properties
    from cedarbox.review.prove import environments
    from cedarbox.review.syntax import schema_json

    actions = tuple(ACTION_GROUPS)
    if subject.bundle is None:
        actions = tuple(dict.fromkeys(each.action_id for each in environments(schema_json(subject.schema))))
    files = named or (() if asked else property_files(path))
    return [each for file in files for each in read_properties(file, actions=actions)]


def _related(kind: Literal["equivalent", "implies", "disjoint"], others: list[str] | None) -> list[Property]:
    from cedarbox.review.properties.files import Property

    return [Property(f"{kind}: {other}", kind, other=other, told=f"{kind}: {other}") for other in others or ()]


def _checked(checker: Checker, claimed: Property) -> Result:
    try:
        return checker.check(claimed)
    except BundleError:
        raise
    except ConfigurationError as error:
        if claimed.place is None:
            raise
        place = claimed.place
        path = Path(place.file)
        raise BundleError(error.message, path=path, line=place.line, column=place.column, hint=error.hint) from None


def _other(text: str, path: Path, schema: Path | None, links: Path | None) -> Subject:
    from cedarbox.review.revisions import pairs

    # A file beside the policies names its neighbours from where the policies are.
    beside = path / text if text.startswith(("./", "../")) and not Path(text).is_dir() else None
    named = _as_directory(beside) if beside else text
    version = pairs(named, _as_directory(path), schema=schema, links=links)[0].base
    found = version.subject()
    if found is None:
        raise ConfigurationError(f"{printable(text)}: no policies there", hint="name a directory or a revision")
    return found


def _as_directory(path: Path) -> str:
    return str(path) if path.is_absolute() else f"./{path}"
