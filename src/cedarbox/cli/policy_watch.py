"""Runs a review again and again while the files that it is about are edited."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Final, NoReturn

import typer

from cedarbox.errors import CedarboxError
from cedarbox.review.finding import Report
from cedarbox.review.reports import render

__all__ = ["rerun"]

_POLL_S: Final = 0.2
"""How often the files are looked at, in seconds: an editor's save is seen before its user looks up."""

_Prints = tuple[tuple[Path, tuple[int, int, int] | None], ...]


def rerun(review: Callable[[], Report], files: Callable[[], Iterable[Path]]) -> NoReturn:
    """Make a report and print it, now and whenever a file has changed, until Ctrl-C.

    Files that cannot be used at the moment, because they are being edited, are one line; the next change is waited for.

    Args:
        review: Makes the report.
        files: Which files it depends on; asked each time, because some may come and go.

    Raises:
        typer.Exit: On Ctrl-C, with 130.
    """
    try:
        while True:
            seen = _prints(files())
            try:
                typer.echo(render(review(), "text"), nl=False)
            except CedarboxError as error:
                typer.echo(f"cedarbox: {error}")
            typer.echo(f"{datetime.now().astimezone():%H:%M:%S} watching {len(seen)} files, Ctrl-C ends")
            while (now := _prints(files())) == seen:
                time.sleep(_POLL_S)
            # A save may be several changes: a run begins when nothing has changed for one look.
            while True:
                time.sleep(_POLL_S)
                if (later := _prints(files())) == now:
                    break
                now = later
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _prints(files: Iterable[Path]) -> _Prints:
    return tuple((path, _print(path)) for path in files)


def _print(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
