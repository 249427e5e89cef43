"""``cedarbox policy review``: all that there is to say of a change, in one report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from shlex import quote
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console

from cedarbox.cli.policy_reporting import AsJson, Format, Output, emit, reported
from cedarbox.cli.policy_versions import Accepted, Acceptors
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.policy.reading import read_bundle, utf8_text
from cedarbox.review.beside import DIRECTORIES
from cedarbox.review.configured import SETTINGS
from cedarbox.review.finding import Finding, Place, Report, Rule, Severity
from cedarbox.review.revisions import resettled
from cedarbox.review.subject import shown
from cedarbox.review.whole import NOT_RUN, whole

__all__ = ["PARTS", "bundles_of", "review"]

Part = Literal["check", "fmt", "lint", "test", "diff", "prove"]

PARTS: Final[tuple[Part, ...]] = ("check", "fmt", "lint", "test", "diff", "prove")
"""The parts of a review, in their order."""

_METADATA: Final = "bundle.toml"
_FORMATTING: Final = "S090"
_UNTESTED: Final = "S080"
_NOT_FORMATTED: Final = Rule("F001", "not-formatted", "error", "A file is not as policy fmt would have it")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of the parts."""

    base: str | None
    accepted: Path | None
    acceptor: list[str] | None
    baseline: Path | None
    fail_level: Severity | None
    prover: bool | None
    parts: tuple[Part, ...]
    settled: Path | None = None
    """The bundle with which the settings are compared too."""


