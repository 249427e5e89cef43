"""``cedarbox policy lint``: what a reviewer would ask about, found before they have to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cedarbox.cli.policy_bundle import PlainEntities, PlainLinks, PlainSchema, configured_bundle
from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit
from cedarbox.errors import ConfigurationError
from cedarbox.review.finding import Report, Rule, Severity
from cedarbox.review.subject import Subject, shown

__all__ = ["lint"]


@dataclass(frozen=True, slots=True)
class _Asked:
    path: Path
    schema: Path | None
    entities: Path | None
    links: Path | None
    level: Severity | None
    only: frozenset[str]
    without: frozenset[str]
    config: Path | None
    baseline: Path | None
    write_baseline: bool
    fix: bool
    unsafe: bool
    diff: bool
    prover: bool | None
    prover_timeout: float


def lint(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            readable=False,
            help="The bundle, or a directory or file of any Cedar policies; by default the bundle of the settings.",
            show_default=False,
        ),
    ] = None,
    *,
    schema: PlainSchema = None,
    entities: PlainEntities = None,
    links: PlainLinks = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="RULE",
            help="Print the page of help of a rule, also of D100 and others that another command tells.",
            show_default=False,
        ),
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="Print every rule.")] = False,
    rule: Annotated[
        list[str] | None, typer.Option(help="Run this rule only; may be repeated.", show_default=False)
    ] = None,
    disable: Annotated[
        list[str] | None, typer.Option(help="Leave this rule out; may be repeated.", show_default=False)
    ] = None,
    fail_level: Annotated[
        str | None,
        typer.Option(
            metavar="error|warning|note",
            help="The mildest finding that fails; by default what lint.toml says, or warning.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(readable=False, help="By default lint.toml beside the policies.", show_default=False),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(readable=False, help="A file with findings that are known.", show_default=False),
    ] = None,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help="Write the findings of today to the baseline.")
    ] = False,
    prover: Annotated[
        bool | None,
        typer.Option(
            "--prover/--no-prover",
            help="Ask the prover what the rules leave open. By default when it is installed; with --prover an open "
            "question is no success.",
            show_default=False,
        ),
    ] = None,
    prover_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for all questions to the prover.")] = 30.0,
    fix: Annotated[
        bool, typer.Option("--fix", help="Correct what can be corrected without changing a decision.")
    ] = False,
    unsafe_fixes: Annotated[
        bool, typer.Option("--unsafe-fixes", help="With --fix: also what changes decisions, such as a misspelt host.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="With --fix: print the changes, and write nothing.")] = False,
    form: Format = "text",
    as_json: AsJson = False,
    output: Output = None,
) -> None:
    """Look at the policies of a bundle as a reviewer of sandboxes would.

    A finding is suppressed by a comment in the policy, with a reason: // cedarbox-lint: ignore S013 -- why. Every
    report tells what was suppressed. lint.toml beside the policies sets severities and options. The rules about
    sandboxes are not run on policies that are no bundle.

    Exit code 0: nothing at the fail level. 1: a finding at it. 2: the bundle, a file or an option cannot be used.
    3: with --prover, a question was left open, or there is no prover.

    Example: cedarbox policy lint policies/airgapped --output sarif=lint.sarif
    """
    if explain is not None or rules:
        _print(explain)
        return
    if (diff or unsafe_fixes) and not fix:
        raise ConfigurationError("--diff and --unsafe-fixes go with --fix", hint="add --fix")
    if write_baseline and baseline is None:
        raise ConfigurationError("--write-baseline needs to know where", hint="add --baseline FILE")
    if write_baseline and fix:
        raise ConfigurationError("--write-baseline and --fix at once", hint="fix first, then write the baseline")
    asked = _Asked(
        path=bundle or configured_bundle(),
        schema=schema,
        entities=entities,
        links=links,
        level=_level(fail_level),
        only=_ids(rule or []),
        without=_ids(disable or []),
        config=config,
        baseline=baseline,
        write_baseline=write_baseline,
        fix=fix,
        unsafe=unsafe_fixes,
        diff=diff,
        prover=prover,
        prover_timeout=prover_timeout,
    )
    report, text = _linted(asked)
    if text and form == "text" and not as_json:
        typer.echo(text, nl=False)
    emit(report, form, output, as_json=as_json)


def _print(explain: str | None) -> None:
    from cedarbox.review.lint.rulebook import RULES, by_name, page

    if explain is not None:
        wanted = explain.strip()
        if (found := by_name(wanted.upper()) or by_name(wanted)) is not None:
            _show(page(found.id))
        elif (other := _of_another_command(wanted)) is not None:
            _show(
                f"# {other.id} {other.name}\n\n{other.summary}. Severity: {other.severity}.\n\n{other.help.strip()}\n"
            )
        else:
            raise ConfigurationError(f"there is no rule {explain[:40]!r}", hint="see cedarbox policy lint --rules")
        return
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table

        table = Table("rule", "severity", "what it finds", box=None)
        for known in RULES:
            table.add_row(known.id, known.severity, f"[bold]{known.name}[/bold]: {known.summary}")
        Console().print(table)
        return
    for known in RULES:
        typer.echo(f"{known.id}  {known.severity:7}  {known.name}: {known.summary}")


def _of_another_command(name: str) -> Rule | None:
    """Return a rule of check, test, diff or prove: who reads a report does not know which command has its rule."""
    from cedarbox.review.case_report import RULES as OF_TEST
    from cedarbox.review.check import RULES as OF_CHECK
    from cedarbox.review.diff.rules import RULES as OF_DIFF
    from cedarbox.review.properties.report import RULES as OF_PROVE

    rules = (*OF_CHECK.values(), *OF_TEST, *OF_DIFF, *OF_PROVE)
    return next((rule for rule in rules if name.upper() == rule.id or name == rule.name), None)


def _show(text: str) -> None:
    """Print Markdown: laid out on a terminal, as it is elsewhere."""
    if not sys.stdout.isatty():
        typer.echo(text, nl=False)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, code_theme="ansi_dark"))


def _level(text: str | None) -> Severity | None:
    for level in ("error", "warning", "note"):
        if text == level:
            return level
    if text is not None:
        raise ConfigurationError(f"--fail-level {text[:40]!r} is no severity", hint="error, warning or note")
    return None


def _linted(asked: _Asked) -> tuple[Report, str]:
    """Return the report, and the changes as text where they were asked for."""
    from cedarbox.review.lint import baseline as baselines
    from cedarbox.review.lint import fixes
    from cedarbox.review.lint.options import FILE, read_config
    from cedarbox.review.lint.proving import Wanted
    from cedarbox.review.lint.rulebook import RULES
    from cedarbox.review.lint.run import Chosen, report_of
    from cedarbox.review.lint.run import lint as run

    subject = _loaded(asked)
    severities = {known.id: known.severity for known in RULES}
    settings = read_config(asked.config or subject.root / FILE, severities, missing_ok=asked.config is None)
    chosen = Chosen(asked.only, asked.without)
    known = None
    if asked.baseline is not None and not asked.write_baseline:
        known = baselines.read_baseline(asked.baseline)
    now = datetime.now(UTC)
    with _progress() as told:
        wanted = Wanted(asked.prover is not False, asked.prover_timeout, told)
        linted = run(subject, settings, now=now, chosen=chosen, baseline=known, prover=wanted)
    wanted = replace(wanted, progress=None)
    notes: tuple[str, ...] = ()
    text = ""
    if asked.write_baseline and asked.baseline is not None:
        baselines.write_baseline(asked.baseline, linted.findings)
        notes = (f"{len(linted.findings)} findings were written to {shown(asked.baseline)}",)
        known = baselines.read_baseline(asked.baseline)
        linted = run(subject, settings, now=now, chosen=chosen, baseline=known, prover=wanted)
    if asked.fix:
        made = fixes.fixed(subject, linted.fixes, unsafe=asked.unsafe)
        notes = made.notes
        if asked.diff:
            text = made.diff
            linted.data["diff"] = text
            notes = (*notes, f"{made.made} changes would be made in {len(made.after)} files; nothing was written")
        else:
            fixes.write(made)
            if made.after:
                linted = run(_loaded(asked), settings, now=now, chosen=chosen, baseline=known, prover=wanted)
            notes = (*notes, f"{made.made} changes were made in {len(made.after)} files")
        if made.left:
            notes = (*notes, f"{made.left} more changes touch these: run it again")
    report = report_of(linted, fail_level=asked.level, prover_needed=asked.prover is True)
    return replace(report, notes=(*notes, *report.notes)), text


def _loaded(asked: _Asked) -> Subject:
    given = asked.schema or asked.entities or asked.links
    if given is None and (not asked.path.exists() or (asked.path / "bundle.toml").is_file()):
        return Subject.load(asked.path)
    from cedarbox.review.plain import find_cedar, load_cedar

    if given is None and not find_cedar(asked.path).schemas:
        if asked.path.is_file():
            inside = (asked.path.parent / "bundle.toml").is_file()
            hint = f"lint the bundle that it is in: {shown(asked.path.parent)}" if inside else "name it with --schema"
            raise ConfigurationError(f"{shown(asked.path)}: one file, and no schema beside it", hint=hint)
        # Without a schema it is meant to be a bundle, and what a bundle lacks is the better advice.
        return Subject.load(asked.path)
    return load_cedar(asked.path, schema=asked.schema, entities=asked.entities, links=asked.links)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show on a terminal how far the prover is; elsewhere nothing, because it takes seconds."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("proving"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("proving", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _ids(names: list[str]) -> frozenset[str]:
    from cedarbox.review.lint.rulebook import by_name

    found = set()
    for name in names:
        rule = by_name(name)
        if rule is None:
            raise ConfigurationError(f"there is no rule {name[:40]!r}", hint="see cedarbox policy lint --rules")
        found.add(rule.id)
    return frozenset(found)
