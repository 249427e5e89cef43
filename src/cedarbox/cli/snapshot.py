"""``cedarbox snapshot``: what is kept of sandboxes, and how it is given up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from cedarbox.audit import Entry, Ledger
from cedarbox.boxlite import BoxLiteSandboxClient
from cedarbox.boxlite.host import default_home
from cedarbox.boxlite.snapshots import SnapshotInfo, SnapshotStore
from cedarbox.errors import ConfigurationError, SnapshotError
from cedarbox.settings import load_settings
from cedarbox.times import duration_s

__all__ = ["app"]

app = typer.Typer(help="List, check and remove the native snapshots of a BoxLite home.", no_args_is_help=True)

Home = Annotated[
    Path | None,
    typer.Option(readable=False, help="The BoxLite home; by default that of this user.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_snapshots(*, home: Home = None, as_json: AsJson = False) -> None:
    """Print the snapshots, oldest first. The BoxLite home may be in use meanwhile.

    Exit code 0: printed. 2: a description cannot be read.

    Example: cedarbox snapshot list --json
    """
    store = SnapshotStore(home or default_home())
    found = list(store)
    if as_json:
        typer.echo(orjson.dumps([_told(info) for info in found]).decode())
        return
    # An id tells when its snapshot was taken.
    table = Table("id", "parent", "size", "image", "policies", box=None)
    for column in table.columns[:3]:
        column.no_wrap = True
    for info in found:
        size = f"{info.size_bytes / 1_000_000:.1f} MB"
        table.add_row(
            info.id, info.parent or "-", size, info.image_digest or "not pinned", info.policy_bundle or "none"
        )
    Console(highlight=False, markup=False).print(table)


@app.command()
def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of snapshots; all when none is given.")] = None,
    *,
    home: Home = None,
) -> None:
    """Digest the disks of snapshots again. No sandbox may be started from them meanwhile.

    Exit code 0: each holds what was saved. 1: one does not. 2: there is no such snapshot.

    Example: cedarbox snapshot verify
    """
    store = SnapshotStore(home or default_home())
    wrong = 0
    for info in [store.find(name) for name in ids] if ids else list(store):
        try:
            store.verify(info)
        except SnapshotError as error:
            wrong += 1
            typer.echo(f"{info.id}: {error}")
        else:
            typer.echo(f"{info.id}: holds what was saved")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def remove(ids: Annotated[list[str], typer.Argument(help="Ids of snapshots.")], *, home: Home = None) -> None:
    """Remove snapshots. Each removal is recorded in the ledger of the settings.

    Exit code 0: removed. 2: there is none, something was started from it, or the home is in use.

    Example: cedarbox snapshot remove 20261123T101500Z-1f2e3d4c
    """
    place = home or default_home()
    store = SnapshotStore(place)
    asyncio.run(_remove(place, [store.find(name) for name in ids]))


@app.command()
def prune(
    *,
    keep: Annotated[int | None, typer.Option(min=0, help="The newest that stay, whatever their age.")] = None,
    older_than: Annotated[
        str | None, typer.Option(help="Only older ones go: a number and s, m, h, d or w, such as 30d.")
    ] = None,
    home: Home = None,
) -> None:
    """Remove old snapshots. What something was started from stays.

    Exit code 0: done. 2: no limit or a malformed one, or the home is in use.

    Example: cedarbox snapshot prune --keep 10 --older-than 30d
    """
    seconds = None
    if older_than is not None:
        seconds = duration_s(older_than)
        if seconds is None:
            raise ConfigurationError(f"--older-than {older_than!r} is not an age", hint="write it like 36h or 30d")
    asyncio.run(_prune(home or default_home(), keep, seconds))


async def _remove(home: Path, infos: list[SnapshotInfo]) -> None:
    client = BoxLiteSandboxClient(home=home)
    try:
        snapshots = client.snapshots
        assert snapshots is not None  # noqa: S101 - a client with a home has them
        with _ledger() as ledger:
            for info in infos:
                await snapshots.remove(info)
                await ledger.record(_deleted(info))
                typer.echo(f"{info.id}: removed")
    finally:
        await client.close()


async def _prune(home: Path, keep: int | None, older_than_s: float | None) -> None:
    client = BoxLiteSandboxClient(home=home)
    try:
        snapshots = client.snapshots
        assert snapshots is not None  # noqa: S101 - a client with a home has them
        with _ledger() as ledger:
            pruned = await snapshots.prune(keep=keep, older_than_s=older_than_s)
            for info in pruned.removed:
                await ledger.record(_deleted(info))
                typer.echo(f"{info.id}: removed")
            for info in pruned.in_use:
                typer.echo(f"{info.id}: stays, something was started from it")
    finally:
        await client.close()


def _ledger() -> Ledger:
    audit = load_settings().audit
    return Ledger.open(audit.directory, signing_key=audit.signing_key, segment_bytes=audit.segment_bytes)


def _deleted(info: SnapshotInfo) -> Entry:
    return Entry(event="snapshot.deleted", action="snapshot remove", session=info.session, attrs=dict(info.facts()))


def _taken(info: SnapshotInfo) -> str:
    return datetime.fromtimestamp(info.created_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _told(info: SnapshotInfo) -> dict[str, object]:
    return {
        "id": info.id,
        "taken": _taken(info),
        "parent": info.parent or None,
        "session": info.session,
        "image_digest": info.image_digest or None,
        "policy_bundle": info.policy_bundle or None,
        "size_bytes": info.size_bytes,
        "sha256": info.sha256,
        "layers": list(info.layers),
    }