def review(
    paths: Annotated[
        list[Path],
        typer.Argument(readable=False, metavar="BUNDLE...", help="Bundles, or files in them as pre-commit names them."),
    ],
    *,
    base: Annotated[
        str | None,
        typer.Option(help="Also tell what changed since this git revision, and fail if it widens.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="|".join(PARTS), help="Run this part only; may be repeated.", show_default=False),
    ] = None,
    skip_others: Annotated[
        bool,
        typer.Option(
            "--skip-others",
            help="Leave out paths that are in no bundle, and bundles without properties, as pre-commit may name them.",
        ),
    ] = False,
    accepted: Accepted = None,
    acceptor: Acceptors = None,
    baseline: Annotated[
        Path | None, typer.Option(readable=False, help="A file with lint findings that are known.", show_default=False)
    ] = None,
    fail_level: Annotated[
        Literal["error", "warning", "note"] | None,
        typer.Option(help="The mildest severity of a finding that fails, whatever its part says.", show_default=False),
    ] = None,
    prover: Annotated[
        bool | None,
        typer.Option(
            "--prover/--no-prover",
            help="Whether lint and test ask the prover too. By default when it is installed; with --prover a question "
            "of lint that is left open is no success.",
            show_default=False,
        ),
    ] = None,
    form: Format = "text",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Check, lint and test bundles, look whether they are formatted, and tell what a change of them widens.

    The parts are check, fmt, lint, test, diff (with --base) and prove (where a bundle has properties). There is one
    report and one exit code. When a bundle does not check, a part that cannot do with what is wrong is not run. Where
    cedarbox.toml says something else than in --base, diff also compares the bundle that it names with the one before,
    and the settings.

    Exit code 0: good. 1: a part failed, or there is a finding of --fail-level or worse. 2: a path, a revision or an
    option cannot be used. 3: nothing failed, and something was not decided.

    Example: cedarbox policy review policies/site --base origin/main --output sarif=review.sarif --format github
    """
    bundles = bundles_of(paths, skip_others=skip_others)
    wanted = _wanted(only, base)
    asked = _Asked(base, accepted, acceptor, baseline, fail_level, prover, wanted)
    parts: list[Report] = []
    with_settings, apart = _settings(bundles, asked)
    asked = replace(asked, settled=with_settings)
    with Console(stderr=True).status("") as status:
        for bundle in bundles:
            parts.extend(_review(bundle, wanted, asked, lambda name: status.update(f"{name} …")))
        if apart is not None:
            status.update(f"diff {SETTINGS} …")
            parts.append(apart())
    if not bundles:
        emit(Report("review", "no bundle", "none of the paths is in one"), form, output, as_json=as_json)
    subject = ", ".join(shown(bundle) for bundle in bundles)
    if not parts and skip_others:
        emit(Report("review", subject, f"{subject}: no properties to prove"), form, output, as_json=as_json)
    if not parts:
        # Of the parts only prove can have nothing to do; that nothing was looked at is no success for who asked for it.
        raise ConfigurationError(f"{subject}: no properties to prove", hint="run other parts too")
    emit(whole("review", subject, parts, fail_level=fail_level), form, output, as_json=as_json)


def bundles_of(paths: Sequence[Path], *, skip_others: bool = False) -> tuple[Path, ...]:
    """Return the directories of the bundles that paths are or are in, each once.

    Args:
        paths: Directories and files.
        skip_others: Leave out a path that is in no bundle.

    Raises:
        ConfigurationError: A path is in no bundle: it is no directory with a ``bundle.toml``, and no file of one.
    """
    found: dict[Path, None] = {}
    for path in paths:
        try:
            # Whatever it is: a link that leads nowhere is for check to refuse.
            bundle = next((one for one in _around(path) if os.path.lexists(one / _METADATA)), None)
        except (OSError, ValueError):
            bundle = None
        if bundle is None and skip_others:
            continue
        if bundle is None:
            missing = "" if os.path.lexists(path) else "no such file, and "
            raise ConfigurationError(
                f"{path}: {missing}it is in no policy bundle", hint=f"a bundle is a directory with a {_METADATA}"
            )
        found[Path(shown(bundle))] = None
    return tuple(found)


def _around(path: Path) -> Iterator[Path]:
    """Yield where the bundle of a path can be.

    A bundle further above is another one: a change could take away the one that was named and have that one reviewed.
    """
    whole = path.absolute()
    if path.is_dir():
        yield whole
    elif path.suffix:
        # A file, there or not any more.
        yield whole.parent
        whole = whole.parent
    if whole.name in DIRECTORIES:
        yield whole.parent


def _wanted(only: Sequence[str] | None, base: str | None) -> tuple[Part, ...]:
    if unknown := [name for name in only or () if name not in PARTS]:
        raise ConfigurationError(f"--only {unknown[0][:40]!r} is no part of a review", hint=f"write {', '.join(PARTS)}")
    if only and "diff" in only and base is None:
        raise ConfigurationError("--only diff has nothing to compare with", hint="give --base too")
    return tuple(part for part in PARTS if (not only or part in only) and (part != "diff" or base is not None))


def _review(bundle: Path, wanted: Sequence[Part], asked: _Asked, tell: Callable[[str], None]) -> Iterator[Report]:
    faulty = False
    for part in wanted:
        tell(f"{part} {bundle}")
        try:
            report = _RUN[part](bundle, asked)
        except BundleError as error:
            if error.path in {asked.baseline, asked.accepted}:
                raise
            # What check told is not told again for each part that cannot do with it.
            report = _not_run(part, bundle) if faulty else _broken(part, bundle, error)
        if report is None:
            continue
        # By its directory in each part, whatever name it gives itself.
        yield replace(report, subject=shown(bundle), place=Place(shown(bundle / _METADATA)))
        faulty = faulty or (part == "check" and report.failed)


def _not_run(part: Part, bundle: Path) -> Report:
    return Report(part, shown(bundle), "it needs a bundle that passes check", data={NOT_RUN: True}, undecided=True)


def _broken(part: Part, bundle: Path, error: BundleError) -> Report:
    place = Place(shown(bundle / _METADATA)) if error.path.is_dir() else _place(error)
    finding = _refused(part, error, place)
    return Report(part, shown(bundle), "the bundle cannot be used", findings=(finding,), failed=True)


def _refused(part: Part, error: ConfigurationError, place: Place) -> Finding:
    message = error.message
    if isinstance(error, BundleError):
        # The place is told beside it, and would make it another finding when lines move.
        at = ":".join(str(each) for each in (error.path, error.line, error.column) if each is not None)
        message = message.removeprefix(f"{at}: ")
    return Finding(f"{part}-refused", "error", message, place, hint=error.hint)


def _place(error: BundleError) -> Place:
    return Place(shown(error.path), error.line or 1, error.column)


def _command(part: Part) -> Any:
    """Return the function of a command. It is imported when it is run: the solvers take their time."""
    return getattr(import_module(f"cedarbox.cli.policy_{part}"), part)


def _check(bundle: Path, asked: _Asked) -> Report:
    return reported(_command("check"), [bundle])


def _fmt(bundle: Path, asked: _Asked) -> Report:
    """Look whether the files are formatted. ``policy fmt`` makes no report: it says which files it wrote."""
    formatting = import_module("cedarbox.review.formatting")
    found = []
    files = read_bundle(bundle, with_signature=False).deciding
    names = [name for name in sorted(files) if name.endswith(".cedar")]
    for name in names:
        path = bundle / name
        text = utf8_text(path, files[name])
        try:
            formatted = formatting.format_policies(text)
        except formatting.FormatError as error:
            # The other parts have something to say of it all the same.
            raise BundleError(error.message, path=path, line=error.line, column=error.column, hint=error.hint) from None
        if formatted != text:
            hint = f"run: cedarbox policy fmt {quote(shown(path))}"
            found.append(Finding(_NOT_FORMATTED.id, "error", "not formatted", Place(shown(path)), hint=hint))
    summary = f"{len(names) - len(found)} of {len(names)} files formatted"
    return Report("fmt", shown(bundle), summary, findings=found, rules=[_NOT_FORMATTED], failed=bool(found))


def _lint(bundle: Path, asked: _Asked) -> Report:
    # What fmt and test say is not said again.
    told = [rule for part, rule in (("fmt", _FORMATTING), ("test", _UNTESTED)) if part in asked.parts]
    return reported(
        _command("lint"),
        bundle,
        fail_level=asked.fail_level,
        baseline=asked.baseline,
        prover=asked.prover,
        disable=told,
    )


def _test(bundle: Path, asked: _Asked) -> Report:
    return reported(_command("test"), bundle, prover=asked.prover)


def _diff(bundle: Path, asked: _Asked) -> Report:
    if asked.settled == bundle:
        return _compared(asked, configured=True)
    return _compared(asked, bundle=[bundle])


def _compared(asked: _Asked, **of: object) -> Report:
    return reported(
        _command("diff"),
        asked.base,
        None,
        accepted=asked.accepted,
        acceptor=asked.acceptor,
        baseline=asked.baseline,
        **of,
    )


def _settings(bundles: Sequence[Path], asked: _Asked) -> tuple[Path | None, Callable[[], Report] | None]:
    """Look whether the settings changed: another bundle may decide from now on, or nothing be denied any more.

    Returns:
        The bundle that is reviewed and decided before and after, so that its comparison tells of them; else what tells
        of them in a part of its own. Both None when they are the same.
    """
    if asked.base is None or not bundles or "diff" not in asked.parts:
        return None, None
    try:
        found = resettled(asked.base, bundles)
    except BundleError as error:
        finding = _refused("diff", error, _place(error))
        told = Report("diff", SETTINGS, "which bundle decides cannot be told", findings=(finding,), failed=True)
        return None, lambda: told
    if found is None:
        return None, None
    before, after = found
    for bundle in bundles:
        if before == after == bundle.resolve():
            return bundle, None
    reviewed = after in {bundle.resolve() for bundle in bundles}
    return None, partial(_apart, asked, None if reviewed or asked.parts == ("diff",) else after)


def _apart(asked: _Asked, compared_only: Path | None) -> Report:
    try:
        report = _compared(asked, configured=True)
        if compared_only is None:
            return report
        note = f"{shown(compared_only)} is what decides, and was compared only: review it too"
        return replace(report, notes=(*report.notes, note))
    except ConfigurationError as error:
        finding = _refused("diff", error, Place(SETTINGS))
        return Report("diff", SETTINGS, "which bundle decides cannot be told", findings=(finding,), failed=True)


def _has_properties(bundle: Path) -> bool:
    """Whether there is something for prove to read, or something in its place that it must refuse."""
    try:
        suffixes = {path.suffix for path in (bundle / "properties").iterdir()}
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return not suffixes.isdisjoint({".yaml", ".yml"})


def _prove(bundle: Path, asked: _Asked) -> Report | None:
    if not _has_properties(bundle):
        return None
    return reported(_command("prove"), bundle)


_RUN: Final[dict[Part, Callable[[Path, _Asked], Report | None]]] = {
    "check": _check,
    "fmt": _fmt,
    "lint": _lint,
    "test": _test,
    "diff": _diff,
    "prove": _prove,
}
