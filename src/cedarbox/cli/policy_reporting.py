"""How the review commands give out their report: ``--format``, ``--json``, ``--output``, and what they do."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from cedarbox.errors import ConfigurationError
from cedarbox.files import open_regular, write_file
from cedarbox.review.finding import Report
from cedarbox.review.reports import FORMATS, FormatName, render

__all__ = ["AsJson", "Format", "Output", "PrintJson", "Target", "emit", "reported"]

_COLLECTED: Final[ContextVar[list[Report] | None]] = ContextVar("collected", default=None)
"""Where :func:`emit` leaves its report while :func:`reported` waits for it."""

_MAX_SUMMARY: Final = 1024 * 1024 - 1024
"""Bytes of the summary of a step: GitHub takes 1 MiB and drops all of a larger one. Less what others may add."""


@dataclass(frozen=True, slots=True)
class Target:
    """A file that a report is written to.

    Attributes:
        form: How.
        path: Where. What is there is replaced in one step.
    """

    form: FormatName
    path: Path

    @classmethod
    def of(cls, text: str) -> Target:
        """Read ``FORMAT=FILE``, and see whether the file can be written before any work is done for it.

        Raises:
            ConfigurationError: It is not of that form, there is no such format, or the file cannot be written.
        """
        name, equals, path = text.partition("=")
        form = next((form for form in FORMATS if form == name), None)
        if form is None or not equals or not path:
            raise ConfigurationError(
                f"--output {text!r} is not FORMAT=FILE with a format of {', '.join(FORMATS)}",
                hint="write it like sarif=review.sarif",
            )
        target = cls(form, Path(path))
        target.try_directory()
        return target

    def try_directory(self) -> None:
        """See whether a file can be put there.

        Raises:
            ConfigurationError: It cannot.
        """
        if "\0" in str(self.path) or not self.path.name:
            raise _unwritable(self.path, os.strerror(errno.EINVAL))
        try:
            if self.path.is_dir():
                raise _unwritable(self.path, os.strerror(errno.EISDIR))
            # A file is put in the place of what is there, and a device or a pipe would be gone.
            if self.path.exists() and not self.path.is_file():
                raise _unwritable(self.path, "it is no regular file")
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            raise _unwritable(self.path, error.strerror or str(error)) from None


def _apart(targets: list[Target] | None) -> list[Target] | None:
    """Refuse two reports in one file: the second would take the place of the first."""
    seen: set[Path] = set()
    for target in targets or ():
        path = target.path.absolute()
        if path in seen:
            raise ConfigurationError(f"--output: {target.path} is given twice", hint="give each report a file")
        seen.add(path)
    return targets


Format = Annotated[FormatName, typer.Option("--format", help="How to print the report.")]
"""The option ``--format``; its default is ``"text"``, wherever the command runs."""

AsJson = Annotated[bool, typer.Option("--json", help="The same as --format json.")]
"""The option ``--json``."""

PrintJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The option ``--json`` of a command without ``--format``."""

Output = Annotated[
    list[Target] | None,
    typer.Option(
        "--output",
        parser=Target.of,
        metavar="FORMAT=FILE",
        help="Also write the report to a file, such as sarif=review.sarif; may be repeated.",
        callback=_apart,
        show_default=False,
    ),
]
"""The repeatable option ``--output``; its default is None."""


def emit(
    report: Report, form: FormatName, outputs: Sequence[Target] | None = None, *, as_json: bool = False
) -> NoReturn:
    """Write a report to its files, print it, and exit with its code.

    Args:
        report: What to tell.
        form: How to print it. On a terminal ``text`` has colours and shows the lines of the files. ``github`` also
            adds the report to the summary of the step, the file that ``GITHUB_STEP_SUMMARY`` names.
        outputs: The files to write besides.
        as_json: Print JSON, whatever ``form`` says.

    Raises:
        ConfigurationError: A file cannot be written.
        typer.Exit: Always, else.
    """
    if (collected := _COLLECTED.get()) is not None:
        collected.append(report)
        raise typer.Exit(report.exit_code)
    for target in outputs or ():
        try:
            write_file(target.path, render(report, target.form).encode(), 0o644)
        except OSError as error:
            raise _unwritable(target.path, error.strerror or str(error)) from None
    if as_json:
        form = "json"
    if form == "text" and sys.stdout.isatty():
        from rich.console import Console

        from cedarbox.review.reports.terminal import show

        show(report, Console(highlight=False, markup=False, emoji=False))
    else:
        text = render(report, form)
        # What programs read is UTF-8 whatever the locale is: each of these forms says so, or its standard does.
        typer.echo(text if form in {"text", "github"} else text.encode(), nl=False)
    if form == "github" and (path := os.environ.get("GITHUB_STEP_SUMMARY")):
        _summarise(report, path)
    raise typer.Exit(report.exit_code)


def reported(command: Callable[..., object], *arguments: object, **options: object) -> Report:
    """Run a command that ends with :func:`emit`, and return its report; nothing is printed or written.

    Args:
        command: The function of the command, with its defaults.
        arguments: Its arguments.
        options: Its options.

    Raises:
        CedarboxError: The command does.
    """
    collected: list[Report] = []
    token = _COLLECTED.set(collected)
    try:
        command(*arguments, **options)
    except typer.Exit:
        pass
    finally:
        _COLLECTED.reset(token)
    if len(collected) != 1:
        raise RuntimeError(f"the command made {len(collected)} reports")
    return collected[0]


def _summarise(report: Report, path: str) -> None:
    """Add a report to the summary of a step. What cannot be added is told, and fails nothing: the report is printed."""
    from cedarbox.review.reports.markdown import text

    try:
        with open_regular(path, os.O_WRONLY | os.O_APPEND) as file:
            file.seek(0, os.SEEK_END)
            file.write(f"{text(report, _MAX_SUMMARY - file.tell())}\n".encode())
    except (OSError, ValueError) as error:
        typer.echo(f"cedarbox: the summary of the step cannot be written ({error})", err=True)


def _unwritable(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"--output: {path} cannot be written ({why})", hint="check the path and its directory")
