"""``cedarbox init``: a project that starts from a policy bundle that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.errors import ConfigurationError
from cedarbox.profiles import find_profile, profiles, write_project

__all__ = ["init"]


def init(
    directory: Annotated[Path, typer.Argument(readable=False, help="The project; made when it is missing.")] = Path(),
    *,
    profile: Annotated[
        str | None, typer.Option(help="The bundle to start from; --list shows them.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Keep what is there as a backup, and write anew.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="Print the bundles to start from, and write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write a policy bundle with its tests, and a cedarbox.toml that uses it.

    Exit code 0: written, or listed. 2: something is there already, there is no such profile, or nothing can be written.

    Example: cedarbox init --profile airgapped
    """
    if list_:
        _list(as_json=as_json)
        return
    if profile is None:
        names = ", ".join(known.name for known in profiles())
        raise ConfigurationError("--profile is missing", hint=f"choose one of {names}; --list describes them")
    written = write_project(directory, find_profile(profile), force=force)
    if as_json:
        kept = {str(place): str(backup) for place, backup in written.kept.items()}
        document = {"bundle": str(written.bundle), "settings": str(written.settings), "kept": kept}
        typer.echo(orjson.dumps(document).decode())
        return
    for place in (written.bundle, written.settings):
        typer.echo(f"wrote {place}")
    for place, backup in written.kept.items():
        typer.echo(f"kept what was {place} as {backup}")
    typer.echo("Next:")
    if directory != Path():
        typer.echo(f"  cd {directory}")
    bundle = f"policies/{profile}"
    typer.echo(f"  read {bundle}/*.cedar, and name your agents in {bundle}/entities.json")
    typer.echo(f"  cedarbox policy test {bundle}")
    typer.echo("  name an image in cedarbox.toml, then pass harden() to your run; the README shows how")


def _list(*, as_json: bool) -> None:
    if as_json:
        listed = [{"name": profile.name, "description": profile.description} for profile in profiles()]
        typer.echo(orjson.dumps(listed).decode())
        return
    table = Table("profile", "what it is", box=None)
    table.columns[0].no_wrap = True
    for profile in profiles():
        table.add_row(profile.name, profile.description)
    Console(highlight=False, markup=False).print(table)
