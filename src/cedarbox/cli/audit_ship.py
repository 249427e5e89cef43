"""``cedarbox audit ship`` and ``cedarbox audit anchors``: records to a collector, and checkpoints back from it."""

from __future__ import annotations

import dataclasses
import signal
import time
from pathlib import Path
from typing import Annotated

import orjson
import typer

from cedarbox.audit.files import check_ledger
from cedarbox.audit.otlp_checkpoints import CHECKPOINT_EVENT
from cedarbox.audit.place import Place
from cedarbox.audit.shipper import Shipper, Status
from cedarbox.errors import ConfigurationError, HostError
from cedarbox.files import write_file
from cedarbox.settings import load_settings
from cedarbox.shipping import place_of, sources_of

__all__ = ["anchors", "ship"]

_LOOK_SECONDS = 0.2
_NOTES = 1_000_000


def ship(
    directory: Annotated[
        Path | None, typer.Argument(readable=False, help="Directory of the ledger.", show_default="audit.directory")
    ] = None,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when all that is on disk now was acknowledged.")] = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --once: seconds to wait at most.")] = 60.0,
    again: Annotated[bool, typer.Option("--again", help="Try again what the collector refused for good.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print how far it came as JSON.")] = False,
) -> None:
    """Send the records, checkpoints and spans of a ledger to the collector of the settings ([otlp]).

    For a ledger whose process has ended, or to ship from a process of its own. While another process ships the same
    ledger, this one waits and takes over when that one ends. Without --once it goes on until Ctrl-C or SIGTERM.

    Exit code 0: all was acknowledged. 1: something was not, or the collector refused something for good. 2: there is
    no ledger there, or no collector is set.

    Example: cedarbox audit ship .cedarbox/ledger --once
    """
    settings = load_settings(audit={"directory": directory})
    place, target = settings.audit.directory, settings.otlp.target()
    if target is None:
        raise ConfigurationError("no collector is set", hint="set otlp.endpoint")
    check_ledger(place)
    spans = settings.otlp.spans or place.parent / "spans"
    kept = place_of(place)
    if again:
        _revive(kept)
    shipper = Shipper(target, sources_of(place, spans), place=kept, pace=settings.otlp.pace())
    shipper.start()
    if once:
        shipper.flush(timeout)
    else:
        _until_told()
    shipper.stop(0.0 if once else timeout)
    status = shipper.status
    _print(status, as_json=as_json)
    raise typer.Exit(1 if status.pending_records or status.left else 0)


def anchors(
    *,
    source: Annotated[Path, typer.Option("--from", readable=False, help="Directory of the embedded collector.")],
    output: Annotated[Path, typer.Option(readable=False, help="File to write.")],
) -> None:
    """Write the checkpoints that the embedded collector holds into a file for ``audit verify --anchor``.

    Take the file from the collector's host: there it is out of reach of who has the host of the ledger.

    Exit code 0: written. 1: written, and the collector holds two checkpoints for one place. 2: it holds none.

    Example: cedarbox audit anchors --from .cedarbox/collector --output collector.checkpoints
    """
    # Late, because a process that ships must not load the receiver.
    from cedarbox.collector.store import FILE_NAME, Store

    if not (source / FILE_NAME).exists():
        hint = "name the directory that a collector was given"
        raise ConfigurationError(f"{source} holds nothing that a collector received", hint=hint)
    with Store(source) as store:
        rows = store.logs(event=CHECKPOINT_EVENT, limit=_NOTES)
    if not rows:
        raise ConfigurationError(f"{source} holds no checkpoints", hint="ship a ledger to it")
    try:
        write_file(output, "".join(f"{row.body}\n" for row in rows).encode(), 0o644)
    except OSError as error:
        raise HostError(f"{output}: cannot be written: {error.strerror}", hint="choose another file") from None
    double = sorted({row.record_id or "" for row in rows if row.conflict})
    for name in double:
        typer.echo(f"forked: the collector holds two checkpoints {name}")
    typer.echo(f"{len(rows)} checkpoints written to {output}")
    raise typer.Exit(1 if double else 0)


def _revive(path: Path) -> None:
    """Put what was left back, unless another process has the place."""
    place = Place(path)
    if not place.hold():
        raise HostError(f"{path}: another process ships this ledger", hint="end it first, or leave --again out")
    place.revive()
    place.release()


def _until_told() -> None:
    told: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: told.append(number))
    while not told:
        time.sleep(_LOOK_SECONDS)


def _print(status: Status, *, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(dataclasses.asdict(status)).decode())
        return
    if status.pending_records:
        typer.echo(f"not acknowledged: {status.pending_records} records, {status.pending_bytes} bytes")
    if status.last_error:
        typer.echo(f"last error: {status.last_error}")
    for unit in status.left:
        typer.echo(f"left after {unit.tries} tries: {unit.key} bytes {unit.start} to {unit.end}: {unit.reason}")
    typer.echo(f"last acknowledged: {status.last_acknowledged or 'never'}")
