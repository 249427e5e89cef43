"""``python -m cedarbox.conformance``: run the checks against a backend."""

from __future__ import annotations

import asyncio
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.conformance.backend import Backend
from cedarbox.conformance.backends import boxlite, unix_local
from cedarbox.conformance.report import Report
from cedarbox.conformance.runner import run_conformance, selected
from cedarbox.conformance.table import show_progress, show_report
from cedarbox.errors import CedarboxError

__all__ = ["main"]

_PLAIN_WIDTH = 160


class _Name(StrEnum):
    UNIX_LOCAL = "unix-local"
    BOXLITE = "boxlite"


async def _reported(backend: Backend, only: list[str] | None, console: Console) -> Report:
    try:
        return await run_conformance(backend, only=only, progress=lambda result: show_progress(result, console))
    finally:
        if isinstance(backend.client, BoxLiteSandboxClient):
            await backend.client.close()


def _run(
    *,
    backend: Annotated[_Name, typer.Option(help="The backend to check.")] = _Name.UNIX_LOCAL,
    rootfs: Annotated[Path | None, typer.Option(readable=False, help="Local OCI layout to boot (boxlite).")] = None,
    image: Annotated[str | None, typer.Option(help="Image reference to boot instead (boxlite).")] = None,
    user: Annotated[str | None, typer.Option(help="A user of the image other than root (boxlite).")] = None,
    patience: Annotated[float, typer.Option(min=0.1, max=100, help="Factor on every time limit.")] = 1.0,
    only: Annotated[list[str] | None, typer.Option(help="A check or an area; may be repeated.")] = None,
    names: Annotated[bool, typer.Option("--list", help="List the checks and run none.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document at the end.")] = False,
) -> None:
    """Run a sandbox backend of the Agents SDK through the checks.

    Exit code 0: no check failed that is not known to. 1: some did. 2: bad input, or a host that lacks something.

    Example: python -m cedarbox.conformance --backend boxlite --rootfs ./oci
    """
    console = Console(highlight=False, stderr=as_json)
    if not console.is_terminal:
        console.width = _PLAIN_WIDTH
    if names:
        for check in selected(only):
            needs = f" [needs {', '.join(sorted(check.needs))}]" if check.needs else ""
            console.print(f"{check.name}: {check.says}{needs}", markup=False, soft_wrap=True)
        return
    if backend is _Name.BOXLITE:
        chosen = boxlite(image=image, rootfs=rootfs, user=user, patience=patience)
    else:
        chosen = unix_local()
    report = asyncio.run(_reported(chosen, only, console))
    if as_json:
        typer.echo(json.dumps(report.as_json(), indent=2))
    else:
        show_report(report, console)
    if not report.good:
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; an error of ours is one line on stderr and exit code 2."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name="conformance")(_run)
    try:
        app(prog_name="python -m cedarbox.conformance")
    except CedarboxError as error:
        Console(stderr=True, highlight=False, markup=False, soft_wrap=True).print(f"conformance: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
