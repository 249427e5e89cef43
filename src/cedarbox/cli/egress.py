"""``cedarbox egress``: what leaves the sandboxes of this host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from cedarbox.audit import Record
from cedarbox.audit.follow import follow
from cedarbox.settings import load_settings

__all__ = ["app"]

app = typer.Typer(help="Show what leaves the sandboxes of this host.", no_args_is_help=True)

_EVENTS: Final = frozenset({"egress.opened", "egress.closed", "egress.revoked"})
_ACTIONS: Final = frozenset({"connect", "connectAnywhere", "resolve", "useSecret"})
_STYLES: Final = {"allow": "green", "deny": "red", "cut": "bold red"}


@app.command()
def watch(
    directory: Annotated[
        Path | None,
        typer.Argument(readable=False, help="Directory of the ledger; that of the settings when not given."),
    ] = None,
    *,
    past: Annotated[bool, typer.Option("--past", help="Begin with what is there already.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Show what is there already, and end.")] = False,
    denied: Annotated[bool, typer.Option("--denied", help="Show denials and cuts only.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records, one JSON object in a line.")] = False,
) -> None:
    """Show each connection of a sandbox as it is decided, opened, closed or cut, until Ctrl-C.

    Exit code 0: ended by --once or by whoever reads the output. 2: no ledger there, or a record that cannot be read.
    130: Ctrl-C.

    Example: cedarbox egress watch .cedarbox/ledger --denied
    """
    chosen = directory or load_settings().audit.directory
    looks = iter((True, False))
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        records = follow(chosen, past=past or once, going_on=(lambda: next(looks)) if once else lambda: True)
        for record in records:
            if not _about_egress(record) or (denied and _verdict(record) not in {"deny", "cut"}):
                continue
            if as_json:
                sys.stdout.buffer.write(record.to_line())
                sys.stdout.flush()
            else:
                console.print(_line(record))
    except BrokenPipeError:
        raise typer.Exit(0) from None


def _about_egress(record: Record) -> bool:
    entry = record.entry
    return entry.event in _EVENTS or (entry.event == "decision" and entry.action in _ACTIONS)


def _verdict(record: Record) -> str:
    entry = record.entry
    if entry.event == "egress.revoked":
        return "cut"
    return entry.decision or "" if entry.event == "decision" else entry.event.removeprefix("egress.")


def _line(record: Record) -> Text:
    entry, attrs = record.entry, record.entry.attrs
    verdict = _verdict(record)
    facts = [f"{name} {attrs[name]}" for name in ("address", "bytes_out", "bytes_in", "milliseconds") if name in attrs]
    said = [*entry.policies, *facts, *([str(attrs["reason"])] if "reason" in attrs else [])]
    summary = attrs.get("summary")
    return Text.assemble(
        (record.time[11:23], "dim"),
        "  ",
        (f"{verdict:7}", _STYLES.get(verdict, "")),
        f"{entry.action or ''} {entry.resource or ''}{f' {summary}' if summary else ''}",
        (f"  {', '.join(said)}" if said else "", "dim"),
        (f"  {entry.session[:8]}" if entry.session else "", "dim"),
    )
