"""``cedarbox policy test``: the test cases beside a bundle, how much they cover, what they would miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cedarbox.cli.policy_bundle import BundleOrConfigured, configured_bundle
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import write_file

if TYPE_CHECKING:
    from cedarbox.review.case_report import Ran
    from cedarbox.review.cases import Suite
    from cedarbox.review.cedar_tests import CedarSuite
    from cedarbox.review.mutants import Mutant

__all__ = ["test"]

_FEW: Final = 5
"""So many unnoticed changes are looked into without being asked for: it takes a moment, and more take their time."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be tested, and how."""

    root: Path
    schema: Path | None
    links: Path | None
    tests: Path | None
    export: Path | None
    patterns: Sequence[str]
    fail_fast: bool
    slowest: int
    threshold: float
    table: bool
    mutate: bool
    prover: bool | None
    prover_timeout: float


def test(
    bundle: BundleOrConfigured = None,
    *,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="PATTERN",
            help="Only cases with this in file::action[title], or that match it with * and ?; may be repeated. "
            "Coverage and changes are left out then.",
            show_default=False,
        ),
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop after the first case that fails.")] = False,
    slowest: Annotated[int, typer.Option(min=0, metavar="N", help="Tell the N slowest cases.")] = 0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Run again whenever a file changes, until Ctrl-C (exit code 130).")
    ] = False,
    coverage_threshold: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of the policies that the cases must show both ways.")
    ] = 100,
    coverage_table: Annotated[bool, typer.Option("--coverage-table", help="Tell the coverage of each policy.")] = False,
    mutate: Annotated[
        bool, typer.Option(help="Change each policy step by step; a case must fail for each change.")
    ] = True,
    prover: Annotated[
        bool | None,
        typer.Option(
            "--prover/--no-prover",
            help="Ask the prover which unnoticed changes no case can notice, and what case is missing for the others. "
            f"By default when it is installed and they are {_FEW} at most.",
            show_default=False,
        ),
    ] = None,
    prover_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for all questions to the prover.")] = 30.0,
    tests: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="Tests in the JSON of cedar run-tests, in the place of tests/*.yaml, judged as that command does; but "
            "what its validator only warns of fails none (see check --deny-warnings).",
            show_default=False,
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Test plain Cedar policies with this schema; needs --tests.", show_default=False
        ),
    ] = None,
    links: Annotated[
        Path | None,
        typer.Option(readable=False, help="Template links of plain Cedar policies, in JSON.", show_default=False),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            readable=False, help="Also write the cases to a file, as the JSON of cedar run-tests.", show_default=False
        ),
    ] = None,
    form: Format = "text",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Run the test cases in tests/*.yaml of a bundle against Cedar itself.

    A policy is covered when it determines some case, and some other case with the same action is decided without it; a
    policy with neither scope nor condition, which no case can do without, when it determines one. Changes are made only
    when every case passes. One that is proved to make no difference to any request is told apart, and fails nothing.

    Exit code 0: good. 1: a case failed, too few policies are covered, or a change went unnoticed. 2: bad input. 130:
    --watch was ended with Ctrl-C.

    Example: cedarbox policy test policies/airgapped --run 'network.yaml::connect*' --slowest 5
    """
    if schema is not None and tests is None:
        raise ConfigurationError("--schema without --tests", hint="plain Cedar has no tests/*.yaml; give --tests FILE")
    if links is not None and schema is None:
        raise ConfigurationError("--links without --schema", hint="a bundle has no templates; give --schema FILE")
    wanted = _Wanted(
        bundle or configured_bundle(),
        schema,
        links,
        tests,
        export,
        run or [],
        fail_fast,
        slowest,
        coverage_threshold,
        coverage_table,
        mutate,
        prover,
        prover_timeout,
    )
    from cedarbox.review.case_report import report_of

    if watch:
        from cedarbox.cli.policy_watch import rerun

        if as_json or form != "text" or output or export:
            raise ConfigurationError("--watch prints text", hint="leave --json, --format, --output and --export out")
        rerun(lambda: report_of(_run(wanted)), lambda: list(_files(wanted)))
    emit(report_of(_run(wanted)), form, output, as_json=as_json)


def _files(wanted: _Wanted) -> Iterator[Path]:
    """Yield the files that a run depends on, those that are there."""
    if wanted.schema is not None:
        from cedarbox.review.plain import find_cedar

        found = find_cedar(wanted.root)
        yield from (found.root / name for name in found.policies)
        yield from (path for path in (found.entities, wanted.links) if path is not None)
    for directory, suffixes in (
        (wanted.root, {".cedar", ".json", ".toml"}),
        (wanted.root / "tests", {".yaml", ".yml"}),
    ):
        try:
            yield from sorted(path for path in directory.iterdir() if path.suffix in suffixes)
        except OSError:
            continue
    yield from (path for path in (wanted.schema, wanted.tests) if path is not None)


def _run(wanted: _Wanted) -> Ran:
    from cedarbox.policy import PolicyBundle
    from cedarbox.policy.schema import schema_text

    if wanted.tests is not None:
        return _run_cedar(wanted, wanted.tests)
    from cedarbox.review.case_report import Ran
    from cedarbox.review.cases import Suite
    from cedarbox.review.run import run_suite, survivors

    suite = Suite.load(PolicyBundle.load(wanted.root))
    cases = _chosen(wanted, suite.cases)
    outcomes = run_suite(suite, cases, fail_fast=wanted.fail_fast)
    ran = Ran(
        label=suite.bundle.name,
        root=suite.bundle.path,
        policies=suite.bundle.policies,
        outcomes=outcomes,
        coverage=None,
        skipped=cases[len(outcomes) :],
        about=_about(suite),
        notes=_exported(wanted, suite, cases),
    )
    entities = suite.bundle.entities
    return _judged(wanted, ran, lambda: survivors(suite), schema_text(), entities)


def _run_cedar(wanted: _Wanted, tests: Path) -> Ran:
    from cedarbox.review.case_report import Ran
    from cedarbox.review.cedar_tests import CedarSuite
    from cedarbox.review.plain import load_cedar
    from cedarbox.review.subject import Subject

    if wanted.schema is None:
        subject = Subject.load(wanted.root)
    else:
        subject = load_cedar(wanted.root, schema=wanted.schema, links=wanted.links)
    suite = CedarSuite.load(subject, tests)
    cases = _chosen(wanted, suite.cases)
    outcomes = suite.run(cases, fail_fast=wanted.fail_fast)
    bundle = subject.bundle
    about = {"name": bundle.name if bundle else subject.label, "path": str(wanted.root)}
    ran = Ran(
        label=bundle.name if bundle else subject.label,
        root=subject.root,
        policies=suite.policies,
        outcomes=outcomes,
        coverage=None,
        skipped=cases[len(outcomes) :],
        about={"bundle": {**about, "digest": bundle.digest if bundle else None}},
        notes=_exported(wanted, suite, cases),
    )
    return _judged(wanted, ran, suite.survivors, subject.schema, None)


def _chosen(wanted: _Wanted, cases: Sequence[Any]) -> list[Any]:
    from cedarbox.review.run import chosen

    found = chosen(cases, wanted.patterns)
    if not found and cases:
        told = " or ".join(repr(pattern) for pattern in wanted.patterns)
        raise ConfigurationError(f"--run {told} matches no case", hint=f"such as {cases[0].id}")
    if not found:
        raise BundleError("no test in it", path=wanted.tests or wanted.root, hint="write one for each policy")
    return found


def _judged(
    wanted: _Wanted,
    ran: Ran,
    survivors: Callable[[], tuple[Sequence[Mutant], int]],
    schema: str,
    entities: Sequence[Mapping[str, Any]] | None,
) -> Ran:
    """Add to a run what the cases as a whole say."""
    from cedarbox.review.coverage import measure

    ran = replace(ran, threshold=wanted.threshold, slowest=wanted.slowest, table=wanted.table)
    if wanted.patterns:
        return ran
    if not ran.skipped:
        ran = replace(ran, coverage=measure(ran.policies, ran.outcomes))
    if wanted.mutate and not ran.failed:
        alive, made = survivors()
        ran = _looked_into(wanted, replace(ran, alive=alive, mutants=made), schema, entities)
    return ran


def _looked_into(wanted: _Wanted, ran: Ran, schema: str, entities: Sequence[Mapping[str, Any]] | None) -> Ran:
    """Tell the changes that no case can notice from those that some could."""
    if not ran.alive or wanted.prover is False:
        return ran
    if wanted.prover is None and len(ran.alive) > _FEW:
        note = f"more than {_FEW} changes went unnoticed: --prover tells which of them no case can notice"
        return replace(ran, notes=(*ran.notes, note))
    from cedarbox.review.equivalents import look
    from cedarbox.review.prove import available

    if missing := available():
        return replace(ran, notes=(*ran.notes, f"which changes no case can notice is not known: {missing}"))
    looked = look(ran.policies, ran.alive, schema=schema, entities=entities, limit_s=wanted.prover_timeout)
    return replace(
        ran,
        alive=[each.mutant for each in looked if each.verdict != "equivalent"],
        looked={id(each.mutant): each for each in looked},
        equivalent=[each for each in looked if each.verdict == "equivalent"],
    )


def _about(suite: Suite) -> dict[str, Any]:
    bundle = suite.bundle
    return {"bundle": {"name": bundle.name, "path": str(bundle.path), "digest": bundle.digest}}


def _exported(wanted: _Wanted, suite: Suite | CedarSuite, cases: Sequence[Any]) -> list[str]:
    """Write the cases in Cedar's format when that is wanted, and return what to say about it."""
    if wanted.export is None:
        return []
    from cedarbox.review.cases import Suite
    from cedarbox.review.cedar_export import cedar_tests, cedar_text

    if isinstance(suite, Suite):
        written, left_out = cedar_tests(suite, cases)
    else:
        written, left_out = [case.to_json() for case in cases], 0
    try:
        write_file(wanted.export, cedar_text(written), 0o644)
    except OSError as error:
        hint = "check its directory"
        raise ConfigurationError(f"{wanted.export}: cannot write it ({error.strerror})", hint=hint) from None
    notes = [f"{wanted.export}: {len(written)} tests in the format of cedar run-tests"]
    if left_out:
        notes.append(f"{left_out} cases that Cedar by itself cannot answer were left out of it")
    return notes
