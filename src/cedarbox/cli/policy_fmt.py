"""``cedarbox policy fmt``: format policies, or say which are not formatted."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from cedarbox.cli.policy_bundle import configured_bundle
from cedarbox.cli.policy_reporting import PrintJson
from cedarbox.errors import BundleError, ConfigurationError
from cedarbox.files import open_regular, replacing
from cedarbox.review.formatting import INDENT, LINE_WIDTH, FormatError, Layout, format_policies
from cedarbox.text import printable

__all__ = ["fmt"]

_STDIN: Final = "-"
_MAX_FILE: Final = 4 * 1024 * 1024
_COLOURS: Final = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}


@dataclass(frozen=True, slots=True)
class _File:
    """A file and what becomes of it.

    Attributes:
        name: As it was given.
        before: Its text.
        after: Its text when it is formatted.
        mode: Its mode; 0 for the standard input.
    """

    name: str
    before: str
    after: str
    mode: int

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def note(self) -> str:
        return " (a byte order mark goes, which Cedar does not take)" if self.before.startswith("\ufeff") else ""


def fmt(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files, or directories of which every .cedar file is taken; - for the standard input. By default the "
            "bundle of the settings.",
            show_default=False,
        ),
    ] = None,
    *,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; say which files would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
    line_width: Annotated[int, typer.Option(min=20, max=1000, help="How long a line may be.")] = LINE_WIDTH,
    indent_width: Annotated[int, typer.Option(min=1, max=16, help="How deep a level is indented.")] = INDENT,
    as_json: PrintJson = False,
) -> None:
    """Format policies as Cedar's own formatter does.

    A file is written only when its policies mean the same afterwards and every comment is still there. Line ends and
    modes stay.

    Exit code 0: formatted, or nothing to do. 1: --check or --diff, and a file would change. 2: a file cannot be read or
    written, or is not Cedar; the others are formatted all the same.

    Example: cedarbox policy fmt --check policies
    """
    layout = Layout(line_width, indent_width)
    given = paths or [str(configured_bundle())]
    if _STDIN in given and len(given) > 1:
        raise ConfigurationError("- stands beside other paths", hint="format the standard input by itself")
    files: list[_File] = []
    problems: list[str] = []
    for name in dict.fromkeys(_names(given, problems)):
        try:
            file = _read(name, layout)
            if file.changed and not check and not diff and name != _STDIN:
                _write(file)
        except ConfigurationError as error:
            problems.append(str(error))
        else:
            files.append(file)
    changed = [file for file in files if file.changed]
    if as_json:
        told = {
            "changed": [printable(file.name) for file in changed],
            "unchanged": len(files) - len(changed),
            "errors": problems,
        }
        typer.echo(orjson.dumps(told).decode())
    else:
        _tell(files, changed, written=not check and not diff, diff=diff)
        for problem in problems:
            typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(2 if problems else 1 if changed and (check or diff) else 0)


def _names(given: Sequence[str], problems: list[str]) -> Iterator[str]:
    for name in given:
        if name != _STDIN and Path(name).is_dir():
            found = sorted(_cedar_files(name, problems))
            if not found:
                problems.append(str(BundleError("no .cedar file below it", path=Path(name), hint="check the path")))
            yield from found
        else:
            yield name


def _cedar_files(root: str, problems: list[str]) -> Iterator[str]:
    """Yield the files of a directory and of those below it; neither links nor hidden directories are followed."""

    def tell(error: OSError) -> None:
        path = Path(str(error.filename or root))
        problems.append(str(BundleError(f"cannot read it ({error.strerror})", path=path, hint="check its mode")))

    for directory, names, files in os.walk(root, onerror=tell):
        names[:] = [name for name in names if not name.startswith(".")]
        yield from (str(Path(directory, name)) for name in files if name.endswith(".cedar"))


def _read(name: str, layout: Layout) -> _File:
    path = Path("(standard input)" if name == _STDIN else name)
    mode = 0
    try:
        if name == _STDIN:
            data = sys.stdin.buffer.read(_MAX_FILE + 1)
        else:
            with open_regular(path) as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                data = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no regular file"
        hint = "give a file or a directory, no link"
        raise BundleError(f"cannot read it ({why})", path=Path(printable(str(path))), hint=hint) from None
    if len(data) > _MAX_FILE:
        raise BundleError(f"larger than {_MAX_FILE} bytes", path=path, hint="split it")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BundleError("not UTF-8 text", path=path, line=line, hint="save it as UTF-8") from None
    try:
        return _File(name, text, format_policies(text, layout), mode)
    except FormatError as error:
        raise BundleError(error.message, path=path, line=error.line, column=error.column, hint=error.hint) from None


def _write(file: _File) -> None:
    path = Path(file.name)
    try:
        with replacing(path, file.mode) as draft:
            # The mode as it was, whatever the umask says.
            os.fchmod(draft.fileno(), file.mode)
            draft.write(file.after.encode())
    except OSError as error:
        raise BundleError(f"cannot write it ({error.strerror})", path=path, hint="check the directory") from None


def _tell(files: Sequence[_File], changed: Sequence[_File], *, written: bool, diff: bool) -> None:
    if files and files[0].name == _STDIN and written:
        sys.stdout.buffer.write(files[0].after.encode())
        sys.stdout.buffer.flush()
        return
    for file in changed:
        if diff:
            _show(file)
        else:
            typer.echo(f"{printable(file.name)}: {'formatted' if written else 'not formatted'}{file.note}")
    if not diff and len(files) > 1:
        told = "formatted" if written else "not formatted"
        typer.echo(
            f"{len(changed)} of {len(files)} files {told}" if changed else f"{len(files)} files, each as it should be"
        )


def _show(file: _File) -> None:
    coloured = sys.stdout.isatty()
    before, after = (text.removeprefix("\ufeff").splitlines() for text in (file.before, file.after))
    name = printable(file.name)
    for line in difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm=""):
        if coloured:
            shown = "\t".join(map(printable, line.split("\t")))
            typer.secho(shown, fg=_COLOURS.get(line[:1]))
        else:
            typer.echo(line)
    if list(before) == list(after):
        typer.echo(f"{name}: only line ends or a byte order mark would change")
